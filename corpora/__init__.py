"""Corpora: each module lists its recordings as utterances; data.py calls them by name."""

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from cli import UserError
from files import atomic


@dataclass(frozen=True)
class Utterance:
    """One recording of one speaker. `emotion` is the corpus's own code (IEMOCAP: `neu`, `exc`, ..)."""

    name: str  # unique in its corpus
    path: str  # absolute
    speaker: str
    session: str
    dialog: str  # the conversation or sentence it belongs to: what the `dialog` split keeps together
    kind: str  # `impro` or `script`, or "" where a corpus has no such halves
    emotion: str


def write_index(path: Path, utterances: Iterable[Utterance]) -> None:
    """Write utterances as CSV, one row each, in the order given."""
    with atomic(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, [field.name for field in fields(Utterance)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(utterance) for utterance in utterances)


def read_index(path: Path) -> list[Utterance]:
    """Read what `write_index` wrote. Raises UserError when the file is not an index."""
    names = [field.name for field in fields(Utterance)]
    try:
        with open(path, newline="", encoding="utf-8") as f:
            reader = csv.DictReader(f, strict=True)
            if reader.fieldnames != names:
                raise UserError(f"{path} is not an index: its columns are {reader.fieldnames}, not {names}")
            rows = list(reader)
        if any(None in row or None in row.values() for row in rows):
            raise UserError(f"{path} is not an index: a row has too few or too many fields")
        return [Utterance(**row) for row in rows]
    except (OSError, UnicodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read as an index ({error}); delete it and run again") from None
