"""Make run folders by hand, as train.py writes them, so that each test of the reports can choose what it is about.
Other functions change a record of such a run, or ask for a report of it."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import metrics
import recipes
import records
import report
from files import digest_of, read_json, write_json

CLASSES = ["neutral", "sad", "angry", "happy"]
DIGEST = "c0ffee00c0ffee00c0ffee00c0ffee00"
RIGHT, HALF = [[0, 1, 2, 3]], [[0, 1, 0, 0]]  # predictions for LABELS: WA = UA = 100, and WA = UA = 50
LABELS = [0, 1, 2, 3]
BOTH: dict[str, Any] = {"labels": LABELS * 2, "speakers": [*"AAAABBBB"]}  # each speaker has every class


def one_hot(predicted: Any, classes: int) -> np.ndarray:
    """Return logits `(E, U, C)` that are largest at the predicted class."""
    return np.eye(classes, dtype=np.float32)[np.asarray(predicted, dtype=int)]


def columns(
    part: str, labels: Any, predicted: Any, names: Sequence[str], speakers: Sequence[str], classes: int
) -> dict[str, np.ndarray]:
    """Return the arrays of one part for predictions.npz."""
    paths = [f"Session1/sentences/wav/{name}.wav" for name in names]
    texts = {"names": np.array(names), "speakers": np.array(speakers), "paths": np.array(paths)}
    values = {**texts, "labels": np.array(labels, dtype=np.int64), "logits": one_hot(predicted, classes)}
    return {f"{part}_{key}": value for key, value in values.items()}


def make_run(
    root: Path, predicted: Sequence[Sequence[int]] | NDArray, labels: Sequence[int] | NDArray, *, model: str = "GLAM",
    dataset: str = "impro", split: str = "8:2", seed: int = 1, fold: int | None = None, folds: int | None = None,
    val: tuple[Sequence[int], Sequence[Sequence[int]]] | None = None, settings: dict[str, Any] | None = None,
    names: Sequence[str] | None = None, speakers: Sequence[str] | None = None, classes: Sequence[str] = CLASSES,
    corpus: str = "IEMOCAP", corpus_digest: str = DIGEST, synthetic: bool = False, done: bool = True,
) -> Path:  # fmt: skip
    """Write a run folder in which `predicted` are the classes predicted at each epoch `(E, U)`.

    `val` are the (labels, predicted) of a validation part. Unless names or speakers are given, utterances are called
    u0, u1, .. and speakers A and B take turns. `changed` and the hash ignore the number of epochs, so that a run of
    two stands for one of fifty.
    """
    config = recipes.config_for(model, split=split, dataset=dataset, seed=seed, fold=fold, **(settings or {}))
    changed = json.loads(json.dumps(config.changed()))
    folder = root / dataset / split.replace(":", "-") / model / config.hash(corpus_digest)
    folder /= str(seed) if fold is None else f"{seed}-fold{fold}"
    folder.mkdir(parents=True)
    prefix = "u" if fold is None else f"f{fold}u"
    names = list(names or [f"{prefix}{i}" for i in range(len(labels))])
    speakers = list(speakers or ["AB"[i % 2] for i in range(len(labels))])
    parts = {"test": columns("test", labels, predicted, names, speakers, len(classes))}
    if val:
        val_names = [f"{prefix}v{i}" for i in range(len(val[0]))]
        parts["val"] = columns("val", *val, val_names, ["V"] * len(val[0]), len(classes))
    lists = [[f"t{i}" for i in range(4)], parts["val"]["val_names"].tolist() if val else None, names]
    digest = digest_of(lists)
    write_json(folder / "split.json", {"digest": digest, "train": lists[0], "val": lists[1], "test": lists[2]})
    write_json(folder / "config.json", {
        "model": model, "recipe": config.recipe, "dataset": dataset, "corpus": corpus, "licence": "as its owner says",
        "synthetic": synthetic, "split": split, "fold": fold, "folds": folds, "seed": seed, "classes": list(classes),
        "shape": [26, 57], "settings": {**config.settings(), "epochs": len(predicted)}, "changed": changed,
        "hash": config.hash(corpus_digest),
        "corpus_digest": corpus_digest, "split_digest": digest, "n_train": 4, "n_val": len(val[0]) if val else 0,
        "n_test": len(labels), "n_dropped": 0, "n_bad": 0, "params": 1, "device": "cpu", "versions": {}, "commit": None,
    })  # fmt: skip
    lines = []
    for epoch in range(len(predicted)):
        record: dict[str, Any] = {"epoch": epoch + 1, "lr": 0.001, "train_loss": 1 / (epoch + 1), "seconds": 0.1}
        for name, part in parts.items():
            record[name] = metrics.scores(part[f"{name}_logits"][epoch], part[f"{name}_labels"])
        lines.append(json.dumps(record) + "\n")
    (folder / "epochs.jsonl").write_text("".join(lines))
    arrays: dict[str, Any] = {key: value for part in parts.values() for key, value in part.items()}
    np.savez_compressed(folder / "predictions.npz", **arrays)
    if done:
        (folder / "done").touch()
    else:
        (folder / "state.safetensors").touch()
    return folder


def guesses(seed: int, labels: np.ndarray, accuracy: Sequence[float], classes: int = 4) -> np.ndarray:
    """Return predictions `(E, U)` that are right with each epoch's `accuracy`, and otherwise any class at random."""
    generator = np.random.default_rng(seed)
    right = generator.random((len(accuracy), len(labels))) < np.array(accuracy)[:, None]
    return np.where(right, labels, generator.integers(0, classes, (len(accuracy), len(labels))))


