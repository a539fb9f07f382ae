"""Export: every network and every feature, in ONNX Runtime as in torch."""

import json
import re
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, Command
from made_checkpoints import CLASSES, make_checkpoint

import audio
import checkpoints
import export
import features
import inference
import models
from cli import UserError
from frontend import Frontend, RealFFT

onnx = pytest.importorskip("onnx", reason="needs requirements-export.txt")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs requirements-export.txt")

# one's own features need not be
INSIDE = ("mfcc", "melspectrogram", "spectrogram", "interspeech2018", "logfbank", "fbank", "mfcc_reflect")
SMALL: dict[str, Any] = {"n_mfcc": 8, "segment_length": 0.4, "train_overlap": 0.0, "test_overlap": 0.15}


def session(file: Path) -> Any:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def agree(checkpoint: checkpoints.Checkpoint, file: Path, waveform: bool, segments: np.ndarray) -> None:
    result = export.compare(checkpoint, file, waveform, segments)
    assert result.difference <= 1e-4 * max(1, result.largest), result
    assert result.onnx_ms > 0 and result.torch_ms > 0


@pytest.fixture(scope="module")
def speech(emodb: Path) -> np.ndarray:
    """Segments of 1.8 s of real recordings `(S, 28800)`."""
    files = sorted(emodb.glob("*.wav"))[::60]
    return np.concatenate([features.segment(audio.load_audio(f), 1.8, 0.9, padding=True) for f in files])


SLOWER = {"GLAM5", "gMLPMultiConv", "gMLPResConv3", "gMLPResConv5", "ResMultiConv5", "AACNN_flat"}  # much like others
SLOW = pytest.mark.slow


