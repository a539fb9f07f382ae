"""Corpora by their own file names, and any corpus as a CSV: read, refused in words, trained on and reported."""

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

import cli
import data
import flags
import path
from cli import UserError
from corpora import Utterance, cremad, emodb, ravdess
from tests.conftest import ROOT

ORDER = ("neutral", "sad", "angry", "happy", "fearful", "disgusted", "surprised", "calm", "bored")
NAMES = {  # of a module: its path.py variable, how many speakers and classes it has, some file names
    "emodb": ("EMODB", 10, 7),
    "ravdess": ("RAVDESS", 24, 8),
    "cremad": ("CREMAD", 91, 6),
}


def write_wave(file: Path, seconds: float = 0.01, seed: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(file, np.random.default_rng(seed).normal(0, 0.1, int(16000 * seconds)), 16000)


def make_emodb(root: Path, seconds: float = 0.01) -> list[str]:
    speakers = ("03", "08", "09", "10", "11", "12", "13", "14", "15", "16")
    names = [f"{s}{text}{e}a" for s in speakers for text in ("a01", "b10") for e in "AEFLNTW"]
    for i, name in enumerate(names):
        write_wave(root / f"{name}.wav", seconds, i)
    return sorted(names)


def make_ravdess(root: Path, actors: int = 24, seconds: float = 0.01) -> list[str]:
    names = [
        f"03-01-{emotion:02d}-01-{statement:02d}-01-{actor:02d}"
        for actor in range(1, actors + 1)
        for emotion in range(1, 9)
        for statement in (1, 2)
    ]
    for i, name in enumerate(names):
        write_wave(root / f"Actor_{name[-2:]}" / f"{name}.wav", seconds, 10_000 + i)
    return sorted(names)


def make_cremad(root: Path, seconds: float = 0.01) -> list[str]:
    names = [
        f"{actor}_{sentence}_{emotion}_{level}"
        for actor in range(1001, 1092)
        for sentence, level in (("DFA", "XX"), ("IEO", "HI"))
        for emotion in cremad.CLASSES
    ]
    for i, name in enumerate([*names, "1040_ITH_SAD_X"]):
        write_wave(root / f"{name}.wav", seconds, 20_000 + i)
    return sorted([*names, "1040_ITH_SAD_X"])


MAKERS = {"emodb": make_emodb, "ravdess": make_ravdess, "cremad": make_cremad}


@pytest.fixture(params=NAMES)
def tree(request, tmp_path, monkeypatch):
    """A corpus of tiny waves: its module's name, its folder, its files' names."""
    root = tmp_path / request.param
    names = MAKERS[request.param](root)
    monkeypatch.setattr(path, NAMES[request.param][0], root)
    return request.param, root, names


# ------------------------------------------------------------------------------------------------ modules


def test_every_recording_is_an_utterance_in_the_order_of_names(tree):
    name, root, names = tree
    found = importlib.import_module(f"corpora.{name}").utterances(root)
    assert [u.name for u in found] == names
    assert all(Path(u.path).is_absolute() and Path(u.path).stem == u.name and Path(u.path).is_file() for u in found)
    assert len({u.speaker for u in found}) == NAMES[name][1]
    assert {(u.session, u.kind) for u in found} == {("", "")}
    corpus = data.corpus(name)
    assert len(corpus.classes) == NAMES[name][2] and len(corpus.utterances) == len(found)
    assert set(corpus.labels) == set(range(len(corpus.classes)))
    assert (corpus.dataset, corpus.synthetic) == (name, False)


def test_fields_come_from_the_file_names(tmp_path):
    for root, name, module, expected in (
        ("e", "16b10Lb", emodb, ("16", "b10", "bored")),
        ("r/Actor_12", "03-01-06-01-02-01-12", ravdess, ("12", "02", "fearful")),
        ("c", "1091_WSI_DIS_LO", cremad, ("1091", "WSI", "disgusted")),
    ):
        write_wave(tmp_path / root / f"{name}.wav")
        (u,) = module.utterances(tmp_path / root.split("/")[0])
        assert (u.speaker, u.dialog, module.CLASSES[u.emotion]) == expected


def test_codes_mean_what_their_corpora_say():
    assert emodb.CLASSES == {"W": "angry", "L": "bored", "E": "disgusted", "A": "fearful", "F": "happy", "T": "sad",
                             "N": "neutral"}  # Wut, Langeweile, Ekel, Angst, Freude, Trauer  # fmt: skip
    assert ravdess.CLASSES == {"01": "neutral", "02": "calm", "03": "happy", "04": "sad", "05": "angry",
                               "06": "fearful", "07": "disgusted", "08": "surprised"}  # fmt: skip
    assert all(cls.upper().startswith(code) for code, cls in cremad.CLASSES.items())
    sentences = ("IEO", "TIE", "IOM", "IWW", "TAI", "MTI", "IWL", "ITH", "DFA", "ITS", "TSI", "WSI")
    assert all(re.fullmatch(cremad.PATTERN, f"1001_{sentence}_ANG_XX") for sentence in sentences)


@pytest.mark.parametrize("name", NAMES)
def test_classes_are_called_and_ordered_alike_everywhere(name):
    module = importlib.import_module(f"corpora.{name}")
    classes = tuple(module.CLASSES.values())
    assert classes == tuple(c for c in ORDER if c in classes)
    assert module.NAME and module.LICENCE and module.__doc__
    assert classes[:4] == (*data.IEMOCAP_CLASSES.values(), "happy")


def test_other_files_are_counted_and_listed_and_macos_left_overs_ignored(tree, capsys):
    name, root, names = tree
    for odd in ("readme.wav", "03a01Xa.wav", "1092_DFA_ANG_XX.wav", "03-01-09-01-01-01-01.wav"):
        write_wave(root / odd)
    (root / f"._{names[0]}.wav").write_bytes(b"\0")
    (root / "notes.txt").write_text("")
    module = importlib.import_module(f"corpora.{name}")
    for _ in range(2):  # a corpus is listed more than once in a run
        assert [u.name for u in module.utterances(root)] == names
    told = capsys.readouterr().err
    assert told.count("warning: ") == 1
    assert f"4 of {len(names) + 4} wave files" in told and "readme.wav" in told and "._" not in told


def test_ravdess_song_is_left_out_silently(tmp_path, capsys):
    for name in ("03-01-01-01-01-01-05", "03-02-01-01-01-01-05"):
        write_wave(tmp_path / "Actor_05" / f"{name}.wav")
    assert [u.name for u in ravdess.utterances(tmp_path)] == ["03-01-01-01-01-01-05"]
    assert capsys.readouterr().err == ""


def test_a_recording_that_is_there_twice_is_refused(tmp_path):
    for folder in ("Actor_05", "audio_speech_actors_01-24/Actor_05"):
        write_wave(tmp_path / folder / "03-01-01-01-01-01-05.wav")
    with pytest.raises(UserError, match=r"03-01-01-01-01-01-05\.wav twice"):
        ravdess.utterances(tmp_path)


def test_an_ending_in_capitals_is_a_recordings(tmp_path):
    write_wave(tmp_path / "03a01Fa.WAV")
    assert [u.name for u in emodb.utterances(tmp_path)] == ["03a01Fa"]
    write_wave(tmp_path / "again" / "03a01Fa.wav")
    with pytest.raises(UserError, match=r"03a01Fa\.wav twice"):
        emodb.utterances(tmp_path)


def test_linked_folders_are_read_and_one_that_may_not_be_is_no_part_of_a_corpus(tmp_path, unreadable):
    write_wave(tmp_path / "ravdess" / "Actor_05" / "03-01-01-01-01-01-05.wav")
    write_wave(tmp_path / "elsewhere" / "03-01-01-01-01-01-06.wav")
    (tmp_path / "ravdess" / "Actor_06").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "ravdess" / "Actor_06" / "round").symlink_to(tmp_path / "ravdess")
    assert [u.name[-2:] for u in ravdess.utterances(tmp_path / "ravdess")] == ["05", "06"]
    unreadable("Actor_06")
    with pytest.raises(PermissionError, match="Actor_06"):
        ravdess.utterances(tmp_path / "ravdess")


