"""Prediction: the training pipeline's samples, segments and probabilities, for any recording, in bounded memory."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, Command, at_a_terminal
from faults import until
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_checkpoints import CLASSES, make_checkpoint

import app
import audio
import checkpoints
import data
import features
import figures
import inference
import metrics
import predict
import recipes
import timeline
import train
from audio import AudioError
from cli import UserError

SMALL: dict[str, Any] = {"n_mfcc": 12, "segment_length": 0.6, "train_overlap": 0.0, "test_overlap": 0.35}
FUZZ = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with a temperature, of segments of 0.6 s."""
    return make_checkpoint(tmp_path_factory.mktemp("small") / "c", "MACNN", validation=True, **SMALL)


@pytest.fixture(scope="module")
def recognise(small: Path) -> inference.Recogniser:
    return inference.Recogniser(checkpoints.load(small))


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three recordings in two folders, and files that are not recordings."""
    folder = tmp_path_factory.mktemp("recordings")
    (folder / "b").mkdir()
    babble(folder / "z.wav", 2.0)
    babble(folder / "b" / "a.flac", 1.0, rate=44100, channels=2)
    babble(folder / "b" / "short.wav", 0.25)
    (folder / "notes.txt").write_text("not audio")
    (folder / "._z.wav").write_bytes(b"\x00\x05\x16\x07")
    return folder


def noise(seconds: float, rate: int = 16000, channels: int = 1) -> np.ndarray:
    generator = np.random.default_rng(int(seconds * 1000))
    at = np.arange(round(seconds * rate)) / rate
    tone = 0.3 * np.sin(2 * np.pi * 220 * at * (1 + 0.2 * np.sin(3 * at)))
    return (tone[:, None] + generator.normal(0, 0.02, (len(at), channels))).astype(np.float32)


def babble(file: Path, seconds: float, rate: int = 16000, channels: int = 1, **kwargs: Any) -> Path:
    soundfile.write(file, noise(seconds, rate, channels), rate, **kwargs)
    return file


def streamed(file: Path) -> np.ndarray:
    return np.concatenate(list(audio.stream_audio(file)))


# ------------------------------------------------------------------------------------------------ recordings


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [("a.wav", 16000, 1, "PCM_16"), ("a.wav", 8000, 1, "ULAW"), ("a.wav", 44100, 2, "PCM_24"),
     ("a.flac", 48000, 6, None), ("a.ogg", 22050, 2, None), ("a.mp3", 32000, 2, None), ("a.wav", 11025, 12, "FLOAT"),
     ("a.aiff", 96000, 1, None), ("a.w64", 16000, 2, "DOUBLE"), ("a.caf", 192000, 1, None)],
)  # fmt: skip
def test_streaming_gives_the_samples_of_load_audio(
    name: str, rate: int, channels: int, subtype: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = babble(tmp_path / name, 1.3, rate, channels, subtype=subtype)
    whole = audio.load_audio(file)
    for block in (audio.BLOCK, 9973):
        monkeypatch.setattr(audio, "BLOCK", block)
        np.testing.assert_array_equal(streamed(file), whole)


@FUZZ
@given(
    frames=st.integers(1, 3000),
    rate=st.sampled_from([1000, 8000, 16000, 16001, 44100, 384000]),
    block=st.integers(1, 999),
)
def test_streaming_any_length(frames: int, rate: int, block: int, tmp_path: Path) -> None:
    file = tmp_path / "a.wav"
    soundfile.write(file, np.random.default_rng(frames).uniform(-1, 1, frames), rate, subtype="FLOAT")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio, "BLOCK", block)
        np.testing.assert_array_equal(streamed(file), audio.load_audio(file))


def test_real_recordings_stream_alike(emodb: Path) -> None:
    for file in sorted(emodb.glob("*.wav"))[::100]:
        np.testing.assert_array_equal(streamed(file), audio.load_audio(file))


@pytest.mark.parametrize("size", audio.UNKNOWN_SIZES)
@pytest.mark.parametrize("block", [2**20, 5])
def test_piped_wave_files_stream_alike(size: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorders that write to a pipe cannot go back to the header to say how long the recording became."""
    file = babble(tmp_path / "a.wav", 0.4)
    whole, contents = audio.load_audio(file), bytearray(file.read_bytes())
    contents[40:44] = size.to_bytes(4, "little")
    file.write_bytes(contents)
    monkeypatch.setattr(audio, "BLOCK", block)
    np.testing.assert_array_equal(streamed(file), whole)


