"""Reading a release in whatever shape it lies, its counts and problems, the index, --rename and --restore."""

import csv
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import wave
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import example, given
from hypothesis import strategies as st

import cli
import handleIEMOCAP as handle
import path
from cli import UserError
from handleIEMOCAP import CODES, EMOTIONS, FULL, JOURNAL

# every label, both kinds, odd dialogs, and speakers other than the letter in the dialog's name
LABELS = {
    "Ses01F_impro01_F000": "neu", "Ses01F_impro01_F001": "dis", "Ses01F_impro01_M000": "sad",
    "Ses01F_impro01_M001": "ang", "Ses01M_script01_1_F000": "exc", "Ses01M_script01_1_M000": "oth",
    "Ses02F_impro02_M000": "hap",
    "Ses03M_impro05a_F000": "fru", "Ses03M_impro05a_M000": "xxx", "Ses03M_impro05b_M000": "sur",
    "Ses03M_script03_2_F032": "neu", "Ses04F_script02_2_M001": "fea", "Ses05M_script01_1_F000": "neu",
    "Ses05M_script01_1b_F000": "exc", "Ses05M_script01_1b_M000": "sad",
}  # fmt: skip
# their order, by the paths of the renamed files: at equal codes by name, and files that keep their names last
ORDER = [
    "Ses01F_impro01_F000", "Ses01F_impro01_M000", "Ses01F_impro01_M001", "Ses01F_impro01_F001",
    "Ses01M_script01_1_F000", "Ses01M_script01_1_M000", "Ses02F_impro02_M000",
    "Ses03M_impro05a_F000", "Ses03M_impro05a_M000", "Ses03M_impro05b_M000", "Ses03M_script03_2_F032",
    "Ses04F_script02_2_M001", "Ses05M_script01_1_F000", "Ses05M_script01_1b_M000", "Ses05M_script01_1b_F000",
]  # fmt: skip
HEADER = "% [START_TIME - END_TIME]\tTURN_NAME\tEMOTION\t[V, A, D]\n"


def evaluation_file(root: Path, name: str) -> Path:
    return root / f"Session{name[4]}" / "dialog" / "EmoEvaluation" / f"{name.rpartition('_')[0]}.txt"


def wave_file(root: Path, name: str) -> Path:
    return root / f"Session{name[4]}" / "sentences" / "wav" / name.rpartition("_")[0] / f"{name}.wav"


def write_release(root: Path, labels: dict[str, str] = LABELS) -> Path:
    """The reduced shape: labels and recordings (of their names' bytes) only."""
    texts: dict[Path, list[str]] = {}
    for i, (name, emotion) in enumerate(labels.items()):
        line = f"[{i}.2901 - {i + 1}.2357]\t{name}\t{emotion}\t[2.5000, 2.5000, 2.5000]\nC-E2:\tNeutral;\t()\n"
        texts.setdefault(evaluation_file(root, name), [HEADER]).append(line)
        wave_file(root, name).parent.mkdir(parents=True, exist_ok=True)
        wave_file(root, name).write_text(name)
    for file, lines in texts.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(lines))
    return root


def make_official(root: Path) -> None:
    """Everything else that the release has: none of it names an utterance."""
    for file in [*root.rglob("*.txt"), *root.rglob("*.wav")]:
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\26\7[1.0 - 2.0]\tSes01F_impro01_F777\tneu\t[1, 1, 1]\n")
    for session in sorted(root.glob("Session?")):
        for folder in ("Attribute", "Categorical", "Self-evaluation"):
            file = session / "dialog" / "EmoEvaluation" / folder / "Ses01F_impro01_e2_cat.txt"
            file.parent.mkdir()
            file.write_text("[1.0 - 2.0]\tSes01F_impro01_F000\tang\t[1, 1, 1]\n")
        for file in (
            "dialog/transcriptions/Ses01F_impro01.txt",
            "dialog/wav/Ses01F_impro01.wav",
            "dialog/lab/Ses01F_F/Ses01F_impro01.lab",
            "dialog/avi/DivX/Ses01F_impro01.avi",
            "dialog/MOCAP_head/Ses01F_impro01.txt",
            "sentences/ForcedAlignment/Ses01F_impro01/Ses01F_impro01_F000.wdseg",
        ):
            (session / file).parent.mkdir(parents=True, exist_ok=True)
            (session / file).write_text("[not a label")
    (root / "Documentation").mkdir()
    (root / "README.txt").write_text("IEMOCAP")


def rename_as_published(root: Path, every: int = 1) -> None:
    """What the published code left behind: every n-th recording renamed, and no journal. Written out, not computed."""
    names = {
        "Ses01F_impro01_F000": "Ses01F-impro01-01-01-F000",
        "Ses01F_impro01_M000": "Ses01F-impro01-04-01-M000",
        "Ses01F_impro01_M001": "Ses01F-impro01-05-01-M001",
        "Ses01M_script01_1_F000": "Ses01M-script01-07-01-1_F000",
        "Ses02F_impro02_M000": "Ses02F-impro02-03-01-M000",
        "Ses03M_impro05a_F000": "Ses03M-impro05a-02-01-F000",
        "Ses03M_impro05a_M000": "Ses03M-impro05a-09-01-M000",
        "Ses03M_impro05b_M000": "Ses03M-impro05b-08-01-M000",
        "Ses03M_script03_2_F032": "Ses03M-script03-01-01-2_F032",
        "Ses04F_script02_2_M001": "Ses04F-script02-06-01-2_M001",
        "Ses05M_script01_1_F000": "Ses05M-script01-01-01-1_F000",
        "Ses05M_script01_1b_F000": "Ses05M-script01-07-01-1b_F000",
        "Ses05M_script01_1b_M000": "Ses05M-script01-04-01-1b_M000",
    }
    for old, new in list(names.items())[::every]:
        wave_file(root, old).rename(wave_file(root, old).with_name(f"{new}.wav"))


