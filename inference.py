"""Predict with a checkpoint the class of a recording of any length, and its course over time, in bounded memory."""

import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

import cli
import features
from audio import SAMPLE_RATE, SILENT, AudioError, Wave, from_samples, stream_audio
from checkpoints import Checkpoint
from device import check_gpu
from metrics import softmax

BATCH = {"cpu": 16, "cuda": 64}  # segments computed at once; a network's maps of 16 spectrograms take 0.4 GB
MOST_BINS = 4096  # the most bins of a wave's outline

# ----------------------------------------------------------------------------------------------- recordings


class Outline:
    """The lowest and highest sample in each of at most 4096 equal stretches of a wave, which may have any length."""

    def __init__(self) -> None:
        self.stretch = 16  # samples
        self.rest: Wave = np.empty(0, np.float32)
        self.bins: NDArray[np.float32] = np.empty((0, 2), np.float32)

    def add(self, wave: Wave) -> None:
        wave = np.concatenate((self.rest, wave))
        while len(self.bins) + len(wave) // self.stretch > MOST_BINS:
            if len(self.bins) % 2:  # a bin without partner becomes a stretch of samples again: its lowest and highest
                wave = np.concatenate((np.resize(self.bins[-1], self.stretch), wave))
                self.bins = self.bins[:-1]
            pairs = self.bins.reshape(-1, 2, 2)
            self.bins = np.stack((pairs[:, :, 0].min(1), pairs[:, :, 1].max(1)), 1)
            self.stretch *= 2
        whole = len(wave) // self.stretch * self.stretch
        new = wave[:whole].reshape(-1, self.stretch)
        self.bins = np.concatenate((self.bins, np.stack((new.min(1), new.max(1)), 1)))
        self.rest = wave[whole:].copy()

    def edges(self) -> NDArray[np.float64]:
        """Return where the stretches begin, in seconds `(n,)`."""
        return np.arange(len(self.bins)) * self.stretch / SAMPLE_RATE

    def loudest(self) -> float:
        """Return the greatest absolute value of the wave."""
        return float(max(np.abs(self.bins).max(initial=0), np.abs(self.rest).max(initial=0)))


class Segmenter:
    """Cuts a wave, given block by block, into the same segments as `features.segment` cuts the whole wave."""

    def __init__(self, size: int, hop: int):
        self.size, self.hop = size, hop
        self.rest: Wave = np.empty(0, np.float32)
        self.samples = 0

    def add(self, wave: Wave) -> NDArray[np.float32]:
        """Add a block of the wave, and return the segments that it completes `(S, size)`, a view."""
        self.samples += len(wave)
        self.rest = np.concatenate((self.rest, wave))
        if len(self.rest) < self.size:
            return np.empty((0, self.size), np.float32)
        segments = np.lib.stride_tricks.sliding_window_view(self.rest, self.size)[:: self.hop]
        self.rest = self.rest[len(segments) * self.hop :].copy()
        return segments


# ----------------------------------------------------------------------------------------------- prediction


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a checkpoint predicts for one recording."""

    file: str
    classes: list[str]
    logits: NDArray[np.float32]  # (C,), the mean over segments
    probabilities: NDArray[np.float64]  # (C,), softmax(logits / temperature)
    starts: NDArray[np.float64]  # (S,) seconds
    ends: NDArray[np.float64]  # (S,) seconds
    timeline: NDArray[np.float64]  # (S, C) probabilities of each segment
    seconds: float
    heard: NDArray[np.bool_]  # (S,) whether a segment holds sound
    note: str = ""  # what was done to the recording, if anything
    outline: Outline = field(default_factory=Outline)

    @property
    def label(self) -> str:
        """The likeliest class."""
        return self.classes[int(self.probabilities.argmax())]

    def segments(self) -> Iterator[tuple[float, float, NDArray[np.float64], bool]]:
        """Yield each segment's start, end and probabilities `(C,)`, and whether it holds sound."""
        return zip(self.starts.tolist(), self.ends.tolist(), self.timeline, self.heard.tolist(), strict=True)

    def as_dict(self, timeline: bool = False) -> dict[str, Any]:
        """Return the prediction as JSON holds it."""
        result = {"file": self.file, "class": self.label, "probabilities": self._named(self.probabilities),
                  "seconds": round(self.seconds, 4), "segments": len(self.starts), "note": self.note}  # fmt: skip
        if timeline:
            result["timeline"] = [
                {"start": round(start, 4), "end": round(end, 4), "probabilities": self._named(p), "silent": not heard}
                for start, end, p, heard in self.segments()
            ]
        return result

    def _named(self, probabilities: NDArray[np.float64]) -> dict[str, float]:
        return dict(zip(self.classes, map(float, probabilities), strict=True))


