"""Corpora by name, splits by name, and the arrays that a run trains on."""

import importlib
import itertools
import pkgutil
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import audio
import corpora
import handleIEMOCAP
import path
from cache import content_digests
from cli import UserError, cores, warn, warn_once
from corpora import Utterance, csv_file, dataset_folder, is_csv
from files import digest_of, lock
from recipes import Config

IEMOCAP_CLASSES = {"neu": "neutral", "sad": "sad", "ang": "angry"}  # beside one or two codes for happy
DATA_SETTINGS = ("dataset", "test_dataset", "happy", "classes", "feature", "n_mfcc", "segment_length", "train_overlap",
                 "test_overlap", "padding", "device")  # runs that agree in these settings share their data  # fmt: skip
HEARD = 12  # hexadecimal digits of a recording's digest that a checkpoint keeps
IEMOCAP_LICENCE = "IEMOCAP release licence (USC SAIL): research use on request; recordings may not be passed on"


# ------------------------------------------------------------------------------------------------- corpora


@dataclass(frozen=True)
class Corpus:
    """A labelled list of utterances. The order of the list is what a seed's split refers to."""

    dataset: str  # as run folders call it
    name: str
    licence: str
    synthetic: bool
    classes: tuple[str, ...]
    utterances: tuple[Utterance, ...]
    labels: NDArray[np.int64]  # (U,) indices into classes
    first_synthetic: bool = False  # of two corpora, whether the training corpus is synthetic


@dataclass(frozen=True)
class Source:
    """A corpus as it was found, before classes are chosen; `corpus` turns it into a Corpus."""

    name: str
    licence: str
    utterances: Sequence[Utterance]
    class_of: dict[str, str]  # each emotion code that is used -> the class that it means, in the order of classes
    synthetic: bool = False


def _iemocap(root: Path, kinds: tuple[str, ...], happy: str) -> Source:
    class_of = IEMOCAP_CLASSES | dict.fromkeys(happy.split("+"), "happy")
    release = handleIEMOCAP.find_release(root)
    found = handleIEMOCAP.index(release)
    utterances = [u for u in found if u.kind in kinds]
    if handleIEMOCAP.is_synthetic(release):
        return Source("synthetic", "none needed: made by corpora/synthetic.py", utterances, class_of, synthetic=True)
    if len(found) != handleIEMOCAP.FULL_TOTAL:  # a part of IEMOCAP, or another corpus in its layout
        licence = f"as its owner says; of IEMOCAP's recordings: {IEMOCAP_LICENCE}"
        return Source(f"IEMOCAP's layout, {len(found)} utterances", licence, utterances, class_of)
    return Source("IEMOCAP", IEMOCAP_LICENCE, utterances, class_of)


def _demo(happy: str) -> Source:
    from corpora import synthetic

    root = path.CACHE / f"synthetic-{synthetic.VERSION}"
    if not root.exists():  # checked before locking, as a complete cache may be read-only
        with lock(root.with_suffix(".lock")):
            if not root.exists():
                for stale in root.parent.glob(f".{root.name}.*.tmp"):  # left by a killed process
                    shutil.rmtree(stale, ignore_errors=True)
                synthetic.make(root)
    return _iemocap(root, ("impro", "script"), happy)


def _module(name: str, happy: str) -> Source:
    """Return the corpus that `corpora/<name>.py` reads; `happy`, which only IEMOCAP has, is not used."""
    module, file = importlib.import_module(f"corpora.{name}"), f"corpora/{name}.py"
    if lacking := [each for each in ("NAME", "LICENCE", "CLASSES", "utterances") if not hasattr(module, each)]:
        raise UserError(f"{file} lacks {', '.join(lacking)}: corpora/emodb.py shows what a corpus is")
    if not isinstance(module.CLASSES, dict):
        raise UserError(f"{file}: CLASSES must say which class each emotion code is, as in {{'N': 'neutral'}}")
    variable = name.upper()
    root = Path(getattr(path, variable))
    where = f"set {variable} in path.py, or the environment variable {variable}, to the folder of its recordings"
    if not root.is_dir():
        raise UserError(f"{module.NAME} was looked for in {root}, which is not a folder: {where}")
    if not (utterances := module.utterances(root)):
        raise UserError(f"{module.NAME}: {file} finds no utterance in {root}: {where}")
    if twice := [called for called, count in Counter(u.name for u in utterances).items() if count > 1]:
        raise UserError(f"{file} calls two utterances {twice[0]}: each needs a name of its own")
    if odd := Counter(u.emotion for u in utterances if u.emotion not in module.CLASSES):
        warn_once(
            f"{module.NAME}: {odd.total()} utterances of the codes {', '.join(sorted(odd))} are left out: {file} "
            "has no class for them in CLASSES"
        )
    return Source(module.NAME, module.LICENCE, utterances, module.CLASSES)