SHAPES: dict[str, list[Callable[[Path], object]]] = {
    "official": [make_official],
    "reduced": [],
    "renamed": [make_official, rename_as_published],
    "mixed": [lambda root: rename_as_published(root, every=2)],
    "renamed here": [handle.rename],
}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    return write_release(tmp_path / "IEMOCAP_full_release")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(path, "CACHE", tmp_path / "cache")
    monkeypatch.setenv("GLAM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def snapshot(root: Path) -> dict[str, tuple]:
    """Everything under a folder: names, times and bytes; for folders their times."""
    state = {}
    for file in sorted([root, *root.rglob("*")]):
        stat = file.lstat()
        content = file.read_bytes() if file.is_file() else None
        state[str(file.relative_to(root))] = (stat.st_mode, stat.st_mtime_ns, content)
    return state


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}


# --- reading -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_gives_the_same_utterances_in_the_same_order(release: Path, shape: str) -> None:
    for change in SHAPES[shape]:
        change(release)
    before = snapshot(release)
    found, problems = handle.read(release)
    assert not problems, problems.text()
    assert [u.name for u in found] == ORDER
    assert {u.name: u.emotion for u in found} == LABELS
    assert [Path(u.path).read_text() for u in found] == ORDER  # each one's own recording, whatever it is called
    assert handle.index(release) == found == handle.read(release)[0]
    assert snapshot(release) == before


def test_fields(release: Path) -> None:
    found = {u.name: u for u in handle.read(release)[0]}
    u = found["Ses01F_impro01_M001"]
    assert (u.speaker, u.session, u.dialog, u.kind, u.emotion) == ("Ses01M", "1", "Ses01F_impro01", "impro", "ang")
    u = found["Ses05M_script01_1b_F000"]
    assert (u.speaker, u.session, u.dialog, u.kind) == ("Ses05F", "5", "Ses05M_script01_1b", "script")
    assert Path(u.path) == wave_file(release, u.name)
    assert all(Path(u.path).is_absolute() for u in found.values())


def test_order_is_that_of_the_renamed_paths_as_strings(release: Path) -> None:
    handle.rename(release)
    files = sorted(str(file.relative_to(release)) for file in release.glob("Session?/sentences/wav/*/*.wav"))
    assert [os.path.relpath(u.path, release) for u in handle.read(release)[0]] == files


@pytest.mark.parametrize("shape", ["as laid out", "renamed", "mixed"])
def test_order_gives_the_published_split(emodb_iemocap: Path, tmp_path: Path, golden: dict, shape: str) -> None:
    root = tmp_path / "release"
    shutil.copytree(emodb_iemocap, root, copy_function=os.link)
    if shape != "as laid out":
        moves = handle.rename(root)
        for old, new in list(moves.items())[:: 1 if shape == "mixed" else len(moves)][1::2]:
            (root / new).rename(root / old)
    published = golden["split"]
    usable = []
    for u in handle.read(root)[0]:
        with wave.open(u.path) as w:
            if u.kind == published["dataset"] and u.emotion in ("neu", "sad", "ang", "exc") and w.getnframes() >= 28800:
                usable.append(u.name)
    assert len(usable) == published["n"]
    np.random.seed(published["seed"])
    train = np.random.choice(range(len(usable)), int(len(usable) * 0.8), replace=False)
    assert [usable[i] for i in train] == published["train"]
    assert [name for name in usable if name not in published["train"]] == published["test"]