def mp3(file: Path, mode: str) -> bytes:
    """Write loud and silent stretches, so that frames of a variable rate differ in size; return the file without its
    first frame, which says how many follow."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-0.5, 0.5, 30000), np.zeros(160000), rng.uniform(-0.5, 0.5, 30000)])
    with soundfile.SoundFile(
        file, "w", 16000, 1, "MPEG_LAYER_III", format="MP3", bitrate_mode=mode, compression_level=0.3
    ) as f:
        f.write(x)
    whole = file.read_bytes()
    second = whole.index(whole[:2], max(whole.find(b"Xing"), whole.find(b"Info")))
    return whole[second:]


def test_mp3s_that_do_not_say_how_long_they_are(tmp_path: Path) -> None:
    tagged = b"ID3\x03\0\0\0\0\0\x40" + bytes(64)  # an estimate from the file's size takes this tag for sound
    file = tmp_path / "constant.mp3"
    bare = mp3(file, "CONSTANT")
    whole = len(audio.load_audio(file))
    for contents in (bare, tagged + bare, tagged + file.read_bytes()):
        (tmp_path / "a.mp3").write_bytes(contents)
        np.testing.assert_array_equal(streamed(tmp_path / "a.mp3"), heard := audio.load_audio(tmp_path / "a.mp3"))
        assert abs(len(heard) - whole) < 2000  # without the first frame, the encoder's delay is kept
    file = tmp_path / "variable.mp3"
    (tmp_path / "b.mp3").write_bytes(mp3(file, "VARIABLE"))
    assert len(audio.load_audio(file)) == 220000
    said = verdict(audio.load_audio, tmp_path / "b.mp3")
    assert said == verdict(streamed, tmp_path / "b.mp3") and "does not say how long it is" in said


def test_a_flac_of_unknown_length(tmp_path: Path) -> None:
    file = babble(tmp_path / "a.flac", 1.3)
    whole, contents = audio.load_audio(file), bytearray(file.read_bytes())
    contents[21] &= 0xF0  # the number of samples, 36 bits
    contents[22:26] = bytes(4)
    file.write_bytes(contents)
    np.testing.assert_array_equal(audio.load_audio(file), whole)
    np.testing.assert_array_equal(streamed(file), whole)


def test_much_silence_in_few_bytes(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.caf", np.zeros(960000), 16000, "ALAC_16")
    assert len(audio.load_audio(tmp_path / "a.caf")) == len(streamed(tmp_path / "a.caf")) == 960000


def verdict(read: Any, file: Path) -> str:
    try:
        read(file)
    except AudioError as error:
        return str(error)
    return "fine"


def test_streaming_leaves_numpys_warnings_alone(tmp_path: Path) -> None:
    before = np.geterr()
    blocks = audio.stream_audio(babble(tmp_path / "two.wav", 1.0, channels=2))
    next(blocks)
    assert np.geterr() == before


def test_broken_files_are_refused_alike(tmp_path: Path) -> None:
    wav = babble(tmp_path / "a.wav", 0.5).read_bytes()
    flac = babble(tmp_path / "a.flac", 0.5).read_bytes()
    contents = {"empty.wav": b"", "text.wav": b"hello" * 99, "cut.wav": wav[:9000], "cut.flac": flac[: len(flac) // 2],
                "header.wav": wav[:44], "tail.wav": wav + b"junk", "half.wav": wav[:30], "raw.raw": wav}  # fmt: skip
    for name, bytes_ in contents.items():
        (tmp_path / name).write_bytes(bytes_)
    for name, value in (("nan.wav", np.nan), ("loud.wav", 1e9)):
        soundfile.write(tmp_path / name, np.full(4000, value), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "slow.wav", np.zeros(99), 7)
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16000)
    for name in [*contents, "nan.wav", "loud.wav", "slow.wav", "none.wav", "missing.wav", "."]:
        expected = verdict(audio.load_audio, tmp_path / name)
        assert verdict(streamed, tmp_path / name) == expected, name
        assert expected == "fine" or str(tmp_path / name) in expected
    assert sum(verdict(streamed, tmp_path / name) == "fine" for name in contents) == 2  # tail.wav, raw.raw


@FUZZ
@given(drawn=st.data())
def test_damaged_files_are_refused_alike(drawn: st.DataObject, tmp_path: Path) -> None:
    suffix = drawn.draw(st.sampled_from(["wav", "flac", "ogg", "aiff"]))
    whole = bytearray(babble(tmp_path / f"whole.{suffix}", 0.1).read_bytes())
    for _ in range(drawn.draw(st.integers(1, 5))):
        whole[drawn.draw(st.integers(0, min(len(whole) - 1, 200)))] = drawn.draw(st.integers(0, 255))
    file = tmp_path / f"damaged.{suffix}"
    file.write_bytes(whole)
    assert (verdict(streamed, file) == "fine") == (verdict(audio.load_audio, file) == "fine")


@FUZZ
@given(
    samples=st.integers(0, 300),
    size=st.integers(2, 40),
    share=st.floats(0, 0.99),
    blocks=st.lists(st.integers(0, 90), max_size=9),
)
def test_cutting_blocks_is_cutting_the_whole(samples: int, size: int, share: float, blocks: list[int]) -> None:
    wave, hop = np.arange(samples, dtype=np.float32), max(1, int(size * (1 - share)))
    cut = inference.Segmenter(size, hop)
    parts = [cut.add(part).copy() for part in np.split(wave, np.minimum(np.cumsum(blocks, dtype=int), samples))]
    whole = np.lib.stride_tricks.sliding_window_view(wave, size)[::hop] if samples >= size else np.empty((0, size))
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert cut.samples == samples


@FUZZ
@given(blocks=st.lists(st.integers(0, 60_000), max_size=12))
def test_the_outline_holds_every_sample_in_little(blocks: list[int]) -> None:
    outline, generator = inference.Outline(), np.random.default_rng(sum(blocks))
    wave = generator.uniform(-1, 1, sum(blocks)).astype(np.float32)
    for part in np.split(wave, np.cumsum(blocks, dtype=int))[:-1]:
        outline.add(part)
    assert len(outline.bins) <= inference.MOST_BINS
    whole = wave[: len(outline.bins) * outline.stretch]
    assert len(wave) - len(whole) < outline.stretch
    stretches = whole.reshape(-1, outline.stretch)
    np.testing.assert_array_equal(outline.bins, np.stack((stretches.min(1), stretches.max(1)), 1))
    assert outline.loudest() == np.abs(wave).max(initial=0)


def test_hours_take_no_more_memory_than_minutes(tmp_path: Path) -> None:
    file, block = tmp_path / "long.wav", noise(60, 8000)
    with soundfile.SoundFile(file, "w", 8000, 1, "PCM_16") as sound:
        for _ in range(120):
            sound.write(block)
    tracemalloc.start()
    outline, cut, count = inference.Outline(), inference.Segmenter(28800, 28800), 0
    for wave in audio.stream_audio(file):
        outline.add(wave)
        count += len(cut.add(wave))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert cut.samples == 120 * 60 * 16000 and count == 4000
    assert peak < 100e6, f"{peak / 1e6:.0f} MB"  # the samples are 461 MB


# --------------------------------------------------------------------------------------------- probabilities


@pytest.mark.parametrize("split", ["8:2", "8:1:1"])
def test_a_test_utterances_probabilities_are_the_runs(split: str, here: Path) -> None:
    config = recipes.config_for("MACNN", split=split, epochs=2)
    folder = train.train(config, save_model="paper", quiet=True)
    assert folder is not None
    checkpoint, paths = checkpoints.load(folder), {u.name: u.path for u in data.load(config).corpus.utterances}
    if split == "8:2":
        assert checkpoint.temperature is None
    plain = inference.Recogniser(checkpoint, calibrate=False)
    warm = inference.Recogniser(checkpoint)
    assert (plain.temperature, warm.temperature) == (1.0, checkpoint.temperature or 1.0)
    with np.load(folder / "predictions.npz") as arrays:
        logits = arrays["test_logits"][checkpoint.config["epoch"] - 1]
        for name, expected in zip(arrays["test_names"].tolist(), logits, strict=True):
            for predictor, temperature in ((plain, 1.0), (warm, checkpoint.temperature or 1.0)):
                prediction = predictor(paths[name])
                # sums over batches of other sizes are rounded differently
                np.testing.assert_allclose(prediction.logits, expected, atol=2e-5)
                np.testing.assert_allclose(prediction.probabilities, metrics.softmax(expected, temperature), atol=1e-5)
                assert prediction.note == ""


def test_the_timeline(recognise: inference.Recogniser, tmp_path: Path) -> None:
    file = babble(tmp_path / "a.wav", 2.0)
    one = recognise(file)
    assert one.seconds == 2.0 and len(one.starts) == 1 + (32000 - 9600) // 4000 == len(one.timeline)
    np.testing.assert_allclose(np.diff(one.starts), 0.25)
    np.testing.assert_allclose(one.ends - one.starts, 0.6)
    np.testing.assert_allclose(one.timeline.sum(1), 1)
    wave = features.segment(audio.load_audio(file), 0.6, 0.35)
    np.testing.assert_allclose(one.timeline, metrics.softmax(recognise.logits(wave), recognise.temperature))
    assert one.label == CLASSES[one.probabilities.argmax()]


@pytest.mark.parametrize("padding", [True, False])
def test_short_recordings_are_repeated_and_said_so(padding: bool, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "MACNN", padding=padding, **SMALL)
    recognise, file = inference.Recogniser(checkpoints.load(folder)), babble(tmp_path / "a.wav", 0.25)
    one = recognise(file)
    segments = features.segment(audio.load_audio(file), 0.6, 0.35, padding=True)
    np.testing.assert_array_equal(one.logits, recognise.logits(segments).mean(0))
    assert one.note.startswith("shorter than 0.6 s: repeated") and ("as in training" in one.note) == padding
    assert one.ends[0] == one.seconds == 0.25


@pytest.mark.parametrize("feature", list(features.FEATURES))
def test_every_feature_predicts(feature: str, tmp_path: Path) -> None:
    folder = make_checkpoint(
        tmp_path / "c", "APCNN", feature=feature, classes=["a", "b", "c", "d", "e", "f", "g"], **SMALL
    )
    one = inference.Recogniser(checkpoints.load(folder))(babble(tmp_path / "a.wav", 1.0))
    assert np.isfinite(one.timeline).all() and one.probabilities.shape == (7,)


# ---------------------------------------------------------------------------------------------- command line


def test_a_folder_as_table_json_and_csv(small: Path, recordings: Path, command: Command, recognise: Any) -> None:
    names = [f"{recordings}/{name}" for name in ("z.wav", "b/a.flac", "b/short.wav")]
    table = command("predict.py", recordings, "--checkpoint", small)
    lines = table.stdout.splitlines()
    assert all(line.startswith(f"{name} ") for line, name in zip(lines, ["recording", *names], strict=True))
    assert lines[3].endswith("repeated; training left such recordings out") and "SYNTHETIC" in table.stderr
    temperature = recognise.temperature
    assert f"probabilities are calibrated (temperature {temperature:g}, fitted on the 40 validation" in table.stderr

    told = json.loads(command("predict.py", recordings, "--checkpoint", small, "--json", "--timeline").stdout)
    utterances = told.pop("utterances")
    assert told == {"checkpoint": str(small), "model": "MACNN", "calibrated": True, "temperature": temperature,
                    "synthetic": True, "classes": CLASSES, "broken": []}  # fmt: skip
    assert [one["file"] for one in utterances] == names
    for one, name in zip(utterances, names, strict=True):
        expected = recognise(name)
        np.testing.assert_allclose(list(one["probabilities"].values()), expected.probabilities, atol=1e-5)
        assert one["class"] == expected.label and len(one["timeline"]) == one["segments"] == len(expected.starts)

    text = command("predict.py", recordings, "--checkpoint", small, "--csv", "--timeline", "--jobs", 1).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    whole = [row for row in rows if row["part"] == "utterance"]
    assert [row["file"] for row in whole] == names
    assert len(rows) == sum(1 + one["segments"] for one in utterances)
    for row, one in zip(whole, utterances, strict=True):
        assert row["class"] == one["class"]
        np.testing.assert_allclose(
            [float(row[f"p_{c}"]) for c in CLASSES], list(one["probabilities"].values()), atol=1e-5
        )


@pytest.mark.parametrize("timeline", [False, True])
def test_table_csv_and_json_say_what_a_prediction_does(
    timeline: bool, recognise: inference.Recogniser, recordings: Path, capsys: pytest.CaptureFixture
) -> None:
    one = replace(recognise(recordings / "z.wav", "z.wav"), note="cut")
    one.timeline[:] = np.random.default_rng(0).dirichlet(np.ones(4), len(one.starts))  # of several classes
    one.heard[1] = False
    whole = ("utterance", 0.0, 2.0, one.probabilities, "cut")
    columns = zip(one.starts, one.ends, one.timeline, one.heard, strict=True)
    segments = [("segment", start, end, p, "" if heard else "silent") for start, end, p, heard in columns]

    table, rows = predict.Table(["z.wav"], CLASSES, timeline), predict.Csv(CLASSES, timeline)
    titles = capsys.readouterr().out.splitlines()
    assert titles[0].split() == ["recording", "seconds", "class", *CLASSES]
    assert titles[1].split(",") == ["file", "part", "start", "end", "class", *(f"p_{c}" for c in CLASSES), "note"]
    table.add(one)
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows.add(one)
    written = list(csv.reader(capsys.readouterr().out.splitlines()))
    expected_lines, expected_rows = [], []
    for part, start, end, p, note in [whole, *segments] if timeline else [whole]:
        label = CLASSES[p.argmax()]
        when = ["z.wav", f"{end:.2f}"] if part == "utterance" else [f"{start:.2f}", "-", f"{end:.2f}"]
        expected_lines.append([*when, label, *(f"{x:.3f}" for x in p), *note.split()])
        expected_rows.append(["z.wav", part, f"{start:.4f}", f"{end:.4f}", label, *(f"{x:.9g}" for x in p), note])
    assert lines == expected_lines and written == expected_rows

    told = one.as_dict(timeline)
    course = [
        {
            "start": round(start, 4),
            "end": round(end, 4),
            "probabilities": dict(zip(CLASSES, p, strict=True)),
            "silent": note == "silent",
        }
        for _, start, end, p, note in segments
    ]
    assert told == {
        "file": "z.wav", "class": one.label, "probabilities": dict(zip(CLASSES, one.probabilities, strict=True)),
        "seconds": 2.0, "segments": len(segments), "note": "cut", **({"timeline": course} if timeline else {}),
    }  # fmt: skip


def test_broken_ones_are_reported_and_left_out(small: Path, recordings: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "bad.wav").write_bytes(b"no audio")
    babble(tmp_path / "good.wav", 1.0)
    words = ("predict.py", tmp_path, tmp_path / "none.wav", "--checkpoint", small, "--json")
    done = command(*words, "--plot", tmp_path / "plots", status=1)
    assert [picture.name for picture in (tmp_path / "plots").iterdir()] == ["good.wav.png"]
    told = json.loads(done.stdout)
    assert [Path(one["file"]).name for one in told["utterances"]] == ["good.wav"]
    assert [Path(one["file"]).name for one in told["broken"]] == ["bad.wav", "none.wav"]
    assert "timeline" not in told["utterances"][0]
    for one in told["broken"]:
        assert f"error: {one['fault']}\n" in done.stderr and one["file"] in one["fault"]
    assert "bad.wav: cannot be decoded" in done.stderr and "none.wav: does not exist" in done.stderr


def test_at_a_terminal_no_line_stands_on_the_bar(small: Path, recordings: Path, tmp_path: Path) -> None:
    words = ("predict.py", recordings, tmp_path / "none.wav", "--checkpoint", small, "--jobs", 1, "--csv")
    lines = at_a_terminal(*words, "--plot", tmp_path / "plots", status=1)
    names = [recordings / name for name in ("z.wav", "b/a.flac", "b/short.wav")]
    pictures = [tmp_path / "plots" / f"{name.relative_to(recordings)}.png" for name in names]
    starts = [word for name, picture in zip(names, pictures, strict=True) for word in (f"{name},utterance,", picture)]
    starts += [f"error: {tmp_path / 'none.wav'}: does not exist", ""]
    assert len(lines) == 2 + len(starts)  # what the checkpoint is, and the names of the columns
    for line, start in zip(lines[2:], map(str, starts), strict=True):
        assert line.startswith(start) and (start or not line), lines


def test_standard_input(small: Path, recordings: Path) -> None:
    words = [sys.executable, "predict.py", "-", "--checkpoint", str(small), "--csv", "--no-calibrate"]
    for contents, status in (((recordings / "b" / "a.flac").read_bytes(), 0), (b"", 1), (b"text", 1)):
        done = subprocess.run(words, cwd=ROOT, input=contents, capture_output=True)
        assert done.returncode == status and b"Traceback" not in done.stderr
        assert b"not calibrated" in done.stderr
        if status:
            assert b"error: -: " in done.stderr and b"/tmp" not in done.stderr.split(b"error:")[1]
        else:
            (row,) = csv.DictReader(io.StringIO(done.stdout.decode()))
            raw = inference.Recogniser(checkpoints.load(small), calibrate=False)(recordings / "b" / "a.flac")
            np.testing.assert_allclose(float(row["p_sad"]), raw.probabilities[1], atol=1e-5)


def test_pictures(
    small: Path, recordings: Path, recognise: inference.Recogniser, tmp_path: Path, command: Command
) -> None:
    from matplotlib.image import imread

    done = command("predict.py", recordings, "--checkpoint", small, "--plot", tmp_path / "plots")
    made = sorted(f.relative_to(tmp_path / "plots").as_posix() for f in (tmp_path / "plots").rglob("*") if f.is_file())
    assert made == ["b/a.flac.png", "b/short.wav.png", "z.wav.png"]
    image = imread(tmp_path / "plots" / "z.wav.png")[:, :, :3]
    for colour in figures.COLOURS[:4]:  # each class has a line
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        assert (np.abs(image - rgb).max(2) < 0.02).sum() > 50, colour
    for suffix, magic in ((".pdf", b"%PDF"), (".svg", b"<?xml"), (".png", b"\x89PNG")):
        timeline.plot(recognise(recordings / "z.wav"), tmp_path / f"one{suffix}", done.stderr.splitlines()[0])
        assert (tmp_path / f"one{suffix}").read_bytes().startswith(magic)
    # the command drew this recording under this title; sums over batches of other sizes are rounded differently
    assert np.abs(imread(tmp_path / "one.png")[:, :, :3] - image).mean() < 1e-3


def test_the_picture_says_what_a_point_is(recordings: Path, recognise: inference.Recogniser, tmp_path: Path) -> None:
    import matplotlib

    z = recognise(recordings / "z.wav")
    count = 500  # segments, more than there are points
    starts = np.arange(count) * 0.2
    many = {"starts": starts, "ends": starts + 1.8, "timeline": np.tile(z.timeline[:1], (count, 1))}
    hour = replace(z, **many, heard=np.ones(count, dtype=bool), seconds=101.6)
    said = {"z": "seconds; each point a segment of ", "short": "seconds<", "one": "seconds<",
            "hour": "seconds; means over 0."}  # fmt: skip
    short = recognise(recordings / "b" / "short.wav")
    one_segment = recognise.samples(np.ones(recognise.checkpoint.size + 9) / 9)  # and 9 samples more
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        for (name, text), one in zip(said.items(), (z, short, one_segment, hour), strict=True):
            timeline.plot(one, tmp_path / f"{name}.svg", "a test")
            assert text in (tmp_path / f"{name}.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("apart", [1.0, 30.0])
def test_a_picture_says_when_and_what(apart: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.colors import to_rgba

    kept: list[Any] = []
    figure = timeline.Figure
    monkeypatch.setattr(timeline, "Figure", lambda **how: kept.append(figure(**how)) or kept[-1])
    starts, course = np.arange(6) * apart, np.array([[0.9, 0.1]] * 2 + [[0.2, 0.8]] * 4)
    outline = inference.Outline()
    outline.add(np.tile(np.float32([0.5, -0.5]), round(3.5 * apart * 16000)))
    one = inference.Prediction("a.wav", ["x", "y"], np.zeros(2), np.array([0.3, 0.7]), starts, starts + 2 * apart,
                               course, 7 * apart, np.arange(6) != 4, outline=outline)  # fmt: skip
    timeline.plot(one, tmp_path / "a.png")
    wave, strip, lines = kept[0].axes
    assert wave.get_title(loc="left") == "a.wav: y (70%)"
    ((left, _, right, _),) = [band.get_datalim(wave.transData).extents for band in wave.collections]
    assert left == 0 and 6.99 * apart < right <= 7 * apart
    parts = [(patch.get_x(), patch.get_x() + patch.get_width(), patch.get_facecolor()) for patch in strip.patches]
    x, y = (to_rgba(colour) for colour in figures.COLOURS[:2])
    expected = [(0, 2.5, x), (2.5, 4.5, y), (5.5, 7, y)]
    for (begin, end, colour), (at, until_, ink) in zip(parts, expected, strict=True):
        assert (begin, end) == pytest.approx((at * apart, until_ * apart)) and colour == ink
    for line, p in zip(lines.lines[::2], course.T, strict=True):  # lines between these show lone segments
        np.testing.assert_allclose(line.get_xdata(), starts + apart)
        np.testing.assert_allclose(line.get_ydata(), np.where(one.heard, p, np.nan))
    assert [text.get_text() for text in lines.get_legend().get_texts()] == ["x 30%", "y 70%"]
    said = lines.get_xlabel()
    assert said.startswith("minutes" if apart > 20 else "seconds") and f"a segment of {2 * apart:.1f} s" in said
    if apart > 20:
        assert lines.xaxis.get_major_formatter()(90.0, 0) == "1:30"
    timeline.plot(replace(one, heard=np.zeros(6, dtype=bool)), tmp_path / "a.png")
    assert kept[1].axes[0].get_title(loc="left") == "a.wav: silent" and not kept[1].axes[1].patches


def test_a_segment_between_silent_ones_is_drawn(
    recordings: Path, recognise: inference.Recogniser, tmp_path: Path
) -> None:
    from matplotlib.image import imread

    whole = recognise(recordings / "z.wav")
    count = 9
    alone = replace(
        whole,
        starts=np.arange(count) * 1.0,
        ends=np.arange(count) + 1.0,
        seconds=float(count),
        timeline=np.tile(np.array([[0.55, 0.25, 0.15, 0.05]]), (count, 1)),
        heard=np.arange(count) % 4 == 1,
    )
    nothing = replace(alone, heard=np.zeros(count, dtype=bool))
    for one, name in ((alone, "alone.png"), (nothing, "nothing.png")):
        timeline.plot(one, tmp_path / name, "a test")
    drawn, empty = (imread(tmp_path / name)[:, :, :3] for name in ("alone.png", "nothing.png"))
    for colour in figures.COLOURS[1:4]:  # the first class's colour is also in the strip
        rgb = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        dots = [(np.abs(image - rgb).max(2) < 0.02).sum() for image in (drawn, empty)]
        assert dots[0] > dots[1] + 20, colour


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{r}", "--plot", "{t}/one.png"], "one picture"),
        (["{r}/z.wav", "{r}/z.wav", "--plot", "{t}"], "two recordings"),
        (["{r}/z.wav", "--plot", "{r}/notes.txt"], "name a file that ends in"),
        (["{r}/z.wav", "--plot", "{t}/one.xyz"], "name a file that ends in"),
        (["{t}"], "holds no recording"),
        (["{t}/corpus.csv"], "corpus.csv predicts and scores those it lists"),
        (["-", "-"], "- is given twice"),
        (["{r}", "--checkpoint", "{t}"], "is not a checkpoint"),
    ],
)
def test_what_cannot_be_asked(
    words: list[str], said: str, small: Path, recordings: Path, tmp_path: Path, command: Command
) -> None:
    filled = [word.format(r=recordings, t=tmp_path) for word in words]
    done = command("predict.py", "--checkpoint", small, *filled, status=2)
    assert done.stderr.startswith("error: ") and said in done.stderr


def test_calibrate_needs_a_temperature(recordings: Path, tmp_path: Path, command: Command) -> None:
    folder = make_checkpoint(tmp_path / "c", "MACNN", synthetic=False, **SMALL)
    done = command("predict.py", recordings / "z.wav", "--checkpoint", folder, "--calibrate", status=2)
    assert "no validation part" in done.stderr
    done = command("predict.py", recordings / "z.wav", "--checkpoint", folder, "--json")
    told = json.loads(done.stdout)
    assert "not calibrated (none" in done.stderr and "SYNTHETIC" not in done.stderr
    assert (told["calibrated"], told["temperature"], told["synthetic"]) == (False, None, False)


def test_a_temperature_that_is_not_applied_is_told(
    small: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = ["predict.py", recordings / "z.wav", "--checkpoint", small, "--json", "--no-calibrate"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    assert predict.main() == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["calibrated"], told["temperature"]) == (False, checkpoints.load(small).temperature)


def test_a_gpu_without_memory_is_said(small: Path, recordings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(inference.Recogniser, "logits", full)
    monkeypatch.setattr(sys, "argv", ["predict.py", str(recordings), "--checkpoint", str(small), "--gpu", "-1"])
    with pytest.raises(UserError, match="the GPU ran out of memory; --gpu -1 computes on the CPU"):
        predict.main()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_threads_share_a_gpu(small: Path, recordings: Path, command: Command) -> None:
    words = ("predict.py", recordings, "--checkpoint", small, "--json", "--jobs", 8)
    ours, theirs = (json.loads(command(*words, "--gpu", gpu).stdout)["utterances"] for gpu in (0, -1))
    for one, other in zip(ours, theirs, strict=True):
        for name, p in one["probabilities"].items():
            assert p == pytest.approx(other["probabilities"][name], abs=1e-3)


def test_pictures_of_recordings_with_odd_names(small: Path, tmp_path: Path, command: Command) -> None:
    for name in ("a$_$b.wav", "$\\foo$.wav", "caf\udce9.wav"):
        babble(tmp_path / "a.wav", 1.0).rename(tmp_path / name)
    command("predict.py", tmp_path, "--checkpoint", small, "--plot", tmp_path / "pictures", "--json", "--gpu", -1)
    assert len(list((tmp_path / "pictures").iterdir())) == 3


def test_of_a_folder_links_are_followed_and_what_is_left_out_is_told(
    small: Path, recordings: Path, tmp_path: Path, command: Command, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "mix"
    folder.mkdir()
    babble(folder / "a.wav", 1.0)
    for name in ("b.m4a", "c.MP4", "notes.txt"):
        (folder / name).write_bytes(b"x")
    (folder / "day1").symlink_to(recordings)
    (folder / "round").symlink_to(folder)
    (folder / "again").mkdir()
    babble(folder / "again" / "b.wav", 1.0)
    (folder / "Again").symlink_to(folder / "again")
    done = command("predict.py", folder, "--checkpoint", small, "--json", "--gpu", -1)
    names = [one["file"] for one in json.loads(done.stdout)["utterances"]]
    heard = ("a.wav", "again/b.wav", "day1/z.wav", "day1/b/a.flac", "day1/b/short.wav")
    assert names == [str(folder / name) for name in heard]
    assert "mix: 2 files are left out, as .m4a, .mp4 cannot be read; `ffmpeg" in done.stderr
    (folder / "c.MP4").unlink()
    assert len(predict.find_inputs([str(folder)], tmp_path)) == len(heard)
    assert "mix: 1 file is left out, as .m4a cannot be read; `ffmpeg" in capsys.readouterr().err


def test_every_kind_of_recording_is_found_in_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    endings = ("AIFF", "WAV", "aif", "au", "caf", "flac", "mp3", "oga", "ogg", "opus", "sph", "w64")
    names = [f"a.{ending}" for ending in endings]
    for name in names:
        (tmp_path / name).touch()
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "b.wav").touch()
    assert [one.path.name for one in predict.find_inputs([str(tmp_path)], tmp_path)] == names
    assert not capsys.readouterr().err


def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path: Path, unreadable: Callable[[str], None]) -> None:
    babble(tmp_path / "a.wav", 1.0)
    (tmp_path / "locked").mkdir()
    unreadable("locked")
    with pytest.raises(PermissionError, match="locked"):
        predict.find_inputs([str(tmp_path)], tmp_path)


def test_a_recogniser_goes_on_after_one_was_left(recognise: inference.Recogniser, recordings: Path) -> None:
    file = recordings / "z.wav"
    threads = torch.get_num_threads()
    for one in recognise.each([(file, str(n)) for n in range(4)], jobs=1):
        assert isinstance(one, inference.Prediction) and one.file == "0"
        break
    assert [one.file for one in recognise.each([(file, "again")])] == ["again"]  # type: ignore[union-attr]
    assert list(recognise.each([])) == [] and recognise(file).seconds == 2
    assert torch.get_num_threads() == threads


def test_ctrl_c_before_the_first_result_is_waited_for(recognise: inference.Recogniser, monkeypatch) -> None:
    ended: list[bool] = []
    monkeypatch.setattr(inference.Recogniser, "__call__", lambda self, *given: ended.append(given[-1].wait(5)))

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inference, "tqdm", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(recognise.each([("a.wav", "a")]))
    assert ended == [True]


def test_ctrl_c_does_not_wait_for_a_long_recording(small: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(3600 * 16000 * 4, np.int16), 16000)
    words = [sys.executable, "predict.py", str(tmp_path / "long.flac"), "--checkpoint", str(small), "--gpu", "-1"]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))  # fmt: skip
    assert process.stderr is not None and "trained on" in process.stderr.readline()
    files = Path(f"/proc/{process.pid}/fd")
    until(lambda: str(tmp_path / "long.flac") in map(os.path.realpath, files.iterdir()))  # it is being read
    start = time.perf_counter()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=600)
    assert process.returncode == 130 and "what is printed stands" in told
    assert time.perf_counter() - start < 15


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGHUP])
def test_a_piped_recording_is_deleted_however_the_command_is_ended(
    small: Path, tmp_path: Path, ending: signal.Signals
) -> None:
    words = [sys.executable, "predict.py", "-", "--checkpoint", str(small), "--gpu", "-1"]
    process = subprocess.Popen(words, cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, stdin=subprocess.PIPE,
                               stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # fmt: skip
    until(lambda: list(tmp_path.glob("predict-*/stdin")))
    process.send_signal(ending)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 130 and told.startswith("interrupted") and not list(tmp_path.iterdir())


def test_a_name_that_is_not_utf8(small: Path, tmp_path: Path) -> None:
    babble(tmp_path / "a.wav", 1.0).rename(tmp_path / "\udcff\n.wav")
    for form in ("--csv", "--json"):
        words = [sys.executable, "predict.py", str(tmp_path), "--checkpoint", str(small), form]
        done = subprocess.run(words, cwd=ROOT, capture_output=True)
        assert done.returncode == 0, done.stderr
        assert (b"\xff\n.wav" if form == "--csv" else rb"\udcff\n.wav") in done.stdout


def test_columns_stand_under_each_other_whatever_a_name_holds(capsys: pytest.CaptureFixture) -> None:
    predict.Table(["a.wav", "b\tlonger.wav"], CLASSES, False)._row("b\tlonger.wav", "1.00", np.eye(4)[0])
    title, row = capsys.readouterr().out.splitlines()
    assert title.index("seconds") + len("seconds") == row.index("1.00") + len("1.00")


def test_real_recordings_end_to_end(emodb: Path, small: Path, tmp_path: Path, command: Command) -> None:
    for file in sorted(emodb.glob("*.wav"))[::120]:
        (tmp_path / file.name).symlink_to(file)
    told = json.loads(command("predict.py", tmp_path, "--checkpoint", small, "--json").stdout)
    assert len(told["utterances"]) == 5 and all(one["note"] == "" for one in told["utterances"])


@pytest.mark.slow
def test_three_hours_on_the_command_line(tmp_path: Path) -> None:
    """The memory of the whole process, network included, is that of a minute's prediction."""
    lengths: dict[str, Any] = {"segment_length": 1.8, "train_overlap": 0.0, "test_overlap": 0.0}
    folder = make_checkpoint(tmp_path / "c", "MACNN", n_mfcc=12, **lengths)
    peaks = []
    for minutes in (1, 180):
        file, block = tmp_path / f"{minutes}.wav", noise(60, 8000)
        with soundfile.SoundFile(file, "w", 8000, 1, "PCM_16") as sound:
            for _ in range(minutes):
                sound.write(block)
        script = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        words = [sys.executable, "predict.py", str(file), "--checkpoint", str(folder)]
        done = subprocess.run(
            [sys.executable, "-c", script, *words], cwd=ROOT, check=True, capture_output=True, text=True
        )
        peaks.append(int(done.stdout) / 1000)
    assert peaks[1] < peaks[0] + 150, peaks  # MB; three hours of samples are 691 MB


