"""Run folders read back: finished or not, whole or broken; which epoch a rule picks; 8:2 read as 8:1:1."""

import errno
import io
import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import HALF, LABELS, RIGHT, edit, edit_epoch, guesses, make_run, only

import audit
import cli
import data
import metrics
import pack
import records
import report
import tables
from cli import UserError
from corpora import Utterance
from files import read_json, write_json

pytestmark = pytest.mark.usefixtures("two_speakers_will_do")  # made runs have no more


# -------------------------------------------------------------------------------------------------- reading


def test_only_finished_runs_are_read(tmp_path: Path) -> None:
    make_run(tmp_path, RIGHT, LABELS, seed=1)
    make_run(tmp_path, RIGHT, LABELS, seed=2, done=False)
    assert [run.seed for run in report.runs(tmp_path)] == [1]
    assert records.unfinished(tmp_path) == 1
    left = tmp_path / "impro" / "8-2" / "GLAM" / "0123456789ab"
    (left / "7").mkdir(parents=True)  # as git leaves it
    (left / "8").mkdir()
    (left / "8" / "lock").touch()  # of a run that was refused before it wrote anything
    for name in (".9.tmp", "checkpoint"):  # half written, and of a run where the runs folder is named a level too low
        (left / name).mkdir()
        (left / name / "config.json").touch()
    assert records.unfinished(tmp_path) == 1
    assert report.runs(tmp_path / "nowhere") == []


def test_a_run_like_another_is_sought_past_broken_ones(tmp_path: Path) -> None:
    broken, sound = (make_run(tmp_path, RIGHT, LABELS, seed=seed) for seed in (1, 2))
    (broken / "config.json").write_text("{}")
    like = records.finished_like(sound.with_name("3"))
    assert like and like.folder == sound


def test_records_are_read_when_they_are_asked_for(tmp_path: Path) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS)
    (folder / "epochs.jsonl").unlink()
    (folder / "predictions.npz").unlink()
    run = only(tmp_path)
    with pytest.raises(records.BrokenRecord, match=r"epochs\.jsonl"):
        _ = run.epochs


def test_text_of_a_finished_run_may_be_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS)
    plain = only(tmp_path).epochs
    pack.pack_text(folder / "epochs.jsonl")
    assert only(tmp_path).epochs == plain
    (folder / "epochs.jsonl").write_text(json.dumps({**plain[0], "train_loss": 7.0}) + "\n")  # of a repetition
    assert [epoch["train_loss"] for epoch in only(tmp_path).epochs] == [7.0]
    (folder / "epochs.jsonl").unlink()
    packed = (folder / "epochs.jsonl.gz").read_bytes()
    for broken in (b"", packed[:-9], packed[:20], packed[:-12] + b"\xff" + packed[-11:], b"not gzip"):
        (folder / "epochs.jsonl.gz").write_bytes(broken)
        with pytest.raises(records.BrokenRecord, match=r"epochs\.jsonl is not a run's record"):
            _ = only(tmp_path).epochs
    (folder / "epochs.jsonl.gz").write_bytes(packed)
    split = records.read_record(folder / "split.json")
    pack.pack_text(folder / "split.json")
    assert records.read_record(folder / "split.json") == split and split["test"]
    (folder / "split.json.gz").write_bytes(b"not gzip")
    with pytest.raises(records.BrokenRecord, match=r"split\.json cannot be read"):
        records.read_record(folder / "split.json")
    run = only(tmp_path)
    monkeypatch.setattr(records, "LARGEST", 50)  # not all of what a few bytes may stand for
    with pytest.raises(records.BrokenRecord, match=r"epochs\.jsonl is not a run's record \(JSONDecodeError"):
        _ = run.epochs


@pytest.mark.parametrize("name", ["config.json", "split.json", "epochs.jsonl", "predictions.npz"])
@pytest.mark.parametrize("kind", ["device", "hole"])
def test_a_file_without_end_is_no_record(kind: str, name: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS, settings={"epochs": 1})
    assert audit.problems(folder) == []
    (folder / name).unlink()
    if kind == "device":
        (folder / name).symlink_to("/dev/null")  # in another's runs it is /dev/zero
    else:
        with open(folder / name, "wb") as f:
            f.truncate(records.LARGEST_ARRAY + 1)
    (told,) = audit.problems(folder)
    assert str(folder / name) in told and ("more than" if kind == "hole" else "no ordinary file") in told


