"""Run folders: where a run's folder is, who holds it, whether the run is finished, and what its picked epoch scored.

Scores are read as the run recorded them. They are computed anew only where a run of 8:2 is read as one of 8:1:1.
"""

import gzip
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

import data
import metrics
from cli import UserError, warn
from files import digest_of, has_type, lock, may_be_sound, named, read_bytes, read_json, read_text, write_text
from recipes import RULES, Config, improper, settings_text

FIELDS: dict[str, type | tuple[type, ...]] = {  # the fields of config.json that reports need, with their types
    "dataset": str, "corpus": str, "licence": str, "synthetic": bool, "corpus_digest": str, "classes": list,
    "split": str, "split_digest": str, "fold": (int, type(None)), "folds": (int, type(None)), "seed": int,
    "model": str, "hash": str, "settings": dict, "changed": dict,
    "n_train": int, "n_val": (int, type(None)), "n_test": int,
}  # fmt: skip
STATE = "state.safetensors"  # the file in a run folder from which an interrupted run goes on
TEXTS = ("epochs.jsonl", "split.json")  # the files of a run folder that pack.py compresses
# limits in bytes: in records made by somebody else, a small compressed file may unpack to more than the memory holds
LARGEST = 1 << 26  # for a text; 50 epochs take 20 kB
LARGEST_ARRAY = 1 << 30  # for predictions; 50 epochs of 1000 utterances take 1 MB
_T = TypeVar("_T")


class BrokenRecord(UserError):
    """The files of a run folder cannot be read; `folder` is that folder."""

    def __init__(self, folder: Path, text: str):
        super().__init__(text)
        self.folder = folder


@dataclass(frozen=True)
class Predictions:
    """The scored utterances of a test or validation part."""

    names: NDArray[np.str_]  # (U,)
    speakers: NDArray[np.str_]  # (U,)
    paths: NDArray[np.str_]  # (U,)
    labels: NDArray[np.int64]  # (U,)
    logits: NDArray[np.float32]  # (E, U, C): epochs, utterances, classes

    def take(self, positions: NDArray[np.int64]) -> "Predictions":
        """Return the predictions for only the utterances at these positions."""
        names, speakers, paths = self.names[positions], self.speakers[positions], self.paths[positions]
        return Predictions(names, speakers, paths, self.labels[positions], self.logits[:, positions])

    def scores(self) -> list[dict[str, Any]]:
        """Return for each epoch what `metrics.scores` gives."""
        return metrics.scores_by_epoch(self.logits, self.labels)