def test_a_folder_that_is_not_utf8_is_told(tmp_path, monkeypatch):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/f\xfcr"))
    make_emodb(tmp_path / "plain")
    (tmp_path / "plain").rename(folder)
    with pytest.raises(UserError, match=r"f\\udcfcr is not UTF-8"):
        emodb.utterances(tmp_path)
    make_csv(folder, "path,emotion\na.wav,x\nb.wav,y\n")
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"f\\udcfcr/mine.csv is not UTF-8"):
        data.corpus("mine.csv")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_corpus_is_told_with_its_line_of_path_py_and_variable(name, tmp_path, monkeypatch):
    variable = NAMES[name][0]
    for folder, fault in ((tmp_path / "nowhere", "not a folder"), (tmp_path, "no recording")):
        monkeypatch.setattr(path, variable, folder)
        with pytest.raises(UserError, match=fault) as error:
            data.corpus(name)
        assert f"set {variable} in path.py, or the environment variable {variable}" in str(error.value)


def test_emodb_as_released(emodb, monkeypatch):
    monkeypatch.setattr(path, "EMODB", emodb)
    corpus = data.corpus("emodb")
    counts = Counter(corpus.classes[y] for y in corpus.labels)
    assert counts == {"neutral": 79, "sad": 62, "angry": 127, "happy": 71, "fearful": 69, "disgusted": 46, "bored": 81}
    assert len({u.speaker for u in corpus.utterances}) == len({u.dialog for u in corpus.utterances}) == 10