@pytest.mark.parametrize("bytes_there", [0, 1 << 20])
def test_an_array_that_declares_more_than_the_memory_is_broken(
    bytes_there: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS)
    with np.load(folder / "predictions.npz", allow_pickle=False) as there:
        arrays = dict(there)
    header, size = io.BytesIO(), bytes_there or 1 << 50
    about = {"descr": "<f4", "fortran_order": False, "shape": (size // 4,)}
    np.lib.format.write_array_header_1_0(header, about)
    np.savez_compressed(folder / "predictions.npz", **{k: v for k, v in arrays.items() if k != "test_logits"})
    with zipfile.ZipFile(folder / "predictions.npz", "a", zipfile.ZIP_DEFLATED) as members:
        members.writestr("test_logits.npy", header.getvalue() + bytes(bytes_there))
    if bytes_there:
        monkeypatch.setattr(records, "LARGEST_ARRAY", bytes_there - 1)
    with pytest.raises(records.BrokenRecord, match=r"test_logits\.npy says that it has more than \d+ bytes"):
        only(tmp_path).predictions("test")


@pytest.mark.parametrize("text", ["", "{", '{"epoch": 1}\n', "[]\n", "\xff"])
def test_broken_epochs_are_named(tmp_path: Path, text: str) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS)
    (folder / "epochs.jsonl").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=re.escape(str(folder / "epochs.jsonl"))):
        only(tmp_path).pick("paper")


def test_an_epoch_without_validation_scores_is_broken_where_the_split_has_them(tmp_path: Path) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS, split="8:1:1", val=(LABELS, RIGHT))
    (epoch,) = only(tmp_path).epochs
    (folder / "epochs.jsonl").write_text(json.dumps({k: v for k, v in epoch.items() if k != "val"}) + "\n")
    with pytest.raises(records.BrokenRecord, match=r"epochs\.jsonl is not a run's record \(KeyError: 'val'\)"):
        only(tmp_path).pick("validation")


def test_broken_predictions_are_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS)
    run = only(tmp_path)
    for contents in (b"", b"PK\x03\x04 not a zip", (folder / "predictions.npz").read_bytes()[:200]):
        (folder / "predictions.npz").write_bytes(contents)
        with pytest.raises(records.BrokenRecord, match=r"predictions\.npz"):
            run.predictions("test")
    np.savez(folder / "predictions.npz", test_names=np.array(["u"], dtype=object))
    with pytest.raises(records.BrokenRecord, match=r"predictions\.npz"):  # no pickle
        run.predictions("test")


@pytest.mark.parametrize("text", ["", "[]", '{"dataset": "impro"}', None])
def test_broken_configurations_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture, text: str | None) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS, seed=1)
    make_run(tmp_path, RIGHT, LABELS, seed=2)
    (folder / "config.json").unlink() if text is None else (folder / "config.json").write_text(text)
    assert [run.seed for run in report.runs(tmp_path)] == [2]
    assert str(folder / "config.json") in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../b", "a\0b"])
def test_a_name_that_no_file_can_have_is_broken(name: str, tmp_path: Path) -> None:
    for field in ("dataset", "split", "model"):
        folder = make_run(tmp_path / field, RIGHT, LABELS)
        edit(folder / "config.json", **{field: name})
        with pytest.raises(records.BrokenRecord, match=rf"config\.json: {field} .* is no name"):
            records.read_run(folder)


WRONG_SETTINGS = [
    ("alpha", 1),
    ("alpha", float("nan")),
    ("alpha", "0.5"),
    ("epochs", True),
    ("epochs", 3.0),
    ("amp", 1),
    ("fold", "0"),
    ("dataset", 5),
    ("dataset", None),
    ("classes", "sad"),
    ("classes", [5]),
]


