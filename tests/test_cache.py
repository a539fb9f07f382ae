"""The features of a corpus, kept: the same numbers, extracted once, and never from a file that is half or wrong."""

import errno
import io
import json
import os
import resource
import runpy
import shutil
import signal
import stat
import subprocess
import sys
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import count, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

import cache
import cli
import features
import files
import path
from audio import AudioError, load_audio
from cache import content_digests
from cli import UserError
from corpora import Utterance
from features import Store, extract, load, segment

ROOT = Path(__file__).resolve().parent.parent


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(path, "CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def utterance(file: Path) -> Utterance:
    return Utterance(file.stem, str(file), "F01", "1", "d", "impro", "neu")


def corpus(folder: Path, count: int = 6, seconds: float = 3) -> list[Utterance]:
    """Utterances of noise, the third of them too short for a segment of 1.8 s."""
    folder.mkdir(exist_ok=True)
    rng, utterances = np.random.default_rng(count), []
    for i in range(count):
        n = 20000 if i == 2 else int(16000 * (seconds + 0.3 * (i % 4)))
        soundfile.write(folder / f"u{i:03d}.wav", 0.1 * rng.standard_normal(n), 16000)
        utterances.append(utterance(folder / f"u{i:03d}.wav"))
    return utterances


@pytest.fixture
def utterances(tmp_path: Path) -> list[Utterance]:
    return corpus(tmp_path / "waves")


def by_hand(utterances: list[Utterance], name: str = "mfcc", n: int = 26, **cut: Any) -> list[np.ndarray]:
    return [extract(name, segment(load_audio(u.path), **cut), n).numpy() for u in utterances]


def assert_holds(store: Store, expected: list[np.ndarray]) -> None:
    assert store.counts.tolist() == [len(x) for x in expected]
    assert store.starts.tolist() == np.cumsum([0, *store.counts[:-1]]).tolist()
    assert store.x.dtype == np.float32 and isinstance(store.x, np.memmap) and not store.x.flags.writeable
    # batches are cut differently here, and a matrix product adds in another order for another size
    assert np.allclose(store.x, np.concatenate(expected), rtol=1e-4, atol=1e-3)


@contextmanager
def forbidden(*what: tuple[Any, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module, name in what:
            patch.setattr(module, name, lambda *a, name=name, **k: pytest.fail(f"{name} was called"))
        yield


# ------------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize("name", ["mfcc", "spectrogram", "logfbank"])
def test_store_holds_what_extract_gives(utterances: list[Utterance], name: str) -> None:
    store = load(utterances, name, 1.8, 1.6)
    assert store.counts[2] == 0 and store.bad == []
    assert_holds(store, by_hand(utterances, name))


def test_padding_and_coefficients(utterances: list[Utterance]) -> None:
    assert_holds(load(utterances, "mfcc", 1.8, 1, padding=True), by_hand(utterances, overlap=1, padding=True))
    assert_holds(load(utterances, "mfcc", 2, 1, 13), by_hand(utterances, n=13, length=2, overlap=1))


def test_more_segments_than_a_batch(tmp_path: Path) -> None:
    utterances = corpus(tmp_path / "waves", 3, seconds=12)
    store = load(utterances, "fbank", 0.5, 0.4)
    assert len(store.x) > 100
    assert_holds(store, by_hand(utterances, "fbank", length=0.5, overlap=0.4))


def test_nothing_long_enough(utterances: list[Utterance]) -> None:
    for few in (utterances[2:3], []):
        store = load(few, "mfcc", 1.8, 1.6)
        assert store.x.shape == (0, 26, 57) and store.counts.tolist() == store.starts.tolist() == [0] * len(few)
        assert load(few, "mfcc", 1.8, 1.6).x.shape == (0, 26, 57)


def test_settings_are_checked_before_anything_is_read(utterances: list[Utterance]) -> None:
    with forbidden((features, "content_digests")):
        for message, *given in (("choose", "mffc", 1.8, 1), ("overlap", "mfcc", 1.8, 2), ("n_mfcc", "mfcc", 1.8, 1, 0)):
            with pytest.raises(UserError, match=message):
                load(utterances, *given)


# --------------------------------------------------------------------------------------- extracted once, read once


def test_the_second_time_nothing_is_read_or_computed(utterances: list[Utterance]) -> None:
    first = load(utterances, "mfcc", 1.8, 1.6)
    with forbidden((features, "extract"), (features, "read_file"), (cache, "digest_file"), (cache, "lock")):
        second = load(utterances, "mfcc", 1.8, 1.6)
        with forbidden((cache, "write_json")):
            load(utterances, "mfcc", 1.8, 1.6)
    assert first.key == second.key and np.array_equal(first.x, second.x)
    assert np.array_equal(first.counts, second.counts) and np.array_equal(first.starts, second.starts)


def test_whatever_shapes_the_numbers_shapes_the_key(
    utterances: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    def key(**changed: Any) -> str:
        return load(**{"utterances": utterances, "feature": "mfcc", "length": 1.8, "overlap": 1.6, **changed}).key

    renamed = [*utterances[:-1], Utterance("other", utterances[-1].path, "", "", "", "", "")]
    keys = [key(), key(feature="fbank"), key(length=2), key(overlap=1), key(n_mfcc=20), key(padding=True),
            key(utterances=utterances[::-1]), key(utterances=utterances[:-1]),
            key(utterances=renamed)]  # fmt: skip
    with monkeypatch.context() as patch:  # the key of a GPU's features, without a GPU
        patch.setattr(features, "kept", lambda folder, make: (None, {"counts": [], "bad": [], "silent": []}))
        keys.append(key(device="cuda"))
    monkeypatch.setattr(features, "CODE", "other")
    keys.append(key())
    assert len(set(keys)) == len(keys)


def test_features_of_other_code_have_another_key(tmp_path: Path) -> None:
    codes = set()
    for changed in ("neither", "audio.py", "features.py"):
        for file in ("audio.py", "features.py"):
            (tmp_path / file).write_text((ROOT / file).read_text() + "# changed\n" * (file == changed))
        codes.add(runpy.run_path(str(tmp_path / "features.py"))["CODE"])
    assert len(codes) == 3


def test_what_does_not_shape_the_numbers_does_not_shape_the_key(utterances: list[Utterance]) -> None:
    first = load(utterances, "fbank", 2, 1, n_mfcc=13)
    with forbidden((features, "extract")):
        load(utterances, "fbank", 2.0, 1.0, n_mfcc=26, skip_bad=True)
        others = [Utterance(u.name, u.path, "M09", "5", "", "", "ang") for u in utterances]
        assert load(others, "fbank", 2, 1).key == first.key


def test_a_wave_replaced_in_place_is_noticed(utterances: list[Utterance]) -> None:
    before = load(utterances, "mfcc", 1.8, 1.6)
    file = Path(utterances[0].path)
    before_that, data = file.stat(), file.read_bytes()
    with open(file, "rb+") as f:
        f.seek(len(data) // 2)
        f.write(data[100:5100])
    os.utime(file, ns=(before_that.st_atime_ns, before_that.st_mtime_ns))
    for what in ("st_mtime_ns", "st_size", "st_ino"):
        assert getattr(file.stat(), what) == getattr(before_that, what)
    after = load(utterances, "mfcc", 1.8, 1.6)
    assert after.key != before.key
    assert_holds(after, by_hand(utterances))


def test_content_digests(tmp_path: Path, own_cache: Path) -> None:
    names = [tmp_path / name for name in ("a", "b", "c", "gone", "folder")]
    names[0].write_text("one")
    names[1].write_text("two")
    names[2].write_text("one")
    names[4].mkdir()
    a, b, c, gone, folder = content_digests(names)
    assert a == c != b and gone == folder == "" and a == cache.digest_file(names[0])
    with forbidden((cache, "digest_file")):
        assert content_digests(reversed(names)) == ["", "", a, b, a]
    assert content_digests(["no\0name"]) == [""]
    (own_cache / "digests.json").write_text((own_cache / "digests.json").read_text().replace(b, a))  # a false store
    assert content_digests(names[:2]) == [a, b]


def test_digests_that_another_process_writes_meanwhile_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_text("one")
    theirs.write_text("two")
    digest = cache._digest

    def meanwhile(file: str) -> list[Any]:
        monkeypatch.setattr(cache, "_digest", digest)
        content_digests([theirs])
        return digest(file)

    monkeypatch.setattr(cache, "_digest", meanwhile)
    content_digests([ours])
    with forbidden((cache, "digest_file")):
        assert "" not in content_digests([ours, theirs])


def test_a_lock_outlives_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process, which had nothing to write, removes the folder after we made it and before we use it."""
    real = Path.mkdir
    removed = []

    def mkdir(folder: Path, *given: Any, **more: Any) -> None:
        real(folder, *given, **more)
        if not removed:
            removed.append(folder)
            folder.rmdir()

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with files.lock(tmp_path / "run" / "lock") as mine:
        assert mine and removed == [tmp_path / "run"]


def test_a_lock_whose_file_is_removed_before_it_is_ours_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last owner removes the file after we opened it and before we lock it: two could then lock a file each."""
    real, removed = files.fcntl.flock, []

    def flock(f: Any, how: int) -> None:
        if not removed:
            removed.append((tmp_path / "lock").unlink())
        real(f, how)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with files.lock(tmp_path / "lock") as mine, files.lock(tmp_path / "lock", wait=False) as others:
        assert mine and not others


def test_a_disk_without_locks_is_told_and_another_error_is_no_such_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = errno.ENOLCK

    def flock(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with (
        pytest.raises(UserError, match=f"{tmp_path}/lock: this file system has no locks"),
        files.lock(tmp_path / "lock"),
    ):
        pass
    number = errno.EIO
    with pytest.raises(OSError, match=f"Input/output error: '{tmp_path}/lock'"), files.lock(tmp_path / "lock"):
        pass


def test_writes_within_a_tick_of_the_clock_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel stamps files with the time of its last tick, which is the same for two writes within a tick."""
    file = tmp_path / "a"
    for i in range(10):
        file.write_text(f"contents {i:02d}")
        assert content_digests([file]) == [cache.digest_file(file)]
    precise = cache._signature

    def of_last_tick(name: str) -> list[int]:  # Linux 6.13 and later have finer times, on some file systems
        size, *times, inode = precise(name)
        return [size, *(at - at % 10_000_000 for at in times), inode]

    def write(text: str) -> None:
        file.write_text(text)
        os.utime(file, (1, 1))

    monkeypatch.setattr(cache, "_signature", of_last_tick)
    for _ in range(5):
        write("one")
        *digested, _ = cache._digest(str(file))
        write("two")
        assert cache._signature(str(file)) != digested


def test_a_file_that_changes_while_it_is_digested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, digest_file = tmp_path / "a", cache.digest_file
    file.write_text("one")

    def then_it_grows(name: Path, times: Iterator[int]) -> str:
        digest = digest_file(name)
        with open(name, "a") as f:
            f.write("more" * next(times, 0))
        return digest

    monkeypatch.setattr(cache, "digest_file", partial(then_it_grows, times=iter([1, 1])))
    assert content_digests([file]) == [digest_file(file)] and file.stat().st_size == 11
    monkeypatch.setattr(cache, "TICK", 0)
    monkeypatch.setattr(cache, "digest_file", partial(then_it_grows, times=repeat(1)))
    file.write_text("one")
    with pytest.raises(UserError, match="a keeps changing while it is read"):
        content_digests([file])


def test_a_wave_that_changes_before_it_is_decoded(utterances: list[Utterance], own_cache: Path) -> None:
    file = Path(utterances[1].path)
    read = features.read_file

    def late(name: str) -> bytes:
        soundfile.write(file, np.zeros(40000), 16000)
        return read(name)

    for change in (late, lambda name: file.unlink(missing_ok=True) or read(name)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(features, "read_file", change)
            with pytest.raises(UserError, match="changed while it was read"):
                load(utterances, "mfcc", 1.8, 1.6, skip_bad=True)
        assert not list((own_cache / "features").glob("[!.]*"))


# --------------------------------------------------------------------------------------------- broken recordings


def break_some(utterances: list[Utterance], count: int = 3) -> None:
    for i, u in enumerate(utterances[:count]):
        if i % 3 == 0:
            Path(u.path).unlink()
        else:
            Path(u.path).write_bytes(b"" if i % 3 == 1 else Path(u.path).read_bytes()[:-1000])


def test_broken_waves_are_listed_together(utterances: list[Utterance], own_cache: Path) -> None:
    break_some(utterances)
    for _ in range(2):
        with pytest.raises(AudioError) as error:
            load(utterances, "mfcc", 1.8, 1.6)
        text = str(error.value)
        assert text.startswith("3 recordings cannot be used") and "--skip_bad" in text
        for u, reason in zip(utterances, ("does not exist", "is empty", "is truncated"), strict=False):
            assert f"{u.path}: {reason}" in text
    assert not list((own_cache / "features").glob("[!.]*"))


def test_many_broken_waves(tmp_path: Path) -> None:
    utterances = corpus(tmp_path / "waves", 30, seconds=0.1)
    break_some(utterances, 26)
    with pytest.raises(AudioError, match="26 recordings") as error:
        load(utterances, "mfcc", 1.8, 1.6)
    assert len(str(error.value).splitlines()) == 22 and str(error.value).endswith("and 6 more")


def test_skip_bad_leaves_broken_waves_out(utterances: list[Utterance]) -> None:
    break_some(utterances)
    store = load(utterances, "mfcc", 1.8, 1.6, skip_bad=True)
    assert [name for name, _ in store.bad] == ["u000", "u001", "u002"] and "is empty" in store.bad[1][1]
    assert store.counts[:3].tolist() == [0, 0, 0]
    assert_holds(store, [np.empty((0, 26, 57), np.float32)] * 3 + by_hand(utterances[3:]))
    with forbidden((features, "extract")):
        assert load(utterances, "mfcc", 1.8, 1.6, skip_bad=True).bad == store.bad
        with pytest.raises(AudioError, match="3 recordings"):
            load(utterances, "mfcc", 1.8, 1.6)


def test_broken_waves_are_named_where_they_lie_now(utterances: list[Utterance], tmp_path: Path) -> None:
    break_some(utterances, 2)
    load(utterances, "mfcc", 1.8, 1.6, skip_bad=True)
    there = Path(utterances[0].path).parent
    moved = [replace(u, path=str(tmp_path / "moved" / Path(u.path).name)) for u in utterances]
    there.rename(tmp_path / "moved")
    (tmp_path / "moved" / Path(moved[0].path).name).mkdir()  # this recording was missing before
    with forbidden((features, "extract")), pytest.raises(AudioError) as error:
        load(moved, "mfcc", 1.8, 1.6)
    assert f"{moved[0].path}: is not a file" in str(error.value) and f"{moved[1].path}: is empty" in str(error.value)


def test_a_repaired_wave_is_used(utterances: list[Utterance]) -> None:
    data = Path(utterances[0].path).read_bytes()
    break_some(utterances, 1)
    assert load(utterances, "mfcc", 1.8, 1.6, skip_bad=True).counts[0] == 0
    Path(utterances[0].path).write_bytes(data)
    assert_holds(load(utterances, "mfcc", 1.8, 1.6), by_hand(utterances))


# ----------------------------------------------------------------------------------------------- damaged caches


def flip(file: Path, where: float) -> None:
    data = bytearray(file.read_bytes())
    data[int(where * (len(data) - 1))] ^= 4
    file.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "truncated": lambda folder: os.truncate(folder / "x.npy", (folder / "x.npy").stat().st_size // 2),
    "one byte short": lambda folder: os.truncate(folder / "x.npy", (folder / "x.npy").stat().st_size - 1),
    "longer": lambda folder: (folder / "x.npy").write_bytes((folder / "x.npy").read_bytes() + b"\0"),
    "emptied": lambda folder: (folder / "x.npy").write_bytes(b""),
    "gone": lambda folder: (folder / "x.npy").unlink(),
    "flipped in the header": lambda folder: flip(folder / "x.npy", 0.0001),
    "flipped in the middle": lambda folder: flip(folder / "x.npy", 0.5),
    "flipped at the end": lambda folder: flip(folder / "x.npy", 1),
    "notes flipped at the start": lambda folder: flip(folder / "meta.json", 0),
    "notes flipped": lambda folder: flip(folder / "meta.json", 0.7),
    "notes truncated": lambda folder: os.truncate(folder / "meta.json", 40),
    "notes of another kind": lambda folder: (folder / "meta.json").write_text("[1, 2]"),
    "notes that are a number": lambda folder: (folder / "meta.json").write_text("5"),
    "notes without a checksum": lambda folder: (folder / "meta.json").write_text("{}"),
    "notes not text": lambda folder: (folder / "meta.json").write_bytes(b"\xff\xfe\x00"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_said_and_repaired(
    damage: str, utterances: list[Utterance], own_cache: Path, capsys: pytest.CaptureFixture
) -> None:
    first = load(utterances, "mfcc", 1.8, 1.6)
    expected, folder = np.array(first.x), own_cache / "features" / first.key
    DAMAGE[damage](folder)
    again = load(utterances, "mfcc", 1.8, 1.6)
    warning = capsys.readouterr().err
    assert warning.count("warning:") == 1 and str(folder) in warning and "damaged" in warning
    assert np.array_equal(again.x, expected) and again.counts.tolist() == first.counts.tolist()
    load(utterances, "mfcc", 1.8, 1.6)
    assert capsys.readouterr().err == ""
    assert [p.name for p in folder.parent.glob("[!.]*")] == [first.key]


def test_a_damaged_digest_store_is_made_again(utterances: list[Utterance], own_cache: Path) -> None:
    first = load(utterances, "mfcc", 1.8, 1.6)
    store = own_cache / "digests.json"
    whole = store.read_bytes()
    for damaged in (b"", b"{}", b"[]", b"\xff", whole[:100], whole.replace(b'"check": "', b'"check": "0')):
        store.write_bytes(damaged)
        assert load(utterances, "mfcc", 1.8, 1.6).key == first.key
        assert json.loads(store.read_bytes()) == json.loads(whole)


# ---------------------------------------------------------------------------------- other processes, kills, limits

CHILD = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import features, path
from corpora import Utterance
path.CACHE = Path(sys.argv[1])
utterances = [Utterance(f.stem, str(f), "", "", "", "", "") for f in sorted(Path(sys.argv[2]).glob("*.wav"))]
extract = features.extract
def told(*args):
    print("extracting", flush=True)
    return extract(*args)
features.extract = told
print("ready", flush=True)
"""


def child(own_cache: Path, waves: Path, script: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD + script, own_cache, waves], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_two_processes_extract_once(tmp_path: Path, own_cache: Path) -> None:
    corpus(tmp_path / "waves", 20)
    script = "print(features.load(utterances, 'mfcc', 1.8, 1.6).x.sum())"
    children = [child(own_cache, tmp_path / "waves", script) for _ in range(2)]
    outputs = [c.communicate(timeout=600)[0].split() for c in children]
    assert [c.returncode for c in children] == [0, 0]
    assert sorted("extracting" in out for out in outputs) == [False, True]
    assert len({out[-1] for out in outputs}) == 1


def test_kill_leaves_nothing_that_is_taken_for_a_cache(tmp_path: Path, own_cache: Path) -> None:
    utterances = corpus(tmp_path / "waves", 60)
    for extra in (0, 0.05, 0.2):
        process = child(own_cache, tmp_path / "waves", "features.load(utterances, 'spectrogram', 1.8, 1.6)")
        assert process.stdout
        while process.stdout.readline().strip() != "extracting":
            pass
        time.sleep(extra)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not list((own_cache / "features").glob("[!.]*"))
        assert len(list((own_cache / "features").glob("*.tmp"))) == 1
    load(utterances[:3], "mfcc", 1.8, 1.6)  # another key: it sweeps what no living process holds
    assert not list((own_cache / "features").glob("*.tmp"))
    assert_holds(load(utterances, "fbank", 1.8, 1.6), by_hand(utterances, "fbank"))


def test_what_a_living_process_writes_is_not_swept(utterances: list[Utterance], own_cache: Path) -> None:
    living = own_cache / "features" / ".abc.1.tmp"
    living.mkdir(parents=True)
    with cache.lock(living.with_name(".abc.lock")):
        load(utterances, "mfcc", 1.8, 1.6)
        assert living.exists()
    load(utterances, "mfcc", 1.8, 1)
    assert not living.exists()


def test_a_disk_that_keeps_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[cache.Rows] = []

    def make(rows: cache.Rows) -> dict[str, Any]:
        made.append(rows)
        rows.append(np.zeros((1, 2), np.float32))
        return {}

    def damaged(folder: Path) -> Any:
        if (folder / "x.npy").exists():
            raise cache.Damaged("its bytes are others")
        raise FileNotFoundError

    monkeypatch.setattr(cache, "_read", damaged)
    with pytest.raises(UserError, match=r"k was damaged as soon as it was made \(its bytes are others\), 3 times"):
        cache.kept(tmp_path / "k", make)
    assert len(made) == 3


def test_digests_are_there_though_the_cache_is_deleted_meanwhile(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deleted(store: Path, *_: object) -> None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(store))

    (tmp_path / "a").write_text("one")
    monkeypatch.setattr(cache, "write_json", deleted)
    assert content_digests([tmp_path / "a"]) == [cache.digest_file(tmp_path / "a")]


@pytest.mark.parametrize("when", ["extracting", "written", "kept"])
def test_a_cache_that_is_deleted_meanwhile_is_made_again(
    when: str, utterances: list[Utterance], own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    module, name = {"extracting": (cache.Rows, "append"), "written": (cache, "_write"), "kept": (cache, "_read")}[when]
    real, count = getattr(module, name), [0]

    def then_delete(*given: Any) -> Any:
        count[0] += 1
        if when == "kept" and count[0] == 3:  # the third read is of what has just been made
            shutil.rmtree(own_cache)
        result = real(*given)
        if when != "kept" and count[0] == 1:
            shutil.rmtree(own_cache)
        return result

    monkeypatch.setattr(module, name, then_delete)
    assert_holds(load(utterances, "mfcc", 1.8, 1.6), by_hand(utterances, "mfcc"))
    assert "damaged" not in capsys.readouterr().err and count[0] > 1


def test_features_that_are_deleted_while_they_are_read_are_not_called_damaged(
    utterances: list[Utterance], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, real = own_cache / "features" / load(utterances, "mfcc", 1.8, 1.6).key, cache.digest_of

    def then_delete(notes: Any) -> str:
        for name in ("x.npy", "meta.json"):
            (folder / name).unlink()
        return real(notes)

    monkeypatch.setattr(cache, "digest_of", then_delete)
    with pytest.raises(FileNotFoundError, match=folder.name):
        cache._read(folder)


def test_a_full_disk_is_named_and_nothing_half_remains(utterances: list[Utterance], own_cache: Path) -> None:
    content_digests([u.path for u in utterances])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError) as error:
            load(utterances, "spectrogram", 1.8, 1.6)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(own_cache / "features") in str(error.value.filename)
    assert not [p for p in (own_cache / "features").iterdir() if p.suffix != ".lock"]
    assert_holds(load(utterances, "spectrogram", 1.8, 1.6), by_hand(utterances, "spectrogram"))


def test_a_folder_that_cannot_be_written_is_named(utterances: list[Utterance], own_cache: Path) -> None:
    own_cache.write_text("not a folder")
    with pytest.raises(OSError) as error:
        load(utterances, "mfcc", 1.8, 1.6)
    assert str(own_cache) in str(error.value.filename)


def test_memory_does_not_grow_with_the_corpus(tmp_path: Path, own_cache: Path) -> None:
    script = """
load = lambda some: features.load(some, 'spectrogram', 1.8, 0.9)
def peak():  # in kB; ru_maxrss would begin at that of the process of the tests
    return int(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))
load(utterances[:80])  # more segments than are extracted at once
before = peak()
store = load(utterances)
print(store.x.nbytes, 1024 * (peak() - before))
"""
    corpus(tmp_path / "waves", 320)
    process = child(own_cache, tmp_path / "waves", script)
    written, grown = (int(n) for n in process.communicate(timeout=600)[0].split()[-2:])
    assert written > 200e6 and grown < written / 2


def test_a_long_recording_is_cut_without_copies(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "long.wav"), "wb") as f:
        f.setnchannels(1)
        f.setsampwidth(2)
        f.setframerate(16000)
        f.writeframes(np.random.default_rng(0).integers(-3000, 3000, 16000 * 60, dtype=np.int16).tobytes())
    sizes: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(features, "extract", lambda *a: sizes.append(len(a[1])) or extract(*a))
        store = load([utterance(tmp_path / "long.wav")], "fbank", 1.8, 1.6)
    assert store.counts[0] == len(store.x) == 1 + (16000 * 60 - 28800) // 3199
    assert max(sizes) == 8 * features._at_once(torch.device("cpu"))


def test_quick_work_shows_no_progress_bar(
    utterances: list[Utterance], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)  # only a terminal gets a bar
    monkeypatch.setattr("tqdm.std.time", lambda: 0.0)  # no time passes, however busy the machine
    load(utterances, "mfcc", 1.8, 1.6)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_features_that_take_long_to_check_show_a_progress_bar(
    utterances: list[Utterance], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """APCNN's spectrograms are 8 to 15 GB, which are read from end to end before the first step."""
    load(utterances, "mfcc", 1.8, 1.6)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr("tqdm.std.time", count(0.0, 2.0).__next__)
    load(utterances, "mfcc", 1.8, 1.6)
    assert "checking: " in capsys.readouterr().err


def test_rows_are_a_numpy_file(tmp_path: Path) -> None:
    for counts in ([0], [3, 0, 5], [1] * 12):
        expected = np.random.default_rng(0).standard_normal((sum(counts), 4, 2)).astype(np.float32)
        parts = np.split(expected, np.cumsum(counts)[:-1])
        with open(tmp_path / "x.npy", "wb") as f:
            rows = cache.Rows(f)
            for part in parts:
                rows.append(part)
            rows.finish()
        assert np.array_equal(np.load(tmp_path / "x.npy", allow_pickle=False), expected)
        assert sum(size for size, _ in rows.blocks) == (tmp_path / "x.npy").stat().st_size


def test_what_is_no_ordinary_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "folder"):
        with pytest.raises(OSError, match=f"it is no ordinary file: .*{name}"):
            files.write_text(tmp_path / name, "text")
    assert (tmp_path / "pipe").is_fifo() and (tmp_path / "link").is_symlink()
    (tmp_path / "file").write_text("old")
    (tmp_path / "to file").symlink_to(tmp_path / "file")
    files.write_text(tmp_path / "to file", "new")
    assert (tmp_path / "to file").is_symlink() and (tmp_path / "file").read_text() == "new"


def test_a_disk_that_cannot_sync_folders_takes_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares of VirtualBox and Samba cannot; a disk's input/output error is still raised."""
    real, number = os.fsync, errno.EINVAL

    def fsync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_text(tmp_path / "file", "text")
    assert (tmp_path / "file").read_text() == "text"
    number = errno.EIO
    with pytest.raises(OSError, match="Input/output error"):
        files.write_text(tmp_path / "file", "other")


def test_a_folder_that_goes_while_its_neighbours_are_listed_is_passed_over(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    found = files.walk(tmp_path)
    assert next(found) == (tmp_path, [])
    (tmp_path / "a").rmdir()
    assert list(found) == [(tmp_path / "b", [])]


def test_processes_of_one_number_write_one_file_at_once(tmp_path: Path) -> None:
    """Processes of two containers can have the same number."""
    with files.atomic(tmp_path / "file") as one, files.atomic(tmp_path / "file") as other:
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "file").read_text() == "one"  # written by the last to finish
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_writer_left_goes_with_a_later_write(tmp_path: Path) -> None:
    forgotten, recent, other = (tmp_path / f".{name}-00.tmp" for name in ("f[1].csv.1", "f[1].csv.2", "g.csv.1"))
    for file in (forgotten, recent, other):
        file.write_text("half")
    for file in (forgotten, other):
        os.utime(file, (time.time() - 2 * files.FORGOTTEN,) * 2)
    files.write_text(tmp_path / "f[1].csv", "new")
    assert sorted(file.name for file in tmp_path.iterdir()) == [recent.name, other.name, "f[1].csv"]


def test_a_temporary_file_that_goes_while_it_is_looked_at_stops_no_write(tmp_path: Path) -> None:
    (tmp_path / ".file.1-00.tmp").symlink_to("gone")
    files.write_text(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_write_makes_its_folders_and_leaves_nothing_open(tmp_path: Path) -> None:
    before = list(Path("/proc/self/fd").iterdir())
    files.write_text(tmp_path / "new" / "deeper" / "file", "new")
    assert len(list(Path("/proc/self/fd").iterdir())) <= len(before)


def test_equal_values_have_equal_digests_and_no_file_holds_what_is_no_json(tmp_path: Path) -> None:
    assert files.digest_of({"a": [1, 2], "b": "é"}) == files.digest_of({"b": "é", "a": [1, 2]})
    assert files.digest_of({"a": [1, 2]}) != files.digest_of({"a": [2, 1]})
    # run folders are named after such digests
    assert files.digest_of({"b": "é", "a": [1, 2.5]}) == "e2505189118291bfb1b94b07bc7b0cd3"
    files.write_json(tmp_path / "file", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "file", {"a": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        files.digest_of({"a": float("nan")})
    assert files.read_json(tmp_path / "file") == {"a": 1}


def test_a_write_that_breaks_off_leaves_the_old_file_alone(tmp_path: Path) -> None:
    files.write_text(tmp_path / "file", "old")
    for error in (OSError(28, "No space left on device"), KeyboardInterrupt()):
        with pytest.raises(type(error)), files.atomic(tmp_path / "file") as temporary:
            temporary.write_text("half")
            raise error
        assert [file.name for file in tmp_path.iterdir()] == ["file"] and (tmp_path / "file").read_text() == "old"


def test_a_clean_up_that_fails_hides_no_cause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> Callable:
        def call(file: Path, *_: object, **__: object) -> None:
            raise OSError(number, os.strerror(number), str(file))

        return call

    monkeypatch.setattr(Path, "unlink", refuse(errno.EROFS))
    monkeypatch.setattr(os, "replace", refuse(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left") as told:
        files.write_text(tmp_path / "file", "new")
    assert cli.refusal(told.value) == f"cannot use {tmp_path / 'file'}: the disk is full"


@pytest.mark.parametrize("name", ["x.npy", "meta.json"])
def test_a_read_that_breaks_off_is_no_damage(
    name: str, utterances: list[Utterance], own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features.load(utterances, "mfcc", 0.5, 0.25)
    (kept,) = own_cache.rglob(name)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    class Broken(io.BytesIO):
        read = refuse

    real = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda file: refuse() if file.name == name == "meta.json" else real(file))
    monkeypatch.setattr(cache, "open", lambda *_: Broken(), raising=False)
    with pytest.raises(OSError, match="Input/output") as told:
        features.load(utterances, "mfcc", 0.5, 0.25)
    assert cli.refusal(told.value) == f"cannot use {kept.parent}: Input/output error" and kept.exists()


@pytest.mark.parametrize("where", [files.named, files.atomic])
def test_an_error_that_names_a_file_keeps_its_name(where: Callable, tmp_path: Path) -> None:
    for name, said in (("a.wav", "a.wav"), (None, str(tmp_path / "file"))):
        with pytest.raises(OSError) as told, where(tmp_path / "file"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), name)
        assert told.value.filename == said


def test_which_errors_say_nothing_of_a_files_contents() -> None:
    nothing, of_it = ("EIO", "EACCES", "EMFILE", "ESTALE"), ("ENOENT", "ENOTDIR", "EINVAL", "ELOOP")
    assert all(files.may_be_sound(OSError(getattr(errno, name), name)) for name in nothing)
    assert not any(files.may_be_sound(OSError(getattr(errno, name), name)) for name in of_it)
    assert not files.may_be_sound(OSError("not a gzipped file"))


def test_a_folder_that_cannot_be_replaced_is_still_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("")
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if (self / "new").exists():
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt), files.new_folder(tmp_path / "out", replace=True) as folder:
        (folder / "new").write_text("")
    assert [file.name for file in tmp_path.rglob("*")] == ["out", "old"]


def test_a_full_disk_is_said_of_the_new_folder_and_another_error_of_the_file_it_names(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for number, name, said in (
        (errno.EIO, None, str(out)),
        (errno.ENOSPC, str(tmp_path / ".out.1.tmp" / "a.wav"), str(out)),
        (errno.EIO, "a.wav", "a.wav"),
    ):
        with pytest.raises(OSError) as told, files.new_folder(out):
            raise OSError(number, os.strerror(number), name)
        assert told.value.filename == said and not list(tmp_path.iterdir())


def test_a_folder_half_deleted_by_a_process_of_our_number_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for name in ("tmp", "old.tmp"):
        (tmp_path / f".out.{os.getpid()}.{name}" / "left").mkdir(parents=True)
    with files.new_folder(tmp_path / "out", replace=True) as folder:
        (folder / "new").write_text("")
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["new", "out"]
