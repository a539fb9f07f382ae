"""Run folders: where one lies, who holds it, whether it is finished; which epoch a rule picks, what it scored.

Nothing is recomputed that a run recorded, except where 8:2 is read as 8:1:1.
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
from files import digest_of, lock, may_be_sound, named, read_bytes, read_json, read_text, write_text
from recipes import RULES, Config, settings_text

FIELDS: dict[str, type | tuple[type, ...]] = {  # of config.json, as far as reports need them
    "dataset": str, "corpus": str, "licence": str, "synthetic": bool, "corpus_digest": str, "classes": list,
    "split": str, "split_digest": str, "fold": (int, type(None)), "folds": (int, type(None)), "seed": int,
    "model": str, "hash": str, "settings": dict, "changed": dict,
    "n_train": int, "n_val": (int, type(None)), "n_test": int,
}  # fmt: skip
STATE = "state.safetensors"  # of a run folder: what an interrupted run goes on from
TEXTS = ("epochs.jsonl", "split.json")  # of a run folder, which pack.py compresses
# bytes that are read; of another's records, a few may stand for a machine's memory
LARGEST = 1 << 26  # of a text; 50 epochs are 20 kB
LARGEST_ARRAY = 1 << 30  # of predictions; 50 epochs of 1000 utterances are 1 MB
_T = TypeVar("_T")


class BrokenRecord(UserError):
    """A run folder whose files cannot be read. `folder` is the run's."""

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
    logits: NDArray[np.float32]  # (E, U, C), of every epoch

    def take(self, positions: NDArray[np.int64]) -> "Predictions":
        """The utterances at these positions alone."""
        names, speakers, paths = self.names[positions], self.speakers[positions], self.paths[positions]
        return Predictions(names, speakers, paths, self.labels[positions], self.logits[:, positions])

    def scores(self) -> list[dict[str, Any]]:
        """What `metrics.scores` gives, epoch by epoch."""
        return metrics.scores_by_epoch(self.logits, self.labels)


