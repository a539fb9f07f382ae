"""Train one model on one corpus, split and seed. The run folder gets the scores and predictions of every epoch.

    python train.py --model GLAM --dataset impro
    python train.py --model GLAM --dataset impro --split speaker --fold 3
    python train.py --model MACNN --dataset demo --epochs 5        # synthetic corpus, needs no licence

Without further flags, a model is trained with its published settings (recipes.py). The same command, given again,
resumes an interrupted run after its last finished epoch; a finished run is not repeated. `python report.py` makes
tables from run folders.
"""

import argparse

import cli
import flags
import path
import recipes


def command_line() -> argparse.ArgumentParser:
    """Return the parser of this command's flags."""
    parser = cli.parser(description=__doc__)
    parser.add_argument("--list_models", action="store_true", help="print the models and stop")
    flags.add_flags(parser)
    return parser


if __name__ == "__main__":
    cli.before_torch(command_line)

import json
import os
import platform
import shlex
import subprocess
import sys
import time
import traceback
from collections.abc import Generator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

import board
import data
import device
import finetune
import graphs
import grouping
import loops
import metrics
import models
import records
import turns
from cli import UserError, warn
from corpora import Utterance
from files import atomic, named, sweep_temporaries, write_json, write_text
from flags import Options
from recipes import Config
from records import STATE
from resume import BrokenState, History, load_state, save_state

if TYPE_CHECKING:
    from checkpoints import Checkpoint

# ------------------------------------------------------------------------------------------------ one run


# git's patterns of the files that a run's numbers depend on; a virtual environment in this folder matches none
CODE = (":(glob)*.py", "models/*.py", "corpora/*.py", ":(exclude)path.py")
PACKAGES = ("numpy", "g-mlp-pytorch", "soundfile", "soxr")  # whose versions config.json records, beside torch's


@cache
def commit() -> str | None:
    """Return the commit of this code, followed by `-dirty` if a file of CODE is changed or not committed; None if git
    does not know the commit. For a copy of the code that was sent to a Ray worker, GLAM_COMMIT says the commit.

    It is looked up once: a process goes on with the code that it imported, whatever happens to the files.
    """
    if "GLAM_COMMIT" in os.environ:
        return os.environ["GLAM_COMMIT"] or None

    def git(*words: str) -> str:
        # whoever owns the files; without a lock, which a killed process would leave and git then stop at for ever
        command = ["git", "--no-optional-locks", "-c", f"safe.directory={path.ROOT}", "-C", str(path.ROOT), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "train.py")  # fails for a copy in a repository that is not this code's
        changed = git("status", "--porcelain", "--untracked-files=all", "--", *CODE)
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def describe_run(
    config: Config, d: data.Data, parts: data.Parts, split_digest: str, model: nn.Module
) -> dict[str, Any]:
    """Return the contents of config.json: every setting of the run, and what else its result depends on."""
    folds = data.SPLITS[config.split].folds
    return {
        "model": config.model, "recipe": config.recipe, "dataset": d.corpus.dataset, "corpus": d.corpus.name,
        "licence": d.corpus.licence, "synthetic": d.corpus.synthetic, "split": config.split, "fold": config.fold,
        "folds": folds(d.corpus.utterances) if folds else None, "seed": config.seed, "classes": list(d.corpus.classes),
        "shape": list(d.shape), "settings": config.settings(), "changed": config.changed(),
        "hash": config.hash(d.digest),
        "corpus_digest": d.digest, "split_digest": split_digest, "n_train": len(parts.train),
        "n_val": 0 if parts.val is None else len(parts.val), "n_test": len(parts.test), "n_dropped": len(d.dropped),
        "n_bad": len(d.bad), "params": sum(p.numel() for p in model.parameters()),
        "device": device.describe(config.device),
        "versions": {"python": platform.python_version(), "torch": torch.__version__,
                     **{name: version(name) for name in PACKAGES}},
        "commit": commit(),
    }  # fmt: skip


