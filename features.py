"""Segments of recordings and their features, on any device, kept in the cache."""

import hashlib
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

import path
from audio import SAMPLE_RATE, SILENT, AudioError, decode, read_file
from audio import load_audio as load_audio  # recordings -> samples -> segments -> features, all from here
from cache import Rows, content_digests, kept
from cli import UserError, warn_once
from corpora import Utterance
from device import check_gpu, keep_freed_memory
from files import digest_file, digest_of

# Of the code that made them, as it was when this process began: features that other code has cached are made anew.
CODE = digest_of([digest_file(Path(__file__).with_name(file)) for file in ("audio.py", "features.py")])

# mfcc and melspectrogram
MFCC_FFT = 2048  # 128 ms
MFCC_HOP = 512  # 32 ms: 1.8 s are 1 + 28800 // 512 = 57 centred frames
MEL_FFT = 800  # 50 ms
MEL_HOP = 400  # 25 ms: 1.8 s are 1 + 28800 // 400 = 73 centred frames
MELS = 128
MFCC_FLOOR = 1e-10  # of power, before a logarithm: librosa's
TOP_DB = 80.0  # decibels kept under a segment's own maximum

# spectrogram, interspeech2018, fbank and logfbank
FRAME = 640  # 40 ms
STEP = 160  # 10 ms: 1.8 s are 1 + (28800 - 640) // 160 = 177 frames
DFT = 3198  # points of the transform of a zero-padded frame: bins of 16000 / 3198 = 5.003 Hz, 1600 of them
KEPT_BINS = 400  # up to 2 kHz
FBANK_FFT = 1024
FBANK = (26, SAMPLE_RATE / 2, torch.float32)  # filters, up to how many Hz, spectra in what
LOGFBANK = (40, 4000.0, torch.float64)
PREEMPHASIS = 0.97
MU = 255.0
FLOOR = 1e-30  # of power, before a logarithm

# VTLP
VTLP_FFT = 2048
VTLP_HOP = 512
VTLP_BOUNDARY = 4800.0  # Hz
VTLP_ROUNDS = 5


# --------------------------------------------------------------------------------------------------- segments


def segment_and_hop(length: float, overlap: float) -> tuple[int, int]:
    """Samples of a segment and between the starts of two. As published: both are truncated, so 1.8 s that overlap by
    1.6 s start every int(0.19999999999999996 * 16000) = 3199 samples."""
    if not (0 < length < math.inf and int(length * SAMPLE_RATE)):
        raise UserError(f"segment_length is {length} s, which holds no sample; 1.8 and 2 are the published ones")
    if not 0 <= overlap < length or not int((length - overlap) * SAMPLE_RATE):
        raise UserError(
            f"overlap is {overlap} s; it must be at least 0 and, by a sample or more, smaller than "
            f"segment_length, {length} s"
        )
    return int(length * SAMPLE_RATE), int((length - overlap) * SAMPLE_RATE)


def segment(
    wave: NDArray[np.float32], length: float = 1.8, overlap: float = 1.6, padding: bool = False
) -> NDArray[np.float32]:
    """Cut a wave `(N,)` into segments `(S, int(length * 16000))`, a read-only view where nothing is padded.

    `length` and `overlap` in seconds. A segment starts every `int((length - overlap) * 16000)` samples while a whole
    one fits. A shorter wave gives none, `(0, ..)`; with `padding` it is first repeated whole until one fits.
    Raises UserError for an overlap that is negative or not smaller than the segment.
    """
    size, hop = segment_and_hop(length, overlap)
    if padding and 0 < len(wave) < size:
        wave = np.tile(wave, math.ceil(size / len(wave)))
    if len(wave) < size:
        return np.empty((0, size), np.float32)
    return np.lib.stride_tricks.sliding_window_view(wave, size)[::hop]


# --------------------------------------------------------------------------------------------------- features


