"""Make up a release shaped like IEMOCAP: to try everything out without the licensed recordings.

Ten voices babble random syllables. How high, lively, fast, loud, bright and hoarse they are depends on the emotion, and
overlaps so much that a model is neither lost nor perfect. Folders, names, labels, proportions and macOS left-overs are
as in the real release; recordings are shorter. Scores on it say that the code works, and nothing about people.

  python -m corpora.synthetic FOLDER                   300 utterances, about a quarter of an hour, in seconds
  python -m corpora.synthetic FOLDER --hours 20        a stress test, five minutes
  IEMOCAP=FOLDER python handleIEMOCAP.py

A size and a seed make one release, byte for byte. FOLDER must be new, or empty, or an earlier synthetic release, which
is replaced.
"""

import wave
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from cli import UserError, parser, run_main
from files import new_folder
from handleIEMOCAP import EMOTIONS, FULL, KINDS, LABELS, SYNTHETIC, WAVES, label_line

Array = NDArray[np.float64]

VERSION = 1  # raise it if any byte of what is made changes, so that the demo corpus is made anew

RATE = 16000  # Hz
HOP, WINDOW, FFT = 160, 320, 640  # samples: every 10 ms a Hann frame of 20 ms, and 20 ms for the filters to ring
FRAMES = RATE // HOP  # per second
FREQUENCY = np.fft.rfftfreq(FFT, 1 / RATE)  # Hz
CLASSES = ["neu", "sad", "ang", "exc"]  # the classes that experiments use; each always has enough utterances
MEAN_SECONDS = 2.65  # of an utterance
FEWEST, MOST = 23, 150_000  # utterances: 2 of each class and kind, 1 of each other label; a name counts with 3 digits

# Phones: resonances F1 .. F3 of a man's vocal tract in Hz (vowels: Peterson and Barney 1952), how strong the voice is,
# and how strong each of the NOISES is
VOWELS = {"i": (270, 2290, 3010), "I": (390, 1990, 2550), "E": (530, 1840, 2480), "{": (660, 1720, 2410),
          "A": (730, 1090, 2440), "O": (570, 840, 2410), "U": (440, 1020, 2240), "u": (300, 870, 2240),
          "V": (640, 1190, 2390), "3": (490, 1350, 1690)}  # fmt: skip
#              F1   F2    F3   voice  s    sh   f   duration in s
CONSONANTS = {
    "m": (280, 1000, 2200, 0.30, 0.0, 0.0, 0.0, 0.065),
    "n": (280, 1600, 2600, 0.30, 0.0, 0.0, 0.0, 0.060),
    "l": (360, 1300, 2700, 0.50, 0.0, 0.0, 0.0, 0.060),
    "r": (420, 1250, 1600, 0.50, 0.0, 0.0, 0.0, 0.060),
    "w": (300, 700, 2200, 0.45, 0.0, 0.0, 0.0, 0.060),
    "s": (400, 1700, 2600, 0.00, 1.0, 0.0, 0.0, 0.100),
    "S": (400, 1900, 2500, 0.00, 0.0, 1.0, 0.0, 0.105),
    "f": (400, 1100, 2300, 0.00, 0.0, 0.0, 1.0, 0.090),
    "z": (350, 1700, 2600, 0.25, 0.5, 0.0, 0.0, 0.075),
    "v": (350, 1100, 2300, 0.35, 0.0, 0.0, 0.5, 0.060),
    "t": (400, 1700, 2600, 0.00, 0.9, 0.3, 0.0, 0.025),
    "k": (400, 1900, 2300, 0.00, 0.0, 1.0, 0.0, 0.030),
    "p": (400, 1000, 2200, 0.00, 0.0, 0.0, 1.2, 0.020),
    "d": (350, 1700, 2600, 0.30, 0.4, 0.1, 0.0, 0.025),
    "g": (350, 1900, 2300, 0.30, 0.0, 0.4, 0.0, 0.025),
}
STOPS = "tkpdg"  # these are silent before they burst
NOISES = {"s": (6000, 1500), "S": (3400, 1100), "f": (5000, 4000)}  # centre and width in Hz

