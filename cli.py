"""What every command shares: errors as sentences, exit statuses, argument parsers."""

import argparse
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any, NoReturn

# Set before torch is imported: a waiting thread spins some ten microseconds and then sleeps. By default it spins on,
# which makes a step four times as slow if other work shares the cores; sleeping at once costs an idle machine a tenth.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # --gpu counts as nvidia-smi does, not the fastest first
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # makes matrix products repeat exactly, on every stream
os.environ.setdefault("USER", str(os.getuid()))  # torch names a folder after it; a container's user may have no name


def _told(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def before_torch(command_line: Callable[[], argparse.ArgumentParser]) -> None:
    """Prepare a command before it imports torch, which takes seconds: answer --help, and make Ctrl-C print one word
    instead of a traceback until `run_main` takes over."""
    if {"-h", "--help"} & set(sys.argv):
        command_line().parse_args()
    sys.excepthook = _told


class UserError(Exception):
    """An error that the user can put right. Its text names the file or the flag, and the remedy."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Print the error as every other error, in a sentence, without argparse's list of all flags before it."""
        self.exit(2, f"error: {printable(message)}; {self.prog} --help lists the flags\n")


def parser(**kwargs: Any) -> argparse.ArgumentParser:
    """Return an argument parser that takes no abbreviated flags and keeps the lines of its description."""
    return _Parser(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **kwargs)


def in_help(folder: object) -> str:
    """Return a path as text for a flag's help, in which argparse would take a % for a format."""
    return str(folder).replace("%", "%%")


def cores() -> int:
    """Return how many cores this process may use: on a cluster often fewer than there are, which only Linux says."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count(text: str) -> int:
    """Return a flag's text as a whole number of at least 1. Raises ArgumentTypeError, which argparse prints."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return number


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name a checkpoint."""
    add = parser.add_argument
    add(
        "--checkpoint",
        required=True,
        metavar="FOLDER",
        help="a checkpoint, a run folder that has one, or a folder above it",
    )
    add("--online", action="store_true", help="FOLDER may be owner/name on the Hugging Face hub, to be downloaded")


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how recordings are recognised: how many at a time, and on which device."""
    add = parser.add_argument
    add("--jobs", type=count, metavar="N", help="recordings at a time (default: as many as there are cores, up to 8)")
    add_device(parser)


def add_device(parser: argparse._ActionsContainer) -> None:
    """Add the flags that say which device computes, as `device.choose_device` takes them."""
    add = parser.add_argument
    add(
        "--gpu",
        "-g",
        type=int,
        metavar="N",
        help="number of the CUDA device; -1: the CPU (default: 0, or the CPU if there is no CUDA device)",
    )
    add("--device", choices=("cpu", "cuda"), help="the kind of device, instead of --gpu")


def warn(text: str) -> None:
    """Print a warning to standard error, where it does not disturb the tables on standard output."""
    print(f"warning: {printable_lines(text)}", file=sys.stderr, flush=True)


@cache
def warn_once(text: str) -> None:
    """Print a warning unless this process has printed it before: a run lists its corpus more than once."""
    warn(text)


def printable(text: str) -> str:
    """Return `text` for one line of a terminal, with control characters and bytes that are not UTF-8 escaped."""
    escaped = "".join(c if c.isprintable() or "\ud800" <= c <= "\udfff" else ascii(c)[1:-1] for c in text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")


def printable_lines(text: str) -> str:
    """Return `text` with each line made `printable`: names in others' records could hold commands to the terminal."""
    return "\n".join(map(printable, text.split("\n")))


def need(what: str, file: str, *packages: str) -> None:
    """Raise UserError if one of the packages is missing that `what` needs; the requirements `file` lists them."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise UserError(f"{what} needs {', '.join(missing)}: pip install -r {file}")


def refusal(error: OSError) -> str | None:
    """Return a sentence that names the file of an error and why it cannot be used; None if it is not about a file."""
    reasons = {
        errno.ENOSPC: "the disk is full",
        errno.EDQUOT: "the disk quota is used up",
        errno.EROFS: "it is read-only",
        errno.EFBIG: "the file size limit is reached",
    }
    reason = reasons.get(error.errno or 0) or (error.strerror if error.filename else None)
    if not reason:
        return None
    return f"cannot use {error.filename or 'an output file'}: {reason}"


def keep_bars_apart() -> None:
    """Give tqdm a lock of this process alone. Its own is a semaphore, for bars that processes share: it outlives a
    killed process, and from Python 3.14 on it starts a process, which warns of that."""
    from tqdm import tqdm

    tqdm.set_lock(threading.RLock())


def run_main(
    main: Callable[[], int | None],
    interrupted: str = "interrupted: what is finished is kept; the same command goes on from there",
) -> None:
    """Run a command and exit with what it returns, or 0; with 2 after an error that is told in a sentence; with 130
    after Ctrl-C, SIGTERM or SIGHUP, and the sentence `interrupted`; with 141 if nobody reads the output any more."""
    keep_bars_apart()
    for ending in (signal.SIGTERM, signal.SIGHUP):  # a scheduler's end, a closed terminal: to end as tidily as Ctrl-C
        if signal.getsignal(ending) == signal.SIG_DFL:  # under nohup, SIGHUP is ignored and stays so
            signal.signal(ending, signal.default_int_handler)
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:  # the stream was closed: what is printed goes nowhere
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif stream.errors == "strict" or stream.encoding.lower() != "utf-8":  # a ± that it lacks must stop nothing
            stream.reconfigure(errors="backslashreplace")
    try:
        status = main() or 0
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {printable_lines(str(error))}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        status = 130
    except BrokenPipeError:  # `python report.py | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    except OSError as error:
        reason = refusal(error)
        if reason is None:
            raise
        print(f"error: {printable_lines(reason)}", file=sys.stderr)
        status = 2
    sys.exit(status)
