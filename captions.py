"""The captions and notes of tables, and the command that trains what a table lacks."""

import itertools
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import flags
import recipes
import records
import stats
import tables
from corpora import dataset_folder
from grouping import Group
from metrics import SCORES
from recipes import RULES, settings_text
from records import Run
from tables import Row

SPLITS = (
    "Splits: a digest of which utterances are in which part; equal splits have equal digests. “of 5” marks one "
    "digest of five splits."
)
FOLDS = (
    "Folds pooled: the test utterances of all folds are scored together, each fold at the epoch picked for it. Mean "
    "over folds: the mean of the folds' own scores, with their sample standard deviation as “folds ±”; the score of a "
    "fold is the mean over seeds."
)
SYNTHETIC = "SYNTHETIC data: sound made by a formula; these numbers say nothing about speech."


def say_rules(rules: Iterable[str]) -> str:
    """Return the caption's sentences on which epoch is reported."""
    wanted = set(rules)
    return " ".join(f"Rule {rule}: {said}." for rule, said in RULES.items() if rule in wanted)


def say_unpublished(splits: set[str]) -> list[str]:
    """Return what a caption says of the rule `paper` on `splits` that have a validation part; nothing for no splits."""
    if not splits:
        return []
    return [
        f"On {', '.join(sorted(splits))} this rule is no published one. Where there are folds, each has an epoch "
        "chosen on its own test part. --rule validation chooses the epoch on validation data."
    ]


def say_unfinished(begun: int) -> str:
    """Return a clause that says how many runs of the whole folder, not only of those asked for, are unfinished."""
    return f"{begun} unfinished run{'s' * (begun > 1)} in the runs folder {'are' if begun > 1 else 'is'} not counted"


def say_repeats(groups: Iterable[Group]) -> list[str]:
    """Return the sentence on runs that repeat a seed, if there are some; a run that several rows share counts once."""
    if not (count := len({folder for group in groups for folder in group.repeats})):
        return []
    repeat, are = ("1 run repeats", "is") if count == 1 else (f"{count} runs repeat", "are")
    where = "with another device, --threads or --deterministic than most runs, or in a second folder"
    return [f"{repeat} a seed ({where}) and {are} not counted again."]


def say_tests(tests: Sequence[dict[str, Any]]) -> list[str]:
    """Return the notes that a reader needs to understand the paired tests."""
    sizes = " or ".join(str(size) for size in sorted({test["family"] for test in tests}))
    notes = [
        "Mean difference: the score of the first model of a pair minus that of the second, in points.",
        "The tests are two-sided Wilcoxon signed-rank tests over the seeds that both models share. Where the split has "
        "folds, they are over folds instead (each the mean over shared seeds), as other folds have other speakers, and "
        "other seeds the same ones again. A test over seeds speaks of other seeds on the same recordings, not of other "
        "speakers. Differences of zero are left out of p, and a few large ones move the mean more than they move p.",
        "p (Holm) is corrected for the tests of one dataset, split and score that could tell something "
        f"({sizes} of them). “n too small to tell”: even if all n differences had one sign, p would stay above 0.05. "
        "Uncorrected, p would then be 2 / 2^n; a test where this is above 0.05 is neither counted nor corrected.",
        "Same split: in how many of the shared runs both models were tested on the same utterances. Models with longer "
        "segments leave out more short utterances, and the same seed then draws another split.",
    ]
    if any(test["verdict"] == stats.DISAGREE for test in tests):
        notes.append(
            f"“{stats.DISAGREE}”: most differences have one sign, but a few large ones of the other decide the mean."
        )
    if any(test["unit"] == "folds" for test in tests):
        notes.append(
            "Folds share most of the speakers they train on. So they are not independent, and p is smaller than it "
            "should be (Bengio and Grandvalet, “No Unbiased Estimator of the Variance of K-Fold Cross-Validation”, "
            "2004)."
        )
    if any(test["in_common"] for test in tests):
        notes.append(
            "Pairs without the same split: where one model’s test utterances contain all of the other’s, both are "
            "scored on the other’s. So the mean difference is not quite that of the rows above."
        )
    return notes


