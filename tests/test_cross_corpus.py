"""Train on one corpus, test on another, by the classes both have."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

import data
import flags
import path
import recipes
import train
from cli import UserError
from corpora import emodb, ravdess
from tests.test_corpora import make_csv, make_emodb, make_ravdess, write_wave

QUICK = ("--gpu", -1, "--model", "CNN_GAP", "--segment_length", 1, "--train_overlap", 0, "--test_overlap", 0,
         "--epochs", 2)  # fmt: skip


@pytest.fixture
def two(here, tmp_path, monkeypatch):
    """EMO-DB and RAVDESS made of noise; returns the runs folder."""
    for name, make in (("EMODB", make_emodb), ("RAVDESS", make_ravdess)):
        root = tmp_path / name.lower()
        make(root, seconds=1.0) if name == "EMODB" else make(root, 3, 1.0)
        monkeypatch.setattr(path, name, root)
        monkeypatch.setenv(name, str(root))
    data.forget()
    return here


def config_of(**overrides) -> recipes.Config:
    return recipes.config_for("CNN_GAP", split="cross", **overrides)


def test_the_two_corpora_are_one_with_the_shared_classes(two):
    whole = data.corpus("emodb", test_dataset="ravdess")
    assert (whole.dataset, whole.name) == ("emodb-to-ravdess", "EMO-DB, tested on RAVDESS")
    assert whole.classes == ("neutral", "sad", "angry", "happy", "fearful", "disgusted")
    assert whole.licence == data.corpus("emodb").licence  # the weights are made of this one
    alone = [data.corpus(name, classes=whole.classes) for name in ("emodb", "ravdess")]
    foreign = [isinstance(u, data.Foreign) for u in whole.utterances]
    assert foreign == [False] * len(alone[0].utterances) + [True] * len(alone[1].utterances)
    assert whole.labels.tolist() == [*alone[0].labels, *alone[1].labels]
    assert [u.path for u in whole.utterances] == [u.path for one in alone for u in one.utterances]
    names = [[u.name for u in one.utterances] for one in alone]
    assert [u.name for u in whole.utterances] == [f"emodb:{name}" for name in names[0]] + names[1]
    assert len({u.name for u in whole.utterances}) == len(whole.utterances)


def test_all_of_one_is_trained_on_and_all_of_the_other_tested(two):
    whole = data.corpus("emodb", test_dataset="ravdess").utterances
    parts = data.SPLITS["cross"](whole, 1)
    assert {whole[i].path.split("/")[-1] for i in parts.test} == {
        f"{u.name}.wav"
        for u in data.corpus("ravdess").utterances
        if ravdess.CLASSES[u.emotion] in emodb.CLASSES.values()
    }
    speakers = [{whole[i].speaker for i in rows} for rows in (parts.train, parts.val, parts.test)]
    assert [len(s) for s in speakers] == [9, 1, 3] and len(set.union(*speakers)) == 13  # "03" and "03" are two people


def test_classes_are_picked_among_the_shared_ones(two):
    whole = data.corpus("emodb", classes=("angry", "sad"), test_dataset="ravdess")
    assert whole.classes == ("angry", "sad")
    with pytest.raises(UserError, match="--classes bored: emodb and ravdess share neutral, sad, angry, happy, fearful"):
        data.corpus("emodb", classes=("sad", "bored"), test_dataset="ravdess")


@pytest.mark.parametrize("happy", recipes.HAPPY)
@pytest.mark.parametrize(("train", "test"), [("emodb", "all"), ("all", "emodb")])
def test_happy_is_what_is_asked_for_on_either_side(train, test, happy, two):
    codes = {u.emotion for u in data.corpus(train, happy, test_dataset=test).utterances}
    assert codes & {"hap", "exc"} == {*happy.split("+")}


def test_the_digest_and_hash_cover_both_corpora(two, tmp_path):
    there, back = config_of(dataset="emodb", test_dataset="ravdess"), config_of(dataset="ravdess", test_dataset="emodb")
    digests = [data.identity(there), data.identity(back)]
    write_wave(tmp_path / "ravdess" / "Actor_01" / "03-01-01-01-01-01-01.wav", 1.0, 40_000)
    data.forget()
    digests.append(data.identity(there))
    assert [name for name, _ in digests] == ["emodb-to-ravdess", "ravdess-to-emodb", "emodb-to-ravdess"]
    assert len({there.hash(digest) for _, digest in digests}) == 3


def test_it_runs_records_and_reports(two, command):
    words = ("--train", "emodb", "--test", "ravdess", "--save_model", "validation")
    shown = command("train.py", *QUICK, *words).stdout
    (done,) = two.rglob("done")
    folder = done.parent
    assert folder.relative_to(two).parts[:3] == ("emodb-to-ravdess", "cross", "CNN_GAP")
    config = json.loads((folder / "config.json").read_text())
    assert (config["dataset"], config["split"], config["fold"]) == ("emodb-to-ravdess", "cross", None)
    assert (config["settings"]["dataset"], config["settings"]["test_dataset"]) == ("emodb", "ravdess")
    assert (config["n_train"], config["n_val"], config["n_test"]) == (108, 12, 36)
    assert "test_dataset" not in config["changed"] and "rule validation" in shown
    predictions = np.load(folder / "predictions.npz")
    assert set(predictions["test_speakers"]) == {"01", "02", "03"} and len(predictions["val_labels"]) == 12
    assert all(file.startswith("Actor_") for file in predictions["test_paths"])
    assert not any(file.startswith("..") or "/" in file for file in predictions["val_paths"])
    assert "CNN_GAP" in command("report.py", "--dataset", "emodb-to-ravdess", "--rule", "validation").stdout


def test_weights_are_of_the_corpus_they_were_trained_on(two, small_release, monkeypatch):
    """Tested on made-up sound, scores are synthetic; the weights, and their licence, are the training corpus's."""
    config = flags.parse_config(
        {
            "model": "CNN_GAP",
            "dataset": "emodb",
            "test_dataset": "all",
            "split": "cross",
            "segment_length": 1,
            "train_overlap": 0,
            "test_overlap": 0,
            "epochs": 1,
            "gpu": -1,
        }
    )
    folder = train.train(config, quiet=True, save_model="last")
    assert json.loads((folder / "config.json").read_text())["synthetic"]
    assert not json.loads((folder / "checkpoint" / "config.json").read_text())["synthetic"]
    card = (folder / "checkpoint" / "README.md").read_text()
    assert "license: other" in card and "SYNTHETIC" not in card and "- synthetic" not in card