# How an emotion changes a voice, compared with neutral speech
STYLE = ["pitch", "range", "rate", "level", "tilt", "breath", "rough", "smile", "pause"]
#        semitones octaves octaves dB dB/octave  dB     %     %   probability after a syllable
EMOTION_STYLES = {
    "neu": (0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
    "hap": (2.0, 0.5, 0.1, 2.0, 0.8, 0.0, 0.0, 4.0, 0.0),
    "exc": (3.5, 0.9, 0.2, 4.0, 1.2, 0.0, 0.2, 5.0, -0.02),
    "sad": (-1.5, -0.7, -0.3, -5.0, -2.0, 5.0, 0.4, -2.0, 0.08),
    "ang": (2.0, 0.4, 0.1, 6.0, 2.5, -3.0, 1.0, -1.0, 0.0),
    "fru": (0.8, 0.3, 0.0, 2.5, 1.2, 0.0, 0.5, 0.0, 0.03),
    "sur": (4.0, 1.0, 0.0, 2.0, 0.5, 1.0, 0.0, 2.0, 0.0),
    "fea": (3.5, 0.0, 0.3, 0.0, -0.5, 3.0, 1.2, 0.0, 0.03),
    "dis": (-1.0, 0.0, -0.2, 1.0, 0.5, 0.0, 0.8, -2.0, 0.02),
}
UTTERANCE_SPREAD = (1.6, 0.45, 0.15, 2.6, 1.1, 2.5, 0.4, 3.0, 0.03)  # standard deviations, the same for all emotions
SPEAKER_SPREAD = (0.0, 0.2, 0.08, 1.5, 0.6, 2.0, 0.2, 0.0, 0.01)  # _voice draws pitch and tract length
# valence, activation, dominance, from 1 to 5
RATINGS = {"neu": (3.0, 2.5, 2.5), "hap": (4.0, 3.0, 3.0), "exc": (4.3, 4.0, 3.5), "sad": (2.0, 1.8, 2.2),
           "ang": (1.8, 4.0, 4.0), "fru": (2.3, 3.0, 3.3), "sur": (3.2, 3.5, 2.8), "fea": (2.0, 3.5, 2.0),
           "dis": (2.0, 3.0, 3.2), "oth": (3.0, 3.0, 3.0), "xxx": (2.8, 2.8, 3.0)}  # fmt: skip
WORDS = {"neu": "Neutral", "hap": "Happiness", "exc": "Excited", "sad": "Sadness", "ang": "Anger", "fru": "Frustration",
         "sur": "Surprise", "fea": "Fear", "dis": "Disgust", "oth": "Other", "xxx": "Other"}  # fmt: skip
APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(58)


@dataclass(frozen=True)
class Turn:
    """One utterance to be made; its `number` counts the utterances and seeds its sound."""

    number: int
    session: int
    dialog: str
    letter: str
    name: str
    emotion: str
    seconds: float

    @property
    def kind(self) -> str:
        return "impro" if "_impro" in self.dialog else "script"


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


# --- who says what, when -----------------------------------------------------------------------------------------


def dialogs(session: int, kind: str) -> list[str]:
    """Return a session's dialogs in the real release, which has 151 in all: first those with odd names, then the
    others, in which the two actors wear the markers in turn."""
    if kind == "script":
        parts = ("01_1", "01_2", "01_3", "02_1", "02_2", "03_1", "03_2")
        names = [f"Ses{session:02d}{letter}_script{part}" for part in parts for letter in "FM"]
        return ["Ses05M_script01_1b", *names] if session == 5 else names
    numbers = range(1, 8 if session == 1 else 9)  # session 1 has no impro08
    names = [f"Ses{session:02d}{letter}_impro{number:02d}" for number in numbers for letter in "FM"]
    odd = [f"Ses03M_impro{number}" for number in ("05a", "05b", "08a", "08b")]
    return odd + [name for name in names if f"{name}a" not in odd] if session == 3 else names


def allocate(utterances: int) -> dict[tuple[str, str], int]:
    """Return the number of utterances of each (kind, emotion): IEMOCAP's proportions, but enough of every label.

    Each of CLASSES has at least two in both kinds (five from 150 utterances on), every other label at least one.
    """
    rows = {kind: FULL[title] for kind, title in KINDS.items()}
    cells = [(kind, emotion) for kind in rows for emotion in EMOTIONS]
    share = np.array([rows[kind][EMOTIONS.index(emotion)] for kind, emotion in cells], float)
    least = np.zeros(len(cells), int)
    for emotion in EMOTIONS:
        mine = [i for i, cell in enumerate(cells) if cell[1] == emotion]
        if emotion in CLASSES:
            least[mine] = 2 if utterances < 150 else 5
        else:
            least[max(mine, key=lambda i: share[i])] = 1
    wanted = np.maximum(share * utterances / share.sum() - least, 0)
    exact = wanted * (utterances - least.sum()) / wanted.sum()
    counts = least + exact.astype(int)
    for i in np.argsort(exact.astype(int) - exact, kind="stable")[: utterances - counts.sum()]:
        counts[i] += 1
    return dict(zip(cells, counts.tolist(), strict=True))


def _draw_pools(utterances: int, rng: np.random.Generator) -> dict[tuple[int, str], list[tuple[str, str, float]]]:
    """Draw (letter, emotion, seconds) of every utterance of each (session, kind)."""
    pools = defaultdict(list)
    for (kind, emotion), count in allocate(utterances).items():
        first, letter = rng.integers(5), rng.integers(2)
        for i in range(count):
            # five utterances in a row are in five sessions, ten are of ten speakers; each one's first is long enough
            speaker = "FM"[(letter + i % 5 + i // 5) % 2]
            long = emotion in CLASSES and i < 10
            seconds = np.clip(rng.lognormal(np.log(2.55), 0.3), 2.05 if long else 0.7, 7.0)
            pools[int(first + i) % 5 + 1, kind].append((speaker, emotion, float(seconds)))
    return pools


def plan(utterances: int, seed: int) -> list[Turn]:
    """Draw everything but the sound: each utterance's name, dialog, label and duration, dialog by dialog."""
    rng = _generator(seed, 0)
    turns: list[Turn] = []
    for (session, kind), pool in sorted(_draw_pools(utterances, rng).items()):
        names = dialogs(session, kind)
        names = names[: min(len(pool), max(5, len(pool) // 6))]
        order = rng.permutation(len(pool))
        for i, dialog in enumerate(names):
            heard: Counter[str] = Counter()
            for j in order[i :: len(names)]:
                letter, emotion, seconds = pool[j]
                name = f"{dialog}_{letter}{heard[letter]:03d}"
                heard[letter] += 1
                turns.append(Turn(len(turns), session, dialog, letter, name, emotion, seconds))
    return turns


# --- sound -------------------------------------------------------------------------------------------------------


def _voice(seed: int, session: int, letter: str) -> tuple[float, float, Array]:
    """Draw a speaker's pitch (Hz), how much shorter the vocal tract is than a man's, and habits of style."""
    rng = _generator(seed, 1, session, "FM".index(letter))
    pitch, shorter = (200.0, 1.16) if letter == "F" else (115.0, 1.0)
    spread = rng.standard_normal(len(STYLE)) * SPEAKER_SPREAD
    return pitch * 2 ** rng.normal(0, 0.12), shorter * 2 ** rng.normal(0, 0.04), spread


def _style(turn: Turn, habits: Array, rng: np.random.Generator) -> dict[str, float]:
    """Draw how an utterance is spoken. Scripted emotion is weaker, as actors read it; other labels are mixtures."""
    known = [*EMOTION_STYLES]
    mixed = [known[i] for i in rng.choice(len(known), 2, replace=False)]
    names = [turn.emotion] if turn.emotion in known else mixed
    strength = np.clip(rng.normal(1.0 if turn.kind == "impro" else 0.85, 0.3), 0.2, 1.8)
    mean = np.mean([EMOTION_STYLES[name] for name in names], axis=0)
    style = mean * strength + habits + rng.standard_normal(len(STYLE)) * UTTERANCE_SPREAD
    return dict(zip(STYLE, style.tolist(), strict=True))


def _phones(frames: int, style: dict[str, float], rng: np.random.Generator) -> tuple[Array, Array]:
    """Draw for each frame F1, F2, F3 (Hz), voicing and the three noises `(frames, 7)`, and the pitch accent of its
    syllable `(frames,)` from -1 to 1."""
    vowels = np.array([(*formants, 1, 0, 0, 0) for formants in VOWELS.values()], float)
    consonants = np.array([row[:7] for row in CONSONANTS.values()], float)
    lengths = np.array([row[7] for row in CONSONANTS.values()])
    silent = np.array([[500, 1500, 2500, 0, 0, 0, 0]], float)
    table = np.concatenate([vowels, consonants, silent])
    n = frames // 8 + 4  # syllables: more than enough, as they last at least 80 ms on average
    stop = np.array([phone in STOPS for phone in CONSONANTS])
    onset, vowel, coda = rng.integers(len(lengths), size=n), rng.integers(len(VOWELS), size=n), rng.integers(10, size=n)
    accent = rng.choice([-0.4, 0.0, 0.5, 1.0], n) + rng.normal(0, 0.15, n)
    pause = rng.random(n) < np.clip(0.06 + style["pause"], 0.01, 0.25)
    seconds = np.stack(
        [
            np.where(stop[onset], 0.045, 0),
            lengths[onset],
            rng.uniform(0.07, 0.13, n) * (1 + 0.35 * (accent > 0.3)),
            np.where(rng.random(n) < 0.35, lengths[coda], 0),
            np.where(pause, rng.uniform(0.12, 0.4, n), 0),
        ],
        axis=1,
    )
    seconds *= rng.uniform(0.85, 1.15, seconds.shape) * 2 ** -style["rate"]
    rest = np.full(n, len(table) - 1)
    phone = np.stack([rest, len(VOWELS) + onset, vowel, len(VOWELS) + coda, rest], axis=1)
    ends = np.cumsum(seconds.ravel()) * FRAMES
    at = np.minimum(np.searchsorted(ends, np.arange(frames)), ends.size - 1)
    return table[phone.ravel()[at]], np.repeat(accent, 5)[at]


def _smooth(values: Array, width: int) -> Array:
    """Return the Hann-weighted moving average along the first axis, over `width` frames (an odd number)."""
    weights = np.hanning(width + 2)[1:-1]
    weights /= weights.sum()
    edge = [(width // 2, width // 2)] + [(0, 0)] * (values.ndim - 1)
    padded = np.pad(values, edge, mode="edge")
    out = np.zeros_like(values)
    for i, weight in enumerate(weights):
        out += weight * padded[i : i + len(values)]
    return out


def _pitch(accent: Array, base: float, style: dict[str, float], rng: np.random.Generator) -> Array:
    """Return the fundamental frequency of each frame in Hz: accents on a falling line, and a slow drift."""
    frames = len(accent)
    drift = _smooth(rng.standard_normal(frames), 25) * 1.5
    line = 1.2 - 2.4 * np.arange(frames) / max(frames, 1)
    semitones = style["pitch"] + 2 ** style["range"] * (2.2 * _smooth(accent, 13) + line + drift)
    return base * 2 ** (np.clip(semitones, -12, 18) / 12)


def _pulses(pitch: Array, style: dict[str, float], rng: np.random.Generator) -> Array:
    """Return glottal pulses `(frames * HOP,)`, made irregular by jitter (of the period) and shimmer (of strength)."""
    samples = len(pitch) * HOP
    f0 = np.interp(np.arange(samples) / HOP, np.arange(len(pitch)), pitch)
    cycles = np.cumsum(f0) / RATE
    at = np.interp(np.arange(1, int(cycles[-1]) + 1), cycles, np.arange(samples))
    if not len(at):
        return np.zeros(samples)
    period = RATE / f0[at.astype(int)]
    rough = np.clip(0.6 + style["rough"], 0.1, 4) / 100
    at = np.clip(at + rough * period * rng.standard_normal(len(at)), 0, samples - 2)
    strength = np.sqrt(period) * np.clip(1 + 4 * rough * rng.standard_normal(len(at)), 0.2, 2)
    whole = at.astype(int)
    pulses: Array = np.zeros(samples)
    pulses += np.bincount(whole, strength * (1 - at + whole), samples)
    pulses += np.bincount(whole + 1, strength * (at - whole), samples)
    return pulses


def _resonances(formants: Array, shorter: float) -> NDArray[np.complex128]:
    """Return a vocal tract's response `(frames, bins)`: the moving resonances `(frames, 3)` in Hz and two fixed ones.

    Each resonance is a two-pole filter of unit gain at 0 Hz (Klatt 1980).
    """
    delay = np.exp(-2j * np.pi * FREQUENCY / RATE)
    total: NDArray[np.complex128] = np.ones((1, len(FREQUENCY)), complex)
    moving = [(formants[:, i, None], width) for i, width in enumerate((70, 90, 140))]
    fixed = [(np.array([[hertz]], float), width) for hertz, width in ((3500, 200), (4500, 300))]
    for centre, width in fixed + moving:
        radius = np.exp(-np.pi * width / RATE)
        slope = 2 * radius * np.cos(2 * np.pi * np.minimum(centre * shorter, 0.47 * RATE) / RATE)
        total = total * ((1 - slope * delay + radius**2 * delay**2) / (1 - slope + radius**2))
    return 1 / total


def _spectra(signal: Array) -> NDArray[np.complex128]:
    """Return the short-time spectra `(frames, bins)` of a signal `(frames * HOP,)`."""
    padded = np.pad(signal, (0, WINDOW - HOP))
    frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP]
    return np.fft.rfft(frames * np.hanning(WINDOW + 1)[:-1], FFT)


def _overlap_add(spectra: NDArray[np.complex128]) -> Array:
    """Return the signal `(frames * HOP,)` of filtered short-time spectra."""
    blocks = np.fft.irfft(spectra, FFT).reshape(len(spectra), FFT // HOP, HOP)
    out = np.zeros((len(spectra) + FFT // HOP - 1, HOP))
    for i in range(FFT // HOP):
        out[i : i + len(spectra)] += blocks[:, i]
    return out[: len(spectra)].ravel()


def synthesise(turn: Turn, seed: int) -> NDArray[np.int16]:
    """Return an utterance's samples `(N,)` at 16 kHz: a source (pulses, noise) goes through a filter (vocal tract).

    Source-filter model after Fant (1960): pulses and aspiration go through the tract's resonances, frication goes past
    them; a spectral tilt shows the effort, and the room adds noise.
    """
    rng = _generator(seed, 2, turn.number)
    base, shorter, habits = _voice(seed, turn.session, turn.letter)
    style = _style(turn, habits, rng)
    samples = round(turn.seconds * RATE)
    frames = -(-samples // HOP) + 1
    phones, accent = _phones(frames, style, rng)
    edge = rng.integers(6, 18, 2)  # frames of silence before and after
    phones[: edge[0], 3:] = 0
    phones[-edge[1] :, 3:] = 0
    track = _smooth(phones, 7)
    source = _pulses(_pitch(accent, base, style, rng), style, rng)
    noise = rng.standard_normal(frames * HOP)
    voicing = track[:, 3, None] * (1 + 0.25 * _smooth(accent, 13)[:, None])
    tract = voicing * _resonances(track[:, :3] * (1 + style["smile"] / 100), shorter)
    tilt, aspiration, shapes = _colours(style)
    spectra = _spectra(source) * tract * tilt
    # a loud voice also hisses louder, but not in proportion
    frication = sum(gain[:, None] * shape for gain, shape in zip(track[:, 4:].T, shapes, strict=True))
    spectra += _spectra(noise) * (tract * aspiration + 0.25 * 10 ** (style["level"] / 60) * frication)
    return _to_int16(_overlap_add(spectra)[:samples], style["level"], rng)


def _colours(style: dict[str, float]) -> tuple[Array, Array, list[Array]]:
    """Return an utterance's constant gains `(bins,)`: the glottal source's tilt, aspiration, and each of NOISES."""
    octaves = np.log2(np.maximum(FREQUENCY, 50) / 500)
    high_pass = FREQUENCY**2 / (FREQUENCY**2 + 60**2)
    # -12 dB an octave at the glottis, +6 at the lips, and a little for the open mouth
    tilt = 10 ** ((np.clip(style["tilt"], -5, 5) - 7) * octaves / 20) * high_pass
    aspiration = 10 ** ((np.clip(style["breath"], -12, 15) - 2 * octaves - 32) / 20)
    return tilt, aspiration, [np.exp(-0.5 * ((FREQUENCY - centre) / width) ** 2) for centre, width in NOISES.values()]


def _to_int16(speech: Array, level: float, rng: np.random.Generator) -> NDArray[np.int16]:
    """Return speech at `level` - 26 dB of full scale, with the room's noise added."""
    gain = 10 ** ((np.clip(level, -14, 14) - 26) / 20) / np.sqrt(np.mean(speech**2) + 1e-12)
    room = rng.standard_normal(len(speech)) * 10 ** (rng.uniform(-64, -56) / 20)
    return np.round(32767 * np.clip(gain * speech + room, -1, 1)).astype("<i2")


# --- files -------------------------------------------------------------------------------------------------------


def _write_wave(root: Path, seed: int, turn: Turn) -> None:
    file = root / f"Session{turn.session}" / WAVES / turn.dialog / f"{turn.name}.wav"
    with wave.open(str(file), "wb") as w:
        w.setparams((1, 2, RATE, 0, "NONE", ""))
        w.writeframes(synthesise(turn, seed).tobytes())


def _rating(emotion: str, rng: np.random.Generator) -> tuple[float, float, float]:
    drawn = np.clip(np.round((np.array(RATINGS[emotion]) + rng.normal(0, 0.4, 3)) * 4) / 4, 1, 5)
    return float(drawn[0]), float(drawn[1]), float(drawn[2])


def _evaluations(dialog: str, turns: list[Turn], rng: np.random.Generator) -> dict[str, str]:
    """Return texts by path from EmoEvaluation: a dialog's evaluation file, and its file in each subfolder."""
    clock, words, ratings = rng.uniform(1, 8), [], []
    lines = ["% [START_TIME - END_TIME]\tTURN_NAME\tEMOTION\t[V, A, D]", ""]
    for turn in turns:
        v, a, d = _rating(turn.emotion, rng)
        word, scores = WORDS[turn.emotion], "val {:.0f}; act {:.0f}; dom  {:.0f};".format(*np.floor([v, a, d]))
        lines.append(label_line(clock, clock + turn.seconds, turn.name, turn.emotion, (v, a, d)))
        lines += [f"C-{judge}:\t{word};\t()" for judge in ("E1", "E2", f"{turn.letter}1")]
        lines += [f"A-{judge}:\t{scores}\t()" for judge in ("E3", f"{turn.letter}1")] + [""]
        words.append(f"{turn.name} :{word}; :()")
        ratings.append(f"{turn.name} :{scores.replace(';', '; :', 2)} :()")
        clock += turn.seconds + rng.uniform(0.1, 2)
    return {
        f"{dialog}.txt": "\n".join(lines) + "\n",
        f"Categorical/{dialog}_e2_cat.txt": "\n".join(words) + "\n",
        f"Attribute/{dialog}_e3_atr.txt": "\n".join(ratings) + "\n",
        f"Self-evaluation/{dialog}_{turns[0].letter.lower()}1_cat.txt": "\n".join(words) + "\n",
    }


def _write_dialog(root: Path, number: int, turns: list[Turn], seed: int) -> None:
    """Write all of a dialog but its recordings: folders, evaluation files, and what macOS leaves beside them."""
    session, dialog = root / f"Session{turns[0].session}", turns[0].dialog
    audio, labels = session / WAVES / dialog, session / LABELS
    audio.mkdir(parents=True)
    for file, text in _evaluations(dialog, turns, _generator(seed, 3, number)).items():
        (labels / file).parent.mkdir(parents=True, exist_ok=True)
        (labels / file).write_text(text, encoding="utf-8")
    (labels / f"._{dialog}.txt").write_bytes(APPLE_DOUBLE)
    (audio / f"._{turns[0].name}.wav").write_bytes(APPLE_DOUBLE)


def make(out: Path, utterances: int = 300, seed: int = 0, seconds: float | None = None) -> int:
    """Write a synthetic release to `out`, whole or not at all, and return its number of utterances.

    `seconds`, instead of `utterances`, is how much speech there is in all, to within some per cent. The bytes depend
    only on the size and `seed`. Raises UserError if `out` holds anything but an earlier synthetic release, and for
    sizes that cannot be made.
    """
    if seconds is not None:
        utterances = round(min(seconds / MEAN_SECONDS, 2 * MOST)) if seconds > 0 else 0
    if not FEWEST <= utterances <= MOST:
        raise UserError(f"{utterances} utterances cannot be made: from {FEWEST} to {MOST} can (--utterances, --hours)")
    if not 0 <= seed < 2**32:
        raise UserError(f"--seed {seed}: a seed is a whole number from 0 to 4294967295")
    turns = plan(utterances, seed)
    by_dialog = defaultdict(list)
    for turn in turns:
        by_dialog[turn.dialog].append(turn)
    with new_folder(out, SYNTHETIC) as root:
        text = f"Made up by corpora/synthetic.py ({utterances} utterances, seed {seed}): no recordings of people.\n"
        (root / SYNTHETIC).write_text(text, encoding="utf-8")
        for number, dialog in enumerate(sorted(by_dialog)):
            _write_dialog(root, number, by_dialog[dialog], seed)
        for turn in tqdm(turns, "synthetic speech", unit=" utterances", delay=1, disable=None):
            _write_wave(root, seed, turn)
    return utterances


def main() -> None:
    arguments = parser(prog="python -m corpora.synthetic", description=__doc__)
    arguments.add_argument("out", type=Path, metavar="FOLDER", help="the release to make")
    size = arguments.add_mutually_exclusive_group()
    size.add_argument("--utterances", type=int, default=300, metavar="N", help="how many (default: 300)")
    size.add_argument("--hours", type=float, metavar="H", help="how many hours of speech, instead of --utterances")
    arguments.add_argument(
        "--seed", type=int, default=0, metavar="S", help="another one makes another release (default: 0)"
    )
    args = arguments.parse_args()
    seconds = None if args.hours is None else args.hours * 3600
    made = make(args.out, args.utterances, args.seed, seconds)
    print(f"{made} synthetic utterances written to {args.out}")


if __name__ == "__main__":
    run_main(main)