def test_silence_is_told(small: Path, tmp_path: Path, command: Command) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(40000), 16000)
    soundfile.write(tmp_path / "short.wav", np.zeros(160), 16000)
    soundfile.write(tmp_path / "telephone.wav", np.zeros(40000), 16000, subtype="ALAW")
    result = json.loads(command("predict.py", tmp_path, "--checkpoint", small, "--json", "--gpu", -1).stdout)
    notes = {Path(one["file"]).name: one["note"] for one in result["utterances"]}
    assert notes["silent.wav"] == notes["telephone.wav"] == "silent, or nearly: there is nothing to recognise"
    assert notes["short.wav"].startswith("silent, or nearly: there is nothing to recognise; shorter than")


def test_a_checkpoint_by_any_name_for_it(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "models" / "mine", "CNN_GAP")
    for name in ("models", "models/mine", "models/mine/config.json", "models/mine/model.safetensors"):
        assert checkpoints.find(tmp_path / name) == folder
    modes = {file.stat().st_mode for file in folder.iterdir()}
    assert len(modes) == 1, "the weights can be read by whom the rest can"


def silence_between(speech: np.ndarray) -> np.ndarray:
    return np.concatenate([speech, np.zeros(4 * 16000), speech, np.zeros(4 * 16000)])


def test_silence_is_left_out_and_told(tmp_path: Path, command: Command) -> None:
    made = make_checkpoint(tmp_path / "c", "CNN_GAP")
    recognise = inference.Recogniser(checkpoints.load(made))
    speech = np.random.default_rng(0).normal(0, 0.1, 8 * 16000)
    found = recognise.samples(silence_between(speech))
    assert 0 < (~found.heard).sum() < len(found.heard)
    assert found.note == f"{(~found.heard).sum()} of {len(found.heard)} segments are silent and left out"
    c = recognise.checkpoint
    segments = features.segment(silence_between(speech).astype(np.float32), c.length, c.overlap)
    np.testing.assert_allclose(found.logits, recognise.logits(segments)[found.heard].mean(0), atol=1e-5)
    whole = recognise.samples(np.zeros(40000))
    assert not whole.heard.any() and "nothing to recognise" in whole.note
    soundfile.write(tmp_path / "a.wav", silence_between(speech), 16000)
    words = ("predict.py", tmp_path / "a.wav", "--checkpoint", made, "--gpu", -1, "--timeline")
    rows = list(csv.DictReader(command(*words, "--csv", "--plot", tmp_path / "a.png").stdout.splitlines()))
    assert [row["note"] == "silent" for row in rows[1:]] == (~found.heard).tolist()
    said = json.loads(command(*words, "--json").stdout)["utterances"][0]["timeline"]
    assert [part["silent"] for part in said] == (~found.heard).tolist()


