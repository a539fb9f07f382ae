"""Make tables and figures from run folders. The epoch to report is picked here, by a rule, and not while training.

    python report.py                                       # everything under the runs folder
    python report.py --rule last --dataset impro --model GLAM,MACNN
    python report.py --table comparison                    # a table of the paper, beside the paper's figures
    python report.py --table comparison --dataset emodb --format html --output comparison.html
    python report.py --table ablation --split speaker      # the same rows with a speaker left out
    python report.py --figure confusion --dataset impro
    python report.py --errors 50 --dataset impro --model GLAM
    python report.py --audit --table comparison            # exit status 1 if a record contradicts another

The rule `paper` picks the epoch with the best (WA+UA)/2 on the test set, as published; its scores are optimistic.
`validation` picks the epoch with the best (WA+UA)/2 on the validation part; of equally good epochs, it picks the one
with the lowest cross-entropy there. `last` picks the last epoch.
"""

import filecmp
import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

import audit
import captions
import cli
import figures
import flags
import grouping
import models
import path
import recipes
import records
import render
import tables
from cli import UserError, warn
from corpora import dataset_folder, is_csv
from files import write_text
from grouping import Group
from metrics import SCORE_NAMES, SCORES
from recipes import RULES, settings_text
from records import Run, runs
from tables import TABLES, Row, Table, measure, published_scores

if TYPE_CHECKING:
    from pandas import DataFrame


def folds_sd(measured: dict[str, Any]) -> str:
    """Return ` (folds ± 4.21)`, the standard deviation that papers on IEMOCAP give, for a mean over folds; else ""."""
    return f" (folds ± {measured['folds_sd']:.2f})" if measured.get("folds_sd") is not None else ""


def with_sd(mean: float, sd: float | None, low: float | None = None, high: float | None = None) -> str:
    """Return a mean with its deviation and interval as text: `81.18 ± 1.47 [79.90, 82.31]`."""
    text = f"{mean:.2f}" if sd is None else f"{mean:.2f} ± {sd:.2f}"
    return text if low is None else f"{text} [{low:.2f}, {high:.2f}]"


def signed(value: float) -> str:
    """Return a number with its sign as text: `+0.30`, `−0.30`."""
    return f"{value:+.2f}".replace("-", "−")


# -------------------------------------------------------------------------------------- what is there, as it is


def _canonical(name: str) -> str:
    """Return the name of a model in its runs, given an alias such as MHCNN; a name of no model stays as it is."""
    with suppress(UserError):
        return models.canonical(name)  # imports torch, which takes a second
    return name


def select(found: Iterable[Run], args: Namespace) -> list[Run]:
    """Return the runs that the flags select. Raises UserError if there is none, or if one has no epoch by the rule.

    Runs of 8:2 are read as 8:1:1 if that split is asked for, or if the rule is `validation` and no split is named.
    """
    chosen = list(found)
    if args.rule == "validation" and args.split is None:
        chosen = [run for run in records.with_derived(chosen) if run.has_validation]
    elif "8:1:1" in (args.split or ()):
        chosen = records.with_derived(chosen)
    datasets = [dataset_folder(name) for name in args.dataset or ()]
    if args.model and {*args.model} - {run.model for run in chosen}:
        args.model = tuple(map(_canonical, args.model))
    for flag, wanted in (("dataset", datasets), ("split", args.split), ("model", args.model)):
        there = sorted({getattr(run, flag) for run in chosen})
        if unknown := [name for name in wanted or () if name not in there]:
            some = ", ".join(there) or "none"
            raise UserError(f"--{flag} {','.join(unknown)}: there is no finished run of it; there are {some}")
        chosen = [run for run in chosen if not wanted or getattr(run, flag) in wanted]
    for key, value in args.set.items():
        chosen = [run for run in chosen if run.config["settings"].get(key) == value]
    chosen = [run for run in chosen if run.corpus_digest.startswith(args.corpus)]
    if not chosen:
        raise UserError("these flags leave no finished run; `python report.py` shows all finished runs")
    if args.rule == "validation" and (without := [run.split for run in chosen if not run.has_validation]):
        raise records.no_validation(without[0])
    return chosen


