"""RAVDESS, its spoken part: 1440 recordings of 24 actors, two English statements, eight emotions.

S. R. Livingstone, F. A. Russo: The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS). PLoS ONE
13(5), e0196391, 2018. CC BY-NC-SA 4.0: not for commercial use.

`Actor_12/03-01-06-01-02-01-12.wav` is modality 03 (sound only), channel 01 (speech), emotion 06, intensity 01,
statement 02, repetition 01, actor 12 (odd: male). Song (channel 02) is left out. The folder is path.py's RAVDESS.
"""

from pathlib import Path

from corpora import Utterance, recordings

NAME = "RAVDESS"
LICENCE = "CC BY-NC-SA 4.0 (RAVDESS: Livingstone and Russo, 2018)"
CLASSES = {"01": "neutral", "04": "sad", "05": "angry", "03": "happy", "06": "fearful", "07": "disgusted",
           "08": "surprised", "02": "calm"}  # fmt: skip
SPEECH = "01"
PATTERN = r"03-(?P<channel>0[12])-(?P<emotion>0[1-8])-0[12]-(?P<statement>0[12])-0[12]-(?P<actor>0[1-9]|1[0-9]|2[0-4])"


def utterances(root: Path) -> list[Utterance]:
    """Return every spoken recording in `root`, in the order of file names. The dialog is the statement.

    Raises UserError if there are none.
    """
    return [
        Utterance(file.stem, str(file), match["actor"], session="", dialog=match["statement"], kind="",
                  emotion=match["emotion"])
        for file, match in recordings(root, PATTERN, NAME, "Actor_01/03-01-01-01-01-01-01.wav", "RAVDESS")
        if match["channel"] == SPEECH
    ]  # fmt: skip