def test_a_module_and_a_line_in_path_py_are_all_a_corpus_takes(tmp_path):
    code = tmp_path / "code"
    code.mkdir()
    for file in ROOT.glob("*.py"):
        shutil.copy(file, code)
    for folder in ("corpora", "models"):
        shutil.copytree(ROOT / folder, code / folder, ignore=shutil.ignore_patterns("__pycache__"))
    with open(code / "path.py", "a") as f:
        f.write('\nMINE = _folder("MINE", "mine")\n')
    (code / "corpora" / "mine.py").write_text(
        "from corpora import Utterance, recordings\n"
        'NAME, LICENCE, CLASSES = "Mine", "free", {"n": "neutral", "a": "angry"}\n'
        "def utterances(root):\n"
        '    found = recordings(root, "([na])([0-9])", NAME, "n1.wav", "MINE")\n'
        '    return [Utterance(f.stem, str(f), m[2], "", "", "", m[1]) for f, m in found]\n'
    )
    for name in ("n1", "a2"):
        write_wave(code / "mine" / f"{name}.wav")
    asks = "import data; c = data.corpus('mine'); print(c.classes, [u.speaker for u in c.utterances], *data.DATASETS)"
    done = subprocess.run([sys.executable, "-c", asks], cwd=code, capture_output=True, text=True, check=True)
    assert "('neutral', 'angry') ['2', '1']" in done.stdout
    assert done.stdout.split()[-4:] == ["cremad", "emodb", "mine", "ravdess"]


# ---------------------------------------------------------------------------------------- classes and CSVs


def test_classes_are_picked_in_the_order_asked_for(tmp_path, monkeypatch, here):
    make_emodb(tmp_path / "emodb")
    monkeypatch.setattr(path, "EMODB", tmp_path / "emodb")
    four = data.corpus("emodb", classes=("happy", "neutral", "sad", "angry"))
    assert four.classes == ("happy", "neutral", "sad", "angry") and len(four.utterances) == 80
    assert [data.corpus("all", classes=("angry", "sad")).classes] == [("angry", "sad")]
    with pytest.raises(UserError, match="--classes calm: emodb has neutral, sad, angry, happy, fearful, disg"):
        data.corpus("emodb", classes=("calm", "sad"))
    with pytest.raises(UserError, match="--classes sad: a classifier needs two or more of neutral"):
        data.corpus("emodb", classes=("sad",))


def make_csv(folder: Path, text: str, encoding: str = "utf-8") -> str:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "mine.csv").write_text(text, encoding=encoding)
    return str(folder / "mine.csv")


