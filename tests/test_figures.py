"""Figures of run folders made by hand; what they show is checked in the drawing, not in the pixels alone."""

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_checkpoints import make_checkpoint
from made_runs import CLASSES, make_run
from safetensors.torch import save_file

import checkpoints
import data
import figures
import loops
import models
import recipes
import records
import report
import tables
import train
from cli import UserError
from corpora import Utterance
from files import write_json
from seeds import read_seeds

LABELS = [0, 0, 1, 1, 2, 2, 3, 3]
RIGHT, SOME = LABELS, [0, 1, 1, 1, 2, 0, 3, 3]


def arguments(**given: Any) -> Namespace:
    return Namespace(**{"rule": "paper", "set": {}, "model": None, "output": None, **given})


@pytest.fixture
def runs(tmp_path: Path) -> list[records.Run]:
    """Two models, three seeds, four epochs."""
    for seed in range(3):
        for model in ("GLAM", "MACNN"):
            last = RIGHT if seed == 0 and model == "GLAM" else SOME
            make_run(tmp_path / "runs", [[0] * 8, SOME, SOME, last], LABELS, model=model, seed=seed)
    return report.runs(tmp_path / "runs")


def is_drawn(file: Path) -> bool:
    """Whether a file is a figure with something in it."""
    if file.suffix == ".pdf":
        return file.read_bytes().startswith(b"%PDF-") and file.stat().st_size > 5000
    from matplotlib.image import imread

    pixels = imread(file)
    return (
        pixels.shape[0] > 300
        and pixels.shape[1] > 300
        and len(np.unique(pixels.reshape(-1, pixels.shape[2]), axis=0)) > 50
    )


def texts(drawn: figures.Drawn) -> list[str]:
    """Every text in a figure."""
    from matplotlib.text import Text

    return [text.get_text() for text in drawn.figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("name", ["confusion", "curves"])
def test_written_as_pdf_and_png(runs: list[records.Run], tmp_path: Path, name: str) -> None:
    files = figures.make(name, runs, arguments(output=tmp_path / "out"))
    rule = "-paper" if name == "confusion" else ""
    assert [file.name for file in files] == [f"{name}-impro-8-2{rule}.pdf", f"{name}-impro-8-2{rule}.png"]
    assert all(is_drawn(file) for file in files)
    before = [file.read_bytes() for file in files]
    assert [file.read_bytes() for file in figures.make(name, runs, arguments(output=tmp_path / "out"))] == before


@pytest.mark.parametrize("name", ["confusion", "curves", "reliability"])
def test_names_are_no_formulas_and_captions_have_the_fonts_of_all_scripts(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "FONTS", ("DejaVu Serif",))
    odd: dict[str, Any] = {"dataset": "a_$5_$9", "corpus": "$\\frac$", "classes": ["$_{$", *CLASSES[1:]]}
    make_run(tmp_path, [RIGHT], LABELS, **odd)
    with figures.style():
        drawn = figures.FIGURES[name](figures.complete_groups(report.runs(tmp_path), "paper"))
    figures.save(drawn, tmp_path / "x")
    assert is_drawn(tmp_path / "x.pdf") and drawn.figure._supxlabel.get_fontfamily()[-1] == "DejaVu Serif"


def test_confusion_shows_row_per_cent_and_counts_under_the_right_names(runs: list[records.Run]) -> None:
    groups = figures.complete_groups([run for run in runs if run.model == "GLAM"], "paper")
    drawn = figures.confusion(groups)
    # seed 0 picks the epoch without an error, the others `SOME`: of 3 x 2 neutral utterances, 4 are right and 2 taken
    # for sad; of the angry ones, 4 are right and 2 taken for neutral
    axis = drawn.figure.axes[0]
    cells = np.array([text.get_text() for text in axis.texts]).reshape(4, 4)
    assert cells[0].tolist() == ["66.7\n(4)", "33.3\n(2)", "0.0\n(0)", "0.0\n(0)"]
    assert cells[2].tolist() == ["33.3\n(2)", "0.0\n(0)", "66.7\n(4)", "0.0\n(0)"]
    assert [label.get_text() for label in axis.get_yticklabels()] == CLASSES
    assert [label.get_text() for label in axis.get_xticklabels()] == CLASSES
    assert "a) GLAM\n3 seeds of 8 utterances" in texts(drawn)
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "true")