DATASETS: dict[str, Callable[[str], Source]] = {  # name -> happy (IEMOCAP's --happy) -> Source
    "impro": lambda happy: _iemocap(path.IEMOCAP, ("impro",), happy),
    "script": lambda happy: _iemocap(path.IEMOCAP, ("script",), happy),
    "all": lambda happy: _iemocap(path.IEMOCAP, ("impro", "script"), happy),
    "demo": _demo,
    **{  # corpora/emodb.py is the dataset emodb, in the folder path.EMODB
        module.name: partial(_module, module.name)
        for module in pkgutil.iter_modules(corpora.__path__)
        if hasattr(path, module.name.upper())
    },
}


def _csv(file: Path) -> Source:
    found = csv_file.utterances(file)
    emotions = sorted({u.emotion for u in found})
    return Source(file.stem, "as its owner says", found, {emotion: emotion for emotion in emotions})


def _source(dataset: str, happy: str) -> Source:
    """Return a dataset by its name or CSV file. Raises UserError, with the choices, if there is no such dataset."""
    if is_csv(dataset):
        return _csv(Path(dataset))
    if dataset in DATASETS:
        return DATASETS[dataset](happy)
    hint = ""
    if Path(dataset).is_dir():
        hint = "; a folder of recordings needs one with each recording's emotion"
    elif Path(dataset).is_file():
        hint = "; its name must end in .csv"
    names = f"{', '.join(DATASETS)}, or a CSV file{hint}"
    raise UserError(f"dataset {dataset}: choose one of {names} (a module in corpora/ needs its line in path.py)")


def corpus(dataset: str, happy: str = "exc", classes: Sequence[str] = (), test_dataset: str = "") -> Corpus:
    """Return the labelled utterances of a dataset (a name or a CSV file) or, with `test_dataset`, of two.

    Raises UserError for an unknown dataset or class (with the choices), and if nothing is left to train on.
    """
    if test_dataset:
        return _two_corpora(dataset, test_dataset, happy, classes)
    source = _source(dataset, happy)
    available = tuple(dict.fromkeys(source.class_of.values()))
    if unknown := [c for c in classes if c not in available]:
        raise UserError(f"--classes {','.join(unknown)}: {dataset} has {', '.join(available)}")
    names = tuple(dict.fromkeys(classes)) or available
    label_of = {code: names.index(name) for code, name in source.class_of.items() if name in names}
    utterances = tuple(u for u in source.utterances if u.emotion in label_of)
    if not utterances:
        raise UserError(f"{dataset} has no utterance of {', '.join(names) or 'any class'}")
    if len(available) < 2:
        raise UserError(f"{dataset} has the class {names[0]} alone; a classifier needs two or more")
    if len(names) < 2:
        raise UserError(f"--classes {names[0]}: a classifier needs two or more of {', '.join(available)}")
    labels = np.array([label_of[u.emotion] for u in utterances], dtype=np.int64)
    return Corpus(dataset_folder(dataset), source.name, source.licence, source.synthetic, names, utterances, labels)


@dataclass(frozen=True)
class Foreign(Utterance):
    """An utterance of the corpus that `--test` names: the split `cross` tests on these and trains on the others."""


def _two_corpora(dataset: str, test_dataset: str, happy: str, classes: Sequence[str]) -> Corpus:
    """Return the corpus to train on, followed by the one to test on, with the classes that both have.

    The first corpus's name is put before its utterances' names and speakers, as two corpora may use the same ones.
    """
    here, there = corpus(dataset, happy), corpus(test_dataset, happy)
    _check_apart(dataset, here, test_dataset, there)
    shared = tuple(c for c in here.classes if c in there.classes)
    if len(shared) < 2:
        raise UserError(
            f"{dataset} has {', '.join(here.classes)} and {test_dataset} has {', '.join(there.classes)}: a "
            "classifier needs two classes that both have"
        )
    if not classes:
        for name, side in ((dataset, here), (test_dataset, there)):
            _warn_of_lost_classes(name, side, shared)
    if unknown := [c for c in classes if c not in shared]:
        raise UserError(f"--classes {','.join(unknown)}: {dataset} and {test_dataset} share {', '.join(shared)}")
    here, there = (corpus(name, happy, classes or shared) for name in (dataset, test_dataset))
    own = [
        replace(u, name=f"{here.dataset}:{u.name}", speaker=u.speaker and f"{here.dataset}:{u.speaker}")
        for u in here.utterances
    ]
    return Corpus(
        dataset=f"{here.dataset}-to-{there.dataset}",
        name=f"{here.name}, tested on {there.name}",
        licence=here.licence,
        synthetic=here.synthetic or there.synthetic,
        classes=here.classes,
        utterances=(*own, *(Foreign(**asdict(u)) for u in there.utterances)),
        labels=np.concatenate([here.labels, there.labels]),
        first_synthetic=here.synthetic,
    )


