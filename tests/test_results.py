"""Committed results: the records pass the audit, and every figure quoted is theirs."""

import csv
import io
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

import calibration
import figures
import grouping
import metrics
import records
import stats
import tables
from tests.conftest import ROOT

FOLDER = ROOT / "results" / "emodb_as_iemocap"
EMODB = ROOT / "results" / "emodb"
FOUR = ("--dataset", "emodb", "--set", "classes=neutral,sad,angry,happy")


def report(*words, folder=FOLDER):
    environment = {**os.environ, "GLAM_RUNS": str(folder / "runs")}
    done = subprocess.run(
        [sys.executable, "report.py", *words], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("folder", [FOLDER, EMODB, FOLDER.parent / "synthetic"], ids=lambda folder: folder.name)
def test_records_pass_the_audit(folder):
    runs = len(list((folder / "runs").glob("*/*/*/*/*/config.json")))
    assert runs >= 20 and f"{runs} run folders checked" in report("--audit", folder=folder)


def test_records_are_small_and_of_full_length():
    files = [f for f in EMODB.rglob("*") if f.is_file() and "checkpoint" not in f.parts]
    assert sum(f.stat().st_size for f in files) < 10e6
    for config in (EMODB / "runs").rglob("config.json"):
        if "checkpoint" not in config.parts:
            run = json.loads(config.read_text(encoding="utf-8"))
            assert set(run["changed"]) <= {"classes", "alpha", "amp", "feature"} and not run["synthetic"], config
            codes = [run["commit"], *(each["commit"] for each in run.get("earlier", []))]
            assert all(commit and "dirty" not in commit for commit in codes), config
            assert run["n_bad"] == 0 and run["corpus"] == "EMO-DB", config


def published(split, **changed):
    """EMO-DB's runs of a split with the published settings but for these."""
    wanted = {"classes": ["neutral", "sad", "angry", "happy"], **changed}
    return [run for run in records.runs(EMODB / "runs") if run.split == split and run.config["changed"] == wanted]


def rows(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_committed_table_is_the_records():
    committed = (FOLDER / "protocols.csv").read_text(encoding="utf-8")
    assert rows(report("--table", "protocols", "--format", "csv")) == rows(committed)


@pytest.mark.parametrize("name", [*sorted(tables.TABLES), "ablation_speaker", "alpha_speaker"])
def test_the_committed_tables_of_emodb_are_the_records(name):
    committed = (EMODB / f"{name}.csv").read_text(encoding="utf-8")
    whole = name.removesuffix("_speaker")
    words = (name,) if name in tables.TABLES else (whole, "--split", "speaker")
    assert rows(report("--table", *words, *FOUR, "--format", "csv", folder=EMODB)) == rows(committed)


@pytest.fixture(scope="module")
def emodb():
    """EMO-DB's rows by split, rule, model and score: `91.50 ± 0.99`, seeds, test utterances."""
    found = {}
    for rule in ("paper", "validation"):
        overview = rows(report("--rule", rule, *FOUR, "--format", "csv", folder=EMODB))
        assert overview == rows((EMODB / f"overview_{rule}.csv").read_text(encoding="utf-8"))
        for row in overview:
            if row["folds"] != "averaged" and row["changed"] == "classes=neutral,sad,angry,happy":
                sd = f" ± {float(row['sd']):.2f}" if row["sd"] else ""
                score = f"{float(row['mean']):.2f}{sd}"
                found[row["split"], rule, row["model"], row["score"]] = score, row["n"], row["utterances"]
    return found


def test_tables_of_the_reading_are_the_records(emodb):
    page = (EMODB / "README.md").read_text(encoding="utf-8")
    ways = (("8:2", "paper"), ("8:1:1", "validation"))
    whole = re.findall(
        r"^\| (\w+)(?: \(.*\))? \| (.*), (.*) \| (.*), (.*) \| (\d+), (\d+) \| (\d+) \|", page, re.MULTILINE
    )
    assert {model for model, *_ in whole} == {model for split, _, model, _ in emodb if split == "8:2"}
    for model, wa, ua, wa811, ua811, tested, tested811, n in whole:
        cells = [emodb[*way, model, score] for way in ways for score in ("WA", "UA")]
        told = [(wa, n, tested), (ua, n, tested), (wa811, n, tested811), (ua811, n, tested811)]
        assert cells == told, model
    apart = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \| (\d+) \|$", page, re.MULTILINE)
    assert {model for model, *_ in apart} == {model for split, _, model, _ in emodb if split == "speaker"}
    for model, wa, ua, tested in apart:
        assert [emodb["speaker", "validation", model, s] for s in ("WA", "UA")] == [
            (wa, "1", tested),
            (ua, "1", tested),
        ]


def test_the_readme_quotes_the_papers_numbers():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Published numbers")[1].replace("**", "")
    rows = re.findall(r"^\| (\w+)(?: \(`MACNN`\))?" + r" \| ([\d./ ]+)" * 3 + r" \|$", section, re.MULTILINE)
    found = tables.published()
    assert [row[0] for row in rows] == list(tables.COMPARED)
    for name, *cells in rows:
        for dataset, cell in zip(("impro", "script", "all"), cells, strict=True):
            scores = found["8:2", dataset, tables.COMPARED[name], ""]
            assert cell == f"{scores['WA'][0]:.2f} / {scores['UA'][0]:.2f}", (name, dataset)


def test_figures_of_emodb_in_the_readme_are_the_records(emodb):
    """`91.50 ± 0.99 (3)`: mean, standard deviation where there is one, and how many seeds."""
    found = {key: f"{score} ({n})" for key, (score, n, _) in emodb.items()}
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Results on real speech")[1].split("\n## ")[0]
    quoted = re.findall(r"^\| `(\w+)`(?: \(.*?\))? \|(.*)\|$", section, re.MULTILINE)
    assert [name for name, *_ in quoted] == [
        "APCNN",
        "MACNN",
        "AACNN",
        "GLAM",
        "ResMultiConv3",
        "MHResMultiConv3",
        "AAResMultiConv3",
        "gMLPResConv3",
    ]
    ways = (("8:2", "paper"), ("8:1:1", "validation"), ("speaker", "validation"))
    columns = [(*way, score) for way in ways for score in ("WA", "UA")]
    for model, line in quoted:
        for (split, rule, score), value in zip(columns, line.split("|"), strict=True):
            told = found.get((split, rule, model, score), "").removesuffix(" (1)")  # of one round there is no deviation
            assert told == value.strip(), (model, split, score)
    apart = [found["speaker", "validation", "GLAM", score] for score in ("WA", "UA")]
    both = (found[*way, "GLAM", "WA"].split()[0] for way in (ways[0], ways[2]))
    words = "GLAM has {} WA by the published protocol and {} on unheard speakers".format(*both)
    assert words in " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "GLAM has {} WA and {} UA".format(*(value.split()[0] for value in apart)) in section
    assert "results/emodb/confusion-emodb-speaker-validation.png" in section


def test_what_the_readme_says_of_emodb_is_in_the_records():
    """The sentences on protocols, put together from the records."""
    changes = {
        (row["split"], row["rule"], row["score"]): [-float(row[key]) for key in ("mean", "high", "low")]
        for row in rows((EMODB / "protocols.csv").read_text(encoding="utf-8"))
        if row["kind"] == "change" and row["model"] == "GLAM"
    }
    runs = [run for run in published("speaker") if run.model == "GLAM"]
    pooled = [grouping.Group(runs, rule).scores().mean(0)[:2] for rule in ("paper", "last")]
    each = pooled[0] - pooled[1]
    tested = [run.predictions("test") for run in runs]
    counts = np.sum([[metrics.confusion_matrix(t.labels, at.argmax(1), 4) for at in t.logits] for t in tested], 0)
    best = max((metrics.scores_of(epoch)[:2] for epoch in counts), key=lambda both: both.mean()) - pooled[1]
    (wa, *bounds), (ua, *others) = (changes["speaker", "validation", score] for score in ("WA", "UA"))
    compared = rows((EMODB / "speaker_independent.csv").read_text(encoding="utf-8"))
    p, p_aacnn = (
        {
            row["p_holm"]
            for row in compared
            if (row["kind"], row["model"], row["other"]) == ("comparison", model, "GLAM")
        }
        for model in ("MACNN", "AACNN")
    )
    last = [changes["8:2", "last", score][0] for score in ("WA", "UA")]
    section = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert f"{wa:.0f} and {ua:.0f} points below the published protocol" in section
    assert (
        "(95 % bootstrap over speakers and the seeds of `8:2`: {:.1f} to {:.1f} and {:.1f} to {:.1f})".format(
            *bounds, *others
        )
        in section
    )
    assert "on `8:2`, this gives GLAM {:.0f} to {:.0f} points more than the last epoch".format(*last) in section
    assert (
        "it gives {:.0f} to {:.0f} points more if an epoch is chosen for each speaker, "
        "and {:.0f} if one epoch is chosen for all".format(*each, *best[:1])
        in section
    )
    assert f"(corrected p = {float(p.pop()):.3f}, which is too small" in section and not p
    not_ahead = "GLAM is not shown to be ahead of AACNN on unheard speakers" in section
    assert not_ahead == (min(map(float, p_aacnn)) > 0.05)


def test_what_choosing_the_epoch_is_worth_is_in_the_records():
    """The points that the rule `paper` has above other rules, and the best epoch of all folds above their last."""
    page = (EMODB / "README.md").read_text(encoding="utf-8")
    others = ("8:2", "last"), ("8:1:1", "validation"), ("speaker", "last"), ("speaker", "validation")
    for model in ("GLAM", "ResMultiConv3", "AACNN"):

        def mean(split, rule, model=model):
            return grouping.Group([r for r in runs_of(split) if r.model == model], rule).scores().mean(0)[:2]

        best = {"8:2": mean("8:2", "paper"), "8:1:1": mean("8:2", "paper"), "speaker": mean("speaker", "paper")}
        worth = [best[split] - mean(split, rule) for split, rule in others]
        folds = [[epoch["test"]["confusion"] for epoch in r.epochs] for r in runs_of("speaker") if r.model == model]
        pooled = metrics.scores_of(np.sum(folds, 0))[:, :2]
        worth.append(max(pooled, key=np.mean) - pooled[-1])
        row = " | ".join(f"{wa:.1f}, {ua:.1f}" for wa, ua in worth)
        assert f"| {model} | {row} |" in page, (model, row)
        if model == "GLAM":
            assert f"For GLAM {np.min(worth):.1f} to {np.max(worth):.1f} points" in page


def test_what_the_parts_of_glam_add_is_in_the_records():
    """The table of GLAM minus its variants, and what a temperature does, put together from the records."""
    folds: dict[str, dict[int, records.Run]] = {}
    for run in published("speaker"):
        folds.setdefault(run.model, {})[run.fold] = run
    runs = [run for of_model in folds.values() for run in of_model.values()]
    for alpha in (0, 0.3, 1, 2):
        folds[f"alpha={alpha}"] = {run.fold: run for run in published("speaker", alpha=float(alpha))}
    page = (EMODB / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^\| (?:`([\w=.]+)`, [^|]*| )\| ([a-z ]+) \| ([+−].*) \| ([+−].*) \|$", page, re.MULTILINE)
    rules = {"chosen on the validation speaker": "validation", "last": "last", "chosen on the test speaker": "paper"}
    assert [said for _, said, *_ in found] == [*rules] * (len(found) // 3) and len(found) >= 9
    both: list[str] = []
    for number, (_, said, *cells) in enumerate(found):
        model = found[number - number % 3][0]
        for score, cell in zip(("WA", "UA"), cells, strict=True):
            pairs = [[folds[name][k].scores(rules[said])[score] for k in range(10)] for name in ("GLAM", model)]
            differences = np.subtract(*pairs)
            p, _ = stats.signed_rank(differences)
            assert cell == f"{said_of(differences)}, {p:.2f}", (model, said, score)
            if (model, said) == ("AAResMultiConv3", "last"):
                both.append(f"{p:.3f}")
    assert both[0] == both[1]
    assert {model for model, *_ in found if model} == folds.keys() - {"GLAM", "MACNN", "AACNN", "APCNN"}
    words = (
        "the mean cross-entropy of the test utterances is {} without a temperature, {} with the temperature "
        "that makes the validation utterances likeliest, and {} with ours"
    )
    plain = " ".join(page.split())
    assert f"p is {both[0]} there for WA and for UA. These are two of {2 * len(found)} values of p, not corr" in plain
    assert words.format(*(f"{mean:.2f}" for mean in surprises(runs))) in plain
    assert f"Over the {len(runs)} runs of the eight models with a speaker left out" in plain


def test_how_far_glam_leads_is_in_the_records():
    """With speakers left out, on the utterances that both models were tested on."""
    page = " ".join((EMODB / "README.md").read_text(encoding="utf-8").split())

    def told(model, rule):
        """The differences in the means over folds of WA and UA, their p and those of them corrected for the table."""
        options = ("--table", "speaker_independent", "--rule", rule, *FOUR, "--format", "csv")
        pairs = [row for row in rows(report(*options, folder=EMODB)) if row["kind"] == "comparison"]
        (wa, ua) = [row for row in pairs if (row["model"], row["other"]) == (model, "GLAM")]
        assert (wa["score"], ua["score"], float(wa["in_common"])) == ("WA", "UA", 10)
        return [[float(row[key]) for row in (wa, ua)] for key in ("mean", "p", "p_holm")]

    for model, before in (
        ("MACNN", "and with speakers left out {} and {} in the mean over ten folds (Wilcoxon, "),
        ("APCNN", "and with speakers left out {} and {} ("),
    ):
        means, p, corrected = told(model, "validation")
        assert p[0] == p[1] and corrected[0] == corrected[1]
        words = before.format(*(f"{-mean:.0f}" for mean in means)) + f"p = {p[0]:.3f}, {corrected[0]:.3f} corrected"
        assert words in page, words
    means, p, _ = told("AACNN", "validation")
    words = (
        "If the epoch is chosen on the validation speaker, the lead with speakers left out is {:.0f} and {:.0f} in the "
        "mean over folds, which ten speakers do not tell from chance (p = {:.2f} and {:.2f})."
    ).format(*(-mean for mean in means), *p)
    assert words in page, words
    for rule, before in (("last", "At the last epoch it is"), ("paper", "at the one chosen on the test speaker")):
        means, p, corrected = told("AACNN", rule)
        words = f"{before} {-means[0]:.0f} and {-means[1]:.0f} (p = {p[0]:.3f} and {p[1]:.3f}, corrected "
        assert words + f"{corrected[0]:.3f} and {corrected[1]:.3f})" in page, words


def test_what_temperatures_do_is_in_the_records():
    """Of the five seeds of 8:1:1, each at a temperature of its own; and of all folds."""
    page = " ".join((EMODB / "README.md").read_text(encoding="utf-8").split())
    falls: list[float] = []
    fitted: dict[str, list[float]] = {}
    tested: dict[str, list[tuple]] = {}
    for run in runs_of("8:1:1"):
        epoch, val, test = run.pick("validation"), run.predictions("val"), run.predictions("test")
        fitted.setdefault(run.model, []).append(calibration.fit_temperature(val.logits[epoch], val.labels))
        tested.setdefault(run.model, []).append((test.logits[epoch], test.labels))
    for model in ("GLAM", "MACNN", "ResMultiConv3", "APCNN", "AACNN"):
        ways = [1.0] * 5, fitted[model]
        labels = np.concatenate([each[1] for each in tested[model]])
        scaled = ([each[0] / t for each, t in zip(tested[model], ts, strict=True)] for ts in ways)
        before, after = (f"{metrics.ece(np.concatenate(logits), labels):.1f}" for logits in scaled)
        assert re.search(rf"from {before} to {after}(?: %)? for {model}\b", page), (model, before, after)
        losses = [[metrics.cross_entropy(*each, t) for each, t in zip(tested[model], ts, strict=True)] for ts in ways]
        falls.append(np.mean(losses[0]) - np.mean(losses[1]))
    temperatures = np.concatenate([*fitted.values()])
    words = "that of the test utterances falls for each model, but only by"
    assert f"{words} {min(falls):.3f} to {max(falls):.3f}" in page
    assert f"So ours, from {min(temperatures):.2f} to {max(temperatures):.2f} there, is drawn towards 1" in page


def test_intervals_of_the_reading_are_the_records():
    """GLAM against itself without its fusion on 8:2; what sharing speakers is worth; both protocols apart."""

    def change(before, after):
        """Means, and the bounds of each interval, of WA and UA from one (split, model, rule) to another."""
        groups = [
            grouping.Group([run for run in runs_of(split) if run.model == model], rule)
            for split, model, rule in (before, after)
        ]
        means, interval = tables.change(*groups)
        return means, [(interval.low[i], interval.high[i]) for i in (0, 1)]

    def text(numbers):
        return [f"{number:.1f}".replace("-", "−") for number in np.array(numbers) + 0.0]

    page = " ".join((EMODB / "README.md").read_text(encoding="utf-8").split())
    means, bounds = change(("8:2", "GLAM", "paper"), ("8:2", "ResMultiConv3", "paper"))
    (wa, ua), spans = text(means[:2]), [" to ".join(text(pair)) for pair in bounds]
    assert f"its WA is {wa} and UA {ua} points higher" in page
    assert f"with 95 % bootstrap intervals of {spans[0]} and {spans[1]}" in page

    same = {"paper": "8:2", "last": "8:2", "validation": "8:1:1"}
    spans = {}
    for model in ("GLAM", "AACNN"):
        shared = {rule: change(("speaker", model, rule), (split, model, rule)) for rule, split in same.items()}
        assert all(low < 0 < high for _, bounds in shared.values() for low, high in bounds)
        pairs = [" and ".join(text(means[:2])) for means, _ in shared.values()]
        assert (f"(AACNN: {', '.join(pairs)})" if model == "AACNN" else f"{pairs[1]} under `last`, {pairs[2]}") in page
        spans[model] = [pair for _, bounds in shared.values() for pair in bounds]
    narrowest = min(spans["GLAM"], key=lambda pair: pair[1] - pair[0])
    assert f"the narrowest of GLAM's being {' to '.join(text(narrowest))} (WA, `paper`)" in page

    said = {}
    for model in ("GLAM", "AACNN", "MACNN", "APCNN"):
        way = ("speaker", model, "validation"), ("8:2", model, "paper")
        means, bounds = change(*way) if model != "APCNN" else change(*reversed(way))
        said[model] = [f"{m} [{', '.join(text(pair))}]" for m, pair in zip(text(means[:2]), bounds, strict=False)]
    assert "GLAM falls by {} points of WA and {} of UA (table".format(*said["GLAM"]) in page
    assert "AACNN falls by {} and {}, for which 0 is not excluded".format(*said["AACNN"]) in page
    _, bounds = change(("8:2", "AACNN", "paper"), ("speaker", "AACNN", "validation"))
    assert all(low < 0 < high for low, high in bounds[:2])
    assert f"everywhere, falls by {said['MACNN'][0]} and nothing" in page and said["MACNN"][1] == "0.0 [0.0, 0.0]"
    assert "APCNN rises, by {} and {}:".format(*said["APCNN"]) in page


def runs_of(split):
    """EMO-DB's runs of a split with the published settings, 8:1:1 being read from those of 8:2."""
    if split != "8:1:1":
        return published(split)
    return [run for run in records.with_derived(published("8:2")) if run.split == split]


def test_numbers_of_utterances_are_the_records():
    """How many are long enough, what always answering angry gives, and how MACNN answers for neutral."""
    pages = [" ".join(f.read_text(encoding="utf-8").split()) for f in (ROOT / "README.md", EMODB / "README.md")]
    usable, angry, validation = {}, {}, set()
    for split in ("8:2", "8:1:1", "speaker"):
        for model in ("GLAM", "MACNN"):
            runs = [run for run in runs_of(split) if run.model == model]
            labels = [run.predictions("test").labels for run in runs]
            angry[split, model] = 100 * np.mean(np.concatenate(labels) == runs[0].config["classes"].index("angry"))
            usable[split, model] = len(np.concatenate(labels)) // (1 if split == "speaker" else len(runs))
            if split == "8:1:1":
                validation |= {len(run.predictions("val").labels) for run in runs}
    keys = [(split, model) for split in ("8:2", "8:1:1") for model in ("GLAM", "MACNN")]
    parts = [f"{angry[key]:.0f} {'WA ' * (not i)}on the {usable[key]}" for i, key in enumerate(keys)]
    always = f"{parts[0]} utterances, {', '.join(parts[1:])}"
    assert all(always in page for page in pages), always
    apart = [f"{angry['speaker', model]:.0f}" for model in ("GLAM", "MACNN")]
    assert "Under `speaker`, it has {} WA, and {} with the longer segments".format(*apart) in pages[0]
    assert "(always angry: {} and {} WA)".format(*apart) in pages[1]
    long, longer = (usable["speaker", model] for model in ("GLAM", "MACNN"))
    run = published("speaker")[0].config
    count = sum(run[key] for key in ("n_train", "n_val", "n_test", "n_dropped"))
    words = f"({count} recordings, of which {long} are at least 1.8 s long and {longer} at least 2 s)"
    assert words in pages[1]
    assert f"the {min(validation)} or {max(validation)} validation utterances" in pages[1]
    neutral = sum(np.array(run.scores("paper")["confusion"]) for run in runs_of("8:2") if run.model == "MACNN")[0]
    assert neutral[0] == neutral[3] == 0
    shares = 100 * neutral[1:3] / neutral.sum()
    assert "Neutral goes to sad or angry, in {:.0f} and {:.0f} %".format(*shares) in pages[1]


@pytest.mark.parametrize("changed", [{"amp": True}, {"feature": "mfcc_reflect"}])
def test_what_bfloat16_and_the_padding_do_is_in_the_records(changed):
    """GLAM with this setting minus GLAM, on the same splits, at the last epoch and at that of `paper`."""
    plain, other = ({run.seed: run for run in published("8:2", **m) if run.model == "GLAM"} for m in ({}, changed))
    cells = []
    for rule in ("last", "paper"):
        for score in ("WA", "UA"):
            pairs = [[runs[seed].scores(rule)[score] for seed in plain] for runs in (other, plain)]
            cells.append(said_of(np.subtract(*pairs)))
    words = "{} points of WA and {} of UA at the last epoch, {} and {} at the one chosen on the test set".format(*cells)
    page = " ".join((EMODB / "README.md").read_text(encoding="utf-8").split())
    assert len(plain) == len(other) == 5 and words in page, words
    bounds = [[float(end) for end in cell.replace("−", "-").split("[")[1][:-1].split(",")] for cell in cells]
    # of --amp a loss is asked for, of the padding any difference
    most = -np.min(bounds) if "amp" in changed else np.abs(bounds).max()
    assert f"one of up to {most:.1f} points is not excluded" in page


def said_of(differences):
    """Their mean and its 95 % t interval, as the page has them."""
    interval = scipy.stats.t.interval(0.95, len(differences) - 1, differences.mean(), scipy.stats.sem(differences))
    mean, low, high = (round(x, 1) + 0.0 for x in (differences.mean(), *interval))  # no −0.0
    return f"{mean:+.1f} [{low:.1f}, {high:.1f}]".replace("-", "−")


def surprises(runs):
    """The mean cross-entropy of runs' test utterances without a temperature, with the likeliest on the validation
    utterances, and with ours."""
    rows = []
    for run in runs:
        epoch, val, test = run.pick("validation"), run.predictions("val"), run.predictions("test")

        def loss(log_t, part=val, epoch=epoch):
            return metrics.cross_entropy(part.logits[epoch], part.labels, np.exp(log_t))

        likeliest = scipy.optimize.minimize_scalar(loss, bounds=np.log([0.05, 20]), method="bounded").x
        ours = np.log(calibration.fit_temperature(val.logits[epoch], val.labels))
        rows.append([loss(log_t, test) for log_t in (0, likeliest, ours)])
    return np.mean(rows, 0)


@pytest.mark.parametrize("folder", [FOLDER, EMODB, FOLDER.parent / "synthetic"], ids=lambda folder: folder.name)
def test_tables_and_figures_that_a_reading_names_are_there(folder):
    page = (folder / "README.md").read_text(encoding="utf-8")
    drawn = set(re.findall(rf"`((?:{'|'.join(figures.FIGURES)})-[\w.-]+)`", page))
    named = set(re.findall(rf"`({'|'.join(tables.TABLES)}|ablation_speaker|alpha_speaker)`", page))
    for file in (*(f"{name}.pdf" for name in drawn), *(f"{name}.{e}" for name in named for e in ("md", "csv"))):
        assert (folder / file).is_file(), file
    assert folder != EMODB or (len(drawn) >= 2 and len(named) >= 6)


def test_figures_quoted_in_the_readme_are_the_records():
    table = rows(report("--table", "protocols", "--format", "csv"))
    found = {
        (r["split"], r["rule"], r["score"]): r
        for r in table
        if r["kind"] == "score" and r["mean"] and r["folds"] != "averaged"
    }
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Results on real speech")[1].split("\n## ")[0]
    quoted = re.findall(r"\| `(\S+)`, `(\w+)`.*? \| ([\d.]+).*? \| ([\d.]+)", section)
    assert len(quoted) == 4
    for split, rule, *values in quoted:
        for score, value in zip(("WA", "UA"), values, strict=True):
            assert f"{float(found[split, rule, score]['mean']):.2f}" == value, (split, rule, score)