class Run:
    """One finished run. Its configuration is read at once, its epochs and predictions when they are asked for."""

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
        self._picked: dict[str, int] = {}  # by rule
        self._counts: dict[str, dict[str, NDArray[np.int64]]] = {}  # by rule

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that were scored."""
        return ("test", "val") if self.has_validation else ("test",)

    @property
    def split_digest(self) -> str:
        return self.config["split_digest"]

    @property
    def own_rule(self) -> str:
        """The rule that its epoch is picked by where none is asked for: on validation data, if it has some."""
        return "validation" if self.has_validation else "paper"

    @cached_property
    def halved(self) -> "Halved":
        """This run of 8:2 read as 8:1:1."""
        return Halved(self)

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        """`read_epochs` of its folder, with all that tables and figures need. Raises BrokenRecord."""
        try:
            epochs = read_epochs(self.folder)
            for epoch in epochs:
                _check_epoch(epoch, self.parts, len(self.config["classes"]))
            if epochs and len(epochs) == self.config["settings"].get("epochs"):
                return epochs
            problem = f"it has {len(epochs)} epochs, not those that config.json says"
        except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError) as error:
            if isinstance(error, OSError) and may_be_sound(error):
                raise
            problem = f"{type(error).__name__}: {error}"
        raise self.broken(f"{self.folder / 'epochs.jsonl'} is not a run's record ({problem})")

    def broken(self, text: str) -> BrokenRecord:
        """The error that this run's folder is damaged."""
        return BrokenRecord(self.folder, f"{text}; delete its folder and run again")

    def predictions(self, name: str) -> Predictions:
        """The predictions of the `test` or the `val` part, read anew at each call. Raises BrokenRecord."""
        found = self._read_predictions(name)
        self._check_predictions(name, found)
        return found

    def _read_predictions(self, name: str) -> Predictions:
        """The arrays of one part as they lie in predictions.npz. Raises BrokenRecord."""
        file = self.folder / "predictions.npz"
        try:
            # at once: of a read that fails, zipfile says it is no zip file
            raw = io.BytesIO(read_bytes(file, LARGEST_ARRAY))
            with zipfile.ZipFile(raw) as members:
                # contiguous: packed ones are in another order, which sums depend on
                arrays = (_array(members, f"{name}_{f.name}.npy") for f in fields(Predictions))
                return Predictions(*map(np.ascontiguousarray, arrays))
        except MemoryError:  # which says nothing of the file
            raise
        except Exception as error:  # NumPy raises whatever its zip and header readers do
            if isinstance(error, OSError) and may_be_sound(error):
                raise
            if "(missing) lzma" in str(error):  # zipfile's words, of a Python built without liblzma
                text = f"{file} is packed (pack.py), and this Python lacks the module lzma: use one that has it"
                raise UserError(text) from None
            raise self.broken(f"{file} cannot be read ({error})") from None

    def _check_predictions(self, name: str, found: Predictions) -> None:
        """Raise BrokenRecord unless the arrays have the types and shapes that the other records say."""
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
        """Index into `epochs` of the epoch a rule reports. Raises UserError where the split has no validation part."""
        if rule not in RULES:
            raise UserError(f"--rule {rule}: choose one of {', '.join(RULES)}")
        if rule == "validation" and not self.has_validation:
            raise no_validation(self.split)
        if rule not in self._picked:
            val = self.predictions("val") if rule == "validation" else None
            self._picked[rule] = metrics.pick_epoch(self.epochs, rule, (val.logits, val.labels) if val else None)
        return self._picked[rule]

    def scores(self, rule: str) -> dict[str, Any]:
        """The test scores in per cent, and `confusion`, of the epoch a rule picks."""
        return self.epochs[self.pick(rule)]["test"]

    def counts(self, rule: str) -> dict[str, NDArray[np.int64]]:
        """Confusion counts `(C, C)` of each speaker's test utterances, in the epoch a rule picks."""
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
    """An array of an .npz. Raises ValueError, among others, where there is none or its header says it is too large."""
    with members.open(name) as f:
        np.lib.format.read_magic(f)
        shape, _, dtype = np.lib.format.read_array_header_1_0(f)
        if math.prod(shape) * dtype.itemsize > LARGEST_ARRAY:
            raise ValueError(f"{name} says that it has more than {LARGEST_ARRAY} bytes")
        f.seek(0)
        return np.lib.format.read_array(f, allow_pickle=False)


def _check_epoch(epoch: Any, parts: Sequence[str], classes: int) -> None:
    """Raise KeyError, TypeError, .. unless the record of an epoch has the numbers that tables and figures need."""
    int(epoch["epoch"])
    for part in parts:
        if np.array(epoch[part]["confusion"], int).shape != (classes, classes):
            raise ValueError(f"a confusion matrix is not one of {classes} classes")
    sum([epoch["train_loss"], *(epoch[part][score] for part in parts for score in metrics.SCORES)], 0.0)


def _text(file: Path) -> str:
    """A text file of a run folder, or what `gzip` made of it where a finished run's was compressed.

    Raises OSError or ValueError where there is none or it cannot be read.
    """
    packed = Path(f"{file}.gz")
    with suppress(FileNotFoundError):
        return read_text(file, LARGEST)
    try:
        with named(packed), gzip.open(packed) as f:
            return f.read(LARGEST).decode()
    except FileNotFoundError:  # there is neither, or it has been written anew meanwhile
        return read_text(file, LARGEST)
    except (EOFError, zlib.error) as error:
        raise ValueError(f"{packed}: {error}") from None


def read_epochs(folder: Path) -> list[Any]:
    """The objects of `epochs.jsonl`, one an epoch. Raises OSError or ValueError where it cannot be read."""
    return [json.loads(line) for line in _text(folder / "epochs.jsonl").splitlines()]


def no_validation(split: str) -> UserError:
    """The error that a split has no validation part to pick an epoch on."""
    have = ", ".join(name for name, other in data.SPLITS.items() if other.has_validation)
    return UserError(
        f"--rule validation: the split {split} has no validation part; {have} have one. "
        "Runs of 8:2 can be read as 8:1:1: --split 8:1:1"
    )