def test_a_csv_is_a_corpus(tmp_path):
    text = "emotion, speaker,path,session,comment\nJubel,B,b/2.wav,1,\nÄrger,A,/abs/1.wav,1,x\n"
    for encoding in ("utf-8", "utf-8-sig"):
        corpus = data.corpus(make_csv(tmp_path, text, encoding))
        assert (corpus.dataset, corpus.name, corpus.classes) == ("mine", "mine", ("Jubel", "Ärger"))
        assert [u.path for u in corpus.utterances] == ["/abs/1.wav", str(tmp_path / "b/2.wav")]
        assert [u.speaker for u in corpus.utterances] == ["A", "B"] and corpus.labels.tolist() == [1, 0]


def test_a_csv_that_was_moved_is_the_same_corpus(tmp_path):
    digests, names = set(), set()
    for place, written in (("here", ""), ("moved", ""), ("absolute", f"{tmp_path}/absolute/"), ("up", "../up/")):
        for seed, name in enumerate(("a.wav", "b/2.wav", "b/3.wav")):
            write_wave(tmp_path / place / "waves" / name, 1.0, seed)
        rows = [f"{written}waves/{name},{emotion}\n" for name, emotion in (("a.wav", "x"), ("b/2.wav", "y"))]
        corpus = data.corpus(make_csv(tmp_path / place, f"path,emotion\n{''.join(rows)}"))
        names.add(tuple(u.name for u in corpus.utterances))
        digests.add(data.corpus_digest(corpus))
    assert names == {("a.wav", "b/2.wav")} and len(digests) == 1


def test_columns_that_nothing_reads_are_told(tmp_path, capsys):
    file = make_csv(tmp_path, "path,emotion,Speaker,kind\na.wav,x,Ann,q\nb.wav,y,Bob,q\n")
    assert {u.speaker for u in data.corpus(file).utterances} == {""}
    told = capsys.readouterr().err
    assert "the columns Speaker, kind are not used; those that are used are spelt path, emotion, name, spe" in told
    assert len(data.corpus(make_csv(tmp_path, "path,emotion,,\na.wav,x,,\nb.wav,y,,\n")).utterances) == 2
    assert not capsys.readouterr().err
    with pytest.raises(UserError, match="has the column emotion twice"):
        data.corpus(make_csv(tmp_path, "path,emotion,emotion\na.wav,x,y\nb.wav,y,x\n"))


def test_codes_that_a_module_has_no_class_for_are_told(tmp_path, monkeypatch, capsys):
    make_emodb(tmp_path / "emodb")
    monkeypatch.setattr(path, "EMODB", tmp_path / "emodb")
    whole = len(data.corpus("emodb").utterances)
    assert not capsys.readouterr().err
    monkeypatch.setattr(emodb, "CLASSES", {code: name for code, name in emodb.CLASSES.items() if code not in "NL"})
    left = len(data.corpus("emodb").utterances)
    assert f"EMO-DB: {whole - left} utterances of the codes L, N are left out" in capsys.readouterr().err


def test_parts_of_its_own_in_a_csv(here, command, tmp_path):
    parts, emotions = ["train"] * 6 + ["dev"] * 2 + ["test"] * 2, "xyxyxzxwxx"
    for i in range(10):
        write_wave(tmp_path / f"{i}.wav", 2.1, i)
    soundfile.write(tmp_path / "0.wav", np.zeros(33600), 16000)
    rows = [f"{i}.wav,{emotion},{part}\n" for i, (emotion, part) in enumerate(zip(emotions, parts, strict=True))]
    file = make_csv(tmp_path, f"path,emotion,split\n{''.join(rows)}")
    words = ("train.py", "--model", "CNN_GAP", "--dataset", file, "--split", "given", "--epochs", 1, "--gpu", -1)
    done = command(*words, "--save_model", "validation")
    assert "6 training, 2 validation, 2 test utterances" in done.stdout
    assert "--split given: the training part has no utterance of w, which cannot be learned" in done.stderr
    lacking = "the test part has no utterance of w, y, z, so UA is the mean over the other classes"
    assert f"--split given: {lacking}" in done.stderr
    assert "1 of 10 recordings hold nothing but silence, as 0.wav" in done.stderr
    assert re.search(r"\nz +– +– +– +0\n", done.stdout), done.stdout
    assert "UA is the mean recall of the 1 classes that occur, of 4" in done.stdout
    again = command(*words)
    assert again.stdout.startswith("finished before: to train it again, delete ")
    (config,) = here.glob("mine/given/CNN_GAP/*/*/config.json")
    if json.loads(config.read_text())["commit"]:  # a git checkout
        config.write_text(config.read_text().replace('"commit": "', '"commit": "0'))
        assert "by other code than now (commit 0" in command(*words).stdout


