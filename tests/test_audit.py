"""What the audit finds in run folders that were tampered with."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import HALF, LABELS, RIGHT, call, edit, edit_epoch, edit_predictions, make_run, worst

import audit
import report
from cli import UserError
from files import read_json

pytestmark = pytest.mark.usefixtures("two_speakers_will_do")  # made runs have no more


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A run folder without a fault, of a split with validation."""
    return make_run(
        tmp_path, [HALF[0], RIGHT[0]], LABELS, split="8:1:1", val=(LABELS, [RIGHT[0], HALF[0]]), settings={"epochs": 2}
    )


def settings_of(folder: Path, **changes: Any) -> dict[str, Any]:
    return {**read_json(folder / "config.json")["settings"], **changes}


TAMPER = {
    "another array": (lambda f: edit_predictions(f, more=np.zeros(9)), "holds 'more.npy', which is none of a run's"),
    "done is missing": (lambda f: (f / "done").unlink(), "unfinished"),
    "it is being repeated": (lambda f: (f / "state.safetensors").touch(), "unfinished"),
    "another seed": (lambda f: edit(f / "config.json", seed=2), "says seed 2, the folder says 1"),
    "another model": (lambda f: edit(f / "config.json", model="MACNN"), "says model MACNN, the folder says GLAM"),
    "another dataset": (lambda f: edit(f / "config.json", dataset="script"), "says dataset script"),
    "another split": (lambda f: edit(f / "config.json", split="dialog"), "says split dialog"),
    "another hash": (lambda f: edit(f / "config.json", hash="0" * 12), "says hash 000000000000, the folder says"),
    "a setting": (
        lambda f: edit(f / "config.json", settings=settings_of(f, alpha=0.3)),
        "its settings and corpus give",
    ),
    "a change": (lambda f: edit(f / "config.json", changed={}), "says changed {}, its settings give {'epochs': 2}"),
    "an unknown setting": (
        lambda f: edit(f / "config.json", settings=settings_of(f, x=1)),
        "do not match this version",
    ),
    "another corpus": (lambda f: edit(f / "config.json", corpus_digest="aa"), "its settings and corpus give"),
    "split digest": (lambda f: edit(f / "config.json", split_digest="aa"), "config.json says split digest aa"),
    "split lists": (lambda f: edit(f / "split.json", train=["x"]), "split.json says split digest"),
    "a leak": (lambda f: edit(f / "split.json", train=["u0", "t1", "t2", "t3"]), "an utterance in two parts"),
    "split is no split": (lambda f: (f / "split.json").write_text("[]"), "its records are not a run's"),
    "split is gone": (lambda f: (f / "split.json").unlink(), "split.json cannot be read"),
    "counts": (lambda f: edit(f / "config.json", n_train=7), "says n_train 7, split.json lists 4"),
    "a count of tested": (lambda f: edit(f / "config.json", n_test=7), "says n_test 7, split.json lists 4"),
    "a count of validation": (lambda f: edit(f / "config.json", n_val=7), "says n_val 7, split.json lists 4"),
    "a seed in its settings": (
        lambda f: edit(f / "config.json", settings=settings_of(f, seed=2)),
        "says seed 1, its settings say 2",
    ),
    "a fold in its settings": (
        lambda f: edit(f / "config.json", settings=settings_of(f, fold=0)),
        "says fold None, its settings say 0",
    ),
    "an utterance twice": (lambda f: edit(f / "split.json", train=["t0", "t1", "t2", "t2"]), "or twice in one"),
    "names": (lambda f: edit_predictions(f, test_names=np.array(["u1", "u0", "u2", "u3"])), "test names are not"),
    "labels": (lambda f: edit_predictions(f, test_labels=np.array([1, 0, 2, 3])), "the test predictions do not give"),
    "no class": (lambda f: edit_predictions(f, val_labels=np.array([0, 1, 2, 4])), "val labels are not among the 4"),
    "logits": (
        lambda f: edit_predictions(f, val_logits=np.ones((2, 4, 4))),
        "epoch 1: the val predictions do not give",
    ),
    "no numbers": (lambda f: edit_predictions(f, test_logits=np.full((2, 4, 4), np.nan)), "not all finite"),
    "one that is no number": (
        lambda f: edit_predictions(f, test_logits=np.where(np.eye(4), np.inf, 0) + np.zeros((2, 1, 1))),
        "test logits are not all finite",
    ),
    "fewer epochs": (lambda f: edit_predictions(f, test_logits=np.ones((1, 4, 4))), "logits of shape (1, 4, 4), not"),
    "a score": (
        lambda f: edit_epoch(f, 1, "test", UA=99.0),
        "epoch 2: the test predictions do not give the recorded UA",
    ),
    "a score, by little": (lambda f: edit_epoch(f, 1, "test", WA=99.99), "epoch 2: the test predictions do not give"),
    "a macro F1": (lambda f: edit_epoch(f, 1, "test", macroF1=99.0), "do not give the recorded macroF1"),
    "a weighted F1": (lambda f: edit_epoch(f, 0, "val", weightedF1=99.0), "do not give the recorded weightedF1"),
    "a validation score": (lambda f: edit_epoch(f, 0, "val", WA=1.0), "epoch 1: the val predictions do not give the"),
    "a confusion": (lambda f: edit_epoch(f, 0, "test", confusion=[[1] * 4] * 4), "the recorded confusion"),
    "no predictions": (lambda f: (f / "predictions.npz").unlink(), "predictions.npz cannot be read"),
    "no epochs": (lambda f: (f / "epochs.jsonl").unlink(), "epochs.jsonl is not a run's record"),
    "an epoch short": (
        lambda f: (f / "epochs.jsonl").write_text((f / "epochs.jsonl").read_text().splitlines()[1] + "\n"),
        "epochs.jsonl is not a run's record (it has 1 epochs, which is not the number in config.json)",
    ),
    "an epoch twice": (
        lambda f: (f / "epochs.jsonl").write_text(2 * ((f / "epochs.jsonl").read_text().splitlines()[1] + "\n")),
        "does not count its epochs from 1",
    ),
    "no configuration": (lambda f: (f / "config.json").write_text("{"), "config.json cannot be read"),
}