def _loudest(segments: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the greatest absolute value of each segment `(S, size)`; a view is not copied."""
    return np.maximum(segments.max(1, initial=0), -segments.min(1, initial=0))


class Recogniser:
    """Predicts with a checkpoint: `Recogniser(checkpoints.load(folder))("recording.wav")`.

    Threads may share a Recogniser. Forked processes cannot, as they lack torch's own threads: start processes by
    `spawn`, or call `torch.set_num_threads(1)` before the checkpoint is loaded.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "cpu", calibrate: bool = True):
        """With `calibrate`, logits are divided by the checkpoint's temperature where it has one."""
        self.checkpoint = checkpoint
        if device == "cuda":
            check_gpu()
        # named by its number, as each thread has its own current GPU: the chosen one in the first thread, 0 in others
        self.device = f"cuda:{torch.cuda.current_device()}" if device == "cuda" else device
        self.network = checkpoint.module.to(self.device).eval()
        self.temperature = (checkpoint.temperature or 1.0) if calibrate else 1.0
        # on a GPU one thread computes while others decode, so that its memory need not hold a batch for each thread
        self.gpu_lock: AbstractContextManager[Any] = threading.Lock() if device == "cuda" else nullcontext()

    @torch.inference_mode()
    def logits(self, segments: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits `(S, C)` of segments `(S, size)`."""
        c, parts = self.checkpoint, [np.empty((0, len(self.checkpoint.classes)), np.float32)]
        step = BATCH[torch.device(self.device).type]
        for start in range(0, len(segments), step):
            with self.gpu_lock:
                x = features.extract(c.feature, segments[start : start + step], c.n_mfcc, self.device)
                parts.append(self.network(x.unsqueeze(1)).float().cpu().numpy())
        return np.concatenate(parts)

    def __call__(self, file: str | Path, name: str = "", stopped: threading.Event | None = None) -> Prediction:
        """Predict for a recording, which the result calls `name`. Raises AudioError if the recording cannot be used,
        and as soon as `stopped` is set."""
        try:
            return self.blocks(stream_audio(file), name or str(file), stopped)
        except AudioError as error:
            raise AudioError(str(error).replace(str(file), name, 1) if name else str(error)) from None

    def samples(self, wave: NDArray, rate: int = SAMPLE_RATE, name: str = "") -> Prediction:
        """Predict for samples `(n,)` or `(n, channels)` at `rate` Hz, as `soundfile.read` gives them: integers, or
        floats of which 1 is full scale. Raises AudioError if the samples cannot be used."""
        try:
            return self.blocks(from_samples(wave, rate), name)
        except ValueError as error:
            raise AudioError(f"{name or 'a recording'} {error}") from None

    def each(self, recordings: Sequence[tuple[str | Path, str]], jobs: int | None = None) -> Iterator[Prediction | str]:
        """Predict for recordings, given as (file, name), `jobs` at a time (None: one for each core, up to 8). Yields,
        in their order, a prediction or, for a recording that cannot be used, a sentence that says why."""
        stopped, threads = threading.Event(), torch.get_num_threads()
        cores = cli.cores()
        jobs = max(1, min(len(recordings), jobs or min(8, cores)))

        def predict(recording: tuple[str | Path, str]) -> Prediction | str:
            try:
                return self(*recording, stopped)
            except AudioError as error:
                return str(error)

        torch.set_num_threads(max(1, cores // jobs))
        try:
            with ThreadPoolExecutor(jobs) as executor:
                hidden = True if len(recordings) == 1 else None
                try:
                    results = executor.map(predict, recordings)
                    yield from tqdm(results, total=len(recordings), unit="recording", leave=False, disable=hidden)
                finally:
                    stopped.set()  # after Ctrl-C, the recordings under way are not computed to their end
        finally:
            torch.set_num_threads(threads)

    def _segments(self, waves: Iterable[Wave], segmenter: Segmenter, outline: Outline, name: str,
                  stopped: threading.Event | None) -> Iterator[NDArray[np.float32]]:  # fmt: skip
        """Yield the segments `(S, size)` that each block completes; a too short recording is repeated to fill one."""
        for wave in waves:
            if stopped is not None and stopped.is_set():
                raise AudioError(f"{name}: interrupted")
            outline.add(wave)
            yield segmenter.add(wave)
        if segmenter.samples == 0:
            raise AudioError(f"{name or 'a recording'} holds no samples")
        if segmenter.samples < segmenter.size:
            yield features.segment(segmenter.rest, self.checkpoint.length, self.checkpoint.overlap, padding=True)

    def blocks(self, waves: Iterable[Wave], name: str = "", stopped: threading.Event | None = None) -> Prediction:
        """Predict for a recording given as blocks `(n,)` of float samples at 16 kHz, as `audio.stream_audio` yields
        them. (`samples` takes any samples.) Silent segments are left out of the mean, unless all segments are silent.
        """
        c = self.checkpoint
        segmenter, outline, logits, heard = Segmenter(c.size, c.hop), Outline(), [], []
        for part in self._segments(waves, segmenter, outline, name, stopped):
            logits.append(self.logits(part))
            heard.append(_loudest(part) >= SILENT)
        seconds, notes = segmenter.samples / SAMPLE_RATE, []
        if segmenter.samples < c.size:
            in_training = ", as in training" if c.padding else "; training left such recordings out"
            notes.append(f"shorter than {c.length:g} s: repeated{in_training}")
        segments, sound = np.concatenate(logits), np.concatenate(heard)
        if not sound.any():
            notes.insert(0, "silent, or nearly: there is nothing to recognise")
        elif not sound.all():
            notes.append(f"{(~sound).sum()} of {len(sound)} segments are silent and left out")
        counted = segments[sound] if sound.any() else segments
        mean = counted.mean(0, dtype=np.float64).astype(np.float32)  # as loops.evaluation does
        starts = np.arange(len(segments)) * c.hop / SAMPLE_RATE
        ends = np.minimum(starts + c.size / SAMPLE_RATE, seconds)
        probabilities, timeline = softmax(mean, self.temperature), softmax(segments, self.temperature)
        return Prediction(
            name, c.classes, mean, probabilities, starts, ends, timeline, seconds, sound, "; ".join(notes), outline
        )