@pytest.mark.parametrize(("name", "value"), [*WRONG_SETTINGS, ("alpha", ...)])
def test_settings_of_another_type_are_broken_for_every_reader(
    name: str, value: object, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = make_run(tmp_path, HALF, LABELS)
    config = json.loads((folder / "config.json").read_text())
    config["settings"] = {k: v for k, v in {**config["settings"], name: value}.items() if v is not ...}
    (folder / "config.json").write_text(json.dumps(config))
    assert records.runs(tmp_path) == []
    assert f"config.json lacks a proper {name}; delete its folder and run again; left out" in capsys.readouterr().err
    assert any(name in problem for problem in audit.problems(folder))


@pytest.mark.parametrize(
    ("name", "value"), [("seed", True), ("fold", False), ("n_test", 8.0), ("n_train", None), ("synthetic", 0)]
)
def test_a_field_of_another_type_is_broken(name: str, value: object, tmp_path: Path) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS)
    edit(folder / "config.json", **{name: value})
    with pytest.raises(records.BrokenRecord, match=rf"config\.json lacks a proper {name}; delete"):
        records.read_run(folder)


@pytest.mark.parametrize("name", ["epochs.jsonl", "split.json", "predictions.npz"])
@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO, errno.EMFILE])
def test_a_record_that_the_system_refuses_to_read_is_not_called_damaged(
    name: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS)
    run = records.Run(folder, read_json(folder / "config.json"))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))  # a read names no file

    monkeypatch.setattr(Path, "read_bytes", refuse)
    for read in {
        "epochs.jsonl": [lambda: run.epochs],
        "split.json": [lambda: records.read_record(folder / "split.json")],
        "predictions.npz": [lambda: run.predictions("test")],
    }[name]:
        with pytest.raises(OSError, match=os.strerror(number)) as told:
            read()
        assert cli.refusal(told.value) == f"cannot use {folder / name}: {os.strerror(number)}"


@pytest.mark.parametrize("number", [0, 3, 10**15])
def test_a_number_of_utterances_that_are_not_there_is_broken(number: int, tmp_path: Path) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS)
    edit(folder / "config.json", n_test=number)
    for read in (lambda run: run.predictions("test"), lambda run: records.Halved(run).epochs):
        with pytest.raises(records.BrokenRecord, match="holds test logits of shape"):
            read(only(tmp_path))
    with pytest.raises(records.BrokenRecord, match="is not a run's split"):
        _ = records.Halved(only(tmp_path)).split_digest


@pytest.mark.parametrize("confusion", [[[1]], [1, 1, 1, 1], [[1] * 5] * 5])
def test_a_confusion_matrix_of_other_classes_is_broken(confusion: list, tmp_path: Path) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS)
    edit_epoch(folder, 0, "test", confusion=confusion)
    with pytest.raises(records.BrokenRecord, match="is not one of 4 classes"):
        only(tmp_path).scores("last")


@pytest.mark.parametrize("score", ["81", 10**400, None], ids=["text", "huge", "null"])
def test_a_score_that_is_no_float_is_broken(score: object, tmp_path: Path) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS)
    edit_epoch(folder, 0, "test", WA=score)
    with pytest.raises(records.BrokenRecord, match=r"epochs\.jsonl is not a run's record"):
        only(tmp_path).scores("last")


# ---------------------------------------------------------------------------------------------------- rules


def test_rules(tmp_path: Path) -> None:
    # test: 50, 100, 100, 50 -> paper picks the first 100; validation: 0, 50, 50, 100 -> the last; last: the last
    epochs = [HALF[0], RIGHT[0], RIGHT[0], HALF[0]]
    val = ([0, 1], [[1, 0], [0, 0], [0, 0], [0, 1]])
    make_run(tmp_path, epochs, LABELS, split="8:1:1", val=val)
    run = only(tmp_path)
    assert [run.pick(rule) for rule in ("paper", "validation", "last")] == [1, 3, 3]
    assert run.scores("paper")["WA"] == 100 and run.scores("validation")["WA"] == 50


