"""Segments, features and VTLP against librosa, python_speech_features and their definitions."""

import itertools
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import librosa
import numpy as np
import pytest
import python_speech_features as psf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.signal import lfilter, welch

import features
from audio import load_audio
from cli import UserError
from features import FEATURES, MFCCS, extract, segment, vtlp, vtlp_factors

N = 28800

pytestmark = pytest.mark.usefixtures("one_thread")


def resonances(source: np.ndarray, formants: tuple[tuple[float, float], ...]) -> np.ndarray:
    for hertz, bandwidth in formants:
        radius = math.exp(-math.pi * bandwidth / 16000)
        source = lfilter([1 - radius], [1, -2 * radius * math.cos(2 * math.pi * hertz / 16000), radius**2], source)
    return source


def speech(seed: int, n: int = N) -> np.ndarray:
    """Pulses of a gliding pitch through three formants, syllables long, with breath and pauses."""
    rng, t = np.random.default_rng(seed), np.arange(n) / 16000
    phase = np.cumsum(rng.uniform(90, 220) * (1 + 0.2 * np.sin(2 * np.pi * t + seed))) / 16000
    source = np.diff(np.floor(phase), prepend=0) + 0.01 * rng.standard_normal(n)
    wave = resonances(source, ((500 + 50 * seed, 80), (1500, 120), (2500, 160)))
    wave = wave * np.clip(np.sin(2 * np.pi * 2.1 * t + seed), 0.001, None) + 1e-5 * rng.standard_normal(n)
    return (0.5 * wave / np.abs(wave).max()).astype(np.float32)


def signals(n: int = N) -> dict[str, np.ndarray]:
    noise, t = np.random.default_rng(0).standard_normal(n), np.arange(n) / 16000
    click = np.zeros(n)
    click[n // 2] = 1
    waves = {
        "noise": 0.1 * noise,
        "speech": speech(1, n),
        "faint speech": 1e-6 * speech(2, n),
        "faint noise": 1e-6 * noise,
        "loud": 30 * speech(3, n),
        "silence": np.zeros(n),
        "click": click,
        "half silent": noise * (t > t[-1] / 2),
        "loud then quiet": speech(4, n) * np.where(t < t[-1] / 2, 1, 1e-4),
        "hiss": 0.1 * lfilter([1, -1], [1], noise),
        "whistle": 0.5 * np.sin(2 * np.pi * 5213.7 * t) + 1e-3 * noise,
        "constant": np.full(n, 0.5),
        "tone": 0.5 * np.sin(2 * np.pi * 440.3 * t),
    }
    return {name: wave.astype(np.float32) for name, wave in waves.items()}


# Under the side lobes of these, our float32 FFTs leave rounding errors; librosa's FFTs are of double precision
ILL_CONDITIONED = {("melspectrogram", "constant"), ("melspectrogram", "tone")}


def frames(x: np.ndarray) -> np.ndarray:
    steps = max(0, math.ceil((len(x) - 640) / 160))
    x = np.pad(x.astype(np.float64), (0, steps * 160 + 640 - len(x)))
    return np.lib.stride_tricks.sliding_window_view(x, 640)[::160]


def spectrogram(x: np.ndarray) -> np.ndarray:
    decibel = 10 * np.log10(np.maximum(np.abs(np.fft.rfft(frames(x), 3198)) ** 2 / 3198, 1e-30))
    return (decibel - decibel.max())[:, :400].T


def interspeech2018(x: np.ndarray) -> np.ndarray:
    magnitude = np.abs(np.fft.rfft(frames(x), 3198))
    y = magnitude / (magnitude.max() or 1) * 2 - 1
    return (np.sign(y) * np.log1p(255 * np.abs(y)) / np.log1p(255))[:, :400].T


def melspectrogram(x: np.ndarray) -> np.ndarray:
    mel = librosa.feature.melspectrogram(y=x, sr=16000, n_fft=800, hop_length=400, n_mels=128)
    return np.log10(np.maximum(mel, 1e-30))


REFERENCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "mfcc": lambda x: librosa.feature.mfcc(y=x, sr=16000, n_mfcc=26),
    "melspectrogram": melspectrogram,
    "spectrogram": spectrogram,
    "interspeech2018": interspeech2018,
    "logfbank": lambda x: psf.logfbank(x, winlen=0.04, nfft=1024, nfilt=40, highfreq=4000),
    "fbank": lambda x: psf.fbank(x, winlen=0.04, nfft=1024)[0],
    "mfcc_reflect": lambda x: librosa.feature.mfcc(y=x, sr=16000, n_mfcc=26, pad_mode="reflect"),
}


