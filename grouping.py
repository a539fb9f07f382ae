"""Runs of one corpus that belong together: the folds of a seed, the seeds of a setting, and their joint scores."""

from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

import metrics
import seeds
from cli import warn, warn_once
from files import digest_of
from recipes import MACHINE, NAMED, Config, settings_text
from records import Run


def splits_of(runs: Iterable[Run]) -> str:
    """Return the digest of the runs' split, shortened; if they have several, a digest of these, and their number."""
    digests = sorted({run.split_digest for run in runs})
    if not digests:
        return "–"
    return digests[0][:8] if len(digests) == 1 else f"{digest_of(digests)[:8]} of {len(digests)}"


class Round:
    """The runs of one seed: a single run or, with folds, as many of its folds as were found."""

    def __init__(self, runs: Sequence[Run], rule: str):
        self.runs = sorted(runs, key=lambda run: run.fold or 0)
        self.rule, self.seed = rule, self.runs[0].seed
        self.folds: int = self.runs[0].config["folds"] or 1

    @property
    def complete(self) -> bool:
        return len(self.runs) == self.folds

    @property
    def n_test(self) -> int:
        return sum(run.n_test for run in self.runs)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Confusion counts `(C, C)` of the pooled test utterances; each fold is scored at the epoch picked for it."""
        return np.sum([run.scores(self.rule)["confusion"] for run in self.runs], axis=0)

    @cached_property
    def pooled(self) -> NDArray[np.float64]:
        """The four scores `(4,)` of the test utterances of all folds put together."""
        if len(self.runs) == 1:  # the recorded scores; computed from the counts, the last bits may differ
            return self.averaged
        return metrics.scores_of(self.confusion)

    @cached_property
    def averaged(self) -> NDArray[np.float64]:
        """The mean over folds of the four scores `(4,)`."""
        return np.mean([[run.scores(self.rule)[name] for name in metrics.SCORES] for run in self.runs], axis=0)

    def confusions(self, speakers: list[str]) -> NDArray[np.int64]:
        """Return the confusion counts `(P, C, C)` of each of the P `speakers` over the pooled test utterances."""
        counts = np.zeros((len(speakers), *self.confusion.shape), dtype=np.int64)
        for run in self.runs:
            for speaker, own in run.counts(self.rule).items():
                counts[speakers.index(speaker)] += own
        return counts


def machine_settings(runs: Iterable[Run]) -> dict[str, Any]:
    """Return the settings of the machine that most of the runs have: the device, and whichever others are not default.
    A command for these runs must name them: with other settings it would train the runs again."""
    usual, every = Config(), [run.config["settings"] for run in runs]
    found = [
        {k: own[k] for k in MACHINE if k in own and (k == "device" or own[k] != getattr(usual, k))} for own in every
    ]
    return max(found, key=found.count, default={})


def _warn_of_two_recipes(runs: Sequence[Run]) -> None:
    """Warn if runs of one row have other settings, which happens where the model's recipe was edited between them."""
    folder_of: dict[str, str] = {}
    for run in runs:
        shaping = {k: v for k, v in run.config["settings"].items() if k not in (*NAMED, *MACHINE)}
        folder_of.setdefault(settings_text(shaping), str(run.folder.parent))
    if len(folder_of) > 1:
        warn_once(
            f"runs of one row were trained by different recipes of {runs[0].model}, as recipes.py has changed; keep "
            f"the runs of one of {', '.join(folder_of.values())}"
        )