def test_a_csv_can_be_either_side(two, tmp_path, capsys):
    for i in range(3):
        write_wave(tmp_path / f"c{i}.wav", 1.0, 30_000 + i)
    file = make_csv(tmp_path, "path,emotion,speaker\nc0.wav,sad,03\nc1.wav,angry,x\nc2.wav,elated,y\n")
    assert data.corpus(file, test_dataset="emodb").dataset == "mine-to-emodb"
    assert data.corpus("emodb", test_dataset=file).classes == ("sad", "angry")
    assert capsys.readouterr().err.count("both have speakers called 03; if these are the same people") == 2


@pytest.mark.parametrize(
    ("train", "test", "fault"),
    [
        ("impro", "script", "both are synthetic, spoken by the same people"),
        ("all", "impro", "recordings are in both, as .* and .*; what is trained on cannot be tested on"),
        ("emodb", "emodb", "what is trained on cannot be tested on"),
        ("emodb", "nowhere", "choose one of"),
    ],
)
def test_what_would_leak_or_is_not_there_is_refused(train, test, fault, two):
    with pytest.raises(UserError, match=fault):
        data.corpus(train, test_dataset=test)


def test_a_copy_or_another_path_of_a_recording_is_the_same_recording(tmp_path):
    for i in range(4):
        write_wave(tmp_path / "waves" / f"{i}.wav", 1.0, i)
    (tmp_path / "link").symlink_to(tmp_path / "waves")
    shutil.copy(tmp_path / "waves" / "0.wav", tmp_path / "waves" / "copy.wav")
    train = make_csv(tmp_path / "a", "path,emotion,speaker\n../waves/0.wav,sad,Ann\n../waves/1.wav,angry,Bob\n")
    for again in ("../link/1.wav", "../waves/copy.wav"):
        test = make_csv(tmp_path / "b", f"path,emotion\n../waves/2.wav,sad\n../waves/3.wav,angry\n{again},angry\n")
        with pytest.raises(UserError, match="1 recordings are in both"):
            data.corpus(train, test_dataset=test)
    with pytest.raises(UserError, match=r"lines 2 and 3: waves/1\.wav is there twice, also as link/1\.wav"):
        data.corpus(make_csv(tmp_path / "c", "path,emotion\n../waves/1.wav,sad\n../link/1.wav,angry\n"))


