"""Splits that do not leak, whichever is added to the registry, and the tensors a run trains on."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import audio
import data
import features
import flags
import handleIEMOCAP
import loops
import path
import recipes
import workers
from cli import UserError
from corpora import Utterance, synthetic
from data import Foreign

SEED = 987654


def made_up(sessions: int = 5, dialogs: int = 4, turns: int = 3, foreign: int = 0) -> list[Utterance]:
    """Utterances as IEMOCAP names them, in order; the last ones of another corpus."""
    found = []
    for s in range(1, sessions + 1):
        for g in "FM":
            for d in range(1, dialogs + 1):
                for part in ("a", "b"):
                    dialog = f"Ses{s:02d}{g}_impro{d:02d}{part}"
                    found += [Utterance(f"{dialog}_{g}{t:03d}", f"/x/{dialog}_{g}{t:03d}.wav", f"{s:02d}{g}", str(s),
                                        dialog, "impro", "neu") for t in range(turns)]  # fmt: skip
    return found + [Foreign(f"f{i}", f"/y/f{i}.wav", f"who{i % 3}", "", "", "", "neu") for i in range(foreign)]


def of_split(name: str, whole: list[Utterance]) -> list[Utterance]:
    """A list that the split can divide: `cross` needs a second corpus, which others must not have, `given` parts."""
    if name == "given":
        return [replace(u, split=("train", "dev", "TEST")[i % 3]) for i, u in enumerate(whole)]
    return whole + made_up(0, foreign=9) if name == "cross" else whole


def divide(name: str, whole: list[Utterance], seed: int = SEED) -> list[data.Parts]:
    """All folds."""
    split = data.SPLITS[name]
    folds = range(split.folds(whole)) if split.folds else [None]
    return [split(whole, seed, fold) for fold in folds]


def values(whole: list[Utterance], rows, what: str) -> set[str]:
    return {data.scenario(whole[i]) if what == "dialog" else getattr(whole[i], what) for i in rows}


APART = {"session": "session", "speaker": "speaker", "dialog": "dialog", "cross": "speaker"}  # what no two parts share


def check_no_leak(name: str, whole: list[Utterance], seed: int = SEED) -> None:
    rounds = divide(name, whole, seed)
    for parts in rounds:
        lists = [rows for rows in (parts.train, parts.val, parts.test) if rows is not None]
        assert (parts.val is not None) == data.SPLITS[name].has_validation
        everything = np.concatenate(lists)
        assert all(len(rows) for rows in lists) and len(set(everything)) == len(everything)
        assert set(everything) == set(range(len(whole)))
        for rows in lists[1:]:
            assert (np.diff(rows) > 0).all()
        if name in APART:
            sides = [values(whole, rows, APART[name]) for rows in lists]
            assert sum(map(len, sides)) == len(set.union(*sides))
    if data.SPLITS[name].folds:
        tested = np.concatenate([parts.test for parts in rounds])
        assert sorted(tested) == list(range(len(whole)))


# ----------------------------------------------------------------------------------------------- the splits


@pytest.mark.parametrize("name", data.SPLITS)
def test_no_utterance_speaker_or_scene_is_on_two_sides(name):
    check_no_leak(name, of_split(name, made_up()))


@pytest.mark.parametrize("name", data.SPLITS)
@pytest.mark.parametrize("dataset", ["impro", "script", "all"])
@pytest.mark.parametrize("release", ["small_release", "emodb_iemocap"])
def test_no_leak_in_a_release(name, dataset, release, here, monkeypatch, request):
    monkeypatch.setattr(path, "IEMOCAP", request.getfixturevalue(release))
    check_no_leak(name, of_split(name, list(data.corpus(dataset).utterances)), seed=1)


@st.composite
def corpora(draw):
    """Utterances in any order, of speakers in sessions of two (or in none), with any dialogs."""
    speakers = draw(st.integers(3, 8))
    in_sessions = draw(st.booleans()) and speakers >= 6
    rows = draw(st.lists(st.tuples(st.integers(0, speakers - 1), st.integers(0, 9)), min_size=12, max_size=80))
    rows += [(s, s) for s in range(speakers)]
    return [
        Utterance(f"u{i}", f"/x/u{i}.wav", f"s{s}", str(s // 2) if in_sessions else "", f"d{d}", "", "e")
        for i, (s, d) in enumerate(rows)
    ]


@pytest.mark.parametrize("name", data.SPLITS)
@given(whole=corpora(), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=60)
def test_no_leak_in_any_corpus(name, whole, seed):
    if name in ("session", "superb") and whole[0].session == "":
        with pytest.raises(UserError, match=f"--split {name}: of .* have no session"):
            divide(name, whole, seed)
    else:
        check_no_leak(name, of_split(name, whole), seed)


@pytest.mark.parametrize("seed", [1, SEED])
def test_superb_trains_on_all_sessions_but_the_one_tested(seed):
    """Yang et al., Interspeech 2021: of the other four a fifth is validation, drawn by seed."""
    whole, drawn = made_up(), {}
    for fold, parts in enumerate(divide("superb", whole, seed)):
        (session,) = values(whole, parts.test, "session")
        heard = np.concatenate([parts.train, parts.val])
        assert session == str(fold + 1) and session not in values(whole, heard, "session")
        assert not values(whole, parts.test, "speaker") & values(whole, heard, "speaker")
        assert len(parts.val) == round(len(heard) / 5) and len(values(whole, parts.val, "session")) == 4
        drawn[fold] = parts.val
    other = data.SPLITS["superb"](whole, seed + 1, 0)
    assert other.test.tolist() == divide("superb", whole, seed)[0].test.tolist()
    assert other.val.tolist() != drawn[0].tolist()


def test_sessions_whose_speakers_are_not_known_are_told(capsys):
    data.SPLITS["session"](made_up(), 1, 0)
    assert not capsys.readouterr().err
    whole = [replace(u, speaker="") if u.session in "23" else u for u in made_up()]
    data.SPLITS["session"](whole, 1, 0)
    assert "96 of 240 utterances have no speaker: whether a session left out is one of unheard speakers" in (
        capsys.readouterr().err
    )


def test_speaker_is_validated_on_the_sessions_other_speaker():
    whole = made_up()
    for parts in divide("speaker", whole):
        (test,), (val,) = values(whole, parts.test, "speaker"), values(whole, parts.val, "speaker")
        assert test[:2] == val[:2] and test != val


@pytest.mark.parametrize("session", ["", "of ten"])
def test_speaker_without_sessions_of_two_is_validated_on_the_next_speaker(session):
    whole = [replace(u, session=session) for u in made_up()]
    speakers = sorted({u.speaker for u in whole})
    rounds = [(values(whole, p.test, "speaker"), values(whole, p.val, "speaker")) for p in divide("speaker", whole)]
    assert rounds == [({a}, {b}) for a, b in zip(speakers, speakers[1:] + speakers[:1], strict=True)]


def test_one_scene_of_two_parts_is_one_scenario():
    for dialog, scenario in (("Ses03M_impro05a", "impro05"), ("Ses03F_impro05b", "impro05"), ("b10", "b10"),
                             ("Ses05M_script01_1b", "script01_1"), ("Ses01F_script03_2", "script03_2")):  # fmt: skip
        assert data.scenario(Utterance("", "", "", "", dialog, "", "")) == scenario


def test_a_tenth_of_the_scenarios_is_the_nearest_number():
    whole = made_up(dialogs=16)
    parts = data.SPLITS["dialog"](whole, 1)
    assert [len(values(whole, rows, "dialog")) for rows in (parts.train, parts.val, parts.test)] == [12, 2, 2]


def test_given_parts_go_by_any_usual_name():
    for names in (("Training", "DEV", "Test"), ("train", "development", "TEST"), ("train", "valid", "test"),
                  ("train", "validation", "test"), ("train", "val", "test")):  # fmt: skip
        whole = [replace(u, split=names[i % 3]) for i, u in enumerate(made_up())]
        (parts,) = divide("given", whole)
        assert [rows[:2].tolist() for rows in (parts.train, parts.val, parts.test)] == [[0, 3], [1, 4], [2, 5]], names


def test_shares_of_the_parts():
    whole = made_up()  # 240
    assert [len(rows) for rows in (divide("8:2", whole)[0].train, divide("8:2", whole)[0].test)] == [192, 48]
    parts = divide("8:1:1", whole)[0]
    assert [len(rows) for rows in (parts.train, parts.val, parts.test)] == [192, 24, 24]


@given(n=st.integers(10, 400), seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=100)
def test_8_1_1_trains_on_the_same_in_the_same_order_as_8_2_and_halves_its_test(n, seed):
    whole = made_up(0, foreign=n)
    (two,), (three,) = divide("8:2", whole, seed), divide("8:1:1", whole, seed)
    assert two.train.tolist() == three.train.tolist()
    assert sorted([*three.val, *three.test]) == two.test.tolist()
    val, test = data.halve(len(two.test), seed)
    assert (two.test[val].tolist(), two.test[test].tolist()) == (three.val.tolist(), three.test.tolist())
    expected = np.random.RandomState(seed).choice(range(n), int(n * 0.8), replace=False)  # as published
    assert two.train.tolist() == expected.tolist()


def test_8_2_is_the_published_split(golden, emodb_iemocap, shared_cache, monkeypatch):
    monkeypatch.setattr(path, "IEMOCAP", emodb_iemocap)
    monkeypatch.setattr(path, "CACHE", shared_cache)
    data.forget()
    expected = golden["split"]
    d = data.load(recipes.config_for("GLAM", dataset=expected["dataset"], seed=expected["seed"]))
    whole = d.corpus.utterances
    assert len(whole) == expected["n"]
    parts = data.SPLITS["8:2"](whole, expected["seed"])
    assert [whole[i].name for i in parts.train] == expected["train"]
    assert [whole[i].name for i in parts.test] == expected["test"]


DIGESTS = {
    "8:2": "ff47d5e75385bc7af79f921c0e823c2e",
    "8:1:1": "c9510f07f1d58a42aba37e0200eca497",
    "session": "0f38f41d1c8fa14475c2a77cca634509",
    "speaker": "25808b451ca120abf8c0ace44430f7b3",
    "dialog": "e0aa0fa7946e11c97022f88c327b48a1",
    "cross": "b08f4a0390c6f77947f56623a99c4fc6",
    "given": "69fc744fb386815145fbeb6ca061dff8",
}


@pytest.mark.parametrize("name", DIGESTS)
def test_digests_are_those_of_the_first_version(name):
    """A seed means the same utterances for ever: published runs could not be compared with otherwise."""
    whole = of_split(name, made_up())
    assert data.split_record(whole, divide(name, whole)[0])["digest"] == DIGESTS[name]


@pytest.mark.parametrize("name", ["8:2", "8:1:1", "dialog", "cross"])
def test_seeds_give_different_splits(name):
    whole = of_split(name, made_up())
    assert len({data.split_record(whole, divide(name, whole, seed)[0])["digest"] for seed in range(5)}) > 2


@pytest.mark.parametrize(
    ("name", "whole", "fault"),
    [
        ("8:2", made_up()[:1], "8:2: 1 utterances are too few: the training part is empty"),
        ("8:1:1", made_up()[:4], "too few: the validation part is empty"),
        (
            "session",
            made_up(2),
            "needs at least 3 sessions; this corpus has 1, 2 alone \\(in utterances as long as a segment",
        ),
        ("session", [replace(u, speaker="s1") for u in made_up()], "the speaker s1 is in the sessions 1 and 2"),
        ("speaker", made_up(1), "needs at least 3 speakers; this corpus has 01F, 01M alone"),
        ("speaker", [replace(made_up()[0], speaker=""), *made_up()[1:]], "of 240 utterances 1 have no speaker"),
        ("dialog", made_up(dialogs=1), "needs at least 3 scenarios; this corpus has impro01 alone"),
        ("dialog", [replace(u, dialog="") for u in made_up()], "have no dialog"),
        ("given", made_up(), r"of 240 utterances, 240 name no part, such as Ses01F_impro01a_F000 \(''\)"),
        ("given", [replace(u, split="train") for u in made_up()], "no utterance is in the part val"),
        ("cross", made_up(), "name it with --test"),
        ("cross", made_up()[:1] + made_up(0, foreign=3), "the training part is empty"),
    ],
)
def test_too_small_a_corpus_is_told_in_words(name, whole, fault):
    with pytest.raises(UserError, match=fault):
        divide(name, whole)


def test_folds_and_names_that_are_not_there_are_told_in_words():
    with pytest.raises(UserError, match="the split 8:2 has no folds"):
        data.SPLITS["8:2"](made_up(), 1, 0)
    for fold in (None, 5, -1):
        with pytest.raises(UserError, match="the split session has the folds 0 to 4"):
            data.SPLITS["session"](made_up(), 1, fold)
    choices = "8:2, 8:1:1, session, superb, speaker, dialog, given, cross"
    with pytest.raises(UserError, match=f"--split 9:1: choose one of {choices}"):
        data.split_by_name("9:1")


def test_cross_validates_on_speakers_that_are_not_trained_on():
    whole = made_up(sessions=15, dialogs=1) + made_up(0, foreign=30)  # 30 speakers
    (parts,) = divide("cross", whole)
    assert len(values(whole, parts.val, "speaker")) == 3
    assert {whole[i].name for i in parts.test} == {f"f{i}" for i in range(30)}


@pytest.mark.parametrize("speaker", ["", "the only one"])
def test_cross_without_speakers_validates_on_a_tenth_of_the_utterances(speaker):
    whole = [replace(u, speaker=speaker) for u in made_up()] + made_up(0, foreign=30)
    (parts,) = divide("cross", whole)
    assert (len(parts.train), len(parts.val), len(parts.test)) == (216, 24, 30)


# ------------------------------------------------------------------------------------------------- tensors


def write(file: Path, seconds: float, seed: int = 0) -> None:
    soundfile.write(file, np.random.default_rng(seed).normal(0, 0.1, int(16000 * seconds)), 16000)


@pytest.fixture
def five(tmp_path, monkeypatch):
    """A CSV of five recordings of 0.5 to 2.5 s, of two classes; and a configuration of segments of 1 s."""
    rows = []
    for i in range(1, 6):
        write(tmp_path / f"{i}.wav", i / 2, i)
        rows.append(f"{i}.wav,{'ab'[i % 2]},s{i}")
    (tmp_path / "five.csv").write_text("\n".join(["path,emotion,speaker", *rows]))
    monkeypatch.setattr(path, "CACHE", tmp_path / "cache")
    data.forget()
    return recipes.config_for(
        "CNN_GAP", dataset=str(tmp_path / "five.csv"), segment_length=1.0, train_overlap=0.5, test_overlap=0.75
    )


def test_much_that_is_too_short_is_told(five, capsys):
    data.load(five)
    assert "shorter" not in capsys.readouterr().err  # one of five is not worth a word
    data.load(replace(five, segment_length=1.2))
    assert "2 of 5 utterances are shorter than 1.2 s and are left out: --padding keeps them" in capsys.readouterr().err


def test_a_feature_of_another_shape_is_refused_in_words(five, monkeypatch):
    for name, axes in (("means", (2,)), ("stereo", (2, 3, 4))):
        monkeypatch.setitem(features.FEATURES, name, lambda x, axes=axes: torch.zeros(len(x), *axes))
    with pytest.raises(UserError, match=r"--feature means gives \(S, 2\) for S segments, .* gives \(S, F, T\)"):
        data.load(replace(five, feature="means"))
    with pytest.raises(UserError, match=r"--feature stereo gives \(S, 2, 3, 4\)"):
        data.load(replace(five, feature="stereo"))


def test_a_release_with_other_usable_utterances_than_published_is_told(here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(handleIEMOCAP, "is_synthetic", lambda release: False)
    monkeypatch.setattr(handleIEMOCAP, "FULL_TOTAL", len(handleIEMOCAP.index(path.IEMOCAP)))
    for i, emotion in enumerate(("sad", "angry")):
        write(tmp_path / f"{emotion}.wav", 2, i)
    (tmp_path / "own.csv").write_text("path,emotion\nsad.wav,sad\nangry.wav,angry\n")
    test = {"test_dataset": str(tmp_path / "own.csv"), "split": "cross"}
    for other in ({"segment_length": 2.0}, {"happy": "hap"}, {"classes": ("sad", "angry")}, {"padding": True}, test):
        data.load(recipes.config_for("GLAM", **other))
    assert "full release" not in capsys.readouterr().err  # whose number counts other utterances
    usable = len(data.load(recipes.config_for("GLAM")).corpus.utterances)
    assert f"impro has {usable} utterances of at least 1.8 s, the full release has 2236" in capsys.readouterr().err
    monkeypatch.setitem(handleIEMOCAP.USABLE, "impro", usable)
    data.forget()
    data.load(recipes.config_for("GLAM"))
    assert "full release" not in capsys.readouterr().err


def test_a_release_that_is_not_complete_is_told(here, monkeypatch, capsys):
    monkeypatch.setattr(handleIEMOCAP, "is_synthetic", lambda release: False)
    d = data.load(recipes.config_for("GLAM"))
    told = capsys.readouterr().err
    assert f"{path.IEMOCAP} is not the complete release of IEMOCAP" in told and d.corpus.name in told
    assert f"impro has {len(d.corpus.utterances)} utterances of at least 1.8 s" in told
    assert "IEMOCAP release licence" in d.corpus.licence


def test_a_recording_that_is_there_twice_is_told(five, tmp_path, capsys):
    data.load(five)
    assert "more than once" not in capsys.readouterr().err
    rows = Path(five.dataset).read_text().split("\n")
    for i, name in ((3, "copy"), (4, "again")):
        shutil.copy(tmp_path / f"{i}.wav", tmp_path / f"{name}.wav")
        rows.append(f"{name}.wav,{'ab'[i % 2]},s{i}")
        (tmp_path / f"{name}.csv").write_text("\n".join(rows))
        write(tmp_path / f"test{i}.wav", 1, 10 + i)
    (tmp_path / "test.csv").write_text("path,emotion\ntest3.wav,a\ntest4.wav,b\n")
    one = replace(five, dataset=str(tmp_path / "copy.csv"))
    twice = "1 recording is there more than once under other names, as 3.wav and copy.wav"
    data.load(one)
    assert f"copy.csv: {twice}: what was trained on may be tested on" in capsys.readouterr().err
    data.load(replace(five, dataset=str(tmp_path / "again.csv")))
    assert "again.csv: 2 recordings are there more than once" in capsys.readouterr().err
    data.load(replace(one, split="cross", test_dataset=str(tmp_path / "test.csv")))
    told = capsys.readouterr().err
    assert "warning: 1 recording is there more than once" in told and told.endswith("copy.wav: they count twice\n")


def test_classes_that_a_part_lacks_are_told_with_the_fold(five, capsys):
    parts = data.Parts(np.array([0, 2]), None, np.array([1, 3]))
    data.check_parts(data.load(five), parts, replace(five, split="speaker", fold=1))
    told = capsys.readouterr().err
    assert "--split speaker, fold 1: the training part has no utterance of b" in told
    assert "--split speaker, fold 1: the test part has no utterance of a" in told


def test_a_csv_called_iemocap_is_no_release(five, tmp_path, capsys):
    shutil.copy(five.dataset, tmp_path / "IEMOCAP.csv")
    d = data.load(recipes.config_for("GLAM", dataset=str(tmp_path / "IEMOCAP.csv")))
    assert d.corpus.name == "IEMOCAP" and "release" not in capsys.readouterr().err


def test_a_home_folder_in_path_py(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("EMODB", "~/emodb/wav")
    assert path._folder("EMODB", "emodb") == Path("/home/me/emodb/wav")
    assert path._folder("NOT_SET", "~/there") == Path("/home/me/there")
    assert path._folder("NOT_SET", "there") == path.ROOT / "there"
    monkeypatch.setenv("EMODB", "")
    assert path._folder("EMODB", "there") == path.ROOT / "there", "a variable that is empty is none"


def test_load_gives_segments_at_both_overlaps_and_leaves_short_ones_out(five):
    d = data.load(five)
    assert [u.name for u in d.corpus.utterances] == ["2.wav", "3.wav", "4.wav", "5.wav"]
    assert (d.dropped, d.bad) == (("1.wav",), ())
    assert d.corpus.labels.tolist() == [0, 1, 0, 1]
    assert d.train.counts.tolist() == [1, 2, 3, 4] and d.test.counts.tolist() == [1, 3, 5, 7]
    assert d.shape == d.test.x.shape[1:] == (26, 32)
    rows, owner = d.test.rows(np.array([2, 0]))
    assert owner.tolist() == [0, 0, 0, 0, 0, 1]
    wave = audio.load_audio(d.corpus.utterances[2].path)
    expected = features.extract("mfcc", features.segment(wave, 1, 0.75))
    np.testing.assert_allclose(d.test.x[rows[:5]], expected, atol=1e-4)


def test_padding_keeps_short_ones(five):
    d = data.load(replace(five, padding=True))
    assert d.dropped == () and d.train.counts.tolist() == [1, 1, 2, 3, 4]


def test_broken_recordings_stop_a_run_or_are_counted(five):
    Path(five.dataset).with_name("4.wav").write_bytes(b"no audio")
    data.forget()
    with pytest.raises(
        UserError, match=r"1 recording cannot be used; --skip_bad leaves such recordings out:\n.*4\.wav"
    ):
        data.load(five)
    d = data.load(five, skip_bad=True)
    assert [name for name, _ in d.bad] == ["4.wav"] and d.dropped == ("1.wav",)
    assert [u.name for u in d.corpus.utterances] == ["2.wav", "3.wav", "5.wav"]


def test_a_class_without_a_usable_utterance_is_told_in_words(five):
    with pytest.raises(UserError, match=r"no usable utterance of the class a .at least 2\.2 s long; --padding"):
        data.load(replace(five, segment_length=2.2, test_overlap=0.0))


def test_a_class_without_any_recording_is_no_matter_of_length(tmp_path, monkeypatch):
    root = tmp_path / "release"
    synthetic.make(root, 60)
    for utterance in handleIEMOCAP.read(root)[0]:
        if utterance.emotion == "sad":
            Path(utterance.path).unlink()
    monkeypatch.setattr(path, "IEMOCAP", root)
    monkeypatch.setattr(path, "CACHE", tmp_path / "cache")
    data.forget()
    with pytest.raises(UserError, match=r"^all has no utterance of the class sad; --classes picks classes$"):
        data.load(recipes.config_for("CNN_GAP", dataset="all", device="cpu"))


def test_an_overlap_that_is_not_shorter_than_the_segment_is_halved_and_said_so(five, capsys):
    lengths = {"segment_length": 1.0, "train_overlap": 0.5, "test_overlap": 1.6}
    config = recipes.config_for("CNN_GAP", dataset=five.dataset, **lengths)
    assert "warning: --test_overlap 1.6 is not shorter than the segment: 0.5 s is used" in capsys.readouterr().err
    assert config.settings()["test_overlap"] == 0.5, "as it is recorded"
    assert (d := data.load(config)).test is d.train  # 0.5 s is the training overlap


def test_load_is_made_anew_after_forget_alone(five):
    first = data.load(five)
    assert data.load(five) is first
    write(Path(five.dataset).with_name("5.wav"), 1)
    assert data.load(five) is first
    data.forget()
    assert data.load(five).digest != first.digest


def test_runs_share_data_where_all_that_shapes_it_is_equal_and_nowhere_else(five, monkeypatch):
    monkeypatch.setattr(data, "_load", lambda config, skip_bad: config)  # returns the settings that data is kept by
    same = {"model": "GLAM", "seed": 1, "split": "8:1:1", "epochs": 1, "batch_size": 8, "augment": "vtlp"}
    other = {"dataset": "other.csv", "test_dataset": "test.csv", "happy": "hap", "classes": ("a", "b"),
             "feature": "fbank", "n_mfcc": 13, "segment_length": 1.5, "train_overlap": 0.25, "test_overlap": 0.25,
             "padding": True, "device": "cuda"}  # fmt: skip
    assert data.load(replace(five, **same)) == data.load(five)
    for name, value in other.items():
        assert data.load(replace(five, **{name: value})) != data.load(five), name


def test_unknown_names_list_the_choices(five):
    with pytest.raises(UserError, match="dataset nowhere: choose one of impro, script, all, demo, cremad, emodb"):
        data.corpus("nowhere")


# --------------------------------------------------------------------------------------------- augmentation


def test_upsampling_fills_every_class_up_from_the_training_utterances():
    labels = np.repeat([0, 1, 2], [10, 3, 60])
    chosen = np.array([0, 5, 10, 11, 12, 20, 30, 40, 50, 60, 70])
    more = data.upsample(chosen, labels, 1)
    assert more[: len(chosen)].tolist() == chosen.tolist()  # then copies
    assert Counter(labels[more]) == {0: 6, 1: 6, 2: 6} and set(more) == set(chosen)
    assert more.tolist() == data.upsample(chosen, labels, 1).tolist() != data.upsample(chosen, labels, 2).tolist()
    assert more[len(chosen) :].tolist() == [0, 0, 0, 0, 10, 11, 12]  # a seed means the same copies for ever


def test_settings_of_a_corpus_and_its_features_reach_them(here):
    found = {happy: data.corpus("all", happy) for happy in ("exc", "hap", "hap+exc")}
    counts = {happy: Counter(u.emotion for u in c.utterances) for happy, c in found.items()}
    assert counts["hap+exc"]["hap"] > 0 < counts["hap+exc"]["exc"]
    assert (counts["exc"]["hap"], counts["hap"]["exc"]) == (0, 0)
    assert data.load(recipes.config_for("GLAM", dataset="all", n_mfcc=13)).shape[0] == 13
    assert data.load(recipes.config_for("GLAM", dataset="all", feature="fbank")).shape != (26, 57)


def test_what_a_killed_process_left_of_the_demo_corpus_is_removed(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(path, "CACHE", tmp_path)
    stale = tmp_path / f".synthetic-{synthetic.VERSION}.1.tmp" / "Session1"
    stale.mkdir(parents=True)
    make = synthetic.make
    monkeypatch.setattr(synthetic, "make", lambda root: make(root, 60))
    data.corpus("demo")
    assert not stale.exists()


@pytest.mark.parametrize("dataset", ["impro", "script", "all", "demo"])
def test_happy_is_what_is_asked_for_in_each_half(dataset, here, small_release, tmp_path, monkeypatch):
    monkeypatch.setattr(path, "CACHE", tmp_path)
    (tmp_path / f"synthetic-{synthetic.VERSION}").symlink_to(small_release)
    kinds = {dataset} if dataset in ("impro", "script") else {"impro", "script"}
    for happy in recipes.HAPPY:
        utterances = data.corpus(dataset, happy).utterances
        assert {u.kind for u in utterances} == kinds
        assert {u.emotion for u in utterances} == {"neu", "sad", "ang", *happy.split("+")}


def test_loss_weights_are_one_less_a_classes_share():
    labels = torch.tensor([0, 0, 0, 1])
    part = loops.Part(torch.zeros(4, 1, 1), torch.arange(4), np.arange(4), labels, np.arange(4))
    assert loops.loss_weights(part, 3).tolist() == [0.25, 0.75, 1.0]
    with pytest.raises(UserError, match="--class_weights: the training part has one class alone"):
        loops.loss_weights(replace(part, labels=torch.ones(4, dtype=torch.int64)), 3)


def test_vtlp_adds_one_copy_of_each_training_utterance(five, monkeypatch):
    d, chosen = data.load(five), np.array([3, 1])
    heard = []
    monkeypatch.setattr(audio, "load_audio", lambda file, load=audio.load_audio: heard.append(file) or load(file))
    x, labels = data.warped(d, chosen, five)
    assert [Path(file).name for file in heard] == ["5.wav", "3.wav"]  # and never a test utterance
    assert len(x) == len(labels) == 4 + 2 and labels.tolist() == [1] * 6
    originals = d.train.x[d.train.rows(chosen)[0]]
    assert x.shape == originals.shape and np.isfinite(x).all() and (np.abs(x - originals).mean((1, 2)) > 0.1).all()
    padded = replace(five, padding=True)
    assert len(data.warped(data.load(padded), np.array([0]), padded)[0]) == 1  # of 0.5 s


def test_vtlp_is_decided_by_the_seed_and_the_utterances_name(five):
    d = data.load(five)
    one, again, other = (data.warped(d, np.array([3, 1]), replace(five, seed=s))[0] for s in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1
    swapped = data.warped(d, np.array([1, 3]), replace(five, seed=1))[0]
    np.testing.assert_allclose(swapped, np.concatenate([one[4:], one[:4]]), atol=1e-3)


def test_a_training_part_is_its_segments_and_their_copies(five):
    d, chosen = data.load(five), np.array([3, 1])
    plain = loops.training_part(d, chosen, five)
    vtlp = loops.training_part(d, chosen, replace(five, augment="vtlp"))
    assert len(plain.rows) == 6 and len(vtlp.rows) == 12
    assert torch.equal(vtlp.x[vtlp.rows[:6]], plain.x[plain.rows])
    assert vtlp.labels.tolist() == [1] * 12
    filled = loops.training_part(d, np.array([3, 1, 0]), replace(five, augment="upsampling"))
    assert Counter(filled.labels.tolist()) == {1: 6, 0: 2}  # two utterances of each class
    padded = replace(five, padding=True, augment="upsampling")  # class a's third utterance has 1 or 3 segments
    sizes = [len(loops.training_part(data.load(padded), np.arange(5), replace(padded, seed=s)).rows) for s in range(9)]
    assert set(sizes) == {12, 14}


def test_one_long_recording_among_short_ones_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(path, "CACHE", tmp_path / "cache")
    for i in range(14):
        write(tmp_path / f"{i}.wav", 5.0 if i == 3 else 1.0, i)
    rows = [f"{i}.wav,{'ab'[i % 2]},{'val' if i == 13 else 'train'}" for i in range(14)]
    (tmp_path / "long.csv").write_text("\n".join(["path,emotion,split", *rows]))
    data.forget()
    overlaps = {"segment_length": 1.0, "train_overlap": 0.5, "test_overlap": 0.75}
    config = recipes.config_for("CNN_GAP", dataset=str(tmp_path / "long.csv"), **overlaps)
    d, every = data.load(config), np.arange(13)
    data.check_parts(d, data.Parts(every, np.array([13]), every), config)
    told = capsys.readouterr().err
    assert "3.wav alone gives 9 of 21 training segments, each of which counts alike: cut long recordings" in told
    lacking = "the validation part has no utterance of a, so the rule validation picks the epoch by the other classes"
    assert lacking in told
    data.check_parts(d, data.Parts(every[:12], None, every), config)  # among so few, one may have a quarter
    assert capsys.readouterr().err == ""


def test_a_corpus_that_changed_since_a_sweep_began_is_not_trained_on(five, tmp_path):
    data.identity(five)  # as a sweep asks for all of its corpora, hours before the last of them is loaded
    file = tmp_path / "five.csv"
    text = file.read_text()
    file.write_text(text.replace(",b", ",x").replace(",a", ",b").replace(",x", ",a"))
    with pytest.raises(UserError, match=r"five has changed since this command began, .*: give the command again"):
        data.load(five)
    other = workers.in_processes([replace(five, threads=1)], 1, None, flags.Options(tmp_path / "runs"))
    (outcome,) = other  # in a process that sees the corpus for the first time
    assert outcome.status == "failed" and "five has changed since this command began" in outcome.text
    file.write_text(text)
    assert len(data.load(five).corpus.utterances) == 4


def test_a_recording_that_changed_since_it_was_loaded_is_not_warped(five, tmp_path):
    d = data.load(five)
    data.warped(d, np.array([1, 3]), five)
    write(tmp_path / "2.wav", 2.0, 7)
    data.warped(d, np.array([1, 3]), five)  # 3.wav and 5.wav
    with pytest.raises(UserError, match=r"2\.wav has changed since this command began, .*: give the command again"):
        data.warped(d, np.array([0, 1]), five)


def test_forget_is_enough_after_a_corpus_moved(five, tmp_path):
    before = data.identity(five)
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in [*tmp_path.glob("*.wav"), tmp_path / "five.csv"]:
        shutil.copy(file, moved)
    assert data.identity(replace(five, dataset=str(moved / "five.csv"))) == before