class Group:
    """Runs that differ only in seed and fold, scored by one rule. Each seed and fold counts once: where it was run on
    several devices or thread counts, that run counts whose device and thread count most of the runs have."""

    def __init__(self, runs: Sequence[Run], rule: str):
        first = runs[0]
        self.rule, self.first = rule, first
        self.dataset, self.split, self.model, self.changed = first.dataset, first.split, first.model, first.changed
        self.synthetic, self.corpus, self.corpus_digest = first.synthetic, first.config["corpus"], first.corpus_digest
        self.classes: list[str] = first.config["classes"]
        self.has_folds = first.config["folds"] is not None
        _warn_of_two_recipes(runs)
        unique: dict[tuple[int, int | None], Run] = {}
        machines = [str([run.config["settings"][key] for key in MACHINE]) for run in runs]
        most = Counter(machines)
        for _, run in sorted(zip(machines, runs, strict=True), key=lambda each: (-most[each[0]], each[0])):
            unique.setdefault((run.seed, run.fold), run)
        self.repeats = {run.folder for run in runs} - {run.folder for run in unique.values()}
        every = [
            Round([run for (s, _), run in unique.items() if s == seed], rule) for seed in sorted({s for s, _ in unique})
        ]
        self.rounds = [r for r in every if r.complete]
        self.incomplete = [r for r in every if not r.complete]

    @property
    def runs(self) -> list[Run]:
        """The runs of complete rounds."""
        return [run for r in self.rounds for run in r.runs]

    def scores(self, folding: str = "pooled") -> NDArray[np.float64]:
        """Return the four scores of each seed `(n, 4)`, with its folds `pooled` or `averaged`."""
        rows = [r.averaged if folding == "averaged" else r.pooled for r in self.rounds]
        return np.array(rows).reshape(-1, len(metrics.SCORES))

    @cached_property
    def fold_scores(self) -> NDArray[np.float64]:
        """The four scores of each of the K folds, averaged over seeds `(K, 4)`."""
        each = [[[run.scores(self.rule)[name] for name in metrics.SCORES] for run in r.runs] for r in self.rounds]
        return np.mean(each, axis=0)

    @cached_property
    def speakers(self) -> list[str]:
        """The speakers of the test utterances, sorted."""
        return sorted({speaker for run in self.runs for speaker in run.counts(self.rule)})

    @property
    def n_speakers(self) -> int | None:
        """The number of speakers of the test utterances; None where the speaker of some utterance is not known."""
        return len(self.speakers) if all(self.speakers) else None

    def confusions(self, speakers: list[str] | None = None) -> NDArray[np.int64]:
        """Return confusion counts by seed and speaker `(n, P, C, C)`; the default `speakers` are those of the group."""
        return np.array([r.confusions(speakers or self.speakers) for r in self.rounds])

    @property
    def unpublished_seeds(self) -> list[int]:
        """The seeds that are not among the 100 seeds of the published tables."""
        published = {*seeds.seeds()}
        return [r.seed for r in self.rounds if r.seed not in published]

    @property
    def foldings(self) -> tuple[str, ...]:
        """The ways in which folds can be put together; none where no seed has all its folds."""
        if not self.rounds:
            return ()
        return ("pooled", "averaged") if self.has_folds else ("pooled",)

    @property
    def missing_folds(self) -> str:
        """A text that says which folds are missing (`incomplete: seed 5 has 3 of 5 folds`); empty if none are."""
        missing = [f"seed {r.seed} has {len(r.runs)} of {r.folds} folds" for r in self.incomplete]
        return f"incomplete: {'; '.join(missing)}" if missing else ""

    @property
    def utterances(self) -> str:
        """How many test utterances a seed has, as text: `448`, or `447–448` where seeds differ."""
        counts = sorted({r.n_test for r in self.rounds or self.incomplete})
        return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]}–{counts[-1]}"

    @property
    def splits(self) -> str:
        """`splits_of` the runs of complete rounds."""
        return splits_of(self.runs)


def group_by_setting(runs: Iterable[Run], rule: str | None = None) -> list[Group]:
    """Return the runs grouped by data, split, model and settings, sorted by these. Without `rule`, each group has its
    runs' own rule."""
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in runs:
        key = (run.dataset, run.split, run.model, settings_text(run.changed), run.synthetic, run.corpus_digest)
        found.setdefault(key, []).append(run)
    return [Group(found[key], rule or found[key][0].own_rule) for key in sorted(found)]


def choose_corpus(runs: Sequence[Run], prefixes: tuple[str, ...] = ("",)) -> list[Run]:
    """Return the runs of one corpus for each dataset, so that numbers of two corpora of one name are never mixed.

    Only corpora whose digest starts with one of `prefixes` are considered. A real corpus is taken before a synthetic
    one, then one with the labels as published before others, then the one with most runs. A warning names the others.
    """
    kept = []
    for dataset in sorted({run.dataset for run in runs}):
        own = [run for run in runs if run.dataset == dataset and run.corpus_digest.startswith(prefixes)]
        counts = Counter((run.synthetic, run.corpus_digest) for run in own)
        labels = {
            r.corpus_digest: settings_text({k: v for k, v in r.changed.items() if k in ("happy", "classes")})
            for r in own
        }
        ranked = sorted(counts, key=lambda key: (key[0], labels[key[1]] != "", -counts[key], key[1]))
        if len(ranked) > 1:
            others = ", ".join(f"{key[1][:8]} ({'; '.join(filter(None, (str(counts[key]), labels[key[1]])))})"
                               for key in ranked[1:])  # fmt: skip
            warn(f"{dataset}: runs on other corpora of that name are left out: {others}; --corpus DIGEST picks one")
        kept += [run for run in own if run.corpus_digest == ranked[0][1]]
    return kept