def say_protocols(rows: Sequence[Row]) -> list[str]:
    """Return notes on whether WA and UA fall from protocol to protocol, as may be expected."""
    notes = []
    for dataset, model in dict.fromkeys((row.spec.dataset, row.spec.model) for row in rows):
        chain = [
            (f"{row.spec.split}, {row.spec.rule}", row.counted.scores().mean(0))
            for row in rows
            if (row.spec.dataset, row.spec.model) == (dataset, model) and row.counted and row.spec.rule != "last"
        ]
        rises = [
            f"{score} rises by {after[i] - before[i]:.2f} from {a} to {b}"
            for (a, before), (b, after) in itertools.pairwise(chain)
            for i, score in enumerate(SCORES[:2])
            if after[i] > before[i]
        ]
        if rises:
            notes.append(
                f"{model} on {dataset}: scores may be expected to fall from row to row, but {'; '.join(rises)}."
            )
        elif len(chain) > 1:
            notes.append(f"{model} on {dataset}: WA and UA never rise along {' → '.join(a for a, _ in chain)}.")
    return notes


def sweep_command(
    name: str, datasets: Sequence[str] | None, settings: dict[str, Any], splits: Sequence[str] | None, seeds: int,
    root: Path | None, found: Iterable[Run], models: Sequence[str] | None,
) -> str:  # fmt: skip
    """Return the command that trains what a table lacks."""
    words = ["python", "sweep.py", "--table", name, "--seeds", str(seeds)]
    files = {run.dataset: run.config["settings"]["dataset"] for run in found}  # runs name a CSV file by its stem
    if datasets:
        words += ["--datasets", ",".join(files.get(each) or each for each in datasets)]
    if splits:
        words += ["--splits", ",".join(splits)]
    if models:
        words += ["--models", ",".join(models)]
    if root:
        words += ["--runs", str(root)]
    return shlex.join([*words, *flags.train_flags(settings)])


def other_settings(rows: Sequence[Row], found: Iterable[Run]) -> list[str]:
    """Return a note on finished runs that are of missing rows' models but have other settings; empty without any."""
    specs = [row.spec for row in rows if row.group is None]
    lacking = {(dataset_folder(c.dataset), c.model, s) for c in specs for s in (c.split, records.trained_as(c.split))}
    others = [run for run in found if not any(tables.runs_of(row.spec, [run]) for row in rows)]
    counts = Counter(settings_text(run.changed) for run in others if (run.dataset, run.model, run.split) in lacking)
    if not counts:
        return []
    said = "; ".join(f"{settings or 'as published'} ({n})" for settings, n in counts.most_common(5))
    return [
        f"The models of missing rows have finished runs with other settings: {said}. "
        "`--set SETTING=VALUE` asks for those runs."
    ]


def _why_no_interval(group: Group) -> str:
    if group.n_speakers is None:
        return "speakers are not known"
    if group.n_speakers > 1:
        few = group.n_speakers < stats.FEWEST
        return f"there are fewer than {stats.FEWEST} speakers" if few else "most draws of speakers lack a class"
    return f"there is one speaker, and there are fewer than {stats.FEWEST} seeds"


def _say_seeds(row: Row, group: Group) -> str:
    """Return which of a row's seeds are not among the published 100; "" if all are, or nothing published compares."""
    own = group.unpublished_seeds
    named = f"{', '.join(map(str, own[:3]))}{', ..' * (len(own) > 3)}"
    if 0 < len(own) < len(group.rounds):
        return f"seeds that are not of the published 100 are counted too: {named}"
    comparable = row.paper or row.spec.dataset in recipes.IEMOCAP_DATASETS
    return f"no seed is of the published 100: {named}" if own and comparable else ""


def _say_row(row: Row, group: Group) -> Iterator[str]:
    """Yield notes on a row with runs: which seeds and folds do not count, what its interval and its UA leave out."""
    if group.incomplete:
        yield f"not counted, {group.missing_folds}"
    if said := _say_seeds(row, group):
        yield said
    if row.interval is None:
        yield f"no interval, as {_why_no_interval(group)}"
    elif row.interval.over != "speakers and seeds":
        other = "seed" if len(group.rounds) == 1 else "speaker"
        yield f"the interval resamples {row.interval.over}, and leaves out how much another {other} would change"
    elif (few := len(group.rounds)) < stats.FEWEST:
        yield f"{few} seeds hardly tell how much seeds differ, so that the interval may be too narrow"
    if lacking := sum(not all(map(sum, run.scores(group.rule)["confusion"])) for run in group.runs):
        units = "folds" if group.has_folds else "test sets"
        yield f"{lacking} of {len(group.runs)} {units} lack a class, and their UA is the mean over the other classes"


