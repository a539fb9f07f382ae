"""List the utterances of an IEMOCAP release, each with its recording, speaker, session, dialog, kind and emotion.

  python handleIEMOCAP.py              index the release, count it, and compare the counts with the full release's
  python handleIEMOCAP.py --verbose    name every problem, not only the first 20 of each kind

--root, the environment variable IEMOCAP or path.py says where the release is. The release is only read. It may be
whole, or cut down to Session*/dialog/EmoEvaluation and Session*/sentences/wav. The published GLAM code may have renamed
the recordings, in part or in full: the names and the order of utterances, and so every split, stay the same.

  python handleIEMOCAP.py --rename     rename the recordings in place, which only the published code needs
  python handleIEMOCAP.py --restore    give back the names from before --rename, even if it was interrupted; or, if the
                                       published code did the renaming, the release's own names
  python handleIEMOCAP.py --rename --dry_run      say what would be done, and change nothing

--rename first writes the list of old and new names into the release, as GLAM_renamed.csv. --restore removes that file
at its end.
"""

import csv
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import path
from cli import UserError, parser, printable, run_main, warn, warn_once
from corpora import Utterance, need_utf8
from files import atomic, digest_of, read_bytes, write_text

EMOTIONS = ["neu", "hap", "exc", "sad", "ang", "fru", "sur", "fea", "dis", "oth", "xxx"]
# the digits that the published code puts into a renamed file; dis and oth have none, and their files keep their names
CODES = {"neu": "01", "fru": "02", "hap": "03", "sad": "04", "ang": "05", "fea": "06", "exc": "07", "sur": "08",
         "xxx": "09"}  # fmt: skip
KINDS = {"impro": "improvised", "script": "scripted"}
# the full release's utterances by emotion, in the order of EMOTIONS
FULL = {
    "all": [1708, 595, 1041, 1084, 1103, 1849, 107, 40, 2, 3, 2507],
    "improvised": [1099, 284, 663, 608, 289, 971, 60, 8, 1, 1, 800],
    "scripted": [609, 311, 378, 476, 814, 878, 47, 32, 1, 2, 1707],
    "Session1": [384, 135, 143, 194, 229, 280, 25, 12, 1, 1, 415],
    "Session2": [362, 117, 210, 197, 137, 325, 17, 9, 0, 1, 436],
    "Session3": [320, 135, 151, 305, 240, 382, 28, 2, 1, 0, 572],
    "Session4": [258, 65, 238, 143, 327, 481, 19, 7, 0, 1, 564],
    "Session5": [384, 143, 299, 245, 170, 381, 18, 10, 0, 0, 520],
}
FULL_TOTAL = sum(FULL["all"])  # utterances of the full release
# of the usual four classes (neu, hap and exc, sad, ang), by speaker; the letter in a name's last field is the speaker's
FULL_SPEAKERS = {"Ses01F": 528, "Ses01M": 557, "Ses02F": 481, "Ses02M": 542, "Ses03F": 522, "Ses03M": 629,
                 "Ses04F": 528, "Ses04M": 503, "Ses05F": 590, "Ses05M": 651}  # fmt: skip
# utterances of neu, sad, ang and exc of at least 1.8 s, by dataset: those that a seed's published split is drawn from
USABLE = {"impro": 2236, "script": 2075, "all": 4311}
LABELS, WAVES = "dialog/EmoEvaluation", "sentences/wav"  # within a session
JOURNAL = "GLAM_renamed.csv"  # in the release: the list of what --rename renamed
SYNTHETIC = "SYNTHETIC.txt"  # marks a release that corpora/synthetic.py made up
LONGEST = 2**24  # bytes of an evaluation file; the release's own have fewer than 2**17