def test_a_sound_run_passes(sound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    assert audit.problems(sound) == []
    assert call(monkeypatch, "--runs", sound.parents[4], "--audit") == 0
    assert capsys.readouterr().out.startswith("1 run folders checked")
    for words in (["--split", "8:1:1"], ["--table", "comparison", "--split", "8:1:1"]):
        assert call(monkeypatch, "--runs", sound.parents[4], "--audit", *words) == 0
        assert capsys.readouterr().out.startswith("1 run folders checked")


@pytest.mark.parametrize("fault", TAMPER)
def test_audit_finds(fault: str, sound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    tamper, said = TAMPER[fault]
    tamper(sound)
    assert any(said in problem for problem in audit.problems(sound)), audit.problems(sound)
    assert call(monkeypatch, "--runs", sound.parents[4], "--audit") == 1
    out = capsys.readouterr().out
    assert out.startswith("impro/8-1-1/GLAM/") and "1 with a problem" in out


@pytest.mark.parametrize(("level", "what", "other"), [(3, "model", "MACNN"), (2, "split", "dialog")])
def test_audit_finds_a_run_that_was_made_anothers(level: int, what: str, other: str, sound: Path) -> None:
    parts = list(sound.parts[-5:])
    before, parts[level - 1] = parts[level - 1], other
    moved = sound.parents[4].joinpath(*parts)
    moved.parent.mkdir(parents=True)
    sound.rename(moved)
    edit(moved / "config.json", **{what: other})
    (problem,) = audit.problems(moved)
    assert problem == f"config.json says {what} {other}, its settings say {before.replace('8-1-1', '8:1:1')}"


def test_audit_finds_a_fold_under_anothers_name(tmp_path: Path) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS, split="speaker", fold=0, folds=2, settings={"epochs": 1})
    assert audit.problems(folder) == []
    assert audit.problems(folder.rename(folder.with_name("1-fold1"))) == [
        "config.json says seed 1-fold0, the folder says 1-fold1"
    ]


@pytest.mark.parametrize("name", [None, "comparison"])
def test_audit_of_some_datasets_looks_at_each_of_them_and_at_no_other(name: str | None, tmp_path: Path) -> None:
    for dataset in ("impro", "script", "mine"):
        make_run(tmp_path, RIGHT, LABELS, dataset=dataset, done=dataset != "script", settings={"epochs": 1})
    asked = (["impro"], ["/data/mine.csv"], ["script"], ["impro", "script"], ["script", "impro"])
    assert [audit.check_folders(tmp_path, name, datasets) for datasets in asked] == [0, 0, 1, 1, 1]


def test_audit_of_a_table_looks_behind_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path, RIGHT, LABELS, settings={"epochs": 1})
    make_run(tmp_path, RIGHT, LABELS, model="CNN_GAP", done=False)  # in no table
    assert call(monkeypatch, "--runs", tmp_path, "--audit", "--table", "split811") == 0  # made from runs of 8:2
    assert call(monkeypatch, "--runs", tmp_path, "--audit") == 1
    with pytest.raises(UserError, match="no run folder to audit"):
        call(monkeypatch, "--runs", tmp_path, "--audit", "--table", "speaker_independent")


