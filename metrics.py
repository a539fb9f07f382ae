"""WA, UA, F1, confusion and calibration error from logits, and the rules that pick an epoch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SCORE_NAMES = {"WA": "WA", "UA": "UA", "macroF1": "macro F1", "weightedF1": "weighted F1"}  # as they are printed
SCORES = tuple(SCORE_NAMES)


def confusion_matrix(labels: NDArray, predicted: NDArray, classes: int) -> NDArray:
    """Return counts `(C, C)`, true classes in rows and predicted ones in columns, of classes as integers `(U,)`."""
    return np.bincount(labels * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def per_class(confusions: NDArray) -> dict[str, NDArray]:
    """Return the precision, recall and F1 (0 .. 1) and the support of each class `(..., C)` from confusion counts
    `(..., C, C)`. A ratio whose denominator is 0 is 0."""
    right = np.diagonal(confusions, axis1=-2, axis2=-1).astype(float)
    support, chosen = confusions.sum(-1), confusions.sum(-2)
    return {
        "precision": np.divide(right, chosen, out=np.zeros_like(right), where=chosen > 0),
        "recall": np.divide(right, support, out=np.zeros_like(right), where=support > 0),
        "f1": np.divide(2 * right, support + chosen, out=np.zeros_like(right), where=support + chosen > 0),
        "support": support,
    }


def scores_of(confusions: NDArray) -> NDArray[np.float64]:
    """Return WA, UA, macro F1, weighted F1 in per cent `(..., 4)` of confusion counts `(..., C, C)`; NaN if all are 0.

    WA is accuracy, UA the mean recall of the classes that occur, macro F1 the mean F1 of the classes that occur or were
    predicted, weighted F1 the mean F1 weighted by support, which the published tables call "micro F1" (true micro F1 is
    WA). All four equal those of scikit-learn, with which the tests compare them.
    """
    each = per_class(confusions)
    f1, support = each["f1"], each["support"]
    total, occurs, named = support.sum(-1), support > 0, (support > 0) | (confusions.sum(-2) > 0)
    with np.errstate(invalid="ignore"):
        wa, weighted_f1 = np.trace(confusions, axis1=-2, axis2=-1) / total, (f1 * support).sum(-1) / total
        ua, macro_f1 = each["recall"].sum(-1) / occurs.sum(-1), f1.sum(-1) / named.sum(-1)
    return 100 * np.stack([wa, ua, macro_f1, weighted_f1], axis=-1)


def scores(logits: NDArray, labels: NDArray) -> dict[str, Any]:
    """Return the four scores in per cent, and `confusion`, from utterance logits `(U, C)` and labels `(U,)`."""
    return scores_by_epoch(logits[None], labels)[0]


def scores_by_epoch(logits: NDArray, labels: NDArray) -> list[dict[str, Any]]:
    """Return the `scores` of each epoch from its logits `(E, U, C)` of the same utterances, and labels `(U,)`."""
    if len(labels) == 0:
        raise ValueError("no utterances to score")
    confusions = np.array([confusion_matrix(labels, each, logits.shape[2]) for each in logits.argmax(2)])
    values = scores_of(confusions).tolist()
    pairs = zip(values, confusions.tolist(), strict=True)
    return [{**dict(zip(SCORES, each, strict=True)), "confusion": confusion} for each, confusion in pairs]


def format_scores(record: dict[str, Any], classes: list[str]) -> str:
    """Return as text each class's precision, recall, F1 and support, the confusion matrix and the four scores."""
    confusion = np.array(record["confusion"])
    each = per_class(confusion)
    width = max(10, *(len(c) + 2 for c in classes))
    lines = [" " * width + f"{'precision':>10}{'recall':>10}{'F1':>10}{'support':>10}"]
    for i, name in enumerate(classes):
        occurs = each["support"][i] > 0  # if it does not, its precision and F1 say as little as its recall
        values = "".join(f"{100 * each[k][i]:10.2f}" if occurs else f"{'–':>10}" for k in ("precision", "recall", "f1"))
        lines.append(f"{name:<{width}}{values}{each['support'][i]:10d}")
    widths = [max(6, len(c) + 2) for c in classes]
    lines += ["", "confusion (rows: truth, columns: predicted)"]
    lines.append(" " * width + "".join(f"{c:>{w}}" for c, w in zip(classes, widths, strict=True)))
    for name, row in zip(classes, confusion, strict=True):
        lines.append(f"{name:<{width}}" + "".join(f"{n:{w}d}" for n, w in zip(row, widths, strict=True)))
    return "\n".join([*lines, "", say_scores(record), *_say_absent_classes(confusion)])