def without_namesakes(found: Sequence[Run], datasets: Iterable[str]) -> list[Run]:
    """Return the runs without those of other CSV files: files named as one of `datasets` but with other contents."""
    asked = [(dataset_folder(name), name) for name in datasets if is_csv(name) and Path(name).is_file()]

    def foreign(run: Run) -> bool:
        own = Path(run.config["settings"]["dataset"])
        files = [file for folder, file in asked if folder == run.dataset]
        try:
            return bool(files) and own.is_file() and not any(filecmp.cmp(own, file, False) for file in files)
        except OSError:  # a file that cannot be read, as another user's, may be the same
            return False

    others = [run for run in found if foreign(run)]
    for own, n in Counter(run.config["settings"]["dataset"] for run in others).items():
        warn(f"{n} run{'s' * (n > 1)} of {own}, another file of the same name, left out")
    return [run for run in found if run not in others]


def table(found: Iterable[Run], rule: str | None = None) -> "DataFrame":
    """Return a table with a row for each group of finished runs: mean ± standard deviation, n, the published figure.
    Without `rule`, each group has its own (`Run.own_rule`)."""
    return records.leaving_out_broken(lambda usable: _overview(usable, rule)[0], found)


def _overview(usable: list[Run], rule: str | None) -> tuple["DataFrame", "DataFrame", list[str]]:
    """Return the overview's rows as text, the rows as numbers, and what `captions.say_repeats` says of them."""
    from pandas import DataFrame

    groups = grouping.group_by_setting(usable, rule)
    corpora = Counter(dataset for dataset, _ in {(g.dataset, g.corpus_digest) for g in groups})
    texts: list[dict[str, str]] = []
    numbers: list[dict[str, Any]] = []
    for group in tqdm(groups, unit="row", leave=False, delay=1, disable=None):
        name = group.dataset + (f" {group.corpus_digest[:8]}" if corpora[group.dataset] > 1 else "")
        changed = settings_text(group.changed)
        name += " (SYNTHETIC)" if group.synthetic else ""
        texts += _overview_lines(
            group,
            {"Dataset": name, "Split": group.split, "Rule": group.rule, "Model": group.model, "Changed": changed},
        )
        about = {
            "dataset": group.dataset, "corpus": group.corpus, "corpus_digest": group.corpus_digest,
            "split": group.split, "model": group.model, "changed": changed, "rule": group.rule,
            "synthetic": group.synthetic, "utterances": group.utterances, "splits": group.splits,
        }  # fmt: skip
        for folding in group.foldings:
            folds = folding if group.has_folds else ""
            numbers += [{**about, "folds": folds, **row} for row in measure(group, folding)]
    if not texts:
        raise UserError("every one of these runs is broken; delete their folders and run again")
    columns = list(dict.fromkeys(column for text in texts for column in text))
    frame = DataFrame([{column: text.get(column) or "–" for column in columns} for text in texts])
    frame = frame.drop(columns=[c for c in ("Changed", "Folds") if (frame[c] == "–").all()])
    return frame, DataFrame(numbers), captions.say_repeats(groups)


def _overview_lines(group: Group, head: dict[str, str]) -> list[dict[str, str]]:
    """Return a line for each way to put folds together, and one for each seed that lacks some folds."""
    found = []
    for folding in group.foldings:
        folds = folding if group.has_folds else ""
        about = {"Folds": folds, "n": str(len(group.rounds)), "Utterances": group.utterances, "Splits": group.splits}
        scores = {SCORE_NAMES[m["score"]]: with_sd(m["mean"], m["sd"]) + folds_sd(m) for m in measure(group, folding)}
        paper = {f"published {SCORE_NAMES[score]}": with_sd(*value) for score, value in published_scores(group).items()}
        found.append({**head, **about, **scores, **paper})
    for part in group.incomplete:
        text = f"pooled, incomplete: {len(part.runs)} of {part.folds} (seed {part.seed})"
        scores = {name: f"{value:.2f}" for name, value in zip(SCORE_NAMES.values(), part.pooled, strict=True)}
        about = {"n": "", "Utterances": str(part.n_test), "Splits": grouping.splits_of(part.runs)}
        found.append({**head, "Folds": text, **about, **scores})
    return found


