"""Where the corpora, the cache and the runs are: for your data, edit the paths in quotes.

An environment variable overrides a path here. Relative paths count from this folder.
"""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def _folder(variable: str, default: str) -> Path:
    folder = os.path.expanduser(os.environ.get(variable) or default)  # noqa: PTH111 - Path raises where ~ has no user
    return (ROOT / folder).absolute()


IEMOCAP = _folder("IEMOCAP", "IEMOCAP_full_release")  # holds Session1 .. Session5
EMODB = _folder("EMODB", "emodb/wav")  # holds 03a01Fa.wav ..
RAVDESS = _folder("RAVDESS", "ravdess")  # holds Actor_01 .. Actor_24
CREMAD = _folder("CREMAD", "crema-d/AudioWAV")  # holds 1001_DFA_ANG_XX.wav ..
CACHE = _folder("GLAM_CACHE", "cache")  # indexes and features; this folder may be deleted at any time
RUNS = _folder("GLAM_RUNS", "runs")  # results, from which reports are made