def test_a_record_that_cannot_be_read_hides_no_other_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    unread, wrong = (make_run(tmp_path, RIGHT, LABELS, seed=seed) for seed in (1, 2))
    (wrong / "split.json").write_text("{")
    real = Path.read_bytes

    def refuse(file: Path, *given: Any, **more: Any) -> bytes:
        if file == unread / "split.json":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, *given, **more)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert report.main(["--runs", str(tmp_path), "--audit"]) == 1
    told = capsys.readouterr().out
    assert f"cannot use {unread / 'split.json'}: Input/output error" in told
    assert f"{wrong / 'split.json'} cannot be read as JSON" in told


WRONG = {  # parts of predictions.npz that can be read and are no run's
    "a name short": {"test_names": np.array(["u"] * 3)},
    "a speaker short": {"test_speakers": np.array(["A"] * 3)},
    "a path short": {"test_paths": np.array(["a"] * 3)},
    "speakers that are numbers": {"test_speakers": np.arange(4)},
    "labels in two axes": {"test_labels": np.array([LABELS])},
    "labels that are no numbers": {"test_labels": np.array([*"abcd"])},
    "a class there is none of": {"test_labels": np.array([0, 1, 2, 9])},
    "labels without a sign": {"test_labels": np.array(LABELS, dtype=np.uint64)},
    "a class below all": {"test_labels": np.array([-1, 1, 2, 3])},
    "logits that are text": {"test_logits": np.full((1, 4, 4), "x")},
}


@pytest.mark.parametrize("fault", WRONG)
def test_wrong_records_are_found_by_the_audit_and_left_out_of_tables(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path, RIGHT, LABELS, seed=1, settings={"epochs": 1})
    folder = make_run(tmp_path, RIGHT, LABELS, seed=2, settings={"epochs": 1})
    edit_predictions(folder, **WRONG[fault])
    assert any("predictions.npz" in problem for problem in audit.problems(folder))
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"], {"epochs": 1})
    ours = document.numbers[document.numbers["model"] == "GLAM"]
    assert set(ours["n"]) == {1} and str(folder) in capsys.readouterr().err
    assert worst(tmp_path)["tested"].max() != 2


@pytest.mark.parametrize(
    "change",
    [
        lambda f: (f / "split.json").write_text('{"digest": "x", "train": [NaN], "val": null, "test": []}'),
        lambda f: edit(f / "config.json", settings=settings_of(f, dataset=5)),
        lambda f: edit_epoch(f, 0, "test", WA="81"),
    ],
)
def test_the_audit_goes_on_after_a_record_of_other_types(change, sound: Path) -> None:
    change(sound)
    assert audit.problems(sound)


def test_the_audit_of_8_1_1_looks_at_the_runs_it_is_made_of(tmp_path: Path) -> None:
    make_run(tmp_path, RIGHT, LABELS, settings={"epochs": 1})
    assert audit.check_folders(tmp_path, splits=["8:1:1"]) == 0
    with pytest.raises(UserError, match="no run folder to audit"):
        audit.check_folders(tmp_path, splits=["session"])
