"""Segments of recordings and their features, which are computed on any device and kept in the cache."""

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
from audio import load_audio as load_audio  # re-exported: each step from a recording to its features is here
from cache import Rows, content_digests, kept
from cli import UserError, warn_once
from corpora import Utterance
from device import check_gpu, keep_freed_memory
from files import digest_file, digest_of

# Digest of the code that makes features, as it was when this process began; features made by other code are not used.
CODE = digest_of([digest_file(Path(__file__).with_name(file)) for file in ("audio.py", "features.py")])

# mfcc, mfcc_reflect and melspectrogram
MFCC_FFT = 2048  # 128 ms
MFCC_HOP = 512  # 32 ms: 1.8 s are 1 + 28800 // 512 = 57 centred frames
MEL_FFT = 800  # 50 ms
MEL_HOP = 400  # 25 ms: 1.8 s are 1 + 28800 // 400 = 73 centred frames
MELS = 128
MEL_GROUP = 32  # so many neighbouring mel bands are computed at once, from those bins alone that they cover
MFCC_FLOOR = 1e-10  # smaller powers are raised to it before a logarithm, as in librosa
TOP_DB = 80.0  # dB; values that lie further under their segment's maximum are raised to that distance

# spectrogram, interspeech2018, fbank and logfbank
FRAME = 640  # 40 ms
STEP = 160  # 10 ms: 1.8 s are 1 + (28800 - 640) // 160 = 177 frames
DFT = 3198  # points of a zero-padded frame's transform: 1600 bins, which lie 16000 / 3198 = 5.003 Hz apart
KEPT_BINS = 400  # up to 2 kHz
FBANK_FFT = 1024
FBANK = (26, SAMPLE_RATE / 2, torch.float32)  # number of filters, highest frequency in Hz, precision of the spectra
LOGFBANK = (40, 4000.0, torch.float64)
PREEMPHASIS = 0.97
MU = 255.0
FLOOR = 1e-30  # smaller powers are raised to it before a logarithm

# VTLP
VTLP_FFT = 2048
VTLP_HOP = 512
VTLP_BOUNDARY = 4800.0  # Hz; up to here, a frequency is multiplied by the factor
VTLP_ROUNDS = 5


# --------------------------------------------------------------------------------------------------- segments


def segment_and_hop(length: float, overlap: float) -> tuple[int, int]:
    """Return how many samples a segment has and how many lie between the starts of two, for seconds. As published, both
    are truncated: segments of 1.8 s that overlap by 1.6 s start every int(0.19999999999999996 * 16000) = 3199 samples.
    Raises UserError for a segment without a sample, and for an overlap that is negative or not smaller than it."""
    if not (0 < length < math.inf and int(length * SAMPLE_RATE)):
        raise UserError(f"segment_length is {length} s, which holds no sample; the published lengths are 1.8 and 2 s")
    if not 0 <= overlap < length or not int((length - overlap) * SAMPLE_RATE):
        raise UserError(
            f"overlap is {overlap} s; it must be at least 0, and smaller than segment_length ({length} s) by one "
            "sample or more"
        )
    return int(length * SAMPLE_RATE), int((length - overlap) * SAMPLE_RATE)


def segment(
    wave: NDArray[np.float32], length: float = 1.8, overlap: float = 1.6, padding: bool = False
) -> NDArray[np.float32]:
    """Cut a wave `(N,)` into segments `(S, int(length * 16000))`, a read-only view unless the wave is padded.

    `length` and `overlap` are in seconds. A segment starts every `int((length - overlap) * 16000)` samples, as long as
    a whole one fits. A wave shorter than a segment gives none, `(0, ..)`; with `padding`, whole copies of the wave are
    first joined until a segment fits. Raises UserError for lengths that `segment_and_hop` refuses.
    """
    size, hop = segment_and_hop(length, overlap)
    if padding and 0 < len(wave) < size:
        wave = np.tile(wave, math.ceil(size / len(wave)))
    if len(wave) < size:
        return np.empty((0, size), np.float32)
    return np.lib.stride_tricks.sliding_window_view(wave, size)[::hop]