def test_numbers_stand_out_from_their_cells() -> None:
    from matplotlib import colormaps
    from matplotlib.colors import to_rgb

    def luminance(colour: Any) -> float:
        rgb = np.array(to_rgb(colour))
        return float(np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])

    for percent in np.linspace(0, 100, 201):
        ink = luminance("black" if percent > figures.DARK_INK_FROM else "white")
        cell = luminance(colormaps["cividis"](percent / 100)[:3])
        assert (max(ink, cell) + 0.05) / (min(ink, cell) + 0.05) >= 4.5  # what WCAG asks of small text


def test_captions_say_corpus_split_rule_n(runs: list[records.Run]) -> None:
    groups = figures.complete_groups(runs, "paper")
    for draw in (figures.confusion, figures.curves):
        caption = draw(groups).caption
        assert all(word in caption for word in ("IEMOCAP", "impro", "split 8:2", "n = 3 seeds", "8 test utterances"))
    assert "rule paper" in figures.confusion(groups).caption and "optimistic" in figures.confusion(groups).caption


def test_the_rule_paper_on_a_split_with_validation_is_said_to_be_unpublished(tmp_path: Path) -> None:
    make_run(tmp_path, [SOME], LABELS, split="dialog", val=(LABELS, [SOME]))
    for rule, said in (("paper", True), ("last", False)):
        groups = figures.complete_groups(report.runs(tmp_path), rule)
        assert ("On dialog this rule is no published one" in figures.confusion(groups).caption) == said


def test_groups_that_differ_are_told_apart(tmp_path: Path) -> None:
    """The caption says what all groups share; above each group stands what is its own."""
    make_run(tmp_path, [SOME], LABELS, settings={"epochs": 1})
    other = {"epochs": 1, "batch_size": 8}
    for seed in range(3):
        make_run(tmp_path, [[*SOME, 0]], [*LABELS, 0], model="MACNN", settings=other, seed=seed)
    groups = figures.complete_groups(report.runs(tmp_path), "paper")
    assert [figures.label(group, groups) for group in groups] == ["MACNN (batch_size=8)", "GLAM"]
    assert "n = 1–3 seeds, 8 or 9 test utterances a seed. Settings of all runs: epochs=1." in figures.say_runs(groups)
    axes = figures.confusion(groups).figure.axes[:2]
    titles = [axis.get_title("left") for axis in axes]
    assert titles == ["a) MACNN (batch_size=8)\n3 seeds of 9 utterances", "b) GLAM\n1 seed of 8 utterances"]
    assert [axis.texts[0].get_text() for axis in axes] == ["66.7\n(6)", "50.0\n(1)"]
    axes = figures.reliability(groups).figure.axes
    assert [axis.get_title("left") for axis in axes] == ["a) MACNN (batch_size=8), n = 3", "b) GLAM, n = 1"]
    # 7 of 9 and 6 of 8 are right, each with a probability of e / (e + 3) = 0.475
    errors = [[text.get_text() for text in axis.get_legend().get_texts()][1] for axis in axes]
    assert errors == ["as trained: ECE 30.2 %", "as trained: ECE 27.5 %"]


def test_synthetic_is_said(tmp_path: Path) -> None:
    make_run(tmp_path, [SOME], LABELS, synthetic=True, corpus="synthetic", dataset="demo")
    groups = figures.complete_groups(report.runs(tmp_path), "paper")
    for draw in (figures.confusion, figures.curves):
        drawn = draw(groups)
        assert "SYNTHETIC" in drawn.caption and any("SYNTHETIC" in text for text in texts(drawn))


def test_curves_are_means_with_bands(runs: list[records.Run]) -> None:
    drawn = figures.curves(figures.complete_groups(runs, "paper"))
    loss, wa, _ = drawn.figure.axes
    lines: dict[Any, Any] = {line.get_label(): line for line in wa.lines}
    # GLAM, epoch 4: WA 100, 75, 75
    assert lines["GLAM"].get_ydata()[-1] == pytest.approx(250 / 3)
    assert loss.lines[0].get_ydata() == pytest.approx([1, 1 / 2, 1 / 3, 1 / 4])
    (band,) = (np.asarray(path.vertices) for path in wa.collections[list(wa.lines).index(lines["GLAM"])].get_paths())
    assert band[:, 1].min() == pytest.approx(25)  # epoch 1: all said neutral, 25 % in every seed
    # epoch 4: +16.67, -8.33, -8.33, squares 416.67 over n - 1 = 2: 14.43
    ends = band[band[:, 0] == 4, 1]
    assert [ends.min(), ends.max()] == pytest.approx([250 / 3 - 14.43, 250 / 3 + 14.43], abs=0.01)
    styles = {(line.get_color(), line.get_linestyle(), line.get_marker()) for line in wa.lines}
    assert len(styles) == len({style[0] for style in styles}) == len({style[2] for style in styles}) == 2