def test_a_refused_run_leaves_nothing(here, command, tmp_path):
    for i in range(10):
        write_wave(tmp_path / f"{i}.wav", 2.1, i)
    rows = [f"{i}.wav,{'xy'[i % 2]}\n" for i in range(10)]
    file = make_csv(tmp_path, f"path,emotion\n{''.join(rows)}")
    small = ("--segment_length", 0.01, "--train_overlap", 0, "--test_overlap", 0, "--epochs", 1, "--gpu", -1)
    done = command("train.py", "--dataset", file, *small, status=2)
    assert "error: " in done.stderr
    assert not [file for file in here.rglob("*") if file.is_file()] and not list(here.glob("*/*/*/*/*"))


def test_a_csvs_name_makes_a_plain_run_folder(tmp_path):
    file = tmp_path / ".. my corpus!.CSV"
    file.write_text("path,emotion\na.wav,x\nb.wav,y\n")
    assert data.corpus(str(file)).dataset == "_my_corpus_"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "has no first line; it needs path,emotion"),
        ("path,label\na.wav,x\n", "begins with the columns 'path,label'; it needs path,emotion"),
        ("path;emotion\na.wav;x\n", "begins with the columns 'path;emotion'; it needs .* with commas"),
        ('path;emotion\n"a b.wav";x\n', "begins with the columns 'path;emotion'; it needs .* with commas"),
        ("Path,Emotion\na.wav,x\n", "begins with the columns 'Path,Emotion'; it needs .* spelt like this"),
        ("path,emotion\n", "has a header and no rows"),
        ("path,emotion\na.wav,x\nb.wav\n", "line 3: every row needs"),
        ("path,emotion\na.wav,x,y\n", "line 2: every row needs"),
        (f"path,emotion\na.wav,{'x' * 101}\n", "line 2: an emotion has at most 100"),
        ("path,emotion\n\n\na.wav,\n", "line 4: every row needs"),
        ("path,emotion\na.wav, \n", "line 2: every row needs"),
        ("path,emotion\na.wav,x\na.wav,y\n", "lines 2 and 3: a.wav is there twice; every recording has one row"),
        ("name,path,emotion\n1,a.wav,x\n1,b.wav,y\n", "lines 2 and 3: 1 is there twice"),
        ('path,emotion\n"a.wav,x\n', "line 2: unexpected end of data; is a quotation mark missing?"),
        ("path,emotion\na.wav,x\nb.wav,x\n", "the class x alone"),
        ('path,emotion\n"a\0b.wav",x\nb.wav,y\n', "line 2: a path and a name have no null character"),
    ],
)
def test_a_csv_that_is_none_is_told_in_words(text, fault, tmp_path):
    with pytest.raises(UserError, match=fault) as error:
        data.corpus(make_csv(tmp_path, text))
    assert "mine.csv" in str(error.value)


def test_labels_that_look_alike_are_one_class_and_plain(tmp_path):
    text = "path,emotion\na.wav,very\u00a0sad\nb.wav, very  sad\nc.wav,an\u200bgry\nd.wav,angry\ufeff\n"
    corpus = data.corpus(make_csv(tmp_path, text))
    assert corpus.classes == ("angry", "very sad") and corpus.labels.tolist() == [1, 1, 0, 0]
    text = "path,emotion,speaker\na.wav,sad,s1\nb.wav,sad,s1\u200b\nc.wav,angry,\u00a0s1\nd.wav,angry,s2\n"
    assert [u.speaker for u in data.corpus(make_csv(tmp_path, text)).utterances] == ["s1", "s1", "s1", "s2"]
    assert flags.parse_setting("classes=very\u00a0 sad,,\u200bangry") == ("classes", ["very sad", "angry"])
    flags.add_flags(parser := cli.parser())
    assert parser.parse_args(["--classes", "very\u00a0 sad,,\u200bangry"]).classes == ("very sad", "angry")


