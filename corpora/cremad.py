"""CREMA-D: 7442 recordings of 91 actors, twelve English sentences, six emotions.

H. Cao, D. G. Cooper, M. K. Keutmann, R. C. Gur, A. Nenkova, R. Verma: CREMA-D: Crowd-sourced Emotional Multimodal
Actors Dataset. IEEE Transactions on Affective Computing 5(4), 2014. The database is under the Open Database License,
its contents under the Database Contents License.

`1001_DFA_ANG_XX.wav` is actor 1001, sentence DFA, the intended emotion (ANG) and its level (LO, MD, HI, or XX for not
specified; one released file has a single X). The folder is path.py's CREMAD. Files that were fetched without git-lfs
are text pointers and not recordings.
"""

from pathlib import Path

from corpora import Utterance, recordings

NAME = "CREMA-D"
LICENCE = "Open Database License 1.0, contents Database Contents License 1.0 (CREMA-D: Cao et al., 2014)"
CLASSES = {"NEU": "neutral", "SAD": "sad", "ANG": "angry", "HAP": "happy", "FEA": "fearful", "DIS": "disgusted"}
SENTENCES = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
PATTERN = rf"(100[1-9]|10[1-8]\d|109[01])_({'|'.join(SENTENCES)})_({'|'.join(CLASSES)})_(?:LO|MD|HI|XX?)"


def utterances(root: Path) -> list[Utterance]:
    """Return every recording in `root`, in the order of file names. The dialog is the sentence.

    Raises UserError if there are none.
    """
    return [
        Utterance(file.stem, str(file), speaker=match[1], session="", dialog=match[2], kind="", emotion=match[3])
        for file, match in recordings(root, PATTERN, NAME, "1001_DFA_ANG_XX.wav", "CREMAD")
    ]
