"""Corpora. Each is a module, found by its name if path.py has a line of that name in capitals (`emodb`: EMODB).

A module has `NAME`, `LICENCE`, `utterances(root)` and `CLASSES`: each of its emotion codes with the class it means, in
this order: neutral, sad, angry, happy, fearful, disgusted, surprised, calm, bored. `csv_file` reads any corpus that a
CSV lists. `synthetic` and `emodb_as_iemocap` are not corpora: they write a release in the shape of IEMOCAP.
"""

import re
import unicodedata
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from cli import UserError, printable, warn_once
from files import walk

LONGEST_LABEL = 100  # characters of a class's name


def plain_label(text: str) -> str:
    """Return the name of a class or a speaker with plain spaces: web pages have spaces that do not break or show."""
    seen = "".join(c for c in unicodedata.normalize("NFKC", text) if unicodedata.category(c) != "Cf")
    return " ".join(seen.split())


@dataclass(frozen=True)
class Utterance:
    """One recording of one speaker. `emotion` is the corpus's own code (IEMOCAP: `neu`, `exc`, ..)."""

    name: str  # unique in its corpus
    path: str  # absolute
    speaker: str
    session: str
    dialog: str  # the conversation or sentence it belongs to: what the `dialog` split keeps together
    kind: str  # `impro` or `script`; "" if the corpus has no such halves
    emotion: str
    split: str = ""  # `train`, `val` or `test` if the corpus itself is divided


def need_utf8(folder: Path) -> None:
    """Raise UserError if a path is not UTF-8: a corpus's index is a UTF-8 file that holds such paths."""
    if printable(str(folder)) != str(folder):
        raise UserError(
            f"{printable(str(folder))} is not UTF-8, as a path in an index must be: rename that folder, or link to it"
        )


def recordings(root: Path, pattern: str, name: str, example: str, variable: str) -> list[tuple[Path, re.Match[str]]]:
    """Return the wave files under `root` in the order of their names, each with its name's match to `pattern`.

    A warning counts and lists wave files of other names; those that macOS leaves (`._*`) are ignored. Raises UserError,
    naming path.py's `variable`, if `root` holds no file that matches or two of one name.
    """
    where = f"set {variable} in path.py, or the environment variable {variable}, to the folder that holds {example}"
    need_utf8(root)
    there = (parent / file for parent, inside in walk(root) for file in inside)
    files = sorted((f for f in there if f.suffix.lower() == ".wav" and f.name[0] != "."), key=lambda f: (f.name, f))
    matches = [(file, re.fullmatch(pattern, file.stem)) for file in files]
    found = [(file.absolute(), match) for file, match in matches if match]
    for folder in {file.parent for file, _ in found}:
        need_utf8(folder)
    if not found:
        raise UserError(f"{root} has no recording named as {name} names them: {where}")
    if twice := next((a.stem for (a, _), (b, _) in pairwise(found) if a.stem == b.stem), ""):
        raise UserError(f"{root} holds {twice}.wav twice; keep one of the two, or {where}")
    if odd := [file.name for file, match in matches if not match]:
        listed = ", ".join(odd[:5]) + (", .." if len(odd) > 5 else "")
        warn_once(
            f"{len(odd)} of {len(files)} wave files in {root} are not named as {name} names them ({example}) "
            f"and are left out: {listed}"
        )
    return found


def is_csv(dataset: str) -> bool:
    """Return whether a dataset is a CSV file and not a name."""
    return dataset.lower().endswith(".csv")


def dataset_folder(dataset: str) -> str:
    """Return what a dataset is called in the runs folder; for a CSV file, this is the stem of its name."""
    folder = re.sub(r"[^A-Za-z0-9._-]", "_", Path(dataset).stem if is_csv(dataset) else dataset)
    return folder.lstrip(".") or "csv"
