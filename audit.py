"""Check run folders without trusting them: do their records agree, and do the predictions give the scores?"""

import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

import recipes
import tables
from cli import UserError, printable_lines, refusal
from corpora import dataset_folder
from files import digest_of
from metrics import SCORES
from records import STATE, Predictions, Run, finished, folders, levels, read_record, read_run, trained_as


def _place(run: Run) -> Iterable[str]:
    """Compare the folder's path with the configuration in it; yield each contradiction."""
    expected = levels(run.dataset, run.split, run.model, run.config["hash"], run.seed, run.fold)
    names = ("dataset", "split", "model", "hash", "seed")
    for what, said, found in zip(names, expected, run.folder.parts[-5:], strict=True):
        if said != found:
            yield f"config.json says {what} {said}, the folder says {found}"


def _settings(run: Run) -> Iterable[str]:
    """Compare the recorded settings with the recorded model, split, seed, fold, hash and list of changes."""
    try:
        config = recipes.from_settings(run.config["settings"])
        hashed, changed = config.hash(run.corpus_digest), config.changed()
    except UserError as error:
        yield f"config.json: {error}"
        return
    for what in ("model", "split", "seed", "fold"):
        if getattr(config, what) != run.config[what]:
            yield f"config.json says {what} {run.config[what]}, its settings say {getattr(config, what)}"
    if hashed != run.config["hash"]:
        yield f"config.json says hash {run.config['hash']}, its settings and corpus give {hashed}"
    if changed != run.changed:
        yield f"config.json says changed {run.changed}, its settings give {changed}"


def _split(run: Run, split: dict[str, Any]) -> Iterable[str]:
    """Compare the split's lists of utterances with its digest, with the configuration, and with each other."""
    lists = {name: split[name] for name in ("train", "val", "test")}
    digest = digest_of(list(lists.values()))
    for said, where in ((split["digest"], "split.json"), (run.config["split_digest"], "config.json")):
        if said != digest:
            yield f"{where} says split digest {said}, the lists in split.json give {digest}"
    for name, names in lists.items():
        if len(names or []) != (run.config[f"n_{name}"] or 0):
            yield f"config.json says n_{name} {run.config[f'n_{name}']}, split.json lists {len(names or [])}"
    names = [name for part in lists.values() for name in part or []]
    if len(set(names)) < len(names):
        yield "split.json has an utterance in two parts, or twice in one"


def _predictions(run: Run, name: str, predicted: Predictions, listed: list[str]) -> Iterable[str]:
    """Compare one part's predictions with the split's list and with the recorded scores of every epoch."""
    if predicted.names.tolist() != listed:
        yield f"predictions.npz: {name} names are not those of split.json"
    if not np.isfinite(predicted.logits).all():
        yield f"predictions.npz: {name} logits are not all finite"
    for epoch, recomputed in zip(run.epochs, predicted.scores(), strict=True):
        recorded = epoch[name]
        wrong = [s for s in SCORES if not abs(recorded[s] - recomputed[s]) < 1e-6]
        if recorded["confusion"] != recomputed["confusion"]:
            wrong.append("confusion")
        if wrong:
            yield f"epoch {epoch['epoch']}: the {name} predictions do not give the recorded {', '.join(wrong)}"


def problems(folder: Path) -> list[str]:
    """Return all that is wrong with a run folder, as sentences; an empty list for a sound one."""
    if not finished(folder):
        return [
            "unfinished: it has no file `done`; unless it is trained now, give its command again or delete the folder"
        ]
    found = []
    if (folder / STATE).exists():
        found.append(
            "unfinished: it was begun again for its weights; unless it is trained now, give that command again, with "
            "its --save_model, or delete state.safetensors"
        )
    try:
        run = read_run(folder)
        found += [*_place(run), *_settings(run)]
        split = read_record(folder / "split.json")
        found += _split(run, split)
        if [epoch["epoch"] for epoch in run.epochs] != list(range(1, len(run.epochs) + 1)):
            found.append("epochs.jsonl does not count its epochs from 1")
        for name in run.parts:
            found += _predictions(run, name, run.predictions(name), split[name])
        known = {f"{part}_{field.name}.npy" for part in run.parts for field in fields(Predictions)}
        with zipfile.ZipFile(folder / "predictions.npz") as members:
            others = sorted({*members.namelist()} - known)  # only pack.py would read these, and they may be huge
        found += [f"predictions.npz holds {name!r}, which is none of a run's arrays" for name in others]
    except UserError as error:
        found.append(str(error))
    except OSError as error:  # the other runs may still be readable
        found.append(refusal(error) or str(error))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        found.append(f"its records are not a run's ({type(error).__name__}: {error})")
    return found


def _folders(root: Path, name: str | None, datasets: Sequence[str] | None, splits: Sequence[str] | None) -> list[Path]:
    """Return the run folders of a table, or of these datasets and splits, chosen by their paths, as a configuration may
    be wrong."""
    every = folders(root)
    if name is None:
        of_dataset = [dataset_folder(dataset) for dataset in datasets or ()]
        of_split = [s.replace(":", "-") for split in splits or () for s in {split, trained_as(split)}]
        every = [folder for folder in every if not of_dataset or folder.parts[-5] in of_dataset]
        return [folder for folder in every if not of_split or folder.parts[-4] in of_split]
    wanted = set()
    for spec in tables.TABLES[name].row_specs(datasets, splits=splits):
        for split in {spec.split, trained_as(spec.split)}:
            wanted.add((dataset_folder(spec.dataset), split.replace(":", "-"), spec.model))
    return [folder for folder in every if folder.parts[-5:-2] in wanted]


def check_folders(
    root: Path, name: str | None = None, datasets: Sequence[str] | None = None, splits: Sequence[str] | None = None
) -> int:
    """Print what is wrong with the run folders that a table is made from, or with all; return the exit status."""
    checked = _folders(root, name, datasets, splits)
    if not checked:
        raise UserError(f"{root} holds no run folder to audit{' of these' if name or datasets or splits else ''}")
    bad = 0
    for folder in tqdm(checked, unit="run", leave=False, delay=1, disable=None):
        found = problems(folder)
        bad += bool(found)
        for problem in found:
            with tqdm.external_write_mode():  # without it, the line would be printed onto the progress bar
                print(printable_lines(f"{folder.relative_to(root)}: {problem}"), flush=True)
    print(
        f"{len(checked)} run folders checked (finished; configuration and hash; split digest; predictions against the "
        f"scores of every epoch): {bad or 'none'} with a problem"
    )
    return 1 if bad else 0
