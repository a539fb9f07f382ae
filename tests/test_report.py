"""Tables from run folders made by hand, whose answers can be worked out on paper."""

import csv
import errno
import io
import itertools
import json
import os
import re
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import DIGEST, guesses, make_run

import audit
import captions
import cli
import data
import metrics
import pack
import recipes
import records
import render
import report
import stats
import sweep
import tables
from cli import UserError
from corpora import Utterance
from files import digest_file, read_json, write_json

RIGHT, HALF = [[0, 1, 2, 3]], [[0, 1, 0, 0]]  # of labels 0 1 2 3: WA = UA = 100, and 50
LABELS = [0, 1, 2, 3]
pytestmark = pytest.mark.usefixtures("two_speakers_will_do")  # made runs have no more
BOTH: dict[str, Any] = {"labels": LABELS * 2, "speakers": [*"AAAABBBB"]}  # each speaker has every class


def only(root: Path) -> records.Run:
    """The one run under a folder."""
    (run,) = report.runs(root)
    return run


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """`python report.py ...` in this process."""
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
    return report.main()


def cell(frame: pd.DataFrame, column: str, **where: str) -> Any:
    """The one value of a column where others have these values."""
    for name, value in where.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1, frame
    return frame[column].iloc[0]


# --------------------------------------------------------------------------------------------------- reading


def test_only_finished_runs_are_read(tmp_path: Path) -> None:
    make_run(tmp_path, RIGHT, LABELS, seed=1)
    make_run(tmp_path, RIGHT, LABELS, seed=2, done=False)
    assert [run.seed for run in report.runs(tmp_path)] == [1]
    assert records.unfinished(tmp_path) == 1
    left = tmp_path / "impro" / "8-2" / "GLAM" / "0123456789ab"
    (left / "7").mkdir(parents=True)
    (left / "8").mkdir()
    (left / "8" / "lock").touch()  # of a run that was refused before it wrote anything
    assert records.unfinished(tmp_path) == 1
    assert report.runs(tmp_path / "nowhere") == []


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


@pytest.mark.parametrize("text", ["", "[]", '{"dataset": "impro"}'])
def test_broken_configurations_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture, text: str) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS, seed=1)
    make_run(tmp_path, RIGHT, LABELS, seed=2)
    (folder / "config.json").write_text(text)
    assert [run.seed for run in report.runs(tmp_path)] == [2]
    assert str(folder / "config.json") in capsys.readouterr().err


def test_nothing_but_broken_records(tmp_path: Path) -> None:
    folder = make_run(tmp_path, HALF, LABELS)
    (folder / "epochs.jsonl").write_text("")
    with pytest.raises(UserError, match="every one of these runs is broken"):
        report.table(report.runs(tmp_path))


def test_tables_leave_broken_records_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = make_run(tmp_path, HALF, LABELS, seed=1)
    make_run(tmp_path, RIGHT, LABELS, seed=2)
    (folder / "predictions.npz").write_bytes(b"")
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    assert cell(document.sections[0].frame, "WA", Model="GLAM", Source="ours").startswith("100.00")
    assert capsys.readouterr().err.count(str(folder)) == 1


# ----------------------------------------------------------------------------------------------------- rules


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
    with pytest.raises(UserError, match=r"8:2 has no validation part; 8:1:1, session, speaker, dialog.* have one"):
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


