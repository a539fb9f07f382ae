"""Packed records are the records: smaller, read by everything, left alone where they are not sound."""

import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT, Command
from made_runs import guesses, make_run

import files
import pack
import records
from cli import UserError

LABELS = np.arange(40) % 4


def made(root: Path, predicted: Any, **options: Any) -> Path:
    return make_run(root, predicted, LABELS, settings={"epochs": len(predicted)}, **options)


def runs_in(root: Path) -> list[Path]:
    """Two finished runs, the second with a validation part."""
    accuracy = np.linspace(0.3, 0.9, 12).tolist()
    val = (LABELS[:20].tolist(), guesses(3, LABELS[:20], accuracy).tolist())
    return [made(root, guesses(1, LABELS, accuracy)), made(root, guesses(2, LABELS, accuracy), split="8:1:1", val=val)]


def content(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_everything_reads_the_same_from_less(tmp_path: Path, command: Command) -> None:
    folders = runs_in(tmp_path)
    found = [records.read_run(folder) for folder in folders]
    whole = [(run.epochs, records.read_record(run.folder / "split.json"), run.predictions("test")) for run in found]
    before = pack.size(folders)
    assert command("pack.py", tmp_path).stdout.startswith("2 of 2 runs packed; ")
    assert pack.size(folders) < before
    with zipfile.ZipFile(folders[0] / "predictions.npz") as packed, packed.open("test_logits.npy") as member:
        assert np.lib.format.read_magic(member) == (1, 0)
        assert np.lib.format.read_array_header_1_0(member)[1], "Fortran order, which compresses better"
    for folder, (epochs, split, part) in zip(folders, whole, strict=True):
        assert {f.name for f in folder.iterdir()} == {
            "config.json",
            "done",
            "epochs.jsonl.gz",
            "predictions.npz",
            "split.json.gz",
        }
        run = records.read_run(folder)
        assert run.epochs == epochs and records.read_record(folder / "split.json") == split
        again = run.predictions("test")
        for name in ("names", "speakers", "paths", "labels", "logits"):
            old, new = getattr(part, name), getattr(again, name)
            assert old.dtype == new.dtype and np.array_equal(old, new), name
        assert again.logits.flags.c_contiguous, "sums over logits depend on their order in memory"
        assert run.pick("paper") >= 0
    assert "2 run folders checked" in command("report.py", "--runs", tmp_path, "--audit").stdout


def test_packing_twice_changes_nothing_and_depends_on_nothing_else(tmp_path: Path, command: Command) -> None:
    (folder, _), (other, _) = runs_in(tmp_path / "a"), runs_in(tmp_path / "b")
    assert pack.pack(folder) and not pack.pack(folder)
    for name in ("epochs.jsonl.gz", "split.json.gz"):
        assert (folder / name).read_bytes()[4:8] == bytes(4), "no date"
    before = content(folder)
    assert command("pack.py", tmp_path / "a").stdout.startswith("1 of 2 runs packed") and content(folder) == before
    assert pack.pack(other) and content(other) == before


def test_a_packed_run_is_not_looked_into_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Of thousands that would take minutes."""
    packed, other = runs_in(tmp_path)
    assert pack.pack(packed)
    asked: list[Path] = []
    monkeypatch.setattr(pack.audit, "problems", lambda folder: asked.append(folder) or ["unfinished"])
    assert not pack.pack(packed) and asked == [] and not capsys.readouterr().err
    (packed / "done").unlink()
    assert not pack.pack(packed) and not pack.pack(other) and asked == [packed, other]


def test_a_packing_that_broke_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = runs_in(tmp_path)
    whole = records.read_run(folder).epochs
    with monkeypatch.context() as patch:
        patch.setattr(pack, "pack_arrays", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            pack.pack(folder)
    (folder / "epochs.jsonl").write_text("".join(records._text(folder / "epochs.jsonl")))  # killed before it went
    assert pack.pack(folder) and records.read_run(folder).epochs == whole
    assert pack.is_packed(folder / "predictions.npz") and not (folder / "epochs.jsonl").exists()


def test_what_a_killed_one_left_is_removed(tmp_path: Path) -> None:
    folder, _ = runs_in(tmp_path)
    (folder / ".predictions.npz.18887-9374f564.tmp").write_bytes(b"a half")
    assert pack.pack(folder) and not list(folder.glob(".*.tmp"))


def test_a_run_of_another_user_is_left_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    theirs, ours = runs_in(tmp_path)
    locked = records.locked

    def refused(folder: Path) -> Any:
        if folder == theirs:
            raise PermissionError(13, "Permission denied", str(folder / "lock"))
        return locked(folder)

    monkeypatch.setattr(records, "locked", refused)
    assert not pack.pack_if_allowed(theirs) and pack.pack_if_allowed(ours)
    assert f"{theirs} is left as it is: " in capsys.readouterr().err


@pytest.mark.parametrize("where", ["compress", "write_bytes"])
def test_a_text_is_never_lost(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = runs_in(tmp_path)
    before = content(folder)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
        patch.setattr(*((pack.gzip, "compress") if where == "compress" else (Path, "write_bytes")), fail)
        pack.pack(folder)
    assert content(folder) == before


def test_a_text_that_may_not_be_removed_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    folder, _ = runs_in(tmp_path)
    before, real = content(folder), Path.unlink

    def refuse(file: Path, missing_ok: bool = False) -> None:
        if file.name in records.TEXTS:
            raise PermissionError(1, "Operation not permitted", str(file))
        real(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert not pack.pack_if_allowed(folder) and content(folder) == before
    assert f"{folder} is left as it is: cannot use {folder}" in capsys.readouterr().err


def test_what_is_not_sound_is_left_and_named(tmp_path: Path, command: Command) -> None:
    damaged, fine = runs_in(tmp_path)
    unfinished = made(tmp_path, [LABELS], seed=5, done=False)
    held = made(tmp_path, [LABELS], seed=6)
    (damaged / "predictions.npz").write_bytes((damaged / "predictions.npz").read_bytes()[:-50])
    wrong = made(tmp_path, [LABELS], seed=7)
    (record,) = records.read_epochs(wrong)
    (wrong / "epochs.jsonl").write_text(json.dumps({**record, "test": {**record["test"], "WA": 12.0}}) + "\n")
    before = [content(folder) for folder in (damaged, unfinished, held, wrong)]
    with files.lock(held / "lock"):
        done = command("pack.py", tmp_path)
    (held / "lock").unlink()
    assert done.stdout.startswith("1 of 5 runs packed")
    for folder, why in (
        (damaged, "cannot be read"),
        (unfinished, "unfinished"),
        (held, "another process holds it"),
        (wrong, "do not give the recorded WA"),
    ):
        assert any(str(folder) in line and why in line for line in done.stderr.splitlines()), why
    assert [content(folder) for folder in (damaged, unfinished, held, wrong)] == before
    assert pack.is_packed(fine / "predictions.npz")


@pytest.mark.parametrize("way", ["pack", "unpack"])
def test_a_text_is_read_while_it_is_packed_or_written_anew(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = runs_in(tmp_path)
    before, text = records.read_epochs(folder), folder / "epochs.jsonl"
    whole, real = text.read_bytes(), records.read_text
    if way == "unpack":
        pack.pack_text(text)

    def meanwhile(file: Path, most: int) -> str:
        monkeypatch.setattr(records, "read_text", real)
        if way == "pack":
            pack.pack_text(text)
            return real(file, most)
        try:
            return real(file, most)
        finally:
            text.write_bytes(whole)
            Path(f"{text}.gz").unlink()

    monkeypatch.setattr(records, "read_text", meanwhile)
    assert records.read_epochs(folder) == before


def test_what_goes_away_meanwhile_has_no_size(tmp_path: Path) -> None:
    there, gone = runs_in(tmp_path)
    whole = pack.size([there])
    (there / ".epochs.jsonl.tmp").symlink_to("nowhere")
    shutil.rmtree(gone)
    assert pack.size([there, gone]) == whole > 0


def test_a_folder_without_runs_is_refused(tmp_path: Path, command: Command) -> None:
    checkpoint = made(tmp_path / "runs", [LABELS]) / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    for root in (tmp_path, tmp_path / "nowhere", tmp_path / "runs" / "impro"):
        assert f"{root} holds no run folder" in command("pack.py", root, status=2).stderr


def test_a_python_without_lzma_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = runs_in(tmp_path)
    pack.pack(folder)
    monkeypatch.setattr(zipfile, "lzma", None)
    with pytest.raises(UserError, match="lacks the module lzma") as caught:
        records.read_run(folder).predictions("test")
    assert not isinstance(caught.value, records.BrokenRecord), "to delete the folder would be the wrong remedy"


def test_packed_records_are_replaced_by_a_repetition(tmp_path: Path) -> None:
    folder, _ = runs_in(tmp_path / "old")
    pack.pack(folder)
    new = made(tmp_path / "new", [LABELS] * 12)
    for name in ("epochs.jsonl", "split.json", "predictions.npz"):
        shutil.copy(new / name, folder / name)
    assert pack.pack(folder) and records.read_run(folder).epochs == records.read_run(new).epochs


def test_a_python_without_lzma_packs_nothing(tmp_path: Path) -> None:
    folders = runs_in(tmp_path)
    before = [content(folder) for folder in folders]
    words = [sys.executable, "-c", "import sys; sys.modules['_lzma'] = None; sys.argv = ['pack.py', sys.argv[1]]; "
             "import runpy; runpy.run_path('pack.py', run_name='__main__')", tmp_path]  # fmt: skip
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "this Python lacks the module lzma" in done.stderr
    assert [content(folder) for folder in folders] == before


@pytest.mark.parametrize("link", ["epochs.jsonl.gz", "lock", "checkpoint/config.json", "the folder"])
def test_links_in_anothers_runs_lead_nowhere(link: str, tmp_path: Path, capsys: Any) -> None:
    folder, ours = runs_in(tmp_path / "runs")
    elsewhere = tmp_path / "elsewhere"
    if link == "the folder":
        folder.rename(elsewhere)
        (elsewhere / ".mine.tmp").write_text("mine")
        (elsewhere / "lock").write_text("mine")
        folder.symlink_to(elsewhere)
    else:
        elsewhere.mkdir()
        (elsewhere / "file").write_text("mine")
        (folder / link).parent.mkdir(exist_ok=True)
        (folder / link).symlink_to(elsewhere / ("new" if link == "lock" else "file"))
    before = content(elsewhere)
    assert not pack.pack_if_allowed(folder) and pack.pack_if_allowed(ours)
    assert content(elsewhere) == before
    named = folder if link == "the folder" else folder / link
    assert f"{folder} is left as it is: {named} is a link" in capsys.readouterr().err