def test_silence_alone_is_told_with_numbers_and_what_is_quiet_or_on_one_side_is_none(tmp_path: Path) -> None:
    recognise = inference.Recogniser(checkpoints.load(make_checkpoint(tmp_path / "c", "CNN_GAP")))
    silence = recognise.samples(np.zeros(40000))
    c = recognise.checkpoint
    segments = features.segment(np.zeros(40000, np.float32), c.length, c.overlap)
    np.testing.assert_allclose(silence.logits, recognise.logits(segments).mean(0), atol=1e-5)
    assert np.isfinite(silence.probabilities).all() and not silence.heard.any()
    for wave in (noise(3.0)[:, 0] * 10 * audio.SILENT, -np.abs(noise(3.0)[:, 0])):
        assert recognise.samples(wave).heard.all() and not recognise.samples(wave).note


@pytest.mark.parametrize("kind", ["float32", "int16", "int32", "uint8", "stereo", "8 kHz", "list"])
def test_samples_are_recognised_as_their_recording_is(kind: str, tmp_path: Path) -> None:
    recognise = inference.Recogniser(checkpoints.load(make_checkpoint(tmp_path / "c", "CNN_GAP")))
    rate = 8000 if kind == "8 kHz" else 16000
    wave = np.random.default_rng(1).normal(0, 0.1, (3 * rate, 2) if kind == "stereo" else 3 * rate)
    subtype = {"int16": "PCM_16", "int32": "PCM_32", "uint8": "PCM_U8"}.get(kind, "FLOAT")
    soundfile.write(tmp_path / "a.wav", wave, rate, subtype)
    given, _ = soundfile.read(tmp_path / "a.wav", dtype=kind if kind in ("int16", "int32") else "float32")
    if kind == "uint8":
        given = np.round(given * 128 + 128).astype(np.uint8)
    expected = recognise(tmp_path / "a.wav")
    found = recognise.samples(given.tolist() if kind == "list" else given, rate)
    np.testing.assert_allclose(found.logits, expected.logits, atol=1e-5)
    assert found.seconds == expected.seconds


