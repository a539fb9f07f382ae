"""Any corpus as a CSV file, with a row for each recording: its path, its emotion, and what else is known of it."""

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cli import UserError, warn_once
from corpora import LONGEST_LABEL, Utterance, need_utf8, plain_label

COLUMNS = ("path", "emotion", "name", "speaker", "session", "dialog", "split")  # only the first two are needed


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    """Raise UserError if a CSV's header lacks a column or has one twice; warn of columns that nothing reads."""
    if any(column not in columns for column in COLUMNS[:2]):
        begins = f"begins with the columns {','.join(columns)[:200]!r}" if columns else "has no first line"
        raise UserError(
            f"{file} {begins}; it needs {','.join(COLUMNS[:2])}[,{','.join(COLUMNS[2:])}], spelt like this, with commas"
        )
    if twice := [column for column, count in Counter(columns).items() if count > 1 and column in COLUMNS]:
        raise UserError(f"{file} has the column {twice[0]} twice; leave one out")
    if odd := [column for column in columns if column not in ("", *COLUMNS)]:
        warn_once(
            f"{file}: the columns {', '.join(odd)[:200]} are not used; those that are used are spelt "
            f"{', '.join(COLUMNS)}"
        )


def _utterance(file: Path, line: int, row: dict[str, Any]) -> Utterance:
    """Return the utterance of a CSV's row; its name is "" if the row has none. Raises UserError naming the line."""
    recording, emotion = (row["path"] or "").strip(), plain_label(row["emotion"] or "")
    if None in row or not recording or not emotion:
        raise UserError(
            f"{file}, line {line}: every row needs a path and an emotion, and no more fields than the header"
        )
    if len(emotion) > LONGEST_LABEL or not emotion.isprintable():
        raise UserError(
            f"{file}, line {line}: an emotion has at most {LONGEST_LABEL} printable characters; this is "
            f"{emotion[:50]!r}"
        )
    text = {column: plain_label(row.get(column) or "") for column in ("speaker", "session", "dialog", "split")}
    name, where = (row.get("name") or "").strip(), str((file.parent / recording).absolute())
    if "\0" in name + where:
        raise UserError(f"{file}, line {line}: a path and a name have no null character")
    return Utterance(name, where, **text, kind="", emotion=emotion)


def _refuse_doubles(file: Path, utterances: Sequence[Utterance], lines: Sequence[int]) -> None:
    """Raise UserError if two rows of a CSV have the same name or, by whatever path, the same recording."""
    for keys in ([u.name for u in utterances], [os.path.realpath(u.path) for u in utterances]):
        first: dict[str, tuple[str, int]] = {}
        for key, utterance, line in zip(keys, utterances, lines, strict=True):
            if key in first:
                name, earlier = first[key]
                also = f", also as {utterance.name}" if utterance.name != name else ""
                raise UserError(
                    f"{file}, lines {earlier} and {line}: {name} is there twice{also}; every recording has "
                    "one row, and a name of its own"
                )
            first[key] = utterance.name, line


def _warn_of_similar_labels(file: Path, utterances: Sequence[Utterance]) -> None:
    """Warn of labels that differ only in capitals."""
    columns = {"emotion": "classes", "speaker": "speakers", "session": "sessions", "dialog": "dialogs"}
    for column, what in columns.items():
        spelt: dict[str, list[str]] = {}
        for name in sorted({getattr(u, column) for u in utterances}):
            spelt.setdefault(name.casefold(), []).append(name)
        for _, alike in sorted(spelt.items()):
            if len(alike) > 1:
                warn_once(f"{file}: {' and '.join(alike)} are {len(alike)} {what}: spell them alike to merge them")


def _read(file: Path) -> list[tuple[int, dict[str, Any]]]:
    """Return each row of a CSV with the number of its line. Raises UserError naming the file."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as f:
            reader = csv.DictReader(f, strict=True, skipinitialspace=True)
            _check_columns(file, reader.fieldnames or [])  # first: with semicolons, a row's quotation marks look wrong
            return [(reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise UserError(f"{file.absolute()} does not exist: a dataset is a name or a CSV file") from None
    except csv.Error as error:
        raise UserError(f"{file}, line {reader.line_num + 1}: {error}; is a quotation mark missing?") from None
    except (OSError, UnicodeError) as error:
        raise UserError(f"{file} cannot be read as CSV in UTF-8: {error}; save it as CSV UTF-8") from None


def utterances(file: Path) -> list[Utterance]:
    """Return a CSV's utterances; its columns are `path,emotion` and, where known, `name,speaker,session,dialog,split`.

    Paths may be relative to the CSV's folder. Utterances are in the order of their names. An utterance without a `name`
    is named by its path from the folder that holds all recordings. Raises UserError naming the file and the row or the
    column.
    """
    need_utf8(file.absolute())
    rows = _read(file)
    if not rows:
        raise UserError(f"{file} has a header and no rows: write a row for each recording")
    lines, found = [line for line, _ in rows], [_utterance(file, line, row) for line, row in rows]
    files = [Path(os.path.normpath(u.path)) for u in found]
    root = os.path.commonpath([recording.parent for recording in files])
    named = [
        u if u.name else replace(u, name=recording.relative_to(root).as_posix())
        for u, recording in zip(found, files, strict=True)
    ]
    _refuse_doubles(file, named, lines)
    _warn_of_similar_labels(file, named)
    return sorted(named, key=lambda u: u.name)