def _warn_of_lost_classes(name: str, corpus: Corpus, shared: Sequence[str]) -> None:
    """Warn of the utterances that are left out because the other corpus does not have their classes."""
    lost = [c for c in corpus.classes if c not in shared]
    if lost:
        count = int(np.isin(corpus.labels, [corpus.classes.index(c) for c in lost]).sum())
        warn_once(f"{name}: its {count} utterances of {', '.join(lost)} are left out: the other corpus lacks these")


def _check_apart(dataset: str, here: Corpus, test_dataset: str, there: Corpus) -> None:
    """Raise UserError if two corpora share recordings or are one corpus's; warn if only speakers' names are shared."""
    flags = f"--train {dataset} --test {test_dataset}"
    n, files = len(here.utterances), [u.path for u in (*here.utterances, *there.utterances)]
    contents = content_digests(files)  # equal contents are found whatever the files are called
    trained = dict(zip(contents[:n], files[:n], strict=True))
    tested = dict(zip(contents[n:], files[n:], strict=True))
    if both := (trained.keys() & tested.keys()) - {""}:
        first = min(both, key=lambda digest: tested[digest])
        raise UserError(
            f"{flags}: {len(both)} recordings are in both, as {trained[first]} and {tested[first]}; what is "
            "trained on cannot be tested on"
        )
    if not (speakers := ({u.speaker for u in here.utterances} & {u.speaker for u in there.utterances}) - {""}):
        return
    if is_csv(dataset) or is_csv(test_dataset):
        warn_once(
            f"{flags}: both have speakers called {', '.join(sorted(speakers))}; if these are the same people, "
            "the scores are too good"
        )
    elif here.name == there.name:
        raise UserError(
            f"{flags}: both are {here.name}, spoken by the same people; to test on unheard speakers use "
            "--dataset all --split speaker"
        )


def corpus_digest(corpus: Corpus) -> str:
    """Return a digest of every utterance's entries and bytes, so that a run on other data gets another folder."""
    contents = content_digests([u.path for u in corpus.utterances])
    rows = [
        [u.name, u.speaker, u.session, u.dialog, corpus.classes[y], c, *([u.split] if u.split else [])]
        for u, y, c in zip(corpus.utterances, corpus.labels, contents, strict=True)
    ]
    return digest_of(rows)


def corpus_of(config: Config) -> Corpus:
    """Return the corpus that a configuration names, or the two as one."""
    return corpus(config.dataset, config.happy, config.classes, config.test_dataset)


@cache
def _first_look(dataset: str, happy: str, classes: tuple[str, ...], test_dataset: str) -> tuple[Corpus, str]:
    whole = corpus(dataset, happy, classes, test_dataset)
    return whole, corpus_digest(whole)


def first_look(config: Config) -> tuple[Corpus, str]:
    """Return what `corpus_of` returned when it was first asked for, and the digest of the corpus at that time."""
    return _first_look(config.dataset, config.happy, config.classes, config.test_dataset)


def identity(config: Config) -> tuple[str, str]:
    """Return the name of a configuration's corpus in the runs folder, and its digest."""
    whole, digest = first_look(config)
    return whole.dataset, digest


# -------------------------------------------------------------------------------------------------- splits


@dataclass(frozen=True)
class Parts:
    """Utterance indices of the three parts. The order of `train` is the order of the training segments."""

    train: NDArray[np.int64]
    val: NDArray[np.int64] | None
    test: NDArray[np.int64]


Divide = Callable[[Sequence[Utterance], int, int], Parts]  # utterances, seed, fold from 0; seed or fold may not matter
Folds = Callable[[Sequence[Utterance]], int]
Check = Callable[[Sequence[Utterance]], object]  # raises NoSplit


