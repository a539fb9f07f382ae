"""Fixtures that all test files share: the reference numbers, EMO-DB where it is at hand, a small synthetic corpus."""

import json
import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest

import cli  # before torch: it decides how threads wait

# Tests send SIGINT and SIGHUP to child processes. These would inherit that a signal is ignored, as SIGINT is where the
# tests run in the background, and SIGHUP under nohup
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

os.environ["COLUMNS"] = "80"  # help is wrapped to this width, whatever the terminal's is

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def nothing_warned_of() -> None:
    """Have `warn_once` warn in each test, also of what it warned of in tests before."""
    cli.warn_once.cache_clear()


@pytest.fixture(scope="session")
def golden() -> dict:
    """Return the numbers of the published code to compare with (models, features, split, run; torch 2.11 on a CPU)."""
    return json.loads((Path(__file__).parent / "golden.json").read_text())


@pytest.fixture(scope="session")
def emodb() -> Path:
    """Return EMO-DB's folder of 535 wave files, which EMODB names; skip the test without it."""
    folder = Path(os.environ.get("EMODB", ROOT.parent / "shared" / "data" / "emodb" / "wav"))
    if not (found := sorted(folder.rglob("03a01Fa.wav"))):  # corpora/emodb.py also looks below it
        pytest.skip("needs EMO-DB: set the environment variable EMODB to its folder of wave files")
    return found[0].parent.resolve()


@pytest.fixture(scope="session")
def emodb_iemocap(emodb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return EMO-DB laid out as an IEMOCAP release, so that every step that reads IEMOCAP meets real recordings."""
    out = tmp_path_factory.mktemp("emodb") / "IEMOCAP_full_release"
    subprocess.run(
        [sys.executable, "-m", "corpora.emodb_as_iemocap", emodb, out], cwd=ROOT, check=True, capture_output=True
    )
    return out


@pytest.fixture(scope="session")
def small_release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a synthetic release in IEMOCAP's shape, of some 60 utterances. Tests share it: copy it to change it."""
    out = tmp_path_factory.mktemp("synthetic") / "IEMOCAP_full_release"
    subprocess.run(
        [sys.executable, "-m", "corpora.synthetic", out, "--utterances", "60"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    return out


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Compute on one thread in a module of small computations, which gain nothing from a second thread and lose much
    where the other core is busy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a feature cache that tests share, so that the same features are extracted once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def no_cache_of_the_users(shared_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every test the shared cache, so that none touches the user's (GLAM_CACHE)."""
    import path

    monkeypatch.setattr(path, "CACHE", shared_cache)
    monkeypatch.setenv("GLAM_CACHE", str(shared_cache))


@pytest.fixture
def here(small_release: Path, shared_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the small release IEMOCAP, here and in child processes, and return a runs folder of the test's own."""
    import data
    import path

    for name, folder in (("IEMOCAP", small_release), ("CACHE", shared_cache), ("RUNS", tmp_path / "runs")):
        monkeypatch.setattr(path, name, folder)
        monkeypatch.setenv(name if name == "IEMOCAP" else f"GLAM_{name}", str(folder))
    data.forget()
    return tmp_path / "runs"


@pytest.fixture
def unreadable(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return `unreadable(name)`, which forbids to list folders of that name, even to root, whom no permission stops."""

    def forbid(name: str) -> None:
        real = os.scandir

        def scan(folder: str) -> Iterator[os.DirEntry[str]]:
            if Path(folder).name == name:
                raise PermissionError(13, "Permission denied", str(folder))
            return real(folder)

        monkeypatch.setattr(os, "scandir", scan)

    return forbid


# No deadline, as other work may hold the processor for a second. Derandomized, as what passed once must pass again; new
# examples are tried on purpose, by `python -m pytest --hypothesis-profile=default`
hypothesis.settings.register_profile("ours", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ours")


class Command:
    """Runs a command of the repository as a user would, in a process of its own."""

    def __call__(self, *words: object, status: int = 0, cwd: Path = ROOT, **kwargs) -> subprocess.CompletedProcess[str]:
        first = [sys.executable] if str(words[0]).endswith(".py") else []
        done = subprocess.run(
            [*first, *map(str, words)],
            cwd=cwd,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=600,
            **kwargs,
        )
        assert done.returncode == status, (
            f"{words} gave {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
        assert "Traceback" not in done.stderr, done.stderr[-3000:]
        return done


@pytest.fixture(scope="session")
def command() -> Command:
    """Return `command`: `command("train.py", "--epochs", 1)` runs it, checks the status, and refuses a traceback."""
    return Command()


def at_a_terminal(*words: object, status: int = 0) -> list[str]:
    """Return the lines that a command leaves on a terminal of 120 columns; longer lines are not wrapped."""
    ours, its = os.openpty()
    termios.tcsetwinsize(its, (40, 120))
    process = subprocess.Popen([sys.executable, *map(str, words)], cwd=ROOT, stdin=its, stdout=its, stderr=its)
    os.close(its)
    told = b""
    with suppress(OSError):  # Linux raises it when the last process on the terminal has ended
        while block := os.read(ours, 2**16):
            told += block
    os.close(ours)
    lines = []
    for text in told.decode().split("\r\n"):
        line = ""
        for piece in text.split("\r"):  # each piece overwrites the one before
            line = piece + line[len(piece) :]
        lines.append(line.rstrip())
    assert process.wait() == status, lines
    return lines


@pytest.fixture(scope="module")
def two_speakers_will_do() -> Iterator[None]:
    """Allow intervals over as few as two speakers, so that tests can compare them with answers worked out by hand."""
    import stats

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stats, "FEWEST", 2)
        yield