def test_curves_are_of_every_fold(tmp_path: Path) -> None:
    for seed, (fold, said) in itertools.product((1, 2), ((0, RIGHT), (1, SOME))):
        make_run(tmp_path, [said], LABELS, split="session", seed=seed, fold=fold, folds=2, val=(LABELS, [SOME]))
    groups = figures.complete_groups(report.runs(tmp_path), "last")
    assert figures.curves(groups).figure.axes[1].lines[0].get_ydata()[0] == pytest.approx(87.5)  # of 100 and 75
    assert figures.confusion(groups).figure.axes[0].get_title("left") == "a) GLAM\n2 seeds of 16 utterances"


def test_curves_of_one_run(tmp_path: Path) -> None:
    make_run(tmp_path, [[0, 0, 0, 0]], [0, 0, 0, 1])
    drawn = figures.curves(figures.complete_groups(report.runs(tmp_path), "paper"))
    assert [axis.lines[0].get_ydata()[0] for axis in drawn.figure.axes] == [1, 75, 50]  # loss, WA, UA
    titles = [axis.get_title("left") for axis in drawn.figure.axes]
    assert titles == ["training loss", "test WA (%)", "test UA (%)"]
    files = figures.make("curves", report.runs(tmp_path), arguments(output=tmp_path / "out"))
    assert all(is_drawn(file) for file in files)


def test_alpha_against_the_published_line(tmp_path: Path) -> None:
    for alpha in (0, 0.5, 2):
        for seed, said in enumerate((SOME, RIGHT)):
            make_run(tmp_path / "runs", [said], LABELS, settings={"alpha": alpha}, seed=seed)
    found = report.runs(tmp_path / "runs")
    groups = figures.alpha_groups(found, "paper", {})
    drawn = figures.alpha(groups)
    containers: list[Any] = drawn.figure.axes[0].containers
    ours, published = (container.lines[0] for container in containers)
    assert list(ours.get_xdata()) == [0, 0.5, 2] and ours.get_ydata() == pytest.approx([87.5] * 3)
    assert list(published.get_ydata()) == [80.44, 81.18, 80.80]
    bars = [np.ptp([bar[:, 1] for bar in container.lines[2][0].get_segments()], axis=1) / 2 for container in containers]
    assert bars[0] == pytest.approx([312.5**0.5] * 3)  # 75 and 100: +-12.5, squares 312.5 over n - 1 = 1
    assert bars[1] == pytest.approx([1.54, 1.47, 1.39])
    files = figures.make("alpha", found, arguments(output=tmp_path))
    assert [file.name for file in files] == ["alpha-impro-8-2-paper.pdf", "alpha-impro-8-2-paper.png"]
    assert all(is_drawn(file) for file in files)


def test_alpha_shows_each_score_under_its_name(tmp_path: Path) -> None:
    # 3 of 4 right; recalls 1 and 0; F1 6/7 and 0, weighted by 3 and 1
    for alpha in (0, 0.5):
        make_run(tmp_path, [[0, 0, 0, 0]], [0, 0, 0, 1], settings={"alpha": alpha})
    drawn = figures.alpha(figures.alpha_groups(report.runs(tmp_path), "paper", {}))
    assert " GLAM. Corpus IEMOCAP, impro; split 8:2; rule paper: " in drawn.caption
    axes: list[Any] = drawn.figure.axes
    shown = {axis.get_title("left"): [bar.lines[0].get_ydata()[1] for bar in axis.containers] for axis in axes}
    assert shown == {
        "WA (%)": pytest.approx([75, 81.18]),
        "UA (%)": pytest.approx([50, 79.25]),
        "macro F1 (%)": pytest.approx([300 / 7, 79.87]),
        "weighted F1 (%)": pytest.approx([450 / 7, 80.99]),
    }


