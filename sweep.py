"""Train the runs that are missing, of all combinations of models, datasets, splits, seeds (and folds) and settings.

    python sweep.py --models GLAM,MACNN --datasets impro --seeds 5        # the first 5 seeds of seeds.txt
    python sweep.py --models GLAM --splits speaker --seeds 1              # every fold
    python sweep.py --models GLAM --vary alpha=0,0.3,0.5 --seeds 5 --dry_run
    python sweep.py --table comparison --seeds 5 --jobs 4 --print         # what a table of report.py needs
    python sweep.py --models GLAM --seeds 100 --at_once 8                 # on one GPU
    python sweep.py --models GLAM --seeds 100 --ray local                 # or the address of a Ray cluster

Any flag of train.py may be added and holds for every run. Finished runs are not repeated, and interrupted runs are
resumed. Two sweeps at once share the work. A run that fails does not stop the others; the exit status is then 1.
"""

import argparse
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

import board
import cli
import data
import flags
import recipes
import records
import render
import seeds
import tables
import workers
from cli import UserError, warn, warn_once
from workers import Execute

VARIED = (  # the settings that --vary takes: not classes, as a list of classes has commas of its own
    "test_dataset",
    *(f.name for f in fields(recipes.Config) if f.name not in (*recipes.NAMED, "classes", "init")),
)
LOOK_AGAIN = 2.0  # seconds between looks at the runs that other processes hold, where no other run is left
STATES = {  # state of a run that is asked for: what it means
    "done": "finished",
    "started": "begun, and will be resumed",
    "missing": "not begun",
    "repeat": "done, but without the weights that --save_model asks for",
    "stale": "done, but recordings or labels have changed since",
}


def command_line() -> argparse.ArgumentParser:
    """Return the parser of this command."""
    parser = cli.parser(description=__doc__)
    group = parser.add_argument_group("what to run")
    group.add_argument("--models", type=flags.name_list, metavar="A,B,..", help="networks (default: GLAM)")
    group.add_argument("--datasets", type=flags.name_list, metavar="A,B,..", help="as --dataset (default: impro)")
    group.add_argument(
        "--splits",
        type=flags.name_list,
        metavar="A,B,..",
        help="as --split (default: 8:2; with --table, the table's)",
    )
    group.add_argument("--seeds", type=cli.count, metavar="N", help="train the first N seeds of seeds.txt (default: 1)")
    group.add_argument(
        "--next", type=cli.count, metavar="N", help="train the next N seeds of seeds.txt that are not done, instead"
    )
    group.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="SETTING=V,V,..",
        help="train with each of these values of a setting; given several times, with each combination of the values",
    )
    group.add_argument(
        "--table", choices=[*tables.TABLES], help="train what this table of report.py lacks, instead of naming models"
    )
    group.add_argument("--print", nargs="?", const=(), type=flags.comma_list, metavar="FILE,..",
                       help="with --table: print the table at the end, or write it to these files; the ending says "
                       "its format: .md, .csv, .html, .tex")  # fmt: skip
    group.add_argument(
        "--dry_run",
        action="store_true",
        help=f"list the runs with their states, and train none. States: "
        f"{'; '.join(f'{state}: {said}' for state, said in STATES.items())}",
    )
    group = parser.add_argument_group(
        "where",
        "Results do not depend on these flags, but for the last digits on a GPU: --threads is the same for every run.",
    )
    group.add_argument(
        "--jobs",
        type=cli.count,
        default=1,
        metavar="N",
        help="processes that train runs at once on this machine (default: 1)",
    )
    group.add_argument("--at_once", type=cli.count, default=1, metavar="N",
                       help="runs at once in one process; on a GPU, their kernels overlap (default: 1)")  # fmt: skip
    group.add_argument("--tries", type=cli.count, default=3, metavar="N",
                       help="how often a run is tried that breaks or whose process dies (default: 3)")  # fmt: skip
    group.add_argument(
        "--ray", metavar="ADDRESS", help="address of a Ray cluster; `local` starts a cluster on this machine"
    )
    group.add_argument(
        "--cpus_per_job", type=float, metavar="N", help="how many CPUs of the cluster a run takes (default: --threads)"
    )
    group.add_argument(
        "--gpus_per_job",
        type=float,
        metavar="N",
        help="how many GPUs of the cluster a run takes, such as 0.25 (default: 1, or 0 on a CPU)",
    )
    flags.add_flags(parser)
    return parser


# ---------------------------------------------------------------------------------------------- what to run


