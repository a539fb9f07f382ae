"""Files that survive a crash: atomic writes, locks that die with their owner, digests."""

import errno
import fcntl
import glob
import hashlib
import json
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

FORGOTTEN = 86400  # seconds: a temporary file that nobody wrote to for as long is a killed writer's


@contextmanager
def named(path: Path) -> Iterator[None]:
    """What the system refuses in here, and does not name, as a read or a write that fails half-way, is of `path`."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:  # gzip and zipfile raise it without a number
            error.filename = str(path)
        raise


def _sync_folder(folder: Path) -> None:
    """Make a rename in `folder` outlive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # of VirtualBox's and Samba's shares and WSL's network drives, which cannot
            raise
    finally:
        os.close(descriptor)


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it onto `path` on success, remove it on failure.

    A reader sees the old file or the new one, whole, whatever happens in between.
    """
    if path.exists() and not path.is_file():  # /dev/null, say, which a rename would replace
        raise OSError(errno.EINVAL, "it is no ordinary file", str(path))
    path = path.resolve() if path.is_symlink() else path  # the link stays
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
            if time.time() - leftover.stat().st_mtime > FORGOTTEN:
                leftover.unlink()
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")  # containers share numbers
    try:
        yield temporary
        with open(temporary, "rb+") as f:
            os.fsync(f.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException as error:
        with suppress(OSError):  # of a disk that is gone, say, which is not what went wrong first
            temporary.unlink()
        # a write refused half-way does not say where, and the temporary file's name says nothing
        if isinstance(error, OSError) and str(error.filename) in ("None", str(temporary)):
            error.filename = str(path)
        raise


def sweep_temporaries(folder: Path) -> None:
    """Remove what killed writers left in `folder` and below. Call it under the lock that guards the folder."""
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
    """The bytes of a file; an error names it. Raises OSError for a pipe or a device, which may have no end, and
    ValueError for a file of more than `most` bytes, which takes no room on a disk where it is a hole."""
    with named(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no ordinary file")
        if status.st_size > most:
            raise ValueError(f"{path} has more than {most} bytes")
        return path.read_bytes()


def read_text(path: Path, most: int = sys.maxsize) -> str:
    """The text of a file in UTF-8; errors as of `read_bytes`."""
    return read_bytes(path, most).decode()


def may_be_sound(error: OSError) -> bool:
    """Whether a file that gave this error may be as it was written: its reader has no right, the disk or the network
    fails, a limit is reached. Not so where there is none or no ordinary one, or where it is what an unpacker says of
    the contents."""
    return error.errno not in (None, errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ELOOP)


def read_json(path: Path, remedy: str = "delete it and run again", read: Callable[[Path], str] = read_text) -> Any:
    """Read a JSON file, whose text `read` gives. Raises UserError naming the file and the `remedy` when it is missing
    or not JSON; an OSError that says nothing of its contents (`may_be_sound`) stays as it is."""
    try:
        return json.loads(read(path))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, OSError) and may_be_sound(error):
            raise
        raise UserError(f"{path} cannot be read as JSON ({error}); {remedy}") from None


@contextmanager
def lock(path: Path, wait: bool = True, waiting: str = "") -> Iterator[bool]:
    """Hold an exclusive lock on `path` (created if missing); yields whether it was got. The kernel drops it when the
    process ends, however it ends. Whoever holds the lock may remove the file. Where another process holds it, `waiting`
    is said, if there is something to say, before it is waited for."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            f = open(path, "a")  # noqa: SIM115
        except FileNotFoundError:  # another process, which had nothing to leave, has just removed the folder
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
            if same:  # else its last owner removed it between our opening and our locking it
                yield True
                return


def walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """`folder` and each folder below it, linked ones too, none twice and no hidden one, with the names of its files.

    Raises OSError for one that may not be read.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # it has gone meanwhile
            raise error

    been = {os.path.realpath(folder)}
    for parent, folders, files in os.walk(folder, onerror=refuse, followlinks=True):
        inside = sorted((f for f in folders if not f.startswith(".")), key=lambda f: (Path(parent, f).is_symlink(), f))
        folders.clear()
        for name in inside:  # links last: one may lead back, or to a folder beside it
            if (real := os.path.realpath(Path(parent, name))) not in been:
                been.add(real)
                folders.append(name)
        yield Path(parent), sorted(files)


def digest_file(path: Path) -> str:
    """Blake2b (128 bit) of a file's bytes, in hexadecimal."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_of(value: Any, size: int = 16) -> str:
    """Blake2b of a value's canonical JSON, in hexadecimal: equal values, equal digests, on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.blake2b(text.encode(), digest_size=size).hexdigest()


@contextmanager
def new_folder(out: Path, marker: str = "", replace: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder beside `out` that becomes `out` on success and vanishes on failure.

    A folder that holds a file called `marker` is our own earlier work and is replaced; with `replace` any folder is.
    Another that is not empty is refused with UserError.
    """
    out = out.resolve()
    ours = out.is_dir() and (replace or (out / marker).is_file())
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file; name a new folder to write to")
    if out.is_dir() and not ours and any(out.iterdir()):
        raise UserError(f"{out} is not empty; name a new folder to write to")
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    old = temporary.with_suffix(".old.tmp")
    shutil.rmtree(temporary, ignore_errors=True)  # of a process killed long ago that had our number
    if out.exists():  # else it is the only copy
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
        if error.filename is None or error.errno in (errno.ENOSPC, errno.EDQUOT):  # it names what was read, or nothing
            error.filename = str(out)
        raise
    finally:
        if old.is_dir() and not out.exists():  # it broke off between the two
            old.rename(out)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
