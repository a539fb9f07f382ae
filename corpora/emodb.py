"""EMO-DB, the Berlin database of emotional speech: 535 recordings of ten actors, ten German texts, seven emotions.

F. Burkhardt, A. Paeschke, M. Rolfes, W. F. Sendlmeier, B. Weiss: A database of German emotional speech. Interspeech
2005. Its authors offer it to everyone for download (emodb.bilderbar.info) and ask to be cited; no licence text comes
with it.

`03a01Fa.wav` is speaker 03, text a01, emotion F (Freude), version a. The folder is path.py's EMODB.
"""

from pathlib import Path

from corpora import Utterance, recordings

NAME = "EMO-DB"
LICENCE = "EMO-DB: offered for free download by its authors, who ask for a citation of Burkhardt et al. (2005)"
CLASSES = {"N": "neutral", "T": "sad", "W": "angry", "F": "happy", "A": "fearful", "E": "disgusted", "L": "bored"}
PATTERN = rf"(03|08|09|1[0-6])([ab]\d\d)([{''.join(CLASSES)}])[a-z]"


def utterances(root: Path) -> list[Utterance]:
    """Return every recording in `root`, in the order of file names. The dialog is the text.

    Raises UserError if there are none.
    """
    return [
        Utterance(file.stem, str(file), speaker=match[1], session="", dialog=match[2], kind="", emotion=match[3])
        for file, match in recordings(root, PATTERN, NAME, "03a01Fa.wav", "EMODB")
    ]
