"""Arrays on disk that are either whole or absent, and digests of files, each of which is read only once.

A kept array is a folder of two files: `x.npy`, and `meta.json` with notes on the array and checksums of both files.
"""

import errno
import io
import json
import os
import shutil
import stat
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import path
from cli import UserError, warn
from files import digest_file, digest_of, lock, named, new_folder, read_bytes, write_json

# Linux stamps files with the time of its last tick (at most 10 ms ago), so two writes within a tick can look alike.
TICK = 0.02
TRIES = 3  # attempts to make an array, in case the cache is deleted meanwhile


# ------------------------------------------------------------------------------------------------- digests


def _signature(file: str) -> list[int]:
    """Return a file's size, times and inode, to be compared for equality only, as clocks jump. The kernel sets the
    change time, so a file that is replaced in place has a new one even if its modification time was put back."""
    s = Path(file).stat()
    if not stat.S_ISREG(s.st_mode):
        raise OSError(f"{file} is not a file")
    return [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino]


def _digest(file: str) -> list[Any]:
    """Return a file's signature, followed by the digest of the contents that the file had under that signature."""
    for _ in range(100):
        before = _signature(file)
        if abs(time.time() - before[2] / 1e9) < TICK:
            time.sleep(TICK)
        digest = digest_file(Path(file))
        if _signature(file) == before:
            return [*before, digest]
    raise UserError(f"{file} keeps changing while it is read; wait until whatever writes it has finished")


def _known_digests(store: Path) -> dict[str, list[Any]]:
    """Return what the store holds, by path: signature and digest. Of a damaged store, return nothing: files are then
    read again."""
    try:
        known = json.loads(read_bytes(store))
        return known["files"] if known["check"] == digest_of(known["files"]) else {}
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return {}


def content_digests(paths: Iterable[str | Path]) -> list[str]:
    """Return the digests (`files.digest_file`) of files, in order; "" for a file that cannot be read.

    The cache remembers each digest with the file's size, times and inode, so a second call reads no file again.
    Raises OSError, naming the store, if the cache cannot be written.
    """
    store = path.CACHE / "digests.json"
    known, digests = _known_digests(store), []
    new: dict[str, list[Any]] = {}
    files = [str(Path(p).absolute()) for p in paths]
    for file in tqdm(files, "reading", unit=" recordings", delay=1, disable=None):
        try:
            entry = known.get(file) or new.get(file)
            if entry is None or entry[:4] != _signature(file):
                entry = new[file] = _digest(file)
            digests.append(entry[4])
        except (OSError, ValueError):  # ValueError: a name with a null character
            digests.append("")
    if new:
        # FileNotFoundError: the cache was deleted meanwhile, which does no harm, as it only saves time
        with suppress(FileNotFoundError), lock(store.with_name(".digests.lock")):
            merged = _known_digests(store) | new
            write_json(store, {"check": digest_of(merged), "files": merged})
    return digests


# -------------------------------------------------------------------------------------------------- arrays


class Damaged(Exception):
    """The error for a kept array that is not as it was written; its text says what is wrong."""