OFFICIAL = re.compile(
    r"(?P<dialog>Ses0(?P<session>[1-5])[FM]_(?:impro\d\d[ab]?|script\d\d_\db?))_(?P<letter>[FM])\d{3}", re.ASCII
)
RENAMED = re.compile(r"(Ses\d\d[FM])-(impro\d\d[ab]?|script\d\d)-(\d\d)-01-((?:\db?_)?[FM]\d{3})", re.ASCII)
LABEL = re.compile(r"\[\d+(?:\.\d*)? - \d+(?:\.\d*)?\]\s+(\S+)\s+(\S+)\s+\[[^\[\]]*\]", re.ASCII)
EXPECTED = f"""
  expected are folders Session1 .. Session5, and in them
    {LABELS}/Ses01F_impro01.txt ..                    the labels
    {WAVES}/Ses01F_impro01/Ses01F_impro01_F000.wav ..    the recordings
  set IEMOCAP in path.py, or the environment variable IEMOCAP, to the release's folder (handleIEMOCAP.py also takes
  --root); recordings laid out otherwise can be trained on as a CSV file with the columns path,emotion,speaker,..;
  train.py --dataset demo needs no release: it makes up a synthetic one"""


def label_line(start: float, end: float, name: str, emotion: str, vad: tuple[float, float, float]) -> str:
    """Return one turn as a line of IEMOCAP's evaluation files; times in seconds, ratings `vad` from 1 to 5."""
    return f"[{start:.4f} - {end:.4f}]\t{name}\t{emotion}\t[{', '.join(f'{rating:.4f}' for rating in vad)}]"


@dataclass
class Problems:
    """What does not fit together in a release: for each kind of problem a list of its cases, a sentence each."""

    unreadable: list[str] = field(default_factory=list, metadata={"title": "evaluation files without a readable label"})
    malformed: list[str] = field(default_factory=list, metadata={"title": "label lines that cannot be understood"})
    strange: list[str] = field(default_factory=list, metadata={"title": "wave files that are no utterance's recording"})
    duplicates: list[str] = field(default_factory=list, metadata={"title": "utterances that are there twice"})
    mismatches: list[str] = field(default_factory=list, metadata={"title": "names that contradict a label or a folder"})
    without_wave: list[str] = field(default_factory=list, metadata={"title": "labels without a recording"})
    without_label: list[str] = field(default_factory=list, metadata={"title": "recordings without a label"})
    empty: list[str] = field(default_factory=list, metadata={"title": "recordings of 0 bytes, as a full disk leaves"})

    def _found(self) -> list[tuple[list[str], str]]:
        """Return each kind's cases, if it has any, and a text that counts them: `3 labels without a recording`."""
        kinds = [(getattr(self, kind.name), kind.metadata["title"]) for kind in fields(self)]
        return [(cases, f"{len(cases)} {title}") for cases, title in kinds if cases]

    def __len__(self) -> int:
        return sum(len(cases) for cases, _ in self._found())

    def text(self, most: int | None = 20) -> str:
        """Return as text how many cases each kind of problem has, and the first `most` of them (None: all)."""
        lines = []
        for cases, said in self._found():
            lines += [said, *(f"  {case}" for case in cases[:most])]
            if len(cases) > len(cases[:most]):
                lines.append(f"  .. and {len(cases[most:])} more: handleIEMOCAP.py lists them with --verbose")
        return "\n".join(map(printable, lines))

    def counts(self) -> str:
        """Return in one line how many cases each kind of problem has; an empty text if there are none."""
        return ", ".join(said for _, said in self._found())


@dataclass(frozen=True)
class Wave:
    """A recording as it lies on the disk: its utterance's official name, the emotion's digits in its file's name ("" if
    it is not renamed), and its path from the release's folder, with slashes."""

    name: str
    code: str
    file: str

    @property
    def folder(self) -> str:
        return self.file.rpartition("/")[0]


def renamed(name: str, emotion: str) -> str:
    """Return the published code's name of an utterance: `Ses01F_impro01_F000`, `neu` -> `Ses01F-impro01-01-01-F000`."""
    code = CODES.get(emotion)
    session, topic, rest = name.split("_", 2)
    return f"{session}-{topic}-{code}-01-{rest}" if code else name