def only(root: Path) -> records.Run:
    """Return the single run under a folder."""
    (run,) = report.runs(root)
    return run


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run `python report.py ..` in this process and return its exit status."""
    monkeypatch.setattr(sys, "argv", ["report.py", *map(str, arguments)])
    return report.main()


def cell(frame: pd.DataFrame, column: str, **where: str) -> Any:
    """Return the value of a column in the single row whose other columns have the values `where`."""
    for name, value in where.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1, frame
    return frame[column].iloc[0]


def fold_runs(root: Path, seed: int = 1, folds: Sequence[int] = (0, 1), **more: Any) -> None:
    """Write the two folds of a seed. In the second epoch, all test predictions are right, but validation is worse.
    The first epoch has these scores:

    Fold 0: labels 0 0 0 1, 0 predicted for all: WA 75, UA 50. Fold 1: labels 0 1, 1 predicted for all: WA 50, UA 50.
    Pooled: 4 of 6 right, WA 66.67; recalls 3/4 and 1/2, UA 62.5. Averaged: WA 62.5, UA 50.
    """
    for fold, labels, said in ((0, [0, 0, 0, 1], 0), (1, [0, 1], 1)):
        if fold in folds:
            predicted, val = [[said] * len(labels), labels], (LABELS, [RIGHT[0], HALF[0]])
            make_run(root, predicted, labels, split="session", seed=seed, fold=fold, folds=2, val=val,
                     speakers=[f"S{fold}"] * len(labels), **more)  # fmt: skip


def csv_run(root: Path, file: Path, digest: str = DIGEST, **more: Any) -> None:
    """Write a run of a CSV file, as train.py records it."""
    folder = make_run(root, RIGHT, LABELS, dataset=file.stem, corpus=file.stem, corpus_digest=digest, **more)
    run = read_json(folder / "config.json")
    write_json(folder / "config.json", {**run, "settings": {**run["settings"], "dataset": str(file)}})


def worst(runs: Path, rule: str = "paper", most: int = 20) -> pd.DataFrame:
    return report.errors_document(report.runs(runs), rule, most, "").numbers


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