def save_predictions(file: Path, d: data.Data, parts: dict[str, loops.Part], history: History) -> None:
    """Write predictions.npz: names, speakers, paths, labels and every epoch's logits of each part that was scored."""
    arrays: dict[str, NDArray] = {}
    for name, part in parts.items():
        utterances = [d.corpus.utterances[i] for i in part.utterances]
        foreign = isinstance(utterances[0], data.Foreign)
        corpus = [u for u in d.corpus.utterances if isinstance(u, data.Foreign) == foreign]  # this part's own corpus
        root = os.path.commonpath([str(Path(u.path).parent) for u in corpus])
        arrays[f"{name}_names"] = np.array([u.name for u in utterances])
        arrays[f"{name}_speakers"] = np.array([u.speaker for u in utterances])
        arrays[f"{name}_paths"] = np.array([os.path.relpath(u.path, root) for u in utterances])
        arrays[f"{name}_labels"] = d.corpus.labels[part.utterances]
        arrays[f"{name}_logits"] = np.stack(history.logits[name])
    with atomic(file) as temporary, open(temporary, "wb") as f:
        np.savez_compressed(f, **arrays)  # type: ignore[arg-type]


def heard_digests(d: data.Data, parts: data.Parts, rule: str, start: "Checkpoint | None" = None) -> str:
    """Return the digests, joined by spaces, of the recordings used to train, or to choose an epoch or temperature,
    here or for the checkpoint that the run began with."""
    used = [parts.train, *([] if parts.val is None else [parts.val]), *([parts.test] if rule == "paper" else [])]
    before = start.heard if start else set()
    return " ".join(sorted({*before, *(d.contents[i][: data.HEARD] for i in np.concatenate(used))}))


def save_checkpoint(folder: Path, model: nn.Module, run: dict[str, Any], rule: str, history: History, d: data.Data,
                    parts: data.Parts, start: "Checkpoint | None") -> None:  # fmt: skip
    """Write checkpoint/: the weights of the epoch that `rule` picks, and a description of them."""
    import checkpoints

    run = {**run, "heard": heard_digests(d, parts, rule, start)}
    if run["settings"]["test_dataset"]:  # scores are synthetic if either corpus is, weights only if the training's is
        run["synthetic"] = d.corpus.first_synthetic
    if start:
        run["licence"] += f"; and, of the weights it began with: {run['init']['licence']}"
    epoch, val = history.pick(rule), history.val
    model.load_state_dict(history.best)
    validation = None if val is None else (val[0][epoch], val[1])
    checkpoints.save(folder, model, run, rule, history.records[epoch], validation)


def check(config: Config, options: Options) -> None:
    """Raise UserError for a mistake that shows without data: an alias, a missing package, an unknown or unfit split."""
    if options.tensorboard:
        cli.need("--tensorboard", "requirements-app.txt", "tensorboard")
    if (name := models.canonical(config.model)) != config.model:
        raise UserError(f"{config.model} is another name of {name}: config_for({name!r}) has its recipe")
    split = data.split_by_name(config.split)
    if options.save_model == "validation" and not split.has_validation:
        raise UserError(f"--save_model validation: the split {config.split} has no validation part; --split 8:1:1 has")


def steps(
    config: Config, *, wait: bool = True, d: data.Data | None = None, **given: Any
) -> Generator[None, None, Path | None]:
    """Train as `train` does, but yield every few training steps, so that runs can share a process (turns.py)."""
    options = Options(**given)
    save_model = options.save_model
    check(config, options)
    dataset, digest = (d.corpus.dataset, d.digest) if d else data.identity(config)
    folder = records.folder_of(config, dataset, digest, options.runs)
    if records.finished(folder, save_model):
        if not options.quiet:
            say_finished(folder)
        if options.tensorboard:
            board.write(folder)
        return folder
    if config.amp:
        device.check_bfloat16(config.device)
    d = d or data.load(config, options.skip_bad)
    parts = data.split_by_name(config.split)(d.corpus.utterances, config.seed, config.fold)
    data.check_parts(d, parts, config)
    start = finetune.load(options.init_from, config)
    if start:
        finetune.check_unheard(start, d, parts)
    with records.locked(folder, wait) as mine:
        if not mine:
            return None
        if not records.finished(folder, save_model):
            records.warn_of_replacement(folder, save_model)
            sweep_temporaries(folder)
            try:
                yield from _epochs(config, d, parts, folder, options, start)
            except BrokenState as error:
                warn(f"{error}; the run starts again")
                (folder / STATE).unlink()
                traceback.clear_frames(error.__traceback__)  # the frames hold the model and its data, also on a GPU
                yield from _epochs(config, d, parts, folder, options, start)
            device.give_back_memory()
    if options.tensorboard:  # also if another process has trained this run meanwhile
        board.write(folder)
    return folder