@dataclass(frozen=True)
class Split:
    """A way to divide utterances: call it with the utterances, a seed and, if it has `folds`, a fold from 0."""

    name: str
    divide: Divide
    has_validation: bool
    folds: Folds | None
    check: Check | None = None  # for a split whose `folds` does not raise NoSplit

    def __call__(self, utterances: Sequence[Utterance], seed: int, fold: int | None = None) -> Parts:
        count = self.folds(utterances) if self.folds else None
        if count is None and fold is not None:
            raise UserError(f"--fold {fold}: the split {self.name} has no folds; its seed alone decides it")
        if count is not None and (fold is None or not 0 <= fold < count):
            raise UserError(f"--fold {fold}: the split {self.name} has the folds 0 to {count - 1} here")
        parts = self.divide(utterances, seed, fold or 0)
        for part, rows in (("training", parts.train), ("validation", parts.val), ("test", parts.test)):
            if rows is not None and len(rows) == 0:
                raise UserError(
                    f"--split {self.name}: {len(utterances)} utterances are too few: the {part} part is "
                    "empty; choose another split"
                )
        every = np.concatenate([rows for rows in (parts.train, parts.val, parts.test) if rows is not None])
        if len(np.unique(every)) < len(every):
            raise UserError(f"--split {self.name}: its function puts an utterance into two parts, or twice into one")
        return parts


SPLITS: dict[str, Split] = {}


def split(
    name: str, validation: bool = True, folds: Folds | None = None, check: Check | None = None
) -> Callable[[Divide], Divide]:
    """Register a function (utterances, seed, fold) -> Parts as a split. Add its name to the help text in flags.py."""

    def register(divide: Divide) -> Divide:
        naming = _naming(name)
        SPLITS[name] = Split(name, naming(divide), validation, folds and naming(folds), check and naming(check))
        return divide

    return register


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Put the split's name before what a NoSplit says; also a decorator."""
    try:
        yield
    except NoSplit as error:
        raise NoSplit(f"--split {name}: {error}") from None


def published_draw(n: int, seed: int) -> tuple[NDArray[np.int64], np.random.RandomState]:
    """Return the published choice of training utterances among `n`, in the order drawn, and the generator after it.

    Mixup goes on drawing from that generator, so every run makes this draw, whether or not its split uses it.
    """
    generator = np.random.RandomState(seed)
    return generator.choice(range(n), int(n * 0.8), replace=False), generator


