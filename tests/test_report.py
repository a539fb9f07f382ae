"""The table of what there is, the utterances most often wrong, and the command line."""

import csv
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_runs import (
    DIGEST,
    HALF,
    LABELS,
    RIGHT,
    call,
    cell,
    csv_run,
    fold_runs,
    make_run,
    worst,
)

import cli
import grouping
import metrics
import recipes
import render
import report
import sweep
from cli import UserError

pytestmark = pytest.mark.usefixtures("two_speakers_will_do")  # made runs have no more


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
    make_run(tmp_path, [LABELS * 2], LABELS * 2, seed=1)
    make_run(tmp_path, [[0] * 7], [0] * 7, seed=2)
    frame = report.table(report.runs(tmp_path))
    assert frame["Utterances"].tolist() == ["7–8"] and frame["Splits"].iloc[0].endswith(" of 2")


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


def test_settings_corpora_and_synthetic_data_are_not_mixed(tmp_path: Path) -> None:
    make_run(tmp_path, RIGHT, LABELS, seed=1)
    make_run(tmp_path, HALF, LABELS, seed=2, settings={"epochs": 1})
    make_run(tmp_path, HALF, LABELS, seed=3, corpus_digest="aa" * 16, synthetic=True, corpus="synthetic")
    frame = report.table(report.runs(tmp_path))
    assert frame["n"].tolist() == ["1", "1", "1"]
    assert set(frame["Dataset"]) == {f"impro {DIGEST[:8]}", "impro aaaaaaaa (SYNTHETIC)"}
    assert set(frame["Changed"]) == {"–", "epochs=1"}


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
    group = grouping.Group(report.runs(tmp_path), "validation")
    parts = [(run.predictions("test"), run.pick("validation")) for run in group.runs]
    logits = np.concatenate([part.logits[epoch] for part, epoch in parts])
    scores = metrics.scores(logits, np.concatenate([part.labels for part, _ in parts]))
    assert group.scores()[0] == pytest.approx([scores[name] for name in metrics.SCORES])


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


def test_nothing_but_broken_records(tmp_path: Path) -> None:
    folder = make_run(tmp_path, HALF, LABELS)
    (folder / "epochs.jsonl").write_text("")
    with pytest.raises(UserError, match="every one of these runs is broken"):
        report.table(report.runs(tmp_path))


def test_settings_that_differ_in_the_eighth_digit_are_two_rows(tmp_path: Path) -> None:
    for seed, rate in ((1, 0.00123456701), (2, 0.00123456702)):
        make_run(tmp_path, RIGHT, LABELS, seed=seed, settings={"learning_rate": rate})
    assert report.table(report.runs(tmp_path))["Changed"].tolist() == [
        f"learning_rate={rate}" for rate in ("0.00123456701", "0.00123456702")
    ]


# --------------------------------------------------------------------------------------------------- errors


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
    assert document.sections[0].heading == "GLAM on impro, 8:2, rule paper: 2 of 4" and set(
        document.numbers["ever_wrong"]
    ) == {4}


def test_errors_follow_the_rule_and_separate_models(tmp_path: Path) -> None:
    make_run(tmp_path, [RIGHT[0], HALF[0]], LABELS)
    make_run(tmp_path, [HALF[0], HALF[0]], LABELS, model="MACNN")
    assert worst(tmp_path, "paper")["model"].tolist() == ["MACNN"] * 2
    assert worst(tmp_path, "last")["model"].tolist() == ["GLAM"] * 2 + ["MACNN"] * 2
    make_run(tmp_path, HALF, LABELS, split="session", fold=0, folds=2, val=(LABELS, HALF))
    headings = [section.heading for section in report.errors_document(report.runs(tmp_path), "last", 9, "").sections]
    where = ("GLAM on impro, 8:2", "MACNN on impro, 8:2", "GLAM on impro, session")
    assert headings == [f"{each}, rule last: 2 of 2" for each in where]


def test_errors_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    make_run(tmp_path, HALF, LABELS, synthetic=True)
    make_run(tmp_path, RIGHT, LABELS, model="MACNN")
    assert call(monkeypatch, "--runs", tmp_path, "--errors", 1, "--format", "csv") == 0
    frame = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert frame[["model", "name", "wrong"]].to_numpy().tolist() == [["GLAM", "u2", 1]]
    call(monkeypatch, "--runs", tmp_path, "--errors")
    told = capsys.readouterr().out
    assert "### GLAM on impro, 8:2, rule paper, SYNTHETIC" in told and "The 20 utterances most often wrong" in told
    call(monkeypatch, "--runs", tmp_path, "--errors", "--model", "MACNN")
    assert "most often wrong" in capsys.readouterr().out