def _say_other_corpora(rows: Sequence[Row]) -> list[str]:
    """Return why rows of IEMOCAP's datasets lack published figures: their runs are of other recordings."""
    own = [(row.spec, row.group) for row in rows if row.group and row.elsewhere and not row.group.synthetic]
    corpora = {f"{spec.dataset}: {group.corpus}" for spec, group in own if spec.dataset in recipes.IEMOCAP_DATASETS}
    if not corpora:
        return []
    names = "; ".join(sorted(corpora))
    return [f"No published figures are shown, as these runs are not of IEMOCAP's complete release ({names})."]


def notes_of(rows: Sequence[Row], command: str) -> list[str]:
    """Return the notes under a table: which rows lack runs, and what qualifies the others' numbers."""
    notes = []
    if lacking := sum(bool(row.status) for row in rows):
        apart = any(row.group is None and row.spec.split in ("session", "superb", "speaker", "dialog") for row in rows)
        never = " A row stays empty where the corpus does not name sessions, speakers or dialogs." if apart else ""
        notes.append(f"`{command}` trains what is missing ({lacking} of {len(rows)} rows).{never}")
    notes += _say_other_corpora(rows)
    groups = [row.counted for row in rows if row.counted]
    about: dict[str, list[str]] = {}  # note -> the rows that it is about
    for row in rows:
        if row.counted:
            for said in _say_row(row, row.counted):
                about.setdefault(said, []).append(f"{row.spec.name} on {row.spec.dataset}, {row.spec.split}")
    for said, places in about.items():
        everywhere = len(places) == len(groups) > 2
        notes.append(f"{'Every row with runs' if everywhere else '; '.join(dict.fromkeys(places))}: {said}.")
    notes += say_repeats(groups)
    if any(group.has_folds for group in groups):
        notes.append(f"{FOLDS} n counts the seeds that have all their folds.")
    return notes


def of_table(rows: Sequence[Row], settings: dict[str, Any], command: str) -> list[str]:
    """Return the caption of a table of TABLES."""
    groups = [row.counted for row in rows if row.counted]
    scores = "Scores in per cent: mean ± sample standard deviation over n seeds [95 % interval of the mean]."
    text = [f"{scores} {say_rules(row.spec.rule for row in rows)}"]
    text += say_unpublished({g.split for g in groups if g.rule == "paper" and g.first.has_validation})
    if any(group.synthetic for group in groups):
        text.append(SYNTHETIC)
    text.append(
        f"The interval is a bootstrap: {stats.RESAMPLES:,} resamples draw speakers (each with all test utterances) and "
        "seeds jointly. A resample leaves out the seeds that lack a class in it. Percentiles are expanded for the "
        "small number of speakers (or of seeds, where there is one speaker). The picked epochs stay the same, so that "
        "the interval holds nothing of a rule's optimism."
    )
    text.append(
        "Utterances: how many one seed is tested on, in all of its folds. Speakers: how many the test utterances of "
        f"all seeds have. {SPLITS}"
    )
    if any(row.paper for row in rows):
        text.append(
            "Published: Zhu and Li, ICASSP 2022 (results/published.csv). Their “micro F1” is the weighted F1 here."
        )
    if any(row.paper and row.spec.split == "8:1:1" for row in rows):
        text.append(
            "No code of the published 8:1:1 is known: how its 20 % were halved and its epoch was chosen is our reading."
        )
    independent = [row.spec for row in rows if row.spec.split in ("session", "superb", "speaker") and not row.elsewhere]
    if any(spec.dataset in recipes.IEMOCAP_DATASETS for spec in independent):
        text.append("We know of no speaker-independent results of the paper's models.")
    corpora = {(g.dataset, g.corpus, g.corpus_digest[:8], g.first.config["licence"]) for g in groups}
    text += [f"{dataset}: corpus {name}, digest {digest}; {terms}." for dataset, name, digest, terms in sorted(corpora)]
    splits = {row.spec.split for row in rows}
    about = f"Split {splits.pop()}. " if len(splits) == 1 else ""
    about += f"In every row: {settings_text(settings)}. " if settings else ""
    return [*text, f"{about}Made with `{command}`."]