def test_paper_weighs_wa_and_ua_alike(tmp_path: Path) -> None:
    # labels 0 0 0 1; all 0: WA 75, UA 50, mean 62.5; 0 1 1 1: WA 50, UA (33.3 + 100) / 2 = 66.7, mean 58.3
    make_run(tmp_path, [[0, 0, 0, 0], [0, 1, 1, 1]], [0, 0, 0, 1])
    assert only(tmp_path).pick("paper") == 0


def test_validation_refuses_a_split_without(tmp_path: Path) -> None:
    make_run(tmp_path, RIGHT, LABELS)
    with pytest.raises(UserError, match=r"8:2 has no validation part; 8:1:1, session, superb, .* have one"):
        only(tmp_path).pick("validation")
    with pytest.raises(UserError, match="choose one of paper, validation, last"):
        only(tmp_path).pick("best")


# ---------------------------------------------------------------------------------------------------- 8:1:1


def test_8_2_read_as_8_1_1_is_that_split(tmp_path: Path) -> None:
    seed = 5
    utterances = [Utterance(f"u{i}", f"/u{i}.wav", "A", "1", "d", "impro", "neu") for i in range(55)]
    whole, halves = (data.SPLITS[name](utterances, seed) for name in ("8:2", "8:1:1"))  # of 11: 5 and 6
    names = data.split_record(utterances, whole)["test"]
    labels = np.arange(len(names)) % 4
    predicted = guesses(1, labels, [0.3, 0.5, 0.9])
    folder = make_run(tmp_path, predicted, labels, seed=seed, names=names)
    write_json(folder / "split.json", data.split_record(utterances, whole))
    run = records.Halved(only(tmp_path))
    expected = data.split_record(utterances, halves)
    assert (run.split, run.seed, run.has_validation) == ("8:1:1", seed, True)
    for name in ("test", "val"):
        assert run.predictions(name).names.tolist() == expected[name]
    assert run.split_digest == expected["digest"]
    assert run.n_test == len(expected["test"])
    for part in ("val", "test"):
        own = [names.index(name) for name in expected[part]]
        by_hand = [metrics.scores(np.eye(4)[guess[own]], labels[own]) for guess in predicted]
        assert [epoch[part] for epoch in run.epochs] == by_hand
    means = [epoch["val"]["WA"] + epoch["val"]["UA"] for epoch in run.epochs]
    assert run.pick("validation") == means.index(max(means))


@pytest.mark.parametrize(
    "other",
    [
        {"corpus_digest": "f" * 32},
        {"dataset": "script"},
        {"model": "ResMultiConv3"},
        {"settings": {"alpha": 1}},
        {"seed": 2},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_run_of_another_kind_does_not_stand_for_a_derived_one(tmp_path: Path, other: dict[str, Any]) -> None:
    whole = make_run(tmp_path, HALF, LABELS)
    real = make_run(tmp_path, RIGHT, LABELS, split="8:1:1", val=(LABELS, RIGHT), **other)
    both = [run for run in records.with_derived(records.runs(tmp_path)) if run.split == "8:1:1"]
    assert {run.folder for run in both} == {whole, real}


def test_a_real_8_1_1_run_counts_before_a_derived_one(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, seed=1)
    make_run(tmp_path, HALF, LABELS, seed=2)
    make_run(tmp_path, RIGHT, LABELS, seed=1, split="8:1:1", val=(LABELS, RIGHT))
    row = next(c for c in tables.TABLES["split811"].row_specs(["impro"]) if c.model == "GLAM")
    found = tables.runs_of(row, report.runs(tmp_path))
    assert sorted((run.seed, type(run).__name__) for run in found) == [(1, "Run"), (2, "Halved")]


def test_a_run_with_one_test_utterance_is_not_halved(tmp_path: Path) -> None:
    make_run(tmp_path, [[0]], [0], dataset="mine", corpus="mine")
    make_run(tmp_path, RIGHT, LABELS)
    found = records.with_derived(report.runs(tmp_path))
    assert [(run.dataset, run.split) for run in found] == [("impro", "8:2"), ("mine", "8:2"), ("impro", "8:1:1")]
