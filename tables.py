"""The tables by name: what each row is made of, the paper's figures, and the numbers computed from run folders.

A table is an entry of TABLES, and each of its rows says which runs it takes. A new table needs no change elsewhere.
"""

import csv
import functools
import itertools
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import data
import metrics
import path
import recipes
import stats
from cli import UserError
from corpora import dataset_folder
from grouping import Group
from metrics import SCORES
from recipes import settings_text
from records import Run, trained_as, with_derived


@dataclass(frozen=True)
class RowSpec:
    """What a row of a table is made of: which runs, and the rule that picks their epochs."""

    label: str
    model: str
    split: str = "8:2"
    rule: str = "paper"
    changed: dict[str, Any] = field(default_factory=dict)  # settings that differ from the model's recipe
    dataset: str = ""

    @property
    def name(self) -> str:
        """The label, followed by the network's name where the label does not contain it."""
        return self.label if self.model in self.label else f"{self.label} ({self.model})"


@dataclass(frozen=True)
class Table:
    """A table: its rows, which are repeated for each dataset, and how they are compared."""

    title: str
    rows: tuple[RowSpec, ...]
    datasets: tuple[str, ...] = recipes.IEMOCAP_DATASETS
    against: str | None = None  # the label that the others are tested against; None: all pairs are tested
    protocols: bool = False  # a model's rows differ in split and rule; each is compared with the first, not tested
    figures: tuple[str, ...] = ("confusion", "curves")

    def row_specs(
        self,
        datasets: Sequence[str] | None = None,
        settings: dict[str, Any] | None = None,
        splits: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
    ) -> list[RowSpec]:
        """Return the rows, once for each dataset, with `settings` changed in all of them. Raises UserError.

        `splits` replace the table's own; the rule is then `validation` for a split with a validation part, else
        `paper`. Where `models` are named, only their rows are returned.
        """
        own = dict.fromkeys(row.model for row in self.rows)
        if unknown := [name for name in models or () if name not in own]:
            raise UserError(f"--models {','.join(unknown)}: the rows of this table are of {', '.join(own)}")
        if fixed := {k for row in self.rows for k in row.changed} & set(settings or {}):
            raise UserError(f"the rows of this table differ in {', '.join(fixed)}: it cannot be set for all of them")
        if "cross" in (splits or ()):
            raise UserError("--split cross: its runs name two corpora, which no table has; python report.py shows them")
        if splits and {row.split for row in self.rows} != {"8:2"}:
            takers = ", ".join(name for name, table in TABLES.items() if {row.split for row in table.rows} == {"8:2"})
            raise UserError(f"--split {','.join(splits)}: this table is about its own splits; {takers} take another")
        return [
            replace(row, dataset=dataset, changed=resolve(row.model, {**row.changed, **(settings or {})}))
            for dataset in datasets or self.datasets
            for row in (_on_splits(self.rows, splits) if splits else self.rows)
            if not models or row.model in models
        ]


def _on_splits(rows: Sequence[RowSpec], splits: Sequence[str]) -> list[RowSpec]:
    """Return the rows once for each of these splits, which replaces their own split."""
    rules = {name: "validation" if data.split_by_name(name).has_validation else "paper" for name in splits}
    return [replace(row, split=name, rule=rule) for name, rule in rules.items() for row in rows]