def _triangles(points: NDArray, edges: NDArray) -> NDArray[np.float64]:
    """Filters `(len(points), len(edges) - 2)` that rise from an edge to the next and fall to the one after it."""
    rise = (points[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - points[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rise, fall))


@lru_cache
def slaney_mel(n_fft: int, device: torch.device) -> Tensor:
    """librosa.filters.mel(sr=16000, n_fft=n_fft), transposed to `(bins, 128)`: triangles of equal area on Slaney's
    scale, which is linear to 1 kHz (15 mel) and then has 27 mel for each factor of 6.4."""
    mel = np.linspace(0, 15 + 27 * math.log(8) / math.log(6.4), MELS + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    filters = _triangles(np.linspace(0, SAMPLE_RATE / 2, 1 + n_fft // 2), edges) * 2 / (edges[2:] - edges[:-2])
    return torch.from_numpy(filters).float().to(device)


@lru_cache
def htk_mel(n_filters: int, highest: float, device: torch.device) -> Tensor:
    """python_speech_features.get_filterbanks(n_filters, 1024, 16000, 0, highest), transposed: triangles of equal height
    between whole bins that are evenly spaced on O'Shaughnessy's scale, up to `highest` Hz."""
    mel = np.linspace(0, 2595 * np.log10(1 + highest / 700), n_filters + 2)
    edges = np.floor((FBANK_FFT + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE)
    return torch.from_numpy(_triangles(np.arange(int(edges[-1]) + 1), edges)).float().to(device)


@lru_cache
def dct(n: int, device: torch.device) -> Tensor:
    """The first n vectors of the orthonormal DCT-II of 128 points, `(128, n)`."""
    angles = math.pi / MELS * (torch.arange(MELS, dtype=torch.float64)[:, None] + 0.5) * torch.arange(n)
    basis = angles.cos() * math.sqrt(2 / MELS)
    basis[:, 0] /= math.sqrt(2)
    return basis.float().to(device)


@lru_cache
def hann(n_fft: int, device: torch.device) -> Tensor:
    """The periodic Hann window `(n_fft,)`, rounded from double precision."""
    return torch.hann_window(n_fft, dtype=torch.float64).float().to(device)


def _power(spectrum: Tensor) -> Tensor:
    return spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag)


def _mel_power(x: Tensor, n_fft: int, hop: int) -> Tensor:
    """librosa.feature.melspectrogram of segments `(S, N)`, as `(S, T, 128)`."""
    frames = torch.nn.functional.pad(x, (n_fft // 2, n_fft // 2)).unfold(1, n_fft, hop)
    return _power(torch.fft.rfft(frames * hann(n_fft, x.device))) @ slaney_mel(n_fft, x.device)


def mfcc(x: Tensor, n_mfcc: int = 26) -> Tensor:
    """librosa.feature.mfcc(sr=16000, n_mfcc=n_mfcc) of each segment: `(S, N)` to `(S, n_mfcc, 1 + N // 512)`."""
    decibel = 10 * _mel_power(x, MFCC_FFT, MFCC_HOP).clamp(min=MFCC_FLOOR).log10()
    decibel = decibel.maximum(decibel.amax((1, 2), keepdim=True) - TOP_DB)  # of the segment, never of the batch
    return (decibel @ dct(n_mfcc, x.device)).transpose(1, 2)


def melspectrogram(x: Tensor) -> Tensor:
    """Logarithm (base 10) of librosa's mel power spectrogram of each segment: `(S, N)` to `(S, 128, 1 + N // 400)`."""
    return _mel_power(x, MEL_FFT, MEL_HOP).clamp(min=FLOOR).log10().transpose(1, 2)


def _whole_frames(x: Tensor) -> Tensor:
    """Zeros at the end until frames of 640 samples every 160 cover all of `x`, which is as many as there are."""
    steps = max(0, math.ceil((x.shape[1] - FRAME) / STEP))
    return torch.nn.functional.pad(x, (0, steps * STEP + FRAME - x.shape[1]))


def _groups(x: Tensor, rows: int = 2) -> tuple[Tensor, ...]:
    """Segments, or `rows` frames, in groups whose spectra stay in a processor's cache; on a GPU, all at once."""
    return x.split(len(x) if x.is_cuda else rows)


@lru_cache
def _block_dft(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The first 400 bins of the 3198-point transform of 160 samples, time counted from their middle: factors
    `(80, 400)` for what is even about it, which give the real part, and for what is odd, the imaginary one; and the
    complex factors `(400,)` that delay a block by 160 samples."""
    turn = torch.arange(KEPT_BINS, dtype=torch.float64) * (-2 * math.pi / DFT)
    angles = (torch.arange(STEP // 2) - (STEP - 1) / 2).double()[:, None] * turn
    delay = torch.polar(torch.ones_like(turn), STEP * turn)
    complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
    return angles.cos().to(device, dtype), angles.sin().to(device, dtype), delay.to(device, complex_dtype)


def kept_power(x: Tensor) -> Tensor:
    """The first 400 bins of |rfft(frame, 3198)|**2 of frames of 640 samples every 160: `(S, N)` to `(S, T, 400)`.

    A frame is four blocks of 160 samples, so its transform is the sum of theirs, each delayed by its place. A block is
    in four frames, and three bins of four are not wanted: this takes a fifth of the time of rfft, whose 3198 points are
    2 * 3 * 13 * 41.
    """
    cosines, sines, delay = _block_dft(x.dtype, x.device)
    powers = []
    for some in _groups(_whole_frames(x)):
        blocks = some.reshape(-1, STEP)
        first, last = blocks[:, : STEP // 2], blocks[:, STEP // 2 :].flip(1)
        spectra = torch.complex((first + last) @ cosines, (first - last) @ sines).view(len(some), -1, KEPT_BINS)
        pairs = torch.addcmul(spectra[:, :-1], delay, spectra[:, 1:])
        powers.append(_power(torch.addcmul(pairs[:, :-2], delay.square(), pairs[:, 2:])))
    return torch.cat(powers)


def _maximum(x: Tensor, kept: Tensor) -> Tensor:
    """Each segment's maximum of |rfft(frame, 3198)|**2 over all 1600 bins, `(S, 1, 1)`; `kept`: the first 400 bins.

    Only frames that may hold it are transformed at 3198 points; few do in speech. Two bounds tell which:
    - Parseval: the other 1200 bins sum to half of 3198 times the frame's energy, less what is kept of it;
    - M. Riesz: around its maximum a spectrum of 640 samples falls no faster than cos(320 w)**2, so that at the nearest
      of 2048 points it is at least cos(320 pi / 2048)**2 = 0.778 of it.
    """
    frames, top = _whole_frames(x).unfold(1, FRAME, STEP), kept.amax((1, 2)).float()
    others = frames.square().sum(2) * (DFT / 2) - kept[..., 1:].sum(2).float()

    def largest(of: Tensor, points: int) -> Tensor:
        """Of the frames of a mask, `(S, T)`; 0 of the others."""
        power = torch.zeros_like(others)
        if of.any():  # an FFT of no frames is an error
            power[of] = torch.cat([_power(torch.fft.rfft(some, points)).amax(1) for some in _groups(frames[of], 256)])
        return power

    coarse = largest(others > top[:, None], 2048)
    first = (coarse > 0) & (coarse == coarse.amax(1, keepdim=True))  # most likely it; if not, it rules out most others
    top = top.maximum(largest(first, DFT).amax(1))
    rest = (coarse > 0) & (coarse >= 0.77 * top[:, None]) & ~first
    return top.maximum(largest(rest, DFT).amax(1))[:, None, None]


def spectrogram(x: Tensor) -> Tensor:
    """Power spectrum of each segment in dB under its maximum, up to 2 kHz: `(S, N)` to `(S, 400, T)`.

    Frames of 640 samples every 160 without a window, 10 log10(max(|rfft(frame, 3198)|**2 / 3198, 1e-30)), less the
    segment's maximum over all 1600 bins; the first 400 bins.
    """
    power = kept_power(x.double())  # float32 would err by 0.02 dB between the harmonics of speech
    decibel, top = (p.float().div_(DFT).clamp_(min=FLOOR).log10_().mul_(10) for p in (power, _maximum(x, power)))
    return decibel.sub_(top).transpose(1, 2)


def interspeech2018(x: Tensor) -> Tensor:
    """Mu-law companded magnitude spectrum of each segment in -1 .. 1, up to 2 kHz: `(S, N)` to `(S, 400, T)`.

    The frames of `spectrogram`; y = 2 |rfft(frame, 3198)| / maximum - 1 with the segment's maximum over all 1600 bins,
    then sign(y) log(1 + 255 |y|) / log(256); the first 400 bins. Silence is -1.
    """
    power = kept_power(x)
    top = _maximum(x, power)
    y = (power / top.where(top > 0, 1)).sqrt_().mul_(2).sub_(1)
    return y.sign().mul_(y.abs_().mul_(MU).log1p_()).div_(math.log1p(MU)).transpose(1, 2)


def _filter_energies(x: Tensor, n_filters: int, highest: float, dtype: torch.dtype) -> Tensor:
    """The first output of python_speech_features 0.6 fbank(winlen=0.04, nfft=1024) of each segment."""
    filters = htk_mel(n_filters, highest, x.device)
    x = torch.cat((x[:, :1], x[:, 1:] - PREEMPHASIS * x[:, :-1]), 1)
    energies = []
    for some in _groups(_whole_frames(x).to(dtype)):
        power = _power(torch.fft.rfft(some.unfold(1, FRAME, STEP), FBANK_FFT)[..., : len(filters)])
        energies.append(power.float() @ filters / FBANK_FFT)
    whole = torch.cat(energies)
    return whole.where(whole != 0, torch.finfo(torch.float64).eps)  # as the package does


def logfbank(x: Tensor) -> Tensor:
    """python_speech_features 0.6 logfbank(winlen=0.04, nfft=1024, nfilt=40, highfreq=4000) of each segment: `(S, N)` to
    `(S, T, 40)`."""
    return _filter_energies(x, *LOGFBANK).log()


def fbank(x: Tensor) -> Tensor:
    """Energies of python_speech_features 0.6 fbank(winlen=0.04, nfft=1024) of each segment, 26 filters: `(S, N)` to
    `(S, T, 26)`."""
    return _filter_energies(x, *FBANK)


# segments (S, N) -> (S, F, T); as published, the last two (S, T, F)
FEATURES: dict[str, Callable[[Tensor], Tensor]] = {
    "mfcc": mfcc,
    "melspectrogram": melspectrogram,
    "spectrogram": spectrogram,
    "interspeech2018": interspeech2018,
    "logfbank": logfbank,
    "fbank": fbank,
}


def _function(name: str, n_mfcc: int) -> Callable[[Tensor], Tensor]:
    if name not in FEATURES:
        raise UserError(f"there is no feature {name}; choose one of {', '.join(FEATURES)}")
    if not 1 <= n_mfcc <= MELS:
        raise UserError(f"n_mfcc is {n_mfcc}; choose 1 to {MELS} coefficients")
    return partial(mfcc, n_mfcc=n_mfcc) if name == "mfcc" else FEATURES[name]


def _at_once(device: torch.device) -> int:
    """Segments to compute together: what fits the processor's cache, or fills the GPU."""
    return 16 if device.type == "cpu" else 64


@contextmanager
def _exact_products() -> Iterator[None]:
    """No TF32, which training allows itself: features are cached, so they must not depend on what ran before."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@torch.no_grad()
def extract(
    name: str, segments: NDArray | Tensor, n_mfcc: int = 26, device: str | torch.device | None = None
) -> Tensor:
    """The feature `name` of every segment: `(S, N)` samples at 16 kHz to `(S, F, T)` float32.

    Each segment is treated as if it were alone. Computed on `device`: the tensor's own, or the CPU, unless told.
    Raises UserError with the choices for an unknown feature.
    """
    if segments.ndim != 2:
        raise ValueError(f"segments must be (S, N), not {tuple(segments.shape)}")
    compute = _function(name, n_mfcc)
    where = torch.device(device or (segments.device if isinstance(segments, Tensor) else "cpu"))
    step = _at_once(where)
    if where.type == "cpu":
        keep_freed_memory()
    out = None
    with _exact_products():
        for start in range(0, max(1, len(segments)), step):
            some = segments[start : start + step] if len(segments) else np.zeros((1, segments.shape[1]), np.float32)
            x = some if isinstance(some, Tensor) else torch.from_numpy(np.array(some, np.float32))
            y = compute(x.to(where, torch.float32))
            if out is None:
                out = torch.empty((len(segments), *y.shape[1:]), device=where)
            out[start : start + step] = y[: len(out)]
    assert out is not None
    return out


# ------------------------------------------------------------------------------ vocal tract length perturbation


def _warped(hertz: Tensor, factor: float) -> Tensor:
    """Where a frequency goes, after Jaitly and Hinton (2013): f * factor up to the boundary, and from there straight to
    the Nyquist frequency, which stays."""
    nyquist, top = SAMPLE_RATE / 2, VTLP_BOUNDARY * min(factor, 1)
    boundary = top / factor
    above = nyquist - (nyquist - top) / (nyquist - boundary) * (nyquist - hertz)
    return torch.where(hertz <= boundary, hertz * factor, above)


def vtlp(wave: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Vocal tract length perturbation of a wave `(N,)` at 16 kHz: the same length, frequencies up to 4800 Hz times
    `factor`. Above 1 formants (and pitch) move up, as from a shorter vocal tract; 1 changes nothing.

    N. Jaitly, G. Hinton: Vocal Tract Length Perturbation (VTLP) improves speech recognition. ICML 2013 workshop. They
    warp filter banks; here magnitudes of the short-time spectrum (FFT 2048, hop 512) are warped and made a wave again:
    each bin's phase advances as its warped frequency says, and a few rounds of Griffin and Lim (1984) let frames agree.
    """
    if not 0 < factor < math.inf:
        raise ValueError(f"a frequency axis cannot be warped by {factor}")
    if len(wave) == 0:
        return wave
    x, bins = torch.from_numpy(np.array(wave)).double(), torch.arange(1 + VTLP_FFT // 2)
    window = torch.hann_window(VTLP_FFT, dtype=torch.float64)
    analyse = partial(
        torch.stft, n_fft=VTLP_FFT, hop_length=VTLP_HOP, window=window, pad_mode="constant", return_complex=True
    )
    resynthesise = partial(torch.istft, n_fft=VTLP_FFT, hop_length=VTLP_HOP, window=window, length=len(x))
    spectrum, hertz_per_bin = analyse(x), SAMPLE_RATE / VTLP_FFT
    # the bin, in fractions, that each bin of the warped spectrum comes from
    source = torch.from_numpy(np.interp(bins, _warped(bins.double() * hertz_per_bin, factor) / hertz_per_bin, bins))
    below = source.long().clamp(max=len(bins) - 2)
    magnitude = torch.lerp(spectrum.abs()[below], spectrum.abs()[below + 1], (source - below)[:, None])
    phase = spectrum.angle()[source.round().long()]
    cycles = phase.diff(dim=1) / (2 * math.pi)  # from frame to frame, but for whole ones, which the bin tells
    expected = source.round()[:, None] * VTLP_HOP / VTLP_FFT
    cycles = cycles + (expected - cycles).round()
    advance = _warped(cycles * SAMPLE_RATE / VTLP_HOP, factor) * (2 * math.pi * VTLP_HOP / SAMPLE_RATE)
    phase = torch.cat((phase[:, :1], phase[:, :1] + advance.cumsum(1)), 1)
    y = resynthesise(torch.polar(magnitude, phase))
    for _ in range(VTLP_ROUNDS):
        spectrum = analyse(y)
        y = resynthesise(spectrum * (magnitude / spectrum.abs().clamp(min=1e-30)))
    return y.float().numpy()


def vtlp_factors(seed: int, names: Sequence[str]) -> NDArray[np.float64]:
    """A warp factor for each utterance, uniform in 0.8 .. 1.2, from a generator of its own seeded by the run's seed.

    Drawn in the order of the sorted names, so that it does not matter in which order they are listed.
    """
    factors = np.empty(len(names))
    factors[np.argsort(np.array(names))] = np.random.default_rng(seed).uniform(0.8, 1.2, len(names))
    return factors


# --------------------------------------------------------------------------------------------- a corpus's features


@dataclass(frozen=True, eq=False)
class Store:
    """Features of every segment of a list of utterances."""

    x: NDArray[np.float32]  # (S, F, T), memory-mapped
    counts: NDArray[np.int64]  # (U,) segments of each utterance: 0 for one too short or broken
    starts: NDArray[np.int64]  # (U,) row of its first segment
    bad: list[tuple[str, str]]  # name and fault of each broken recording
    key: str  # digest of the settings and of every recording's contents
    digests: list[str]  # (U,) of each recording's contents; "" for one that cannot be read


def ahead(function: Callable[[Any], Any], items: Iterable[Any], threads: int = 1) -> Iterator[Any]:
    """`map`, computed in threads a few items ahead of whoever consumes it."""
    depth = max(8, 2 * threads)
    with ThreadPoolExecutor(threads) as executor:
        waiting: deque[Future] = deque()
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _batches(segments: Iterable[NDArray[np.float32]], size: int, rows: int) -> Iterator[NDArray[np.float32]]:
    """Segments of many utterances, `(S, size)` each, in arrays of `rows` segments; at least one array, maybe empty."""
    batch, filled = np.empty((rows, size), np.float32), 0
    for some in segments:
        while len(some):
            taken = some[: rows - filled]
            batch[filled : filled + len(taken)] = taken
            filled, some = filled + len(taken), some[len(taken) :]
            if filled == rows:
                yield batch
                filled = 0
    yield batch[:filled]


def _wave_of(utterance: Utterance, digest: str) -> NDArray[np.float32] | str:
    """The wave, or what is wrong with it. The bytes decoded are those that were digested."""
    data, fault = None, ""
    try:
        data = read_file(utterance.path)
    except AudioError as error:
        fault = str(error)
    if digest != ("" if data is None else hashlib.blake2b(data, digest_size=16).hexdigest()):
        raise UserError(f"{utterance.path} changed while it was read; run the same command again")
    if data is None:
        return fault
    try:
        return decode(data)
    except ValueError as error:
        return f"{utterance.path}: {error}"


def _refuse(bad: Sequence[Sequence[str]], listed: int = 20) -> None:
    if bad:
        lines = [fault for _, fault in bad[:listed]] + [f"and {len(bad) - listed} more"] * (len(bad) > listed)
        count = "1 recording" if len(bad) == 1 else f"{len(bad)} recordings"
        raise AudioError("\n  ".join([f"{count} cannot be used; --skip_bad leaves such out:", *lines]))


def _segments(
    utterances: Sequence[Utterance], digests: Sequence[str], title: str, cut: Callable[..., NDArray[np.float32]],
    skip_bad: bool, notes: dict[str, list[Any]],
) -> Iterator[NDArray[np.float32]]:  # fmt: skip
    """The segments of each recording, `(S, size)`; `notes` take their `counts`, and the `bad` and `silent` ones."""
    waves = ahead(lambda row: _wave_of(*row), zip(utterances, digests, strict=True))
    bar = tqdm(waves, title, len(utterances), unit=" utterances", delay=1, disable=None)
    for utterance, wave in zip(utterances, bar, strict=True):
        if isinstance(wave, str):
            notes["bad"].append((utterance.name, wave))
            wave = np.empty(0, np.float32)
        elif np.abs(wave).max(initial=0) < SILENT:
            notes["silent"].append(utterance.name)
        if notes["bad"] and not skip_bad:  # all that is left to do is to find the other broken ones
            wave = wave[:0]
        segments = cut(wave)
        notes["counts"].append(len(segments))
        yield segments


def load(
    utterances: Sequence[Utterance], feature: str, length: float, overlap: float, n_mfcc: int = 26,
    padding: bool = False, device: str | torch.device = "cpu", skip_bad: bool = False,
) -> Store:  # fmt: skip
    """Features of every segment of every utterance, in order: extracted once, then memory-mapped from the cache.

    `length` and `overlap` of segments in seconds. What is kept is found by all of these, the device's type and every
    recording's contents, and is extracted in bounded memory.
    Raises AudioError listing the broken recordings unless `skip_bad` leaves them out, UserError for an unknown feature,
    impossible segments or recordings that change meanwhile, and OSError naming the path if the cache cannot be written.
    """
    _function(feature, n_mfcc)
    size, hop = segment_and_hop(length, overlap)
    digests = content_digests([u.path for u in utterances])
    settings = {"code": CODE, "feature": feature, "n_mfcc": n_mfcc if feature == "mfcc" else None, "size": size,
                "hop": hop, "padding": padding, "device": torch.device(device).type}  # fmt: skip
    names = [u.name for u in utterances]
    key = digest_of([settings, list(zip(names, digests, strict=True))])

    def make(rows: Rows) -> dict[str, Any]:
        notes: dict[str, list[Any]] = {"counts": [], "bad": [], "silent": []}
        if torch.device(device).type == "cuda":
            check_gpu()
        cut = partial(segment, length=length, overlap=overlap, padding=padding)
        segments = _segments(utterances, digests, feature, cut, skip_bad, notes)
        for batch in _batches(segments, size, 8 * _at_once(torch.device(device))):
            rows.append(extract(feature, batch, n_mfcc, device).cpu().numpy())
        if not skip_bad:
            _refuse(notes["bad"])
        return {"settings": settings, **notes}

    x, notes = kept(path.CACHE / "features" / key, make)
    bad = [(name, fault) for name, fault in notes["bad"]]
    if bad:  # features may have been kept when the corpus lay elsewhere
        row = {name: row for row, name in enumerate(names)}
        now = [_wave_of(utterances[row[name]], digests[row[name]]) for name, _ in bad]
        bad = [(name, new if isinstance(new, str) else old) for (name, old), new in zip(bad, now, strict=True)]
    if not skip_bad:
        _refuse(bad)
    if silent := notes["silent"]:
        warn_once(f"{len(silent)} of {len(names)} recordings hold nothing but silence, as {silent[0]}")
    counts = np.array(notes["counts"], dtype=np.int64)
    return Store(x, counts, np.cumsum(counts) - counts, bad, key, digests)
