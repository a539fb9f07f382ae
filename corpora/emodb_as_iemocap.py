"""Lay the Berlin EMO-DB recordings out as an IEMOCAP release.

IEMOCAP is licensed and cannot be handed round. EMO-DB (Burkhardt et al. 2005) is free, has ten actors, five women and
five men, as IEMOCAP does, and is real acted speech at 16 kHz: the folder this writes takes real recordings through
everything that reads IEMOCAP. Five sessions of one woman and one man; texts a.. become improvised dialogs, texts b..
scripted ones. Scores obtained on it are EMO-DB's, never IEMOCAP's.

    python -m corpora.emodb_as_iemocap emodb/wav EMODB_as_IEMOCAP
    IEMOCAP=EMODB_as_IEMOCAP python handleIEMOCAP.py
"""

import re
import shutil
import wave
from collections import defaultdict
from pathlib import Path

from cli import UserError, parser, run_main
from corpora import emodb
from files import new_folder
from handleIEMOCAP import LABELS, WAVES, label_line

FEMALE = ["08", "09", "13", "14", "16"]
MALE = ["03", "10", "11", "12", "15"]
EMOTIONS = {"N": "neu", "T": "sad", "W": "ang", "F": "exc", "L": "fru", "A": "fea", "E": "dis"}
# valence, activation, dominance: nominal values, one triple for each class, as EMO-DB has no such ratings
VAD = {"neu": (3.0, 2.5, 2.5), "sad": (2.0, 1.5, 2.0), "ang": (2.0, 4.0, 4.0), "exc": (4.5, 4.0, 3.5),
       "fru": (2.5, 2.5, 3.0), "fea": (2.0, 3.5, 2.0), "dis": (2.0, 3.0, 3.0)}  # fmt: skip
HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"

Turn = tuple[str, Path, str]  # gender, recording, emotion


def recordings(folder: Path) -> dict[tuple[int, str], list[Turn]]:
    """Return EMO-DB's recordings by (session, dialog), each dialog's turns in the order of their file names.

    Raises UserError if `folder` holds no recording, or a wave file that EMO-DB does not have.
    """
    dialogs: dict[tuple[int, str], list[Turn]] = defaultdict(list)
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; name EMO-DB's folder of wave files")
    for path in sorted(folder.glob("[!.]*.wav")):
        match = re.fullmatch(emodb.PATTERN, path.stem)
        if not match:
            raise UserError(f"{path} is not named as EMO-DB names its recordings (03a01Fa.wav); move it elsewhere")
        speaker, text, code = match.groups()
        gender, session = ("F", FEMALE.index(speaker)) if speaker in FEMALE else ("M", MALE.index(speaker))
        number = int(text[1:])
        script = f"script{(number - 1) % 3 + 1:02d}_{(number - 1) // 3 + 1}"
        name = f"impro{number:02d}" if text[0] == "a" else script
        dialogs[session + 1, f"Ses{session + 1:02d}{gender}_{name}"].append((gender, path, EMOTIONS[code]))
    if not dialogs:
        raise UserError(f"no EMO-DB recordings (03a01Fa.wav ..) in {folder}; name the folder that holds the wave files")
    return dict(sorted(dialogs.items()))


def seconds_of(path: Path) -> float:
    """Return the duration of a wave file in seconds. Raises UserError if the file is not a wave file."""
    try:
        with wave.open(str(path)) as w:
            return w.getnframes() / w.getframerate()
    except (wave.Error, EOFError, ZeroDivisionError) as error:
        raise UserError(f"{path} is not a readable wave file ({error}); fetch it again") from None


def write_dialog(root: Path, session: int, dialog: str, turns: list[Turn]) -> None:
    """Write one dialog's recordings and its evaluation file under `root`."""
    audio = root / f"Session{session}" / WAVES / dialog
    labels = root / f"Session{session}" / LABELS
    audio.mkdir(parents=True)
    labels.mkdir(parents=True, exist_ok=True)
    clock, lines = 0.0, [HEADER, ""]
    for i, (gender, wav, emotion) in enumerate(turns):
        name, seconds, vad = f"{dialog}_{gender}{i:03d}", seconds_of(wav), VAD[emotion]
        shutil.copyfile(wav, audio / f"{name}.wav")
        lines.append(label_line(clock, clock + seconds, name, emotion, vad))
        lines.append(f"C-E2:\t{emotion};\t()")
        lines.append("A-E3:\tval {:.0f}; act {:.0f}; dom  {:.0f};\t()\n".format(*vad))
        clock += seconds + 0.5
    (labels / f"{dialog}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def convert(emodb: Path, out: Path) -> tuple[int, int]:
    """Write `emodb`'s recordings to `out` as an IEMOCAP release.

    Returns the numbers of utterances and dialogs. Raises UserError if `emodb` is not EMO-DB or `out` is not empty.
    """
    dialogs = recordings(emodb)
    with new_folder(out) as root:
        for (session, dialog), turns in dialogs.items():
            write_dialog(root, session, dialog, turns)
    return sum(map(len, dialogs.values())), len(dialogs)


def main() -> None:
    arguments = parser(prog="python -m corpora.emodb_as_iemocap", description=__doc__)
    arguments.add_argument("emodb", type=Path, metavar="EMODB_DIR", help="EMO-DB's wave files (03a01Fa.wav ..)")
    arguments.add_argument("out", type=Path, metavar="OUT_DIR", help="the folder to make; refused if it is not empty")
    args = arguments.parse_args()
    utterances, dialogs = convert(args.emodb, args.out)
    print(f"{utterances} utterances in {dialogs} dialogs written to {args.out}")


if __name__ == "__main__":
    run_main(main)