def halve(n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which of the `n` test utterances of 8:2 are validation and which test in 8:1:1: positions, ascending.

    They are drawn from a generator of their own, so that training draws the same numbers with either split.
    """
    order = np.random.default_rng([811, seed]).permutation(n)
    return np.sort(order[: n // 2]), np.sort(order[n // 2 :])


def _rest(n: int, *taken: NDArray) -> NDArray[np.int64]:
    """Return the indices below `n` that are not `taken`, ascending."""
    return np.setdiff1d(np.arange(n), np.concatenate(taken))


@split("8:2", validation=False)
def _eight_two(utterances: Sequence[Utterance], seed: int, fold: int) -> Parts:
    train, _ = published_draw(len(utterances), seed)
    return Parts(train, None, _rest(len(utterances), train))


@split("8:1:1")
def _eight_one_one(utterances: Sequence[Utterance], seed: int, fold: int) -> Parts:
    whole = _eight_two(utterances, seed, fold)
    val, test = halve(len(whole.test), seed)
    return Parts(whole.train, whole.test[val], whole.test[test])


class NoSplit(UserError):
    """The error for a split that a corpus cannot have: it says too little of speakers, sessions, dialogs or parts."""


def _values(utterances: Sequence[Utterance], what: str) -> list[str]:
    """Return the speakers, sessions or dialogs, sorted. Raises NoSplit if one is unknown or there are fewer than 3."""
    values = sorted({getattr(u, what) for u in utterances})
    if "" in values:
        count = sum(getattr(u, what) == "" for u in utterances)
        raise NoSplit(
            f"of {len(utterances)} utterances {count} have no {what}; a CSV file gives it in the column {what}, and "
            "--split 8:1:1 does without"
        )
    if len(values) < 3:  # one for each part
        raise NoSplit(
            f"it needs at least 3 {what}s; this corpus has {', '.join(values)} alone (in utterances as long as a "
            "segment; --padding keeps shorter ones)"
        )
    return values


def _where(utterances: Sequence[Utterance], what: str, value: str) -> NDArray[np.int64]:
    """Return the indices of the utterances of one speaker, session or dialog."""
    return np.array([i for i, u in enumerate(utterances) if getattr(u, what) == value], dtype=np.int64)


def _sessions(utterances: Sequence[Utterance]) -> list[str]:
    """Return the sessions, sorted. Raises NoSplit also if a speaker is in two sessions; warns of unknown speakers."""
    session_of: dict[str, str] = {}
    for u in utterances:
        if u.speaker and session_of.setdefault(u.speaker, u.session) != u.session:
            raise NoSplit(
                f"the speaker {u.speaker} is in the sessions {session_of[u.speaker]} and {u.session}, so that a "
                "session left out is not one of unheard speakers; --split speaker leaves speakers out"
            )
    sessions = _values(utterances, "session")
    if unknown := sum(not u.speaker for u in utterances):
        warn_once(
            f"{unknown} of {len(utterances)} utterances have no speaker: whether a session left out is one of unheard "
            "speakers is not known"
        )
    return sessions


@split("session", folds=lambda utterances: len(_sessions(utterances)))
def _session(utterances: Sequence[Utterance], seed: int, fold: int) -> Parts:
    """Test on session k, validate on the next one and train on the others. No speaker may be in two sessions."""
    sessions = _sessions(utterances)
    test = _where(utterances, "session", sessions[fold])
    val = _where(utterances, "session", sessions[(fold + 1) % len(sessions)])
    return Parts(_rest(len(utterances), val, test), val, test)


@split("superb", folds=lambda utterances: len(_sessions(utterances)))
def _superb(utterances: Sequence[Utterance], seed: int, fold: int) -> Parts:
    """Test on session k and validate on a fifth of the other sessions' utterances, by seed. SUPERB trains so on IEMOCAP
    (Yang et al., Interspeech 2021), but its code draws another fifth."""
    test = _where(utterances, "session", _sessions(utterances)[fold])
    others = np.random.default_rng([815, seed, fold]).permutation(_rest(len(utterances), test))
    val = np.sort(others[: round(len(others) / 5)])
    return Parts(_rest(len(utterances), val, test), val, test)


@split("speaker", folds=lambda utterances: len(_values(utterances, "speaker")))
def _speaker(utterances: Sequence[Utterance], seed: int, fold: int) -> Parts:
    """Test on one speaker and validate on the session's other one or, if a session does not have two, on the next."""
    speakers = _values(utterances, "speaker")
    session_of = {u.speaker: u.session for u in utterances}
    speaker = speakers[fold]
    partners = [s for s in speakers if session_of[s] == session_of[speaker] != "" and s != speaker]
    other = partners[0] if len(partners) == 1 else speakers[(fold + 1) % len(speakers)]
    test, val = _where(utterances, "speaker", speaker), _where(utterances, "speaker", other)
    return Parts(_rest(len(utterances), val, test), val, test)


def scenario(utterance: Utterance) -> str:
    """Return the improvised scene or the script that an IEMOCAP dialog plays, whoever plays it; else the dialog itself.

    `Ses03M_impro05a` -> `impro05` (the a and b parts of a scene are one), `Ses05M_script01_1b` -> `script01_1`.
    """
    match = re.fullmatch(r"Ses\d\d[FM]_(impro\d\d|script\d\d_\d)[ab]?", utterance.dialog)
    return match[1] if match else utterance.dialog


def _scenarios(utterances: Sequence[Utterance]) -> NDArray[np.str_]:
    """Return the scenario of each utterance. Raises NoSplit if a dialog is unknown or there are fewer than three."""
    _values(utterances, "dialog")
    scenarios = np.array([scenario(u) for u in utterances])
    if len(there := np.unique(scenarios)) < 3:
        raise NoSplit(f"it needs at least 3 scenarios; this corpus has {', '.join(there)} alone")
    return scenarios


@split("dialog", check=_scenarios)
def _dialog(utterances: Sequence[Utterance], seed: int, fold: int) -> Parts:
    """Divide the scenarios 80/10/10, by seed, at least one each: no sentence or scene heard in training is tested."""
    scenarios = _scenarios(utterances)
    groups = np.random.default_rng([811, seed]).permutation(np.unique(scenarios))
    few = max(1, round(len(groups) / 10))
    val, test = (np.flatnonzero(np.isin(scenarios, part)) for part in (groups[:few], groups[few : 2 * few]))
    return Parts(_rest(len(utterances), val, test), val, test)


def _given_parts(utterances: Sequence[Utterance]) -> list[NDArray[np.int64]]:
    """Return the utterances of training, validation and test, as the corpus's column `split` says. Raises NoSplit if an
    utterance names no part, or if a part has no utterance."""
    synonyms = {"training": "train", "dev": "val", "development": "val", "valid": "val", "validation": "val"}
    said = np.array([synonyms.get(u.split.lower(), u.split.lower()) for u in utterances])
    if odd := [u for u, part in zip(utterances, said, strict=True) if part not in ("train", "val", "test")]:
        named = f"{len(odd)} name no part, such as {odd[0].name} ({odd[0].split!r})"
        raise NoSplit(
            f"of {len(utterances)} utterances, {named}; a CSV file says train, val or test in the column split"
        )
    if gone := [part for part in ("train", "val", "test") if part not in said]:
        raise NoSplit(
            f"no utterance is in the part {gone[0]}, or none as long as a segment (--padding keeps shorter ones); a "
            "CSV file says train, val and test in the column split, and without val, --train A.csv --test B.csv "
            "chooses one"
        )
    return [np.flatnonzero(said == part) for part in ("train", "val", "test")]


@split("given", check=_given_parts)
def _given(utterances: Sequence[Utterance], seed: int, fold: int) -> Parts:
    """Use the parts that a CSV's column `split` names, as a corpus was published; they are the same for every seed."""
    return Parts(*_given_parts(utterances))


@split("cross")
def _cross(utterances: Sequence[Utterance], seed: int, fold: int) -> Parts:
    """Test on all of `--test`'s corpus, and validate on a tenth of the other's speakers, by seed, at least one.

    If not all speakers are known, or if there is only one, validate on a tenth of the utterances.
    """
    test = np.array([i for i, u in enumerate(utterances) if isinstance(u, Foreign)], dtype=np.int64)
    if len(test) == 0:
        raise UserError("--split cross tests on a second corpus; name it with --test")
    own = _rest(len(utterances), test)
    group_of = np.array([utterances[i].speaker for i in own])
    unknown = int((group_of == "").sum())
    if 0 < unknown < len(own):
        warn_once(
            f"--train: {unknown} of {len(own)} utterances have no speaker; validation is a tenth of the "
            "utterances instead of the speakers"
        )
    if unknown or len(np.unique(group_of)) == 1:
        group_of = own  # each utterance by itself
    groups = np.random.default_rng([813, seed]).permutation(np.unique(group_of))
    val = own[np.isin(group_of, groups[: max(1, round(len(groups) / 10))])]
    return Parts(_rest(len(utterances), val, test), val, test)


def split_by_name(name: str) -> Split:
    """Return the split called `name`. Raises UserError, with the choices, if there is none."""
    if name not in SPLITS:
        raise UserError(f"--split {name}: choose one of {', '.join(SPLITS)}")
    return SPLITS[name]


def split_record(utterances: Sequence[Utterance], parts: Parts) -> dict[str, Any]:
    """Return the utterances' names in each part, those of training in the order drawn, and the names' digest."""
    lists = [
        None if rows is None else [utterances[i].name for i in rows] for rows in (parts.train, parts.val, parts.test)
    ]
    return {"digest": digest_of(lists), "train": lists[0], "val": lists[1], "test": lists[2]}


# ------------------------------------------------------------------------------------------------- tensors


@dataclass(frozen=True)
class Segments:
    """The features of every segment of every utterance at one overlap, memory-mapped."""

    x: NDArray[np.float32]  # (S, F, T)
    starts: NDArray[np.int64]  # (U,) first row of each utterance
    counts: NDArray[np.int64]  # (U,) how many rows each utterance has

    def rows(self, utterances: NDArray) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the rows of these utterances, one utterance after the other, each in the order of time, and for each
        row the position of its utterance in `utterances`."""
        counts = self.counts[utterances]
        owner = np.repeat(np.arange(len(utterances)), counts)
        offset = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.starts[utterances][owner] + offset, owner


@dataclass(frozen=True)
class Data:
    """A corpus ready for training: its usable utterances and their segments."""

    corpus: Corpus
    train: Segments  # of all utterances, at the overlap for training
    test: Segments  # of all utterances, at the overlap for scoring; the same object as `train` if that is equal
    digest: str  # of the whole corpus, including utterances that are too short
    dropped: tuple[str, ...]  # names of utterances shorter than a segment
    bad: tuple[tuple[str, str], ...]  # (name, reason) of broken recordings left out
    contents: tuple[str, ...] = ()  # digests of the usable utterances' recordings
    warp: tuple[NDArray[np.float32], NDArray[np.int64]] | None = None  # on a worker: what `warped` returned

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of a segment's features, (F, T)."""
        return self.train.x.shape[1], self.train.x.shape[2]


def changed_meanwhile(what: str) -> UserError:
    """Return the error for a corpus or a recording that has changed since `identity` was called."""
    again = "give the command again (in Python, call data.forget() first)"
    return UserError(f"{what} has changed since this command began, or could be read only one of two times: {again}")


def load(config: Config, skip_bad: bool = False) -> Data:
    """Return the data that a run of `config` trains and is scored on; extracted once, then read from the cache.

    Raises UserError for an unknown dataset or feature, broken recordings, a class without a usable utterance, and a
    corpus that has changed since `identity` was called.
    """
    return _load(Config(**{name: getattr(config, name) for name in DATA_SETTINGS}), skip_bad)


@lru_cache(maxsize=16)  # maps of files, so they take little memory
def _load(config: Config, skip_bad: bool) -> Data:
    import features

    whole = corpus_of(config)
    _, digest = identity(config)
    if corpus_digest(whole) != digest:  # a sweep looks at all its corpora first, and may load one hours later
        raise changed_meanwhile(whole.dataset)

    def store(overlap: float) -> features.Store:
        return features.load(whole.utterances, config.feature, config.segment_length, overlap, config.n_mfcc,
                             config.padding, config.device, skip_bad)  # fmt: skip

    first = store(config.train_overlap)
    if first.x.ndim != 3:
        given = f"(S, {', '.join(map(str, first.x.shape[1:]))})"
        raise UserError(f"--feature {config.feature} gives {given} for S segments, but a feature gives (S, F, T)")
    second = first if config.test_overlap == config.train_overlap else store(config.test_overlap)
    keep = np.flatnonzero(first.counts > 0)
    usable = replace(whole, utterances=tuple(whole.utterances[i] for i in keep), labels=whole.labels[keep])
    contents = tuple(first.digests[i] for i in keep)
    _refuse_empty_classes(config, whole, keep, first.bad)
    _check_usable(config, whole, len(usable.utterances))
    _warn_of_copies(config, usable, contents)
    train = Segments(first.x, first.starts[keep], first.counts[keep])
    test = train if second is first else Segments(second.x, second.starts[keep], second.counts[keep])
    bad = {name for name, _ in first.bad}
    short = tuple(u.name for u, n in zip(whole.utterances, first.counts, strict=True) if n == 0 and u.name not in bad)
    if 3 * len(short) > len(whole.utterances):
        warn(
            f"{len(short)} of {len(whole.utterances)} utterances are shorter than {config.segment_length} s and are "
            "left out: --padding keeps them, --segment_length changes it"
        )
    return Data(usable, train, test, digest, short, tuple(first.bad), contents)


def _refuse_empty_classes(config: Config, whole: Corpus, keep: NDArray, bad: Sequence[tuple[str, str]]) -> None:
    """Raise UserError if a class has none of the usable utterances `keep`, of two corpora in either one."""
    foreign = np.array([isinstance(u, Foreign) for u in whole.utterances])
    sides = [(False, config.dataset)]
    if config.test_dataset:
        sides.append((True, config.test_dataset))
    for (side, name), label in itertools.product(sides, range(len(whole.classes))):
        own = (foreign == side) & (whole.labels == label)
        if own[keep].any():
            continue
        wanted = f"utterance of the class {whole.classes[label]}"
        if not own.any():
            raise UserError(f"{name} has no {wanted}; --classes picks classes")
        broken = f"; {len(bad)} recordings are broken, as {bad[0][1]}" if bad else ""
        raise UserError(
            f"{name} has no usable {wanted} (at least {config.segment_length} s long; --padding keeps "
            f"shorter ones, --classes picks classes){broken}"
        )


def _warn_of_copies(config: Config, usable: Corpus, contents: Sequence[str]) -> None:
    """Warn of recordings that have the same bytes under other names."""
    if twice := [digest for digest, count in Counter(contents).items() if count > 1]:
        first, second, *_ = (u.name for u, copy in zip(usable.utterances, contents, strict=True) if copy == twice[0])
        where, danger = f"{config.dataset}: ", "what was trained on may be tested on"
        if config.test_dataset:  # _check_apart has refused copies in both corpora
            where, danger = "", "they count twice"
        are = "recording is" if len(twice) == 1 else "recordings are"
        warn_once(
            f"{where}{len(twice)} {are} there more than once under other names, as {first} and {second}: {danger}"
        )


def _check_usable(config: Config, corpus: Corpus, count: int) -> None:
    """Warn if the IEMOCAP release is not complete or has another number of usable utterances than the complete one:
    a seed then gives another split."""
    usable = handleIEMOCAP.USABLE
    if config.dataset not in usable or config.test_dataset or corpus.synthetic:
        return
    if corpus.name != "IEMOCAP":
        warn_once(
            f"{path.IEMOCAP} is not the complete release of IEMOCAP: results go by the name of {corpus.name}, "
            "without published figures beside them; `python handleIEMOCAP.py` lists what is missing"
        )
    published = (config.happy, config.classes, config.padding, config.segment_length) == ("exc", (), False, 1.8)
    if published and count != usable[config.dataset]:
        warn_once(
            f"{config.dataset} has {count} utterances of at least 1.8 s, the full release has "
            f"{usable[config.dataset]}: a seed gives another split here than there"
        )


def check_parts(d: Data, parts: Parts, config: Config) -> None:
    """Warn of classes that a part lacks, and of a recording that makes up over a quarter of the training segments."""
    where = f"--split {config.split}" + ("" if config.fold is None else f", fold {config.fold}")
    for part, rows, then in (
        ("training", parts.train, "which cannot be learned"),
        ("validation", parts.val, "so the rule validation picks the epoch by the other classes"),
        ("test", parts.test, "so UA is the mean over the other classes"),
    ):
        there = set(range(len(d.corpus.classes)) if rows is None else d.corpus.labels[rows].tolist())
        if gone := [name for label, name in enumerate(d.corpus.classes) if label not in there]:
            warn_once(f"{where}: the {part} part has no utterance of {', '.join(gone)}, {then}")
    counts = d.train.counts[parts.train]
    if 4 * counts.max() > counts.sum() and len(counts) > 12:
        longest = d.corpus.utterances[parts.train[counts.argmax()]].name
        warn_once(
            f"{where}: {longest} alone gives {counts.max()} of {counts.sum()} training segments, each of which counts "
            "alike: cut long recordings into utterances"
        )


def warped(
    d: Data, train: NDArray, config: Config, quiet: bool = True
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return one VTLP-warped copy of each training utterance: its segments' features `(M, F, T)` and classes `(M,)`.

    The warping factors come from the run's seed, so copies are made anew for each run and not kept in the cache. Raises
    UserError if a recording has changed since `load` was called.
    """
    import features

    if d.warp is not None:
        return d.warp
    utterances = [d.corpus.utterances[i] for i in train]
    for u, i, digest in zip(utterances, train, content_digests([u.path for u in utterances]), strict=True):
        if digest != d.contents[i]:
            raise changed_meanwhile(u.path)
    factors = features.vtlp_factors(config.seed, [u.name for u in utterances])
    threads = cores() if config.device == "cuda" else 1  # while the CPU warps, a GPU has nothing to do
    waves = features.ahead(
        lambda row: features.vtlp(audio.load_audio(row[0].path), row[1]), zip(utterances, factors, strict=True), threads
    )
    parts, labels = [], []
    bar = tqdm(waves, "VTLP", len(train), unit="utterance", disable=quiet or None)
    for i, wave in zip(train, bar, strict=True):
        segments = features.segment(wave, config.segment_length, config.train_overlap, config.padding)
        x = features.extract(config.feature, segments, config.n_mfcc, config.device)
        parts.append(x.cpu().numpy())
        labels += [d.corpus.labels[i]] * len(x)
    return np.concatenate(parts), np.array(labels, dtype=np.int64)


def forget() -> None:
    """Drop what `load` and `identity` keep in memory: call this when path.py's folders or their contents change."""
    _load.cache_clear()
    _first_look.cache_clear()


def upsample(train: NDArray, labels: NDArray, seed: int) -> NDArray[np.int64]:
    """Return `train` with every class filled up to the size of the largest by drawing its utterances again, with
    replacement. They are drawn from a generator of their own, so that other draws stay the same."""
    generator = np.random.default_rng([812, seed])
    classes, counts = np.unique(labels[train], return_counts=True)
    more = [generator.choice(train[labels[train] == c], counts.max() - n) for c, n in zip(classes, counts, strict=True)]
    return np.concatenate([train, *more])