def test_a_file_is_written_as_its_name_says(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", HALF, LABELS)
    for name, head in (("a.html", "<!doctype html>"), ("a.csv", "dataset,"), ("a.tex", "%"), ("a.md", "##")):
        assert report.main(["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text().lower().startswith(head), name
    with pytest.raises(UserError, match=r"--output .*a.docx: end it in .md, .csv, .html, .tex, or say which with"):
        report.main(["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "a.docx")])
    words = ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "a.txt"), "--format", "csv"]
    assert report.main(words) == 0 and (tmp_path / "a.txt").read_text().startswith("dataset,")


def test_what_is_missing_is_trained_on_the_same_kind_of_machine(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, settings={"threads": 1})
    make_run(tmp_path, HALF, LABELS, settings={"threads": 1}, model="MACNN")
    make_run(tmp_path, HALF, LABELS, settings={"threads": 1}, model="MACNN", seed=2)
    text = render.markdown(report.named_table("comparison", records.runs(tmp_path), ["impro"])[0])
    assert "sweep.py --table comparison --seeds 2 --datasets impro --threads 1 --device cpu" in text


def test_runs_of_a_part_of_iemocap_say_why_nothing_published_is_there(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, corpus="IEMOCAP's layout, 10038 utterances")
    text = render.markdown(report.named_table("comparison", records.runs(tmp_path), ["impro"])[0])
    assert "No published figures" in text and "impro: IEMOCAP's layout, 10038 utterances" in text


def test_a_real_8_1_1_run_counts_before_a_derived_one(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, seed=1)
    make_run(tmp_path, HALF, LABELS, seed=2)
    make_run(tmp_path, RIGHT, LABELS, seed=1, split="8:1:1", val=(LABELS, RIGHT))
    row = next(c for c in tables.TABLES["split811"].row_specs(["impro"]) if c.model == "GLAM")
    found = tables.runs_of(row, report.runs(tmp_path))
    assert sorted((run.seed, type(run).__name__) for run in found) == [(1, "Run"), (2, "Halved")]


# ------------------------------------------------------------------------------------------------- overview


def test_mean_and_deviation(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, seed=1)
    make_run(tmp_path, RIGHT, LABELS, seed=2)
    frame = report.table(report.runs(tmp_path))
    # 50 and 100: mean 75, deviations +-25, squares 1250 over n - 1 = 1: 35.36
    assert frame["WA"].tolist() == ["75.00 ± 35.36"] and frame["n"].tolist() == ["2"]
    assert frame["published WA"].tolist() == ["81.18 ± 1.47"]
    assert frame["published weighted F1"].tolist() == ["80.99 ± 1.50"]
    assert "Changed" not in frame


def test_seeds_tested_on_other_utterances_say_so(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, seed=1)
    make_run(tmp_path, [[*HALF[0], 0]], [*LABELS, 0], seed=2)
    frame = report.table(report.runs(tmp_path))
    assert frame["Utterances"].tolist() == ["4–5"] and frame["Splits"].iloc[0].endswith(" of 2")


@pytest.mark.parametrize(
    ("made", "rule", "published"),
    [
        ({}, "paper", "81.18 ± 1.47"),
        ({}, "last", None),
        ({"settings": {"alpha": 0.3}}, "paper", "81.15 ± 1.73"),
        ({"settings": {"alpha": 1}}, "paper", "80.96 ± 1.72"),
        ({"settings": {"alpha": 0.4}}, "paper", None),
        ({"settings": {"epochs": 3}}, "paper", None),
        ({"model": "MACNN", "dataset": "script"}, "paper", "64.57 ± 2.12"),
        ({"model": "MHResMultiConv3"}, "paper", "80.43 ± 1.53"),
        ({"model": "AACNN", "dataset": "all"}, "paper", "70.94 ± 5.08"),
        ({"model": "AACNN", "dataset": "emodb"}, "paper", None),
        ({"synthetic": True, "corpus": "synthetic"}, "paper", None),
        ({"corpus": "IEMOCAP's layout, 10038 utterances"}, "paper", None),
        ({"split": "8:1:1", "val": (LABELS, RIGHT)}, "validation", "81.04 ± 2.65"),
        ({"split": "8:1:1", "val": (LABELS, RIGHT)}, "paper", None),
        ({"split": "speaker", "fold": 0, "folds": 1, "val": (LABELS, RIGHT)}, "validation", None),
    ],
)
def test_published_figures_stand_beside_what_they_are_for(
    tmp_path: Path, made: dict[str, Any], rule: str, published: str | None
) -> None:
    make_run(tmp_path, RIGHT, LABELS, **made)
    frame = report.table(report.runs(tmp_path), rule)
    assert (frame["published WA"].iloc[0] if "published WA" in frame else None) == published


def test_published_numbers_are_the_papers() -> None:
    assert len(tables.published()) == 12 + 3 + 6 + 9  # comparison; the ablation's own; alpha's own; 8:1:1
    assert tables.published()["8:1:1", "script", "APCNN", ""]["macroF1"] == (48.14, 4.27)
    assert digest_file(Path(report.__file__).parent / "results" / "published.csv") == "7120cba6dd88c11b284f390115cfe78d"


def test_settings_corpora_and_synthetic_data_are_not_mixed(tmp_path: Path) -> None:
    make_run(tmp_path, RIGHT, LABELS, seed=1)
    make_run(tmp_path, HALF, LABELS, seed=2, settings={"epochs": 1})
    make_run(tmp_path, HALF, LABELS, seed=3, corpus_digest="aa" * 16, synthetic=True, corpus="synthetic")
    frame = report.table(report.runs(tmp_path))
    assert frame["n"].tolist() == ["1", "1", "1"]
    assert set(frame["Dataset"]) == {f"impro {DIGEST[:8]}", "impro aaaaaaaa (SYNTHETIC)"}
    assert set(frame["Changed"]) == {"–", "epochs=1"}


def fold_runs(root: Path, seed: int = 1, folds: Sequence[int] = (0, 1), **more: Any) -> None:
    """Fold 0: labels 0 0 0 1, all said 0: WA 75, UA 50. Fold 1: labels 0 1, all said 1: WA 50, UA 50.
    Pooled: 4 of 6 right, WA 66.67; recalls 3/4 and 1/2, UA 62.5. Averaged: WA 62.5, UA 50. A second epoch is all
    right, and worse on the validation part."""
    for fold, labels, said in ((0, [0, 0, 0, 1], 0), (1, [0, 1], 1)):
        if fold in folds:
            predicted, val = [[said] * len(labels), labels], (LABELS, [RIGHT[0], HALF[0]])
            make_run(root, predicted, labels, split="session", seed=seed, fold=fold, folds=2, val=val,
                     speakers=[f"S{fold}"] * len(labels), **more)  # fmt: skip


def test_folds_pooled_and_averaged(tmp_path: Path) -> None:
    fold_runs(tmp_path)
    frame = report.table(report.runs(tmp_path), "validation")
    assert cell(frame, "WA", Folds="pooled") == "66.67" and cell(frame, "UA", Folds="pooled") == "62.50"
    assert cell(frame, "WA", Folds="averaged") == "62.50 (folds ± 17.68)"  # of 75 and 50
    assert cell(frame, "UA", Folds="averaged") == "50.00 (folds ± 0.00)"
    assert frame["Utterances"].tolist() == ["6", "6"] and frame["n"].tolist() == ["1", "1"]
    document, _ = report.named_table("speaker_independent", report.runs(tmp_path), ["impro"])
    frame = document.sections[0].frame
    assert cell(frame, "WA", Source="ours, folds pooled").startswith("66.67 [")
    assert (
        cell(frame, "WA", Source="ours, mean over folds") == "62.50 (folds ± 17.68)"
    )  # the interval is of the pooled score
    assert any(": 2 of 2 folds lack a class" in note for note in document.sections[0].notes)
    assert document.caption[-1].startswith("Made with"), "rows are of two splits"
    own = document.numbers[document.numbers["n"] > 0]
    assert own["folds"].tolist() == ["pooled"] * 4 + ["averaged"] * 4 and set(own["speakers"]) == {2}


def test_the_deviation_over_folds_is_of_their_means_over_seeds(tmp_path: Path) -> None:
    for seed in (1, 2):
        for fold in (0, 1):  # one seed is better, in both folds
            make_run(tmp_path, RIGHT if seed == 1 else HALF, LABELS, split="session", seed=seed, fold=fold, folds=2,
                     val=(LABELS, RIGHT))  # fmt: skip
    frame = report.table(report.runs(tmp_path), "validation")
    assert cell(frame, "WA", Folds="averaged") == "75.00 ± 35.36 (folds ± 0.00)"


def test_folds_of_several_machines_stay_in_order(tmp_path: Path) -> None:
    for seed in (1, 2):
        for fold in (0, 1):  # fold 0 is the easy one, whoever computed it
            make_run(tmp_path, HALF if fold else RIGHT, LABELS, split="session", seed=seed, fold=fold, folds=2,
                     val=(LABELS, RIGHT), settings={"threads": 1 + (seed == fold + 1)})  # fmt: skip
    frame = report.table(report.runs(tmp_path), "validation")
    assert cell(frame, "WA", Folds="averaged") == "75.00 ± 0.00 (folds ± 35.36)"


def test_pooling_confusions_is_pooling_logits(tmp_path: Path) -> None:
    fold_runs(tmp_path)
    group = records.Group(report.runs(tmp_path), "validation")
    parts = [(run.predictions("test"), run.pick("validation")) for run in group.runs]
    logits = np.concatenate([part.logits[epoch] for part, epoch in parts])
    scores = metrics.scores(logits, np.concatenate([part.labels for part, _ in parts]))
    assert group.scores()[0] == pytest.approx([scores[name] for name in metrics.SCORES])


def test_a_run_is_read_once_however_many_rows_comparisons_and_broken_runs_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packed, the predictions of a hundred seeds take minutes to read. 8:1:1 also halves them and picks by them."""
    for seed, model in itertools.product(range(6), ("GLAM", "MACNN", "AACNN")):
        own = {"speakers": [*"CCCCDDDD"], "names": [*"abcdefgh"]} if model == "AACNN" else {}  # another split
        make_run(tmp_path, [LABELS * 2], model=model, seed=seed, **{**BOTH, **own})
    read, real = Counter[Path](), records.Run._read_predictions

    def counting(run: records.Run, part: str) -> records.Predictions:
        read[run.folder] += 1
        return real(run, part)

    monkeypatch.setattr(records.Run, "_read_predictions", counting)
    rows, interval = [], stats.interval
    monkeypatch.setattr(stats, "interval", lambda counts: rows.append(len(counts)) or interval(counts))
    tables_and_reads = {"comparison": 1, "split811": 3, "protocols": 5}
    for table, times in tables_and_reads.items():
        report.named_table(table, report.runs(tmp_path), ["impro"])
        assert len(read) == 18 and {*read.values()} == {times}, table
        read.clear()
    broken = report.runs(tmp_path)[-1].folder
    (broken / "predictions.npz").write_bytes(b"")
    for table, times in tables_and_reads.items():  # without it a table is made anew, from what was read
        report.named_table(table, report.runs(tmp_path), ["impro"])
        assert read.pop(broken, 0) <= 1 and max(read.values()) == times, table
        read.clear()
    assert len(rows) == 2 * (3 + 3 + 9)  # an interval a row, with the broken run and without it


def test_incomplete_rounds_are_marked_and_not_counted(tmp_path: Path) -> None:
    fold_runs(tmp_path)
    fold_runs(tmp_path, seed=2, folds=(1,))
    fold_runs(tmp_path, seed=3, folds=(0,), names=[*"wxyz"])
    frame = report.table(report.runs(tmp_path), "validation")
    (other,) = [run for run in report.runs(tmp_path) if run.seed == 2]
    incomplete = "pooled, incomplete: 1 of 2 (seed 2)"
    assert cell(frame, "WA", Folds=incomplete) == "50.00" and cell(frame, "Utterances", Folds=incomplete) == "2"
    assert cell(frame, "n", Folds="pooled") == "1" and cell(frame, "WA", Folds="pooled") == "66.67"
    assert cell(frame, "Splits", Folds=incomplete) == other.split_digest[:8]
    assert cell(frame, "Splits", Folds="pooled").endswith(" of 2") and cell(frame, "Utterances", Folds="pooled") == "6"
    document, _ = report.named_table("speaker_independent", report.runs(tmp_path), ["impro"])
    said = "not counted, incomplete: seed 2 has 1 of 2 folds; seed 3 has 1 of 2 folds."
    assert any(said in note for note in document.sections[0].notes)
    assert any("trains what is missing (7 of 8 rows)" in note for note in document.sections[0].notes)


def test_a_row_with_incomplete_rounds_alone_has_no_figures(tmp_path: Path) -> None:
    fold_runs(tmp_path, folds=(1,))
    document, _ = report.named_table("speaker_independent", report.runs(tmp_path), ["impro"])
    frame = document.sections[0].frame
    row = frame[(frame["Model"] == "GLAM") & (frame["Split"] == "session")]
    assert row["Source"].tolist() == ["incomplete: seed 1 has 1 of 2 folds"] and row["WA"].tolist() == [""]
    assert any("trains what is missing (8 of 8 rows)" in note for note in document.sections[0].notes)


# ------------------------------------------------------------------------------------------- tables by name


def test_jobs() -> None:
    comparison = tables.jobs("comparison")
    assert len(comparison) == 12
    assert {"model": "MACNN", "dataset": "script", "split": "8:2", "changed": {}} in comparison
    assert tables.jobs("split811") == comparison  # the same runs serve both
    alphas = [job["changed"] for job in tables.jobs("alpha")]
    assert alphas == [{"alpha": 0}, {"alpha": 0.3}, {}, {"alpha": 0.8}, {"alpha": 1}, {"alpha": 2}, {"alpha": 3}]
    assert [job["split"] for job in tables.jobs("protocols")] == ["8:2", "session", "speaker"] * 4
    assert {job["dataset"] for job in tables.jobs("ablation", ["emodb", "demo"])} == {"emodb", "demo"}
    assert all(job["changed"] == {"epochs": 3} for job in tables.jobs("comparison", ["demo"], {"epochs": 3}))
    assert tables.jobs("comparison", ["demo"], {"epochs": 100})[2]["changed"] == {}  # AACNN's own number


def test_a_table_on_another_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """The epoch is then chosen on validation data, where there are some, and no published figure stands beside it."""
    for fold in (0, 1):
        for model in ("GLAM", "ResMultiConv3"):
            make_run(tmp_path, RIGHT, LABELS, model=model, split="session", fold=fold, folds=2, val=(LABELS, HALF))
    assert call(monkeypatch, "--runs", tmp_path, "--table", "ablation", "--split", "session,dialog") == 0
    told = capsys.readouterr().out
    assert "| GLAM against Multi-scale " in told and "2 folds" in told and "ours − published" not in told
    assert "python sweep.py --table ablation --seeds 1 --splits session,dialog" in told
    _, rows = report.named_table("ablation", report.runs(tmp_path), splits=["session", "8:2"])
    assert [(row.spec.split, row.spec.rule) for row in rows[::9]] == [("session", "validation"), ("8:2", "paper")]
    assert {job["split"] for job in tables.jobs("ablation", splits=["8:1:1", "speaker"])} == {"8:2", "speaker"}


@pytest.mark.parametrize("name", report.TABLES)
def test_every_row_names_a_model_and_a_split(name: str) -> None:
    import models

    for row in tables.TABLES[name].row_specs():
        assert models.canonical(row.model) == row.model
        assert row.split in data.SPLITS and row.rule in recipes.RULES


@pytest.mark.parametrize("name", report.TABLES)
def test_missing_cells_say_so_and_how_to_train_them(name: str) -> None:
    document, rows = report.named_table(name, [], ["impro"], {"epochs": 3})
    assert document.sections[0].frame["Source"].tolist() == ["missing"] * len(rows)
    assert any(
        f"`python sweep.py --table {name} --seeds 1 --datasets impro --epochs 3` trains what is missing" in note
        for note in document.sections[0].notes
    )
    assert set(document.numbers["status"]) == {"missing"}


def test_flags_of_the_machine_stand_once_in_what_trains_missing_rows(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, settings={"threads": 3})
    for settings in ({}, {"threads": 3}):
        document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"], settings)
        command = next(note for note in document.sections[0].notes if "trains what is missing" in note)
        words = command.split("`")[1].partition(" --datasets impro ")[2].split()
        assert sorted(words) == ["--device", "--threads", "3", "cpu"]


def test_ours_published_difference(tmp_path: Path) -> None:
    make_run(tmp_path, [HALF[0] * 2], **BOTH, seed=1)
    make_run(tmp_path, [RIGHT[0] * 2], **BOTH, seed=2)
    document, _ = report.named_table("comparison", report.runs(tmp_path))
    frame = document.sections[0].frame
    at = frame.index[(frame["Dataset"] == "impro") & (frame["Model"] == "GLAM")][0]
    assert frame["Source"][at : at + 3].tolist() == ["ours", "published", "ours − published"]
    assert frame["WA"][at].startswith("75.00 ± 35.36 [") and frame["n"][at] == "2"
    assert frame["WA"][at + 1] == "81.18 ± 1.47" and frame["WA"][at + 2] == "−6.18"
    # 100, and 75, 37.5 and 37.5 in the mean with 50, of F1 0.5, 1, 0, 0: each minus its own published figure
    others = [frame[column][at : at + 3].tolist() for column in ("UA", "macro F1", "weighted F1")]
    assert [(ours.split()[0], *more) for ours, *more in others] == [
        ("75.00", "79.25 ± 1.88", "−4.25"),
        ("68.75", "79.87 ± 1.64", "−11.12"),
        ("68.75", "80.99 ± 1.50", "−12.24"),
    ]
    assert (frame["Utterances"][at], frame["Speakers"][at]) == ("8", "2")
    assert frame["Splits"][at] == only_digest(tmp_path)[:8]  # both seeds list the same names here
    assert cell(frame[frame["Dataset"] == "impro"], "Source", Model="MHCNN (MACNN)") == "missing"
    text = " ".join(document.caption)
    assert "optimistic" in text and "Split 8:2" in text and "speakers" in text and "Published: Zhu and Li" in text
    assert f"impro: corpus IEMOCAP, digest {DIGEST[:8]}; as its owner says." in document.caption


def only_digest(root: Path) -> str:
    """The one split digest of the runs under a folder."""
    (digest,) = {run.split_digest for run in report.runs(root)}
    return digest


def test_other_corpora_have_no_published_figures(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, dataset="emodb", corpus="EMO-DB")
    fold_runs(tmp_path, dataset="emodb", corpus="EMO-DB")
    for name, rows in (("comparison", 4), ("split811", 4), ("speaker_independent", 8 + 1)):  # folds take two lines
        document, _ = report.named_table(name, report.runs(tmp_path), ["emodb"])
        assert not {"published", "ours − published"} & set(document.sections[0].frame["Source"])
        assert len(document.sections[0].frame) == rows
        caption = " ".join(document.caption)
        assert not re.search("Published:|of the published 8:1:1|speaker-independent has been published", caption)


def test_a_table_under_another_rule_has_no_published_figures(tmp_path: Path) -> None:
    make_run(tmp_path, [RIGHT[0], HALF[0]], LABELS)
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"], rule="last")
    frame = document.sections[0].frame
    assert cell(frame, "WA", Model="GLAM").startswith("50.00") and "published" not in set(frame["Source"])
    fold_runs(tmp_path)
    document, _ = report.named_table("speaker_independent", report.runs(tmp_path), ["impro"], rule="paper")
    assert "On session this rule is no published one" in document.caption[1]
    with pytest.raises(UserError, match="8:2 has no validation part"):
        report.named_table("comparison", [], rule="validation")
    with pytest.raises(UserError, match="have their own rules"):
        report.named_table("protocols", [], rule="last")


def test_synthetic_stands_beside_the_numbers(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, synthetic=True, corpus="synthetic")
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    frame = document.sections[0].frame
    assert cell(frame, "WA", Source="ours SYNTHETIC").startswith("50.00")
    assert set(frame["Source"]) == {"missing", "ours SYNTHETIC"}  # the published are of another corpus in every row
    assert any("SYNTHETIC" in text for text in document.caption)


def test_one_corpus_a_table(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make_run(tmp_path, RIGHT, LABELS, seed=1)
    for seed in (2, 3):
        make_run(tmp_path, HALF, LABELS, seed=seed, corpus_digest="aa" * 16)
        make_run(tmp_path, HALF, LABELS, seed=seed, corpus_digest="bb" * 16, synthetic=True, corpus="synthetic")
    make_run(tmp_path, HALF, LABELS, seed=4, corpus_digest="bb" * 16, synthetic=True, corpus="synthetic")

    def shown(corpus: str) -> tuple[str, str]:
        document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"], corpus=(corpus,))
        frame = document.sections[0].frame
        row = frame[frame["Model"] == "GLAM"]
        return row["Source"].iloc[0], row["n"].iloc[0]

    assert shown("") == ("ours", "2")  # real before synthetic, then the most runs
    assert "bbbbbbbb (3)" in capsys.readouterr().err
    assert shown("c0ff") == ("ours", "1") and shown("bb") == ("ours SYNTHETIC", "3")
    assert capsys.readouterr().err == ""


def test_the_corpus_of_a_table_is_one_that_its_rows_have(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make_run(tmp_path, RIGHT, LABELS)
    for seed in (1, 2):
        make_run(tmp_path, HALF, LABELS, seed=seed, corpus_digest="aa" * 16, settings={"batch_size": 8})
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    assert cell(document.sections[0].frame, "n", Source="ours") == "1" and capsys.readouterr().err == ""


def test_one_synthetic_dataset_of_two_is_told(tmp_path: Path) -> None:
    make_run(tmp_path, RIGHT, LABELS)
    make_run(tmp_path, RIGHT, LABELS, dataset="demo", corpus="made", corpus_digest="bb" * 16, synthetic=True)
    found = report.runs(tmp_path)
    document, _ = report.named_table("comparison", found, ["impro", "demo"])
    assert document.synthetic and report.overview(found, "paper", 0, "").synthetic
    assert [text for text in document.caption if "digest" in text][-2:] == [
        "demo: corpus made, digest bbbbbbbb; as its owner says.",
        f"impro: corpus IEMOCAP, digest {DIGEST[:8]}; as its owner says.",
    ]


def test_a_seed_counts_once(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, seed=1)
    make_run(tmp_path, HALF, LABELS, seed=1, settings={"threads": 1})  # another hash, nothing changed
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    assert cell(document.sections[0].frame, "n", Source="ours") == "1"
    said = "1 run repeats a seed, on another device or thread count than most or in a second folder, "
    said += "and is not counted again."
    assert said in document.sections[0].notes
    assert said in report.named_table("protocols", report.runs(tmp_path))[0].sections[0].notes  # of three rows one run
    assert said in report.overview(report.runs(tmp_path), "paper", 0, "").caption
    assert report.overview(report.runs(tmp_path)[:1], "paper", 0, "").caption[1:] == ["Made with ``."]


@pytest.mark.parametrize("most", [2, 3])
def test_of_two_machines_the_one_with_most_runs_counts(tmp_path: Path, most: int) -> None:
    for seed in (1, 2, 3):
        for threads, said in ((1, HALF), (2, RIGHT), (3, HALF)):
            if threads == most or seed == 1:
                make_run(tmp_path, said, LABELS, seed=seed, settings={"threads": threads})
    (group,) = records.group_by_setting(report.runs(tmp_path), "paper")
    assert len(group.repeats) == 2
    assert group.scores()[:, 0].tolist() == [100 if most == 2 else 50] * 3
    (note, *_) = report.named_table("comparison", report.runs(tmp_path), ["impro"])[0].sections[0].notes
    assert ("--threads 3 " in note, "--threads" in note) == (most == 3, most == 3)  # 2 are the default


def test_of_machines_with_equally_many_runs_the_same_counts_in_whatever_order_they_are_read(tmp_path: Path) -> None:
    for threads, said in ((1, HALF), (2, RIGHT)):
        make_run(tmp_path, said, LABELS, settings={"threads": threads})
    found = report.runs(tmp_path)
    assert [records.Group(order, "paper").scores()[0, 0] for order in (found, found[::-1])] == [50, 50]


def test_seeds_that_are_none_of_the_published_are_told(tmp_path: Path) -> None:
    for seed in (2602656884, 987654):
        make_run(tmp_path, HALF, LABELS, seed=seed)
    make_run(tmp_path, HALF, LABELS, seed=987654, model="MACNN")
    make_run(tmp_path, HALF, LABELS, seed=2602656884, model="AACNN")
    for dataset in ("impro", "emodb"):
        make_run(tmp_path, HALF, LABELS, seed=5, model="APCNN", dataset=dataset)
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro", "emodb"])
    assert [note for note in document.sections[0].notes if "the published 100" in note] == [
        "APCNN on impro, 8:2: every seed is other than the published 100: 5.",
        "MHCNN (MACNN) on impro, 8:2: every seed is other than the published 100: 987654.",
        "GLAM on impro, 8:2: counted beside seeds of the published 100: 987654.",
    ]


def test_a_table_of_one_thread_count(tmp_path: Path) -> None:
    for threads, said in ((1, HALF), (2, RIGHT), (4, HALF)):
        make_run(tmp_path, said, LABELS, settings={"threads": threads})
    for threads, wa in ((1, "50.00"), (2, "100.00"), (4, "50.00")):
        document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"], {"threads": threads})
        assert cell(document.sections[0].frame, "WA", Source="ours").startswith(wa)
        assert f"In every row: threads={threads}. " in document.caption[-1]


def test_intervals_say_what_they_resample(tmp_path: Path) -> None:
    make_run(tmp_path, [HALF[0] * 2], **BOTH, model="GLAM")
    make_run(tmp_path, HALF, LABELS, model="MACNN", speakers=["A"] * 4)
    make_run(tmp_path, [[0, 0, 0]], [0, 1, 2], speakers=[*"ABC"], model="APCNN")
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    notes = "\n".join(document.sections[0].notes)
    assert "GLAM on impro, 8:2: the interval resamples speakers (one seed)" in notes
    assert (
        "MHCNN (MACNN) on impro, 8:2: no interval, as there is one speaker, and there are fewer than 2 seeds" in notes
    )
    assert "APCNN on impro, 8:2: no interval, as most draws of speakers lack a class" in notes
    make_run(tmp_path, [HALF[0] * 2], LABELS * 2, model="AACNN", speakers=[*"AAAABBB", ""])
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    assert "AACNN on impro, 8:2: no interval, as speakers are not known" in "\n".join(document.sections[0].notes)
    assert cell(document.sections[0].frame, "Speakers", Model="AACNN") == "–"
    # A and B are right twice of four times: every draw of two has WA 50
    assert cell(document.sections[0].frame, "WA", Model="GLAM") == "50.00 [50.00, 50.00]"


def test_a_score_over_fewer_classes_is_told(tmp_path: Path) -> None:
    """UA of a test set that lacks a class is the mean recall of the others, and so another score."""
    for seed in (1, 2):
        make_run(tmp_path, HALF, LABELS, seed=seed)
    make_run(tmp_path, [[0, 1, 0, 0]], [0, 1, 2, 2], seed=3)
    make_run(tmp_path, HALF, LABELS, model="MACNN")
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    (note,) = [note for note in document.sections[0].notes if "lack a class" in note]
    assert note.startswith(
        "GLAM on impro, 8:2: 1 of 3 test sets lack a class, and their UA is the mean over the others"
    )


def test_an_interval_of_few_seeds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stats.FEWEST", 5)
    for seed in range(5):
        for model in ("GLAM", "MACNN")[: 1 + (seed < 3)]:
            make_run(tmp_path, [[0, 1] * 10], [0, 1] * 10, seed=seed, model=model, speakers=[*"AABBCCDDEE"] * 2)
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    (note,) = [note for note in document.sections[0].notes if "hardly tell how much seeds differ" in note]
    assert note.startswith("MHCNN (MACNN) on impro, 8:2: 3 seeds hardly tell")


def test_what_is_said_of_every_row_names_none(tmp_path: Path) -> None:
    said = "the interval resamples speakers (one seed)"

    def note() -> str:
        document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
        (found,) = [note for note in document.sections[0].notes if said in note]
        return found

    for model in ("GLAM", "MACNN"):
        make_run(tmp_path, [HALF[0] * 2], **BOTH, model=model)
    assert note() == f"MHCNN (MACNN) on impro, 8:2; GLAM on impro, 8:2: {said}."
    make_run(tmp_path, [HALF[0] * 2], **BOTH, model="APCNN")
    assert note() == f"Every row with runs: {said}."
    for seed in (1, 2):
        make_run(tmp_path, [HALF[0] * 2], **BOTH, model="AACNN", seed=seed)
    assert note().startswith("APCNN on impro, 8:2; MHCNN")


# --------------------------------------------------------------------------------------- which is better


def test_better_over_seeds(tmp_path: Path) -> None:
    for seed in range(6):
        make_run(tmp_path, RIGHT, LABELS, seed=seed)
        make_run(tmp_path, HALF, LABELS, seed=seed, model="MACNN")
    make_run(tmp_path, HALF, LABELS, seed=9, model="MACNN")  # not shared
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    frame = document.sections[1].frame
    # six differences of +50: p = 2/64, alone in its family
    assert cell(frame, "Verdict", Score="WA") == "GLAM is better"
    assert cell(frame, "p", Score="WA") == "0.0312" and cell(frame, "n", Score="WA") == "6 seeds"
    assert cell(frame, "Mean difference", Score="UA") == "−50.00"  # MHCNN against GLAM
    assert cell(frame, "Same split", Score="WA") == "6 of 6"
    assert not any("they are not independent" in note for note in document.sections[1].notes), "that is of folds"
    make_run(tmp_path, HALF, LABELS, seed=0, model="APCNN")  # two pairs of one seed, which are not corrected for
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    assert len(document.sections[1].frame) == 2 * 3 and "(1 of them)" in " ".join(document.sections[1].notes)


def test_p_and_the_corrected_p_each_stand_under_their_name(tmp_path: Path) -> None:
    # seven differences of one sign: p = 2/128, of three pairs three times that
    for seed in range(7):
        for model, said in (("GLAM", RIGHT), ("MACNN", HALF), ("AACNN", [[0, 0, 0, 0]])):
            make_run(tmp_path, said, LABELS, seed=seed, model=model)
    frame = report.named_table("comparison", report.runs(tmp_path), ["impro"])[0].sections[1].frame
    assert set(frame["p"]) == {"0.0156"} and set(frame["p (Holm)"]) == {"0.0469"}


def test_each_score_has_its_own_test(tmp_path: Path) -> None:
    # labels 0 0 0 1; all 0: WA 75, UA 50; 0 1 1 1: WA 50, UA 66.67
    for seed in range(6):
        for model, said in (("GLAM", [0, 0, 0, 0]), ("MACNN", [0, 1, 1, 1])):
            make_run(tmp_path, [said], [0, 0, 0, 1], seed=seed, model=model)
    frame = report.named_table("comparison", report.runs(tmp_path), ["impro"])[0].sections[1].frame
    assert frame[["Score", "Mean difference", "Verdict"]].to_numpy().tolist() == [
        ["WA", "−25.00", "GLAM is better"],
        ["UA", "+16.67", "MHCNN is better"],
    ]


def test_a_family_is_of_one_dataset_and_one_split(tmp_path: Path) -> None:
    """GLAM is better on impro, worse on script, and better again in the folds of one split alone."""
    for dataset, split, said in (("impro", "session", RIGHT), ("impro", "speaker", HALF), ("script", "session", HALF)):
        for fold in range(6):
            for model, own in (("GLAM", said), ("MACNN", RIGHT if said == HALF else HALF)):
                make_run(tmp_path, own, LABELS, model=model, dataset=dataset, split=split, fold=fold, folds=6,
                         val=(LABELS, RIGHT))  # fmt: skip
    document, _ = report.named_table("speaker_independent", report.runs(tmp_path), ["impro", "script"])
    tests, frame = document.numbers[document.numbers["kind"] == "comparison"], document.sections[1].frame
    assert set(tests["p_holm"]) == {2**-5} and set(tests["family"]) == {1}
    shown = frame[frame["Score"] == "UA"][["Dataset", "Split", "Verdict"]].to_numpy().tolist()
    assert shown == [
        ["impro", "session", "GLAM is better"],
        ["impro", "speaker", "MHCNN is better"],
        ["script", "session", "MHCNN is better"],
    ]


def test_a_mean_against_its_ranks_is_told(tmp_path: Path) -> None:
    """GLAM is a little worse in 19 seeds, and far better in one, where MACNN is always wrong."""
    for seed in range(20):
        make_run(tmp_path, [[0, 1] * 19 + [1, 0]], [0, 1] * 20, seed=seed)
        predicted = [0, 1] * 19 + [0, 0] if seed < 19 else [1, 0] * 20
        make_run(tmp_path, [predicted], [0, 1] * 20, seed=seed, model="MACNN")
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    _, tests = document.sections
    assert cell(tests.frame, "Verdict", Score="WA") == "ranks and mean disagree"
    assert any(note.startswith("“ranks and mean disagree”") for note in tests.notes)


def test_too_few_seeds_to_tell(tmp_path: Path) -> None:
    for seed in range(5):
        make_run(tmp_path, RIGHT, LABELS, seed=seed)
        make_run(tmp_path, [[0, 1, 0, 0, 0]], [*LABELS, 0], seed=seed, model="MACNN")  # shorter segments: another split
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    frame = document.sections[1].frame
    assert set(frame["Verdict"]) == {"n too small to tell"} and set(frame["Same split"]) == {"0 of 5"}


def test_two_models_are_compared_on_the_utterances_of_both(tmp_path: Path) -> None:
    """MACNN's longer segments drop u4, which GLAM has wrong; on the others they are alike."""
    for seed in range(6):
        make_run(tmp_path, [[0, 1, 0, 0, 1]], [*LABELS, 0], seed=seed)
        make_run(tmp_path, HALF, LABELS, seed=seed, model="MACNN")
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    scores, frame = (section.frame for section in document.sections)
    assert cell(scores, "WA", Model="GLAM", Source="ours").startswith("40.00")
    assert set(frame["Mean difference"]) == {"+0.00"} and set(frame["Same split"]) == {"0 of 6"}
    assert any("both are scored on those" in note for note in document.sections[1].notes)
    make_run(tmp_path, [[0, 0, 0, 0]], LABELS, seed=9, names=["u0", "u1", "u2", "other"])
    make_run(tmp_path, HALF, LABELS, seed=9, model="MACNN")  # neither contains the other: each on its own
    frame = report.named_table("comparison", report.runs(tmp_path), ["impro"])[0].sections[1].frame
    assert cell(frame, "Mean difference", Score="WA") == "+3.57"  # (50 - 25) / 7


def test_better_over_folds(tmp_path: Path) -> None:
    for seed, said in ((1, RIGHT), (2, HALF)):
        for fold in (0, 1):
            for model, predicted in (("GLAM", said), ("MACNN", HALF)):
                make_run(tmp_path, predicted, LABELS, model=model, split="session", seed=seed, fold=fold, folds=2,
                         val=(LABELS, RIGHT))  # fmt: skip
    document, _ = report.named_table("speaker_independent", report.runs(tmp_path), ["impro"])
    frame = document.sections[1].frame
    assert set(frame["n"]) == {"2 folds"} and set(frame["Same split"]) == {"4 of 4"}
    assert set(frame["Mean difference"]) == {"−25.00"}  # in each fold the mean of 50 - 100 and 50 - 50
    assert any("they are not independent" in note for note in document.sections[1].notes)


def test_ablations_are_tested_against_glam_alone(tmp_path: Path) -> None:
    for model in ("ResMultiConv3", "MACNN", "AACNN"):
        make_run(tmp_path, HALF, LABELS, model=model)
    assert len(report.named_table("ablation", report.runs(tmp_path))[0].sections) == 1, "there is no GLAM"
    make_run(tmp_path, HALF, LABELS)
    frame = report.named_table("ablation", report.runs(tmp_path))[0].sections[1].frame
    assert set(frame["Pair"]) == {f"GLAM against {other}" for other in ("Multi-scale", "MHCNN", "AACNN")}


# ------------------------------------------------------------------------------------------------ protocols


def test_protocols_say_what_choosing_on_the_test_set_is_worth(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_run(tmp_path, [RIGHT[0] * 2, HALF[0] * 2], **BOTH, seed=seed)
    fold_runs(tmp_path)
    document, _ = report.named_table("protocols", report.runs(tmp_path))
    assert re.findall(r"Rule (\w+):", document.caption[0]) == ["paper", "validation", "last"]
    frame = document.sections[0].frame
    assert cell(frame[frame["Model"] == "GLAM"], "WA", Split="8:2", Rule="paper").startswith("100.00 ± 0.00")
    assert cell(frame[frame["Model"] == "GLAM"], "WA", Split="8:2", Rule="last").startswith("50.00 ± 0.00")
    changes = frame[frame["Source"] == "change from 8:2, paper"]["WA"].tolist()
    # last: 50 - 100; 8:1:1: picked on four utterances, tested on four; session: 66.67 pooled
    assert changes[0] == "−50.00 [−50.00, −50.00]" and len(changes) == 3
    assert changes[2].startswith("−33.33 [−")
    numbers = document.numbers[(document.numbers["kind"] == "change") & (document.numbers["score"] == "WA")]
    assert numbers["mean"].tolist() == pytest.approx([-50, 0, -100 / 3])
    assert numbers["low"].tolist()[0] == -50 and set(numbers["other"]) == {"8:2, paper"}
    chain = "8:2, paper → 8:1:1, validation → session, validation"  # without the rule `last`
    assert f"GLAM on impro: WA and UA fall or stay all along {chain}." in document.sections[0].notes
    assert "8:2, paper $\\to$ 8:1:1, validation" in render.latex(document)  # as all that is not in Latin 1
    make_run(tmp_path, [HALF[0] * 2] * 2, **BOTH, dataset="script")
    frame = report.named_table("protocols", report.runs(tmp_path), ["impro", "script"])[0].numbers
    last = frame[(frame["kind"] == "change") & (frame["rule"] == "last") & (frame["score"] == "WA")]
    assert dict(zip(last["dataset"], last["mean"], strict=True)) == {"impro": -50, "script": 0}  # each from its own


def test_an_interval_is_shown_from_its_lower_end(tmp_path: Path) -> None:
    """Both speakers are right, and at last A alone is wrong: of two drawn both, one or none may be A."""
    make_run(tmp_path, [LABELS * 2, [1, 2, 3, 0, *LABELS]], **BOTH)
    frame = report.named_table("protocols", report.runs(tmp_path))[0].sections[0].frame
    assert cell(frame, "WA", Model="GLAM", Split="8:2", Rule="last") == "50.00 [0.00, 100.00]"
    at = frame.index[(frame["Model"] == "GLAM") & (frame["Rule"] == "last")][0] + 1
    assert (frame["Source"][at], frame["WA"][at]) == ("change from 8:2, paper", "−50.00 [−100.00, +0.00]")


def test_each_score_has_its_own_interval(tmp_path: Path) -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 3] * 6)
    make_run(tmp_path, guesses(1, labels, [0.8, 0.4]), labels, speakers=np.repeat([*"ABCDEF"], 8).tolist())
    document, rows = report.named_table("protocols", report.runs(tmp_path))
    paper, last = (row.counted for row in rows if row.spec.model == "GLAM" and row.spec.split == "8:2")
    assert paper and last
    interval, (change, of_change) = stats.interval(paper.confusions()), tables.change(paper, last)
    assert interval and of_change and len({*interval.low, *of_change.low, *change}) == 12
    for kind, rule, columns in (
        ("score", "paper", (paper.scores()[0], interval.low, interval.high)),
        ("change", "last", (change, of_change.low, of_change.high)),
    ):
        of = {"kind": kind, "rule": rule, "model": "GLAM", "split": "8:2"}
        own = document.numbers[(document.numbers[list(of)] == list(of.values())).all(axis=1)]
        assert own[["mean", "low", "high"]].to_numpy() == pytest.approx(np.stack(columns, 1))


def test_protocols_fall_on_each_dataset_by_itself(tmp_path: Path) -> None:
    for dataset, said in (("impro", [1, 2, 3, 0]), ("script", RIGHT[0])):
        make_run(tmp_path, [said], LABELS, dataset=dataset)
    notes = report.named_table("protocols", report.runs(tmp_path), ["impro", "script"])[0].sections[0].notes
    assert [note for note in notes if "WA and UA" in note or "rises" in note] == [
        f"GLAM on {dataset}: WA and UA fall or stay all along 8:2, paper → 8:1:1, validation."
        for dataset in ("impro", "script")
    ]


def test_protocols_say_when_scores_do_not_fall(tmp_path: Path) -> None:
    make_run(tmp_path, [[0, 0, 0, 0]], LABELS)  # WA and UA 25, and 0 in the half that is 8:1:1's test
    fold_runs(tmp_path)
    notes = report.named_table("protocols", report.runs(tmp_path))[0].sections[0].notes
    wa, ua = (f"rises by {by} from 8:1:1, validation to session, validation" for by in ("66.67", "62.50"))
    assert f"GLAM on impro does not fall along the row as may be expected: WA {wa}; UA {ua}." in notes


# -------------------------------------------------------------------------------------------------- formats


class Reader(HTMLParser):
    """Checks nesting and collects cells and what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "link", "br"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture
def document(tmp_path: Path) -> render.Document:
    for seed in range(6):
        make_run(tmp_path, RIGHT, LABELS, seed=seed)
        make_run(tmp_path, HALF, LABELS, seed=seed, model="MACNN")
    return report.named_table("comparison", report.runs(tmp_path), command="report.py --runs a_b&c<d> 50%")[0]


def test_csv_reads_back(document: render.Document) -> None:
    frame = pd.read_csv(io.StringIO(render.csv(document)))
    glam = frame[(frame["kind"] == "score") & (frame["dataset"] == "impro") & (frame["model"] == "GLAM")]
    assert glam["score"].tolist() == list(metrics.SCORES)
    assert glam["mean"].tolist() == [100] * 4 and glam["n"].tolist() == [6] * 4 and glam["folds"].isna().all()
    assert glam["difference"].tolist() == pytest.approx([100 - 81.18, 100 - 79.25, 100 - 79.87, 100 - 80.99])
    assert set(frame[frame["status"] == "missing"]["published_mean"].dropna()) >= {70.73, 62.53}
    test = frame[frame["kind"] == "comparison"]
    assert test["p"].tolist() == pytest.approx([2**-5] * 2) and set(test["verdict"]) == {"GLAM is better"}


def test_markdown_is_a_table(document: render.Document) -> None:
    text = render.markdown(document)
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 2
    for block in blocks:
        assert len({line.count("|") for line in block}) == 1 and set(block[1]) == {"|", "-"}
    odd = render.Document("t", [], [render.Section(pd.DataFrame({"a|b": ["x|y\nz"]}))], pd.DataFrame())
    assert "| a\\|b" in render.markdown(odd) and "x\\|y z" in render.markdown(odd)


def test_latex_keeps_commands_as_they_are_typed() -> None:
    said = render.latex_text("20 % – made with `report.py --set n_mfcc=13`, `a`.")
    assert said == r"20 \% -- made with \texttt{report.py -{}-set n\_mfcc=13}, \texttt{a}."


def test_latex_is_balanced(document: render.Document) -> None:
    text = render.latex(document)
    bare = re.sub(r"\\[{}%$&#_]", "", text)
    assert bare.count("{") == bare.count("}") and bare.count("$") % 2 == 0
    begun, ended = (re.findall(rf"\\{word}{{(\w+\*?)}}", text) for word in ("begin", "end"))
    assert sorted(begun) == sorted(ended) == ["table*", "table*", "tabular", "tabular"]
    for table in re.findall(r"\\toprule(.*?)\\bottomrule", text, re.S):
        rows = [re.sub(r"\\&", "", line) for line in table.splitlines() if line.endswith(r"\\")]
        assert len(rows) > 2 and len({row.count("&") for row in rows}) == 1
    assert not [character for character in text if ord(character) > 127 and character not in "“”é"]
    assert r"a\_b\&c\textless{}d\textgreater{} 50\%" in text
    assert r"$-$50.00" in text and r"81.18 $\pm$ 1.47" in text and "Two-sided Wilcoxon" in text
    assert "Dataset & Model & Source & WA & UA & macro F1 & weighted F1 & n & Utterances" in text


def test_html_is_one_page_that_loads_nothing(document: render.Document) -> None:
    document.images.append(render.Image("a “caption” <b>", b"<svg xmlns='http://www.w3.org/2000/svg'/>"))
    text = render.page(document)
    reader = Reader()
    reader.feed(text)
    assert not reader.open
    assert all(source.startswith("data:image/svg+xml;base64,") for source in reader.loads)
    assert "@import" not in text and "url(" not in text and "<script" not in text
    assert "prefers-color-scheme: dark" in text and "a_b&amp;c&lt;d&gt; 50%" in text
    assert reader.rows[0][:3] == ["Dataset", "Model", "Source"]
    assert any(row[1] == "GLAM" and row[3].startswith("100.00") for row in reader.rows)
    assert "Two-sided Wilcoxon" in text and 'class="synthetic"' not in text
    document.synthetic = True
    assert 'class="synthetic"' in render.page(document)


def test_an_interval_stands_on_a_line_of_its_own() -> None:
    said = render._cell("50.00 ± 1.00 [40.00, 60.00]")
    assert said == '<td>50.00 ± 1.00<span class="interval">[40.00, 60.00]</span></td>'


# -------------------------------------------------------------------------------------------------- errors


def worst(runs: Path, rule: str = "paper", most: int = 20) -> pd.DataFrame:
    return report.errors_document(report.runs(runs), rule, most, "").numbers


def test_utterances_most_often_wrong(tmp_path: Path) -> None:
    # u0 (neutral) wrong in all 3 seeds, u1 (sad) in 2, u2 (angry) in none, u3 (happy) in 1; u4 in the one that tests it
    for seed in (0, 1):
        make_run(tmp_path, [[2, 0, 2, 3]], LABELS, seed=seed)
    make_run(tmp_path, [[1, 1, 2, 0, 1]], [*LABELS, 0], seed=2)
    frame = worst(tmp_path)
    assert frame["name"].tolist() == ["u0", "u1", "u4", "u3"] and frame["wrong"].tolist() == [3, 2, 1, 1]
    first = frame.iloc[0]
    assert (first["tested"], first["speaker"], first["label"]) == (3, "A", "neutral")
    assert first["predictions"] == "angry 2, sad 1" and first["path"] == "Session1/sentences/wav/u0.wav"
    assert frame.iloc[1]["predictions"] == "neutral 2, sad 1"
    assert len(worst(tmp_path, most=2)) == 2
    document = report.errors_document(report.runs(tmp_path), "paper", 2, "")
    assert document.sections[0].heading == "GLAM on impro, 8:2: 2 of 4" and set(document.numbers["ever_wrong"]) == {4}


def test_errors_follow_the_rule_and_separate_models(tmp_path: Path) -> None:
    make_run(tmp_path, [RIGHT[0], HALF[0]], LABELS)
    make_run(tmp_path, [HALF[0], HALF[0]], LABELS, model="MACNN")
    assert worst(tmp_path, "paper")["model"].tolist() == ["MACNN"] * 2
    assert worst(tmp_path, "last")["model"].tolist() == ["GLAM"] * 2 + ["MACNN"] * 2
    make_run(tmp_path, HALF, LABELS, split="session", fold=0, folds=2, val=(LABELS, HALF))
    headings = [section.heading for section in report.errors_document(report.runs(tmp_path), "last", 9, "").sections]
    where = ("GLAM on impro, 8:2", "MACNN on impro, 8:2", "GLAM on impro, session")
    assert headings == [f"{each}: 2 of 2" for each in where]


def test_errors_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    make_run(tmp_path, HALF, LABELS, synthetic=True)
    make_run(tmp_path, RIGHT, LABELS, model="MACNN")
    assert call(monkeypatch, "--runs", tmp_path, "--errors", 1, "--format", "csv") == 0
    frame = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert frame[["model", "name", "wrong"]].to_numpy().tolist() == [["GLAM", "u2", 1]]
    call(monkeypatch, "--runs", tmp_path, "--errors")
    told = capsys.readouterr().out
    assert "### GLAM on impro, 8:2, SYNTHETIC" in told and "The 20 utterances most often wrong" in told
    call(monkeypatch, "--runs", tmp_path, "--errors", "--model", "MACNN")
    assert "most often wrong" in capsys.readouterr().out


def test_errors_of_a_fold_whose_others_are_missing(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, split="session", fold=0, folds=5, val=(LABELS, HALF))
    assert worst(tmp_path)["name"].tolist() == ["f0u2", "f0u3"]


def csv_run(root: Path, file: Path, digest: str = DIGEST, **more: Any) -> None:
    """A run of a CSV file, as train.py records it."""
    folder = make_run(root, RIGHT, LABELS, dataset=file.stem, corpus=file.stem, corpus_digest=digest, **more)
    run = read_json(folder / "config.json")
    write_json(folder / "config.json", {**run, "settings": {**run["settings"], "dataset": str(file)}})


def test_the_command_for_a_csvs_table_names_the_file(tmp_path: Path) -> None:
    for n, digest in enumerate(("aa" * 16, "bb" * 16)):
        csv_run(tmp_path, Path(f"/data{n}/mine.csv"), digest, settings={"epochs": 1}, seed=n)
    for n, digest in enumerate(("aa", "bb")):
        document, _ = report.named_table("comparison", report.runs(tmp_path), ["mine"], {"epochs": 1}, corpus=(digest,))
        command = f"sweep.py --table comparison --seeds 1 --datasets /data{n}/mine.csv"
        assert command in render.markdown(document)
    csv_run(tmp_path, Path("/data/other.csv"), settings={"epochs": 2})  # of which no row is made
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["mine", "other"], {"epochs": 1})
    assert re.search(r"--datasets /data\d/mine\.csv,/data/other\.csv ", render.markdown(document))


def test_another_csv_of_the_same_name_is_not_the_one_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    files = {name: tmp_path / name / "mine.csv" for name in ("a", "b", "copy")}
    for name, file in files.items():
        file.parent.mkdir()
        file.write_text("path,emotion\n" + ("b.wav,sad\n" if name == "b" else "a.wav,sad\n"))
    for seed, name in enumerate(("b", "a", "copy")):
        csv_run(tmp_path / "runs", files[name], f"{name[0] * 2}" * 16, seed=seed)
    words = ["--runs", tmp_path / "runs", "--format", "csv", "--rule", "last", "--dataset"]
    left = "1 run of {b}, another file of the same name, left out"
    both = f"{files['a']},{files['b']}"
    for asked, n, said in ((files["a"], 2, left), (both, 3, ""), ("mine", 3, ""), (tmp_path / "mine.csv", 3, "")):
        call(monkeypatch, *words, asked)
        told = capsys.readouterr()
        rows = pd.read_csv(io.StringIO(told.out))
        assert rows.loc[rows["score"] == "WA", "n"].sum() == n, asked
        assert said.format(**files) in told.err and bool(said) == bool(told.err)


# --------------------------------------------------------------------------------------------------- audit


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A run folder without a fault, of a split with validation."""
    return make_run(
        tmp_path, [HALF[0], RIGHT[0]], LABELS, split="8:1:1", val=(LABELS, [RIGHT[0], HALF[0]]), settings={"epochs": 2}
    )


def edit(file: Path, **changes: Any) -> None:
    write_json(file, {**read_json(file), **changes})


def edit_predictions(folder: Path, **changes: np.ndarray) -> None:
    with np.load(folder / "predictions.npz") as arrays:
        kept = dict(arrays)
    np.savez(folder / "predictions.npz", **{**kept, **changes})


def edit_epoch(folder: Path, epoch: int, part: str, **changes: Any) -> None:
    lines = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    lines[epoch][part] |= changes
    (folder / "epochs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


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
        "epochs.jsonl is not a run's record (it has 1 epochs, not those that config.json says)",
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


# -------------------------------------------------------------------------------------------- command line


def test_help_teaches(command) -> None:
    assert "--audit" in command("report.py", "--help").stdout


def test_an_empty_folder_says_what_to_run(tmp_path: Path) -> None:
    command = [sys.executable, "report.py", "--runs", str(tmp_path)]
    done = subprocess.run(command, cwd=Path(report.__file__).parent, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and "Traceback" not in done.stderr
    assert done.stderr.startswith(f"error: {tmp_path} holds no finished run") and "`bash run`" in done.stderr


def test_overview_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    make_run(tmp_path, HALF, LABELS, seed=1, synthetic=True, dataset="demo", settings={"batch_size": 16})
    make_run(tmp_path, HALF, LABELS, seed=2, done=False)
    make_run(tmp_path, RIGHT, LABELS, seed=3, model="MACNN")
    assert call(monkeypatch, "--runs", tmp_path) == 0
    out = capsys.readouterr().out
    assert "optimistic" in out and "demo (SYNTHETIC)" in out
    assert "1 unfinished run in the runs folder is not counted" in out
    call(monkeypatch, "--runs", tmp_path, "--dataset", "impro,demo", "--model", "MACNN", "--rule", "last")
    out = capsys.readouterr().out
    assert "demo" not in out.split("|", 1)[1] and "the last epoch" in out and "76.09" not in out
    call(monkeypatch, "--runs", tmp_path, "--set", "batch_size=16", "--format", "csv", "--output", tmp_path / "out.csv")
    frame = pd.read_csv(tmp_path / "out.csv")
    assert set(frame["dataset"]) == {"demo"} and set(frame["changed"]) == {"batch_size=16"} and frame["synthetic"].all()
    call(monkeypatch, "--runs", tmp_path, "--table", "comparison")
    assert "1 unfinished run in the runs folder is not counted" in capsys.readouterr().err


def test_overview_under_validation_reads_8_2_as_8_1_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path, RIGHT, LABELS)
    call(monkeypatch, "--runs", tmp_path, "--rule", "validation")
    out = capsys.readouterr().out
    assert "| 8:1:1 |" in out and "| 8:2 " not in out and "| 2 " in out
    call(monkeypatch, "--runs", tmp_path, "--split", "8:1:1,8:2")
    out = capsys.readouterr().out
    assert "| 8:1:1 |" in out and "| 8:2 " in out


def test_a_setting_that_is_a_list(tmp_path, monkeypatch, capsys):
    make_run(tmp_path, HALF, LABELS, dataset="emodb", settings={"classes": ("sad", "angry")})
    make_run(tmp_path, HALF, LABELS, dataset="emodb", seed=2)
    for words, rows in ((["--table", "comparison", "--dataset", "emodb"], 1), ([], 1)):
        call(monkeypatch, "--runs", tmp_path, *words, "--set", "classes=sad,angry")
        told = capsys.readouterr().out
        assert len([line for line in told.splitlines() if "50.0" in line]) == rows, told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rule", "validation", "--split", "8:2"], "8:2 has no validation part"),
        (["--dataset", "emodb"], "--dataset emodb: there is no finished run of it; there are impro"),
        (["--model", "MACNN"], "--model MACNN"),
        (["--split", "speaker"], "--split speaker"),
        (["--corpus", "ff"], "leave no finished run"),
        (["--set", "epochs=7"], "leave no finished run"),
        (["--set", "epochs"], "write SETTING=VALUE"),
        (["--set", "speed=7"], "--set speed=7: settings are recipe, feature"),
        (["--set", "epochs=ten"], "epochs is a whole number"),
        (["--set", "padding=1"], "padding is true or false"),
        (["--figure", "confusion", "--set", "model=GLAM"], "--set model: --dataset, --split and --model say which"),
        (["--table", "comparison", "--set", "seed=7"], "--set seed: --dataset, --split and --model say which"),
        (["--table", "comparison", "--split", "cross"], "two corpora"),
        (["--audit", "--model", "GLAM"], "--model does not go with --audit"),
        (["--audit", "--output", "audit.md"], "--output does not go with --audit"),
        (["--audit", "--format", "html"], "--format does not go with --audit"),
        (["--figure", "curves", "--format", "html"], "--format html: a figure is written as PDF and PNG"),
        (["--figure", "alpha", "--set", "alpha=0.3"], "--set alpha: the figure is of all values there are"),
        (["--audit", "--split", "speaker"], "no run folder to audit of these"),
        (
            ["--table", "comparison", "--model", "CNN_GAP"],
            "--models CNN_GAP: the rows of this table are of APCNN, MACNN",
        ),
        (["--table", "comparison", "--split", "9:1"], "--split 9:1: choose one of"),
        (["--table", "protocols", "--split", "session"], "comparison, ablation, alpha take another"),
        (["--table", "alpha", "--set", "alpha=0.4"], "rows of this table differ in alpha"),
        (["--table", "comparison", "--set", "speed=7"], "--set speed=7"),
        (["--table", "comparison", "--errors"], "goes with --audit only"),
        (["--set", "epochs=1", "--set", "epochs=2"], "--set epochs: given more than once"),
    ],
)
def test_what_cannot_be_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    make_run(tmp_path, RIGHT, LABELS)
    with pytest.raises(UserError, match=re.escape(said)):
        call(monkeypatch, "--runs", tmp_path, *arguments)


def test_a_table_of_some_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    make_run(tmp_path, RIGHT, LABELS)
    words = ("--runs", tmp_path, "--table", "comparison", "--dataset", "impro", "--model", "GLAM,MHCNN")
    assert call(monkeypatch, *words, "--format", "csv") == 0
    told = capsys.readouterr().out
    assert {row["model"] for row in csv.DictReader(told.splitlines())} == {"GLAM", "MACNN"}
    call(monkeypatch, *words)
    assert "--models GLAM,MACNN --runs" in capsys.readouterr().out  # of the command that trains what is missing


def test_without_a_rule_validation_data_choose_where_every_run_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    fold_runs(tmp_path)
    call(monkeypatch, "--runs", tmp_path)
    told = capsys.readouterr().out
    assert "Rule validation" in told and "66.67" in told
    make_run(tmp_path, RIGHT, LABELS)
    call(monkeypatch, "--runs", tmp_path)
    told = capsys.readouterr().out
    assert "Rule paper" in told and "100.00" in told and "On session this rule is no published one" in told
    call(monkeypatch, "--runs", tmp_path, "--split", "8:2")
    assert "no published one" not in capsys.readouterr().out


@pytest.mark.parametrize("labels", [{"happy": "hap+exc"}, {"classes": ("sad", "angry")}])
def test_of_two_corpora_of_one_name_the_published_labels_come_first(
    tmp_path: Path, capsys: Any, labels: dict[str, Any]
) -> None:
    make_run(tmp_path, RIGHT, LABELS, seed=1)
    for seed in (1, 2):
        make_run(tmp_path, HALF, LABELS, seed=seed, corpus_digest="aa" * 16, settings=labels)
    kept = records.choose_corpus(report.runs(tmp_path))
    assert [run.corpus_digest for run in kept] == [DIGEST]
    said = f"left out: aaaaaaaa (2; {recipes.settings_text(labels)}); --corpus DIGEST picks one"
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--model", "--dataset", "--split"])
def test_a_list_of_nothing_is_not_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any, flag: str
) -> None:
    make_run(tmp_path, RIGHT, LABELS)
    for value in ("", ","):  # as of a variable that a shell does not know
        with pytest.raises(SystemExit):
            call(monkeypatch, "--runs", tmp_path, flag, value)
        assert f"{value!r} names nothing; leave the flag out for the default" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("script", "flag", "some"),
    [(report, "--figure", "confusion"), (report, "--table", "comparison"), (sweep, "--table", "comparison")],
)
def test_a_figure_or_table_that_is_none_is_refused(script: Any, flag: str, some: str, capsys: Any) -> None:
    with pytest.raises(SystemExit):
        script.command_line().parse_args([flag, "nothing"])
    assert re.search(rf"{flag}: invalid choice: 'nothing' \(choose from .*{some}", capsys.readouterr().err)


