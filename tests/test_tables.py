"""Tables by name from run folders made by hand, whose answers can be worked out on paper, and what is said of them."""

import itertools
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_runs import BOTH, DIGEST, HALF, LABELS, RIGHT, call, cell, csv_run, fold_runs, guesses, make_run

import captions
import data
import grouping
import recipes
import records
import render
import report
import stats
import tables
from cli import UserError
from files import digest_file

pytestmark = pytest.mark.usefixtures("two_speakers_will_do")  # made runs have no more


# ----------------------------------------------------------------------------------------------------- rows


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
    # means of two seeds, UA 50 and 100, F1 37.5 (mean of 50, 100, 0, 0) and 100; each minus its own published figure
    others = [frame[column][at : at + 3].tolist() for column in ("UA", "macro F1", "weighted F1")]
    assert [(ours.split()[0], *more) for ours, *more in others] == [
        ("75.00", "79.25 ± 1.88", "−4.25"),
        ("68.75", "79.87 ± 1.64", "−11.12"),
        ("68.75", "80.99 ± 1.50", "−12.24"),
    ]
    assert (frame["Utterances"][at], frame["Speakers"][at]) == ("8", "2")
    assert frame["Splits"][at] == only_digest(tmp_path)[:8]  # both seeds list the same names here
    assert cell(frame[frame["Dataset"] == "impro"], "Source", Model="MHCNN (MACNN)") == "missing"
    published = document.numbers.loc[document.numbers["n"] > 0, ["published_mean", "published_sd"]]
    assert published.to_numpy().tolist()[1] == [79.25, 1.88]
    text = " ".join(document.caption)
    assert "optimistic" in text and "Split 8:2" in text and "speakers" in text and "Published: Zhu and Li" in text
    assert re.findall(r"Rule (\w+):", text) == ["paper"] and "no published one" not in text
    assert f"impro: corpus IEMOCAP, digest {DIGEST[:8]}; as its owner says." in document.caption


def only_digest(root: Path) -> str:
    """The one split digest of the runs under a folder."""
    (digest,) = {run.split_digest for run in report.runs(root)}
    return digest


def test_mfccs_as_librosa_computed_them_then_have_published_figures_too(tmp_path: Path) -> None:
    for model in ("GLAM", "MACNN", "APCNN"):
        make_run(tmp_path, HALF, LABELS, model=model, settings={"feature": "mfcc_reflect"})
    settings = {"feature": "mfcc_reflect"}
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"], settings)
    frame = document.sections[0].frame
    published = {name: frame["WA"][i + 1] for i, name in enumerate(frame["Model"]) if frame["Source"][i] == "ours"}
    assert published.pop("GLAM") == "81.18 ± 1.47" and published.pop("MHCNN (MACNN)") == "76.09 ± 2.01"
    assert list(published) == ["APCNN"]  # published with spectrograms
    assert (frame["Source"] == "published").sum() == 2


def test_other_corpora_have_no_published_figures(tmp_path: Path) -> None:
    make_run(tmp_path, HALF, LABELS, dataset="emodb", corpus="EMO-DB")
    fold_runs(tmp_path, dataset="emodb", corpus="EMO-DB")
    for name, rows in (("comparison", 4), ("split811", 4), ("speaker_independent", 8 + 1)):  # folds take two lines
        document, _ = report.named_table(name, report.runs(tmp_path), ["emodb"])
        assert not {"published", "ours − published"} & set(document.sections[0].frame["Source"])
        assert len(document.sections[0].frame) == rows
        caption = " ".join(document.caption)
        assert not re.search("Published:|of the published 8:1:1|We know of no speaker-independent", caption)


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
    for model in ("GLAM", "MACNN"):
        make_run(tmp_path, HALF, LABELS, synthetic=True, corpus="synthetic", model=model)
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    frame = document.sections[0].frame
    assert cell(frame, "WA", Model="GLAM", Source="ours SYNTHETIC").startswith("50.00")
    assert set(document.sections[1].frame["Dataset"]) == {"impro (SYNTHETIC)"}
    assert set(frame["Source"]) == {"missing", "ours SYNTHETIC"}  # the published are of another corpus in every row
    own = document.numbers[(document.numbers["n"] > 0) & (document.numbers["kind"] == "score")]
    assert own["synthetic"].all() and set(own["corpus"]) == {"synthetic"} and set(own["corpus_digest"]) == {DIGEST}
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

    assert shown("") == ("ours", "2")  # of real corpora before synthetic ones, that with most runs
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
    make_run(tmp_path, HALF, LABELS, seed=1, settings={"threads": 1})  # a folder of its own, the same numbers
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    assert cell(document.sections[0].frame, "n", Source="ours") == "1"
    said = "1 run repeats a seed (with another device, --threads or --deterministic than most runs, or in a second "
    said += "folder) and is not counted again."
    assert said in document.sections[0].notes
    assert said in report.named_table("protocols", report.runs(tmp_path))[0].sections[0].notes  # three rows of one run
    assert said in report.overview(report.runs(tmp_path), "paper", 0, "").caption
    assert report.overview(report.runs(tmp_path)[:1], "paper", 0, "").caption[1:] == ["Made with ``."]


