"""A checkpoint on a labelled corpus: the scores are those of the run, and what is not fair to score is refused."""

import csv
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT, Command, at_a_terminal
from made_checkpoints import make_checkpoint
from sklearn.metrics import confusion_matrix

import cache
import checkpoints
import device
import inference
import metrics
import path
import records
import stats
from cli import UserError
from corpora import Utterance
from evaluate import main, predict_all, report, write_predictions

QUICK = ("--gpu", -1, "--model", "CNN_GAP", "--quiet", "--epochs", 2, "--segment_length", 0.5, "--train_overlap", 0.25,
         "--test_overlap", 0.25)  # fmt: skip

SHAPE = {"segment_length": 0.5, "train_overlap": 0.25, "test_overlap": 0.25}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """40 tones and noises of two classes and six speakers, some too short for a segment of 0.5 s, one just as long."""
    rng = np.random.default_rng(0)
    rows = ["path,emotion,speaker"]
    for i in range(40):
        n = {12: 5000, 24: 5000, 36: 5000, 1: 8000}.get(i) or int(rng.integers(9000, 20000))
        wave = 0.1 * rng.standard_normal(n) if i % 2 else 0.3 * np.sin(np.arange(n) * rng.uniform(0.05, 0.3))
        soundfile.write(tmp_path / f"{i}.wav", wave, 16000)
        rows.append(f"{i}.wav,{('sad', 'angry')[i % 2]},s{i // 2 % 6}")
    (tmp_path / "mine.csv").write_text("\n".join(rows) + "\n")
    return tmp_path / "mine.csv"


def read_rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as f:
        return list(csv.DictReader(f))


def part_of(corpus: Path, names: set[str], file: Path) -> Path:
    """A CSV beside a corpus with some of its recordings."""
    head, *rows = corpus.read_text().splitlines()
    file.write_text("\n".join([head, *(row for row in rows if row.split(",")[0] in names)]) + "\n")
    return file


def test_scores_are_those_of_the_run(here: Path, corpus: Path, command: Command, tmp_path: Path) -> None:
    """What the model was trained on is left out, so that of its own corpus the test utterances remain."""
    command("train.py", "--dataset", corpus, "--save_model", *QUICK)
    (run,) = records.runs(here)
    test = run.predictions("test")
    out = command("evaluate.py", corpus, "--checkpoint", here, "--gpu", -1, "--csv", tmp_path / "p.csv").stdout
    for score, name in metrics.SCORE_NAMES.items():
        assert f"{name} {run.scores('last')[score]:.2f}" in out
    assert f"{run.n_test} utterances; left out: {run.config['n_train']} used to train or choose it, 0 of other" in out
    assert "its speakers were heard in training" in out
    assert "is spelt" not in out
    error = metrics.ece(test.logits[-1], test.labels)
    assert out.endswith(f"expected calibration error of the probabilities: {error:.1f} %\n")
    rows = {row["name"]: row for row in read_rows(tmp_path / "p.csv")}
    assert sorted(rows) == sorted(test.names.tolist())
    for name, logits, label in zip(test.names, test.logits[-1], test.labels, strict=True):
        p = [float(rows[name][f"p_{c}"]) for c in run.config["classes"]]
        assert p == pytest.approx(metrics.softmax(logits), abs=1e-4)
        assert rows[name]["class"] == run.config["classes"][label]


def test_happy_is_what_it_was_in_training_unless_told_otherwise(here: Path, command: Command) -> None:
    command("train.py", "--dataset", "all", "--happy", "hap+exc", "--save_model", *QUICK)
    (run,) = records.runs(here)
    out = command("evaluate.py", "all", "--checkpoint", here, "--gpu", -1).stdout
    assert f": {run.n_test} utterances; left out: {run.config['n_train']} used to train" in out
    assert f"WA {run.scores('last')['WA']:.2f}" in out and "; on synthetic (SYNTHETIC speech): " in out
    fewer = command("evaluate.py", "all", "--checkpoint", here, "--gpu", -1, "--happy", "exc").stdout
    assert f": {run.n_test} utterances; left out: {run.config['n_train']} used to train" not in fewer


