"""Recordings: the samples librosa gives, or an error that says what is wrong."""

import errno
import io
import itertools
import os
import tracemalloc
from pathlib import Path

import librosa
import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import audio
from audio import AudioError, load_audio, stream_audio


def tone(seconds: float = 0.5, rate: int = 16000, channels: int = 1) -> np.ndarray:
    t = np.arange(int(seconds * rate)) / rate
    waves = [0.4 * np.sin(2 * np.pi * (300 + 170 * c) * t) * np.exp(-t * (c + 1)) for c in range(channels)]
    return np.stack(waves, axis=1) if channels > 1 else waves[0]


def wav(samples: np.ndarray | None = None, rate: int = 16000, subtype: str = "PCM_16", kind: str = "WAV") -> bytes:
    data = io.BytesIO()
    soundfile.write(data, tone() if samples is None else samples, rate, format=kind, subtype=subtype)
    return data.getvalue()


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "DOUBLE", "ULAW"])
@pytest.mark.parametrize(
    ("rate", "channels"), [(16000, 1), (16000, 2), (16000, 5), (8000, 1), (22050, 2), (44100, 1), (48000, 6)]
)
def test_samples_are_librosas(tmp_path: Path, rate: int, channels: int, subtype: str) -> None:
    file = tmp_path / "a.wav"
    file.write_bytes(wav(tone(0.3, rate, channels), rate, subtype))
    ours, theirs = load_audio(file), librosa.load(file, sr=16000)[0]
    assert ours.dtype == np.float32
    assert np.array_equal(ours, theirs)


def test_real_recordings_are_librosas(emodb: Path) -> None:
    for file in sorted(emodb.glob("*.wav"))[::50]:
        assert np.array_equal(load_audio(file), librosa.load(file, sr=16000)[0])