def test_errors_of_a_fold_whose_others_are_missing(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, split="session", fold=0, folds=5, val=(LABELS, HALF))
    assert worst(tmp_path)["name"].tolist() == ["f0u2", "f0u3"]


def test_errors_in_latex_have_the_rule_and_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path, HALF, LABELS)
    make_run(tmp_path, HALF, LABELS, model="MACNN")
    call(monkeypatch, "--runs", tmp_path, "--errors", "--format", "latex")
    out = capsys.readouterr().out
    assert out.count("Rule paper") == 1 and out.count("report.py") == 1
    assert out.index("Rule paper") < out.index("GLAM on impro") < out.index("MACNN on impro")


def test_errors_of_two_corpora_of_one_name_are_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    make_run(tmp_path, HALF, LABELS, dataset="mine", corpus="mine")
    make_run(tmp_path, [[1, 1, 2, 0]], LABELS, dataset="mine", corpus="mine", corpus_digest="ab" * 16, seed=2)
    call(monkeypatch, "--runs", tmp_path, "--errors")
    out = capsys.readouterr().out
    assert "### GLAM on mine abababab, 8:2" in out and f"### GLAM on mine {DIGEST[:8]}, 8:2" in out


# --------------------------------------------------------------------------------------------- command line


def test_a_file_is_written_as_its_name_says(tmp_path: Path) -> None:
    make_run(tmp_path / "runs", HALF, LABELS)
    for name, head in (("a.html", "<!doctype html>"), ("a.csv", "dataset,"), ("a.tex", "%"), ("a.md", "##")):
        assert report.main(["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / name)]) == 0
        assert (tmp_path / name).read_text().lower().startswith(head), name
    with pytest.raises(UserError, match=r"--output .*a.docx: end it in .md, .csv, .html, .tex, or say which with"):
        report.main(["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "a.docx")])
    words = ["--runs", str(tmp_path / "runs"), "--output", str(tmp_path / "a.txt"), "--format", "csv"]
    assert report.main(words) == 0 and (tmp_path / "a.txt").read_text().startswith("dataset,")


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


def test_without_a_rule_validation_data_choose_wherever_there_are_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Also beside runs that have none: one run of 8:2 must not have all others reported by their test utterances."""
    fold_runs(tmp_path)
    call(monkeypatch, "--runs", tmp_path)
    told = capsys.readouterr().out
    assert "Rule validation" in told and "66.67" in told and "| Rule" not in told
    make_run(tmp_path, [HALF[0], RIGHT[0]], LABELS)
    call(monkeypatch, "--runs", tmp_path)
    told = capsys.readouterr().out
    assert "Rule paper" in told and "Rule validation" in told and "no published one" not in told
    rows = [[cell.strip() for cell in line.split("|")] for line in told.splitlines() if "GLAM" in line]
    assert [row[2:4] for row in rows] == [["8:2", "paper"], ["session", "validation"], ["session", "validation"]]
    assert "100.00" in rows[0] and "66.67" in rows[1]
    call(monkeypatch, "--runs", tmp_path, "--format", "csv")
    numbers = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert dict(zip(numbers["split"], numbers["rule"], strict=True)) == {"8:2": "paper", "session": "validation"}
    call(monkeypatch, "--runs", tmp_path, "--errors")
    told = capsys.readouterr().out
    assert "Rule validation" in told and "session, rule validation: " in told
    call(monkeypatch, "--runs", tmp_path, "--rule", "paper")
    assert "On session this rule is no published one" in capsys.readouterr().out


@pytest.mark.parametrize("labels", [{"happy": "hap+exc"}, {"classes": ("sad", "angry")}])
def test_of_two_corpora_of_one_name_the_published_labels_come_first(
    tmp_path: Path, capsys: Any, labels: dict[str, Any]
) -> None:
    make_run(tmp_path, RIGHT, LABELS, seed=1)
    for seed in (1, 2):
        make_run(tmp_path, HALF, LABELS, seed=seed, corpus_digest="aa" * 16, settings=labels)
    kept = grouping.choose_corpus(report.runs(tmp_path))
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