def official(stem: str) -> tuple[str, str] | None:
    """Return the official name and the emotion's digits ("" if not renamed) of a stem; None if it is no utterance's."""
    match = RENAMED.fullmatch(stem)
    name, code = ("_".join(match.group(1, 2, 4)), match[3]) if match else (stem, "")
    return (name, code) if OFFICIAL.fullmatch(name) else None


def _is_release(folder: Path) -> bool:
    try:
        return any((folder / f"Session{n}" / part).is_dir() for n in range(1, 6) for part in (LABELS, WAVES))
    except PermissionError:  # as for a disk's lost+found, beside the release
        return False


def find_release(root: Path | None = None) -> Path:
    """Return the release's absolute folder: `root` (path.IEMOCAP if None) or the one folder in it that is a release.

    Raises UserError if there is no release, or more than one.
    """
    root = Path(os.path.abspath(root or path.IEMOCAP))  # noqa: PTH100 - a link in the user's path stays as it is
    need_utf8(root)
    if not root.is_dir():
        what = "it is a file" if root.exists() else "there is no such folder"
        raise UserError(f"no IEMOCAP release at {root}: {what}{EXPECTED}")
    if _is_release(root):
        return root
    found = [folder for folder in sorted(root.iterdir()) if folder.is_dir() and _is_release(folder)]
    if len(found) > 1:
        raise UserError(f"{root} holds several releases, {', '.join(f.name for f in found)}: name one{EXPECTED}")
    if not found:
        what = "something else" if any(root.iterdir()) else "nothing"
        raise UserError(f"no IEMOCAP release at {root}: it holds {what}{EXPECTED}")
    return found[0]


def is_synthetic(release: Path) -> bool:
    """Return whether corpora/synthetic.py made up a release."""
    return (release / SYNTHETIC).is_file()


def _entries(folder: Path, suffix: str) -> list[os.DirEntry[str]]:
    """Return a folder's entries that end in `suffix`, by name, but no hidden ones: macOS leaves `._*` beside files."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        found = [entry for entry in entries if entry.name.lower().endswith(suffix) and not entry.name.startswith(".")]
    return sorted(found, key=lambda entry: entry.name)


def _label_files(release: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield evaluation files with their paths from the release's folder, but none in subfolders (Categorical ..)."""
    for session in _sessions(release):
        for entry in _entries(release / session / LABELS, ".txt"):
            if not entry.is_dir():
                yield f"{session}/{LABELS}/{entry.name}", entry


