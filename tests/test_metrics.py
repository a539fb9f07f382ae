"""Scores against scikit-learn, and the rules that pick an epoch."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support, recall_score

import metrics

PAIRS = st.integers(2, 6).flatmap(
    lambda c: st.tuples(
        st.just(c), st.lists(st.tuples(st.integers(0, c - 1), st.integers(0, c - 1)), min_size=1, max_size=60)
    )
)


@given(PAIRS)
def test_scores_are_scikit_learns(case):
    classes, pairs = case
    labels, predicted = np.array(pairs).T
    got = metrics.scores(np.eye(classes)[predicted], labels)
    present = np.unique(labels)
    assert got["WA"] == pytest.approx(100 * accuracy_score(labels, predicted))
    assert got["UA"] == pytest.approx(
        100 * recall_score(labels, predicted, average="macro", labels=present, zero_division=0)
    )
    assert got["macroF1"] == pytest.approx(100 * f1_score(labels, predicted, average="macro", zero_division=0))
    assert got["weightedF1"] == pytest.approx(100 * f1_score(labels, predicted, average="weighted", zero_division=0))
    assert got["confusion"] == confusion_matrix(labels, predicted, labels=range(classes)).tolist()


def test_per_class_is_scikit_learns():
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    got = metrics.per_class(metrics.confusion_matrix(labels, predicted, 4))
    precision, recall, f1, support = precision_recall_fscore_support(labels, predicted)
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1), ("support", support)):
        np.testing.assert_allclose(got[name], expected)


def test_no_utterances_is_an_error():
    with pytest.raises(ValueError, match="no utterances"):
        metrics.scores(np.zeros((0, 4)), np.zeros(0, dtype=int))


def test_a_class_that_does_not_occur_has_no_recall():
    text = metrics.format_scores(metrics.scores(np.eye(3)[[0, 0, 1]], np.array([0, 0, 0])), ["a", "b", "c"])
    assert [line.split() for line in text.splitlines()[:4]] == [
        ["precision", "recall", "F1", "support"],
        ["a", "100.00", "66.67", "80.00", "3"],
        ["b", "–", "–", "–", "0"],
        ["c", "–", "–", "–", "0"],
    ]
    assert [line.split() for line in text.splitlines()[6:10]] == [
        ["a", "b", "c"],
        ["a", "2", "1", "0"],
        ["b", "0", "0", "0"],
        ["c", "0", "0", "0"],
    ]
    assert "WA 66.67   UA 66.67   macro F1 40.00   weighted F1 80.00" in text
    assert text.endswith("the 1 classes that occur, of 3; macro F1 has 1 more, predicted but absent, as 0")


def test_rules_and_equally_good_epochs():
    def record(test, val):
        return {"test": {"WA": test[0], "UA": test[1]}, "val": {"WA": val[0], "UA": val[1]}}

    records = [
        record((50, 50), (80, 60)),
        record((70, 50), (70, 72)),
        record((60, 60), (72, 70)),
        record((55, 50), (0, 0)),
    ]
    assert metrics.pick_epoch(records, "paper") == 1  # 60 = (70 + 50) / 2 = (60 + 60) / 2
    assert metrics.pick_epoch(records, "last") == 3
    labels = np.array([0, 1])
    logits = [np.eye(2) * size for size in (0, 1, 2, 9)]  # ever surer of what is right, yet 71 is the best, twice
    assert metrics.pick_epoch(records, "validation", (logits, labels)) == 2
    assert metrics.pick_epoch(records, "validation", (logits[::-1], labels)) == 1
    assert metrics.pick_epoch(records, "validation", ([logits[0]] * 4, labels)) == 1


def test_epochs_that_differ_in_the_last_bit_are_equal():
    records = [{part: {"WA": wa, "UA": ua} for part in ("test", "val")} for wa, ua in [(0.3, 0.0)] + 19 * [(0.1, 0.2)]]
    assert 0.3 + 0.0 < 0.1 + 0.2
    assert metrics.pick_epoch(records, "paper") == 0
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(0, 3, (50, 4)), np.zeros(50, dtype=int)
    shuffled = [generator.permutation(logits) for _ in records]  # the mean of the same numbers in another order
    assert metrics.pick_epoch(records, "validation", (shuffled, labels)) == 0


def test_cross_entropy_is_torchs():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(0, 30, (50, 4)).astype(np.float32), generator.integers(0, 4, 50)
    for temperature in (0.1, 1.0, 7.0):
        theirs = torch.nn.functional.cross_entropy(torch.tensor(logits).double() / temperature, torch.tensor(labels))
        assert metrics.cross_entropy(logits, labels, temperature) == pytest.approx(float(theirs), rel=1e-12)