def test_table_command_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path, RIGHT, LABELS)
    for kind in render.FORMATS:
        output = tmp_path / "out" / f"table.{kind}"
        assert call(monkeypatch, "--runs", tmp_path, "--table", "comparison", "--dataset", "impro", "--format", kind,
                    "--output", output) == 0  # fmt: skip
        assert "missing" in output.read_text()
    assert (tmp_path / "out" / "table.html").read_text().count("<img ") == 2  # confusion and curves
    assert capsys.readouterr().err == ""


def test_runs_with_other_settings_are_told_where_rows_are_missing(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_run(tmp_path, RIGHT, LABELS, seed=seed, settings={"epochs": len(RIGHT)})
    make_run(tmp_path, RIGHT, LABELS, model="MACNN")
    for name in ("comparison", "split811"):  # which is made of the same runs
        document, _ = report.named_table(name, report.runs(tmp_path), ["impro"])
        notes = " ".join(document.sections[0].notes)
        assert f"finished runs with other settings: epochs={len(RIGHT)} (2). `--set" in notes
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"], {"epochs": len(RIGHT)})
    assert "with other settings: as published (1)" in " ".join(document.sections[0].notes)


def test_what_is_not_known_of_published_figures_is_said(tmp_path: Path) -> None:
    make_run(tmp_path, RIGHT, LABELS)
    for name, said in (
        ("split811", "No code of the published 8:1:1"),
        ("comparison", ""),
        ("speaker_independent", "We know of no speaker-independent results of the paper's models."),
    ):
        document, _ = report.named_table(name, report.runs(tmp_path), ["impro"])
        caption = " ".join(document.caption)
        assert said in caption and ("our reading" in caption) == (name == "split811")


def test_a_change_draws_the_same_seeds_on_both_sides_where_they_are_the_same(tmp_path: Path) -> None:
    """Seeds that differ much, each falling by one utterance: drawn together, the fall is certain."""
    labels = np.arange(40) % 4
    for seed, right in enumerate((38, 28, 18) * 2, start=1):
        first, last = (np.where(np.arange(40) < n, labels, (labels + 1) % 4) for n in (right, right - 1))
        make_run(tmp_path, [first, last], labels, seed=seed, speakers=["A"] * 40)
    own, others = ([run for run in report.runs(tmp_path) if (run.seed > 3) == later] for later in (False, True))
    difference, interval = tables.change(records.Group(own, "paper"), records.Group(own, "last"))
    assert difference[0] == pytest.approx(-2.5)
    assert interval is not None and interval.low[0] == interval.high[0] == pytest.approx(-2.5)
    difference, interval = tables.change(records.Group(own, "paper"), records.Group(others, "last"))
    assert difference[0] == pytest.approx(-2.5)  # to other seeds, which are drawn apart
    assert interval is not None and interval.low[0] < -2.5 - 25 and interval.high[0] > -2.5 + 25


def test_a_change_has_no_interval_where_speakers_are_not_known(tmp_path: Path) -> None:
    labels = np.arange(40) % 4
    for seed in range(6):
        first, last = (np.where(np.arange(40) < n + seed, labels, (labels + 1) % 4) for n in (30, 20))
        make_run(tmp_path, [first, last], labels, seed=seed, speakers=["A"] * 39 + [""])
    found = report.runs(tmp_path)
    difference, interval = tables.change(records.Group(found, "paper"), records.Group(found, "last"))
    assert difference[0] == pytest.approx(-25) and interval is None


def test_a_row_that_stays_empty_is_told_of_only_where_one_is_empty(tmp_path: Path) -> None:
    for fold in (0, 1):
        make_run(tmp_path, RIGHT, LABELS, split="speaker", fold=fold, folds=10)
    for model, said in (("GLAM", False), ("MACNN", True)):
        spec = tables.RowSpec(model, model, "speaker", "last", dataset="impro")
        notes = " ".join(captions.notes_of(tables.find([spec], report.runs(tmp_path)), "python sweep.py"))
        assert "trains what is missing (1 of 1 rows)" in notes and ("a row stays empty" in notes) == said


def test_p_is_shown_with_four_digits(tmp_path: Path) -> None:
    """Of n equal differences p is 2 / 2^n: 0.000122 of 14, 0.000061 of 15."""
    for n, seen in ((14, "0.0001"), (15, "<0.0001")):
        root = tmp_path / str(n)
        for seed in range(n):
            make_run(root, [LABELS], LABELS, seed=seed)
            make_run(root, [[(label + 1) % 4 for label in LABELS]], LABELS, seed=seed, model="MACNN")
        document, _ = report.named_table("comparison", report.runs(root), ["impro"])
        frame = document.sections[1].frame
        assert frame.loc[frame["Pair"] == "MHCNN against GLAM", "p"].iloc[0] == seen


def test_an_empty_folder_is_no_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path, RIGHT, LABELS)
    (folder.parent / "77").mkdir()  # as git leaves it
    assert records.folders(tmp_path) == [folder] and records.unfinished(tmp_path) == 0