def overview(found: list[Run], rule: str | None, begun: int, command: str) -> render.Document:
    """Return the table of all the runs `found`, with its caption."""
    frame, numbers, repeats = records.leaving_out_broken(lambda usable: _overview(usable, rule), found)
    synthetic, rules = any(run.synthetic for run in found), {*frame["Rule"]}
    frame = frame.drop(columns=["Rule"] if len(rules) == 1 else [])  # the caption names a single rule
    text = "Scores in per cent: mean ± sample standard deviation over n seeds."
    caption = [f"{text} {captions.say_rules(rules)} {captions.SPLITS}", *([captions.SYNTHETIC] if synthetic else [])]
    if "Folds" in frame:
        caption.append(captions.FOLDS)
    caption += captions.say_unpublished({run.split for run in found if rule == "paper" and run.has_validation})
    caption += repeats
    if begun:
        caption.append(f"{captions.say_unfinished(begun)}.")
    caption.append(f"Made with `{command}`.")
    return render.Document("Runs", caption, [render.Section(frame)], numbers, synthetic=synthetic)


# -------------------------------------------------------------------------------------------- a table by name


def lines(row: Row, changes: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """Return a row's lines: our scores (pooled, averaged), the published, the difference, the change of protocol."""
    spec, group, paper = row.spec, row.counted, row.paper
    head = {"Dataset": spec.dataset, "Model": spec.name, "Split": spec.split, "Rule": spec.rule}
    found = _ours(row, group) if group else [{"Source": row.status}]
    if paper:
        found.append({"Source": "published", **{SCORE_NAMES[score]: with_sd(*value) for score, value in paper.items()}})
    if group and paper:
        differences = group.scores().mean(0) - [paper[score][0] for score in SCORES]
        texts = dict(zip(SCORE_NAMES.values(), map(signed, differences), strict=True))
        found.append({"Source": "ours − published", **texts})
    where = (spec.dataset, spec.model, spec.split, spec.rule)
    if own := [c for c in changes if (c["dataset"], c["model"], c["split"], c["rule"]) == where]:
        texts = {SCORE_NAMES[c["score"]]: signed(c["mean"]) + _bounds(c) for c in own}
        found.append({"Source": f"change from {own[0]['other']}", **texts})
    return [{**head, **found[0]}, *found[1:]]


def _bounds(change: dict[str, Any]) -> str:
    return f" [{signed(change['low'])}, {signed(change['high'])}]" if "low" in change else ""


def _ours(row: Row, group: Group) -> list[dict[str, str]]:
    about = {"n": str(len(group.rounds)), "Utterances": group.utterances}
    about |= {"Speakers": str(group.n_speakers or "–"), "Splits": group.splits}
    found = []
    for folding in group.foldings:
        folds = {"pooled": ", folds pooled", "averaged": ", mean over folds"}[folding] if group.has_folds else ""
        scores = {
            SCORE_NAMES[m["score"]]: with_sd(m["mean"], m["sd"], m.get("low"), m.get("high")) + folds_sd(m)
            for m in measure(group, folding, row.interval)
        }
        found.append({"Source": f"ours{folds}{' SYNTHETIC' if group.synthetic else ''}", **scores, **about})
        about = {}
    return found


def comparison_section(tests: Sequence[dict[str, Any]]) -> render.Section:
    """Return the section of a report that shows the paired tests."""
    from pandas import DataFrame

    def number(value: float | None) -> str:
        return "–" if value is None else "<0.0001" if value < 1e-4 else f"{value:.4f}"

    texts = []
    for test in tests:
        unit = test["unit"].removesuffix("s") if test["n"] == 1 else test["unit"]
        texts.append({
            "Dataset": test["dataset"] + (" (SYNTHETIC)" if test["synthetic"] else ""), "Split": test["split"],
            "Score": test["score"], "Pair": f"{test['label']} against {test['other']}",
            "Mean difference": "–" if test["mean"] is None else signed(test["mean"]),
            "n": f"{test['n']} {unit}", "Same split": f"{test['same_split']} of {test['shared']}",
            "p": number(test["p"]), "p (Holm)": number(test["p_holm"]), "Verdict": test["verdict"],
        })  # fmt: skip
    frame = DataFrame(texts)
    frame = frame.drop(columns=["Split"] if frame["Split"].nunique() == 1 else [])
    return render.Section(frame, "Which is better than which", captions.say_tests(tests))


def named_table(
    name: str,
    found: list[Run],
    datasets: Sequence[str] | None = None,
    settings: dict[str, Any] | None = None,
    splits: Sequence[str] | None = None,
    rule: str | None = None,
    corpus: tuple[str, ...] = ("",),
    command: str = "",
    root: Path | None = None,
    models: Sequence[str] | None = None,
) -> tuple[render.Document, list[Row]]:
    """Return a table of TABLES, made from the runs `found`, and its rows. Raises UserError where `rule` cannot apply.

    `command` and `root` (the runs folder, if it is not path.py's) go into the table's caption and notes.
    """
    definition = TABLES[name]
    if rule and definition.protocols:
        raise UserError(f"--rule {rule}: the rows of the table {name} have their own rules; leave the flag out")
    settings = settings or {}
    machine = {key: settings[key] for key in settings if key in recipes.MACHINE}
    found = [run for run in found if machine.items() <= run.config["settings"].items()]
    specs = [replace(spec, rule=rule or spec.rule) for spec in definition.row_specs(datasets, settings, splits, models)]
    if rule == "validation" and any(spec.split == "8:2" for spec in specs):
        raise records.no_validation("8:2")
    fitting = [run for run in found if any(tables.runs_of(spec, [run]) for spec in specs)]
    one_corpus = grouping.choose_corpus(fitting, corpus)
    rows = records.leaving_out_broken(lambda usable: tables.find(specs, usable), one_corpus)
    lacking = {row.spec.split for row in rows if row.status}
    seeds = max((len(row.counted.rounds) for row in rows if row.counted and row.spec.split in lacking), default=1)
    sought = grouping.machine_settings(one_corpus) | settings
    more = captions.sweep_command(name, datasets, sought, splits, seeds, root, [*found, *one_corpus], models)
    others = captions.other_settings(rows, [run for run in found if run.corpus_digest.startswith(corpus)])
    notes = [*captions.notes_of(rows, more), *others]
    return _document(name, definition, rows, notes, captions.of_table(rows, settings, command)), rows


def _document(name: str, definition: Table, rows: list[Row], notes: list[str], caption: list[str]) -> render.Document:
    from pandas import DataFrame

    changes = tables.changes(name, rows) if definition.protocols else []
    texts = [line for row in rows for line in lines(row, changes)]
    columns = ["Dataset", "Model", "Split", "Rule", "Source", *SCORE_NAMES.values(), "n", "Utterances"]
    columns += ["Speakers", "Splits"]
    frame = DataFrame([{column: text.get(column, "") for column in columns} for text in texts])
    frame = frame.drop(columns=[c for c in ("Split", "Rule") if len(set(frame[c]) - {""}) == 1])
    if definition.protocols:
        notes = [
            "The interval of a change draws the same speakers for both rows.",
            *captions.say_protocols(rows),
            *notes,
        ]
    sections = [render.Section(frame, notes=notes)]
    tests = [] if definition.protocols else tables.comparisons(name, rows, definition.against)
    if tests:
        sections.append(comparison_section(tests))
    synthetic = any(row.counted.synthetic for row in rows if row.counted)
    numbers = DataFrame([*tables.numbers(name, rows), *changes, *tests], dtype=object)
    return render.Document(definition.title, caption, sections, numbers, synthetic=synthetic)


# ----------------------------------------------------------------------------------------------- utterances


def _often_wrong(group: Group) -> list[tuple[str, str, str, str, int, int, str]]:
    """Return the utterances that were ever wrong, worst first, each as (name, path, speaker, label, times tested, times
    wrong, predictions)."""
    predictions: dict[tuple[str, str, str, int], Counter[int]] = {}
    for run in (run for each in (*group.rounds, *group.incomplete) for run in each.runs):
        test = run.predictions("test")
        columns = (test.names, test.paths, test.speakers, test.labels)
        keys = zip(*(column.tolist() for column in columns), strict=True)
        for key, guess in zip(keys, test.logits[run.pick(group.rule)].argmax(1).tolist(), strict=True):
            predictions.setdefault(key, Counter())[guess] += 1
    found = []
    for (name, file, speaker, label), counts in predictions.items():
        ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        said = ", ".join(f"{group.classes[guess]} {n}" for guess, n in ranked)
        tested = counts.total()
        found.append((name, file, speaker, group.classes[label], tested, tested - counts[label], said))
    return sorted((row for row in found if row[5]), key=lambda row: (-row[5], row[4], row[0]))


def errors_document(found: list[Run], rule: str | None, most: int, command: str) -> render.Document:
    """Return a table for each group of runs: the utterances that are most often wrong over seeds, at most `most`."""
    from pandas import DataFrame

    def worst(usable: list[Run]) -> list[tuple[Group, list[tuple[Any, ...]]]]:
        found = []
        # a comprehension, or a name for the bar, would keep the bar alive, and a broken run's warning would be on it
        for group in tqdm(grouping.group_by_setting(usable, rule), unit="group", leave=False, delay=1, disable=None):
            found.append((group, _often_wrong(group)))
        return found

    every = records.leaving_out_broken(worst, found)
    corpora = Counter(dataset for dataset, _ in {(group.dataset, group.corpus_digest) for group, _ in every})
    columns = ["name", "path", "speaker", "label", "tested", "wrong", "predictions"]
    sections, numbers = [], []
    for group, rows in every:
        changed = settings_text(group.changed)
        about = (group.dataset, group.corpus_digest, group.split, group.rule, group.model, changed, group.synthetic)
        numbers += [(*about, len(rows), *row) for row in rows[:most]]
        where = group.dataset + (f" {group.corpus_digest[:8]}" if corpora[group.dataset] > 1 else "")
        heading = f"{group.model} on {where}, {group.split}, rule {group.rule}"
        heading += (f", {changed}" if changed else "") + (", SYNTHETIC" if group.synthetic else "")
        heading += f": {min(most, len(rows))} of {len(rows)}"
        frame = DataFrame(rows[:most], columns=columns).astype(str)
        frame.insert(6, "path", frame.pop("path"))  # the long paths come last
        if rows:
            sections.append(render.Section(frame.rename(columns=str.capitalize), heading))
    caption = [
        f"The {most} utterances most often wrong over seeds, of all that were ever wrong. Utterances that are equally "
        "often wrong are sorted by name. Paths are as in the corpus. "
        f"{captions.say_rules(group.rule for group, _ in every)}",
        f"Made with `{command}`.",
    ]
    made_up = any(run.synthetic for run in found)
    grouped = ["dataset", "corpus_digest", "split", "rule", "model", "changed", "synthetic", "ever_wrong"]
    frame = DataFrame(numbers, columns=[*grouped, *columns])
    return render.Document("Utterances most often wrong", caption, sections, frame, synthetic=made_up)


# ------------------------------------------------------------------------------------------------ command line


def command_line() -> ArgumentParser:
    """Return the parser of this command."""
    parser = cli.parser(description=__doc__)
    what = parser.add_argument_group("what to print", "Without these flags: a table of all finished runs.")
    what.add_argument("--table", choices=[*TABLES], help="a table of the paper, or one that the paper leaves out")
    one = what.add_mutually_exclusive_group()
    one.add_argument("--figure", choices=[*figures.FIGURES], help="draw this figure, as PDF and PNG")
    one.add_argument("--errors", nargs="?", type=cli.count, const=20, metavar="N",
                     help="list the N utterances that are most often wrong over seeds (default: 20)")  # fmt: skip
    one.add_argument("--audit", action="store_true", help="check every run folder, or the run folders of --table")
    add = parser.add_argument_group("of which runs").add_argument
    runs = cli.in_help(path.RUNS)
    add("--runs", type=Path, metavar="DIR", help=f"the runs folder (default: {runs}, set in path.py)")
    add(
        "--rule",
        choices=list(RULES),
        help="which epoch is reported (default: the rule of --table; without --table, validation for a split with a "
        "validation part, else paper; the figures curves and tsne need no rule)",
    )
    names: dict[str, Any] = {"type": flags.name_list, "metavar": "A,B,.."}
    add("--dataset", "--datasets", help="only these datasets; with --table, in place of the table's own", **names)
    add("--split", "--splits", help="only these splits (8:1:1 is also read from runs of 8:2); with --table, in place "
        "of the table's own, and the epoch is chosen on validation data if the split has some", **names)  # fmt: skip
    add("--model", "--models", help="only these models", **names)
    changed = "only runs with this value of a setting instead of the recipe's, such as epochs=10; may be repeated"
    add("--set", type=flags.parse_setting, action="append", metavar="SETTING=VALUE", help=changed)
    add("--corpus", type=lambda text: tuple(flags.comma_list(text)) or ("",), default=("",), metavar="DIGEST",
        help="only runs on the corpus whose digest starts with this; separate several digests by commas")  # fmt: skip
    add = parser.add_argument_group("output").add_argument
    add("--format", choices=list(render.FORMATS), help="format of the table (default: what --output ends in, or md)")
    add(
        "--output",
        type=Path,
        metavar="PATH",
        help="file to write; with --figure, the folder of the figures (default: results/figures)",
    )
    return parser


def write(document: render.Document, args: Namespace) -> None:
    """Print a document in the format asked for, or write it to a file."""
    text = render.FORMATS[args.format](document)
    if args.output is None:
        print(text, end="")
    else:
        write_text(args.output, text)
        print(args.output)


def print_table(args: Namespace, found: list[Run], command: str) -> None:
    """Print the table that --table names."""
    document, rows = named_table(
        args.table, found, args.dataset, args.set, args.split, rule=args.rule, corpus=args.corpus, command=command,
        root=args.runs, models=args.model and tuple(map(_canonical, args.model)),
    )  # fmt: skip
    if args.format == "html":
        document.images = figures.images(TABLES[args.table].figures, rows)
    write(document, args)


def check(args: Namespace) -> None:
    """Raise UserError for flags that do not go together, and set `args.format` if no flag does."""
    if args.audit:
        for flag in ("model", "set", "rule", "corpus", "output", "format"):
            if getattr(args, flag) not in (None, {}, ("",)):
                raise UserError(
                    f"--{flag} does not go with --audit, which prints what is wrong with runs; leave it out"
                )
    if args.figure and args.format:
        raise UserError(f"--format {args.format}: a figure is written as PDF and PNG; leave it out")
    ending = args.output.suffix if args.output and not args.figure else ".md"
    if not args.format and ending not in render.ENDINGS:
        raise UserError(f"--output {args.output}: end it in {', '.join(render.ENDINGS)}, or say which with --format")
    args.format = args.format or render.ENDINGS[ending]
    if named := [key for key in args.set if key in recipes.NAMED]:
        raise UserError(
            f"--set {named[0]}: --dataset, --split and --model say which; a table has its own models and seeds"
        )
    if args.figure == "alpha" and "alpha" in args.set:
        raise UserError("--set alpha: the figure is of all values there are; leave it out")
    if args.table and (args.figure or args.errors):
        raise UserError(f"--table {args.table}: goes with --audit only, not with --figure or --errors")


def main(words: Sequence[str] | None = None) -> int:
    """Run `python report.py WORDS` (default: those of the command line) and return the exit status."""
    words = sys.argv[1:] if words is None else words
    args = command_line().parse_args(words)
    if twice := [key for key, n in Counter(key for key, _ in args.set or ()).items() if n > 1]:
        raise UserError(f"--set {twice[0]}: given more than once; a run has one value of a setting")
    args.set = dict(args.set or [])
    check(args)
    root, command = (args.runs or path.RUNS).absolute(), shlex.join(["python", "report.py", *words])
    if args.audit:
        return audit.check_folders(root, args.table, args.dataset, args.split)
    found, begun = without_namesakes(runs(root), args.dataset or ()), records.unfinished(root)
    if args.table:
        if begun:
            warn(captions.say_unfinished(begun))
        print_table(args, found, command)
        return 0
    if not found:
        also = f" ({begun} unfinished)" if begun else ""
        raise UserError(
            f"{root} holds no finished run{also}: train some with `bash run`, or with `bash scripts/demo` on synthetic "
            "data, or name another folder with --runs"
        )
    chosen = select(found, args)
    if args.figure:
        print("\n".join(str(file) for file in figures.make(args.figure, chosen, args)))
    elif args.errors:
        write(errors_document(chosen, args.rule, args.errors, command), args)
    else:
        write(overview(chosen, args.rule, begun, command), args)
    return 0


if __name__ == "__main__":
    cli.run_main(main)