def variants(vary: list[str]) -> list[dict[str, Any]]:
    """Return every combination of the values of --vary: `["alpha=0,0.5"]` -> `[{"alpha": 0.0}, {"alpha": 0.5}]`.

    Raises UserError for a text that is not SETTING=VALUE,.. and for a setting that cannot be varied.
    """
    values_of: dict[str, list[Any]] = {}
    for text in vary:
        name, _, values = text.partition("=")
        if not flags.comma_list(values):
            raise UserError(f"--vary {text}: write SETTING=VALUE,VALUE,..")
        name = {"test": "test_dataset"}.get(name, name)
        if name in values_of:
            raise UserError(f"--vary {text.partition('=')[0]} is given twice: write all its values after one")
        if name not in VARIED:
            others = "--models, --datasets, --splits and --seeds take several themselves, and every fold is trained"
            raise UserError(f"--vary {text}: choose one of test, {', '.join(VARIED[1:])}; {others}")
        values_of[name] = [flags.parse_setting(f"{name}={v}", "--vary")[1] for v in flags.comma_list(values)]
    return [dict(zip(values_of, choice, strict=True)) for choice in itertools.product(*values_of.values())]


def combinations(asked: dict[str, Any], given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the combinations of flags in which the runs of one seed differ.

    With --table, a --dataset, --split or --model moves from `given` to `asked`, where it replaces the table's own.
    Raises UserError for flags that contradict each other.
    """
    axes = {"model": asked["models"], "dataset": asked["datasets"], "split": asked["splits"]}
    for name, values in axes.items():
        if values and name in given:
            raise UserError(f"--{name} and --{name}s contradict each other: leave one out")
    if asked["table"]:
        return _combinations_of_table(asked, given)
    varied = variants(asked["vary"])
    if both := [{"test_dataset": "test"}.get(name, name) for name in varied[0] if name in given]:
        raise UserError(f"--{both[0]} and --vary {both[0]} contradict each other: leave one out")
    named = {name: values for name, values in axes.items() if values}
    choices = [dict(zip(named, choice, strict=True)) for choice in itertools.product(*named.values())]
    return [choice | variant for choice in choices for variant in varied]


def _combinations_of_table(asked: dict[str, Any], given: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what `combinations` returns with --table."""
    import models

    if asked["vary"]:
        raise UserError("--table says which settings it needs: leave --vary out")
    if "," in given.get("dataset", ""):
        raise UserError(f"--dataset {given['dataset']}: tables take names with commas between; rename the file")
    for name in ("dataset", "split", "model"):
        if name in given:
            asked[f"{name}s"] = (given.pop(name),)
    if asked["models"]:
        asked["models"] = tuple(map(models.canonical, asked["models"]))
    jobs = tables.jobs(asked["table"], asked["datasets"], shaping(given), asked["splits"], asked["models"])
    return [{**{k: job[k] for k in ("model", "dataset", "split")}, **_as_given(job["changed"])} for job in jobs]


def shaping(given: dict[str, Any]) -> dict[str, Any]:
    """Return those of train.py's flags that change a table's rows."""
    names = {field.name for field in fields(recipes.Config)} - {*recipes.NAMED, *recipes.MACHINE}
    return {k: v for k, v in given.items() if k in names}


def _options(given: dict[str, Any]) -> flags.Options:
    """Return those of train.py's flags that do not change a result."""
    return flags.Options(**{f.name: given[f.name] for f in fields(flags.Options) if f.name in given})


def _as_given(changed: dict[str, Any]) -> dict[str, Any]:
    """Return settings in the form in which flags give them: tuples in place of the lists that a run records."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in changed.items()}


def expand(
    given: dict[str, Any], chosen: list[dict[str, Any]], seeds: list[int], table: bool, dry_run: bool
) -> Iterator[recipes.Config]:
    """Yield a configuration for every combination, seed and fold: all those of the first seed, then of the next.

    For a `table`, rows on a split that their corpus cannot have are left out, with a warning. `dry_run` is passed to
    train.folds_to_run.
    """
    import train

    options = _options(given)
    base: list[recipes.Config] = []
    for varied in chosen:
        config = flags.parse_config({**given, **varied})  # its seed does not matter: the folds do not depend on it
        try:
            base += train.folds_to_run(config, options, dry_run)
        except data.NoSplit as error:
            if not table:
                raise
            warn_once(f"{error}; such rows are left out")
    for seed in seeds:
        yield from (replace(config, seed=seed) for config in base)


# ------------------------------------------------------------------------------------------------ their state


@dataclass(frozen=True)
class Job:
    """A run: its configuration, its folder (which may not exist yet), and its state, one of STATES."""

    config: recipes.Config
    folder: Path
    state: str


def _is_stale(folder: Path, config: recipes.Config) -> bool:
    """Return whether a run of this configuration was finished before its corpus changed."""
    for other in folder.parent.parent.glob(f"*/{folder.name}/config.json"):
        with suppress(UserError):  # this config.json is not the record of a run
            recorded = recipes.from_settings(records.read_run(other.parent).config["settings"])
            if recorded.hash("") == config.hash("") and records.finished(other.parent):  # a CSV file under any path
                return True
    return False


def job_of(config: recipes.Config, runs: Path, save_model: str | None) -> Job:
    """Return a run's job, with the state in which its folder is."""
    folder = records.folder_of(config, *data.identity(config), runs)
    if records.finished(folder, save_model):
        state = "done"
    elif records.finished(folder):
        state = "repeat"  # to get its weights, every epoch is trained again
    elif (folder / "config.json").exists():
        state = "started"
    else:
        state = "stale" if _is_stale(folder, config) else "missing"
    return Job(config, folder, state)


def describe(config: recipes.Config) -> str:
    """Return a description of a run in one line."""
    words = [config.model, config.dataset, config.split, f"seed {config.seed}"]
    if config.fold is not None:
        words.append(f"fold {config.fold}")
    others = {k: getattr(config, k) for k in ("test_dataset", *recipes.MACHINE)}  # --vary takes these too
    usual = recipes.Config()
    if changed := config.changed() | {k: v for k, v in others.items() if v != getattr(usual, k)}:
        words.append(recipes.settings_text(changed))
    return " ".join(words)


def epochs(folder: Path) -> list[dict[str, Any]]:
    """Return the records of a run's epochs so far; an empty list where they cannot be read."""
    try:
        return [record for record in records.read_epochs(folder) if 0 <= record["seconds"] < 1e9]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []


def _seconds(root: Path, pattern: str) -> float | None:
    """Return the mean seconds per epoch of the first twenty runs whose `done` matches `pattern`; None if none does."""
    seconds = [r["seconds"] for done in sorted(root.glob(pattern))[:20] for r in epochs(done.parent)]
    return sum(seconds) / len(seconds) if seconds else None


def time_left(todo: list[Job], at_once: int | None) -> str:
    """Return a sentence on how long these runs will take, estimated from finished runs. `at_once` says how many are
    trained at once; None where that is not known, as on a cluster."""
    if not todo:
        return "nothing to do"
    pace_of = cache(_seconds)
    seconds = []  # one estimate for each run that is like a finished one
    for job in todo:
        pace = pace_of(job.folder.parent, "*/done")  # from other seeds; if there are none, from this model and dataset
        if pace is None:
            pace = pace_of(job.folder.parents[3], f"*/{job.config.model}/*/*/done")
        if pace is not None:
            done = len(epochs(job.folder)) if job.state == "started" else 0
            seconds.append(pace * max(0, job.config.epochs - done))
    if not seconds:
        return "time left: unknown until a first run is finished"
    together = min(at_once or 1, len(seconds))
    left = max(sum(seconds) / together, *seconds)  # at least the time of the longest run, which cannot be divided
    how = f"with {together} at once" if at_once else "one after the other; a cluster shares this"
    unknown = len(todo) - len(seconds)
    note = f"; {unknown} runs like none that is finished are not counted" if unknown else ""
    return f"time left: about {tqdm.format_interval(round(left))} {how}{note}"


# --------------------------------------------------------------------------------------------------- running


def _line(job: Job) -> str:
    found = epochs(job.folder)
    if not found:
        return f"done: {describe(job.config)}"
    scores = "  ".join(f"{name} {found[-1]['test'][name]:.1f}" for name in ("WA", "UA"))
    return f"done: {describe(job.config)}: {scores} (last epoch), {sum(r['seconds'] for r in found):.0f} s"


def _first_line(text: str) -> str:
    """Return the first sentence of an error, without the list of files that may follow it."""
    return text.splitlines()[0].removesuffix(":")


def _is_free(folder: Path) -> bool:
    try:
        with records.locked(folder) as mine:
            return mine
    except (OSError, UserError):  # trying to train the run will report this error
        return True


def run_all(todo: list[Job], execute: Execute, tries: int, bar: bool) -> list[str]:
    """Train every run, and return the failures as sentences.

    A run that broke is tried again after the others, at most `tries` times in all. A run that another process held is
    tried again once that process lets go of it.
    """
    left, failures = {job.config: job for job in todo}, []
    held: set[recipes.Config] = set()
    told: set[str] = set()
    tried: Counter[recipes.Config] = Counter()
    with tqdm(total=len(todo), unit="run", desc="sweep", disable=None if bar else True) as progress:
        while left:
            queue = [config for config, job in left.items() if config not in held or _is_free(job.folder)]
            if not queue:
                time.sleep(LOOK_AGAIN)
                continue
            with closing(execute(queue)) as outcomes:  # type: ignore[type-var]
                for config, status, text in outcomes:
                    tried[config] += status == "broke"
                    if status == "held":
                        held.add(config)
                        continue
                    if status == "broke" and tried[config] < tries:
                        warn(f"{config.model} seed {config.seed}: {text}; it is tried again")
                        continue
                    line = _line(left.pop(config))
                    if status != "done":
                        text = cli.printable_lines(text) + (f" (tried {tries} times)" if status == "broke" else "")
                        failures.append(f"{describe(config)}: {text}")
                        line = f"failed: {describe(config)}: {_first_line(text) if text in told else text}"
                        told.add(text)  # so that a long list of broken recordings is not printed for each of their runs
                    progress.update()
                    with progress.external_write_mode():
                        print(line, flush=True)
    return failures


def _executor(asked: dict[str, Any], given: dict[str, Any], todo: list[Job]) -> AbstractContextManager[Execute]:
    """Return the context of the function that trains runs; this function can be called until the context ends."""
    options = _options(given)
    if asked["ray"]:
        import cluster

        cuda = any(j.config.device == "cuda" for j in todo)
        gpus = asked["gpus_per_job"] if asked["gpus_per_job"] is not None else float(cuda)
        cpus = asked["cpus_per_job"] if asked["cpus_per_job"] is not None else max(j.config.threads for j in todo)
        return cluster.connected(asked["ray"], cluster.Share(cpus, gpus), options)
    if asked["jobs"] * asked["at_once"] > 1:
        options = replace(options, quiet=True)  # the lines of several runs would be mixed
    if asked["jobs"] > 1:
        return nullcontext(partial(workers.in_processes, jobs=asked["jobs"], gpu=given.get("gpu"), options=options))
    return nullcontext(partial(workers.in_turns, at_once=asked["at_once"], options=options))


def print_table(asked: dict[str, Any], given: dict[str, Any], every: list[Job]) -> None:
    """Print the table of these runs, or write it to files."""
    import report

    like = every[0].config
    fields_of = {"gpu": "device", "init_from": "init"}
    resolved = {fields_of.get(flag, flag) for flag in given} & {*recipes.MACHINE, "init"}
    settings = {**shaping(given), **{k: getattr(like, k) for k in resolved}}
    words = ["--table", asked["table"], *flags.report_flags(settings)]
    for flag in ("datasets", "splits", "models"):
        if asked[flag]:
            words += [f"--{flag}", ",".join(asked[flag])]
    if "runs" in given:
        words += ["--runs", str(given["runs"])]
    # if a CSV file was changed, there may be more runs of its old content, which would be taken for the table
    words += ["--corpus", ",".join(dict.fromkeys(data.identity(job.config)[1][:8] for job in every))]
    for output in [["--output", file] for file in asked["print"]] or [[]]:
        report.main([*words, *output])


def check(asked: dict[str, Any]) -> None:
    """Raise UserError for numbers that make no sense and for flags that need, or exclude, another."""
    if asked["print"] is not None and not asked["table"]:
        raise UserError("--print goes with --table NAME; python report.py prints what there is")
    if odd := [file for file in asked["print"] or () if Path(file).suffix not in render.ENDINGS]:
        raise UserError(f"--print {odd[0]}: a file's name must end in {', '.join(render.ENDINGS)}")
    if asked["seeds"] and asked["next"]:
        raise UserError("--seeds and --next contradict each other: leave one out")
    for flag in ("cpus_per_job", "gpus_per_job"):
        if asked[flag] is not None and not asked["ray"]:
            raise UserError(f"--{flag} is for a Ray cluster: add --ray ADDRESS, or leave it out")
        if asked[flag] is not None and not 0 <= asked[flag] < float("inf"):
            raise UserError(f"--{flag} {asked[flag]}: must be 0 or more")
    gpus = asked["gpus_per_job"] or 0.0
    if gpus != (round(gpus, 4) if gpus < 1 else int(gpus)):
        raise UserError(f"--gpus_per_job {gpus}: Ray takes whole numbers and, below 1, four decimals")
    if asked["ray"] and asked["jobs"] * asked["at_once"] != 1:
        flag = "jobs" if asked["jobs"] != 1 else "at_once"
        raise UserError(f"--{flag} is for this machine; on a Ray cluster --cpus_per_job and --gpus_per_job decide")
    if asked["jobs"] != 1 and asked["at_once"] != 1:
        raise UserError("--jobs is for processes on a CPU, --at_once for runs on one GPU: leave one out")
    shared = [text for text in asked["vary"] if text.startswith(("threads=", "deterministic="))]
    if asked["at_once"] != 1 and shared:
        raise UserError(
            f"--vary {shared[0]}: with --at_once runs share a process, which has one such setting; leave "
            "one of the two out"
        )


def jobs_of(asked: dict[str, Any], given: dict[str, Any]) -> list[Job]:
    """Return every run that is asked for, with its state; with --next, the runs of all seeds."""
    chosen = combinations(asked, given)
    for name in ("seeds", "next"):
        if (asked[name] or 1) > 1 and "seed" in given:
            raise UserError(f"--seed {given['seed']} and --{name} {asked[name]} contradict each other: leave one out")
    all_seeds = [given.pop("seed")] if "seed" in given else seeds.read_seeds()
    if (most := max(asked["seeds"] or 0, asked["next"] or 0)) > len(all_seeds):
        raise UserError(
            f"--{'next' if asked['next'] else 'seeds'} {most}: {most} seeds are asked for, and {seeds.FILE.name} has "
            f"{len(all_seeds)}; add some, a line each"
        )
    wanted = all_seeds if asked["next"] else all_seeds[: asked["seeds"] or 1]
    # a dict, as values that are listed twice would give the same run twice
    configs = dict.fromkeys(expand(given, chosen, wanted, bool(asked["table"]), asked["dry_run"]))
    if (asked["gpus_per_job"] or 0) > 0:
        configs = {replace(config, device="cuda"): None for config in configs}  # the workers have it
    options = _options(given)
    return [job_of(config, options.runs, options.save_model) for config in configs]


def of_next_seeds(jobs: list[Job], n: int) -> list[Job]:
    """Return the runs of the first n seeds of which some run is not done."""
    lacking = [*dict.fromkeys(job.config.seed for job in jobs if job.state != "done")]
    return [job for job in jobs if job.config.seed in lacking[:n]]


def main() -> int:
    """Run `python sweep.py` and return the exit status."""
    parser = command_line()
    given = vars(parser.parse_args())
    asked = {k: given.pop(k) for k in vars(parser.parse_args([]))}  # our flags have defaults, train.py's have none
    check(asked)
    if asked["ray"] and given.get("tensorboard"):
        raise UserError("--tensorboard writes on this machine as runs go on; leave it out on a Ray cluster")
    if "init_from" in given:
        if asked["ray"]:
            raise UserError("--init_from: leave --ray out, as its machines lack the checkpoint")
        import checkpoints

        given["init_from"] = checkpoints.find(given["init_from"], "--init_from")  # once, as flags.parse_config does
    every = jobs_of(asked, given)
    jobs = of_next_seeds(every, asked["next"]) if asked["next"] else every
    todo = [job for job in jobs if job.state != "done"]
    if asked["dry_run"]:
        if jobs:
            print("\n".join(f"{job.state:<8}{describe(job.config)}" for job in jobs))
            print(", ".join(f"{n} {state}" for state, n in Counter(job.state for job in jobs).items()))
        print(time_left(todo, None if asked["ray"] else max(asked["jobs"], asked["at_once"])))
        todo = []
    elif given.get("tensorboard"):  # finished runs get the curves that they lack
        todo = [job for job in jobs if job.state != "done" or not (job.folder / board.WHOLE).exists()]
    failures: list[str] = []
    if todo:
        with _executor(asked, given, todo) as execute:
            failures = run_all(todo, execute, asked["tries"], bar=len(todo) > 1 and not given.get("quiet", False))
    if not asked["dry_run"]:
        before, failed = len(jobs) - len(todo), len(failures)
        print(f"{before} finished before, {len(todo) - failed} trained now, {failed} failed")
    print("".join(f"failed: {_first_line(failure)}\n" for failure in failures), end="", flush=True)
    if asked["print"] is not None and every:
        print_table(asked, given, every)
    return 1 if failures else 0


if __name__ == "__main__":
    cli.run_main(main)