def test_runs_from_before_and_after_a_recipe_was_edited_are_told_of(tmp_path: Path, monkeypatch, capsys) -> None:
    old = make_run(tmp_path, HALF, LABELS, seed=1).parent
    make_run(tmp_path, HALF, LABELS, seed=2, settings={"threads": 1})
    report.named_table("comparison", report.runs(tmp_path), ["impro"])
    assert "recipe" not in capsys.readouterr().err
    monkeypatch.setitem(recipes.RECIPES, "GLAM", replace(recipes.GLAM, learning_rate=3e-4))
    new = make_run(tmp_path, HALF, LABELS, seed=3).parent
    report.named_table("comparison", report.runs(tmp_path), ["impro"])
    said = capsys.readouterr().err
    assert "by different recipes of GLAM, as recipes.py has changed; keep the runs of one of" in said
    assert str(old) in said and str(new) in said


@pytest.mark.parametrize("most", [2, 3])
def test_of_two_machines_the_one_with_most_runs_counts(tmp_path: Path, most: int) -> None:
    for seed in (1, 2, 3):
        for threads, said in ((1, HALF), (2, RIGHT), (3, HALF)):
            if threads == most or seed == 1:
                make_run(tmp_path, said, LABELS, seed=seed, settings={"threads": threads})
    (group,) = grouping.group_by_setting(report.runs(tmp_path), "paper")
    assert len(group.repeats) == 2
    assert group.scores()[:, 0].tolist() == [100 if most == 2 else 50] * 3
    (note, *_) = report.named_table("comparison", report.runs(tmp_path), ["impro"])[0].sections[0].notes
    assert ("--threads 3 " in note, "--threads" in note) == (most == 3, most == 3)  # 2 is the default, and left out


def test_of_machines_with_equally_many_runs_the_same_counts_in_whatever_order_they_are_read(tmp_path: Path) -> None:
    for threads, said in ((1, HALF), (2, RIGHT)):
        make_run(tmp_path, said, LABELS, settings={"threads": threads})
    found = report.runs(tmp_path)
    assert [grouping.Group(order, "paper").scores()[0, 0] for order in (found, found[::-1])] == [50, 50]