def test_a_csv_in_another_encoding_or_place_is_told_in_words(tmp_path):
    with pytest.raises(UserError, match=r"mine\.csv cannot be read as CSV in UTF-8"):
        data.corpus(make_csv(tmp_path, "path,emotion\na.wav,Ärger\n", "latin-1"))
    with pytest.raises(UserError, match=r"none\.csv does not exist"):
        data.corpus(str(tmp_path / "none.csv"))


def test_the_digest_changes_with_what_a_csv_says(tmp_path, monkeypatch):
    """What is corrected gives another run folder: splits depend on all of it."""
    monkeypatch.setattr(path, "CACHE", tmp_path / "cache")
    digests, header = set(), "path,emotion,speaker,session,dialog,split"
    for row in ("a.wav,x,1,1,1,train", "a.wav,y,1,1,1,train", "a.wav,x,2,1,1,train", "a2.wav,x,1,1,1,train",
                "a.wav,x,1,2,1,train", "a.wav,x,1,1,2,train", "a.wav,x,1,1,1,test"):  # fmt: skip
        file = make_csv(tmp_path, f"{header}\n{row}\nb.wav,z,3,3,3,train\n")
        digests.add(data.corpus_digest(data.corpus(file)))
    assert len(digests) == 7


# ------------------------------------------------------------------------------------------------ end to end


def run_of(runs: Path) -> tuple[dict, list[dict]]:
    (done,) = runs.rglob("done")
    records = [json.loads(line) for line in (done.parent / "epochs.jsonl").read_text().splitlines()]
    return json.loads((done.parent / "config.json").read_text()), records


QUICK = ("--gpu", -1, "--model", "CNN_GAP", "--segment_length", 1, "--train_overlap", 0, "--test_overlap", 0)


def test_eight_classes_train_print_and_report(command, here, tmp_path, monkeypatch):
    make_ravdess(tmp_path / "ravdess", actors=4, seconds=1.5)
    monkeypatch.setenv("RAVDESS", str(tmp_path / "ravdess"))
    shown = command("train.py", *QUICK, "--epochs", 1, "--dataset", "ravdess", "--split", "speaker", "--fold", 1).stdout
    config, records = run_of(here)
    assert config["classes"] == list(ravdess.CLASSES.values()) and config["folds"] == 4
    assert config["licence"].startswith("CC BY-NC-SA 4.0") and (config["n_train"], config["n_test"]) == (32, 16)
    assert np.array(records[0]["test"]["confusion"]).shape == (8, 8)
    assert all(shown.count(name) >= 3 for name in ravdess.CLASSES.values())
    report = command("report.py", "--dataset", "ravdess", "--rule", "last").stdout
    assert "CNN_GAP" in report


def test_speaker_split_of_a_csv_without_speakers_is_told_in_words(command, here, tmp_path):
    for name in "ab":
        write_wave(tmp_path / f"{name}.wav", 2)
    file = make_csv(tmp_path, "path,emotion\na.wav,x\nb.wav,y\n")
    told = command("train.py", *QUICK, "--dataset", file, "--split", "speaker", status=2).stderr
    assert "--split speaker: of 2 utterances 2 have no speaker; a CSV file gives it in the column speaker" in told


def test_emodb_trains_by_speaker(command, here, emodb, tmp_path, monkeypatch):
    """Three of its ten speakers, a small model."""
    some = tmp_path / "emodb"
    some.mkdir()
    for file in sorted(emodb.glob("0[389]*.wav")):
        (some / file.name).symlink_to(file)
    monkeypatch.setenv("EMODB", str(some))
    command("train.py", *QUICK, "--epochs", 1, "--dataset", "emodb", "--split", "speaker", "--fold", 0)
    config, records = run_of(here)
    assert config["classes"] == list(emodb_classes()) and (config["corpus"], config["folds"]) == ("EMO-DB", 3)
    assert sum(map(sum, records[0]["test"]["confusion"])) == config["n_test"] == 49