def test_the_corpus_is_not_written_over(here: Path, corpus: Path, command: Command, tmp_path: Path) -> None:
    folder, before = make_checkpoint(here / "c", "CNN_GAP"), corpus.read_bytes()
    link = tmp_path / "link.csv"
    link.symlink_to(corpus)
    for file in (corpus, link):
        told = command("evaluate.py", corpus, "--checkpoint", folder, "--csv", file, "--gpu", -1, status=2).stderr
        assert "is the corpus itself, which would be written over; name another file" in told
    told = command("evaluate.py", corpus, "--checkpoint", folder, "--csv", tmp_path, "--gpu", -1, status=2).stderr
    assert f"--csv {tmp_path} is a folder; name a file" in told and corpus.read_bytes() == before
    told = command("evaluate.py", corpus, "--checkpoint", folder, "--happy", "exc", "--gpu", -1, status=2).stderr
    assert "--happy is for impro, script, all, demo" in told


def test_ctrl_c_says_that_nothing_is_kept(here: Path) -> None:
    folder = make_checkpoint(here / "c", "CNN_GAP")
    words = [sys.executable, "-c", "import sys, evaluate, cli; sys.argv = sys.argv[1:]; "
             "import data; data.corpus = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt); "
             "import runpy; runpy.run_path('evaluate.py', run_name='__main__')",
             "evaluate.py", "all", "--checkpoint", str(folder), "--gpu", "-1"]  # fmt: skip
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 130 and done.stderr == "interrupted: nothing is kept; the same command begins anew\n"


@pytest.mark.parametrize(("split", "rule"), [("8:2", "paper"), ("8:1:1", "last"), ("speaker", "validation")])
def test_what_trained_or_chose_the_model_is_never_scored(
    split: str, rule: str, here: Path, corpus: Path, command: Command, tmp_path: Path
) -> None:
    fold = ("--fold", 0) if split == "speaker" else ("--seed", 1)
    command("train.py", "--dataset", corpus, "--split", split, *fold, "--save_model", rule, *QUICK)
    (run,) = records.runs(here)
    parts = json.loads((run.folder / "split.json").read_text())
    heard = {*parts["train"], *(parts["val"] or ()), *(parts["test"] if rule == "paper" else ())}
    (tmp_path / "elsewhere").mkdir()
    for row in corpus.read_text().splitlines()[1:]:  # as copies in another place, under other names
        file = row.split(",")[0]
        shutil.copy(tmp_path / file, tmp_path / "elsewhere" / f"copy-{file}")
    copies = tmp_path / "elsewhere" / "other.csv"
    copies.write_text("\n".join(re.sub(r"^(\d)", r"copy-\1", row) for row in corpus.read_text().splitlines()) + "\n")
    done = command("evaluate.py", copies, "--checkpoint", here, "--gpu", -1, "--padding", "--csv", tmp_path / "p.csv",
                   status=0 if rule != "paper" else 2)  # fmt: skip
    if rule == "paper":  # of the whole corpus those too short to train on are left, of one class
        assert (
            "the corpus 3 recordings of" in done.stderr and "not used to train or choose the checkpoint" in done.stderr
        )
        return
    scored = {row["name"].removeprefix("copy-") for row in read_rows(tmp_path / "p.csv")}
    assert scored == {f"{i}.wav" for i in range(40)} - heard