def test_alpha_needs_two_values(runs: list[records.Run]) -> None:
    with pytest.raises(
        UserError,
        match=r"no two values of GLAM's α .* `python sweep.py --models GLAM --datasets impro --splits 8:2 --vary "
        r"alpha=0,0.3,0.5,0.8,1,2,3 --device cpu --runs .*`",
    ):
        figures.make("alpha", [run for run in runs if run.model == "GLAM"], arguments())


def test_the_command_for_other_alphas_is_for_the_machine_that_most_runs_had(tmp_path: Path) -> None:
    for seed, machine in ((1, {"device": "cuda"}), (2, {"threads": 1}), (3, {"threads": 1})):
        make_run(tmp_path, [SOME], LABELS, seed=seed, settings=machine)
        make_run(tmp_path, [SOME], LABELS, seed=seed, settings={"device": "cuda", "batch_size": 8})
    with pytest.raises(UserError, match=r"alpha=0,0.3,0.5,0.8,1,2,3 --threads 1 --device cpu --runs "):
        figures.alpha_groups(report.runs(tmp_path), "paper", {})
    with pytest.raises(UserError, match=r"--batch_size 16 --device cuda --runs "):  # there are none yet
        figures.alpha_groups(report.runs(tmp_path), "paper", {"batch_size": 16})


@pytest.mark.parametrize(("seeds", "lines"), [((1, 2), 2), ((3, 4), 0)])
def test_a_line_of_alpha_is_of_one_seed(tmp_path: Path, seeds: tuple[int, int], lines: int) -> None:
    for alpha, of in ((0, (1, 2)), (0.5, seeds)):
        for seed in of:
            make_run(tmp_path, [SOME], LABELS, settings={"alpha": alpha}, seed=seed)
    drawn = figures.alpha(figures.alpha_groups(report.runs(tmp_path), "paper", {}))
    grey = [line for line in drawn.figure.axes[0].get_lines() if line.get_color() == "#aaaaaa"]
    assert len(grey) == lines and ("grey: each seed" in drawn.caption) == bool(lines)


def test_alpha_compares_the_seeds_that_all_values_have(tmp_path: Path) -> None:
    for alpha, seeds in ((0, (1, 2)), (0.5, (1, 2, 3))):
        for seed in seeds:
            make_run(tmp_path, [RIGHT if seed == 3 else SOME], LABELS, settings={"alpha": alpha}, seed=seed)
    groups = figures.alpha_groups(report.runs(tmp_path), "paper", {})
    drawn = figures.alpha(groups)
    ours: Any = drawn.figure.axes[0].containers[0]
    assert ours.lines[0].get_ydata() == pytest.approx([75] * 2) and "n = 2 seeds" in drawn.caption
    assert [len(group.rounds) for group in groups] == [2, 3], "a table's own groups stay as they are"


def test_alpha_is_of_any_values_and_of_another_model(tmp_path: Path) -> None:
    for model, values in (("GLAM", (0.1, 0.5)), ("MACNN", (0, 0.25, 7))):
        for alpha in values:
            make_run(tmp_path, [SOME], LABELS, model=model, settings={"alpha": alpha})
    found = report.runs(tmp_path)
    for own, model, values in ((found, "GLAM", [0.1, 0.5]), (found[-3:], "MACNN", [0, 0.25, 7])):
        groups = figures.alpha_groups(own, "paper", {})
        assert [(group.model, group.first.config["settings"]["alpha"]) for group in groups] == [
            (model, alpha) for alpha in values
        ]


