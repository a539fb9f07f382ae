"""Run folders made by hand, as train.py writes them: what each test of the reports is about can be chosen."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import metrics
import recipes
from files import digest_of, write_json

CLASSES = ["neutral", "sad", "angry", "happy"]
DIGEST = "c0ffee00c0ffee00c0ffee00c0ffee00"


def one_hot(predicted: Any, classes: int) -> np.ndarray:
    """Logits `(E, U, C)` whose largest is the class predicted."""
    return np.eye(classes, dtype=np.float32)[np.asarray(predicted, dtype=int)]


def columns(
    part: str, labels: Any, predicted: Any, names: Sequence[str], speakers: Sequence[str], classes: int
) -> dict[str, np.ndarray]:
    """A part's arrays in predictions.npz."""
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
    """Write a run folder: `predicted` are the classes predicted at each epoch `(E, U)`, `val` its (labels, predicted).

    Utterances are called u0, u1, .. and speakers A and B take turns, unless names are given. Neither `changed` nor the
    hash knows how few epochs there are: a run of two stands for one of fifty.
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
    """Predictions `(E, U)` that are right with the probability given for each epoch, and else any class."""
    generator = np.random.default_rng(seed)
    right = generator.random((len(accuracy), len(labels))) < np.array(accuracy)[:, None]
    return np.where(right, labels, generator.integers(0, classes, (len(accuracy), len(labels))))