def _wave_files(release: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Yield everything named *.wav in a dialog's folder, with its path from the release's folder."""
    for session in _sessions(release):
        for dialog in _entries(release / session / WAVES, ""):
            for entry in _entries(Path(dialog.path), ".wav"):
                yield f"{session}/{WAVES}/{dialog.name}/{entry.name}", entry


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link that leads in a circle
        return False


def _sessions(release: Path) -> list[str]:
    return [f"Session{n}" for n in range(1, 6) if (release / f"Session{n}").is_dir()]


def parse_labels(text: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Return an evaluation file's labels [(official name, emotion)] and the label lines that cannot be understood."""
    labels, malformed = [], []
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").split("\n"), 1):
        if not line.startswith("["):
            continue
        match = LABEL.fullmatch(line.rstrip())
        if match and OFFICIAL.fullmatch(match[1]) and match[2] in EMOTIONS:
            labels.append((match[1], match[2]))
        else:
            malformed.append(f"line {number}: {line[:100]!a}")
    return labels, malformed


def _text(entry: os.DirEntry[str]) -> str:
    """Return an evaluation file's text. Raises ValueError saying why the entry cannot be such a file."""
    try:
        if not entry.is_file():
            raise ValueError("not a file")
        with open(entry.path, "rb") as f:
            data = f.read(LONGEST + 1)
    except OSError as error:
        raise ValueError(error.strerror) from None
    if len(data) > LONGEST:
        raise ValueError(f"longer than {LONGEST} bytes")
    return data.decode("utf-8-sig", errors="replace")


def read_labels(release: Path, problems: Problems) -> dict[str, str]:
    """Return the emotion by official name. Of two labels the first counts, with files in the order of their paths."""
    labels: dict[str, str] = {}
    for file, entry in _label_files(release):
        try:
            found, malformed = parse_labels(_text(entry))
        except ValueError as error:
            problems.unreadable.append(f"{file}: {error}")
            continue
        problems.malformed += [f"{file}, {line}" for line in malformed]
        if not found and not malformed:
            problems.unreadable.append(f"{file}: no label in it")
        for name, emotion in found:
            if name in labels:
                problems.duplicates.append(f"{name}: {labels[name]}, which counts, and {emotion} in {file}")
            if f"{name.rpartition('_')[0]}.txt" != entry.name:
                problems.mismatches.append(f"{file} labels {name}")
            labels.setdefault(name, emotion)
    return labels


def read_waves(release: Path, problems: Problems) -> dict[str, list[Wave]]:
    """Return the recordings by official name; of several with one name, files that are not renamed come first."""
    waves: dict[str, list[Wave]] = {}
    for file, entry in _wave_files(release):
        known = official(entry.name.removesuffix(".wav")) if printable(file) == file else None
        if known and _is_file(entry):
            waves.setdefault(known[0], []).append(Wave(*known, file))
        else:
            problems.strange.append(f"{file}{': not a file, or a broken link' if known else ''}")
    for name, several in waves.items():
        several.sort(key=lambda wave: (wave.code, wave.file))
        if len(several) > 1:
            problems.duplicates.append(f"{name}: {', '.join(wave.file for wave in several)}; the first counts")
    return waves


def _utterance(release: Path, wave: Wave, emotion: str) -> Utterance:
    match = OFFICIAL.fullmatch(wave.name)
    assert match
    session, dialog, letter = match.group("session", "dialog", "letter")
    kind = "impro" if "_impro" in dialog else "script"
    # the letter before the dialog's name says who wore the motion-capture markers; the last letter says who speaks
    return Utterance(wave.name, f"{release}/{wave.file}", f"Ses0{session}{letter}", session, dialog, kind, emotion)


def _contradictions(wave: Wave, utterance: Utterance) -> Iterator[str]:
    if wave.code and wave.code != CODES.get(utterance.emotion):
        yield f"{wave.file}: labelled {utterance.emotion}, which is not {wave.code}; the label counts"
    if wave.folder != f"Session{utterance.session}/{WAVES}/{utterance.dialog}":
        yield f"{wave.file}: {wave.name} belongs to another folder"


def read(root: Path | None = None, most: int | None = 3) -> tuple[list[Utterance], Problems]:
    """Return a release's utterances, which have both a label and a recording, and what does not fit together in it.

    Utterances are sorted by the path that the renamed file has or would have, such as
    `Session1/sentences/wav/Ses01F_impro01/Ses01F-impro01-01-01-F000.wav`, so that a seed means the same split
    everywhere. Raises UserError if `root` holds no release, or one without utterances; the error then lists the first
    `most` problems of each kind (None: all).
    """
    release, problems = find_release(root), Problems()
    labels, waves = read_labels(release, problems), read_waves(release, problems)
    found = {}
    for name, (wave, *_) in waves.items():
        if name in labels:
            utterance = _utterance(release, wave, labels[name])
            problems.mismatches += _contradictions(wave, utterance)
            found[f"{wave.folder}/{renamed(name, utterance.emotion)}.wav"] = utterance
    problems.without_wave = [name for name in labels if name not in waves]
    problems.without_label = [wave.file for name, (wave, *_) in waves.items() if name not in labels]
    if not found:
        text = f"{EXPECTED}\n{problems.text(most)}"
        raise UserError(f"{release} has no utterance with both a label and a recording{text}")
    return [found[file] for file in sorted(found)], problems


def index_file(release: Path) -> Path:
    """Return the file that keeps a release's index: each release has its own, named by a digest of its path."""
    return path.CACHE / "index" / f"IEMOCAP-{digest_of(str(release), 8)}.csv"


def write_index(file: Path, found: Iterable[Utterance]) -> None:
    """Write utterances as CSV, one row each, in the order given. A file with the same contents is left as it is."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Utterance)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(map(asdict, found))
    if not file.is_file() or read_bytes(file) != text.getvalue().encode():
        write_text(file, text.getvalue())


def index(root: Path | None = None) -> list[Utterance]:
    """Return the utterances that `read` lists, write them to `index_file`, and warn of what does not fit together in
    the release."""
    release = find_release(root)
    found, problems = read(release)
    with suppress(FileNotFoundError):  # the cache is being deleted, but nothing here reads the file
        write_index(index_file(release), found)
    if counts := problems.counts():
        warn_once(f"{release}: {counts}; `python handleIEMOCAP.py` lists them")
    return found


def count(found: Iterable[Utterance]) -> dict[str, list[int]]:
    """Count utterances by emotion, in the order of EMOTIONS: a row for all, each kind, each session, each speaker."""
    groups: dict[str, Counter[str]] = {row: Counter() for row in FULL}
    for utterance in sorted(found, key=lambda utterance: utterance.speaker):
        for row in ("all", KINDS[utterance.kind], f"Session{utterance.session}", utterance.speaker):
            groups.setdefault(row, Counter())[utterance.emotion] += 1
    return {row: [counter[emotion] for emotion in EMOTIONS] for row, counter in groups.items()}


def table(counts: dict[str, list[int]], rows: Sequence[str]) -> str:
    """Return some rows of `count` as aligned text, with their totals."""
    lines = ["".join(f"{cell:>6}" for cell in [*EMOTIONS, "total"])]
    lines += ["".join(f"{cell:>6}" for cell in [*counts[row], sum(counts[row])]) for row in rows]
    return "\n".join(f"{row:<10}{line}" for row, line in zip(["", *rows], lines, strict=True))


def compare(counts: dict[str, list[int]]) -> str:
    """Return a text that says whether the counts are the full release's and, if not, where they differ."""
    usual = {
        row: sum(counts[row][EMOTIONS.index(e)] for e in ("neu", "hap", "exc", "sad", "ang"))
        for row in counts
        if row not in FULL
    }
    if all(counts[row] == FULL[row] for row in FULL) and usual == FULL_SPEAKERS:
        return "complete release: every count is the full release's"
    total = sum(counts["all"])
    if not 0.8 * FULL_TOTAL < total < 1.2 * FULL_TOTAL:
        gone = [row for row in FULL if row.startswith("Session") and not any(counts[row])]
        lacking = f", none of {' and '.join(gone)}" if gone else ""
        return f"not the full release, which has {FULL_TOTAL} utterances; here are {total}{lacking}"
    lines = ["not the full release; these counts differ from its"]
    for row in FULL:
        cells = zip(EMOTIONS, counts[row], FULL[row], strict=True)
        differing = [f"{emotion} {here}, not {there}" for emotion, here, there in cells if here != there]
        if differing:
            lines.append(f"  {row}: {'; '.join(differing)}")
    for speaker in sorted(usual.keys() | FULL_SPEAKERS):
        here, there = usual.get(speaker, 0), FULL_SPEAKERS.get(speaker, 0)
        if here != there:
            lines.append(f"  {speaker}: {here} of the usual four classes, not {there}")
    return "\n".join(lines)


def report(release: Path, found: list[Utterance], problems: Problems, verbose: bool = False) -> str:
    """Return the counts, completeness and problems of a release, as `python handleIEMOCAP.py` prints them."""
    counts = count(found)
    kinds, sessions = ["all", *KINDS.values()], [row for row in FULL if row.startswith("Session") and any(counts[row])]
    speakers = [row for row in counts if row not in FULL]
    made_up = "a synthetic release, made by corpora/synthetic.py: for trying things out, never for results"
    parts = [
        f"{len(found)} utterances of {len(speakers)} speakers in {printable(str(release))}",
        *(table(counts, rows) for rows in (kinds, sessions, speakers)),
        made_up if is_synthetic(release) else compare(counts),
        problems.text(None if verbose else 20) or "no problems",
    ]
    return "\n\n".join(parts)


def read_journal(release: Path) -> dict[str, str]:
    """Return what --rename renamed, old file -> new file from the release's folder; nothing if there is no journal.

    Raises UserError if the journal is not one that `rename` wrote.
    """
    journal = release / JOURNAL
    if not os.path.lexists(journal):
        return {}
    try:
        with open(journal, newline="", encoding="utf-8") as f:
            header, *rows = csv.reader(f, strict=True)
    except (ValueError, csv.Error):
        header, rows = [], []
    for number, row in enumerate([header, *rows], 1):
        if (row != ["old", "new"]) if number == 1 else not _is_move(row):
            remedy = "delete the file, and --restore goes by the names of the recordings"
            raise UserError(f"{journal}, line {number}, is not what --rename wrote; {remedy}")
    return dict(rows)


def _is_move(row: list[str]) -> bool:
    """Return whether a journal's row names a recording and, in the same folder of the release, its renamed file."""
    if len(row) != 2 or not re.fullmatch(rf"Session[1-5]/{WAVES}/[^/.][^/]*/[^/]+\.wav", row[0]):
        return False
    (folder, _, old), (other, _, new) = row[0].rpartition("/"), row[1].rpartition("/")
    name, code = official(new.removesuffix(".wav")) or ("", "")
    return folder == other and new.endswith(".wav") and bool(code) and old == f"{name}.wav"


def _write_journal(release: Path, moves: dict[str, str]) -> None:
    with atomic(release / JOURNAL) as temporary, open(temporary, "w", newline="", encoding="utf-8") as f:
        csv.writer(f, lineterminator="\n").writerows([("old", "new"), *moves.items()])


def _refuse_clashes(release: Path, moves: dict[str, str]) -> None:
    """Raise UserError if a file would be overwritten, but not if the old one has gone: another process renamed it."""
    taken = [(old, new) for old, new in moves.items() if all(os.path.lexists(release / each) for each in (new, old))]
    if taken:
        text = "\n".join(printable(f"  {old} -> {new}") for old, new in taken[:20])
        raise UserError(f"nothing renamed in {release}: {len(taken)} names are taken; remove the files\n{text}")


def _move(release: Path, moves: dict[str, str]) -> None:
    for old, new in moves.items():
        try:
            (release / old).rename(release / new)
        except FileNotFoundError:
            raise UserError(f"{release / old} went away meanwhile; run the same command again") from None
        except OSError as error:
            done = sum(os.path.lexists(release / each) for each in moves.values())
            raise UserError(
                f"cannot rename {release / old} ({error.strerror}): {done} of {len(moves)} are renamed; give the same "
                "command again once it can be"
            ) from None


def rename(root: Path | None = None, dry_run: bool = False) -> dict[str, str]:
    """Rename recordings in place as the published code does: every recording whose label has digits in CODES.

    Returns what was (or would be) renamed, old file -> new file from the release's folder. The journal is written
    first, so that `restore` can undo a rename that was interrupted at any point, and a second call can complete it.
    Raises UserError, before anything is changed, if a new name is taken or an utterance has two recordings.
    """
    release, problems = find_release(root), Problems()
    labels, waves = read_labels(release, problems), read_waves(release, problems)
    if problems.unreadable:
        count, first = len(problems.unreadable), problems.unreadable[0]
        warn(f"evaluation files without a readable label: {count}, as {first}: their recordings keep their names")
    moves, journal = {}, read_journal(release)
    for name, (wave, *others) in waves.items():
        if others:
            raise UserError(
                f"nothing renamed in {release}: {wave.file} and {others[0].file} are both {name}; remove one"
            )
        if not wave.code and labels.get(name) in CODES:
            moves[wave.file] = f"{wave.folder}/{renamed(name, labels[name])}.wav"
    _refuse_clashes(release, moves)
    if moves and not dry_run:
        _write_journal(release, journal | moves)
        _move(release, moves)
    return moves


def restore(root: Path | None = None, dry_run: bool = False) -> dict[str, str]:
    """Undo `rename` exactly, by its journal, which is then removed; without a journal, give every renamed recording its
    official name. Returns what was (or would be) renamed. Raises UserError as `rename` does."""
    release = find_release(root)
    journal = read_journal(release)
    if journal:
        moves = {new: old for old, new in journal.items() if os.path.lexists(release / new)}
        gone = [old for old, new in journal.items() if new not in moves and not os.path.lexists(release / old)]
        if gone:
            warn(f"{len(gone)} recordings in {release / JOURNAL} are no longer there: {', '.join(gone[:3])} ..")
    else:
        waves = [wave for several in read_waves(release, Problems()).values() for wave in several]
        moves = {wave.file: f"{wave.folder}/{wave.name}.wav" for wave in waves if wave.code}
    if len(set(moves.values())) < len(moves):
        raise UserError(f"nothing renamed in {release}: an utterance is there twice; leave --restore out to see it")
    _refuse_clashes(release, moves)
    if not dry_run:
        _move(release, moves)
        (release / JOURNAL).unlink(missing_ok=True)
    return moves


def _print_moves(moves: dict[str, str], done: str, verbose: bool) -> None:
    shown = list(moves.items())[: None if verbose else 20]
    print("\n".join([f"{len(moves)} recordings {done}", *(printable(f"  {old} -> {new}") for old, new in shown)]))
    if len(shown) < len(moves):
        print(f"  .. and {len(moves) - len(shown)} more: --verbose lists them")


def main() -> None:
    arguments = parser(description=__doc__)
    arguments.add_argument("--root", type=Path, metavar="DIR", help="the release (default: what path.py says)")
    action = arguments.add_mutually_exclusive_group()
    action.add_argument("--rename", action="store_true", help="rename the recordings as the published code does")
    action.add_argument("--restore", action="store_true", help="give back the names from before --rename")
    arguments.add_argument("--dry_run", action="store_true", help="with --rename or --restore: change nothing")
    arguments.add_argument("--verbose", action="store_true", help="list all problems and all renamed recordings")
    args = arguments.parse_args()
    if args.dry_run and not (args.rename or args.restore):
        raise UserError("--dry_run goes with --rename or --restore; without them nothing in the release is changed")
    release = find_release(args.root)
    if args.rename:
        _print_moves(rename(release, args.dry_run), "would be renamed" if args.dry_run else "renamed", args.verbose)
    elif args.restore:
        _print_moves(restore(release, args.dry_run), "would be restored" if args.dry_run else "restored", args.verbose)
        left = sum(bool(wave.code) for several in read_waves(release, Problems()).values() for wave in several)
        if left and not args.dry_run:
            print(f"{left} others were renamed before --rename: --restore once more gives them their official names")
    else:
        found, problems = read(release, None if args.verbose else 3)
        problems.empty = [u.name for u in found if not Path(u.path).stat().st_size]
        print(report(release, found, problems, args.verbose), flush=True)
        write_index(index_file(release), found)
        print(f"\nindex: {index_file(release)}")


if __name__ == "__main__":
    run_main(main)
