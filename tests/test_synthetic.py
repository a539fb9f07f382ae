"""The synthetic release: shaped like IEMOCAP, the same bytes each time, neither trivial nor hopeless; and EMO-DB's."""

import sys
import time
import wave
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import data
import handleIEMOCAP as handle
from cli import UserError
from corpora import Utterance, synthetic
from corpora.emodb_as_iemocap import convert
from corpora.synthetic import CLASSES, RATE

ODD = {"Ses03M_impro05a", "Ses03M_impro05b", "Ses03M_impro08a", "Ses03M_impro08b", "Ses05M_script01_1b"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The release at its default size."""
    out = tmp_path_factory.mktemp("default") / "IEMOCAP_full_release"
    started = time.process_time()
    assert synthetic.make(out) == 300
    assert time.process_time() - started < 15
    return out


@pytest.fixture(scope="module")
def utterances(made: Path) -> list[Utterance]:
    found, problems = handle.read(made)
    assert not problems, problems.text()
    return found


def samples(file: str) -> np.ndarray:
    with wave.open(file) as w:
        assert (w.getframerate(), w.getnchannels(), w.getsampwidth(), w.getcomptype()) == (RATE, 1, 2, "NONE")
        return np.frombuffer(w.readframes(w.getnframes()), "<i2") / 32768


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


# --- shape -------------------------------------------------------------------------------------------------------


def test_everything_of_a_release_is_there(made: Path, utterances: list[Utterance]) -> None:
    assert len(utterances) == 300
    assert {u.emotion for u in utterances} == set(handle.EMOTIONS)
    assert {u.speaker for u in utterances} == {f"Ses0{session}{letter}" for session in range(1, 6) for letter in "FM"}
    assert {u.dialog for u in utterances} >= ODD
    assert any(u.dialog[5] != u.name[-4] for u in utterances)  # not the one with the markers speaks
    for session in range(1, 6):
        labels, audio = (made / f"Session{session}" / part for part in (handle.LABELS, handle.WAVES))
        assert list(labels.glob("._*.txt"))
        assert list(audio.glob("*/._*.wav"))
        assert all(list((labels / part).glob("*.txt")) for part in ("Attribute", "Categorical", "Self-evaluation"))
    assert handle.is_synthetic(made) and not handle.is_synthetic(made / "Session1")
    assert data._iemocap(made.parent, ("impro",), "exc").synthetic, "by the folder above it too"
    assert "no recordings of people" in (made / handle.SYNTHETIC).read_text()
    told = handle.report(made, utterances, handle.Problems())
    assert "a synthetic release" in told and "full release" not in told


def test_evaluation_files_are_in_the_official_format(made: Path, utterances: list[Utterance]) -> None:
    lines = (made / "Session3" / handle.LABELS / "Ses03M_impro05a.txt").read_text().split("\n")
    assert lines[0] == "% [START_TIME - END_TIME]\tTURN_NAME\tEMOTION\t[V, A, D]"
    turns = [line.split("\t") for line in lines if line.startswith("[")]
    assert len(turns) == sum(u.dialog == "Ses03M_impro05a" for u in utterances)
    for times, name, emotion, ratings in turns:
        start, end = map(float, times[1:-1].split(" - "))
        (utterance,) = [u for u in utterances if u.name == name]
        assert len(samples(utterance.path)) / RATE == pytest.approx(end - start, abs=2e-4)
        assert utterance.emotion == emotion
        assert all(1 <= float(rating) <= 5 for rating in ratings[1:-1].split(", "))
    assert {line[:2] for line in lines if line} == {"% ", "C-", "A-"} | {f"[{turn[0][1]}" for turn in turns}


def test_proportions_are_the_real_ones_and_durations_serve_both_segments(utterances: list[Utterance]) -> None:
    counts = handle.count(utterances)
    real = np.array([handle.FULL["improvised"], handle.FULL["scripted"]]) * 300 / 10039
    assert np.abs(np.array([counts["improvised"], counts["scripted"]]) - real).max() < 4
    seconds = np.array([len(samples(u.path)) / RATE for u in utterances])
    assert 0.03 < np.mean(seconds < 1.8) < 0.2
    assert np.mean((seconds > 1.5) & (seconds < 4)) > 0.8
    assert np.mean(seconds) == pytest.approx(synthetic.MEAN_SECONDS, rel=0.05)


def test_every_class_is_usable_in_every_kind_session_and_with_most_speakers() -> None:
    for seed in range(5):
        long = [turn for turn in synthetic.plan(300, seed) if turn.seconds >= 2.05]
        for emotion in CLASSES:
            mine = [turn for turn in long if turn.emotion == emotion]
            assert len({(turn.kind, turn.session) for turn in mine}) == 10
            for kind in handle.KINDS:
                assert len({(turn.session, turn.letter) for turn in mine if turn.kind == kind}) >= 7


@settings(max_examples=25, deadline=None)
@given(st.integers(synthetic.FEWEST, 3000), st.integers(0, 2**32 - 1))
def test_plans_of_any_size_are_sound(utterances: int, seed: int) -> None:
    turns = synthetic.plan(utterances, seed)
    assert len(turns) == len({turn.name for turn in turns}) == utterances
    assert [turn.number for turn in turns] == list(range(utterances))
    assert all(handle.OFFICIAL.fullmatch(turn.name) for turn in turns)
    known = {name for session in range(1, 6) for kind in handle.KINDS for name in synthetic.dialogs(session, kind)}
    assert {turn.dialog for turn in turns} <= known
    assert {turn.emotion for turn in turns} == set(handle.EMOTIONS)
    long = Counter((turn.kind, turn.emotion) for turn in turns if turn.seconds >= 2.05)
    assert all(long[kind, emotion] >= 2 for kind in handle.KINDS for emotion in CLASSES)


def test_the_dialogs_are_the_real_ones() -> None:
    dialogs = [synthetic.dialogs(session, kind) for session in range(1, 6) for kind in handle.KINDS]
    every = [name for some in dialogs for name in some]
    assert len(every) == len(set(every)) == 151
    assert [len(some) for some in dialogs] == [14, 14, 16, 14, 18, 14, 16, 14, 16, 15]
    assert set(every) >= ODD
    assert not set(every) & {"Ses03M_impro05", "Ses03M_impro08", "Ses01F_impro08"}


def test_the_largest_release_has_room_for_its_names() -> None:
    turns = synthetic.plan(synthetic.MOST, 0)
    assert max(len(turn.name.rpartition("_")[2]) for turn in turns) == 4


# --- sound -------------------------------------------------------------------------------------------------------


def test_sound_is_speech_like(utterances: list[Utterance]) -> None:
    waves = {u: samples(u.path) for u in utterances}
    assert all(np.abs(w).max() > 0.01 for w in waves.values())
    assert np.mean([np.mean(np.abs(w) > 0.999) for w in waves.values()]) < 1e-3  # hardly ever clipped
    assert all(abs(w.mean()) < 1e-3 for w in waves.values())
    for w in list(waves.values())[:20]:
        power = np.abs(np.fft.rfft(w)) ** 2
        low = power[: len(power) * 4 // 8].sum() / power.sum()
        assert low > 0.7  # most of it under 4 kHz, as in speech
        frames = np.sqrt(np.mean(w[: len(w) // 320 * 320].reshape(-1, 320) ** 2, axis=1))
        assert frames.max() > 20 * np.percentile(frames, 2)  # syllables and silence


def pitch(w: np.ndarray) -> float:
    """Median fundamental frequency in Hz of the frames that are clearly periodic, by autocorrelation."""
    frames = np.lib.stride_tricks.sliding_window_view(w, 800)[::400] * np.hanning(800)
    correlation = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048)) ** 2)
    correlation /= correlation[:, :1] + 1e-9
    lags = correlation[:, 40:240]
    voiced = lags.max(axis=1) > 0.5
    return float(RATE / (40 + np.median(lags[voiced].argmax(axis=1)))) if voiced.any() else np.nan


def test_voices_differ_by_sex_and_emotion(utterances: list[Utterance]) -> None:
    hertz = {u: pitch(samples(u.path)) for u in utterances if u.emotion in CLASSES}
    level = {u: float(np.std(samples(u.path))) for u in hertz}

    women, men = (np.nanmedian([hertz[u] for u in hertz if u.speaker.endswith(letter)]) for letter in "FM")
    assert 160 < women < 300
    assert 90 < men < 160
    by_emotion = {emotion: np.median([level[u] for u in level if u.emotion == emotion]) for emotion in CLASSES}
    assert by_emotion["ang"] > by_emotion["neu"] > by_emotion["sad"]


def test_classes_overlap_but_can_be_learnt(utterances: list[Utterance]) -> None:
    librosa = pytest.importorskip("librosa")
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import recall_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    four = [u for u in utterances if u.emotion in CLASSES]
    mfcc = [librosa.feature.mfcc(y=samples(u.path), sr=RATE, n_mfcc=26) for u in four]
    x = np.array([np.concatenate([m.mean(axis=1), m.std(axis=1)]) for m in mfcc])
    y = np.array([u.emotion for u in four])
    recalls = []
    for seed in range(20):
        order = np.random.default_rng(seed).permutation(len(y))
        train, test = order[: len(y) * 4 // 5], order[len(y) * 4 // 5 :]
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, class_weight="balanced", max_iter=2000))
        guessed = model.fit(x[train], y[train]).predict(x[test])
        recalls.append(recall_score(y[test], guessed, average="macro", zero_division=0))
    assert 0.5 < np.mean(recalls) < 0.85


# --- files -------------------------------------------------------------------------------------------------------


def test_the_same_bytes_for_the_same_seed_however_made(tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        synthetic.make(tmp_path / name, 40, seed)
    one, again, other = (contents(tmp_path / name) for name in ("one", "again", "other"))
    assert one == again
    assert one != other
    sounds = [data for name, data in one.items() if name.endswith(".wav") and "._" not in name]
    assert len(set(sounds)) == len(sounds) == 40


def test_seconds_instead_of_utterances(tmp_path: Path) -> None:
    made = synthetic.make(tmp_path / "release", seconds=200)
    found = handle.read(tmp_path / "release")[0]
    assert len(found) == made
    total = sum(len(samples(u.path)) for u in found) / RATE
    assert total == pytest.approx(200, rel=0.15)


def test_a_folder_of_others_is_refused_and_an_own_one_replaced(tmp_path: Path) -> None:
    out = tmp_path / "release"
    out.mkdir()
    synthetic.make(out, 23)  # an empty one is taken
    synthetic.make(out, 24)
    assert len(handle.read(out)[0]) == 24
    (out / handle.SYNTHETIC).unlink()
    before = contents(out)
    with pytest.raises(UserError, match=f"{out} is not empty"):
        synthetic.make(out, 23)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        synthetic.make(tmp_path / "file", 23)
    with pytest.raises(UserError, match="cannot be made"):
        synthetic.make(tmp_path / "file" / "release", 23)
    assert contents(out) == before
    assert names(tmp_path) == ["file", "release"]


def test_nothing_is_left_of_an_interrupted_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.make(tmp_path / "release", 23)
    before, write, written = contents(tmp_path / "release"), synthetic._write_wave, []

    def until_the_third(*words: Any) -> None:
        written.append(write(*words))
        if len(written) % 3 == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(synthetic, "_write_wave", until_the_third)
    for out in ("release", "new"):
        with pytest.raises(KeyboardInterrupt):
            synthetic.make(tmp_path / out, 24)
    assert contents(tmp_path / "release") == before
    assert names(tmp_path) == ["release"]


@pytest.mark.parametrize("size", [{"utterances": 22}, {"utterances": 10**9}, {"seconds": 0}, {"seconds": float("nan")},
                                  {"seconds": float("inf")}, {"seed": -1}, {"seed": 2**32}])  # fmt: skip
def test_sizes_and_seeds_that_cannot_be(tmp_path: Path, size: dict) -> None:
    with pytest.raises(UserError):
        synthetic.make(tmp_path / "release", **size)
    assert not names(tmp_path)


def test_command(tmp_path: Path, command) -> None:
    run = (sys.executable, "-m", "corpora.synthetic")
    assert "30 synthetic utterances" in command(*run, tmp_path / "a", "--utterances", 30, "--seed", 5).stdout
    synthetic.make(tmp_path / "b", 30, seed=5)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    for wrong in ("--utterances 5", "--hours nan", "--utterances x", "--hours 1 --utterances 9", "--utt 9"):
        command(*run, tmp_path / "c", *wrong.split(), status=2)
    command(*run, tmp_path, status=2)
    assert "--hours 20" in command(*run, "--help").stdout


# --- EMO-DB ------------------------------------------------------------------------------------------------------


def silence(file: Path, frames: int) -> None:
    with wave.open(str(file), "wb") as w:
        w.setparams((1, 2, RATE, 0, "NONE", ""))
        w.writeframes(bytes(2 * frames))


def test_emodb_becomes_a_release(tmp_path: Path) -> None:
    emodb, out = tmp_path / "wav", tmp_path / "deep" / "release"
    emodb.mkdir()
    for name in ("08a01Na", "08a01Wa", "03a01Fa", "16b10Tb", "15b04Ec", "._08a01Na"):
        silence(emodb / f"{name}.wav", 16000)
    assert convert(emodb, out) == (5, 4)
    found, problems = handle.read(out)
    assert not problems
    assert [(u.name, u.speaker, u.emotion) for u in found] == [
        ("Ses01F_impro01_F000", "Ses01F", "neu"),
        ("Ses01F_impro01_F001", "Ses01F", "ang"),
        ("Ses01M_impro01_M000", "Ses01M", "exc"),
        ("Ses05F_script01_4_F000", "Ses05F", "sad"),
        ("Ses05M_script01_2_M000", "Ses05M", "dis"),
    ]
    assert len({Path(u.path).read_bytes() for u in found}) == 1


@pytest.mark.parametrize("wrong", ["missing", "empty", "stranger", "not a wave", "full"])
def test_emodb_errors_are_sentences_and_leave_nothing(tmp_path: Path, command, wrong: str) -> None:
    emodb, out = tmp_path / "wav", tmp_path / "release"
    if wrong != "missing":
        emodb.mkdir()
    if wrong == "stranger":
        silence(emodb / "03a01Fa.wav", 16)
        silence(emodb / "1001_DFA_ANG_XX.wav", 16)
    elif wrong == "not a wave":
        (emodb / "03a01Fa.wav").write_text("RIFF")
    elif wrong == "full":
        silence(emodb / "03a01Fa.wav", 16)
        out.mkdir()
        (out / "mine").write_text("")
    before = names(tmp_path)
    done = command(sys.executable, "-m", "corpora.emodb_as_iemocap", emodb, out, status=2)
    assert done.stderr.startswith("error: ")
    assert str(out if wrong == "full" else emodb) in done.stderr
    assert names(tmp_path) == before


def test_emodb_whole(emodb: Path, emodb_iemocap: Path) -> None:
    found, problems = handle.read(emodb_iemocap)
    assert not problems
    assert len(found) == len(list(emodb.glob("*.wav"))) == 535
    counts = {"neu": 79, "sad": 62, "ang": 127, "exc": 71, "fru": 81, "fea": 69, "dis": 46}
    assert Counter(u.emotion for u in found) == counts
    assert len({u.dialog for u in found}) == 100
    assert sorted(Path(u.path).stat().st_size for u in found) == sorted(f.stat().st_size for f in emodb.glob("*.wav"))