@pytest.mark.parametrize("name", [pytest.param(n, marks=SLOW) if n in SLOWER else n for n in models.list_models()])
def test_every_model(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = make_checkpoint(tmp_path / "c", name, **{**SMALL, "feature": "mfcc"})
    checkpoint, file = checkpoints.load(folder), tmp_path / "model.onnx"
    export.convert(checkpoint, file)
    assert "WARNING" not in caplog.text  # the command would print it
    for rows in (1, 5):  # the batch is free, and the example's was 2
        x = torch.randn(rows, 1, *checkpoint.config["shape"])
        logits = session(file).run(None, {"features": x.numpy()})[0]
        with torch.inference_mode():
            np.testing.assert_allclose(logits, checkpoint.module(x).numpy(), atol=1e-4)
    assert [f.name for f in tmp_path.iterdir() if f.is_file()] == ["model.onnx"]


@pytest.mark.parametrize("feature", INSIDE)
@pytest.mark.parametrize("size", [28800, 32000, 7999])
def test_the_frontends_are_the_features(feature: str, size: int) -> None:
    generator = np.random.default_rng(size)
    level = np.array([0, 1e-4, 0.01, 0.1, 0.9])[:, None]
    x = torch.from_numpy(np.cumsum(generator.normal(0, 1, (5, size)), 1)).float()
    x = (x / x.abs().amax(1, keepdim=True) * torch.from_numpy(level)).float()
    ours, theirs = Frontend(feature, size)(x)[:, 0], features.extract(feature, x)
    assert ours.shape == theirs.shape
    # dB and logarithms of what is far under the maximum; energies of fbank are large
    np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize("feature", INSIDE)
def test_the_frontends_are_the_features_of_speech(feature: str, speech: np.ndarray) -> None:
    ours = Frontend(feature, 28800)(torch.from_numpy(speech))[:, 0]
    theirs = features.extract(feature, speech)
    # without a floor near the maximum, float32 leaves either 1e-4 from the logarithms of double precision
    allowed = 3e-4 if feature == "melspectrogram" else 2e-5 * max(1.0, float(theirs.abs().max()))
    assert float((ours - theirs).abs().max()) < allowed


@pytest.mark.parametrize(("n", "rows"), [(2048, 32), (800, 20), (1024, 32), (12, 3), (16, 1)])
def test_the_transform(n: int, rows: int) -> None:
    x = torch.randn(3, 4, n, dtype=torch.float64)
    torch.testing.assert_close(RealFFT(n, rows, torch.float64)(x), torch.fft.rfft(x).abs().square())


@pytest.mark.parametrize(
    "feature", [f if f in ("mfcc", "melspectrogram") else pytest.param(f, marks=SLOW) for f in INSIDE]
)
def test_every_feature_inside(feature: str, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "CNN_GAP", **{**SMALL, "feature": feature})
    checkpoint, file = checkpoints.load(folder), tmp_path / "model.onnx"
    export.convert(checkpoint, file, waveform=True)
    agree(checkpoint, file, True, export.segments_of(checkpoint, []))


@pytest.mark.parametrize("waveform", [pytest.param(False, marks=SLOW), True])
def test_glam_on_real_recordings(waveform: bool, speech: np.ndarray, tmp_path: Path) -> None:
    checkpoint = checkpoints.load(make_checkpoint(tmp_path / "c", "GLAM"))
    export.convert(checkpoint, tmp_path / "glam.onnx", waveform)
    agree(checkpoint, tmp_path / "glam.onnx", waveform, speech)


def test_the_command_line(tmp_path: Path, command: Command) -> None:
    folder = make_checkpoint(tmp_path / "c", "MACNN", validation=True, **SMALL)
    recording, output = tmp_path / "a.wav", tmp_path / "new" / "model.onnx"
    soundfile.write(recording, np.random.default_rng(0).normal(0, 0.1, 22050), 22050)
    done = command("export.py", "--checkpoint", folder, "--output", output, "--waveform", "--check", recording)
    assert "3 segments of 1 recording its" in done.stdout and "ms in ONNX Runtime" in done.stdout
    onnx.checker.check_model(onnx.load(output))
    opened = session(output)
    (given,), (made,) = opened.get_inputs(), opened.get_outputs()
    assert (given.name, given.shape[1]) == ("waveform", 6400) and isinstance(given.shape[0], str)
    assert (made.name, made.shape[1]) == ("logits", 4)
    told = opened.get_modelmeta().custom_metadata_map
    config = json.loads((folder / "config.json").read_text())
    assert json.loads(told["classes"]) == CLASSES and told["sample_rate"] == "16000"
    assert (told["segment_samples"], told["hop_samples"]) == ("6400", "4000") and told["input"] == "waveform"
    assert float(told["temperature"]) == config["temperature"] and told["weights"] == config["weights"]
    assert told["licence"] == config["licence"] and told["synthetic"] == "true"


def test_a_file_that_differs_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_checkpoint(tmp_path / "c", "CNN_GAP", **SMALL)
    words = ["export.py", "--checkpoint", str(folder), "--output", str(tmp_path / "out" / "model.onnx")]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(export, "TOLERANCE", 0.0)
    monkeypatch.setattr(export, "compare", lambda *_: export.Result(1.0, 1.0, 1.0, 1.0))
    with pytest.raises(export.UserError, match="is not kept"):
        export.main()
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(("difference", "largest", "kept"), [(9e-5, 1, True), (2e-4, 0.5, False), (9e-4, 10, True)])
def test_how_much_a_file_may_differ(
    difference: float, largest: float, kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, output = make_checkpoint(tmp_path / "c", "CNN_GAP", **SMALL), tmp_path / "model.onnx"
    monkeypatch.setattr("sys.argv", ["export.py", "--checkpoint", str(folder), "--output", str(output)])
    monkeypatch.setattr(export, "convert", lambda _, file, *__: file.write_bytes(b"onnx"))
    found = export.Result(difference, largest, 1.0, 1.0)
    monkeypatch.setattr(export, "compare", lambda *_: found)
    with nullcontext() if kept else pytest.raises(export.UserError, match="is not kept"):
        export.main()
    assert output.exists() == kept


def test_a_difference_anywhere_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = checkpoints.load(make_checkpoint(tmp_path / "c", "CNN_GAP", **SMALL))
    given = [SimpleNamespace(name="waveform")]
    zeros = SimpleNamespace(get_inputs=lambda: given, run=lambda _, x: [np.zeros((len(x["waveform"]), 4))])
    monkeypatch.setattr("onnxruntime.InferenceSession", lambda *_, **__: zeros)
    monkeypatch.setattr(inference.Recogniser, "logits", lambda _, some: np.eye(len(some), 4, k=4 - len(some)))
    found = export.compare(checkpoint, tmp_path / "model.onnx", True, np.zeros((20, checkpoint.size), np.float32))
    assert (found.difference, found.largest) == (1.0, 1.0)  # in the last segments alone


def test_a_network_that_makes_a_constant_of_the_batch_is_refused_in_words(tmp_path: Path) -> None:
    checkpoint = checkpoints.load(make_checkpoint(tmp_path / "c", "CNN_GAP", **SMALL))
    checkpoint.module.forward = lambda x: checkpoint.module.fc(checkpoint.module.hidden(x).reshape(len(x), -1))
    with pytest.raises(UserError, match=r"CNN_GAP would be exported for batches of 2 alone.* write x\.shape\[0\]"):
        export.convert(checkpoint, tmp_path / "model.onnx")


def test_a_file_is_compared_on_a_recording_shorter_than_a_segment_too(tmp_path: Path) -> None:
    checkpoint = checkpoints.load(make_checkpoint(tmp_path / "c", "CNN_GAP", **SMALL))
    soundfile.write(tmp_path / "a.wav", np.full(100, 0.5), 16000)
    assert export.segments_of(checkpoint, [str(tmp_path / "a.wav")]).shape == (1, checkpoint.size)


@pytest.mark.parametrize("padding", [True, False])
def test_the_metadata_are_the_checkpoints(padding: bool, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "c", "CNN_GAP", rule="paper", seed=77, padding=padding, **SMALL)
    checkpoint = checkpoints.load(folder)
    told = export.metadata(checkpoint, waveform=False)
    assert told["short_recordings_in_training"] == ("repeated" if padding else "left out")
    expected = {"input": "features", "model": "CNN_GAP", "split": "8:2", "seed": "77", "rule": "paper", "epoch": "3",
                "corpus": "synthetic", "dataset": "demo", "temperature": "null"}  # fmt: skip
    assert {name: told[name] for name in expected} == expected
    for name in ("feature", "n_mfcc"):
        assert told[name] == str(checkpoint.config["settings"][name])
    assert json.loads(told["shape"]) == checkpoint.config["shape"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--output", "x.onnx", "--opset", "9"], "--opset"),
        (["--output", "x.bin"], ".onnx"),
        (["--output", "x.onnx", "--checkpoint", "/nowhere"], "no such folder"),
        (["--output", "x.onnx", "--check", "/nowhere.wav"], "does not exist"),
    ],
)
def test_what_cannot_be_asked(words: list[str], said: str, tmp_path: Path, command: Command) -> None:
    folder = make_checkpoint(tmp_path / "c", "CNN_GAP", **SMALL)
    words = [str(tmp_path / word) if word.startswith("x.") else word for word in words]
    done = command("export.py", "--checkpoint", folder, *words, status=2)
    assert done.stderr.startswith("error: ") and said in done.stderr
    assert not list(tmp_path.glob("*x.*"))


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    monkeypatch.setattr(sys, "argv", ["export.py", "--checkpoint", "none", "--output", "model.onnx"])
    with pytest.raises(export.UserError, match=r"export needs onnxscript: pip install -r requirements-export\.txt"):
        export.main()


def test_a_feature_without_a_form_in_onnx_is_refused_in_words() -> None:
    with pytest.raises(UserError, match=r"--waveform: the feature energy has no form in ONNX: leave the flag out"):
        Frontend("energy", 28800)


def test_the_readmes_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (example,) = (text for text in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "onnxruntime" in text)
    checkpoint = checkpoints.load(make_checkpoint(tmp_path / "c", "CNN_GAP"))
    export.convert(checkpoint, tmp_path / "model.onnx", waveform=True)
    soundfile.write(tmp_path / "recording.wav", np.random.default_rng(0).normal(0, 0.1, 70000), 16000)
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(compile(example, "README.md", "exec"), found)
    expected = inference.Recogniser(checkpoint)(tmp_path / "recording.wav")
    np.testing.assert_allclose(found["logits"], expected.logits, atol=1e-4)
    assert capsys.readouterr().out.strip() == expected.label