class Rows:
    """A writer of float32 rows `(n, ..)`, all of one shape, to a .npy file. How many will come need not be known."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.count = file, 0
        self.shape: tuple[int, ...] = ()
        self.blocks: list[list[int]] = []  # [bytes, crc32] of the header and of each append

    def _header(self) -> bytes:
        # NumPy leaves room for the first axis to grow, so the header has one length for any number of rows
        header = io.BytesIO()
        shape = (self.count, *self.shape)
        np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": shape})
        return header.getvalue()

    def _write(self, data: bytes | memoryview) -> list[int]:
        self.file.write(data)
        return [len(data), zlib.crc32(data)]

    def append(self, rows: NDArray[np.float32]) -> None:
        """Write `rows` after the earlier ones. The first call, which may bring no rows, decides the shape of a row."""
        if not self.blocks:
            self.shape = rows.shape[1:]
            self.blocks.append(self._write(self._header()))
        if len(rows):
            self.blocks.append(self._write(np.ascontiguousarray(rows, dtype="<f4").data.cast("B")))
            self.count += len(rows)

    def finish(self) -> None:
        """Put the number of rows into the header, and the file on the disk."""
        self.file.seek(0)
        self.blocks[0] = self._write(self._header())
        self.file.flush()
        os.fsync(self.file.fileno())


def _read(folder: Path) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Return the array, memory-mapped, and its notes. Raises Damaged, and FileNotFoundError if there is no array.

    The file is first read from end to end to compare checksums: a damaged page that is met only later, through the map,
    would give wrong numbers or kill the process.
    """
    meta = (folder / "meta.json").read_bytes()
    try:
        notes = json.loads(meta)
        check = notes.pop("check")
        blocks = notes["blocks"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Damaged("meta.json is not readable") from None
    if check != digest_of(notes):
        raise Damaged("meta.json is not as it was written")
    if not (folder / "x.npy").is_file():
        if not (folder / "meta.json").exists():  # somebody is deleting the cache
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(folder))
        raise Damaged("x.npy is missing")
    with open(folder / "x.npy", "rb") as f:
        for size, crc in tqdm(blocks, "checking", unit=" blocks", leave=False, delay=1, disable=None):
            data = f.read(size)
            if len(data) < size:
                raise Damaged(f"x.npy is cut off after {f.tell()} bytes")
            if zlib.crc32(data) != crc:
                raise Damaged(f"x.npy is not as it was written, somewhere in bytes {f.tell() - size} to {f.tell()}")
        if f.read(1):
            raise Damaged("x.npy is longer than it was")
    return np.load(folder / "x.npy", mmap_mode="r", allow_pickle=False), notes


def _sweep(parent: Path, held: str) -> None:
    """Remove temporary folders of killed processes: those whose lock is free, and that of `held`, which we locked."""
    for stale in sorted(parent.glob(".*.tmp")):
        name = stale.name.split(".")[1]
        if name == held:
            shutil.rmtree(stale)
            continue
        with lock(parent / f".{name}.lock", wait=False) as free:
            if free:
                shutil.rmtree(stale, ignore_errors=True)


def _write(folder: Path, make: Callable[[Rows], dict[str, Any]]) -> None:
    with new_folder(folder, replace=True) as temporary:
        with open(temporary / "x.npy", "wb") as f:
            rows = Rows(f)
            notes = make(rows)
            rows.finish()
        notes = {**notes, "blocks": rows.blocks}
        (temporary / "x.npy").stat()  # raises if the cache was deleted: write_json would make the folder anew
        write_json(temporary / "meta.json", {"check": digest_of(notes), **notes})


def kept(folder: Path, make: Callable[[Rows], dict[str, Any]]) -> tuple[NDArray[np.float32], dict[str, Any]]:
    """Return the array kept in `folder`, memory-mapped, and the notes that `make` returned when it wrote the rows.

    `make` is called if there is no array yet, and again if its files are not as they were written (after a warning) or
    if the cache was deleted meanwhile. Of several processes, one makes the array and the others wait. A process that is
    killed at any point leaves the old state. Raises OSError naming the path if the disk is full or the folder cannot be
    written, UserError if an array is damaged as soon as it is made, and whatever `make` raises.
    """
    for _ in range(TRIES - 1):
        with suppress(FileNotFoundError, Damaged), named(folder):
            return _found_or_made(folder, make)
    try:
        with named(folder):
            return _found_or_made(folder, make)
    except Damaged as error:
        raise UserError(
            f"{folder} was damaged as soon as it was made ({error}), {TRIES} times; is the disk sound?"
        ) from None


def _found_or_made(folder: Path, make: Callable[[Rows], dict[str, Any]]) -> tuple[NDArray[np.float32], dict[str, Any]]:
    try:
        return _read(folder)  # no lock: a finished array never changes, and may lie where we cannot write
    except FileNotFoundError:
        pass
    except Damaged as error:
        warn(f"{folder} is damaged ({error}): it is made again")
    with lock(folder.with_name(f".{folder.name}.lock")):
        try:
            return _read(folder)  # another process may have made it meanwhile
        except (FileNotFoundError, Damaged):
            _sweep(folder.parent, held=folder.name)
            _write(folder, make)
    return _read(folder)