def test_alpha_of_one_seed_shows_no_spread(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for alpha in (0, 0.5):
        make_run(tmp_path, [SOME], LABELS, settings={"alpha": alpha, "padding": True})
        make_run(tmp_path, [SOME], LABELS, settings={"alpha": alpha, "padding": True, "batch_size": 8})
    groups = figures.alpha_groups(report.runs(tmp_path), "paper", {})  # without --set, the group that changes least
    assert [group.changed for group in groups] == [{"padding": True, "alpha": 0}, {"padding": True}]
    assert "GLAM: runs with other settings are left out (alpha=0, batch_size=8" in capsys.readouterr().err
    figures.alpha_groups(report.runs(tmp_path), "paper", {"padding": True})
    assert "left out" not in capsys.readouterr().err
    drawn = figures.alpha(groups)
    assert "#aaaaaa" not in [line.get_color() for line in drawn.figure.axes[0].get_lines()]
    assert "One seed each, so that no spread is shown." in drawn.caption and "deviation" not in drawn.caption


def test_alpha_leaves_out_a_value_that_lacks_a_fold(tmp_path: Path) -> None:
    for alpha in (0, 0.5, 1):
        for fold in range(2 if alpha == 1 else 3):
            make_run(tmp_path, [SOME], LABELS, settings={"alpha": alpha}, split="speaker", fold=fold, folds=3,
                     val=(LABELS, [SOME]))  # fmt: skip
    groups = figures.alpha_groups(report.runs(tmp_path), "paper", {})
    assert [group.changed.get("alpha", 0.5) for group in groups] == [0, 0.5]


def test_two_sets_of_classes_each_have_their_names(tmp_path: Path) -> None:
    make_run(tmp_path, [[0, 1]], [0, 1], dataset="emodb", classes=["sad", "angry"])
    make_run(tmp_path, [[0, 1]], [0, 1], dataset="emodb", classes=["angry", "happy"], model="MACNN")
    drawn = figures.confusion(figures.complete_groups(report.runs(tmp_path), "paper"))
    names = [[text.get_text() for text in axis.get_yticklabels()] for axis in drawn.figure.axes[:2]]
    assert sorted(names) == [["angry", "happy"], ["sad", "angry"]]


def test_alpha_of_another_corpus_has_no_published_line(tmp_path: Path) -> None:
    for alpha in (0, 0.5):
        make_run(tmp_path, [SOME], LABELS, settings={"alpha": alpha}, dataset="emodb", corpus="EMO-DB")
    drawn = figures.alpha(figures.alpha_groups(report.runs(tmp_path), "paper", {}))
    assert len(drawn.figure.axes[0].containers) == 1 and "published" not in drawn.caption.split("rule")[0]


def test_folds_are_pooled(tmp_path: Path) -> None:
    for fold in (0, 1):
        make_run(tmp_path, [SOME], LABELS, split="session", fold=fold, folds=2, val=(LABELS, [RIGHT]))
    drawn = figures.confusion(figures.complete_groups(report.runs(tmp_path), "validation"))
    assert (
        drawn.figure.axes[0].texts[0].get_text() == "50.0\n(2)" and "n = 1 seed, all folds of a seed" in drawn.caption
    )
    assert f"rule validation: {recipes.RULES['validation']}; " in drawn.caption
    shutil.rmtree(report.runs(tmp_path)[0].folder)
    with pytest.raises(UserError, match="no seed has all its folds"):
        figures.make("confusion", report.runs(tmp_path), arguments(rule="validation"))


def test_one_dataset_and_split_a_figure(tmp_path: Path) -> None:
    for dataset in ("script", "all"):
        make_run(tmp_path, [SOME], LABELS, dataset=dataset)
    with pytest.raises(UserError, match="--dataset: a figure shows one; name it: all, script"):
        figures.make("curves", report.runs(tmp_path), arguments())
    make_run(tmp_path, [SOME], LABELS, dataset="impro")
    make_run(tmp_path, [SOME], LABELS, dataset="impro", split="dialog", val=(LABELS, [SOME]))
    assert [(run.dataset, run.split) for run in figures.one_view(report.runs(tmp_path))] == [("impro", "8:2")]


def test_published_settings_before_changed_ones(runs: list[records.Run], tmp_path: Path) -> None:
    make_run(tmp_path / "runs", [SOME], LABELS, settings={"alpha": 2})
    make_run(tmp_path / "runs", [SOME], LABELS, settings={"epochs": 1}, model="CNN_GAP")
    make_run(tmp_path / "runs", [SOME], LABELS, settings={"epochs": 1, "batch_size": 8}, model="CNN_GAP")
    shown = figures.as_published(report.runs(tmp_path / "runs"), {})
    assert {(run.model, recipes.settings_text(run.changed)) for run in shown} == {
        ("CNN_GAP", "epochs=1"),
        ("GLAM", ""),
        ("MACNN", ""),
    }
    asked = figures.as_published(report.runs(tmp_path / "runs"), {"alpha": 2})
    assert {recipes.settings_text(run.changed) for run in asked if run.model == "GLAM"} == {"alpha=2"}


def test_settings_that_a_figure_leaves_out_are_told(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make_run(tmp_path, [SOME], LABELS)
    make_run(tmp_path, [SOME], LABELS, settings={"augment": "vtlp"})
    assert [run.changed for run in figures.as_published(report.runs(tmp_path), {})] == [{}]
    assert "GLAM: runs with other settings are left out (augment=vtlp); --set" in capsys.readouterr().err


def test_more_than_can_be_told_apart(tmp_path: Path) -> None:
    for model in models.list_models()[:7]:
        make_run(tmp_path, [SOME], LABELS, model=model, settings={"augment": "none"})
    with pytest.raises(UserError, match="at most 6 can be told apart; name some with --model"):
        figures.make("confusion", report.runs(tmp_path), arguments())


def test_eight_styles_differ() -> None:
    assert len(set(figures.COLOURS)) == len(set(figures.MARKERS)) == len({str(line) for line in figures.LINES}) == 8


def test_images_of_a_table(runs: list[records.Run]) -> None:
    _, rows = report.named_table("comparison", runs)
    found = figures.images(tables.TABLES["comparison"].figures, rows)
    assert len(found) == 2  # impro alone has runs
    assert all(b"<svg" in image.svg and image.caption for image in found)
    assert figures.images(("alpha",), report.named_table("alpha", runs)[1]) == []


def test_images_of_two_splits_are_apart(tmp_path: Path) -> None:
    for split, fold in itertools.product(("session", "speaker"), (0, 1)):
        make_run(tmp_path, [SOME], LABELS, split=split, fold=fold, folds=2, val=(LABELS, [RIGHT]))
    _, rows = report.named_table("speaker_independent", report.runs(tmp_path), ["impro"])
    captions = [image.caption for image in figures.images(("confusion",), rows)]
    assert [re.findall(r"split (\w+);", caption) for caption in captions] == [["session"], ["speaker"]]


def test_a_table_of_many_rows_has_several_images(tmp_path: Path) -> None:
    for model in tables.ABLATED.values():
        make_run(tmp_path, [SOME], LABELS, model=model)
    _, rows = report.named_table("ablation", report.runs(tmp_path))
    assert len(rows) == 9
    assert len(figures.images(("confusion", "curves"), rows)) == 4  # of each, one of six rows and one of three


def test_no_window_system_is_asked_for() -> None:
    code = "import figures, sys; assert not {'matplotlib', 'torch', 'sklearn', 'pandas'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(figures.__file__).parent, check=True)
    assert "pyplot" not in Path(figures.__file__).read_text()


# ---------------------------------------------------------------------------------------------------- t-SNE


def test_tsne_says_which_runs_to_repeat(runs: list[records.Run], tmp_path: Path) -> None:
    fold = make_run(tmp_path / "runs", [SOME], LABELS, model="APCNN", split="session", fold=1, folds=2,
                    val=(LABELS, [RIGHT]), seed=3, settings={"alpha": 0.3, "class_weights": True})  # fmt: skip
    with pytest.raises(UserError, match="no weights were kept of APCNN, MACNN, AACNN, GLAM") as error:
        figures.make("tsne", runs, arguments())
    lines = str(error.value).splitlines()[1:]
    models = ("APCNN", "MACNN", "AACNN", "GLAM")
    place = shlex.quote(str(runs[0].folder.parents[4]))
    rest = f"--dataset impro --split 8:2 --seed 0 --device cpu --runs {place} --save_model"
    assert [line.strip() for line in lines] == [f"python train.py --model {model} {rest}" for model in models]
    first = make_run(tmp_path / "runs", [SOME], LABELS, seed=read_seeds()[0])  # whose weights the scripts keep
    with pytest.raises(UserError, match=rf"--model GLAM .*--seed {first.name} "):
        figures.make("tsne", [*runs, records.read_run(first)], arguments())
    run = records.read_run(fold)
    command = figures.train_command(run.model, run, run.changed)
    assert "--split session --seed 3 --fold 1 --alpha 0.3 --class_weights --device cpu --runs " in command
    given = vars(train.command_line().parse_args(shlex.split(command)[2:]))
    assert (given["alpha"], given["fold"], given["save_model"]) == (0.3, 1, "last")
    other = {"test_dataset": "ravdess"}
    across = make_run(tmp_path / "runs", [SOME], LABELS, dataset="emodb", split="cross", settings=other)
    assert "--dataset emodb --split cross --test ravdess --seed" in figures.train_command(
        "GLAM", records.read_run(across), {}
    )


def keep_weights(run: records.Run, model: torch.nn.Module) -> None:
    """A checkpoint as train.py writes it."""
    folder = run.folder / "checkpoint"
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    write_json(folder / "config.json", {**run.config, "rule": "paper", "epoch": 2})


def test_tsne_takes_one_seed_for_all(runs: list[records.Run]) -> None:
    for run in runs:
        if (run.model, run.seed) in (("GLAM", 0), ("GLAM", 2), ("MACNN", 1), ("MACNN", 2)):
            keep_weights(run, torch.nn.Linear(1, 1))
    assert [(r.model, r.seed) for r in figures.runs_to_show(runs, ["GLAM", "MACNN"], {})] == [("GLAM", 2), ("MACNN", 2)]


def test_tsne_is_drawn(runs: list[records.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for run in runs:
        keep_weights(run, torch.nn.Linear(1, 1))
    labels = np.repeat(np.arange(4), 15)
    hidden = (
        np.random.default_rng(0).normal(size=(60, 20)).astype(np.float32) + 3 * np.eye(20, dtype=np.float32)[labels]
    )
    monkeypatch.setattr(figures, "hidden_means", lambda run: (hidden, labels))
    files = figures.make("tsne", runs, arguments(output=tmp_path, model=["GLAM", "MACNN"]))
    assert [file.name for file in files] == ["tsne-impro-8-2.pdf", "tsne-impro-8-2.png"]
    assert all(is_drawn(file) for file in files)
    shown = [run for run in runs if run.seed == 0]
    drawn = figures.tsne(shown)
    assert "GLAM seed 0, epoch 2 (rule paper)" in drawn.caption and "b) MACNN" in texts(drawn)
    first, second = (figures.embed(hidden) for _ in range(2))
    points: list[Any] = list(drawn.figure.axes[0].collections)
    for c, own in enumerate(points):  # the class that the legend says stands where its utterances are
        np.testing.assert_array_equal(own.get_offsets(), first[labels == c])
    assert [own.get_label() for own in points] == [text for text in texts(drawn) if text in CLASSES] == CLASSES
    assert len({tuple(own.get_facecolor()[0]) for own in points}) == 4
    assert (first == second).all() and first.shape == (60, 2)


def test_each_panel_of_tsne_is_of_its_own_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for model, n in (("GLAM", 8), ("MACNN", 7)):
        make_run(tmp_path, [SOME[:n]], LABELS[:n], model=model)
    found = report.runs(tmp_path)
    hidden = {run.model: np.eye(run.n_test, dtype=np.float32) for run in found}
    monkeypatch.setattr(figures, "hidden_means", lambda run: (hidden[run.model], np.array(LABELS[: run.n_test])))
    for run in found:
        keep_weights(run, torch.nn.Linear(1, 1))
    drawn = figures.tsne(found)
    assert "n = 7 or 8 utterances" in drawn.caption
    points = [sum(len(own.get_offsets()) for own in axis.collections) for axis in drawn.figure.axes]
    assert points == [8, 7] and {"a) GLAM", "b) MACNN"} <= {*texts(drawn)}


@pytest.mark.parametrize(("n", "largest"), [(1, 0), (8, 0), (8, 1e-30)])
def test_a_hidden_layer_that_tells_nothing_apart_is_no_picture(
    n: int, largest: float, runs: list[records.Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a network that died in training, all of whose ReLUs give 0, or nearly 0."""
    keep_weights(runs[0], torch.nn.Linear(1, 1))
    hidden = np.linspace(0, largest, n * 20, dtype=np.float32).reshape(n, 20)
    monkeypatch.setattr(figures, "hidden_means", lambda run: (hidden, np.array(LABELS[:n])))
    with pytest.raises(UserError, match=rf"{runs[0].folder}: the last hidden layer .* is the same for all test utt"):
        figures.make("tsne", runs, arguments(model=[runs[0].model]))


def test_nine_classes_of_tsne_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, classes = np.arange(9).repeat(5), [f"class {i}" for i in range(9)]
    make_run(tmp_path, [list(range(9))], list(range(9)), classes=classes)
    hidden = np.random.default_rng(0).normal(size=(45, 8)).astype(np.float32)
    monkeypatch.setattr(figures, "hidden_means", lambda run: (hidden, labels))
    runs = report.runs(tmp_path)
    keep_weights(runs[0], torch.nn.Linear(1, 1))
    points: list[Any] = list(figures.tsne(runs).figure.axes[0].collections)
    looks = {(tuple(own.get_facecolor()[0]), own.get_paths()[0].vertices.tobytes()) for own in points}
    assert len(points) == len(looks) == 9


@pytest.mark.parametrize("name", ["GLAM", "MHResMultiConv3", "APCNN"])
def test_hidden_means(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 8 utterances of 1 to 3 segments; the run tests u5, u2 and u7, in that order
    make_run(tmp_path, [[2, 1, 3]], [2, 1, 3], names=["u5", "u2", "u7"], model=name, corpus_digest="ab" * 16)
    (run,) = report.runs(tmp_path)
    model = checkpoints.load(make_checkpoint(run.folder / "checkpoint", name)).module
    shape = checkpoints.load(run.folder).config["shape"]
    generator = np.random.default_rng(3)
    counts = np.array([1, 2, 3, 1, 2, 3, 1, 2])
    x = generator.normal(size=(counts.sum(), *shape)).astype(np.float32)
    utterances = tuple(Utterance(f"u{i}", f"/u{i}.wav", "A", "1", "d", "impro", "neu") for i in range(8))
    corpus = data.Corpus("impro", "IEMOCAP", "", False, tuple(CLASSES), utterances, np.array(LABELS))
    segments = data.Segments(x, np.cumsum(counts) - counts, counts)
    loaded = data.Data(corpus, segments, segments, "ab" * 16, (), ())
    monkeypatch.setattr(data, "load", lambda config, skip_bad=False: loaded)
    monkeypatch.setattr(loops, "EVALUATION_BATCH", 2)  # u5 takes two
    hidden, labels = figures.hidden_means(run)
    assert labels.tolist() == [2, 1, 3]
    for row, i in zip(hidden, (5, 2, 7), strict=True):
        start = segments.starts[i]
        with torch.inference_mode():
            expected = model.hidden(torch.from_numpy(x[start : start + counts[i]]).unsqueeze(1)).flatten(1).mean(0)
        assert row == pytest.approx(expected.numpy(), rel=1e-5, abs=1e-5)
    monkeypatch.setattr(data, "load", lambda config, skip_bad=False: replace(loaded, digest="cd" * 16))
    with pytest.raises(UserError, match="trained on another version of impro"):
        figures.hidden_means(run)


def test_figure_command(runs: list[records.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = runs[0].folder.parents[4]
    done = subprocess.run(
        [sys.executable, "report.py", "--runs", folder, "--figure", "confusion", "--rule", "last",
         "--output", tmp_path / "f"],
        cwd=Path(figures.__file__).parent, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert re.findall(r"confusion-impro-8-2-last\.(\w+)", done.stdout) == ["pdf", "png"]
    assert all(is_drawn(Path(line)) for line in done.stdout.splitlines())


def test_a_figure_goes_into_a_folder(runs: list[records.Run], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--output .*confusion.png: a figure goes into a folder"):
        figures.make("confusion", runs, arguments(output=tmp_path / "confusion.png"))
    assert not list(tmp_path.glob("*.png*"))


def test_what_curves_cannot_compare_is_said(tmp_path: Path) -> None:
    make_run(tmp_path, [SOME], LABELS)
    make_run(tmp_path, [SOME], LABELS, model="MACNN")
    drawn = figures.curves(figures.complete_groups(report.runs(tmp_path), "paper"))
    assert (
        "none for a single run" in drawn.caption
        and "which cannot be compared with the loss of the others" in drawn.caption
    )


def test_a_class_without_test_utterances_has_no_per_cent(tmp_path: Path) -> None:
    make_run(tmp_path, [[0, 1, 2, 2]], [0, 1, 2, 2])
    drawn = figures.confusion(figures.complete_groups(report.runs(tmp_path), "paper"))
    cells = np.array([text.get_text() for text in drawn.figure.axes[0].texts]).reshape(4, 4)
    assert cells[3].tolist() == ["–"] * 4 and cells[0, 0] == "100.0\n(1)"
