"""Calibration: the error as the paper defines it, a temperature that does what it should, and the figure."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command
from hypothesis import given, settings
from hypothesis import strategies as st
from made_runs import guesses, make_run
from matplotlib.figure import Figure

import calibration
import figures
import metrics
import records


def drawn(temperature: float, n: int = 4000, classes: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn with the probabilities that the logits have at a temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, (n, classes))
    cumulative = metrics.softmax(logits, temperature).cumsum(1)
    labels = (generator.random((n, 1)) > cumulative[:, :-1]).sum(1)
    return logits, labels


def plain_ece(probabilities: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """The paper's equation 3, word for word."""
    confidence, predicted = probabilities.max(1), probabilities.argmax(1)
    error = 0.0
    for m in range(1, bins + 1):
        inside = (confidence > (m - 1) / bins) & (confidence <= m / bins)
        if inside.any():
            error += inside.mean() * abs((predicted == labels)[inside].mean() - confidence[inside].mean())
    return 100 * error


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 60), classes=st.integers(2, 7), bins=st.integers(1, 20), seed=st.integers(0, 10**6))
def test_the_error_is_the_papers(n: int, classes: int, bins: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    logits, labels = generator.normal(0, 3, (n, classes)), generator.integers(0, classes, n)
    assert metrics.ece(logits, labels, bins) == pytest.approx(
        plain_ece(metrics.softmax(logits), labels, bins), abs=1e-9
    )


def test_the_error_by_hand() -> None:
    logits = np.log([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert metrics.ece(logits, np.array([0, 1, 0, 0]), bins=10) == pytest.approx((0.4 + 0.4) / 2 * 100)
    sure = np.array([[1000.0, 0.0], [0.0, 1000.0]])
    assert metrics.ece(sure, np.array([0, 1])) == 0 and metrics.ece(sure, np.array([1, 0])) == 100
    with pytest.raises(ValueError):
        metrics.ece(np.zeros((0, 4)), np.zeros(0, int))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=2, max_size=7), st.floats(0.05, 20))
def test_probabilities(logits: list[float], temperature: float) -> None:
    p = metrics.softmax(np.array(logits), temperature)
    assert p.sum() == pytest.approx(1) and (p >= 0).all() and p[np.argmax(logits)] == p.max()


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_is_found(true: float) -> None:
    logits, labels = drawn(true)
    found = calibration.fit_temperature(logits, labels)
    assert found == pytest.approx(true, rel=0.08)
    if true != 1:
        assert metrics.ece(logits, labels, temperature=found) < metrics.ece(logits, labels) / 2
    assert metrics.ece(logits, labels, temperature=found) < 3


def hardly_learned() -> tuple[np.ndarray, np.ndarray]:
    """Logits so small that two temperatures are more probable than their neighbours."""
    labels = np.arange(200) % 4
    return 0.02 * np.eye(4)[np.where(np.arange(200) < 190, labels, (labels + 1) % 4)], labels


@pytest.mark.parametrize("learned", [True, False])
def test_no_temperature_is_more_probable(learned: bool) -> None:
    logits, labels = drawn(1.7, n=100) if learned else hardly_learned()

    def surprise(temperature: float) -> float:  # of the labels, and of the temperature itself
        own = (np.log(temperature) / 0.35) ** 2 / 2
        return metrics.cross_entropy(logits, labels, temperature) + own / len(labels)

    least = surprise(calibration.fit_temperature(logits, labels))
    near = 1e-9 if learned else 1e-6  # the coldest there is: a bounded search only comes near
    for temperature in np.geomspace(0.05, 20, 300):
        assert least <= surprise(temperature) + near


def test_of_many_utterances_no_temperature_is_likelier() -> None:
    logits, labels = drawn(1.7, n=4000)
    found = calibration.fit_temperature(logits, labels)
    least = metrics.cross_entropy(logits, labels, found)
    for temperature in np.geomspace(0.05, 20, 300):
        assert least <= metrics.cross_entropy(logits, labels, temperature) + 1e-4


@pytest.mark.parametrize("true", [0.5, 1.0, 2.0])
def test_few_utterances_do_no_harm(true: float) -> None:
    """Fitted on 12 utterances, it makes others likelier in the mean than none would, or hardly less likely."""
    logits, labels = drawn(true)
    changes = []
    for seed in range(40):
        few = np.random.default_rng(seed).choice(len(labels), 12, replace=False)
        found = calibration.fit_temperature(logits[few], labels[few])
        assert 0.4 < found < 2.5
        changes.append(metrics.cross_entropy(logits, labels, found) - metrics.cross_entropy(logits, labels))
    assert np.mean(changes) < (0.02 if true == 1 else -0.01)


def test_a_small_sample_makes_nothing_certain() -> None:
    logits = 5 * np.eye(4)  # all right, then all wrong: the likeliest temperatures would be 0 and infinity
    assert 0.8 < calibration.fit_temperature(logits, np.arange(4)) < 1
    assert 1 < calibration.fit_temperature(logits, np.roll(np.arange(4), 1)) < 3
    assert calibration.fit_temperature(np.tile(logits, (500, 1)), np.tile(np.arange(4), 500)) < 0.6, "many say more"
    with pytest.raises(ValueError):
        calibration.fit_temperature(np.zeros((0, 4)), np.zeros(0, int))


def test_a_temperature_is_from_a_twentieth_to_twenty() -> None:
    labels = np.tile(np.arange(4), 1000)
    assert calibration.fit_temperature(0.1 * np.eye(4)[labels], labels) == pytest.approx(0.05, rel=1e-4)  # all right
    assert calibration.fit_temperature(5 * np.eye(4)[labels], (labels + 1) % 4) == pytest.approx(20, rel=1e-4)


def said(axis: Any) -> list[str]:
    """The texts of an axis's legend."""
    return [text.get_text() for text in axis.get_legend().get_texts()]


def panel(labels: np.ndarray, *logits: np.ndarray) -> Any:
    """The axis with the reliability diagram of these logits: as trained and, if there are others, with temperature."""
    axis = Figure().subplots()
    figures.reliability_panel(axis, labels, dict(zip(("as trained", "with temperature"), logits, strict=False)))
    return axis


def test_a_panel_says_its_errors() -> None:
    logits, labels = drawn(2.0, 600)
    a, b = (metrics.ece(logits, labels, temperature=t) for t in (1.0, 2.0))
    assert said(panel(labels, logits, logits / 2))[:3] == [
        "perfect",
        f"as trained: ECE {a:.1f} %",
        f"with temperature: ECE {b:.1f} %",
    ]
    assert said(panel(labels, logits))[:2] == ["perfect", f"as trained: ECE {a:.1f} %"]


def test_many_small_runs_are_not_called_badly_calibrated() -> None:
    """Of 30 utterances in 15 bins a perfectly calibrated network reads 15 %: their mean says nothing."""
    runs = [drawn(1.0, 30, seed=seed) for seed in range(40)]
    assert np.mean([metrics.ece(*run) for run in runs]) > 10
    logits, labels = (np.concatenate(each) for each in zip(*runs, strict=True))
    text = said(panel(labels, logits))[1]
    assert float(text.split("ECE ")[1].split(" %")[0]) < 4, text


def test_the_figures_points_are_the_bins() -> None:
    logits, labels = drawn(1.0, 500)
    axis = panel(labels, logits, logits / 2)
    for name, temperature in (("as trained", 1.0), ("with temperature", 2.0)):
        counts, confidence, accuracy = metrics.confidence_bins(metrics.softmax(logits, temperature), labels)
        line = next(line for line in axis.lines if str(line.get_label()).startswith(name))
        np.testing.assert_allclose(np.asarray(line.get_xydata()), np.stack((confidence, accuracy), 1)[counts > 0])
    counts, *_ = metrics.confidence_bins(metrics.softmax(logits), labels)
    np.testing.assert_allclose([bar.get_height() for bar in axis.patches], counts / 500)  # grey: as trained


def test_the_figure_scores_the_picked_epoch_at_a_temperature_of_its_validation_utterances(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels, val_labels = generator.integers(0, 4, 60), generator.integers(0, 4, 30)
    val = (val_labels, guesses(1, val_labels, [0.8, 0.2]))  # the first epoch is picked, of the test's it is the worse
    make_run(tmp_path, guesses(1, labels, [0.4, 0.7]), labels, split="8:1:1", val=val)
    (run,) = records.runs(tmp_path)
    figure = figures.reliability(figures.complete_groups([run], "validation")).figure
    tested, held_out = run.predictions("test"), run.predictions("val")
    temperature = calibration.fit_temperature(held_out.logits[0], val_labels)
    assert said(figure.axes[0])[1:3] == [
        f"as trained: ECE {metrics.ece(tested.logits[0], labels):.1f} %",
        f"with temperature: ECE {metrics.ece(tested.logits[0], labels, temperature=temperature):.1f} %",
    ]


@pytest.mark.parametrize("split", ["8:2", "8:1:1"])
def test_the_report_draws_it(split: str, tmp_path: Path, command: Command) -> None:
    generator = np.random.default_rng(0)
    labels, val_labels = generator.integers(0, 4, 60), generator.integers(0, 4, 30)
    for seed in (1, 2):
        val: Any = (val_labels, guesses(seed, val_labels, [0.4, 0.6])) if split == "8:1:1" else None
        make_run(tmp_path / "runs", guesses(seed, labels, [0.4, 0.7]), labels, split=split, seed=seed, val=val)
    words = ["--runs", tmp_path / "runs", "--figure", "reliability", "--rule", "last", "--output", tmp_path / "out"]
    files = [Path(line) for line in command("report.py", *words).stdout.split()]
    assert sorted(file.suffix for file in files) == [".pdf", ".png"] and all(
        file.stat().st_size > 5000 for file in files
    )
