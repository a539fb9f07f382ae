"""Files that survive a crash: atomic writes, locks that end with the process that holds them, digests."""

import errno
import fcntl
import glob
import hashlib
import json
import math
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from cli import UserError, warn

FORGOTTEN = 86400  # seconds: a temporary file not written to for so long was left by a killed writer


@contextmanager
def named(path: Path) -> Iterator[None]:
    """Name `path` in an OSError of this block that names no file, such as that of a write that fails half-way."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:  # errors of gzip and zipfile have none
            error.filename = str(path)
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # VirtualBox's and Samba's shares and WSL's network drives cannot do it
            raise
    finally:
        os.close(descriptor)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` on success, remove it on failure.

    A reader sees the old file or the new one, whole, whatever happens in between.
    """
    if path.exists() and not path.is_file():  # a rename would replace /dev/null, say
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    path = path.resolve() if path.is_symlink() else path  # the link itself stays
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if time.time() - leftover.stat().st_mtime > FORGOTTEN:
                leftover.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")  # containers reuse process ids
    try:
        yield temporary
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):  # a second error, as of a disk that is gone, must not hide the first
            temporary.unlink()
        # a write that fails half-way names no file, and the temporary file's name would tell the user nothing
        if isinstance(error, OSError) and str(error.filename) in ("None", str(temporary)):
            error.filename = str(path)
        raise


def sweep_temporaries(folder: Path) -> None:
    """Remove what killed writers left in `folder` and below. Call this under the lock that guards the folder."""
    for leftover in folder.rglob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` atomically."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_bytes(path: Path, most: int = sys.maxsize) -> bytes:
    """Return the bytes of a file; every error names the file. Raises OSError for a pipe or a device, which may have no
    end, and ValueError for a file of more than `most` bytes: a sparse file can be huge and take no room on the disk."""
    with named(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file")
        if status.st_size > most:
            raise ValueError(f"{path} has more than {most} bytes")
        return path.read_bytes()


def read_text(path: Path, most: int = sys.maxsize) -> str:
    """Return the text of a UTF-8 file. Errors are those of `read_bytes`, and ValueError for what is not UTF-8."""
    return read_bytes(path, most).decode()


def may_be_sound(error: OSError) -> bool:
    """Return whether a file that gave this error may be as it was written, since its reader lacks permission, the disk
    or the network fails, or a limit is reached. It cannot be if there is no file or no ordinary file, or if the error
    is an unpacker's, about the contents."""
    return error.errno not in (None, errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ELOOP)


def read_json(path: Path, remedy: str = "delete it and run again", read: Callable[[Path], str] = read_text) -> Any:
    """Return the value in a JSON file, whose text `read` returns. Raises UserError naming the file and the `remedy` if
    the file is missing or not JSON; an OSError after which the file `may_be_sound` is raised as it is."""
    try:
        return json.loads(read(path))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and may_be_sound(error):
            raise
        raise UserError(f"{path} cannot be read as JSON ({error}); {remedy}") from None


def has_type(value: Any, kind: Any) -> bool:
    """Return whether a value from JSON is finite and of this type; true and false do not count as numbers."""
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, kind) and not (isinstance(value, float) and not math.isfinite(value))


@contextmanager
def lock(path: Path, wait: bool = True, waiting: str = "") -> Iterator[bool]:
    """Hold an exclusive lock on the file `path` (created if missing); yields whether this process got the lock.

    If another process holds the lock, print the warning `waiting`, if there is one, and wait; without `wait`, yield
    False at once. The kernel drops the lock when the process ends, however it ends. The holder may remove the file.
    """
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            f = open(path, "a")  # noqa: SIM115
        except FileNotFoundError:  # another process has just removed the folder, having nothing to leave there
            continue
        with f:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    yield False
                    return
                if waiting:
                    warn(waiting)
                fcntl.flock(f, fcntl.LOCK_EX)
            except OSError as error:
                error.filename = str(path)
                if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP):
                    raise
                raise UserError(
                    f"{path}: this file system has no locks; set CACHE and RUNS in path.py, or GLAM_CACHE "
                    "and GLAM_RUNS, to folders on another disk"
                ) from None
            try:
                same = os.path.samestat(os.fstat(f.fileno()), path.stat())
            except FileNotFoundError:
                same = False
            if same:  # if not, its last holder removed it between our opening and our locking it
                yield True
                return


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield `folder` and each folder below it (linked ones too, none twice, no hidden one) with its files' names.

    Raises OSError for a folder that may not be read.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # that folder has gone meanwhile
            raise error

    been = {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        inside = sorted((f for f in folders if not f.startswith(".")), key=lambda f: (Path(parent, f).is_symlink(), f))
        folders.clear()
        for name in inside:  # links last: a link may lead back, or to a folder beside it
            if (real := os.path.realpath(Path(parent, name))) not in been:
                been.add(real)
                folders.append(name)
        yield Path(parent), sorted(files)


def digest_file(path: Path) -> str:
    """Return the Blake2b digest (128 bit) of a file's bytes, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_of(value: Any, size: int = 16) -> str:
    """Return the Blake2b digest (`size` bytes) of a value's canonical JSON, in hexadecimal: equal on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


@contextmanager
def new_folder(out: Path, marker: str = "", replace: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder beside `out` that becomes `out` on success and vanishes on failure.

    An `out` that holds a file called `marker` is our own earlier work and is replaced; with `replace`, any `out` is.
    Any other folder that is not empty is refused with UserError.
    """
    out = out.resolve()
    ours = out.is_dir() and (replace or (out / marker).is_file())
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a new folder to write to")
    if out.is_dir() and not ours and any(out.iterdir()):
        raise UserError(f"{out} is not empty; name a new folder to write to")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    old = temporary.with_suffix(".old.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process that had our number
    if out.exists():  # if not, `old` is the only copy
        shutil.rmtree(old, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
    except (FileExistsError, FileNotFoundError, NotADirectoryError) as error:
        raise UserError(f"{out} cannot be made ({error.strerror}: {error.filename}); name another folder") from None
    try:
        yield temporary
        if ours:
            out.rename(old)
        temporary.rename(out)
    except OSError as error:
        if error.filename is None or error.errno in (errno.ENOSPC, errno.EDQUOT):  # ENOSPC may name what was read
            error.filename = str(out)
        raise
    finally:
        if old.is_dir() and not out.exists():  # it broke off between the renames
            old.rename(out)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