class Halved(Run):
    """An 8:2 run read as 8:1:1: trained on the same 80 %, its test utterances halved into validation and test."""

    def __init__(self, run: Run):
        half = run.n_test // 2
        super().__init__(run.folder, {**run.config, "split": "8:1:1", "n_val": half, "n_test": run.n_test - half})
        self.whole = run

    @cached_property
    def _positions(self) -> dict[str, NDArray[np.int64]]:
        val, test = data.halve(self.whole.n_test, self.seed)  # which may be any number: compare it before
        return {"val": val, "test": test}

    @cached_property
    def split_digest(self) -> str:
        parts = read_record(self.folder / "split.json")
        try:
            if len(parts["test"]) != self.whole.n_test:
                raise ValueError(f"its test part is not of {self.whole.n_test} utterances")
            val, test = ([parts["test"][i] for i in self._positions[name]] for name in ("val", "test"))
            return digest_of([parts["train"], val, test])
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise self.broken(f"{self.folder / 'split.json'} is not a run's split ({error!r})") from None

    @cached_property
    def epochs(self) -> list[dict[str, Any]]:
        whole = self.whole.predictions("test")
        val, test = (whole.take(self._positions[name]).scores() for name in ("val", "test"))
        return [{**epoch, "val": v, "test": t} for epoch, v, t in zip(self.whole.epochs, val, test, strict=True)]

    def predictions(self, name: str) -> Predictions:
        return self.whole.predictions("test").take(self._positions[name])


def trained_as(split: str) -> str:
    """The split to train for results on `split`: 8:2 for 8:1:1, which is read from its runs."""
    return "8:2" if split == "8:1:1" else split


def with_derived(runs: Sequence[Run]) -> list[Run]:
    """The runs, and those of 8:2 once more, read as 8:1:1. Not read so are a run with a single test utterance and one
    beside which there is a run of 8:1:1 of the same corpus, model, settings and seed."""

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
    """The run in a folder. Raises BrokenRecord where its configuration is not one."""
    config = read_record(folder / "config.json")
    known = config if isinstance(config, dict) else {}
    wrong = [name for name, kind in FIELDS.items() if name not in known or not isinstance(known[name], kind)]
    if wrong:
        text = f"{folder / 'config.json'} lacks a proper {', '.join(wrong)}; delete its folder and run again"
        raise BrokenRecord(folder, text)
    if odd := [name for name in ("dataset", "split", "model") if "/" in config[name] or "\0" in config[name]]:
        text = f"{folder / 'config.json'}: {odd[0]} {config[odd[0]]!r} is no name; delete its folder and run again"
        raise BrokenRecord(folder, text)  # files are called after them
    return Run(folder, config)


# ------------------------------------------------------------------------------------- folders, finished or not


def folders(root: Path) -> list[Path]:
    """Every `<dataset>/<split>/<model>/<hash>/<seed>` under `root`, finished or not, sorted."""
    # one level too deep, a run's checkpoint would be found, which is none
    found = (p for p in root.glob("*/*/*/*/*") if not p.name.startswith(".") and p.name != "checkpoint")
    # git leaves empty ones, and a run that was refused may leave its lock
    return sorted(p for p in found if (p / "config.json").exists() or (p / "done").exists())


def levels(dataset: str, split: str, model: str, hashed: str, seed: int, fold: int | None) -> tuple[str, ...]:
    """The names of the folders from `runs` down to a run's own."""
    return dataset, split.replace(":", "-"), model, hashed, str(seed) if fold is None else f"{seed}-fold{fold}"


def folder_of(config: Config, dataset: str, digest: str, runs: Path) -> Path:
    """The run folder of a configuration on a corpus with this digest."""
    names = levels(dataset, config.split, config.model, config.hash(digest), config.seed, config.fold)
    return runs.joinpath(*names)


def finished(folder: Path, save_model: str | None = None) -> bool:
    """Whether a run wrote all it had to, with a checkpoint by the rule asked for, if any."""
    if not (folder / "done").is_file():
        return False
    return save_model is None or kept_rule(folder) == save_model


