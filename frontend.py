"""The features of features.py as matrix products, for runtimes that have no FFT and no complex numbers."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import features
from cli import UserError

CPU = torch.device("cpu")
BINS = 1 + features.DFT // 2


class RealFFT(nn.Module):
    """Compute |rfft(x)|**2 over the last axis, n real numbers to 1 + n // 2, as two matrix products.

    This is the factorisation of Cooley and Tukey (1965) for n = rows * columns, with samples numbered columns * i + j
    and bins k + rows * l. The first product transforms over i for each j. The second one transforms over j for each k,
    with the twiddle factors included. The cost is nearly an FFT's, and so are the rounding errors.
    """

    def __init__(self, n: int, rows: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.n, self.rows, self.columns = n, rows, n // rows
        self.bins = self.columns // 2 + 1  # values of l that give bins up to n // 2
        i, j = np.arange(self.rows), np.arange(self.columns)
        first = np.exp(-2j * np.pi * np.outer(i, i) / rows)  # (k, i)
        k, l_ = i[:, None, None], np.arange(self.bins)
        second = np.exp(-2j * np.pi * j[:, None] * (k + rows * l_) / n)  # (k, j, l)
        real_in = np.concatenate((second.real, second.imag), 2)  # what an input's real part adds to both parts
        imaginary_in = np.concatenate((-second.imag, second.real), 2)
        self.first: Tensor
        self.second: Tensor
        self.register_buffer(
            "first", torch.from_numpy(np.stack((first.real, first.imag), 1).reshape(-1, rows)).to(dtype)
        )
        self.register_buffer("second", torch.from_numpy(np.concatenate((real_in, imaginary_in), 1)).to(dtype))

    def forward(self, x: Tensor) -> Tensor:  # (S, T, n)
        frames = x.shape[1]
        x = self.first @ x.reshape(-1, self.rows, self.columns)  # (S T, 2 rows, columns)
        x = x.reshape(-1, self.rows, 2 * self.columns).transpose(0, 1)  # (k, S T, real and imaginary j)
        x = (x @ self.second).reshape(self.rows, -1, 2, self.bins)
        power = x[:, :, 0].square() + x[:, :, 1].square()  # (k, S T, l)
        power = power.permute(1, 2, 0).reshape(-1, frames, self.bins * self.rows)
        return power[..., : self.n // 2 + 1]


class BinPower(nn.Module):
    """Compute |rfft(frame, 3198)|**2 at the bins low .. high, for frames of 640 samples every 160, as
    `features.kept_power` does. A frame is four blocks of 160 samples; each block's transform is multiplied by the delay
    of its place in the frame, and the four are added up."""

    def __init__(self, low: int, high: int, dtype: torch.dtype):
        super().__init__()
        turn = np.arange(low, high) * (-2j * np.pi / features.DFT)
        basis = np.exp(np.arange(features.STEP)[:, None] * turn)
        delay = np.exp(np.arange(features.FRAME // features.STEP)[:, None] * features.STEP * turn)
        self.basis: Tensor  # (160, 2 bins): real parts, then imaginary ones
        self.delay: Tensor  # (2, 4, bins)
        self.register_buffer("basis", torch.from_numpy(np.concatenate((basis.real, basis.imag), 1)).to(dtype))
        self.register_buffer("delay", torch.from_numpy(np.stack((delay.real, delay.imag))).to(dtype))

    def forward(self, x: Tensor, frames: int) -> Tensor:  # (S, blocks * 160)
        blocks = x.to(self.basis.dtype).reshape(x.shape[0], -1, features.STEP) @ self.basis
        real, imaginary = blocks.chunk(2, 2)
        real_sum = imaginary_sum = torch.zeros(())
        for block, (cosine, sine) in enumerate(zip(*self.delay, strict=True)):
            later = slice(block, block + frames)
            real_sum = real_sum + real[:, later] * cosine - imaginary[:, later] * sine
            imaginary_sum = imaginary_sum + real[:, later] * sine + imaginary[:, later] * cosine
        return real_sum.square() + imaginary_sum.square()


def framed(x: Tensor, size: int, hop: int, frames: int) -> Tensor:
    """Return frames `(S, T, size)` every `hop` samples of `(S, (T - 1) * hop + size)`; `hop` must divide `size`."""
    blocks = x.reshape(x.shape[0], -1, hop)
    return torch.cat([blocks[:, i : i + frames] for i in range(size // hop)], 2)


class Mel(nn.Module):
    """Computes `features.mfcc`, with `reflect` `features.mfcc_reflect`, or `features.melspectrogram` where `n_mfcc` is
    None."""

    def __init__(self, size: int, n_fft: int, hop: int, rows: int, n_mfcc: int | None, reflect: bool = False):
        super().__init__()
        self.n_fft, self.hop = n_fft, hop
        self.window: Tensor
        self.mel: Tensor
        self.dct: Tensor | None
        self.positions: Tensor | None
        self.frames = 1 + size // hop
        self.padded = (self.frames - 1) * hop + n_fft  # samples that the frames cover
        self.pad = (n_fft // 2, self.padded - size - n_fft // 2)
        self.fft = RealFFT(n_fft, rows)
        self.register_buffer("window", features.hann(n_fft, CPU).clone())
        self.register_buffer("mel", features.slaney_mel(n_fft, CPU))
        self.register_buffer("dct", features.dct(n_mfcc, CPU).clone() if n_mfcc else None)
        positions = features.reflected(size, n_fft // 2, CPU)[: self.padded].clone() if reflect else None
        self.register_buffer("positions", positions)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.pad) if self.positions is None else x[:, self.positions]
        power = self.fft(framed(x, self.n_fft, self.hop, self.frames) * self.window) @ self.mel
        if self.dct is None:
            return power.clamp(min=features.FLOOR).log10().transpose(1, 2)
        decibel = 10 * power.clamp(min=features.MFCC_FLOOR).log10()
        decibel = decibel.maximum(decibel.amax((1, 2), keepdim=True) - features.TOP_DB)
        return (decibel @ self.dct).transpose(1, 2)


class FramedFeature(nn.Module):
    """Base of the features of 40 ms frames: the segment is padded with zeros at its end until frames cover it."""

    def __init__(self, size: int):
        super().__init__()
        self.frames = 1 + max(0, math.ceil((size - features.FRAME) / features.STEP))
        self.pad = (0, (self.frames - 1) * features.STEP + features.FRAME - size)


class Spectrogram(FramedFeature):
    """Computes `features.spectrogram`."""

    def __init__(self, size: int):
        super().__init__(size)
        self.kept = BinPower(0, features.KEPT_BINS, torch.float64)
        self.above = BinPower(features.KEPT_BINS, BINS, torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.pad)
        power = self.kept(x, self.frames)
        above = self.above(x, self.frames).amax((1, 2), keepdim=True)
        loudest = above.double().maximum(power.amax((1, 2), keepdim=True))
        decibel, top = (10 * (p / features.DFT).float().clamp(min=features.FLOOR).log10() for p in (power, loudest))
        return (decibel - top).transpose(1, 2)


class Interspeech2018(FramedFeature):
    """Computes `features.interspeech2018`."""

    def __init__(self, size: int):
        super().__init__(size)
        self.power = BinPower(0, BINS, torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        power = self.power(F.pad(x, self.pad), self.frames)
        loudest = power.amax((1, 2), keepdim=True)
        relative = (
            power[..., : features.KEPT_BINS] / loudest.where(loudest > 0, torch.ones_like(loudest))
        ).sqrt() * 2 - 1
        return (relative.sign() * (features.MU * relative.abs() + 1).log() / math.log1p(features.MU)).transpose(1, 2)


class FilterBank(FramedFeature):
    """Computes `features.logfbank` if `log`, else `features.fbank`."""

    def __init__(self, size: int, n_filters: int, highest: float, dtype: torch.dtype, log: bool):
        super().__init__(size)
        self.dtype, self.log = dtype, log
        self.fft = RealFFT(features.FBANK_FFT, 32, dtype)
        self.filters: Tensor
        self.register_buffer("filters", features.htk_mel(n_filters, highest, CPU).clone())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((x[:, :1], x[:, 1:] - features.PREEMPHASIS * x[:, :-1]), 1).to(self.dtype)
        frames = framed(F.pad(x, self.pad), features.FRAME, features.STEP, self.frames)
        power = self.fft(F.pad(frames, (0, features.FBANK_FFT - features.FRAME)))[..., : len(self.filters)]
        energies = power.float() @ self.filters / features.FBANK_FFT
        energies = energies.where(energies != 0, torch.full_like(energies, torch.finfo(torch.float64).eps))
        return energies.log() if self.log else energies


def _module(feature: str, size: int, n_mfcc: int) -> nn.Module:
    if feature in features.MFCCS:
        return Mel(size, features.MFCC_FFT, features.MFCC_HOP, 32, n_mfcc, reflect=feature == "mfcc_reflect")
    if feature == "melspectrogram":
        return Mel(size, features.MEL_FFT, features.MEL_HOP, 20, None)
    if feature == "logfbank":
        return FilterBank(size, *features.LOGFBANK, log=True)
    if feature == "fbank":
        return FilterBank(size, *features.FBANK, log=False)
    if feature == "spectrogram":
        return Spectrogram(size)
    if feature == "interspeech2018":
        return Interspeech2018(size)
    raise UserError(
        f"--waveform: the feature {feature} has no form in ONNX: leave the flag out, or add one to frontend.py"
    )


class Frontend(nn.Module):
    """Computes `feature` of segments of `size` samples at 16 kHz, as features.extract: (B, size) -> (B, 1, F, T)."""

    def __init__(self, feature: str, size: int, n_mfcc: int = 26):
        super().__init__()
        self.feature = _module(feature, size, n_mfcc)

    def forward(self, x: Tensor) -> Tensor:
        return self.feature(x).unsqueeze(1)