def test_seeds_that_are_none_of_the_published_are_told(tmp_path: Path) -> None:
    for seed in (2602656884, 987654):
        make_run(tmp_path, HALF, LABELS, seed=seed)
    make_run(tmp_path, HALF, LABELS, seed=987654, model="MACNN")
    make_run(tmp_path, HALF, LABELS, seed=2602656884, model="AACNN")
    for dataset in ("impro", "emodb"):
        make_run(tmp_path, HALF, LABELS, seed=5, model="APCNN", dataset=dataset)
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro", "emodb"])
    assert [note for note in document.sections[0].notes if "the published 100" in note] == [
        "APCNN on impro, 8:2: no seed is of the published 100: 5.",
        "MHCNN (MACNN) on impro, 8:2: no seed is of the published 100: 987654.",
        "GLAM on impro, 8:2: seeds that are not of the published 100 are counted too: 987654.",
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
    said = "the interval resamples speakers (one seed), and leaves out how much another seed would change"
    assert f"GLAM on impro, 8:2: {said}" in notes
    assert (
        "MHCNN (MACNN) on impro, 8:2: no interval, as there is one speaker, and there are fewer than 2 seeds" in notes
    )
    assert "APCNN on impro, 8:2: no interval, as most draws of speakers lack a class" in notes
    make_run(tmp_path, [HALF[0] * 2], LABELS * 2, model="AACNN", speakers=[*"AAAABBB", ""])
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    assert "AACNN on impro, 8:2: no interval, as speakers are not known" in "\n".join(document.sections[0].notes)
    assert cell(document.sections[0].frame, "Speakers", Model="AACNN") == "–"
    make_run(tmp_path, HALF, LABELS, seed=2, model="MACNN", speakers=["A"] * 4)
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    said = "the interval resamples seeds (one speaker), and leaves out how much another speaker would change"
    assert f"MHCNN (MACNN) on impro, 8:2: {said}" in "\n".join(document.sections[0].notes)
    # A and B are each right two times in four, so every draw of two speakers has WA 50
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
        "GLAM on impro, 8:2: 1 of 3 test sets lack a class, and their UA is the mean over the other classes"
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
    said = "the interval resamples speakers (one seed), and leaves out how much another seed would change"

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


def test_runs_with_other_settings_are_told_where_rows_are_missing(tmp_path: Path) -> None:
    for seed in (1, 2):
        make_run(tmp_path, RIGHT, LABELS, seed=seed, settings={"epochs": len(RIGHT)})
    make_run(tmp_path, RIGHT, LABELS, model="MACNN")
    for name in ("comparison", "split811"):  # split811 reads the same runs
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


def test_a_row_that_stays_empty_is_told_of_only_where_one_is_empty(tmp_path: Path) -> None:
    for fold in (0, 1):
        make_run(tmp_path, RIGHT, LABELS, split="speaker", fold=fold, folds=10)
    for model, said in (("GLAM", False), ("MACNN", True)):
        spec = tables.RowSpec(model, model, "speaker", "last", dataset="impro")
        notes = " ".join(captions.notes_of(tables.find([spec], report.runs(tmp_path)), "python sweep.py"))
        assert "trains what is missing (1 of 1 rows)" in notes and ("A row stays empty" in notes) == said


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


def test_a_table_says_the_same_of_a_csv_by_its_path_and_by_its_name(tmp_path: Path) -> None:
    for fold in range(3):
        make_run(tmp_path, [LABELS], LABELS, dataset="mine", corpus="mine", split="speaker", fold=fold, folds=3,
                 val=(LABELS, [LABELS]))  # fmt: skip
    said = [
        render.csv(report.named_table("speaker_independent", report.runs(tmp_path), [name], {})[0])
        for name in ("mine", "/data/mine.csv")
    ]
    assert said[0] == said[1].replace("/data/mine.csv", "mine") and "pooled,100.0" in said[0]


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


def test_published_numbers_are_the_papers() -> None:
    assert len(tables.published()) == 12 + 3 + 6 + 9  # comparison; the ablation's own; alpha's own; 8:1:1
    assert tables.published()["8:1:1", "script", "APCNN", ""]["macroF1"] == (48.14, 4.27)
    assert digest_file(Path(report.__file__).parent / "results" / "published.csv") == "7120cba6dd88c11b284f390115cfe78d"


def test_a_row_with_incomplete_rounds_alone_has_no_figures(tmp_path: Path) -> None:
    fold_runs(tmp_path, folds=(1,))
    document, _ = report.named_table("speaker_independent", report.runs(tmp_path), ["impro"])
    frame = document.sections[0].frame
    row = frame[(frame["Model"] == "GLAM") & (frame["Split"] == "session")]
    assert row["Source"].tolist() == ["incomplete: seed 1 has 1 of 2 folds"] and row["WA"].tolist() == [""]
    assert any("trains what is missing (8 of 8 rows)" in note for note in document.sections[0].notes)


def test_tables_leave_broken_records_out(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = make_run(tmp_path, HALF, LABELS, seed=1)
    make_run(tmp_path, RIGHT, LABELS, seed=2)
    (folder / "predictions.npz").write_bytes(b"")
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    assert cell(document.sections[0].frame, "WA", Model="GLAM", Source="ours").startswith("100.00")
    assert capsys.readouterr().err.count(str(folder)) == 1


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


# ------------------------------------------------------------------------------------------ which is better


def test_better_over_seeds(tmp_path: Path) -> None:
    for seed in range(6):
        make_run(tmp_path, RIGHT, LABELS, seed=seed)
        make_run(tmp_path, HALF, LABELS, seed=seed, model="MACNN")
    make_run(tmp_path, HALF, LABELS, seed=9, model="MACNN")  # only MACNN has this seed
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    frame = document.sections[1].frame
    # six differences of +50 give p = 2/64; the family has no other pair
    assert cell(frame, "Verdict", Score="WA") == "GLAM is better"
    assert cell(frame, "p", Score="WA") == "0.0312" and cell(frame, "n", Score="WA") == "6 seeds"
    assert cell(frame, "Mean difference", Score="UA") == "−50.00"  # MHCNN against GLAM
    assert cell(frame, "Same split", Score="WA") == "6 of 6"
    unsaid = "not independent|ranks and mean disagree|without the same split"  # notes for folds and other pairs
    assert not any(re.search(unsaid, note) for note in document.sections[1].notes)
    make_run(tmp_path, HALF, LABELS, seed=0, model="APCNN")  # two more pairs, each of one seed: too few to be tested
    document, _ = report.named_table("comparison", report.runs(tmp_path), ["impro"])
    assert len(document.sections[1].frame) == 2 * 3 and "(1 of them)" in " ".join(document.sections[1].notes)
    assert set(document.sections[1].frame["n"]) == {"6 seeds", "1 seed"}


def test_p_and_the_corrected_p_each_stand_under_their_name(tmp_path: Path) -> None:
    # seven differences of one sign give p = 2/128, and Holm's correction for three pairs gives three times that
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
    assert set(tests["p_holm"]) == {2**-5} and set(tests["family"]) == {1} and set(tests["rule"]) == {"validation"}
    assert set(tests["label"]) == {"MHCNN"} and set(tests["model"]) == {"MACNN"} and set(tests["other"]) == {"GLAM"}
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
    assert any("both are scored on the other’s" in note for note in document.sections[1].notes)
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


# ------------------------------------------------------------------------------------------------ protocols


def test_protocols_say_what_choosing_on_the_test_set_is_worth(tmp_path: Path) -> None:
    fold_runs(tmp_path)
    document, _ = report.named_table("protocols", report.runs(tmp_path))
    assert set(document.numbers["kind"]) == {"score"}, "there is no first protocol yet to change from"
    for seed in (1, 2):
        make_run(tmp_path, [RIGHT[0] * 2, HALF[0] * 2], **BOTH, seed=seed)
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
    assert f"GLAM on impro: WA and UA never rise along {chain}." in document.sections[0].notes
    assert "8:2, paper $\\to$ 8:1:1, validation" in render.latex(document)  # as all that is not in Latin 1
    make_run(tmp_path, [HALF[0] * 2] * 2, **BOTH, dataset="script")
    frame = report.named_table("protocols", report.runs(tmp_path), ["impro", "script"])[0].numbers
    last = frame[(frame["kind"] == "change") & (frame["rule"] == "last") & (frame["score"] == "WA")]
    assert dict(zip(last["dataset"], last["mean"], strict=True)) == {"impro": -50, "script": 0}  # each from its own


def test_an_interval_is_shown_from_its_lower_end(tmp_path: Path) -> None:
    """Both speakers are right, but A is wrong in the last epoch. Of two drawn, both, one or none may be A."""
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
        f"GLAM on {dataset}: WA and UA never rise along 8:2, paper → 8:1:1, validation."
        for dataset in ("impro", "script")
    ]


def test_protocols_say_when_scores_do_not_fall(tmp_path: Path) -> None:
    make_run(tmp_path, [[0, 0, 0, 0]], LABELS)  # WA and UA: 25 on all, 0 on the half that 8:1:1 tests
    fold_runs(tmp_path)
    notes = report.named_table("protocols", report.runs(tmp_path))[0].sections[0].notes
    wa, ua = (f"rises by {by} from 8:1:1, validation to session, validation" for by in ("66.67", "62.50"))
    assert f"GLAM on impro: scores may be expected to fall from row to row, but WA {wa}; UA {ua}." in notes


def test_a_change_draws_the_same_seeds_on_both_sides_where_they_are_the_same(tmp_path: Path) -> None:
    """Seeds differ much, but each falls by one utterance: if both sides draw the same seeds, the fall is certain."""
    labels = np.arange(40) % 4
    for seed, right in enumerate((38, 28, 18) * 2, start=1):
        first, last = (np.where(np.arange(40) < n, labels, (labels + 1) % 4) for n in (right, right - 1))
        make_run(tmp_path, [first, last], labels, seed=seed, speakers=["A"] * 40)
    own, others = ([run for run in report.runs(tmp_path) if (run.seed > 3) == later] for later in (False, True))
    difference, interval = tables.change(grouping.Group(own, "paper"), grouping.Group(own, "last"))
    assert difference[0] == pytest.approx(-2.5)
    assert interval is not None and interval.low[0] == interval.high[0] == pytest.approx(-2.5)
    difference, interval = tables.change(grouping.Group(own, "paper"), grouping.Group(others, "last"))
    assert difference[0] == pytest.approx(-2.5)  # the change to other seeds, drawn independently
    assert interval is not None and interval.low[0] < -2.5 - 25 and interval.high[0] > -2.5 + 25


def test_a_change_has_no_interval_where_speakers_are_not_known(tmp_path: Path) -> None:
    labels = np.arange(40) % 4
    for seed in range(6):
        first, last = (np.where(np.arange(40) < n + seed, labels, (labels + 1) % 4) for n in (30, 20))
        make_run(tmp_path, [first, last], labels, seed=seed, speakers=["A"] * 39 + [""])
    found = report.runs(tmp_path)
    difference, interval = tables.change(grouping.Group(found, "paper"), grouping.Group(found, "last"))
    assert difference[0] == pytest.approx(-25) and interval is None