def test_corpora_without_two_shared_classes_are_refused(two, tmp_path):
    file = make_csv(tmp_path, "path,emotion\na.wav,sad\nb.wav,elated\n")
    with pytest.raises(UserError, match=r"mine\.csv has elated, sad: a classifier needs two classes that both have"):
        data.corpus("emodb", test_dataset=file)


def test_two_csvs_with_speakers_called_alike_are_warned_of(tmp_path, capsys):
    files = [make_csv(tmp_path / n, f"path,emotion,speaker\n{n}1.wav,x,Ann\n{n}2.wav,y,{n}\n") for n in "ab"]
    whole = data.corpus(files[0], test_dataset=files[1])
    assert whole.dataset == "mine-to-mine" and len({u.name for u in whole.utterances}) == 4
    assert "both have speakers called Ann; if these are the same people" in capsys.readouterr().err


@pytest.mark.parametrize("unknown", [1, 16])
def test_validation_is_never_a_few_utterances_without_a_speaker(unknown, tmp_path, capsys):
    rows = [f"{i}.wav,{'xy'[i % 2]},{i // 16 if i < 68 - unknown else ''}\n" for i in range(68)]
    train_on = make_csv(tmp_path / "a", "path,emotion,speaker\n" + "".join(rows))
    test_on = make_csv(tmp_path / "b", "path,emotion,speaker\nz1.wav,x,z\nz2.wav,y,z\n")
    whole = data.corpus(train_on, test_dataset=test_on).utterances
    for seed in range(20):
        assert len(data.SPLITS["cross"](whole, seed).val) == 7, "a tenth of 68"
    told = capsys.readouterr().err
    assert f"--train: {unknown} of 68 utterances have no speaker; validation is a tenth of the" in told


def test_classes_that_the_other_corpus_spells_otherwise_are_told(tmp_path, capsys):
    (tmp_path / "a.csv").write_text("path,emotion\na.wav,neutral\nb.wav,sad\nc.wav,angry\nd.wav,angry\n")
    (tmp_path / "b.csv").write_text("path,emotion\ne.wav,neutral\nf.wav,sad\ng.wav,anger\n")
    data.corpus(str(tmp_path / "a.csv"), classes=("sad", "neutral"), test_dataset=str(tmp_path / "b.csv"))
    assert not capsys.readouterr().err  # they were asked for
    corpus = data.corpus(str(tmp_path / "a.csv"), test_dataset=str(tmp_path / "b.csv"))
    told = capsys.readouterr().err
    assert corpus.classes == ("neutral", "sad")
    assert "a.csv: its 2 utterances of angry are left out" in told and "b.csv: its 1 utterances of anger are" in told


def test_a_class_that_one_side_has_only_too_short_is_told_in_words(two, tmp_path):
    for i, seconds in enumerate((1.0, 0.2)):
        write_wave(tmp_path / f"c{i}.wav", seconds, 30_000 + i)
    file = make_csv(tmp_path, "path,emotion,speaker\nc0.wav,sad,a\nc1.wav,angry,b\n")
    lengths = {"segment_length": 0.9, "train_overlap": 0.0, "test_overlap": 0.0}
    with pytest.raises(UserError, match=r"mine\.csv has no usable utterance of the class angry"):
        data.load(config_of(dataset="emodb", test_dataset=file, **lengths))


def test_flags_that_contradict_each_other_are_told_in_words():
    for split, test in (("cross", ""), ("8:2", "ravdess")):
        with pytest.raises(UserError, match="--test NAME and --split cross go together"):
            recipes.config_for("CNN_GAP", dataset="emodb", split=split, test_dataset=test)
    config = config_of(dataset="emodb", test_dataset="ravdess")
    assert recipes.from_settings(config.settings()) == config and config.changed() == {}
    assert config.hash("x") != replace(config, test_dataset="cremad").hash("x")