def say_scores(record: dict[str, Any]) -> str:
    """Return the four scores in a line: `WA 81.18   UA 79.25   macro F1 79.87   weighted F1 80.99`."""
    return "   ".join(f"{name} {record[score]:.2f}" for score, name in SCORE_NAMES.items())


def _say_absent_classes(confusion: NDArray) -> list[str]:
    """Return a sentence that says over which classes the means are, or nothing if every class occurs."""
    occurs, predicted = confusion.sum(1) > 0, confusion.sum(0) > 0
    absent = int((predicted & ~occurs).sum())  # of the predicted classes
    if occurs.all():
        return []
    text = f"UA is the mean recall of the {occurs.sum()} classes that occur, of {len(occurs)}"
    return [text + (f"; macro F1 has {absent} more, predicted but absent, as 0" if absent else "")]


def pick_epoch(
    records: Sequence[dict[str, Any]], rule: str, val: tuple[Sequence[NDArray] | NDArray, NDArray] | None = None
) -> int:
    """Return the epoch, from 0, that a rule reports: for `last` the last one; for `paper` and `validation` the one with
    the best (WA + UA) / 2 on the test or the validation utterances. `paper` is the published rule, and optimistic.

    Of equally good epochs, `paper` takes the first, as published, and `validation` the one with the lowest
    cross-entropy on the validation utterances: if these are of one speaker, they are few, and half of all epochs may
    score the same on them. `records` are the objects of epochs.jsonl; `val`, which only `validation` needs, are the
    validation logits `(E, U, C)` and labels `(U,)`.
    """
    if rule == "last":
        return len(records) - 1
    part = {"paper": "test", "validation": "val"}[rule]
    # rounded, as equal means can differ in the last bit if the same numbers were summed in another order
    means = [round((record[part]["WA"] + record[part]["UA"]) / 2, 9) for record in records]
    highest = max(means)
    if rule == "paper":
        return means.index(highest)
    assert val is not None, "the rule validation needs the validation logits and labels"
    logits, labels = val
    best = [epoch for epoch, mean in enumerate(means) if mean == highest]
    return min(best, key=lambda epoch: round(cross_entropy(logits[epoch], labels), 9))


def cross_entropy(logits: NDArray, labels: NDArray, temperature: float = 1.0) -> float:
    """Return the mean of -log p(label) in nats, from utterance logits `(U, C)` divided by `temperature`."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    scaled = scaled - scaled.max(1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(1)) - scaled[np.arange(len(labels)), labels]).mean())


def softmax(logits: NDArray, temperature: float = 1.0) -> NDArray[np.float64]:
    """Return the probabilities of the classes (last axis), from `logits` divided by `temperature`."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    powers = np.exp(scaled - scaled.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def confidence_bins(probabilities: NDArray, labels: NDArray, bins: int = 15) -> tuple[NDArray, NDArray, NDArray]:
    """Return, for `bins` equal intervals of confidence in (0, 1], `(bins,)` each: the number of utterances in it, their
    mean confidence and their accuracy (0 .. 1; both are 0 in an empty interval).

    Confidence is the probability of the predicted class: Guo, Pleiss, Sun and Weinberger, "On Calibration of Modern
    Neural Networks", ICML 2017, section 2.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    where = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(where, minlength=bins)
    sums = [np.bincount(where, weights=values, minlength=bins) for values in (confidence, right.astype(np.float64))]
    mean_confidence, accuracy = (np.divide(s, counts, out=np.zeros(bins), where=counts > 0) for s in sums)
    return counts, mean_confidence, accuracy


def ece(logits: NDArray, labels: NDArray, bins: int = 15, temperature: float = 1.0) -> float:
    """Return the expected calibration error in per cent, from utterance logits `(U, C)` and labels `(U,)`: each bin's
    distance of accuracy from mean confidence, weighted by its utterances (Guo et al., ICML 2017, equation 3)."""
    if len(labels) == 0:
        raise ValueError("no utterances to score")
    counts, confidence, accuracy = confidence_bins(softmax(logits, temperature), labels, bins)
    return float(100 * (counts * np.abs(accuracy - confidence)).sum() / counts.sum())