@pytest.mark.parametrize(
    ("wave", "rate", "said"),
    [
        ([], 16000, "is an array"),
        (np.zeros((2, 3, 4)), 16000, "is an array"),
        (np.array(["a"]), 16000, "is an array"),
        (np.zeros((1, 40000)), 16000, r"is an array \(1, 40000\): .*; transpose it"),
        (torch.zeros(2, 40000), 16000, "transpose it"),
        (np.zeros((0, 2)), 16000, r"is an array \(0, 2\) of float64; samples must be"),  # an empty stereo file
        ([[0.0, 0.1], [0.0]], 16000, "inhomogeneous"),
        ([0.0, np.nan], 16000, "not finite"),
        ([0.0, 1e9], 16000, "times full scale"),
        ([0.1], 7, "sample rate of 7 Hz"),
    ],
)
def test_samples_that_are_none_are_told(wave, rate: int, said: str, tmp_path: Path) -> None:
    recognise = inference.Recogniser(checkpoints.load(make_checkpoint(tmp_path / "c", "CNN_GAP")))
    with pytest.raises(AudioError, match=f"^mine .*{said}"):
        recognise.samples(wave, rate, "mine")
    with pytest.raises(AudioError, match="holds no samples"):
        recognise.blocks([])


def test_a_picture_that_cannot_be_drawn_costs_no_prediction(tmp_path: Path, command: Command) -> None:
    made = make_checkpoint(tmp_path / "c", "CNN_GAP")
    for name in ("\x1ba", "b"):  # a name could command the terminal
        soundfile.write(tmp_path / f"{name}.wav", np.ones(40000) / 9, 16000)
    (tmp_path / "pictures" / "\x1ba.wav.png").mkdir(parents=True)  # a folder where a file is to be
    words = (tmp_path / "\x1ba.wav", tmp_path / "b.wav", "--checkpoint", made, "--gpu", -1, "--json")
    done = command("predict.py", *words, "--plot", tmp_path / "pictures", status=1)
    assert len(json.loads(done.stdout)["utterances"]) == 2 and (tmp_path / "pictures" / "b.wav.png").is_file()
    assert "\\x1ba.wav.png: it is no ordinary file" in done.stderr and "\x1b" not in done.stderr