def finished_like(folder: Path) -> Run | None:
    """A finished run that differs from the one in `folder` in its seed and fold alone; None where there is none."""
    for done in sorted(folder.parent.glob("*/done")):
        with suppress(UserError):
            return read_run(done.parent)
    return None


def kept_rule(folder: Path) -> str | None:
    """The rule by which a run folder's checkpoint was picked; None where it has none."""
    try:
        rule = read_json(folder / "checkpoint" / "config.json").get("rule")
        return rule if (folder / "checkpoint" / "model.safetensors").is_file() else None
    except (UserError, AttributeError):  # there is none, or it is not one
        return None


def warn_of_replacement(folder: Path, save_model: str | None) -> None:
    """Warn of a run that is about to be trained though it was finished, for weights it lacks, and of those it loses."""
    if finished(folder):
        instead = f", which replace those of the rule {rule}" if (rule := kept_rule(folder)) else ""
        warn(f"{folder} is trained again for the weights of --save_model {save_model}{instead}")


@contextmanager
def locked(folder: Path, wait: bool = False) -> Iterator[bool]:
    """Hold a run folder, if it is free or can be waited for; yields whether it is held. Afterwards its lock is gone,
    and so is the folder where nothing was written. Raises BrokenRecord where it, or something in it, is a link, which
    in another's runs may lead to any file of ours."""
    inside = (Path(where, name) for where, folders, files in os.walk(folder) for name in (*folders, *files))
    if link := next((each for each in (folder, *inside) if each.is_symlink()), None):
        text = f"{link} is a link, and what is written there would go elsewhere; put what it leads to in its place"
        raise BrokenRecord(folder, text)
    with lock(folder / "lock", wait, f"{folder} is in use by another process, which is waited for") as mine:
        try:
            yield mine
        finally:
            if mine:
                with suppress(OSError):  # the folder is not empty; or the disk fails, which changes nothing in a run
                    (folder / "lock").unlink(missing_ok=True)
                    folder.rmdir()


def open_again(folder: Path) -> None:
    """Make way for the new records of a run that may have old ones: it no longer counts as done, nor its weights as
    kept."""
    for name in ("done", "checkpoint/config.json"):
        (folder / name).unlink(missing_ok=True)


def finish(folder: Path) -> None:
    """Write `done`, last of all, by renaming the state, if there is one. At no moment are both there, as a state beside
    `done` means that a repetition is to go on; and a kill leaves nothing to clean up. Packed texts, which nothing
    overwrites, go first: whoever reads meanwhile finds these or the new ones. Raises UserError where somebody has
    deleted the folder, or some of it, since records were written."""
    for text in TEXTS:
        (folder / f"{text}.gz").unlink(missing_ok=True)
    if gone := [name for name in ("config.json", *TEXTS, "predictions.npz") if not (folder / name).exists()]:
        raise UserError(f"{folder / gone[0]} went away while this run was trained; run the same command again")
    state, done = folder / STATE, folder / "done"
    if not state.exists():  # of a single epoch
        write_text(done, "")
        return
    state.replace(done)
    with suppress(OSError):  # another user's, who began the run, or no room to make room: it stays as long as it was
        os.truncate(done, 0)


def unfinished(root: Path) -> int:
    """How many run folders are begun and not finished."""
    return sum(not finished(folder) for folder in folders(root))


def runs(root: Path) -> list[Run]:
    """The finished runs under `root`, sorted by folder; broken ones are left out with a warning."""
    found = []
    for folder in folders(root):
        if finished(folder):
            try:
                found.append(read_run(folder))
            except BrokenRecord as error:
                warn(f"{error}; left out")
    return found


def leaving_out_broken(make: Callable[[list[Run]], _T], runs: Iterable[Run]) -> _T:
    """`make(runs)`, without the runs whose records turn out to be broken on the way; each is named in a warning."""
    left = list(runs)
    while True:
        try:
            return make(left)
        except BrokenRecord as error:
            warn(f"{error}; left out")
            left = [run for run in left if run.folder != error.folder]