def assert_same(name: str, ours: np.ndarray, theirs: np.ndarray, what: str = "") -> None:
    """Within 1e-2 (MFCCs), 2e-6 of the range (spectra in double precision) or 1e-4 of it; within float32's rounding of
    decibels where the range is nothing."""
    assert ours.shape == theirs.shape and ours.dtype == np.float32, what
    share = 2e-6 if name in ("spectrogram", "logfbank") else 1e-4
    tolerance = 1e-2 if name in MFCCS else max(share * np.ptp(theirs), 1e-5 * (name != "fbank"))
    assert np.abs(ours - theirs).max() <= tolerance, what


# --------------------------------------------------------------------------------------------------- segments


@pytest.mark.parametrize(("length", "overlap", "size", "hop"), [
    (1.8, 1.6, 28800, 3199), (2, 1.6, 32000, 6399), (2, 1, 32000, 16000), (1.8, 0, 28800, 28800),
    (1.8, 0.9, 28800, 14400),
])  # fmt: skip
def test_segments_start_where_published_ones_do(length: float, overlap: float, size: int, hop: int) -> None:
    wave = np.arange(100000, dtype=np.float32)
    cut = segment(wave, length, overlap)
    assert cut.shape == (1 + (100000 - size) // hop, size)
    assert cut[:, 0].tolist() == [i * hop for i in range(len(cut))]
    assert np.shares_memory(cut, wave) and not cut.flags.writeable


@given(n=st.integers(0, 90000), length=st.floats(0.1, 3), part=st.floats(0, 0.95), padding=st.booleans())
@settings(max_examples=100, deadline=None)
def test_every_segment_that_fits_is_there(n: int, length: float, part: float, padding: bool) -> None:
    wave = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    cut = segment(wave, length, length * part, padding)
    size, hop = int(length * 16000), int((length - length * part) * 16000)
    if padding and 0 < n < size:
        wave = np.concatenate([wave] * -(-size // n))
    expected = [wave[start : start + size] for start in range(0, len(wave) - size + 1, hop)]
    assert cut.shape == (len(expected), size)
    assert all(np.array_equal(a, b) for a, b in zip(cut, expected, strict=True))


def test_padding_repeats_whole_utterances() -> None:
    wave = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    assert segment(wave).shape == (0, 28800)
    padded = segment(wave, padding=True)
    assert np.array_equal(padded, segment(np.tile(wave, 2))) and len(padded) == 2
    assert segment(wave[:0], padding=True).shape == (0, 28800)


@pytest.mark.parametrize(("length", "overlap", "named"), [
    (1.8, 1.8, "overlap"), (1.8, 2, "overlap"), (1.8, -0.1, "overlap"), (1.8, math.nan, "overlap"),
    (1.8, 1.79999, "overlap"), (0, 0, "segment_length"), (-1, -2, "segment_length"), (math.inf, 0, "segment_length"),
    (math.nan, 0, "segment_length"), (1e-5, 0, "segment_length"),
])  # fmt: skip
def test_impossible_segments_are_named(length: float, overlap: float, named: str) -> None:
    with pytest.raises(UserError, match=f"^{named} is"):
        segment(np.zeros(50000, np.float32), length, overlap)


# --------------------------------------------------------------------------------------------------- features


@pytest.mark.parametrize("n", [28800, 32000, 30011, 640, 100])
@pytest.mark.parametrize("name", REFERENCES)
def test_every_segment_is_as_if_alone(name: str, n: int) -> None:
    waves = signals(n)
    batch = extract(name, np.stack(list(waves.values()))).numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # librosa: n_fft is larger than the shortest waves
        for (kind, wave), ours in zip(waves.items(), batch, strict=True):
            if (name, kind) not in ILL_CONDITIONED:
                assert_same(name, ours, REFERENCES[name](wave), kind)


@pytest.mark.parametrize("kind", ["constant", "tone"])
def test_mel_spectrogram_of_pure_tones_where_there_is_more_than_our_rounding(kind: str) -> None:
    wave = signals()[kind]
    ours, theirs = extract("melspectrogram", wave[None])[0].numpy(), melspectrogram(wave)
    heard = theirs > theirs.max() - 8
    assert np.abs(ours - theirs)[heard].max() < 1e-4 * np.ptp(theirs)
    assert (ours[~heard] < theirs.max() - 7.9).all()


@pytest.mark.parametrize(("name", "shape", "shape2"), [
    ("mfcc", (26, 57), (26, 63)), ("melspectrogram", (128, 73), (128, 81)), ("spectrogram", (400, 177), (400, 197)),
    ("interspeech2018", (400, 177), (400, 197)), ("logfbank", (177, 40), (197, 40)), ("fbank", (177, 26), (197, 26)),
    ("mfcc_reflect", (26, 57), (26, 63)),
])  # fmt: skip
def test_shapes(name: str, shape: tuple[int, int], shape2: tuple[int, int]) -> None:
    for size, expected in ((28800, shape), (32000, shape2)):
        for count in (0, 1, 7):
            y = extract(name, np.zeros((count, size), np.float32))
            assert y.shape == (count, *expected) and y.dtype == torch.float32 and y.is_contiguous()


@pytest.mark.parametrize(("name", "value"), [
    ("melspectrogram", -30), ("spectrogram", 0), ("interspeech2018", -1), ("logfbank", math.log(2.0**-52)),
    ("fbank", 2.0**-52),
])  # fmt: skip
def test_silence(name: str, value: float) -> None:
    assert np.allclose(extract(name, np.zeros((1, N), np.float32)), value, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", FEATURES)
def test_what_segments_may_be(name: str) -> None:
    view = segment(speech(5, 60000))
    expected = extract(name, np.array(view))
    assert len(view) == 10
    for given_as in (view, view.astype(np.float64), torch.from_numpy(np.array(view)), torch.tensor(view).double()):
        assert torch.equal(extract(name, given_as, device="cpu"), expected)


def test_n_mfcc_and_unknown_names() -> None:
    wave = speech(6)
    for (name, mode), n in itertools.product(zip(MFCCS, ("constant", "reflect"), strict=True), (1, 13, 40, 128)):
        theirs = librosa.feature.mfcc(y=wave, sr=16000, n_mfcc=n, pad_mode=mode)
        assert_same(name, extract(name, wave[None], n)[0].numpy(), theirs)
    for n in (0, 129):
        with pytest.raises(UserError, match="n_mfcc"):
            extract("mfcc", wave[None], n)
    with pytest.raises(UserError, match="no feature mffc; choose one of mfcc, mfcc_reflect, melspectrogram"):
        extract("mffc", wave[None])
    with pytest.raises(ValueError, match="segments must be"):
        extract("mfcc", wave)


@given(chosen=st.lists(st.tuples(st.integers(0, 12), st.integers(-6, 1)), min_size=1, max_size=9))
@settings(max_examples=20, deadline=None)
@pytest.mark.parametrize("name", FEATURES)
def test_batches_do_not_matter(name: str, chosen: list[tuple[int, int]]) -> None:
    kinds = list(signals(8000).values())
    batch = np.stack([kinds[kind] * np.float32(10.0**gain) for kind, gain in chosen])
    together = extract(name, batch)
    for row, ours in zip(batch, together, strict=True):
        alone = extract(name, row[None])[0]
        # a matrix product adds in another order for another size, which shows where a tone leaves nothing but rounding
        spread = float(alone.max() - alone.min())
        loud = alone > alone.max() - 8 if name == "melspectrogram" else torch.ones_like(alone, dtype=torch.bool)
        assert (ours - alone)[loud].abs().max() <= 1e-5 * spread + 1e-3 * (name in MFCCS) + 1e-6


@given(size=st.integers(1, 5000), n=st.integers(0, 3000))
@settings(max_examples=100, deadline=None)
def test_reflection_is_numpys(size: int, n: int) -> None:
    positions = features.reflected(size, n, torch.device("cpu"))
    assert np.array_equal(positions, np.pad(np.arange(size), n, mode="reflect"))


def test_filters_are_the_libraries() -> None:
    cpu = torch.device("cpu")
    for n_fft in (800, 2048):
        theirs = librosa.filters.mel(sr=16000, n_fft=n_fft)
        assert np.allclose(features.slaney_mel(n_fft, cpu).T, theirs, rtol=1e-5, atol=1e-8)
    for count, highest in ((40, 4000.0), (26, 8000.0)):
        ours = features.htk_mel(count, highest, cpu).numpy().T
        theirs = psf.get_filterbanks(count, 1024, 16000, 0, highest).astype(np.float32)
        assert np.array_equal(ours, theirs[:, : ours.shape[1]]) and not theirs[:, ours.shape[1] :].any()


@given(
    st.lists(st.tuples(st.floats(1900, 8000), st.floats(0, 6.3), st.floats(-3, 0)), min_size=1, max_size=4),
    st.floats(-6, 0),
    st.integers(0, 2**32 - 1),
    st.integers(640, 3000),
)
@settings(max_examples=150, deadline=None)
def test_the_maximum_over_all_bins_is_found(tones: list, noise: float, seed: int, n: int) -> None:
    """Frames are ruled out by bounds: no tone between bins, at the edges of the band or in noise may slip through."""
    t = np.arange(n) / 16000
    wave = sum(10**level * np.sin(2 * np.pi * hertz * t + phase) for hertz, phase, level in tones)
    x = torch.from_numpy(wave + 10**noise * np.random.default_rng(seed).standard_normal(n)).float()[None]
    x[:, n // 2 :] *= 0.9
    found = features._maximum(x, features.kept_power(x)).item()
    assert found == pytest.approx((np.abs(np.fft.rfft(frames(x[0].numpy()), 3198)) ** 2).max(), rel=1e-5)


def test_the_maximum_is_found_where_the_coarse_points_are_lower_than_elsewhere() -> None:
    """Bursts at both ends of a frame: the spectrum falls steeply around its maximum, which lies between two of the 2048
    points. A tone on one of those, almost as loud, is the maximum of the points."""
    t = np.arange(640)
    bursts = np.cos(2 * np.pi * 2511.75 / 16000 * (t - 319.5)) * ((t < 110) | (t >= 530))
    tone = np.sin(2 * np.pi * 5000 / 16000 * t)

    def highest(wave: np.ndarray, points: int) -> float:
        return (np.abs(np.fft.rfft(wave, points)) ** 2).max()

    tone *= math.sqrt(0.99 * highest(bursts, 3198) / highest(tone, 3198))
    assert highest(bursts, 2048) < 0.86 * highest(tone, 3198)
    x = torch.from_numpy(np.concatenate((bursts, np.zeros(640), tone))).float()[None]
    found = features._maximum(x, features.kept_power(x)).item()
    assert found == pytest.approx(highest(bursts, 3198), rel=1e-5)


@pytest.mark.slow
def test_the_maximum_is_found_in_the_worst_frame_there_is() -> None:
    """The frame whose largest value at the 2048 points is the smallest share of its maximum, by linear programming."""
    bins = np.arange(500, 1500)
    between = bins[np.abs(bins * 2048 / 3198 % 1 - 0.5).argmin()]  # the most even between two of the points

    def spectrum(angles: np.ndarray) -> np.ndarray:  # of a symmetric frame, by its second half
        return 2 * np.cos(np.outer(angles, np.arange(320) + 0.5))

    points = spectrum(np.arange(1025) * 2 * np.pi / 2048)
    best = linprog(
        -spectrum(between * 2 * np.pi / 3198)[0],
        np.vstack((points, -points)),
        np.ones(2 * len(points)),
        bounds=(None, None),
    )
    worst = np.concatenate((best.x[::-1], best.x))
    wanted = (np.abs(np.fft.rfft(worst, 3198)) ** 2).max()
    assert 0.79 < (np.abs(np.fft.rfft(worst, 2048)) ** 2).max() / wanted < 0.793
    tone = np.sin(2 * np.pi * 5000 / 16000 * np.arange(640)) * math.sqrt(0.95 * wanted) / 320  # looked at first
    x = torch.from_numpy(np.concatenate((worst, np.zeros(640), tone))).float()[None]
    assert features._maximum(x, features.kept_power(x)).item() == pytest.approx(wanted, rel=1e-5)


def test_emodb_matches_the_reference_numbers(golden: dict, emodb_iemocap: Path) -> None:
    for item in golden["features"]["items"]:
        name, utterance = item["feature"], item["utt"]
        (file,) = emodb_iemocap.glob(f"Session?/sentences/wav/*/{utterance}.wav")
        y = extract(name, segment(load_audio(file), item["length"], item["overlap"])).numpy()
        what = f"{name} of {utterance}"
        assert list(y.shape) == item["shape"], what
        tolerance = 1e-2 if name == "mfcc" else 1e-4 * (item["max"] - item["min"])
        probe = y.ravel()[:: y.size // 16][: len(item["probe"])]
        for ours, theirs in ((probe, item["probe"]), (y.mean((1, 2)), item["per_segment_mean"]), (y.min(), item["min"]),
                             (y.max(), item["max"]), (y.mean(), item["mean"]), (y.std(), item["std"])):  # fmt: skip
            assert np.abs(np.asarray(ours, np.float64) - theirs).max() <= tolerance, what


@pytest.mark.parametrize("name", REFERENCES)
def test_real_segments_match_the_libraries(name: str, emodb: Path) -> None:
    for file in sorted(emodb.glob("*.wav"))[::107]:
        cut = segment(load_audio(file), 1.8, 1)
        for ours, wave in zip(extract(name, cut).numpy(), cut, strict=True):
            assert_same(name, ours, REFERENCES[name](np.array(wave)), file.name)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", REFERENCES)
def test_gpu_matches_cpu(name: str) -> None:
    batch = np.stack([wave for kind, wave in signals().items() if (name, kind) not in ILL_CONDITIONED] * 10)
    gpu, cpu = extract(name, batch, device="cuda").cpu().numpy(), extract(name, batch).numpy()
    for ours, theirs in zip(gpu, cpu, strict=True):
        assert_same(name, ours, theirs)


# ------------------------------------------------------------------------------ vocal tract length perturbation


def peak(wave: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 2**18))
    return float(spectrum.argmax() * 16000 / 2**18)


@pytest.mark.parametrize("factor", [0.8, 0.93, 1.07, 1.2])
@pytest.mark.parametrize("hertz", [150, 1000, 3500, 7000])
def test_vtlp_moves_a_tone(hertz: float, factor: float) -> None:
    wave = (0.5 * np.sin(2 * np.pi * hertz * np.arange(32000) / 16000)).astype(np.float32)
    warped = vtlp(wave, factor)
    edge = 4800 * min(factor, 1)  # where the boundary goes; from there straight to 8000
    above = 8000 - (8000 - edge) / (8000 - edge / factor) * (8000 - hertz)
    expected = hertz * factor if hertz * factor <= edge else above
    assert peak(warped) == pytest.approx(expected, abs=1)
    assert 0.7 < np.linalg.norm(warped) / np.linalg.norm(wave) < 1.2
    assert (peak(warped) > hertz) == (factor > 1)


@pytest.mark.parametrize("factor", [0.85, 1.15])
def test_vtlp_moves_formants(factor: float) -> None:
    wave = resonances(np.random.default_rng(0).standard_normal(80000), ((700, 60), (1800, 90))).astype(np.float32)

    def formants(wave: np.ndarray) -> list[float]:
        hertz, power = welch(wave, 16000, nperseg=512)
        decibel = np.log(power)
        tops = [i for i in range(2, len(hertz) - 2) if decibel[i] == decibel[max(0, i - 12) : i + 13].max()]
        return [float(hertz[i]) for i in tops if 300 < hertz[i] < 2600]

    before, after = formants(wave), formants(vtlp(wave, factor))
    assert before == pytest.approx([700, 1800], abs=40)
    assert after == pytest.approx([700 * factor, 1800 * factor], abs=45)


def test_vtlp_of_factor_one_changes_nothing() -> None:
    for wave in (speech(7), signals(5000)["noise"], signals(5000)["click"], signals(5000)["silence"]):
        same = vtlp(wave, 1)
        assert same.dtype == np.float32 and np.abs(same - wave).max() < 1e-6


@pytest.mark.parametrize("n", [0, 1, 100, 511, 512, 2047, 2048, 2049, 30011])
def test_vtlp_keeps_the_length(n: int) -> None:
    wave = speech(8, 40000)[:n]
    warped = vtlp(wave, 1.1)
    assert warped.shape == (n,) and warped.dtype == np.float32 and np.isfinite(warped).all()


def test_vtlp_keeps_time() -> None:
    wave = np.zeros(48000, np.float32)
    wave[16000:24000] = 0.1 * np.random.default_rng(0).standard_normal(8000)
    for factor in (0.8, 1.2):
        energy = vtlp(wave, factor) ** 2
        assert energy[15000:25000].sum() > 0.97 * energy.sum()


@pytest.mark.parametrize("factor", [0, -1, math.nan, math.inf])
def test_impossible_warps(factor: float) -> None:
    with pytest.raises(ValueError, match="cannot be warped"):
        vtlp(speech(9), factor)


def test_vtlp_factors() -> None:
    names = [f"utterance{i:04d}" for i in range(4000)]
    np.random.seed(1)
    torch.manual_seed(1)
    factors = vtlp_factors(2602656884, names)
    assert np.random.random() == np.random.RandomState(1).random() and torch.initial_seed() == 1
    assert factors.shape == (4000,) and 0.8 <= factors.min() < 0.81 and 1.19 < factors.max() <= 1.2
    assert abs(factors.mean() - 1) < 0.01
    assert np.array_equal(factors, vtlp_factors(2602656884, names))
    assert np.array_equal(factors[::-1], vtlp_factors(2602656884, names[::-1]))
    assert not np.array_equal(factors, vtlp_factors(1, names))


def test_vtlp_is_that_of_the_first_version() -> None:
    """A seed means the same copies for ever: runs of AACNN could not be repeated otherwise."""
    factors = vtlp_factors(7, ["b", "a", "c"])
    assert factors == pytest.approx([1.158886, 1.050038, 1.110274], abs=1e-6)
    assert vtlp(speech(8, 16000), factors[0])[4000::4000] == pytest.approx([0.022233, -0.199443, 0.012418], abs=1e-5)