def test_a_long_timeline_is_drawn_as_means() -> None:
    course = np.random.default_rng(0).dirichlet([1, 1], 1000)
    heard = np.arange(1000) >= 10
    at = np.arange(1000.0)
    one = inference.Prediction("a", ["x", "y"], np.zeros(2), np.ones(2) / 2, at, at + 2, course, 1002.0, heard)
    few = timeline.condensed(one, 250)
    assert len(few.starts) == 250 and (few.starts[1], few.ends[0], few.ends[-1]) == (4, 5, 1001)
    np.testing.assert_allclose(few.timeline[0], course[:4].mean(0))  # all four segments are silent
    np.testing.assert_allclose(few.timeline[2], course[10:12].mean(0))
    assert few.heard.tolist() == [False] * 2 + [True] * 248 and timeline.condensed(one, 1000) is one


def test_checkpoints_behind_a_link_are_found(tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "disk" / "GLAM" / "c0ffee" / "1" / "checkpoint", "CNN_GAP")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "8-2").symlink_to(tmp_path / "disk")
    found = checkpoints.find(tmp_path / "runs")
    assert found.samefile(made) and found.is_relative_to(tmp_path / "runs")
    assert list(app.find_checkpoints(tmp_path / "runs")) == ["8-2/GLAM/c0ffee/1/checkpoint"]


def test_a_folder_above_one_checkpoint_will_do(tmp_path: Path) -> None:
    first = make_checkpoint(tmp_path / "runs" / "demo" / "a" / "1" / "checkpoint", "CNN_GAP")
    assert checkpoints.find(tmp_path) == first
    make_checkpoint(tmp_path / "runs" / "demo" / "b" / "1" / "checkpoint", "CNN_GAP")
    with pytest.raises(UserError, match=r"2 checkpoints are below it; name one:\n  .*/demo/a/1\n  .*/demo/b/1"):
        checkpoints.find(tmp_path)
