"""The features as matrix products: what features.py computes with FFTs and complex numbers, for runtimes without them."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import features
from features import (
    BINS, DFT, FBANK_FFT, FLOOR, FRAME, KEPT_BINS, MEL_FFT, MEL_HOP, MELS, MFCC_FFT, MFCC_HOP, MU, PREEMPHASIS,
    SAMPLE_RATE, STEP, TOP_DB,
)  # fmt: skip

CPU = torch.device("cpu")


class RealFFT(nn.Module):
    """|rfft(x)|**2 of the last axis, n real numbers to 1 + n // 2, as two matrix products (Cooley and Tukey, 1965).

    With n = rows * columns, sample columns * i + j and bin k + rows * l: transforms over i, for each j, then for each k
    one over j that has the twiddle factors in it. Nearly an FFT's cost, and its rounding errors.
    """

    def __init__(self, n: int, rows: int, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.n, self.rows, self.columns = n, rows, n // rows
        self.half = self.columns // 2 + 1  # values of l that give bins up to n // 2
        i, j = np.arange(self.rows), np.arange(self.columns)
        first = np.exp(-2j * np.pi * np.outer(i, i) / rows)  # (k, i)
        k, l_ = i[:, None, None], np.arange(self.half)
        second = np.exp(-2j * np.pi * j[:, None] * (k + rows * l_) / n)  # (k, j, l)
        real_in = np.concatenate((second.real, second.imag), 2)  # what the real part of an input adds to both parts
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
        x = (x @ self.second).reshape(self.rows, -1, 2, self.half)
        power = x[:, :, 0].square() + x[:, :, 1].square()  # (k, S T, l)
        power = power.permute(1, 2, 0).reshape(-1, frames, self.half * self.rows)
        return power[..., : self.n // 2 + 1]


class BinPower(nn.Module):
    """`features._bin_power` in real numbers: frames of four blocks of 160 samples, whose transforms are delayed and
    added up."""

    def __init__(self, low: int, high: int, dtype: torch.dtype):
        super().__init__()
        basis, delay = features._block_dft(low, high, torch.float64, CPU)
        self.basis: Tensor
        self.register_buffer("basis", torch.cat((basis[:, 0::2], basis[:, 1::2]), 1).to(dtype))
        for power in range(1, FRAME // STEP):
            turned = delay**power
            self.register_buffer(f"delay{power}", torch.stack((turned.real, turned.imag)).to(dtype))

    def forward(self, x: Tensor, frames: int) -> Tensor:  # (S, blocks * 160)
        blocks = x.to(self.basis.dtype).reshape(x.shape[0], -1, STEP) @ self.basis
        real, imaginary = blocks.chunk(2, 2)
        a, b = real[:, :frames], imaginary[:, :frames]
        for power in range(1, FRAME // STEP):
            c, d = getattr(self, f"delay{power}")
            later = slice(power, power + frames)
            a = a + real[:, later] * c - imaginary[:, later] * d
            b = b + real[:, later] * d + imaginary[:, later] * c
        return a.square() + b.square()


def framed(x: Tensor, size: int, hop: int, frames: int) -> Tensor:
    """Frames `(S, T, size)` every `hop` samples, which divides `size`, of `(S, (T - 1) * hop + size)`."""
    blocks = x.reshape(x.shape[0], -1, hop)
    return torch.cat([blocks[:, i : i + frames] for i in range(size // hop)], 2)


class Mel(nn.Module):
    """`features.mfcc`, or `features.melspectrogram` where `n_mfcc` is None."""

    def __init__(self, size: int, n_fft: int, hop: int, rows: int, n_mfcc: int | None):
        super().__init__()
        self.n_fft, self.hop, self.n_mfcc = n_fft, hop, n_mfcc
        self.frames = 1 + size // hop
        self.pad = (n_fft // 2, (self.frames - 1) * hop + n_fft - size - n_fft // 2)  # a negative pad cuts
        self.fft = RealFFT(n_fft, rows)
        for name, value in (("window", features._hann(n_fft, CPU)), ("mel", features._slaney_mel(n_fft, CPU)),
                            ("dct", features._dct(n_mfcc or MELS, CPU))):  # fmt: skip
            self.register_buffer(name, value.clone())

    def forward(self, x: Tensor) -> Tensor:
        power = self.fft(framed(F.pad(x, self.pad), self.n_fft, self.hop, self.frames) * self.window) @ self.mel
        if self.n_mfcc is None:
            return power.clamp(min=FLOOR).log10().transpose(1, 2)
        decibel = 10 * power.clamp(min=1e-10).log10()
        decibel = decibel.maximum(decibel.amax((1, 2), keepdim=True) - TOP_DB)
        return (decibel @ self.dct).transpose(1, 2)


class Whole(nn.Module):
    """What the features of 40 ms frames share: zeros at the end until frames cover the segment."""

    def __init__(self, size: int):
        super().__init__()
        self.frames = 1 + max(0, math.ceil((size - FRAME) / STEP))
        self.pad = (0, (self.frames - 1) * STEP + FRAME - size)


class Spectrogram(Whole):
    """`features.spectrogram`"""

    def __init__(self, size: int):
        super().__init__(size)
        self.kept, self.above = BinPower(0, KEPT_BINS, torch.float64), BinPower(KEPT_BINS, BINS, torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.pad)
        power = self.kept(x, self.frames)
        above = self.above(x, self.frames).amax((1, 2), keepdim=True)
        loudest = above.double().maximum(power.amax((1, 2), keepdim=True))
        decibel, top = (10 * (p / DFT).float().clamp(min=FLOOR).log10() for p in (power, loudest))
        return (decibel - top).transpose(1, 2)


class Interspeech2018(Whole):
    """`features.interspeech2018`"""

    def __init__(self, size: int):
        super().__init__(size)
        self.power = BinPower(0, BINS, torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        power = self.power(F.pad(x, self.pad), self.frames)
        loudest = power.amax((1, 2), keepdim=True)
        relative = (power[..., :KEPT_BINS] / loudest.where(loudest > 0, torch.ones_like(loudest))).sqrt() * 2 - 1
        return (relative.sign() * (MU * relative.abs() + 1).log() / math.log1p(MU)).transpose(1, 2)


class FilterBank(Whole):
    """`features.logfbank` or `features.fbank`"""

    def __init__(self, size: int, n_filters: int, highest: float, log: bool):
        super().__init__(size)
        self.log = log
        self.fft = RealFFT(FBANK_FFT, 32, torch.float64)
        self.filters: Tensor
        self.register_buffer("filters", features._htk_mel(n_filters, highest, CPU).clone())

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat((x[:, :1], x[:, 1:] - PREEMPHASIS * x[:, :-1]), 1)
        frames = framed(F.pad(x, self.pad).double(), FRAME, STEP, self.frames)
        power = self.fft(F.pad(frames, (0, FBANK_FFT - FRAME)))[..., : len(self.filters)]
        energies = power @ self.filters / FBANK_FFT
        energies = energies.where(energies != 0, torch.full_like(energies, torch.finfo(torch.float64).eps))
        return (energies.log() if self.log else energies).float()


def _module(feature: str, size: int, n_mfcc: int) -> nn.Module:
    if feature == "mfcc":
        return Mel(size, MFCC_FFT, MFCC_HOP, 32, n_mfcc)
    if feature == "melspectrogram":
        return Mel(size, MEL_FFT, MEL_HOP, 20, None)
    if feature == "logfbank":
        return FilterBank(size, 40, 4000.0, log=True)
    if feature == "fbank":
        return FilterBank(size, 26, SAMPLE_RATE / 2, log=False)
    return {"spectrogram": Spectrogram, "interspeech2018": Interspeech2018}[feature](size)


class Frontend(nn.Module):
    """The feature `feature` of segments of `size` samples at 16 kHz: (B, size) -> (B, 1, F, T), as features.extract."""

    def __init__(self, feature: str, size: int, n_mfcc: int = 26):
        super().__init__()
        self.feature = _module(feature, size, n_mfcc)

    def forward(self, x: Tensor) -> Tensor:
        return self.feature(x).unsqueeze(1)
