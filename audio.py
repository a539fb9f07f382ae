"""Recordings decoded to mono waves at 16 kHz, or refused with an error that says what is wrong with them."""

import math
import os
import re
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from mmap import MAP_PRIVATE, PROT_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cli import UserError

if TYPE_CHECKING:
    from soundfile import SoundFile

Wave = NDArray[np.float32]

SAMPLE_RATE = 16000  # Hz
BLOCK = 2**20  # samples decoded at once, counted over all channels
RATES = range(1000, 768001)  # Hz; a header with any other rate is wrong, and resampling from it could fill the memory
SILENT = 5e-4  # of full scale; a recording that stays below is silent, as A-law's zero and noise in the last bit are
LONGEST = 3600 * SAMPLE_RATE  # the most samples that an utterance may have
LOUDEST = 1e6  # times full scale; of louder samples, the square of a spectrum overflows float32
# sizes that writers which cannot seek give a data chunk: 0x7FFFF000 is SoX's, the next two are arecord's, then LAME's
UNKNOWN_SIZES = (0, 0x7FFFF000, 0x80000000, 0x7FFFFF00, 0x7FFFFFFF, 0xFFFFFFFF)
FLAC_STARTS = (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22")  # a stream's first bytes, with and without more metadata
JOINED = (
    "goes on after its end, as if another recording were joined to it, which would not be heard; write the file anew, "
    "as `ffmpeg -i FILE FILE.flac` does"
)
MOST_TAGS = 2**14  # bytes; only tags with a picture take more after the sound of an MP3
MOST_OF_A_FRAME = 2048  # bytes; a frame of an MP3 is never longer
UNKNOWN_FORMAT = 1  # libsndfile's SF_ERR_UNRECOGNISED_FORMAT
UNKNOWN_FRAMES = 2**62  # libsndfile declares at least so many if it does not know the number


class AudioError(UserError):
    """A recording cannot be used. The text names the file and says what is wrong with it."""


def _missing(file: str | Path) -> str:
    """Return the message about a file that does not exist, with the cause where it can be guessed."""
    for form in ("NFC", "NFD"):  # macOS writes ä as a and two dots
        with suppress(OSError):  # the name is too long
            if Path(unicodedata.normalize(form, str(file))).exists():
                return f"{file}: does not exist, but with its accents written another way ({form}): rename the file"
    return f"{file}: does not exist" + (r" (here, folders are separated by /, not by \)" if "\\" in str(file) else "")


def read_file(file: str | Path) -> bytes:
    """Return the bytes of a recording. Raises AudioError if it is missing, not a file or unreadable."""
    try:
        if not stat.S_ISREG(Path(file).stat().st_mode):
            raise AudioError(f"{file}: is not a file")
        return Path(file).read_bytes()
    except FileNotFoundError:
        raise AudioError(_missing(file)) from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{file}: cannot be read ({error})") from None


def size_to_correct(data: bytes | mmap) -> tuple[int, bytes] | None:
    """Return where a RIFF file gives its data chunk's size, and the four bytes that belong there, if that is unknown.

    The size is unknown if the writer streamed the file and could not go back to its header. Returns None if the size is
    right, or the file is not RIFF. Raises ValueError if the chunk declares more bytes than the file has: libsndfile
    would decode those that there are, and say nothing.
    """
    if data[:4] not in (b"RIFF", b"RIFX") or data[8:12] != b"WAVE":
        return None
    order: Literal["big", "little"] = "big" if data[:4] == b"RIFX" else "little"
    start, size = 12, 0
    while start + 8 <= len(data):
        name, size = data[start : start + 4], int.from_bytes(data[start + 4 : start + 8], order)
        start += 8
        if name == b"data":
            break
        start += size + size % 2
    else:
        return None
    left = len(data) - start
    # if another chunk fills the rest of the file, a data chunk of size 0 is really empty
    next_fits = 8 + int.from_bytes(data[start + 4 : start + 8], order) == left
    if size in UNKNOWN_SIZES and left and not (size == 0 and next_fits):
        return start - 4, min(left, 0xFFFFFFFF).to_bytes(4, order)
    if size > left:
        raise ValueError(f"is truncated: {size - left} bytes of the samples its header declares are missing")
    return None


def declared_bytes(data: bytes | mmap) -> int:
    """Return how many bytes an AIFF, AU, RF64, W64 or NIST file has by its header; 0 for others, and if unknown."""
    start = data[:4]
    if start == b"FORM":
        size = 8 + int.from_bytes(data[4:8], "big")
    elif start in (b".snd", b"dns."):
        order: Literal["big", "little"] = "big" if start == b".snd" else "little"
        size = int.from_bytes(data[4:8], order) + int.from_bytes(data[8:12], order)
    elif start == b"RF64":
        size = 8 + int.from_bytes(data[20:28], "little")
    elif start == b"riff":
        size = int.from_bytes(data[16:24], "little")
    elif start == b"NIST":
        numbers = dict(re.findall(rb"(\w+) -i (\d{1,12})\s", data[:1024]))
        # headers of A-law give sample_n_bytes as text, "-s1 1", which is not matched
        each = int(numbers.get(b"channel_count", 1)) * int(numbers.get(b"sample_n_bytes", 1))
        size = 1024 + each * int(numbers[b"sample_count"]) if b"sample_count" in numbers else 0
    else:
        size = 0
    streamed = start in (b"FORM", b".snd", b"dns.") and (size <= 64 or size >= 0x7F000000)  # its writer could not seek
    return 0 if streamed else size


def check_streams(data: bytes | mmap) -> None:
    """Raise ValueError if a FLAC or Ogg file goes on with another recording after the first, or its last Ogg page is
    not whole: libsndfile decodes what comes before, and says nothing of the rest."""
    start = _after_id3(data)
    if data[start : start + 4] == b"fLaC" and any(data.find(mark, start + 8) > 0 for mark in FLAC_STARTS):
        raise ValueError(JOINED)
    at, begun = 0, False
    while data[at : at + 4] == b"OggS" and len(data) >= at + 27:
        first, lacing = data[at + 5] & 2, data[at + 27 : at + 27 + data[at + 26]]
        if first and begun:
            raise ValueError(JOINED)
        begun = begun or not first
        at += 27 + data[at + 26] + sum(lacing)
    if at > len(data) or (at and data[at:].strip(b"\0")):
        raise ValueError("is truncated in the middle of an Ogg page, or has other data after its last one")


def _after_id3(data: bytes | mmap) -> int:
    """Return where a file goes on after an ID3v2 tag at its start, which libsndfile skips; 0 if there is no tag. The
    tag's length stands in four bytes of seven bits each."""
    return 10 + sum((byte & 127) << 7 * i for i, byte in enumerate(data[9:5:-1])) if data[:3] == b"ID3" else 0


def _read_at(descriptor: int, count: int, at: int) -> bytes:
    """Return `count` bytes from a place on, fewer only at the file's end. `os.pread` may give fewer anywhere on a
    network's file system; libsndfile would then end the sound there, or go on at the wrong place."""
    data = os.pread(descriptor, count, at)
    while 0 < len(data) < count and (more := os.pread(descriptor, count - len(data), at + len(data))):
        data += more
    return data


class _Raw:
    """A recording as the file object that libsndfile reads.

    `read_at(count, position)` returns bytes; `data` is all bytes, searched once for faults of which libsndfile says
    nothing. libsndfile cannot take an exception: if a read fails, it goes on with other sound, so `error` keeps the
    failure. Raises ValueError if a part of the recording is missing, or libsndfile would not read all of it.
    """

    def __init__(self, read_at: Callable[[int, int], bytes], data: bytes | mmap):
        self.read_at, self.size, self.position = read_at, len(data), 0
        self.error: OSError | None = None
        self.correction = size_to_correct(data)  # a place, and the bytes to read there instead of the file's
        self.mp3_counts = counts_frames(data)
        check_streams(data)
        if (missing := declared_bytes(data) - len(data)) > 1:  # some writers count a padding byte but omit it
            raise ValueError(f"is truncated: {missing} bytes that its header declares are missing")

    def seek(self, offset: int, whence: int = 0) -> int:  # in damaged files, libsndfile seeks to before the start
        self.position = max(0, offset + (0, self.position, self.size)[whence])
        return self.position

    def tell(self) -> int:
        return self.position

    def read(self, count: int) -> bytes:
        at = self.position
        try:
            data = self.read_at(count, at)
        except OSError as error:
            self.error, data = error, b""
        if self.correction:
            where, right = self.correction
            first, last = max(where, at), min(where + len(right), at + len(data))
            if first < last:
                data = data[: first - at] + right[first - where : last - where] + data[last - at :]
        self.position += len(data)
        return data


def check_header(sound: "SoundFile", size: int) -> None:
    """Raise ValueError if a header declares more samples than a file of `size` bytes can hold. As headers lie, samples
    are counted while they are decoded; this check spares the wait for samples that cannot come."""
    packed = sound.format in ("FLAC", "OGG", "MP3", "MPEG") or sound.subtype.startswith("ALAC")
    if sound.frames < UNKNOWN_FRAMES and not packed and sound.frames * sound.channels > 16 * size:
        raise ValueError(f"declares {sound.frames} samples, which its {size} bytes cannot hold")


def check_end(form: str, count: int, declared: int, left: int, rest: bytes, mp3_counts: bool) -> None:
    """Raise ValueError if a file was not read to its end. `count` of its `declared` samples were decoded; its last
    `left` bytes, which begin with `rest`, were not. `mp3_counts`, which matters only for an MP3, is what
    `counts_frames` returns for the file."""
    mp3 = form in ("MP3", "MPEG")
    sound = rest[:1] == b"\xff" or rest == b"ID3"  # a frame, or the tag before another recording
    if mp3 and left > (MOST_OF_A_FRAME if sound else MOST_TAGS):
        if mp3_counts:
            raise ValueError(JOINED)
        raise ValueError(
            f"is an MP3 that does not say how long it is, and {left} of its bytes are left after "
            "decoding; convert it, for example to FLAC"
        )
    estimated = mp3 and not mp3_counts  # libsndfile then estimates `declared`, and stops there
    if count < declared < UNKNOWN_FRAMES and not estimated:
        raise ValueError(f"is truncated: {count} of {declared} samples are there")


def counts_frames(data: bytes | mmap) -> bool:
    """Return whether an MP3's first frame holds the number of frames, in a header of Xing, LAME or Fraunhofer."""
    start = _after_id3(data)
    return any(mark in data[start : start + 4096] for mark in (b"Xing", b"Info", b"VBRI"))


def _blocks(raw: _Raw) -> Iterator[tuple[NDArray[np.float32], int]]:
    """Yield blocks of samples `(n, channels)`, each with its rate in Hz. Raises ValueError that says what is wrong."""
    import soundfile

    try:
        with soundfile.SoundFile(raw) as sound:
            rate, declared, form, count = sound.samplerate, sound.frames, sound.format, 0
            check_header(sound, raw.size)
            if declared >= UNKNOWN_FRAMES:
                sound._info.seekable = 0  # else soundfile seeks after each block, which fails at a stream's end
            while len(block := sound.read(max(1, BLOCK // sound.channels), dtype="float32", always_2d=True)):
                count += len(block)
                if rate in RATES:
                    yield block, rate
            left, rest = raw.size - raw.tell(), raw.read(3)
    except soundfile.LibsndfileError as error:
        convert = "" if error.code != UNKNOWN_FORMAT else " `ffmpeg -i FILE FILE.wav` may convert it"
        raise ValueError(f"cannot be decoded as audio: {error.error_string}{convert}") from None
    except (OSError, RuntimeError, TypeError, OverflowError, MemoryError) as error:
        raise ValueError(f"cannot be decoded as audio: {error}") from None
    check_end(form, count, declared, left, rest, raw.mp3_counts)
    if rate not in RATES:
        raise ValueError(f"declares a sample rate of {rate} Hz")
    if count == 0:
        raise ValueError("holds no samples")


def _resampled(blocks: Iterable[tuple[NDArray[np.float32], int]]) -> Iterator[Wave]:
    """Yield blocks at 16 kHz, channels averaged: the samples that librosa.resample(res_type="soxr_hq") gives."""
    import soxr

    taken = given = rate = 0
    stream = None
    for block, rate in blocks:
        with np.errstate(over="ignore", invalid="ignore"):  # around the yield, it would hold for the consumer
            mono = np.mean(block.T, axis=0) if block.shape[1] > 1 else block[:, 0]
        if rate != SAMPLE_RATE:
            try:
                stream = stream or soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32", quality="soxr_hq")
                taken += len(mono)
                mono = stream.resample_chunk(np.ascontiguousarray(mono))
            except RuntimeError as error:
                raise ValueError(f"cannot be resampled from {rate} Hz: {error}") from None
            given += len(mono)
        yield mono
    if stream is not None:
        left = max(0, math.ceil(taken * (SAMPLE_RATE / rate)) - given)
        end = stream.resample_chunk(np.empty(0, np.float32), last=True)[:left]
        yield np.pad(end, (0, left - len(end)))


def _waves(blocks: Iterable[tuple[NDArray[np.float32], int]]) -> Iterator[Wave]:
    """Yield blocks `(n,)` of the mono wave at 16 kHz. Raises ValueError that says what is wrong, once it is met."""
    for wave in _resampled(blocks):
        if not np.isfinite(wave).all():
            raise ValueError("holds samples that are not finite numbers")
        if len(wave) and (loudest := np.abs(wave).max()) > LOUDEST:
            raise ValueError(f"holds samples of {loudest:.0e} times full scale")
        yield wave


def decode(data: bytes) -> Wave:
    """Return what `load_audio` returns for a file of these bytes. Raises ValueError that says what is wrong, also for
    more than an hour: all samples must fit into the memory, and a few megabytes of FLAC hold a day of silence."""
    if not data:
        raise ValueError("is empty (0 bytes)")
    waves, samples = [], 0
    for wave in _waves(_blocks(_Raw(lambda count, at: data[at : at + count], data))):
        waves.append(wave)
        samples += len(wave)
        if samples > LONGEST:
            raise ValueError("is longer than an hour; cut it into utterances")
    return np.concatenate(waves)


def from_samples(wave: NDArray, rate: int = SAMPLE_RATE) -> Iterator[Wave]:
    """Yield what `stream_audio` yields, for samples `(n,)` or `(n, channels)` at `rate` Hz: floats, of which 1 is full
    scale, or integers. Raises ValueError that says what is wrong."""
    wave = np.asarray(wave)
    if wave.ndim not in (1, 2) or wave.size == 0 or wave.dtype.kind not in "fiu":
        raise ValueError(f"is an array {wave.shape} of {wave.dtype}; samples must be numbers, (n,) or (n, channels)")
    if wave.ndim == 2 and len(wave) < wave.shape[1]:  # as torchaudio gives them; taken as they are, they sound silent
        raise ValueError(f"is an array {wave.shape}: samples are (n, channels); transpose it")
    if rate not in RATES:
        raise ValueError(f"has a sample rate of {rate} Hz")
    if wave.dtype.kind != "f":
        info = np.iinfo(wave.dtype)
        middle = 0 if info.min else (info.max + 1) // 2  # the zero of unsigned samples
        wave = (wave.astype(np.float64) - middle) / (info.max + 1 - middle)
    columns = wave.reshape(len(wave), -1).astype(np.float32)
    yield from _waves((columns[at : at + BLOCK], rate) for at in range(0, len(columns), BLOCK))


def load_audio(file: str | Path) -> Wave:
    """Decode a recording to `(N,)` float32 in -1 .. 1 at 16 kHz: channels averaged, other rates resampled.

    The samples are those of `librosa.load(file, sr=16000)` of librosa 0.11. Raises AudioError for a file that is
    missing, empty, truncated or not audio, and for samples that are not finite.
    """
    return np.concatenate(list(stream_audio(file)))


def stream_audio(file: str | Path) -> Iterator[Wave]:
    """Yield the samples of `load_audio(file)` in blocks, in memory that does not grow with the recording.

    Raises AudioError as `load_audio` does, once a fault is met: if the end is missing, after the blocks before it.
    """
    try:
        status = Path(file).stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("is not a file")
        if status.st_size == 0:
            raise ValueError("is empty (0 bytes)")
        with open(file, "rb") as f:
            with mmap(f.fileno(), 0, MAP_PRIVATE, PROT_READ) as contents:  # some FUSE mounts refuse shared maps
                raw = _Raw(partial(_read_at, f.fileno()), contents)
            try:
                yield from _waves(_blocks(raw))
            finally:
                if raw.error:
                    raise raw.error
    except FileNotFoundError:
        raise AudioError(_missing(file)) from None
    except OSError as error:
        raise AudioError(f"{file}: cannot be read ({error})") from None
    except ValueError as error:
        raise AudioError(f"{file}: {error}") from None