# --------------------------------------------------------------------------------------------------- features


def _triangles(points: NDArray, edges: NDArray) -> NDArray[np.float64]:
    """Return filters `(len(points), len(edges) - 2)`; each rises from one edge to the next and falls to the third."""
    rise = (points[:, None] - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - points[:, None]) / (edges[2:] - edges[1:-1])
    return np.maximum(0, np.minimum(rise, fall))


def slaney_mel(n_fft: int, device: torch.device) -> Tensor:
    """Return librosa.filters.mel(sr=16000, n_fft=n_fft), transposed to `(bins, 128)`: triangles of equal area on
    Slaney's scale, which is linear up to 1 kHz (15 mel) and has 27 mel for each factor of 6.4 above."""
    mel = np.linspace(0, 15 + 27 * math.log(8) / math.log(6.4), MELS + 2)
    edges = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    filters = _triangles(np.linspace(0, SAMPLE_RATE / 2, 1 + n_fft // 2), edges) * 2 / (edges[2:] - edges[:-2])
    return torch.from_numpy(filters).float().to(device)


@lru_cache
def htk_mel(n_filters: int, highest: float, device: torch.device) -> Tensor:
    """Return python_speech_features.get_filterbanks(n_filters, 1024, 16000, 0, highest), transposed, for the bins up to
    `highest` Hz: triangles of equal height, whose edges are evenly spaced on O'Shaughnessy's scale, then rounded down
    to whole bins."""
    mel = np.linspace(0, 2595 * np.log10(1 + highest / 700), n_filters + 2)
    edges = np.floor((FBANK_FFT + 1) * 700 * (10 ** (mel / 2595) - 1) / SAMPLE_RATE)
    return torch.from_numpy(_triangles(np.arange(int(edges[-1]) + 1), edges)).float().to(device)


@lru_cache
def dct(n: int, device: torch.device) -> Tensor:
    """Return the first n vectors of the orthonormal DCT-II of 128 points, as columns `(128, n)`."""
    angles = math.pi / MELS * (torch.arange(MELS, dtype=torch.float64)[:, None] + 0.5) * torch.arange(n)
    basis = angles.cos() * math.sqrt(2 / MELS)
    basis[:, 0] /= math.sqrt(2)
    return basis.float().to(device)


@lru_cache
def hann(n_fft: int, device: torch.device) -> Tensor:
    """Return the periodic Hann window `(n_fft,)` in float32, rounded from double precision."""
    return torch.hann_window(n_fft, dtype=torch.float64).float().to(device)


@lru_cache
def _mel_groups(n_fft: int, device: torch.device) -> tuple[tuple[slice, Tensor], ...]:
    """Return the filters of `slaney_mel` in groups of 32 bands: the bins that a group covers, and its filters there."""
    groups = []
    for filters in slaney_mel(n_fft, device).split(MEL_GROUP, dim=1):
        covered = filters.any(1).nonzero()
        bins = slice(int(covered[0]), int(covered[-1]) + 1)
        groups.append((bins, filters[bins].contiguous()))
    return tuple(groups)


def _power(spectrum: Tensor) -> Tensor:
    """Return |spectrum|**2; the spectrum is overwritten, which saves a third of the time."""
    squares = torch.view_as_real(spectrum).square_()
    return squares[..., 0] + squares[..., 1]


@lru_cache
def reflected(size: int, n: int, device: torch.device) -> Tensor:
    """Return which of `size` samples are at each position `(size + 2 n,)` after a reflection by n at either end, as
    np.pad(mode="reflect") does: the ends are not repeated, and a segment shorter than n is reflected several times."""
    period = max(1, 2 * (size - 1))
    positions = torch.arange(-n, size + n).abs() % period
    return torch.minimum(positions, period - positions).to(device)


def _mel_power(x: Tensor, n_fft: int, hop: int, reflect: bool = False) -> Tensor:
    """Return librosa.feature.melspectrogram of each segment, transposed: `(S, N)` to `(S, T, 128)`. Segments are padded
    with zeros or, with `reflect`, by reflection."""
    half = n_fft // 2
    if reflect:
        x = x.index_select(1, reflected(x.shape[1], half, x.device))
    else:
        x = torch.nn.functional.pad(x, (half, half))
    power = _power(torch.fft.rfft(x.unfold(1, n_fft, hop) * hann(n_fft, x.device)))
    return torch.cat([power[..., bins] @ filters for bins, filters in _mel_groups(n_fft, x.device)], -1)


def mfcc(x: Tensor, n_mfcc: int = 26, reflect: bool = False) -> Tensor:
    """Return librosa.feature.mfcc(sr=16000, n_mfcc=n_mfcc) of each segment: `(S, N)` to `(S, n_mfcc, 1 + N // 512)`."""
    decibel = 10 * _mel_power(x, MFCC_FFT, MFCC_HOP, reflect).clamp(min=MFCC_FLOOR).log10()
    decibel = decibel.maximum(decibel.amax((1, 2), keepdim=True) - TOP_DB)  # the segment's, not the batch's
    return (decibel @ dct(n_mfcc, x.device)).transpose(1, 2)


def mfcc_reflect(x: Tensor, n_mfcc: int = 26) -> Tensor:
    """Return `mfcc` of segments that are padded by reflection, as librosa did before version 0.9 (February 2022): most
    likely the published scores were computed with it. The first two and the last two of 57 frames differ."""
    return mfcc(x, n_mfcc, reflect=True)


def melspectrogram(x: Tensor) -> Tensor:
    """Return log10 of librosa's mel power spectrogram of each segment, in float32: `(S, N)` to
    `(S, 128, 1 + N // 400)`."""
    return _mel_power(x, MEL_FFT, MEL_HOP).clamp(min=FLOOR).log10().transpose(1, 2)


def _whole_frames(x: Tensor) -> Tensor:
    """Append zeros to segments `(S, N)` so that frames of 640 samples, one every 160, cover all of each segment."""
    steps = max(0, math.ceil((x.shape[1] - FRAME) / STEP))
    return torch.nn.functional.pad(x, (0, steps * STEP + FRAME - x.shape[1]))


def _groups(x: Tensor, rows: int = 2) -> tuple[Tensor, ...]:
    """Split segments or frames into groups of `rows`, whose spectra fit a CPU's cache; on a GPU, into one group."""
    return x.split(len(x) if x.is_cuda else rows)


@lru_cache
def _block_dft(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Return factors for the first 400 bins of the 3198-point transform of 160 samples, and factors that delay it.

    Time is counted from the middle of the 160 samples. Then factors `(80, 400)` turn the part that is even about the
    middle into the real part of the transform, and others turn the odd part into the imaginary part. Complex factors
    `(400,)` delay a transform by 160 samples.
    """
    turn = torch.arange(KEPT_BINS, dtype=torch.float64) * (-2 * math.pi / DFT)
    angles = (torch.arange(STEP // 2) - (STEP - 1) / 2).double()[:, None] * turn
    delay = torch.polar(torch.ones_like(turn), STEP * turn)
    complex_dtype = torch.complex64 if dtype == torch.float32 else torch.complex128
    return angles.cos().to(device, dtype), angles.sin().to(device, dtype), delay.to(device, complex_dtype)


def kept_power(x: Tensor) -> Tensor:
    """Return |rfft(frame, 3198)|**2 in the first 400 bins, frames of 640 samples every 160: `(S, N)` to `(S, T, 400)`.

    A frame consists of four blocks of 160 samples, so that its transform is the sum of the blocks' transforms, each
    delayed by the block's place. This takes a fifth of the time of rfft: each block, which is in four frames, is
    transformed once; only one bin in four is computed; and 3198 = 2 * 3 * 13 * 41 points do not suit an FFT.
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
    """Return each segment's maximum of |rfft(frame, 3198)|**2 over 1600 bins, `(S, 1, 1)`; `kept` holds the first 400.

    To save time, only frames that may hold the maximum are transformed at 3198 points; in speech, these are few. Two
    bounds rule out the others:
    - Parseval: a frame's other 1200 bins sum to half of 3198 times its energy, less the sum of its kept bins;
    - M. Riesz: around its maximum, the power spectrum of 640 samples falls no faster than cos(320 w)**2. So, at the
      nearest of 2048 points, it is still at least cos(320 pi / 2048)**2 = 0.778 of the maximum.
    """
    frames, top = _whole_frames(x).unfold(1, FRAME, STEP), kept.amax((1, 2)).float()
    others = frames.square().sum(2) * (DFT / 2) - kept[..., 1:].sum(2).float()

    def largest(of: Tensor, points: int) -> Tensor:
        """Return the largest power of each frame in the mask `of`, and 0 for the other frames, `(S, T)`."""
        power = torch.zeros_like(others)
        if of.any():  # torch refuses an FFT of no frames
            power[of] = torch.cat([_power(torch.fft.rfft(some, points)).amax(1) for some in _groups(frames[of], 256)])
        return power

    coarse = largest(others > top[:, None], 2048)
    first = (coarse > 0) & (coarse == coarse.amax(1, keepdim=True))  # likely has the maximum; rules out most others
    top = top.maximum(largest(first, DFT).amax(1))
    rest = (coarse > 0) & (coarse >= 0.77 * top[:, None]) & ~first
    return top.maximum(largest(rest, DFT).amax(1))[:, None, None]


def spectrogram(x: Tensor) -> Tensor:
    """Return each segment's power spectrum in dB relative to its maximum, up to 2 kHz: `(S, N)` to `(S, 400, T)`.

    Frames have 640 samples, start every 160, and are not windowed. From 10 log10(max(|rfft(frame, 3198)|**2 / 3198,
    1e-30)), the segment's maximum over all 1600 bins is subtracted; the first 400 bins are kept.
    """
    power = kept_power(x.double())  # float32 would err by up to 0.03 dB between the harmonics of speech
    decibel, top = (p.float().div_(DFT).clamp_(min=FLOOR).log10_().mul_(10) for p in (power, _maximum(x, power)))
    return decibel.sub_(top).transpose(1, 2)


def interspeech2018(x: Tensor) -> Tensor:
    """Return each segment's mu-law companded magnitudes in -1 .. 1, up to 2 kHz: `(S, N)` to `(S, 400, T)`.

    The frames are those of `spectrogram`. y = 2 |rfft(frame, 3198)| / maximum - 1, with the segment's maximum over all
    1600 bins, becomes sign(y) log(1 + 255 |y|) / log(256); the first 400 bins are kept. Silence is -1.
    """
    power = kept_power(x)
    top = _maximum(x, power)
    y = (power / top.where(top > 0, 1)).sqrt_().mul_(2).sub_(1)
    return y.sign().mul_(y.abs_().mul_(MU).log1p_()).div_(math.log1p(MU)).transpose(1, 2)


def _filter_energies(x: Tensor, n_filters: int, highest: float, dtype: torch.dtype) -> Tensor:
    """Return what python_speech_features 0.6 fbank(winlen=0.04, nfft=1024) returns first, `(S, T, n_filters)`."""
    filters = htk_mel(n_filters, highest, x.device)
    x = torch.cat((x[:, :1], x[:, 1:] - PREEMPHASIS * x[:, :-1]), 1)
    energies = []
    for some in _groups(_whole_frames(x).to(dtype)):
        power = _power(torch.fft.rfft(some.unfold(1, FRAME, STEP), FBANK_FFT)[..., : len(filters)])
        energies.append(power.float() @ filters / FBANK_FFT)
    whole = torch.cat(energies)
    return whole.where(whole != 0, torch.finfo(torch.float64).eps)  # the package replaces zeros too


def logfbank(x: Tensor) -> Tensor:
    """Return python_speech_features 0.6 logfbank(winlen=0.04, nfft=1024, nfilt=40, highfreq=4000) of each segment:
    `(S, N)` to `(S, T, 40)`."""
    return _filter_energies(x, *LOGFBANK).log()


def fbank(x: Tensor) -> Tensor:
    """Return the energies in 26 filters of python_speech_features 0.6 fbank(winlen=0.04, nfft=1024), for each segment:
    `(S, N)` to `(S, T, 26)`."""
    return _filter_energies(x, *FBANK)


MFCCS = {"mfcc": mfcc, "mfcc_reflect": mfcc_reflect}  # whose number of coefficients is a setting
# Each turns segments (S, N) into features (S, F, T); as published, the last two give (S, T, F).
FEATURES: dict[str, Callable[[Tensor], Tensor]] = {
    **MFCCS,
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
    return partial(MFCCS[name], n_mfcc=n_mfcc) if name in MFCCS else FEATURES[name]


def _at_once(device: torch.device) -> int:
    """Return how many segments to compute together: as many as fit the processor's cache, or fill the GPU."""
    return 16 if device.type == "cpu" else 64


@contextmanager
def _exact_products() -> Iterator[None]:
    """Switch TF32 off, which training may switch on: cached features must not depend on what ran before them."""
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
    """Return the feature `name` of every segment: `(S, N)` samples at 16 kHz to `(S, F, T)` float32.

    Each segment is treated as if it were alone. The computation runs on `device`; by default, on the device of a tensor
    and on the CPU for an array. Raises UserError, with the choices, for an unknown feature or number of coefficients.
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
    """Return where frequencies go, after Jaitly and Hinton (2013): f goes to f * factor as long as neither exceeds
    4800 Hz. From there, a straight line leads to the Nyquist frequency, which stays."""
    nyquist, top = SAMPLE_RATE / 2, VTLP_BOUNDARY * min(factor, 1)
    boundary = top / factor
    above = nyquist - (nyquist - top) / (nyquist - boundary) * (nyquist - hertz)
    return torch.where(hertz <= boundary, hertz * factor, above)


def vtlp(wave: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Perturb the vocal tract length of a wave `(N,)` at 16 kHz: return a wave of that length, its frequencies warped.

    A factor above 1 moves formants (and pitch) up, as a shorter vocal tract would; 1 changes nothing. Source:
    N. Jaitly, G. Hinton: Vocal Tract Length Perturbation (VTLP) improves speech recognition. ICML 2013 workshop. They
    warp filter banks. Here, the magnitudes of the short-time spectrum (FFT 2048, hop 512) are warped and turned into
    a wave: each bin's phase advances at its warped frequency, and five rounds of Griffin and Lim (1984) make frames
    agree. Raises ValueError for a factor that is not positive and finite.
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
    # for each bin of the warped spectrum, the bin that it comes from, which need not be a whole number
    source = torch.from_numpy(np.interp(bins, _warped(bins.double() * hertz_per_bin, factor) / hertz_per_bin, bins))
    below = source.long().clamp(max=len(bins) - 2)
    magnitude = torch.lerp(spectrum.abs()[below], spectrum.abs()[below + 1], (source - below)[:, None])
    phase = spectrum.angle()[source.round().long()]
    cycles = phase.diff(dim=1) / (2 * math.pi)  # per hop, up to a whole number, which the bin's frequency gives
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
    """Draw a warp factor for each utterance `(U,)`, uniform in 0.8 .. 1.2, from a new generator with the run's seed.

    Factors are drawn in the order of the sorted names, so that the order in which names are listed does not matter.
    """
    factors = np.empty(len(names))
    factors[np.argsort(np.array(names))] = np.random.default_rng(seed).uniform(0.8, 1.2, len(names))
    return factors


# --------------------------------------------------------------------------------------------- a corpus's features


@dataclass(frozen=True, eq=False)
class Store:
    """Features of every segment of a list of utterances."""

    x: NDArray[np.float32]  # (S, F, T), memory-mapped
    counts: NDArray[np.int64]  # (U,) number of each utterance's segments: 0 if it is too short or broken
    starts: NDArray[np.int64]  # (U,) row of x at which each utterance's segments start
    bad: list[tuple[str, str]]  # name and fault of each broken recording
    key: str  # digest of the settings and of every recording's contents
    digests: list[str]  # (U,) digest of each recording's contents; "" if it cannot be read


def ahead(function: Callable[[Any], Any], items: Iterable[Any], threads: int = 1) -> Iterator[Any]:
    """Yield `function(item)` of each item in order, as `map` does, but computed in threads a few items in advance."""
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
    """Yield the segments `(S, size)` of many utterances in arrays of `rows` segments; the last one is shorter, or
    empty. The arrays share their memory, so that each is valid only until the next."""
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
    """Return an utterance's wave, or a text that says what is wrong with its recording. Raises UserError if the
    recording no longer has this digest, so that the bytes decoded are those that were digested."""
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
        raise AudioError("\n  ".join([f"{count} cannot be used; --skip_bad leaves such recordings out:", *lines]))


def _segments(
    utterances: Sequence[Utterance], digests: Sequence[str], title: str, cut: Callable[..., NDArray[np.float32]],
    skip_bad: bool, notes: dict[str, list[Any]],
) -> Iterator[NDArray[np.float32]]:  # fmt: skip
    """Yield each recording's segments `(S, size)`; append counts, faults and silent recordings to `notes`."""
    waves = ahead(lambda row: _wave_of(*row), zip(utterances, digests, strict=True))
    bar = tqdm(waves, title, len(utterances), unit=" utterances", delay=1, disable=None)
    for utterance, wave in zip(utterances, bar, strict=True):
        if isinstance(wave, str):
            notes["bad"].append((utterance.name, wave))
            wave = np.empty(0, np.float32)
        elif np.abs(wave).max(initial=0) < SILENT:
            notes["silent"].append(utterance.name)
        if notes["bad"] and not skip_bad:  # the corpus will be refused; only its other faults are sought
            wave = wave[:0]
        segments = cut(wave)
        notes["counts"].append(len(segments))
        yield segments


def load(
    utterances: Sequence[Utterance], feature: str, length: float, overlap: float, n_mfcc: int = 26,
    padding: bool = False, device: str | torch.device = "cpu", skip_bad: bool = False,
) -> Store:  # fmt: skip
    """Return the features of every segment of every utterance, in order, memory-mapped from the cache.

    `length` and `overlap` of segments are in seconds. Features are extracted once, in bounded memory; they are kept
    under a key of these settings, the device's type, the code and every recording's name and contents.
    Raises AudioError that lists the broken recordings unless `skip_bad` leaves them out; UserError for an unknown
    feature, impossible segments or a recording that changes meanwhile; and OSError that names the path if the cache
    cannot be written.
    """
    _function(feature, n_mfcc)
    size, hop = segment_and_hop(length, overlap)
    digests = content_digests([u.path for u in utterances])
    settings = {"code": CODE, "feature": feature, "n_mfcc": n_mfcc if feature in MFCCS else None, "size": size,
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
    if bad:  # their faults name paths, which differ if the corpus was moved after features were kept
        row = {name: row for row, name in enumerate(names)}
        now = [_wave_of(utterances[row[name]], digests[row[name]]) for name, _ in bad]
        bad = [(name, new if isinstance(new, str) else old) for (name, old), new in zip(bad, now, strict=True)]
    if not skip_bad:
        _refuse(bad)
    if silent := notes["silent"]:
        warn_once(f"{len(silent)} of {len(names)} recordings hold nothing but silence, as {silent[0]}")
    counts = np.array(notes["counts"], dtype=np.int64)
    return Store(x, counts, np.cumsum(counts) - counts, bad, key, digests)