def test_short_ones_are_left_out_as_in_training_and_kept_on_request(
    corpus: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    def evaluate(checkpoint: Path, *flags: str) -> str:
        monkeypatch.setattr(sys, "argv", ["evaluate.py", str(corpus), "--checkpoint", str(checkpoint), *flags])
        assert main() == 0
        return capsys.readouterr().out

    checkpoint = make_checkpoint(tmp_path / "c", "CNN_GAP", **SHAPE)
    out = evaluate(checkpoint)
    assert (
        "37 utterances; left out: 0 used to train or choose it, 0 of other classes, 3 shorter than 0.5 s, 0 broken"
        in out
    )
    assert "the corpus has no class that is spelt neutral, happy, which the checkpoint knows too" in out
    assert out.startswith("CNN_GAP trained on synthetic (demo, SYNTHETIC speech); on mine: 37 utterances")
    assert "40 utterances" in evaluate(checkpoint, "--padding")
    assert "40 utterances" in evaluate(make_checkpoint(tmp_path / "padded", "CNN_GAP", padding=True, **SHAPE))
    with pytest.raises(UserError, match=r"mine\.csv has no utterance of at least 3 s; --padding keeps shorter ones"):
        evaluate(make_checkpoint(tmp_path / "long", "CNN_GAP", segment_length=3.0))


def test_the_device_and_the_checkpoint_are_those_asked_for(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []
    monkeypatch.setattr(device, "choose_device", lambda *given: asked.append(given))
    monkeypatch.setattr(checkpoints, "load", lambda *given: asked.append(given) or 1 / 0)
    words = ["evaluate.py", str(corpus), "--checkpoint", "owner/name", "--online", "--gpu", "1", "--device", "cuda"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(ZeroDivisionError):
        main()
    assert asked == [(1, "cuda"), ("owner/name", True)]


def test_what_a_report_says_of_its_predictions(tmp_path: Path) -> None:
    """The interval is of each speaker's counts, the calibration error with and without the temperature."""
    recognise = inference.Recogniser(checkpoints.load(make_checkpoint(tmp_path / "c", "CNN_GAP", validation=True)))
    classes, rng, at = recognise.checkpoint.classes, np.random.default_rng(0), np.zeros(1)
    labels, speakers = rng.integers(0, 4, 120), rng.permutation(np.arange(120) % 6)
    logits = rng.normal(0, 1, (120, 4)).astype(np.float32)
    logits[:, 1] += speakers  # the higher a speaker's number, the more of the answers are "sad"
    logits[np.arange(120), labels] += 2
    scored = []
    for i in range(120):
        p = metrics.softmax(logits[i], recognise.temperature)
        one = inference.Prediction("", classes, logits[i], p, at, at, p[None], 1.0, at == 0)
        scored.append((Utterance("", "", f"s{speakers[i]}", "", "", "", ""), classes[labels[i]], one))
    counts = np.array(
        [confusion_matrix(labels[speakers == s], logits[speakers == s].argmax(1), labels=range(4)) for s in range(6)]
    )
    interval = stats.interval(counts[None])
    assert interval is not None
    text = report(scored, recognise)
    for name, low, high in zip(metrics.SCORE_NAMES.values(), interval.low, interval.high, strict=True):
        assert f"{name} [{low:.2f}, {high:.2f}]" in text
    assert "(95 % intervals over 6 speakers)" in text
    warm, plain = (metrics.ece(logits, labels, temperature=t) for t in (recognise.temperature, 1.0))
    said = f"expected calibration error of the probabilities: {warm:.1f} %, {plain:.1f} % without the temperature"
    assert text.endswith(said) and f"{warm:.1f}" != f"{plain:.1f}"
    write_predictions(tmp_path / "p.csv", scored, classes)
    assert b"\r" not in (tmp_path / "p.csv").read_bytes()
    for i, row in enumerate(read_rows(tmp_path / "p.csv")):
        said_of_it = (row["speaker"], row["class"], row["predicted"])
        assert said_of_it == (f"s{speakers[i]}", classes[labels[i]], classes[logits[i].argmax()])


def test_of_a_prediction_its_outline_is_not_kept(corpus: Path, tmp_path: Path) -> None:
    """Of a large corpus they would fill the memory."""
    recognise = inference.Recogniser(checkpoints.load(make_checkpoint(tmp_path / "c", "CNN_GAP", **SHAPE)))
    ((_, _, one),) = predict_all(recognise, [(Utterance("", str(tmp_path / "1.wav"), "", "", "", "", ""), "sad")], 1)
    assert one.seconds == 0.5 and not len(one.outline.bins)


def test_an_interval_needs_five_speakers(tmp_path: Path) -> None:
    recognise = inference.Recogniser(checkpoints.load(make_checkpoint(tmp_path / "c", "CNN_GAP")))
    classes, at = recognise.checkpoint.classes, np.zeros(1)
    scored = []
    for i in range(40):
        p = metrics.softmax(np.eye(4)[i % 4])
        one = inference.Prediction("", classes, np.eye(4)[i % 4], p, at, at, p[None], 1.0, at == 0)
        scored.append((Utterance("", "", f"s{i // 8}", "", "", "", ""), classes[i % 4], one))
    assert "(95 % intervals over 5 speakers)" in report(scored, recognise)
    assert "\n4 speakers: too few for an interval over speakers\n" in report(scored[:32], recognise)
    assert "\n1 speaker: too few for an interval over speakers\n" in report(scored[:8], recognise)
    of_one_class_each = [(who, classes[int(who.speaker[1]) % 4], one) for who, _, one in scored]
    assert "no intervals: a class has so few speakers that" in report(of_one_class_each, recognise)


def test_a_corpus_that_does_not_say_who_speaks_has_no_interval(corpus: Path, command: Command, tmp_path: Path) -> None:
    (tmp_path / "who.csv").write_text(re.sub(r",s[01]$", ",", corpus.read_text(), flags=re.MULTILINE))
    checkpoint = make_checkpoint(tmp_path / "c", "CNN_GAP", **SHAPE)
    out = command("evaluate.py", tmp_path / "who.csv", "--checkpoint", checkpoint, "--gpu", -1, "--padding").stdout
    assert re.search(r"no intervals: 16 of 40 utterances have no speaker", out) and "95 %" not in out


def test_other_classes_are_left_out_and_broken_recordings_reported(
    corpus: Path, command: Command, tmp_path: Path
) -> None:
    with corpus.open("a") as f:
        f.write("\x1b[31mnone.wav,sad,s1\n0b.wav,bored,s1\n")  # a name that would colour the terminal
    soundfile.write(tmp_path / "0b.wav", np.ones(9000) / 9, 16000)
    checkpoint = make_checkpoint(tmp_path / "c", "CNN_GAP", **SHAPE)
    done = command("evaluate.py", corpus, "--checkpoint", checkpoint, "--gpu", -1, status=1)
    left_out = "0 used to train or choose it, 1 of other classes (bored 1), 3 shorter than 0.5 s, 1 broken"
    assert f"37 utterances; left out: {left_out}" in done.stdout
    assert r"\x1b[31mnone.wav: does not exist" in done.stderr
    lines = at_a_terminal("evaluate.py", corpus, "--checkpoint", checkpoint, "--gpu", -1, status=1)
    assert rf"error: {tmp_path}/\x1b[31mnone.wav: does not exist" in lines  # and not on the bar
    # an answer that is none of the corpus's classes is wrong: the confusion has all four
    assert re.search(r"neutral +sad +angry +happy\n", done.stdout)
    (tmp_path / "gone.csv").write_text("path,emotion\nnone.wav,sad\nnothing.wav,angry\n")
    words = (tmp_path / "gone.csv", "--checkpoint", checkpoint, "--gpu", -1, "--padding")
    assert "gone.csv: all 2 recordings are broken" in command("evaluate.py", *words, status=2).stderr


@pytest.mark.parametrize("place", ["__init__", "logits"])
def test_a_gpu_without_memory_is_said(place: str, corpus: Path, tmp_path: Path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    checkpoint = make_checkpoint(tmp_path / "c", "CNN_GAP", **SHAPE)
    monkeypatch.setattr(inference.Recogniser, place, full)
    words = ["evaluate.py", str(corpus), "--checkpoint", str(checkpoint), "--gpu", "-1", "--padding"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(UserError, match="the GPU ran out of memory; --gpu -1 computes on the CPU"):
        main()


def test_a_recording_that_could_not_be_read_at_first_is_not_taken_for_unheard(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, real = make_checkpoint(tmp_path / "c", "CNN_GAP", **SHAPE), cache.digest_file

    def digest_file(file: Path) -> str:
        if file.name == "7.wav":
            raise OSError(5, "Input/output error")
        return real(file)

    monkeypatch.setattr(cache, "digest_file", digest_file)
    monkeypatch.setattr(path, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(sys, "argv", ["evaluate.py", str(corpus), "--checkpoint", str(checkpoint), "--gpu", "-1"])
    with pytest.raises(
        UserError, match=r"7\.wav could not be read at first, so it is not known whether it was trained on"
    ):
        main()


def test_what_says_nothing_is_refused(here: Path, corpus: Path, command: Command, tmp_path: Path) -> None:
    command("train.py", "--dataset", corpus, "--save_model", *QUICK)
    trained = set(json.loads(next(here.rglob("split.json")).read_text())["train"])
    heard = part_of(corpus, trained, tmp_path / "heard.csv")
    error = command("evaluate.py", heard, "--checkpoint", here, "--gpu", -1, status=2).stderr
    assert f"{heard} and this checkpoint must share two classes" in error
    assert "the corpus 0 recordings of angry, sad that were not used to train or choose the checkpoint" in error
    old = make_checkpoint(tmp_path / "c", "CNN_GAP", heard=None)
    error = command("evaluate.py", corpus, "--checkpoint", old, "--gpu", -1, status=2).stderr
    assert "does not say what it was trained on: train again" in error
    corpus.write_text(corpus.read_text().replace("angry", "cross"))
    error = command("evaluate.py", corpus, "--checkpoint", here, "--gpu", -1, status=2).stderr
    assert "recordings of cross, sad that" in error and "the checkpoint has angry, sad, " in error