@pytest.mark.parametrize("kind", ["FLAC", "AIFF", "AU", "W64", "CAF"])
def test_other_formats(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "a"
    file.write_bytes(wav(kind=kind))
    assert np.array_equal(load_audio(file), librosa.load(file, sr=16000)[0])


@pytest.mark.parametrize("size", [bytes(4), b"\xff\xff\xff\xff", b"\x00\xf0\xff\x7f", b"\xff\xff\xff\x7f"])
@pytest.mark.parametrize("riff_too", [True, False])
def test_sizes_that_streaming_leaves_unknown_are_tolerated(tmp_path: Path, size: bytes, riff_too: bool) -> None:
    data = bytearray(wav())
    assert data[36:40] == b"data"
    data[40:44] = size
    if riff_too:
        data[4:8] = size
    (tmp_path / "a.wav").write_bytes(data)
    assert np.array_equal(load_audio(tmp_path / "a.wav"), librosa.load(io.BytesIO(wav()), sr=16000)[0])


def test_chunks_before_and_after_the_samples(tmp_path: Path) -> None:
    data = wav()
    noted = data[:36] + b"LIST\x03\0\0\0abc\0" + data[36:] + b"note\x04\0\0\0abcd"
    (tmp_path / "a.wav").write_bytes(noted)
    assert np.array_equal(load_audio(tmp_path / "a.wav"), librosa.load(io.BytesIO(data), sr=16000)[0])


def with_values(*values: float) -> bytes:
    samples = tone()
    samples[100 : 100 + len(values)] = values
    return wav(samples, subtype="FLOAT")


def half(kind: str, subtype: str = "PCM_16", **options: str) -> bytes:
    """The first half of a recording in a format whose header libsndfile corrects in silence."""
    data = io.BytesIO()
    soundfile.write(data, tone(), 16000, format=kind, subtype=subtype, **options)
    return data.getvalue()[: len(data.getvalue()) // 2]


BROKEN = {
    "empty": (b"", "is empty"),
    "no samples": (wav(np.zeros(0)), "no samples"),
    "no samples but a note": (wav(np.zeros(0)) + b"note\x04\0\0\0abcd", "no samples"),
    "text": (b"These are not the samples you are looking for." * 50, "cannot be decoded"),
    "header only": (wav()[:40], "cannot be decoded|no samples|truncated"),
    "truncated": (wav()[:9000], "truncated: 7044 bytes"),
    "truncated by one byte": (wav()[:-1], "truncated: 1 bytes"),
    "truncated flac": (wav(kind="FLAC")[:2000], "cannot be decoded|truncated"),
    "big-endian truncated": (b"RIFX" + bytes(4) + b"WAVEdata\0\0\x40\0" + bytes(100), "truncated"),
    "NaN": (with_values(np.nan), "not finite"),
    "infinite": (with_values(-np.inf), "not finite"),
    "overflowing": (wav(np.full((100, 2), 3e38), subtype="FLOAT"), "not finite|full scale"),
    "absurdly loud": (with_values(1e30), "1e[+]30 times full scale"),
    "absurd rate": (wav(rate=3), "sample rate of 3 Hz"),
    **{f"half of {kind}": (half(kind), "is truncated: [0-9]+ bytes") for kind in ("AIFF", "AU", "RF64", "W64", "NIST")},
    "half of little-endian AU": (half("AU", endian="LITTLE"), "is truncated: [0-9]+ bytes"),
    "half of NIST with µ-law": (half("NIST", "ULAW"), "is truncated: [0-9]+ bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_recordings_say_what_is_wrong(tmp_path: Path, case: str) -> None:
    data, message = BROKEN[case]
    file = tmp_path / f"{case}.wav"
    file.write_bytes(data)
    with pytest.raises(AudioError, match=message) as error:
        load_audio(file)
    assert str(error.value).startswith(f"{file}: ")


@pytest.mark.parametrize("kind", sorted({*soundfile.available_formats()} - {"SD2"}))  # which writes beside its file
def test_whole_recordings_of_every_format_are_not_called_truncated(kind: str) -> None:
    for subtype in soundfile.available_subtypes(kind):
        for endian in ("FILE", "LITTLE", "BIG"):
            data = io.BytesIO()
            try:
                soundfile.write(data, tone(0.1), 16000, format=kind, subtype=subtype, endian=endian)
            except (soundfile.LibsndfileError, ValueError, TypeError):
                continue  # this one cannot be written
            assert audio.declared_bytes(data.getvalue()) <= len(data.getvalue()) + 1, (subtype, endian)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF])
def test_streamed_aiff_and_au_are_no_truncated_ones(size: int) -> None:
    for kind, at in (("AIFF", 4), ("AU", 8)):
        data = io.BytesIO()
        soundfile.write(data, tone(), 16000, format=kind)
        streamed = data.getvalue()[:at] + size.to_bytes(4, "big") + data.getvalue()[at + 4 :]
        assert audio.declared_bytes(streamed) == 0, kind


KINDS = [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16")]


@pytest.mark.parametrize(("kind", "subtype"), KINDS)
def test_recordings_joined_to_one_file_are_not_heard_in_part(tmp_path: Path, kind: str, subtype: str) -> None:
    one = wav(tone(4, 48000), 48000, subtype, kind)
    (tmp_path / "one").write_bytes(one)
    assert len(load_audio(tmp_path / "one")) == pytest.approx(4 * 16000, abs=1600)
    for file in (tmp_path / "two", tmp_path / "three"):
        file.write_bytes(one * (2 if file.name == "two" else 3))
        for read in (load_audio, lambda file: list(stream_audio(file))):
            with pytest.raises(AudioError, match=f"{file.name}: goes on after its end, as if another recording"):
                read(file)


def test_a_tag_before_a_flac_hides_no_second_one(tmp_path: Path) -> None:
    one = wav(tone(4), kind="FLAC", subtype="PCM_16")
    tagged = b"ID3\4\0\0" + bytes([0, 0, 1, 0]) + b"fLaC" + bytes(124) + one
    (tmp_path / "one").write_bytes(tagged)
    assert len(load_audio(tmp_path / "one")) == 4 * 16000
    (tmp_path / "two").write_bytes(tagged + one)
    with pytest.raises(AudioError, match="goes on after its end"):
        load_audio(tmp_path / "two")


def test_an_ogg_is_followed_by_zeros_alone(tmp_path: Path) -> None:
    one = wav(tone(4, 48000), 48000, "OPUS", "OGG")
    for end, right in ((b"", True), (bytes(5000), True), (bytes(10) + one, False), (one[:2], False), (b"x", False)):
        (tmp_path / "a.ogg").write_bytes(one + end)
        if right:
            assert len(load_audio(tmp_path / "a.ogg")) == pytest.approx(4 * 16000, abs=1600)
        else:
            with pytest.raises(AudioError, match="or has other data after its last one"):
                load_audio(tmp_path / "a.ogg")


@pytest.mark.parametrize("subtype", ["VORBIS", "OPUS"])
def test_a_truncated_ogg_is_told(tmp_path: Path, subtype: str) -> None:
    whole = wav(tone(9, 48000), 48000, subtype, "OGG")
    for part in (0.25, 0.5, 0.75, 0.999):
        (tmp_path / "a.ogg").write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(AudioError, match=r"truncated in the middle of an Ogg page|cannot be decoded"):
            load_audio(tmp_path / "a.ogg")


def test_tags_after_an_mp3_are_no_recording(tmp_path: Path) -> None:
    sound = wav(tone(4), kind="MP3", subtype="MPEG_LAYER_III")
    header = b"APETAGEX" + (2000).to_bytes(4, "little") + (5032).to_bytes(4, "little") + bytes(16)
    for tags in (b"", b"TAG" + bytes(125), header + b"x" * 5000 + header + b"TAG" + bytes(125), bytes(9999)):
        (tmp_path / "a.mp3").write_bytes(sound + tags)
        assert len(load_audio(tmp_path / "a.mp3")) == pytest.approx(4 * 16000, abs=1600)


def test_a_short_recording_behind_an_mp3_is_no_tag(tmp_path: Path) -> None:
    """A second or two of speech is fewer bytes than tags may be. Without its first frame an MP3 of variable rate does
    not say how long it is, and libsndfile stops where it guesses."""
    one = wav(tone(1), kind="MP3", subtype="MPEG_LAYER_III")
    assert len(one) < audio.MOST_TAGS
    (tmp_path / "two.mp3").write_bytes(one + one)
    with pytest.raises(AudioError, match="goes on after its end, as if another recording"):
        load_audio(tmp_path / "two.mp3")
    (tmp_path / "tagged.mp3").write_bytes(one + b"ID3\4\0\0\0\0\0\0" + one)
    with pytest.raises(AudioError, match="goes on after its end, as if another recording"):
        load_audio(tmp_path / "tagged.mp3")


def test_a_format_that_is_not_read_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(5000))
    with pytest.raises(AudioError, match=r"cannot be decoded as audio: .*`ffmpeg -i FILE FILE.wav` may convert it"):
        load_audio(tmp_path / "a.m4a")


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"missing\.wav: does not exist"):
        load_audio(tmp_path / "missing.wav")
    with pytest.raises(AudioError, match=r"b\.wav: does not exist \(here, folders are separated by /"):
        load_audio(tmp_path / "clips\\b.wav")
    (tmp_path / "\u00e4.wav").touch()
    with pytest.raises(AudioError, match=r"does not exist, but with its accents written another way \(NFC\)"):
        load_audio(tmp_path / "a\u0308.wav")  # as macOS writes it
    with pytest.raises(AudioError, match=r"각\.wav: does not exist$"):
        load_audio(tmp_path / f"{40 * '각'}.wav")  # which macOS would write in 300 bytes
    with pytest.raises(AudioError, match="is not a file"):
        load_audio(tmp_path)
    with pytest.raises(AudioError, match=r"null (byte|character)"):  # as Python 3.11 and 3.13 say
        load_audio("a\0b.wav")


@pytest.mark.parametrize(
    "data",
    [
        wav()[:40] + (2**31 - 2).to_bytes(4, "little") + wav()[44:],
        wav()[:40] + b"\xff\xff\xff\xff" + wav()[44:],
        wav(kind="FLAC")[:21] + b"\x0f\xff\xff\xff\xff" + wav(kind="FLAC")[26:],
        wav(subtype="IMA_ADPCM").replace(b"fact\x04\0\0\0", b"fact\x04\0\0\0\xff\xff\xff\x7f", 1),
    ],
)
def test_a_header_that_lies_about_its_length_takes_no_memory(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(data)
    tracemalloc.start()
    try:
        load_audio(tmp_path / "a.wav")
    except AudioError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 20e6


FORMATS = [("WAV", "PCM_16"), ("AIFF", "PCM_16"), ("AU", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")]


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
def test_a_read_that_gives_less_than_asked_for_or_fails_changes_no_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, subtype: str
) -> None:
    file, pread = tmp_path / "a", os.pread
    file.write_bytes(wav(tone(9.0), subtype=subtype, kind=kind))
    whole = load_audio(file)
    for at, short in itertools.product(range(12), (True, False)):
        calls = itertools.count()

        def read(descriptor: int, count: int, position: int, calls=calls, at=at, short=short) -> bytes:
            if next(calls) != at:
                return pread(descriptor, count, position)
            if not short:
                raise OSError(errno.EIO, "Input/output error")
            return pread(descriptor, (count + 1) // 2, position)

        monkeypatch.setattr(os, "pread", read)
        try:
            assert np.array_equal(load_audio(file), whole), at
            assert short or next(calls) <= at, at  # a FLAC takes few
        except AudioError as error:
            assert not short and "cannot be read" in str(error) and "Input/output error" in str(error)


SEEDS = [wav(), wav(tone(0.2, 44100, 2), 44100), wav(subtype="FLOAT"), wav(subtype="IMA_ADPCM"), wav(kind="FLAC"),
         wav(kind="AIFF")]  # fmt: skip
WORDS = [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), b"\0\0\0\x80"]
POSITION = st.one_of(st.integers(0, 60), st.integers(0, 20000))
MUTATION = st.one_of(
    st.tuples(st.just("set"), POSITION, st.one_of(st.sampled_from(WORDS), st.binary(min_size=1, max_size=4))),
    st.tuples(st.just("insert"), POSITION, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("cut"), POSITION, st.just(b"")),
)


def mutate(data: bytes, mutations: list[tuple[str, int, bytes]]) -> bytes:
    changed = bytearray(data)
    for what, position, new in mutations:
        start = position % max(1, len(changed))
        end = {"set": start + len(new), "insert": start, "cut": len(changed)}[what]
        changed[start:end] = new
    return bytes(changed)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.sampled_from(SEEDS), mutations=st.lists(MUTATION, max_size=6))
def test_damaged_recordings_give_an_error_or_finite_samples(tmp_path: Path, seed: bytes, mutations: list) -> None:
    data = mutate(seed, mutations)
    (tmp_path / "a.wav").write_bytes(data)
    tracemalloc.start()
    try:
        wave = load_audio(tmp_path / "a.wav")
    except AudioError:
        pass
    else:
        assert wave.dtype == np.float32 and wave.ndim == 1 and len(wave) > 0 and np.isfinite(wave).all()
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 100e6


def test_what_is_decoded_at_once_is_an_hour_at_most() -> None:
    """Of silence: a quarter of a megabyte."""
    hour, more = io.BytesIO(), io.BytesIO()
    soundfile.write(hour, np.zeros(3600 * 16000, np.int16), 16000, format="FLAC")
    soundfile.write(more, np.zeros(3600 * 16000 + 1, np.int16), 16000, format="FLAC")
    assert len(audio.decode(hour.getvalue())) == 3600 * 16000
    with pytest.raises(ValueError, match="is longer than an hour; cut it into utterances"):
        audio.decode(more.getvalue())