def resolve(model: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return those settings that differ from the model's recipe, as a run records them. Raises UserError."""
    try:
        return recipes.config_for(model, **settings).changed()
    except TypeError as error:
        raise UserError(f"--set {settings_text(settings)}: {error}") from None


COMPARED = {"APCNN": "APCNN", "MHCNN": "MACNN", "AACNN": "AACNN", "GLAM": "GLAM"}  # name in the paper: name here
ABLATED = {
    "GLAM": "GLAM",
    "Multi-scale": "ResMultiConv3",
    "Multi-scale + MHA": "MHResMultiConv3",
    "Multi-scale + AA": "AAResMultiConv3",
    "MHCNN": "MACNN",
    "AACNN": "AACNN",
    "GLAM without short-cuts": "gMLPMultiConv",
    "GLAM without multi-scale, 3×3": "gMLPResConv3",
    "GLAM without multi-scale, 5×5": "gMLPResConv5",
}
ALPHAS = (0, 0.3, 0.5, 0.8, 1, 2, 3)
PROTOCOLS = (
    ("8:2", "paper"),
    ("8:2", "last"),
    ("8:1:1", "validation"),
    ("session", "validation"),
    ("speaker", "validation"),
)


def _rows(names: Collection[tuple[str, str]], *protocols: tuple[str, str]) -> tuple[RowSpec, ...]:
    return tuple(RowSpec(label, model, split, rule) for split, rule in protocols for label, model in names)


def _alpha(alpha: float) -> RowSpec:
    return RowSpec(f"GLAM, α = {alpha:g}", "GLAM", changed={"alpha": alpha})


TABLES = {
    "comparison": Table("Comparison of models", _rows(COMPARED.items(), ("8:2", "paper"))),
    "ablation": Table("Ablation of GLAM", _rows(ABLATED.items(), ("8:2", "paper")), ("impro",), against="GLAM"),
    "alpha": Table(
        "GLAM against mixup's α",
        tuple(map(_alpha, ALPHAS)),
        ("impro",),
        against=_alpha(recipes.GLAM.alpha).label,
        figures=("alpha",),
    ),
    "split811": Table("Comparison of models, split 8:1:1", _rows(COMPARED.items(), ("8:1:1", "validation"))),
    "speaker_independent": Table(
        "Comparison of models on sessions and speakers not heard in training",
        _rows(COMPARED.items(), ("session", "validation"), ("speaker", "validation")),
    ),
    "protocols": Table(
        "What choosing the epoch on the test set, and sharing speakers, is worth",
        tuple(row for name in reversed(COMPARED.items()) for row in _rows([name], *PROTOCOLS)),
        ("impro",),
        protocols=True,
        figures=(),
    ),
}


def jobs(
    name: str,
    datasets: Sequence[str] | None = None,
    settings: dict[str, Any] | None = None,
    splits: Sequence[str] | None = None,
    models: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Return {model, dataset, split, changed} of the runs that a table's rows need, without repetitions.

    A row of the split 8:1:1 is made from runs of 8:2, which train on the same utterances. Raises UserError.
    """
    found: list[dict[str, Any]] = []
    for spec in TABLES[name].row_specs(datasets, settings, splits, models):
        job = {"model": spec.model, "dataset": spec.dataset, "split": trained_as(spec.split), "changed": spec.changed}
        if job not in found:
            found.append(job)
    return found


# ------------------------------------------------------------------------------------------ the paper's figures


@functools.cache
def published() -> dict[tuple[str, str, str, str], dict[str, tuple[float, float]]]:
    """Return the paper's figures: (split, dataset, model, changed settings as text) -> score -> (mean, deviation)."""
    datasets = {"Improvisation": "impro", "Script": "script", "Full": "all"}
    found = {}
    with open(path.ROOT / "results" / "published.csv", newline="", encoding="utf-8") as f:
        for row in csv.DictReader(f):
            model = {**COMPARED, **ABLATED}[row["model"]]
            split = "8:1:1" if row["table"] == "split-8:1:1" else "8:2"
            changed = settings_text(resolve(model, {"alpha": float(row["alpha"])}))
            key = (split, datasets[row["dataset"]], model, changed)
            found[key] = {score: (float(row[f"{score}_mean"]), float(row[f"{score}_std"])) for score in SCORES}
    return found


def published_scores(row: Group | RowSpec) -> dict[str, tuple[float, float]]:
    """Return the published mean and standard deviation of each score of a row; empty where none is comparable."""
    if row.rule != {"8:2": "paper", "8:1:1": "validation"}.get(row.split):
        return {}
    if isinstance(row, Group) and (row.synthetic or row.corpus != "IEMOCAP"):
        return {}
    changed = dict(row.changed)
    if changed.get("feature") == "mfcc_reflect" and recipes.config_for(row.model).feature == "mfcc":
        del changed["feature"]  # most likely it is the published one: see features.mfcc_reflect
    return published().get((row.split, row.dataset, row.model, settings_text(changed)), {})


# -------------------------------------------------------------------------------------------- what runs give


def runs_of(spec: RowSpec, found: Iterable[Run]) -> list[Run]:
    """Return the runs that a row is made of; for 8:1:1, runs of 8:2 stand in for seeds without a run of 8:1:1."""
    key = (dataset_folder(spec.dataset), spec.model, spec.changed)
    same = [run for run in found if (run.dataset, run.model, run.changed) == key]
    return [run for run in (with_derived(same) if spec.split == "8:1:1" else same) if run.split == spec.split]


@dataclass
class Row:
    """A row of a table: what it is to be made of, and the runs that were found for it."""

    spec: RowSpec
    group: Group | None
    interval: stats.Interval | None = None
    elsewhere: bool = False  # whether runs of this dataset are of another corpus than the published figures

    @property
    def paper(self) -> dict[str, tuple[float, float]]:
        """The published figures to show beside the row; empty where its runs are of another corpus."""
        return {} if self.elsewhere else published_scores(self.group or self.spec)

    @property
    def counted(self) -> Group | None:
        """The group, if at least one of its seeds has all its folds (only such seeds are counted); else None."""
        return self.group if self.group and self.group.rounds else None

    @property
    def status(self) -> str:
        """`missing` for a row without runs, a text on the missing folds if no seed has all, else an empty text."""
        if self.group is None:
            return "missing"
        return "" if self.counted else self.group.missing_folds


def find(specs: Iterable[RowSpec], found: Sequence[Run]) -> list[Row]:
    """Return the rows, each with its runs as a group and their interval. Raises BrokenRecord."""
    rows = []
    foreign = {run.dataset for run in found if run.synthetic or run.config["corpus"] != "IEMOCAP"}
    for spec in tqdm(specs, unit="row", leave=False, delay=1, disable=None):
        own = runs_of(spec, found)
        row = Row(spec, Group(own, spec.rule) if own else None, elsewhere=dataset_folder(spec.dataset) in foreign)
        if row.counted:
            # all records are read before intervals are computed: after a broken one, the caller starts anew without it
            _ = row.counted.scores(), row.counted.splits, row.counted.speakers
        rows.append(row)
    for row in tqdm(rows, unit="interval", leave=False, delay=1, disable=None):
        if row.counted and row.counted.n_speakers:
            row.interval = stats.interval(row.counted.confusions())
    return rows


def measure(group: Group, folding: str, interval: stats.Interval | None = None) -> list[dict[str, Any]]:
    """Return a record for each score: our mean, its interval, the paper's mean, and the difference of the means.

    `folding` says whether folds are `pooled` or `averaged`.
    """
    values, paper = group.scores(folding), published_scores(group)
    found = []
    for i, score in enumerate(SCORES):
        mean, sd = stats.mean_sd(values[:, i])
        row: dict[str, Any] = {"score": score, "mean": mean, "sd": sd, "n": len(values)}
        if folding == "averaged":
            row["folds_sd"] = stats.mean_sd(group.fold_scores[:, i])[1]
        if interval and folding == "pooled":
            row |= {"low": interval.low[i], "high": interval.high[i], "resampled": interval.over}
        if score in paper:
            published_mean, published_sd = paper[score]
            row |= {"published_mean": published_mean, "published_sd": published_sd, "difference": mean - published_mean}
        found.append(row)
    return found


def _about(name: str, kind: str, spec: RowSpec) -> dict[str, Any]:
    about = {"table": name, "kind": kind, "dataset": spec.dataset, "label": spec.label, "model": spec.model}
    return about | {"split": spec.split, "rule": spec.rule, "changed": settings_text(spec.changed)}


def change(before: Group, after: Group) -> tuple[NDArray[np.float64], stats.Interval | None]:
    """Return how the four scores change from one protocol to another `(4,)`, and the interval over speakers and seeds.

    The interval is None where it cannot be given, for example because a speaker is not known.
    """
    speakers = sorted({*before.speakers, *after.speakers})
    first, then = (group.confusions(speakers) for group in (before, after))
    same_seeds = [r.seed for r in before.rounds] == [r.seed for r in after.rounds]
    interval = stats.interval_of_change(first, then, same_seeds) if all(speakers) else None
    return after.scores().mean(0) - before.scores().mean(0), interval


def changes(name: str, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return CSV records, one a score, of each row's change from the first row of its dataset and model (`other`)."""
    found = []
    for row in tqdm(rows, unit="change", leave=False, delay=1, disable=None):
        spec = row.spec
        first = next(r for r in rows if (r.spec.dataset, r.spec.model) == (spec.dataset, spec.model))
        if row is first or not first.counted or not row.counted:
            continue
        values, interval = change(first.counted, row.counted)
        about = {**_about(name, "change", spec), "other": f"{first.spec.split}, {first.spec.rule}"}
        for i, score in enumerate(SCORES):
            record = {**about, "score": score, "mean": values[i], "synthetic": row.counted.synthetic}
            if interval:
                record |= {"low": interval.low[i], "high": interval.high[i], "resampled": interval.over}
            found.append(record)
    return found


def numbers(name: str, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return the CSV records of a table: one for each row, each way to put folds together, and each score."""
    found = []
    for row in rows:
        spec, group = row.spec, row.counted
        about = {**_about(name, "score", spec), "status": row.status or "ok"}
        if group is None:
            paper = row.paper
            for score in SCORES:
                mean_sd = dict(zip(("published_mean", "published_sd"), paper.get(score, ()), strict=False))
                found.append({**about, "score": score, "n": 0, **mean_sd})
            continue
        about |= {"synthetic": group.synthetic, "corpus": group.corpus, "corpus_digest": group.corpus_digest}
        about |= {"utterances": group.utterances, "speakers": group.n_speakers, "splits": group.splits}
        for folding in group.foldings:
            folds = folding if group.has_folds else ""
            found += [{**about, "folds": folds, **record} for record in measure(group, folding, row.interval)]
    return found


# ------------------------------------------------------------------------------------------ which is better


@dataclass(frozen=True)
class Pair:
    """The score differences of two groups, and how many runs these are made from."""

    differences: NDArray[np.float64]  # (n, 4), first minus second, for each shared unit
    shared: int  # how many seeds and folds both groups have a run of
    same_split: int  # how many of the shared have the same training and test utterances in both groups
    in_common: int  # how many of the shared were scored on the smaller test part, which the larger one contains


def paired(a: Group, b: Group) -> Pair:
    """Return the differences of the four scores over the units that two groups share.

    A unit is a seed or, with folds, a fold (other speakers), whose differences are averaged over the shared seeds. A
    model with longer segments drops more utterances: where one group's test utterances contain the other's, both are
    scored on those in common. Where such a model drops all utterances of a speaker, it has fewer folds, and these
    are numbered otherwise, so that nothing counts as shared.
    """
    ours, theirs = ({(run.seed, run.fold): run for run in group.runs} for group in (a, b))
    if a.first.config["folds"] != b.first.config["folds"]:
        theirs = {}
    shared = sorted(ours.keys() & theirs.keys(), key=lambda key: (key[0], key[1] or 0))
    units: dict[int, list[list[float]]] = {}
    same = in_common = 0
    for seed, fold in shared:
        run, other = ours[seed, fold], theirs[seed, fold]
        first, second = run.scores(a.rule), other.scores(b.rule)
        if run.split_digest == other.split_digest:
            same += 1
        elif rescored := _scores_in_common(run, other, a.rule, b.rule):
            first, second = rescored
            in_common += 1
        units.setdefault(seed if fold is None else fold, []).append([first[s] - second[s] for s in SCORES])
    differences = np.array([np.mean(unit, axis=0) for unit in units.values()]).reshape(-1, len(SCORES))
    return Pair(differences, len(shared), same, in_common)


def _scores_in_common(one: Run, other: Run, one_rule: str, other_rule: str) -> list[dict[str, Any]] | None:
    """Return both runs' scores on the test utterances that both have; None unless these are all that one run has."""
    by_size = sorted(((one, one_rule), (other, other_rule)), key=lambda each: each[0].n_test)
    few, many = (run.counts(rule) for run, rule in by_size)
    if not all(speaker in many and (few[speaker].sum(1) <= many[speaker].sum(1)).all() for speaker in few):
        return None  # the counts tell, so that the predictions of hundreds of runs need not be read
    tests = [run.predictions("test") for run in (one, other)]
    common = set(tests[0].names.tolist()) & set(tests[1].names.tolist())
    if len(common) < min(len(test.names) for test in tests):
        return None
    found = []
    for run, rule, test in zip((one, other), (one_rule, other_rule), tests, strict=True):
        part = test.take(np.flatnonzero(np.isin(test.names, list(common))))
        found.append(metrics.scores(part.logits[run.pick(rule)], part.labels))
    return found


def comparisons(name: str, rows: Iterable[Row], against: str | None) -> list[dict[str, Any]]:
    """Return the paired tests of WA and UA. A family of tests has one dataset, split, rule and score."""
    families: dict[tuple[str, str, str], dict[str, Group]] = {}
    for row in rows:
        if row.counted:
            key = (row.spec.dataset, row.spec.split, row.spec.rule)
            families.setdefault(key, {})[row.spec.label] = row.counted
    found = []
    for key, groups in families.items():
        pairs = list(itertools.combinations(groups, 2))
        if against is not None:
            pairs = [(against, label) for label in groups if label != against and against in groups]
        found += _family(name, key, groups, pairs)
    return found


def _family(
    table: str, key: tuple[str, str, str], groups: dict[str, Group], names: list[tuple[str, str]]
) -> list[dict[str, Any]]:
    pairs = [paired(groups[a], groups[b]) for a, b in names]
    found = []
    for i, score in enumerate(SCORES[:2]):
        tests = stats.compare([(name, pair.differences[:, i]) for name, pair in zip(names, pairs, strict=True)])
        size = sum(test.adjusted is not None for test in tests)
        for (a, b), pair, test in zip(names, pairs, tests, strict=True):
            found.append({
                "table": table, "kind": "comparison", **dict(zip(("dataset", "split", "rule"), key, strict=True)),
                "label": a, "model": groups[a].model, "other": b, "score": score, "mean": test.difference,
                "n": test.n, "unit": "folds" if groups[a].has_folds else "seeds", "p": test.p,
                "p_holm": test.adjusted, "family": size, "verdict": test.verdict, "shared": pair.shared,
                "same_split": pair.same_split, "in_common": pair.in_common, "synthetic": groups[a].synthetic,
            })  # fmt: skip
    return found