def emodb_classes() -> list[str]:
    return [c for c in ORDER if c not in ("surprised", "calm")]


@pytest.mark.slow
def test_glam_trains_on_emodb_by_speaker(command, here, emodb, monkeypatch):
    monkeypatch.setenv("EMODB", str(emodb))
    words = ("--model", "GLAM", "--dataset", "emodb", "--split", "speaker")
    command("train.py", "--gpu", -1, *words, "--fold", 0, "--epochs", 1)
    config, records = run_of(here)
    assert config["changed"] == {"epochs": 1} and config["folds"] == 10
    assert records[-1]["test"]["UA"] > 100 / 7 + 10  # far above chance after one epoch


def test_module_list_matches_path_py():
    """Every corpus that path.py knows is there, and has been tested above."""
    assert {name for name in data.DATASETS if name not in ("impro", "script", "all", "demo")} == set(NAMES)
    assert all(hasattr(path, name.upper()) for name in NAMES)


def test_labels_in_other_capitals_are_told(tmp_path, capsys):
    file = tmp_path / "mine.csv"
    file.write_text("path,emotion\na.wav,anger\nb.wav,ANGER\nc.wav,joy\n")
    assert data.corpus(str(file)).classes == ("ANGER", "anger", "joy")
    assert "ANGER and anger are 2 classes: spell them alike to merge them" in capsys.readouterr().err
    file.write_text("path,emotion,speaker,session\na.wav,sad,S3,1\nb.wav,joy,s3,1\nc.wav,joy,,2\n")
    data.corpus(str(file))
    err = capsys.readouterr().err
    assert "S3 and s3 are 2 speakers: spell them alike to merge them" in err and "session" not in err


def test_a_corpus_module_that_is_not_whole(tmp_path, monkeypatch):
    import corpora

    (tmp_path / "mine.py").write_text("NAME = 'Mine'\nCLASSES = ('neutral', 'angry')\n")
    monkeypatch.setattr(corpora, "__path__", [*corpora.__path__, str(tmp_path)])
    monkeypatch.setitem(data.DATASETS, "mine", lambda happy: data._module("mine", happy))
    monkeypatch.setattr(path, "MINE", tmp_path, raising=False)
    with pytest.raises(UserError, match=r"corpora/mine.py lacks LICENCE, utterances: corpora/emodb.py shows"):
        data.corpus("mine")
    module = sys.modules.pop("corpora.mine")
    vars(module).update(LICENCE="none", utterances=lambda root: [])
    monkeypatch.setitem(sys.modules, "corpora.mine", module)
    with pytest.raises(UserError, match=r"corpora/mine.py: CLASSES must say which class each emotion code is"):
        data.corpus("mine")
    module.CLASSES = {"n": "neutral", "a": "angry"}
    twice = [Utterance("5_a", str(tmp_path / who / "5_a.wav"), who, "", "", "", "a") for who in ("anna", "bert")]
    module.utterances = lambda root: twice
    with pytest.raises(UserError, match=r"corpora/mine\.py calls two utterances 5_a: each needs a name of its own"):
        data.corpus("mine")
    module.utterances = lambda root: []
    with pytest.raises(
        UserError, match=rf"Mine: corpora/mine.py finds no utterance in {tmp_path}: set MINE in path.py"
    ):
        data.corpus("mine")
    monkeypatch.setattr(path, "MINE", tmp_path / "nowhere")
    with pytest.raises(
        UserError, match=r"Mine was looked for in .*nowhere, which is not a folder: set MINE in path.py"
    ):
        data.corpus("mine")


def test_a_corpus_module_without_a_folder(monkeypatch):
    monkeypatch.setattr(data, "DATASETS", {k: v for k, v in data.DATASETS.items() if k != "emodb"})
    with pytest.raises(UserError, match=r"choose one of .* \(a module in corpora/ needs its line in path.py\)"):
        data.corpus("emodb")