def train(config: Config, *, wait: bool = True, d: data.Data | None = None, **options: Any) -> Path | None:
    """Train one run and return its folder. A finished run is not repeated; an interrupted run is resumed.

    If another process is training the same run, wait for that process or, without `wait`, return None. `d` is the
    result of `data.load`, for a caller that has it already; the other options are in flags.Options. Raises UserError.
    """
    return turns.alone(steps(config, wait=wait, d=d, **options), config.device)


def check_resumed(folder: Path, run: dict[str, Any], history: History, save_model: str | None) -> None:
    """Raise BrokenState if the run cannot be resumed from `history`."""
    with suppress(UserError, LookupError, TypeError):  # an unreadable split.json is simply written anew
        if history.records and records.read_record(folder / "split.json")["digest"] != run["split_digest"]:
            raise BrokenState(f"{folder} was begun on another split of the utterances")
    picks = save_model in ("paper", "validation") and history.records  # the epoch of `last` is still to come
    if picks and history.best_epoch != history.pick(str(save_model)):
        raise BrokenState(f"{folder / STATE} does not hold the weights that --save_model {save_model} picks so far")


def note_code(folder: Path, run: dict[str, Any], history: History) -> None:
    """Add the code that trains now to `history`; if other code trained earlier epochs, note it in `run`, and warn."""
    code = {"commit": run["commit"], "versions": run["versions"]}
    if not history.code or history.code[-1] != code:
        history.code = [*history.code, code]
    if len(history.code) > 1:
        run["earlier"] = history.code[:-1]
        warn(f"{folder} goes on with another commit or other versions than it began with: config.json says which")