def test_folds_of_two_models_are_paired_only_if_they_have_the_same_speakers(tmp_path: Path) -> None:
    """Longer segments drop every utterance of S0: MACNN's fold k is GLAM's fold k + 1, and both are equally good."""
    labels = [0, 1] * 5
    for k in range(7):
        predicted = [[label if i < 4 + k else 1 - label for i, label in enumerate(labels)]]
        for model, fold, folds in (("GLAM", k, 7), ("MACNN", k - 1, 6)):
            if fold >= 0:
                make_run(tmp_path, predicted, labels, model=model, dataset="mine", corpus="mine", split="speaker",
                         fold=fold, folds=folds, val=([0, 1], [[0, 1]]), speakers=[f"S{k}"] * 10,
                         names=[f"S{k}u{i}" for i in range(10)], classes=["a", "b"])  # fmt: skip
    document, _ = report.named_table("speaker_independent", report.runs(tmp_path), ["mine"], {})
    tests = document.numbers[document.numbers["kind"] == "comparison"]
    assert len(tests) and set(tests["shared"]) == {0} and not tests["p"].notna().any()


@pytest.mark.parametrize("name", ["split811", "protocols"])
def test_a_run_whose_split_is_damaged_is_left_out_of_a_table(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for seed in (1, 2):
        folder = make_run(tmp_path, [LABELS * 2], **BOTH, seed=seed, settings={"epochs": 1})
    (folder / "split.json").write_text("{")
    document, _ = report.named_table(name, report.runs(tmp_path), ["impro"], {"epochs": 1})
    rows = document.numbers
    ours = rows[(rows["kind"] == "score") & (rows["split"] == "8:1:1") & (rows["model"] == "GLAM")]
    assert set(ours["n"]) == {1} and f"{folder / 'split.json'} cannot be read" in capsys.readouterr().err


def test_a_run_with_one_test_utterance_is_not_halved(tmp_path: Path) -> None:
    make_run(tmp_path, [[0]], [0], dataset="mine", corpus="mine")
    make_run(tmp_path, RIGHT, LABELS)
    found = records.with_derived(report.runs(tmp_path))
    assert [(run.dataset, run.split) for run in found] == [("impro", "8:2"), ("mine", "8:2"), ("impro", "8:1:1")]


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


def test_settings_that_differ_in_the_eighth_digit_are_two_rows(tmp_path: Path) -> None:
    for seed, rate in ((1, 0.00123456701), (2, 0.00123456702)):
        make_run(tmp_path, RIGHT, LABELS, seed=seed, settings={"learning_rate": rate})
    assert report.table(report.runs(tmp_path))["Changed"].tolist() == [
        f"learning_rate={rate}" for rate in ("0.00123456701", "0.00123456702")
    ]


def test_a_table_says_the_same_of_a_csv_by_its_path_and_by_its_name(tmp_path: Path) -> None:
    for fold in range(3):
        make_run(tmp_path, [LABELS], LABELS, dataset="mine", corpus="mine", split="speaker", fold=fold, folds=3,
                 val=(LABELS, [LABELS]))  # fmt: skip
    said = [
        render.markdown(report.named_table("speaker_independent", report.runs(tmp_path), [name], {})[0])
        for name in ("mine", "/data/mine.csv")
    ]
    assert "has been published" not in said[0] and "has been published" not in said[1]


def test_errors_in_latex_have_the_rule_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path, HALF, LABELS)
    make_run(tmp_path, HALF, LABELS, model="MACNN")
    call(monkeypatch, "--runs", tmp_path, "--errors", "--format", "latex")
    out = capsys.readouterr().out
    assert out.count("Rule paper") == 1 and out.count("report.py") == 1
    assert out.index("Rule paper") < out.index("GLAM on impro") < out.index("MACNN on impro")