class Run:
    """One finished run. Its configuration is given; its epochs and predictions are read when they are asked for."""

    def __init__(self, folder: Path, config: dict[str, Any]):
        self.folder, self.config = folder, config
        self.dataset: str = config["dataset"]
        self.split: str = config["split"]
        self.model: str = config["model"]
        self.seed: int = config["seed"]
        self.fold: int | None = config["fold"]
        self.changed: dict[str, Any] = config["changed"]
        self.synthetic: bool = config["synthetic"]
        self.corpus_digest: str = config["corpus_digest"]
        self.n_test: int = config["n_test"]
        self.has_validation = bool(config["n_val"])
        self._picked: dict[str, int] = {}  # rule -> index of its epoch
        self._counts: dict[str, dict[str, NDArray[np.int64]]] = {}  # rule -> speaker -> counts

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the parts that were scored."""
        return ("test", "val") if self.has_validation else ("test",)

    @property
    def split_digest(self) -> str:
        return self.config["split_digest"]

    @property
    def own_rule(self) -> str:
        """The rule where none is asked for: `validation` if the run has a validation part, else `paper`."""
        return "validation" if self.has_validation else "paper"

    @cached_property
    def halved(self) -> "Halved":
        """This run of 8:2 read as 8:1:1."""
        return Halved(self)

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """The records of all epochs, checked to hold what tables and figures need. Raises BrokenRecord."""
        try:
            epochs = read_epochs(self.folder)
            for epoch in epochs:
                _check_epoch(epoch, self.parts, len(self.config["classes"]))
            if epochs and len(epochs) == self.config["settings"]["epochs"]:
                return epochs
            problem = f"it has {len(epochs)} epochs, which is not the number in config.json"
        except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
            if isinstance(error, OSError) and may_be_sound(error):
                raise
            problem = f"{type(error).__name__}: {error}"
        raise self.broken(f"{self.folder / 'epochs.jsonl'} is not a run's record ({problem})")

    def broken(self, text: str) -> BrokenRecord:
        """Return the error that says that this run's folder is damaged."""
        return BrokenRecord(self.folder, f"{text}; delete its folder and run again")

    def predictions(self, name: str) -> Predictions:
        """Return the predictions of the `test` or `val` part, read anew at each call. Raises BrokenRecord."""
        found = self._read_predictions(name)
        self._check_predictions(name, found)
        return found

    def _read_predictions(self, name: str) -> Predictions:
        """Return the arrays of one part as predictions.npz has them. Raises BrokenRecord."""
        file = self.folder / "predictions.npz"
        try:
            # the whole file is read first: if a read failed within zipfile, it would say that this is no zip file
            raw = io.BytesIO(read_bytes(file, LARGEST_ARRAY))
            with zipfile.ZipFile(raw) as members:
                # contiguous, as packed arrays have another memory order, and the order changes the rounding of sums
                arrays = (_array(members, f"{name}_{f.name}.npy") for f in fields(Predictions))
                return Predictions(*map(np.ascontiguousarray, arrays))
        except MemoryError:  # the file may be sound
            raise
        except Exception as error:  # NumPy passes on whatever its zip and header readers raise
            if isinstance(error, OSError) and may_be_sound(error):
                raise
            if "(missing) lzma" in str(error):  # what zipfile says in a Python that was built without liblzma
                text = f"{file} is packed (pack.py), and this Python lacks the module lzma: use one that has it"
                raise UserError(text) from None
            raise self.broken(f"{file} cannot be read ({error})") from None

    def _check_predictions(self, name: str, found: Predictions) -> None:
        """Raise BrokenRecord unless the arrays have the types and shapes that follow from the run's other records."""
        file = self.folder / "predictions.npz"
        shape = (len(self.epochs), self.config[f"n_{name}"], len(self.config["classes"]))
        if found.logits.shape != shape or found.logits.dtype.kind != "f":
            raise self.broken(f"{file} holds {name} logits of shape {found.logits.shape}, not {shape}")
        for what, kinds in {"names": "U", "speakers": "U", "paths": "U", "labels": "iu"}.items():
            each = getattr(found, what)
            if each.shape != shape[1:2] or each.dtype.kind not in kinds:
                raise self.broken(f"{file} holds {name} {what} {each.dtype} of shape {each.shape}, not {shape[1:2]}")
        if found.labels.dtype != np.int64 or not np.isin(found.labels, range(shape[2])).all():
            raise self.broken(f"{file}: {name} labels are not among the {shape[2]} classes, or not int64")

    def pick(self, rule: str) -> int:
        """Return the index into `epochs` of the epoch that a rule picks.

        Raises UserError for an unknown rule, and for `validation` where the split has no validation part.
        """
        if rule not in RULES:
            raise UserError(f"--rule {rule}: choose one of {', '.join(RULES)}")
        if rule == "validation" and not self.has_validation:
            raise no_validation(self.split)
        if rule not in self._picked:
            val = self.predictions("val") if rule == "validation" else None
            self._picked[rule] = metrics.pick_epoch(self.epochs, rule, (val.logits, val.labels) if val else None)
        return self._picked[rule]

    def scores(self, rule: str) -> dict[str, Any]:
        """Return the test scores in per cent, and the test `confusion`, of the epoch that a rule picks."""
        return self.epochs[self.pick(rule)]["test"]

    def counts(self, rule: str) -> dict[str, NDArray[np.int64]]:
        """Return each speaker's confusion counts `(C, C)` on the test part, in the epoch that a rule picks."""
        if rule not in self._counts:
            epoch, test = self.pick(rule), self.predictions("test")
            predicted, classes = test.logits[epoch].argmax(1), len(self.config["classes"])
            self._counts[rule] = {
                speaker: metrics.confusion_matrix(test.labels[own], predicted[own], classes)
                for speaker in np.unique(test.speakers).tolist()
                for own in [test.speakers == speaker]
            }
        return self._counts[rule]