def _epochs(
    config: Config, d: data.Data, parts: data.Parts, folder: Path, options: Options, start: "Checkpoint | None"
) -> Generator[None, None, None]:
    """Train every epoch after the last recorded one, in a folder that this process has locked."""
    save_model, quiet = options.save_model, options.quiet
    loops.set_arithmetic(config)
    torch.manual_seed(config.seed)
    _, generator = data.published_draw(len(d.corpus.utterances), config.seed)
    model = models.of_run(config.model, d.shape, len(d.corpus.classes), config.head, config.attn_hidden)
    split_record = data.split_record(d.corpus.utterances, parts)
    run = describe_run(config, d, parts, split_record["digest"], model)
    if start:
        run["init"] = finetune.begin(model, start, run["classes"])
    if not quiet:
        print_summary(model, run)
    model.to(config.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = loops.make_optimizer(config, model)
    training = loops.training_part(d, parts.train, config, quiet)
    weights = loops.loss_weights(training, len(d.corpus.classes)) if config.class_weights else None
    scored = {
        name: loops.make_part(d.test, rows, d.corpus.labels, config.device)
        for name, rows in (("val", parts.val), ("test", parts.test))
        if rows is not None
    }

    val_labels = None if parts.val is None else d.corpus.labels[parts.val]
    history = History([], {name: [] for name in scored}, val_labels=val_labels)
    load_state(folder / STATE, model, optimizer, generator, history)
    check_resumed(folder, run, history, save_model)
    note_code(folder, run, history)

    def write_records() -> None:
        write_json(folder / "config.json", run)
        write_json(folder / "split.json", split_record)
        write_text(folder / "epochs.jsonl", "".join(json.dumps(r) + "\n" for r in history.records))

    repeated = records.finished(folder)  # to get its weights: old records stay until the new ones are complete
    if not repeated:
        write_records()
    trainer = graphs.make_trainer(model, optimizer, training, config, weights)
    board.remove(folder)
    writer = board.Board(folder, run, history.records) if options.tensorboard else None

    done = len(history.records)
    title = f"{config.model} {d.corpus.dataset} {folder.name}"
    bar = tqdm(range(done, config.epochs), title, config.epochs, initial=done, unit="epoch", disable=quiet or None)
    for epoch in bar:
        started = time.perf_counter()
        loss = yield from trainer.epoch(epoch, generator, quiet)
        epoch_record: dict[str, Any] = {"epoch": epoch + 1, "lr": trainer.rate(epoch, 0), "train_loss": loss}
        for name, part in scored.items():
            logits = yield from loops.evaluation(model, part, config)
            history.logits[name].append(logits)
            epoch_record[name] = metrics.scores(logits, d.corpus.labels[part.utterances])
        # the losses are computed before each step's update: only the logits show what the last update did
        if not np.isfinite(loss) or not all(np.isfinite(each[-1]).all() for each in history.logits.values()):
            if not np.isfinite([each.x.sum(dtype=np.float64) for each in (d.train, d.test)]).all():
                raise UserError(f"--feature {config.feature} gives values that are not finite for this corpus")
            raise UserError(f"epoch {epoch + 1}, loss {loss}: training diverged; try a smaller --learning_rate")
        epoch_record["seconds"] = round(time.perf_counter() - started, 3)
        history.records.append(epoch_record)
        if save_model and history.pick(save_model) == epoch:
            history.best_epoch = epoch
            history.best = {k: v.detach().cpu().clone() for k, v in model.state_dict().items()}
        if epoch + 1 < config.epochs:
            save_state(folder / STATE, model, optimizer, generator, history)
        if not repeated:
            with named(folder / "epochs.jsonl"), open(folder / "epochs.jsonl", "a", encoding="utf-8") as f:
                f.write(json.dumps(epoch_record) + "\n")
        if writer:
            writer.add(epoch_record)
        if not quiet:
            show_epoch(bar, title, epoch_record)

    records.open_again(folder)
    write_records()  # even if they are there: appended epochs may not be on the disk yet
    save_predictions(folder / "predictions.npz", d, scored, history)
    if save_model:
        save_checkpoint(folder / "checkpoint", model, run, save_model, history, d, parts, start)
    if writer:
        writer.close()
    records.finish(folder)


# ------------------------------------------------------------------------------------------------ printing


@cache
def _print_once(text: str) -> None:
    """Print `text` unless this process has printed it before: the runs of a sweep have the same layers."""
    print(text)


def print_summary(model: nn.Module, run: dict[str, Any]) -> None:
    """Print layers and parameters, data and device. The model is run in eval mode, in which it draws no random number
    and changes no statistics."""
    from pytorch_model_summary import summary

    model.eval()
    table, params = summary(model, torch.zeros(1, 1, *run["shape"])), f"{run['params']:,}"
    if f"Total params: {params}\n" not in table:
        table += f"\n{params} parameters, with those that layers use as plain weights, which the table leaves out"
    _print_once(table)
    print(
        f"{run['model']} on {run['dataset']} ({run['corpus']}), split {run['split']}, recipe {run['recipe']}, "
        f"changed: {recipes.settings_text(run['changed']) or 'nothing'}"
    )
    if begun := run.get("init"):
        print(f"begins with {begun['title']}, which knows these classes: {', '.join(begun['known_classes']) or 'none'}")
    bad = f", {run['n_bad']} broken left out" if run["n_bad"] else ""
    short = f"{run['n_dropped']} dropped as shorter than {run['settings']['segment_length']} s"
    short += " (--padding keeps them)" if run["n_dropped"] else ""
    parts = f"{run['n_train']} training, {run['n_val']} validation, {run['n_test']} test utterances"
    print(f"{parts}; {short}{bad}")
    threads = f", {run['settings']['threads']} threads" if run["settings"]["device"] == "cpu" else ""
    print(f"on {run['device']}{threads}", flush=True)


def show_epoch(bar: Any, title: str, record: dict[str, Any]) -> None:
    """Show the scores of an epoch on its bar or, where standard error is no terminal, as a line of a log.

    Validation scores are shown, if there are any: nobody should choose by the test set, even by eye.
    """
    part = "val" if "val" in record else "test"
    loss, (wa, ua) = record["train_loss"], (record[part][name] for name in ("WA", "UA"))
    scores = f"loss={loss:.3f}, {part} WA={wa:.1f}, {part} UA={ua:.1f}"
    bar.set_postfix_str(scores)
    if bar.disable:
        text = f"{title}: epoch {record['epoch']} of {bar.total}, {scores}, {record['seconds']:.1f} s"
        print(cli.printable(text), file=sys.stderr, flush=True)


def say_finished(folder: Path) -> None:
    """Print that the run was finished before, and whether code of another commit trained it."""
    by, now = records.read_run(folder).config.get("commit"), commit()
    other = f" by other code than now (commit {by})" if by and now and by != now else ""
    print(f"finished before{other}: to train it again, delete {folder}", flush=True)


def rules_of(run: records.Run) -> tuple[str, ...]:
    """Return the rules that a run's split allows, first those that do not look at the test utterances."""
    return ("validation", "last", "paper") if run.has_validation else ("last", "paper")


def print_result(folder: Path) -> None:
    """Print a finished run's scores on its test utterances: in full for the epoch of a rule that does not look at these
    utterances, and in a line for that of every other rule that the split allows."""
    run = records.read_run(folder)
    first, *others = rules_of(run)
    epoch = run.epochs[run.pick(first)]
    synthetic = "SYNTHETIC corpus: these are not IEMOCAP's numbers\n" if run.synthetic else ""
    print(
        f"\n{synthetic}{run.n_test} test utterances ({run.config['n_dropped']} of the corpus dropped as too short), "
        f"epoch {epoch['epoch']} (rule {first})\n"
    )
    print(metrics.format_scores(epoch["test"], run.config["classes"]))
    for rule in others:
        epoch = run.epochs[run.pick(rule)]
        note = " (chosen on the test set: optimistic)" if rule == "paper" else ""
        print(f"rule {rule}: epoch {epoch['epoch']}{note}: {metrics.say_scores(epoch['test'])}")
    print(f"\n{folder}", flush=True)


def print_folds(folders: Sequence[Path], given: dict[str, Any]) -> None:
    """Print the scores of all folds of a seed together, and the command that reports them; `given` are the flags."""
    runs = [records.read_run(folder) for folder in folders]
    rule = rules_of(runs[0])[0]
    together = grouping.Round(runs, rule)
    synthetic = ", SYNTHETIC corpus" if runs[0].synthetic else ""
    print(f"\nall {len(runs)} folds together, {together.n_test} test utterances, rule {rule}{synthetic}")
    for how, scores in (("pooled", together.pooled), ("mean over folds", together.averaged)):
        print(f"{how:<16}{metrics.say_scores(dict(zip(metrics.SCORES, scores, strict=True)))}")
    print(f"their table: {report_command(runs[0], rule, given)}", flush=True)


def report_command(run: records.Run, rule: str, given: dict[str, Any]) -> str:
    """Return the command that reports all folds of a run together by `rule`; `given` are the training flags."""
    words = ["--dataset", run.dataset, "--split", run.split, "--model", run.model, *flags.report_flags(run.changed)]
    words += ["--rule", rule] if rule != run.own_rule else []
    if "runs" in given:
        words += ["--runs", str(given["runs"])]
    return shlex.join(["python", "report.py", *words])


# ------------------------------------------------------------------------------------------ command line


def folds_to_run(config: Config, options: Options, dry_run: bool = False) -> list[Config]:
    """Return a configuration for each fold if the split has folds and none was chosen, else `config` alone.

    The number of folds is that of a finished run that differs in seed and fold alone; without such a run it follows
    from the usable utterances. A `dry_run` extracts no features, so it also counts a speaker whose utterances are all
    too short. Raises NoSplit, and UserError for a fold that the split does not have.
    """
    split = data.split_by_name(config.split)

    def utterances() -> Sequence[Utterance]:
        return (data.first_look(config)[0] if dry_run else data.load(config, options.skip_bad).corpus).utterances

    if config.fold is not None:
        # dividing refuses a fold that does not exist, and needs no features, which a dry run does not have
        split(data.first_look(config)[0].utterances if split.folds else (), config.seed, config.fold)
    elif split.folds or split.check:
        like = records.finished_like(records.folder_of(config, *data.identity(config), options.runs))
        if split.check and not like:
            split.check(utterances())
        if split.folds:
            count = (like and like.config["folds"]) or split.folds(utterances())
            return [replace(config, fold=fold) for fold in range(count)]
    return [config]


def main() -> None:
    """Run the command `python train.py`."""
    given = vars(command_line().parse_args())
    if given.pop("list_models"):
        print(f"{'--model':<18}in the paper's tables (–: in none)")
        print("\n".join(f"{name:<18}{models.paper_name(name)}" for name in models.list_models()))
        return
    config = flags.parse_config(given)
    quiet, folders = given.get("quiet", False), []
    with device.explaining_out_of_memory():
        for run in folds_to_run(config, Options(**given)):
            if folder := train(run, **given):
                folders.append(folder)
                if not quiet:
                    print_result(folder)
    if len(folders) > 1 and not quiet:
        print_folds(folders, given)


if __name__ == "__main__":
    cli.run_main(main)
