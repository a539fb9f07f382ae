"""Train many runs: models x datasets x splits x seeds (or folds) x settings, the missing ones alone.

    python sweep.py --models GLAM,MACNN --datasets impro --seeds 5        # the first 5 seeds of seeds.txt
    python sweep.py --models GLAM --splits speaker --seeds 1              # every fold
    python sweep.py --models GLAM --vary alpha=0,0.3,0.5 --seeds 5 --dry_run
    python sweep.py --table comparison --seeds 5                          # what a table of report.py needs

Any flag of train.py may be added and holds for every run. Runs that are done are not repeated, interrupted ones go on;
two sweeps at once share the work. One run that fails does not stop the others; the exit status is then 1.
"""

import argparse
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cli
import recipes
from cli import UserError, warn


def command_line() -> argparse.ArgumentParser:
    """The parser of this command."""
    parser = cli.parser(description=__doc__)
    group = parser.add_argument_group("what to run")
    group.add_argument("--models", type=recipes.comma_list, metavar="A,B,..", help="(default: GLAM)")
    group.add_argument("--datasets", type=recipes.comma_list, metavar="A,B,..", help="(default: impro)")
    group.add_argument("--splits", type=recipes.comma_list, metavar="A,B,..", help="(default: 8:2)")
    group.add_argument("--seeds", type=int, metavar="N", help="the first N seeds of seeds.txt (default: 1)")
    group.add_argument("--next", type=int, metavar="N", help="instead: the next N seeds of seeds.txt that are not done")
    group.add_argument("--vary", action="append", default=[], metavar="FLAG=V,V,..", help="run with each value of a flag")
    group.add_argument("--table", metavar="NAME", help="instead of models and splits: what this table of report.py lacks")
    group.add_argument("--dry_run", action="store_true", help="list the runs with their state and train none")
    recipes.add_flags(parser)
    return parser


def variants(vary: list[str], parser: argparse.ArgumentParser) -> list[dict[str, Any]]:
    """`["alpha=0,0.5"]` -> `[{"alpha": 0.0}, {"alpha": 0.5}]`, the product over all flags. Raises UserError."""
    lists = []
    for text in vary:
        flag, _, values = text.partition("=")
        if not values:
            raise UserError(f"--vary {text}: write FLAG=VALUE,VALUE,..")
        parsed = []
        for value in recipes.comma_list(values):
            namespace, unknown = parser.parse_known_args([f"--{flag}", value])
            new = {k: v for k, v in vars(namespace).items() if k not in vars(parser.parse_args([]))}
            if unknown or not new:
                raise UserError(f"--vary {text}: {flag} is not a flag of train.py that takes a value")
            parsed.append(new)
        lists.append(parsed)
    return [{k: v for one in choice for k, v in one.items()} for choice in itertools.product(*lists)]


def expand(given: dict[str, Any], combinations: list[dict[str, Any]], seeds: list[int]) -> Iterator[recipes.Config]:
    """A configuration for every combination, seed and fold, seeds outermost: whole rounds are done first."""
    import train

    base = [recipes.parse_config({**given, **combination}) for combination in combinations]
    for seed in seeds:
        for config in base:
            yield from train.folds_to_run(recipes.replace(config, seed=seed), given.get("skip_bad", False))


def state(config: recipes.Config, runs: Path, save_model: str | None) -> str:
    """`done`, `started` or `missing`."""
    import data
    import train

    folder = train.folder_of(config, *data.identity(config), runs)
    if train.finished(folder, save_model):
        return "done"
    return "started" if (folder / "config.json").exists() else "missing"


def describe(config: recipes.Config) -> str:
    """A run in one line."""
    fold = "" if config.fold is None else f" fold {config.fold}"
    changed = "".join(f" {k}={v}" for k, v in config.changed().items())
    return f"{config.model} {config.dataset} {config.split} seed {config.seed}{fold}{changed}"


def run_all(configs: list[recipes.Config], train_one: Callable[[recipes.Config, bool], Path | None]) -> list[str]:
    """Train every run, those that another process holds last; returns the failures as sentences."""
    failures = []
    held: list[recipes.Config] = []
    for wait, queue in ((False, configs), (True, held)):
        for config in queue:
            try:
                if train_one(config, wait) is None:
                    held.append(config)
                else:
                    print(f"done: {describe(config)}", flush=True)
            except UserError as error:
                failures.append(f"{describe(config)}: {error}")
                warn(failures[-1])
    return failures


def main() -> int:
    """`python sweep.py`"""
    parser = command_line()
    given = vars(parser.parse_args())
    asked = {k: given.pop(k) for k in ("models", "datasets", "splits", "seeds", "next", "vary", "table", "dry_run")}
    import path
    import report
    import seeds
    import train

    runs, save_model = given.get("runs", path.RUNS), given.get("save_model")
    if asked["table"]:
        combinations = report.jobs(asked["table"], asked["datasets"])
    else:
        axes = {"model": asked["models"], "dataset": asked["datasets"], "split": asked["splits"]}
        lists = [[{name: v} for v in values] if values else [{}] for name, values in axes.items()]
        combinations = [m | d | s | v for m, d, s, v in itertools.product(*lists, variants(asked["vary"], parser))]
    all_seeds = [given.pop("seed")] if "seed" in given else seeds.seeds()
    wanted = all_seeds if asked["next"] else all_seeds[: asked["seeds"] or 1]
    configs = list(expand(dict(given), combinations, wanted))
    states = {config: state(config, runs, save_model) for config in configs}
    todo = [config for config in configs if states[config] != "done"]
    if asked["next"]:
        some = sorted({c.seed for c in todo}, key=all_seeds.index)[: asked["next"]]
        todo = [config for config in todo if config.seed in some]
    if asked["dry_run"]:
        print("\n".join(f"{s:<8}{describe(c)}" for c, s in states.items()))
        print(", ".join(f"{n} {s}" for s, n in Counter(states.values()).items()))
        return 0
    options = {k: given[k] for k in ("runs", "save_model", "skip_bad", "quiet") if k in given}
    failures = run_all(todo, lambda config, wait: train.train(config, wait=wait, **options))
    print(f"{len(configs) - len(todo)} were done, {len(todo) - len(failures)} trained, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    cli.run_main(main)