def _array(members: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Return the array `name` of an .npz. Raises KeyError where it is missing, ValueError where it is too large, .."""
    with members.open(name) as f:
        np.lib.format.read_magic(f)
        shape, _, dtype = np.lib.format.read_array_header_1_0(f)
        if math.prod(shape) * dtype.itemsize > LARGEST_ARRAY:
            raise ValueError(f"{name} says that it has more than {LARGEST_ARRAY} bytes")
        f.seek(0)
        return np.lib.format.read_array(f, allow_pickle=False)


def _check_epoch(epoch: Any, parts: Sequence[str], classes: int) -> None:
    """Raise KeyError, TypeError, .. unless an epoch's record has the numbers that tables and figures need."""
    int(epoch["epoch"])
    for part in parts:
        if np.array(epoch[part]["confusion"], int).shape != (classes, classes):
            raise ValueError(f"a confusion matrix is not one of {classes} classes")
    # a sum from 0.0 refuses texts, and whole numbers that no float holds
    sum([epoch["train_loss"], *(epoch[part][score] for part in parts for score in metrics.SCORES)], 0.0)


def _text(file: Path) -> str:
    """Return the contents of a text file of a run folder, which pack.py may have replaced by its `.gz`.

    Raises OSError or ValueError where neither file is there or the file cannot be read.
    """
    packed = Path(f"{file}.gz")
    with suppress(FileNotFoundError):
        return read_text(file, LARGEST)
    try:
        with named(packed), gzip.open(packed) as f:
            return f.read(LARGEST).decode()
    except FileNotFoundError:  # neither file is there, or a repetition has meanwhile replaced the packed one
        return read_text(file, LARGEST)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{packed}: {error}") from None


def read_epochs(folder: Path) -> list[Any]:
    """Return the objects of `epochs.jsonl`, one an epoch. Raises OSError or ValueError where it cannot be read."""
    return [json.loads(line) for line in _text(folder / "epochs.jsonl").splitlines()]


def no_validation(split: str) -> UserError:
    """Return the error that says that a split has no validation part on which an epoch could be picked."""
    have = ", ".join(name for name, other in data.SPLITS.items() if other.has_validation)
    return UserError(
        f"--rule validation: the split {split} has no validation part; {have} have one. "
        "Runs of 8:2 can be read as 8:1:1: --split 8:1:1"
    )


class Halved(Run):
    """A run of 8:2 read as one of 8:1:1: trained on the same 80 %, its test part halved into validation and test."""

    def __init__(self, run: Run):
        half = run.n_test // 2
        super().__init__(run.folder, {**run.config, "split": "8:1:1", "n_val": half, "n_test": run.n_test - half})
        self.whole = run

    @cached_property
    def _positions(self) -> dict[str, NDArray[np.int64]]:
        val, test = data.halve(self.whole.n_test, self.seed)  # a broken record's n_test may be huge: check it before
        return {"val": val, "test": test}

    @cached_property
    def split_digest(self) -> str:
        parts = read_record(self.folder / "split.json")
        try:
            if len(parts["test"]) != self.whole.n_test:
                raise ValueError(f"its test part does not have {self.whole.n_test} utterances")
            val, test = ([parts["test"][i] for i in self._positions[name]] for name in ("val", "test"))
            return digest_of([parts["train"], val, test])
        except (KeyError, TypeError, ValueError) as error:
            raise self.broken(f"{self.folder / 'split.json'} is not a run's split ({error!r})") from None

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        whole = self.whole.predictions("test")
        val, test = (whole.take(self._positions[name]).scores() for name in ("val", "test"))
        return [{**epoch, "val": v, "test": t} for epoch, v, t in zip(self.whole.epochs, val, test, strict=True)]

    def predictions(self, name: str) -> Predictions:
        return self.whole.predictions("test").take(self._positions[name])


def trained_as(split: str) -> str:
    """Return the split to train for results on `split`: 8:2 for 8:1:1, as runs of 8:2 can be read as 8:1:1."""
    return "8:2" if split == "8:1:1" else split


def with_derived(runs: Sequence[Run]) -> list[Run]:
    """Return the runs and, after them, the runs of 8:2 once more, read as 8:1:1.

    A run of 8:2 is not read as 8:1:1 if it has a single test utterance, or if `runs` has a run of 8:1:1 of the same
    corpus, model, settings and seed.
    """

    def key(run: Run) -> tuple[str, str, str, str, int]:
        return run.dataset, run.corpus_digest, run.model, settings_text(run.changed), run.seed

    own = {key(run) for run in runs if run.split == "8:1:1"}
    return [*runs, *(run.halved for run in runs if run.split == "8:2" and run.n_test > 1 and key(run) not in own)]


def read_record(file: Path) -> Any:
    """Read a JSON file of a run folder. Raises BrokenRecord."""
    try:
        return read_json(file, "delete its folder and run again", _text)
    except UserError as error:
        raise BrokenRecord(file.parent, str(error)) from None


def read_run(folder: Path) -> Run:
    """Return the run in a folder. Raises BrokenRecord where config.json is not a run's configuration."""
    config = read_record(folder / "config.json")
    known = config if isinstance(config, dict) else {}
    wrong = [name for name, kind in FIELDS.items() if name not in known or not has_type(known[name], kind)]
    if wrong := wrong or improper(known["settings"]):
        text = f"{folder / 'config.json'} lacks a proper {', '.join(wrong)}; delete its folder and run again"
        raise BrokenRecord(folder, text)
    if odd := [name for name in ("dataset", "split", "model") if "/" in config[name] or "\0" in config[name]]:
        text = f"{folder / 'config.json'}: {odd[0]} {config[odd[0]]!r} is no name; delete its folder and run again"
        raise BrokenRecord(folder, text)  # reports make files that are named after these fields
    return Run(folder, config)


# ------------------------------------------------------------------------------------- folders, finished or not


def folders(root: Path) -> list[Path]:
    """Return every `<dataset>/<split>/<model>/<hash>/<seed>` under `root`, finished or not, sorted."""
    # if `root` is a level too low, the pattern also matches the folder `checkpoint` of a run, which is no run folder
    found = (p for p in root.glob("*/*/*/*/*") if not p.name.startswith(".") and p.name != "checkpoint")
    # other folders are no runs: git leaves empty folders, and a run that was refused may leave a folder with its lock
    return sorted(p for p in found if (p / "config.json").exists() or (p / "done").exists())


def levels(dataset: str, split: str, model: str, hashed: str, seed: int, fold: int | None) -> tuple[str, ...]:
    """Return the names of the folders on the path from `runs` to a run's folder."""
    return dataset, split.replace(":", "-"), model, hashed, str(seed) if fold is None else f"{seed}-fold{fold}"


def folder_of(config: Config, dataset: str, digest: str, runs: Path) -> Path:
    """Return the run folder of a configuration on a corpus with this digest."""
    names = levels(dataset, config.split, config.model, config.hash(digest), config.seed, config.fold)
    return runs.joinpath(*names)


def finished(folder: Path, save_model: str | None = None) -> bool:
    """Return whether a run is finished and, if `save_model` names a rule, has a checkpoint picked by that rule."""
    if not (folder / "done").is_file():
        return False
    return save_model is None or kept_rule(folder) == save_model


def finished_like(folder: Path) -> Run | None:
    """Return a finished run that differs from the run in `folder` only in seed or fold; None where there is none."""
    for done in sorted(folder.parent.glob("*/done")):
        with suppress(UserError):
            return read_run(done.parent)
    return None


def kept_rule(folder: Path) -> str | None:
    """Return the rule that picked the epoch of a run folder's checkpoint; None where it has no checkpoint."""
    try:
        rule = read_json(folder / "checkpoint" / "config.json").get("rule")
        return rule if (folder / "checkpoint" / "model.safetensors").is_file() else None
    except (UserError, AttributeError):  # there is no checkpoint, or its config.json is not a checkpoint's
        return None


def warn_of_replacement(folder: Path, save_model: str | None) -> None:
    """Warn where a finished run is about to be trained again for weights that it lacks, and of those that it loses."""
    if finished(folder):
        instead = f", which replace those of the rule {rule}" if (rule := kept_rule(folder)) else ""
        warn(f"{folder} is trained again for the weights of --save_model {save_model}{instead}")


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Hold a run folder, if it is free or, with `wait`, as soon as it is free; yield whether it is held.

    Afterwards the lock is removed, and so is the folder if nothing was written into it. Raises BrokenRecord where the
    folder, or something in it, is a link: in runs made by somebody else, a link may lead to any file of ours.
    """
    inside = (Path(where, name) for where, folders, files in os.walk(folder) for name in (*folders, *files))
    if link := next((each for each in (folder, *inside) if each.is_symlink()), None):
        text = f"{link} is a link, so that records would be written elsewhere; put what it leads to in its place"
        raise BrokenRecord(folder, text)
    with lock(folder / "lock", wait, f"{folder} is in use by another process, which is waited for") as mine:
        try:
            yield mine
        finally:
            if mine:
                with suppress(OSError):  # the folder is not empty, or the disk fails, which does no harm to a run
                    (folder / "lock").unlink(missing_ok=True)
                    folder.rmdir()


def open_again(folder: Path) -> None:
    """Make way for new records of a run: remove what says that it is done and that it has a checkpoint."""
    for name in ("done", "checkpoint/config.json"):
        (folder / name).unlink(missing_ok=True)


def finish(folder: Path) -> None:
    """Mark a run as finished: write `done`, the last of its files, by renaming the state if there is one.

    Because of the renaming, state and `done` are never there together (which would mean that a repetition is to go on),
    and a killed process leaves nothing to clean up. Old packed texts, which nothing overwrites, are removed first; a
    reader finds them or the new texts at any time. Raises UserError where files were deleted since they were written.
    """
    for text in TEXTS:
        (folder / f"{text}.gz").unlink(missing_ok=True)
    if gone := [name for name in ("config.json", *TEXTS, "predictions.npz") if not (folder / name).exists()]:
        raise UserError(f"{folder / gone[0]} went away while this run was trained; run the same command again")
    state, done = folder / STATE, folder / "done"
    if not state.exists():  # a run of one epoch writes none
        write_text(done, "")
        return
    state.replace(done)
    with suppress(OSError):  # the file is that of another user, who began the run, or the disk is full: it stays large
        os.truncate(done, 0)


def unfinished(root: Path) -> int:
    """Return how many run folders are begun but not finished."""
    return sum(not finished(folder) for folder in folders(root))


def runs(root: Path) -> list[Run]:
    """Return the finished runs under `root`, sorted by folder; broken ones are left out with a warning."""
    found = []
    for folder in folders(root):
        if finished(folder):
            try:
                found.append(read_run(folder))
            except BrokenRecord as error:
                warn(f"{error}; left out")
    return found


def leaving_out_broken(make: Callable[[list[Run]], _T], runs: Iterable[Run]) -> _T:
    """Return `make(runs)`; if it finds a run's records to be broken, warn and call it again without that run."""
    left = list(runs)
    while True:
        try:
            return make(left)
        except BrokenRecord as error:
            warn(f"{error}; left out")
            left = [run for run in left if run.folder != error.folder]