def test_root_may_be_the_folder_above_a_relative_path_or_a_link(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = handle.read(release)[0]
    assert handle.read(release.parent)[0] == expected
    monkeypatch.chdir(release.parent)
    assert handle.read(Path(release.name))[0] == expected
    monkeypatch.setattr(path, "IEMOCAP", release)
    assert handle.read()[0] == expected == handle.index()
    Path("link").symlink_to(release)
    assert [u.name for u in handle.read(Path("link"))[0]] == ORDER
    with pytest.raises(UserError, match="several releases, IEMOCAP_full_release, link"):
        handle.read(release.parent)[0]


@pytest.mark.parametrize("session", range(1, 6))
def test_one_session_is_a_release(release: Path, session: int) -> None:
    for folder in release.glob("Session?"):
        if folder.name != f"Session{session}":
            shutil.rmtree(folder)
    assert [u.name for u in handle.read(release)[0]] == [name for name in ORDER if name[4] == str(session)]


def test_a_release_of_links_is_read_and_a_broken_link_is_no_recording(release: Path, tmp_path: Path) -> None:
    file = wave_file(release, ORDER[0])
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert len(handle.read(release)[0]) == len(ORDER)
    (tmp_path / "elsewhere").unlink()
    found, problems = handle.read(release)
    assert len(found) == len(ORDER) - 1
    assert problems.without_wave == [ORDER[0]]
    assert "broken link" in problems.strange[0]
    file.unlink()
    file.symlink_to(file.name)  # in a circle
    assert "broken link" in handle.read(release)[1].strange[0]


def test_endings_in_capitals_are_endings(release: Path) -> None:
    wave_file(release, ORDER[0]).rename(wave_file(release, ORDER[0]).with_suffix(".WAV"))
    _, problems = handle.read(release)
    assert problems.without_wave == [ORDER[0]] and problems.strange[0].endswith(f"{ORDER[0]}.WAV")


def test_a_rename_tells_of_labels_that_it_could_not_read(release: Path, capsys: pytest.CaptureFixture) -> None:
    file = sorted(release.glob("Session1/dialog/EmoEvaluation/*.txt"))[0]
    file.unlink()
    file.symlink_to("nowhere")
    handle.rename(release)
    assert (
        f"evaluation files without a readable label: 1, as {file.relative_to(release)}: not a file"
        in capsys.readouterr().err
    )


def test_of_two_renames_at_once_the_slower_says_to_look_again(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse, count = handle._refuse_clashes, len(handle.rename(release, dry_run=True))

    def overtaken(*given: object) -> None:
        monkeypatch.setattr(handle, "_refuse_clashes", refuse)
        assert len(handle.rename(release)) == count
        refuse(*given)

    monkeypatch.setattr(handle, "_refuse_clashes", overtaken)
    with pytest.raises(UserError, match="went away meanwhile; run the same command again"):
        handle.rename(release)
    assert handle.rename(release) == {} and len(list(release.rglob("Ses0??-*.wav"))) == count


def test_a_rename_that_the_system_refuses_says_what_it_left(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, count = Path.rename, len(handle.rename(release, dry_run=True))

    def refuse(file: Path, target: Path) -> Path:
        if "Session3" in str(file):
            raise PermissionError(13, "Permission denied", str(file))
        return rename(file, target)

    before = sorted(release.rglob("*"))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", refuse)
        with pytest.raises(
            UserError, match=rf"cannot rename .*Session3.*\(Permission denied\): \d of {count} are"
        ) as told:
            handle.rename(release)
    done = len(list(release.rglob("Ses0??-*.wav")))
    assert 0 < done < count and f": {done} of {count} are renamed; give the same command again" in str(told.value)
    assert len(handle.rename(release)) == count - done
    handle.restore(release)
    assert sorted(release.rglob("*")) == before


def test_a_journal_that_cannot_be_read_is_not_called_wrong(release: Path) -> None:
    (release / JOURNAL).mkdir()
    for command in (handle.rename, handle.restore):
        with pytest.raises(OSError, match=JOURNAL):
            command(release)


@pytest.mark.parametrize("content", ["missing", "file", "empty", "other", "no match"])
def test_no_release_is_a_sentence_that_says_what_was_expected(tmp_path: Path, content: str) -> None:
    root = tmp_path / "release"
    if content == "file":
        root.write_text("")
    elif content != "missing":
        root.mkdir()
    if content == "other":
        (root / "Session1").mkdir()
        (root / "Actor_01").mkdir()
    if content == "no match":
        write_release(root, {"Ses01F_impro01_F000": "neu", "Ses01F_impro01_F001": "neu"})
        wave_file(root, "Ses01F_impro01_F000").unlink()
        evaluation_file(root, "Ses01F_impro01_F001").write_text("")
    with pytest.raises(UserError) as caught:
        handle.index(root)
    for word in (str(root), "IEMOCAP", "path.py", "dialog/EmoEvaluation", "sentences/wav"):
        assert word in str(caught.value)


# --- problems ----------------------------------------------------------------------------------------------------


def test_what_is_missing_is_listed_and_left_out(release: Path) -> None:
    wave_file(release, "Ses01F_impro01_F000").unlink()
    wave_file(release, "Ses01F_impro01_F009").write_text("")
    (release / "Session4").rename(release / "Elsewhere")
    shutil.rmtree(release / "Session2" / "dialog")
    found, problems = handle.read(release)
    lost = {"Ses01F_impro01_F000", "Ses04F_script02_2_M001", "Ses02F_impro02_M000"}
    assert {u.name for u in found} == set(ORDER) - lost
    assert problems.without_wave == ["Ses01F_impro01_F000"]
    assert [Path(file).stem for file in problems.without_label] == ["Ses01F_impro01_F009", "Ses02F_impro02_M000"]
    assert len(problems) == 3


def test_duplicates_and_contradictions(release: Path) -> None:
    name = "Ses01F_impro01_F000"
    file = wave_file(release, name)
    # faults, line by line: a recording twice; a sad one named as if angry; one in another's folder; a second label
    shutil.copy(file, file.with_name("Ses01F-impro01-01-01-F000.wav"))
    wave_file(release, "Ses01F_impro01_M000").rename(file.with_name("Ses01F-impro01-05-01-M000.wav"))
    wave_file(release, "Ses01M_script01_1_F000").rename(file.with_name("Ses01M_script01_1_F000.wav"))
    labels = evaluation_file(release, "Ses03M_impro05a_F000")
    labels.write_text(labels.read_text() + f"[1.0 - 2.0]\t{name}\tsad\t[1, 1, 1]\n")
    found, problems = handle.read(release)
    assert sorted(u.name for u in found) == sorted(LABELS)
    by_name = {u.name: u for u in found}
    assert (by_name[name].emotion, by_name[name].path) == ("neu", str(file))
    assert by_name["Ses01F_impro01_M000"].emotion == "sad"
    assert [case.partition(":")[0] for case in problems.duplicates] == [name, name]
    assert len(problems.mismatches) == 3
    assert len(problems) == 5
    assert "Ses01F-impro01-05-01-M000.wav: labelled sad, which is not 05" in problems.text()


def test_files_that_are_no_utterance_are_listed(release: Path) -> None:
    folder = wave_file(release, ORDER[0]).parent
    for name in ("Ses06F_impro01_F000", "Ses01F_impro1_F000", "Ses01F_impro01_X000", "Ses01F-impro01-1-01-F000",
                 "Ses01F_impro01_F000 (1)", "Ses01F_impro01_F００1", "noise"):  # fmt: skip
        (folder / f"{name}.wav").write_text("")
    os.close(os.open(os.fsencode(folder) + b"/Ses01F_impro01_\xff.wav", os.O_CREAT))
    (folder / "Ses01F_impro01_F444.wav").mkdir()
    (folder / "Thumbs.db").write_text("")
    _, problems = handle.read(release)
    assert len(problems.strange) == len(problems) == 9
    assert problems.text().encode()  # can be printed
    handle.index(release)


@pytest.mark.parametrize(
    "line",
    [
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tnue\t[2.5, 2.5, 2.5]",
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\t\t[2.5, 2.5, 2.5]",
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu",
        "[6.2901 - ]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]",
        "[6.2901 - 8.2357]\tSes01F_impro01\tneu\t[2.5, 2.5, 2.5]",
        "[6.2901 - 8.2357]\tSes01F-impro01-01-01-F000\tneu\t[2.5, 2.5, 2.5]",
        "[6.2901 - 8.2357]\tSes01F_impro01_F000\tNEU\t[2.5, 2.5, 2.5] and more",
        "[" + "1" * 200_000,
        "[1 - 2]\t" + " " * 200_000,
        "[\0",
    ],
)
def test_a_label_line_that_cannot_be_understood_is_a_problem(line: str) -> None:
    good = "[0.1 - 0.2]\tSes01F_impro01_M000\tsad\t[2, 2, 2]"
    started = time.process_time()
    labels, malformed = handle.parse_labels(f"% header\n{line}\n{good}\n")
    assert labels == [("Ses01F_impro01_M000", "sad")]
    assert len(malformed) == 1
    assert malformed[0].startswith("line 2: '[")
    assert len(malformed[0]) < 600
    assert time.process_time() - started < 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_line_ends_and_byte_order_marks_do_not_matter(release: Path, end: str, encoding: str) -> None:
    for file in release.rglob("*.txt"):
        lines = file.read_text().splitlines()[1:]  # without the header, so that a label follows the mark
        file.write_bytes(end.join(lines).encode(encoding))
    found, problems = handle.read(release)
    assert [u.name for u in found] == ORDER
    assert not problems


def test_absurd_evaluation_files_are_problems(release: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handle, "LONGEST", 5000)
    folder = release / "Session1" / "dialog" / "EmoEvaluation"
    (folder / "Ses01F_impro02.txt").write_bytes(bytes(range(256)) * 4)
    (folder / "Ses01F_impro03.txt").write_bytes(b"[" * 5001)
    (folder / "Ses01F_impro04.txt").write_bytes(b"")
    (folder / "Ses01F_impro05.txt").symlink_to("nowhere")
    os.mkfifo(folder / "Ses01F_impro06.txt")
    (folder / "Ses01F_impro07.txt").mkdir()  # a folder, as Categorical is
    (folder / "Ses01F_impro07.txt" / "Ses01F_impro07.txt").write_text("[")
    (folder / "Ses01M_impro01.txt").write_text("[1.0 - 2.0]\tSes01M_impro01_F000\tneu\t[1, 1, 1]\n", encoding="utf-16")
    found, problems = handle.read(release)
    assert [u.name for u in found] == ORDER
    assert len(problems.unreadable) == len(problems) == 6


@given(st.binary(max_size=300))
@example(b"[1 - 2]\tSes01F_impro01_F000\tneu\t[1]")
def test_any_bytes_give_labels_or_problems(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.getbasetemp() / "fuzzed"
    if not root.exists():
        write_release(root)
    evaluation_file(root, "Ses01F_impro01_F000").write_bytes(data)
    found, problems = handle.read(root)
    assert {u.name for u in found} >= {name for name in LABELS if "Ses01F" not in name}
    problems.text(None).encode()


LINE = st.tuples(
    st.sampled_from(["[", "% ", "A-E3:", " ["]),
    st.text("0123456789. -", max_size=12),
    st.sampled_from(["]\t", "] ", "\t", "]"]),
    st.sampled_from([*LABELS, "Ses01F_impro01", "Ses09F_impro01_F000", "é"]),
    st.sampled_from(["\t", " ", "", "\t\t"]),
    st.sampled_from([*EMOTIONS, "NEU", "neutral", ""]),
    st.sampled_from(["\t[2.5, 2.5, 2.5]", "\t[]", "", "\t[[", "\x0b[1]", "\u2028"]),
).map("".join)


@given(st.lists(st.one_of(LINE, st.text(max_size=60)), max_size=20))
def test_labels_are_always_known_names_and_emotions(lines: list[str]) -> None:
    labels, malformed = handle.parse_labels("\n".join(lines))
    assert all(handle.OFFICIAL.fullmatch(name) and emotion in EMOTIONS for name, emotion in labels)
    starts = sum(line.startswith("[") for text in lines for line in text.replace("\r", "\n").split("\n"))
    assert len(labels) + len(malformed) == starts


@given(
    st.from_regex(r"Ses0[1-5][FM]_(impro[0-9]{2}[ab]?|script[0-9]{2}_[0-9]b?)_[FM][0-9]{3}", fullmatch=True),
    st.sampled_from(EMOTIONS),
)
def test_renaming_can_be_undone(name: str, emotion: str) -> None:
    assert handle.official(handle.renamed(name, emotion)) == (name, CODES.get(emotion, ""))
    assert handle.official(name) == (name, "")


def test_renamed_names_are_the_published_ones() -> None:
    assert handle.renamed("Ses01F_impro01_F000", "neu") == "Ses01F-impro01-01-01-F000"
    assert handle.renamed("Ses03M_script03_2_F032", "xxx") == "Ses03M-script03-09-01-2_F032"
    assert handle.renamed("Ses03M_script03_2_F032", "oth") == "Ses03M_script03_2_F032"


# --- counts ------------------------------------------------------------------------------------------------------


def full_release(root: Path) -> Path:
    """A release with exactly the real one's counts, of empty recordings."""
    left = {row: dict(zip(EMOTIONS, FULL[row], strict=True)) for row in FULL}
    usual = dict(handle.FULL_SPEAKERS)  # how many of the four usual classes are still to be given to each speaker
    heard: Counter[tuple[str, str]] = Counter()
    lines: dict[Path, list[str]] = {}
    for session in range(1, 6):
        for emotion in EMOTIONS:
            for i in range(left[f"Session{session}"][emotion]):
                kind = "impro" if left["improvised"][emotion] else "script"
                left["improvised"][emotion] -= kind == "impro"
                topic = f"impro{i % 7 + 1:02d}" if kind == "impro" else f"script01_{i % 3 + 1}"
                dialog, letter = f"Ses{session:02d}{'FM'[i // 7 % 2]}_{topic}", random.Random(i).choice("FM")
                if emotion in ("neu", "hap", "exc", "sad", "ang"):
                    letter = letter if usual[f"Ses{session:02d}{letter}"] else "MF"["FM".index(letter)]
                    usual[f"Ses{session:02d}{letter}"] -= 1
                name = f"{dialog}_{letter}{heard[dialog, letter]:03d}"
                heard[dialog, letter] += 1
                lines.setdefault(evaluation_file(root, name), []).append(f"[1.0 - 2.0]\t{name}\t{emotion}\t[1, 1, 1]")
                file = wave_file(root, name)
                if heard[dialog, "F"] + heard[dialog, "M"] == 1:
                    file.parent.mkdir(parents=True)
                os.close(os.open(file, os.O_CREAT))
    for file, labels in lines.items():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("\n".join(labels))
    return root


def test_known_counts_are_consistent() -> None:
    sessions = [FULL[row] for row in FULL if row.startswith("Session")]
    assert np.array_equal(np.sum(sessions, axis=0), FULL["all"])
    assert np.array_equal(np.add(FULL["improvised"], FULL["scripted"]), FULL["all"])
    assert [sum(FULL[row]) for row in FULL] == [10039, 4784, 5255, 1819, 1811, 2136, 2103, 2170]
    assert all(len(row) == len(EMOTIONS) for row in FULL.values())
    usual = [EMOTIONS.index(emotion) for emotion in ("neu", "hap", "exc", "sad", "ang")]
    for n in range(1, 6):
        speakers = [count for name, count in handle.FULL_SPEAKERS.items() if name.startswith(f"Ses0{n}")]
        assert sum(speakers) == sum(FULL[f"Session{n}"][i] for i in usual)
    assert sum(handle.FULL_SPEAKERS.values()) == 5531
    assert handle.USABLE == {"impro": 2236, "script": 2075, "all": 4311}


def test_a_full_release_is_recognised_quickly_and_what_differs_is_named(tmp_path: Path) -> None:
    root = full_release(tmp_path / "IEMOCAP_full_release")
    started = time.process_time()
    found, problems = handle.read(root)
    assert time.process_time() - started < 5
    assert (len(found), len(problems), len({u.speaker for u in found})) == (10039, 0, 10)
    text = handle.report(root, found, problems)
    assert "complete release" in text
    assert "all         1708   595  1041  1084  1103  1849   107    40     2     3  2507 10039" in text
    assert handle.index(root) == found
    started = time.process_time()
    assert handle.index(root) == found
    assert time.process_time() - started < 2

    one = next(u for u in found if (u.speaker, u.emotion) == ("Ses02F", "sad"))
    moved = [replace(u, speaker="Ses02M") if u == one else u for u in found]  # as by the name's first letter
    text = handle.report(root, moved, problems)
    assert "Ses02F: 480 of the usual four classes, not 481" in text and "Ses02M: 543" in text
    assert "complete release" not in text

    Path(next(u for u in found if (u.session, u.kind, u.emotion) == ("1", "impro", "fea")).path).unlink()
    text = handle.report(root, *handle.read(root))
    assert "complete release" not in text
    for line in ("all: fea 39, not 40", "improvised: fea 7, not 8", "Session1: fea 11, not 12", "1 labels without a"):
        assert line in text
    assert "Session2:" not in text


def test_a_small_release_is_simply_not_the_full_one(release: Path) -> None:
    counts = handle.count(handle.read(release)[0])
    assert counts["all"] == [Counter(LABELS.values())[emotion] for emotion in EMOTIONS]
    assert sum(counts["improvised"]) == 8
    assert (sum(counts["Ses05F"]), sum(counts["Ses05M"]), "Ses04F" in counts) == (2, 1, False)
    told = "not the full release, which has 10039 utterances; here are 15"
    assert handle.compare(counts) == told
    assert handle.compare({**counts, "Session3": [0] * len(EMOTIONS)}) == f"{told}, none of Session3"
    table = handle.table(counts, ["all", "Ses05M"]).split("\n")
    assert len({len(line) for line in table}) == 1
    assert table[1].split() == ["all", *map(str, counts["all"]), "15"]


def test_a_synthetic_release_is_called_so(release: Path) -> None:
    assert "a synthetic release" not in handle.report(release, *handle.read(release))
    (release / handle.SYNTHETIC).touch()
    text = handle.report(release, *handle.read(release))
    assert "a synthetic release, made by" in text and "not the full release" not in text


# --- the index ---------------------------------------------------------------------------------------------------


def names_in(index: Path) -> list[str]:
    with open(index, newline="", encoding="utf-8") as f:
        return [row["name"] for row in csv.DictReader(f)]


def test_an_index_that_says_the_same_is_not_written_again(release: Path) -> None:
    assert handle.index(release) == handle.read(release)[0]
    file = handle.index_file(release)
    before = file.stat().st_ctime_ns
    handle.index(release)
    assert file.stat().st_ctime_ns == before and names_in(file) == ORDER


def relabel(root: Path) -> None:
    file = evaluation_file(root, ORDER[0])
    stat = file.stat()
    file.write_text(file.read_text().replace("\tneu\t", "\tang\t"))  # the same size ..
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # .. and the same time


CHANGES: dict[str, Callable[[Path], object]] = {
    "removed": lambda root: wave_file(root, ORDER[0]).unlink(),
    "added": lambda root: write_release(root, {"Ses02F_impro02_F009": "ang"}),
    "renamed": handle.rename,
    "replaced": lambda root: wave_file(root, ORDER[0]).write_text("another recording"),
    "relabelled": relabel,
}


@pytest.mark.parametrize("change", CHANGES)
def test_an_index_is_made_anew_after_a_change(release: Path, change: str) -> None:
    handle.index(release)
    CHANGES[change](release)
    found = handle.index(release)
    assert found == handle.read(release)[0]
    assert names_in(handle.index_file(release)) == [u.name for u in found]


@pytest.mark.parametrize("damage", ["truncated", "edited", "binary", "missing"])
def test_a_damaged_index_is_made_anew(release: Path, damage: str) -> None:
    found = handle.index(release)
    file = handle.index_file(release)
    whole = file.read_bytes()
    if damage == "truncated":
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:-2]))
    elif damage == "edited":
        file.write_text(file.read_text().replace(",neu", ",ang"))
    elif damage == "binary":
        file.write_bytes(bytes(range(256)))
    else:
        file.unlink()
    assert handle.index(release) == found and file.read_bytes() == whole


def test_releases_have_indexes_of_their_own(release: Path, tmp_path: Path, cache: Path) -> None:
    other = write_release(tmp_path / "other" / "IEMOCAP_full_release", {"Ses01F_impro01_F000": "sad"})
    assert len(handle.index(release)) == len(ORDER)
    assert len(handle.index(other)) == 1
    assert len(handle.index(release)) == len(ORDER)
    assert len(list((cache / "index").glob("*.csv"))) == 2


def test_index_warns_of_problems_whether_it_is_made_or_there(release: Path, capsys: pytest.CaptureFixture) -> None:
    wave_file(release, ORDER[0]).unlink()
    wave_file(release, ORDER[1]).rename(wave_file(release, ORDER[1]).with_stem("Ses01F_impro01_F777"))
    for _ in range(2):
        cli.warn_once.cache_clear()
        handle.index(release)
        told = f"{release}: 2 labels without a recording, 1 recordings without a label; `python handleIEMOCAP.py`"
        assert told in capsys.readouterr().err


def test_a_release_without_utterances_lists_its_problems_if_asked(release: Path, command) -> None:
    for name in ORDER:
        wave_file(release, name).unlink()
    for words, count in (((), 3), (("--verbose",), len(ORDER))):
        error = command("handleIEMOCAP.py", "--root", release, *words, status=2).stderr
        assert "has no utterance with both" in error and ("lists them with --verbose" in error) == (not words)
        assert sum(f"  {name}" in error for name in ORDER) == count


# --- rename and restore ------------------------------------------------------------------------------------------


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`interrupt(n)`: Ctrl-C comes instead of the n-th move from now on; `interrupt(-1)`: never."""
    moved, rename = 0, Path.rename

    def counted(self: Path, target: Path) -> Path:
        nonlocal moved
        if moved == 0:
            raise KeyboardInterrupt
        moved -= 1
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", counted)

    def after(moves: int) -> None:
        nonlocal moved
        moved = moves

    after(-1)
    return after


def test_rename_is_the_published_one_and_restore_undoes_it(release: Path, tmp_path: Path) -> None:
    make_official(release)
    twin = tmp_path / "twin"
    shutil.copytree(release, twin)
    rename_as_published(twin)
    before = contents(release)
    moves = handle.rename(release)
    assert len(moves) == 13
    after = contents(release)
    rows = list(csv.reader(after.pop(JOURNAL).decode().splitlines()))
    assert after == contents(twin)
    assert rows == [["old", "new"], *map(list, moves.items())]
    assert handle.restore(release) == {new: old for old, new in moves.items()}
    assert contents(release) == before


def test_rename_twice_and_restore_twice_are_rename_and_restore(release: Path) -> None:
    before = contents(release)
    handle.rename(release)
    after = contents(release)
    assert handle.rename(release) == {}
    assert contents(release) == after
    handle.restore(release)
    assert handle.restore(release) == {}
    assert contents(release) == before


@pytest.mark.parametrize("moves", [0, 1, 6, 12])
def test_an_interrupted_rename_can_be_undone_or_completed(release: Path, interrupt: Callable, moves: int) -> None:
    before = contents(release)
    interrupt(moves)
    with pytest.raises(KeyboardInterrupt):
        handle.rename(release)
    interrupt(-1)
    assert len(set(contents(release)) - set(before)) == moves + 1
    assert [u.name for u in handle.read(release)[0]] == ORDER
    assert len(handle.restore(release)) == moves
    assert contents(release) == before

    interrupt(moves)
    with pytest.raises(KeyboardInterrupt):
        handle.rename(release)
    interrupt(-1)
    assert len(handle.rename(release)) == 13 - moves
    assert handle.rename(release) == {}
    assert len(handle.restore(release)) == 13
    assert contents(release) == before


@pytest.mark.parametrize("moves", [0, 1, 12])
@pytest.mark.parametrize("journal", [True, False])
def test_an_interrupted_restore_can_be_completed(release: Path, interrupt: Callable, moves: int, journal: bool) -> None:
    before = contents(release)
    handle.rename(release)
    if not journal:
        (release / JOURNAL).unlink()
    interrupt(moves)
    with pytest.raises(KeyboardInterrupt):
        handle.restore(release)
    interrupt(-1)
    assert [u.name for u in handle.read(release)[0]] == ORDER
    assert len(handle.restore(release)) == 13 - moves
    assert contents(release) == before


def test_an_interrupted_restore_of_a_mixed_release_is_exact_too(release: Path, interrupt: Callable) -> None:
    rename_as_published(release, every=2)
    before = contents(release)
    handle.rename(release)
    interrupt(1)
    with pytest.raises(KeyboardInterrupt):
        handle.restore(release)
    interrupt(-1)
    handle.restore(release)
    assert contents(release) == before  # as it was before, with some names not official


def test_restore_of_what_the_published_code_renamed(release: Path) -> None:
    before = contents(release)
    rename_as_published(release)
    handle.restore(release)
    assert contents(release) == before


def test_restore_of_a_mixed_release_is_exact_first(release: Path) -> None:
    rename_as_published(release, every=2)
    before = contents(release)
    handle.rename(release)
    handle.restore(release)
    assert contents(release) == before  # as it was before, with some names not official
    handle.restore(release)
    assert sorted(file.stem for file in release.rglob("*.wav")) == sorted(LABELS)


def test_recordings_added_after_a_rename_are_restored_too(release: Path) -> None:
    handle.rename(release)
    write_release(release, {"Ses02F_impro02_F009": "ang"})
    assert list(handle.rename(release)) == ["Session2/sentences/wav/Ses02F_impro02/Ses02F_impro02_F009.wav"]
    assert len(handle.restore(release)) == 14
    assert not any("-" in file.stem for file in release.rglob("*.wav"))


def test_a_recording_lost_after_a_rename_is_no_obstacle(release: Path, capsys: pytest.CaptureFixture) -> None:
    handle.rename(release)
    next(release.rglob("Ses01F-impro01-01-01-F000.wav")).unlink()
    assert len(handle.restore(release)) == 12
    assert "1 recordings in" in capsys.readouterr().err
    assert not (release / JOURNAL).exists()


@pytest.mark.parametrize("command", [handle.rename, handle.restore])
@pytest.mark.parametrize("kind", ["file", "broken link", "folder"])
def test_nothing_is_written_over(release: Path, command: Callable, kind: str) -> None:
    if command is handle.restore:
        handle.rename(release)
    name = "Ses05M_script01_1b_F000" if command is handle.restore else "Ses05M-script01-07-01-1b_F000"
    target = wave_file(release, "Ses05M_script01_1b_F000").with_name(f"{name}.wav")
    if kind == "file":
        target.write_text("something else")
    elif kind == "folder":
        target.mkdir()
    else:
        target.symlink_to("nowhere")
    before = snapshot(release)
    with pytest.raises(UserError, match="nothing renamed"):
        command(release)
    assert snapshot(release) == before


def test_rename_refuses_two_recordings_of_one_name(release: Path) -> None:
    file = wave_file(release, "Ses01F_impro01_F000")  # its label is neu, so its own new name is not taken
    shutil.copy(file, file.with_name("Ses01F-impro01-05-01-F000.wav"))
    before = snapshot(release)
    with pytest.raises(UserError, match=r"nothing renamed .* are both Ses01F_impro01_F000; remove one"):
        handle.rename(release)
    assert snapshot(release) == before


def test_restore_refuses_two_recordings_of_one_name(release: Path) -> None:
    handle.rename(release)
    (release / JOURNAL).unlink()
    file = next(release.rglob("Ses01F-impro01-01-01-F000.wav"))
    shutil.copy(file, file.with_name("Ses01F-impro01-05-01-F000.wav"))
    before = snapshot(release)
    with pytest.raises(UserError, match="twice"):
        handle.restore(release)
    assert snapshot(release) == before


@pytest.mark.parametrize(
    "journal",
    [
        b"",
        b"nonsense",
        b"\0",
        b"\xff\xfe",
        b'old,new\n"',
        b"old,new\na,b\n",
        b"old,new\n../a.wav,../b.wav\n",
        b"old,new\n{}d/Ses01F_impro01_F000.wav\n",
        b"old,new\n{}../Ses01F_impro01_F000.wav,{}../Ses01F-impro01-01-01-F000.wav\n",
        b"old,new\n{}d/Ses01F_impro01_F000.wav,{}d/Ses01F-impro01-01-01-F001.wav\n",
        b"old,new\n{}d/Ses01F_impro01_F000.wav,/etc/Ses01F-impro01-01-01-F000.wav\n",
    ],
)
def test_a_journal_that_is_none_is_refused(release: Path, journal: bytes) -> None:
    (release / JOURNAL).write_bytes(journal.replace(b"{}", b"Session1/sentences/wav/"))
    before = snapshot(release)
    for command in (handle.rename, handle.restore):
        with pytest.raises(UserError, match=f"{JOURNAL}, line .* delete the file"):
            command(release)
    assert snapshot(release) == before


def test_a_label_that_changed_after_the_rename_is_told_and_restored(release: Path) -> None:
    before = contents(release)
    handle.rename(release)
    labels = evaluation_file(release, ORDER[0])
    text = labels.read_text()
    labels.write_text(text.replace("\tneu\t", "\tang\t"))
    _, problems = handle.read(release)
    assert len(problems.mismatches) == 1
    assert handle.rename(release) == {}
    handle.restore(release)
    labels.write_text(text)
    assert contents(release) == before


# --- the command -------------------------------------------------------------------------------------------------


def test_command_prints_counts_and_writes_the_index(release: Path, cache: Path, command) -> None:
    before = snapshot(release)
    done = command("handleIEMOCAP.py", "--root", release)
    for text in ("15 utterances of 8 speakers", "Ses05F", "not the full release", "no problems", str(cache)):
        assert text in done.stdout
    assert snapshot(release) == before
    assert names_in(handle.index_file(release)) == ORDER


def test_command_lists_twenty_problems_or_all(release: Path, command) -> None:
    labels = evaluation_file(release, ORDER[0])
    labels.write_text(labels.read_text() + "[nonsense\n" * 30)
    done = command("handleIEMOCAP.py", "--root", release)
    assert "30 label lines that cannot be understood" in done.stdout
    assert ".. and 10 more: handleIEMOCAP.py lists them with --verbose" in done.stdout
    assert done.stdout.count("'[nonsense'") == 20
    assert command("handleIEMOCAP.py", "--root", release, "--verbose").stdout.count("'[nonsense'") == 30


def test_command_lists_empty_recordings(release: Path, command) -> None:
    wave_file(release, ORDER[3]).write_bytes(b"")
    told = command("handleIEMOCAP.py", "--root", release).stdout
    assert f"1 recordings of 0 bytes, as a full disk leaves\n  {ORDER[3]}\n" in told and ORDER[4] not in told


def test_counts_are_printed_also_where_the_index_cannot_be_kept(release: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {**os.environ, "GLAM_CACHE": str(tmp_path / "file" / "cache")}
    done = subprocess.run([sys.executable, "handleIEMOCAP.py", "--root", release], cwd=ROOT, env=environment,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 2 and "15 utterances of 8 speakers" in done.stdout and "cannot use" in done.stderr


def test_dry_run_changes_nothing(release: Path, cache: Path, command) -> None:
    before = snapshot(release)
    done = command("handleIEMOCAP.py", "--root", release, "--rename", "--dry_run")
    assert "13 recordings would be renamed" in done.stdout
    assert "Ses01F_impro01_F000.wav -> Session1/" in done.stdout
    assert snapshot(release) == before
    assert "13 recordings renamed" in command("handleIEMOCAP.py", "--root", release, "--rename").stdout
    renamed = snapshot(release)
    done = command("handleIEMOCAP.py", "--root", release, "--restore", "--dry_run")
    assert "13 recordings would be restored" in done.stdout
    assert snapshot(release) == renamed
    command("handleIEMOCAP.py", "--root", release, "--restore")
    assert contents(release) == {name: state[2] for name, state in before.items() if state[2] is not None}
    assert not cache.exists()


def test_restore_says_when_others_are_left(release: Path, command) -> None:
    rename_as_published(release, every=2)
    command("handleIEMOCAP.py", "--root", release, "--rename")
    assert "7 others were renamed before --rename" in command("handleIEMOCAP.py", "--root", release, "--restore").stdout
    assert "others" not in command("handleIEMOCAP.py", "--root", release, "--restore").stdout


def test_environment_names_the_release(release: Path, command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IEMOCAP", str(release))
    assert str(release) in command("handleIEMOCAP.py").stdout
    monkeypatch.setenv("IEMOCAP", str(release / "nothing"))
    done = command("handleIEMOCAP.py", status=2)
    assert done.stderr.startswith(f"error: no IEMOCAP release at {release / 'nothing'}")
    assert "train.py --dataset demo needs no release" in done.stderr  # whoever has none meets this first
    assert done.stdout == ""


def test_wrong_flags_are_refused(release: Path, command) -> None:
    assert "--dry_run" in command("handleIEMOCAP.py", "--root", release, "--dry_run", status=2).stderr
    command("handleIEMOCAP.py", "--root", release, "--rename", "--restore", status=2)
    command("handleIEMOCAP.py", "--root", release, "--ren", status=2)


def test_help_teaches(command) -> None:
    text = command("handleIEMOCAP.py", "--help").stdout
    for word in ("path.py", "--restore", "GLAM_renamed.csv", "EmoEvaluation"):
        assert word in text


def test_a_rename_killed_outright_is_undone(tmp_path: Path) -> None:
    names = {f"Ses0{s}F_impro01_{letter}{i:03d}": "neu" for s in range(1, 6) for letter in "FM" for i in range(20)}
    root = write_release(tmp_path / "big", names)
    before = contents(root)
    script = f"""
import os, signal
from pathlib import Path
import handleIEMOCAP
rename, moved = Path.rename, []
def at_the_50th(file, target):
    moved.append(rename(file, target))
    if len(moved) == 50:
        os.kill(os.getpid(), signal.SIGKILL)
Path.rename = at_the_50th
handleIEMOCAP.rename(Path({str(root)!r}))
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT).returncode == -signal.SIGKILL
    assert (root / JOURNAL).exists() and len(list(root.rglob("Ses0??-*.wav"))) == 50
    assert [u.name for u in handle.read(root)[0]] == sorted(names)
    handle.restore(root)
    assert contents(root) == before