def test_a_model_is_found_by_its_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path, HALF, LABELS, model="MACNN")
    make_run(tmp_path, RIGHT, LABELS)
    rows = []
    for name in ("MACNN", "MHCNN"):
        assert call(monkeypatch, "--runs", tmp_path, "--model", name, "--rule", "last", "--format", "csv") == 0
        rows.append(capsys.readouterr().out)
    assert rows[0] == rows[1] and "MACNN" in rows[0] and "GLAM" not in rows[0]
    with pytest.raises(UserError, match="--model NoSuch: there is no finished run of it; there are GLAM, MACNN"):
        call(monkeypatch, "--runs", tmp_path, "--model", "NoSuch")


def test_errors_of_two_corpora_of_one_name_are_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path, HALF, LABELS, dataset="mine", corpus="mine")
    make_run(tmp_path, [[1, 1, 2, 0]], LABELS, dataset="mine", corpus="mine", corpus_digest="ab" * 16, seed=2)
    call(monkeypatch, "--runs", tmp_path, "--errors")
    out = capsys.readouterr().out
    assert "### GLAM on mine abababab, 8:2" in out and f"### GLAM on mine {DIGEST[:8]}, 8:2" in out


def test_the_audit_of_8_1_1_looks_at_the_runs_it_is_made_of(tmp_path: Path) -> None:
    make_run(tmp_path, RIGHT, LABELS, settings={"epochs": 1})
    assert audit.check_folders(tmp_path, splits=["8:1:1"]) == 0
    with pytest.raises(UserError, match="no run folder to audit"):
        audit.check_folders(tmp_path, splits=["session"])


@pytest.mark.parametrize(
    "words", [["--errors"], [], ["--audit"], ["--figure", "alpha"], ["--errors", "broken"]], ids=" ".join
)
def test_names_do_not_command_the_terminal(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """A colour, a window's title, a carriage return and a text that runs from right to left."""
    ugly = "\x1b[31m\x1b]0;x\a\r\u202e"
    names = [f"{ugly}{i}" for i in range(4)]
    folder = make_run(tmp_path, HALF, LABELS, dataset=f"mine{ugly}", corpus="mine", names=names)
    if "broken" in words:
        (folder / "predictions.npz").write_bytes(b"")
    words = [word for word in words if word != "broken"]
    with pytest.raises(SystemExit):
        cli.run_main(lambda: report.main(["--runs", str(tmp_path), *words]))
    told = "".join(capsys.readouterr())
    assert r"mine\x1b[31m\x1b]0;x\x07\r\u202e" in told.replace("\\\\", "\\"), "Markdown doubles a backslash"
    assert not {*"\x1b\a\r\u202e"} & {*told}
