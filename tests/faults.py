"""Try which faults a sweep survives, with the real commands. After each scenario, every run must be there, once, and be
equal to the bit to the same run of an undisturbed sweep.

    python tests/faults.py                  # all of them, 50 kills; writes the table of results/reliability.md
    python tests/faults.py --kills 5 --seeds 4

The tests try the same scenarios a few times each.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["--models", "CNN_GAP", "--datasets", "all", "--epochs", "3", "--threads", "1", "--gpu", "-1", "--quiet"]
MARKS = "<!-- table -->\n", "<!-- end of table -->\n"


def until(condition: Callable[[], object], seconds: float = 600) -> None:
    """Wait for a condition. Raises AssertionError if it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not so after {seconds:g} s"
        time.sleep(0.01)


# ---------------------------------------------------------------------------------- runs, and whether they are equal


def finished(runs: Path) -> dict[str, Path]:
    """Return the finished run folders by their path under `runs`."""
    return {str(done.parent.relative_to(runs)): done.parent for done in sorted(runs.glob("*/*/*/*/*/done"))}


def content(folder: Path) -> dict[str, object]:
    """Return all that a run recorded, except the seconds that it took and the commit of the code."""
    epochs = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    found: dict[str, object] = {"epochs": [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in epochs]}
    with np.load(folder / "predictions.npz", allow_pickle=False) as arrays:
        found |= {name: (arrays[name].dtype.str, arrays[name].shape, arrays[name].tobytes()) for name in arrays}
    for name in ("split.json", "checkpoint/model.safetensors"):
        if (folder / name).exists():
            found[name] = (folder / name).read_bytes()
    found["config"] = {k: v for k, v in json.loads((folder / "config.json").read_text()).items() if k != "commit"}
    found["files"] = sorted(str(f.relative_to(folder)) for f in folder.rglob("*") if f.is_file() and f.name != "lock")
    return found


def lost(reference: Path, runs: Path) -> list[str]:
    """Return the runs of `reference` that are missing in `runs`, or differ there in a bit or in their list of files."""
    have = finished(runs)
    return [
        name
        for name, folder in finished(reference).items()
        if name not in have or content(have[name]) != content(folder)
    ]


class Watch:
    """Notices, while a sweep runs, when a finished run is trained again: its `done` is then another file."""

    def __init__(self, runs: Path):
        self.runs, self.ended = runs, threading.Event()
        self.seen: dict[str, int] = {}
        self.thread = threading.Thread(target=self._look_on, daemon=True)

    def _look(self) -> dict[str, int]:
        found = {}
        for name, folder in finished(self.runs).items():
            with suppress(FileNotFoundError):
                found[name] = (folder / "done").stat().st_ino  # kept until the new state exists, so inodes differ
        return found

    def _look_on(self) -> None:
        while not self.ended.wait(0.02):
            self.seen = {**self._look(), **self.seen}

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def doubled(self, reference: Path) -> list[str]:
        """Return runs that were trained twice, and run folders that an undisturbed sweep does not make."""
        now = self._look()
        folders = {str(c.parent.relative_to(self.runs)) for c in self.runs.glob("*/*/*/*/*/config.json")}
        return sorted(
            {name for name, was in self.seen.items() if now.get(name) != was} | (folders - set(finished(reference)))
        )


# ---------------------------------------------------------------------------------------------------- a workplace


@dataclass
class Row:
    """A line of the table."""

    fault: str
    tried: int
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)  # whatever else went wrong

    def check(self, reference: Path, runs: Path, watch: Watch) -> None:
        """Note which runs are missing in `runs`, and which were trained twice."""
        self.lost += lost(reference, runs)
        self.doubled += watch.doubled(reference)

    def expect(self, right: bool, text: str) -> None:
        """Note a problem unless `right`."""
        if not right:
            self.problems.append(text)


class Place:
    """A folder with a small release, a cache, and the runs of an undisturbed sequential sweep over `seeds` seeds."""

    def __init__(self, folder: Path, seeds: int, release: Path | None = None, cache: Path | None = None):
        self.folder, self.seeds = folder, seeds
        self.release, self.cache, self.reference = (
            release or folder / "release",
            cache or folder / "cache",
            folder / "reference",
        )
        if not self.release.exists():
            words = [sys.executable, "-m", "corpora.synthetic", str(self.release), "--utterances", "60"]
            subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
        self.finish(self.reference)

    def names(self) -> set[str]:
        """Return the names of the utterances that runs use."""
        split = json.loads((next(iter(finished(self.reference).values())) / "split.json").read_text())
        return {*split["train"], *split["test"]}

    def words(self, *more: object) -> list[str]:
        """Return the words of the sweep's command, with `more` flags."""
        return [sys.executable, "sweep.py", *FLAGS, "--seeds", str(self.seeds), *map(str, more)]

    def environment(self, runs: Path, **more: str) -> dict[str, str]:
        """Return the environment of the sweep's command, with `more` variables."""
        return {
            **os.environ,
            "IEMOCAP": str(self.release),
            "GLAM_CACHE": str(self.cache),
            "GLAM_RUNS": str(runs),
            **more,
        }

    def start(self, runs: Path, *more: object, **variables: str) -> subprocess.Popen[str]:
        """Start the sweep in its own session, so that it can be killed with all its processes."""
        return subprocess.Popen(
            self.words(*more), cwd=ROOT, env=self.environment(runs, **variables), start_new_session=True, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def finish(self, runs: Path, *more: object, status: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the sweep to its end."""
        process = self.start(runs, *more, **variables)
        try:
            out, err = process.communicate(timeout=600)
        finally:
            kill(process)
        if process.returncode != status or "Traceback" in err:
            raise AssertionError(f"exit status {process.returncode}, not {status}\n{out[-2000:]}\n{err[-4000:]}")
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def fresh(self, name: str) -> Path:
        """Return a runs folder of this name that is empty."""
        runs = self.folder / name
        shutil.rmtree(runs, ignore_errors=True)
        runs.mkdir(parents=True)
        return runs


def kill(process: subprocess.Popen[str]) -> bool:
    """Kill (-9) a process with all its children, and return whether it was still running."""
    running = process.poll() is None
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return running


def children(pid: int) -> list[int]:
    """Return the processes that process `pid` started and that train (multiprocessing's resource tracker does not)."""
    found = []
    for task in sorted(Path("/proc").glob("[0-9]*")):
        try:
            parent = int((task / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == pid and b"spawn_main" in (task / "cmdline").read_bytes():
                found.append(int(task.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """Mount a small disk, in memory, at `folder`. Raises PermissionError where this user may not mount one."""
    folder.mkdir(parents=True, exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True, text=True
    )
    if made.returncode:
        raise PermissionError(f"mounting a small disk is not permitted here: {made.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def remount(folder: Path, option: str) -> None:
    """Change a small disk's size, or whether it can be written to."""
    subprocess.run(["mount", "-o", f"remount,{option}", folder], check=True, capture_output=True)


# ------------------------------------------------------------------------------------------------------ scenarios


def kills(place: Place, times: int) -> Row:
    """Kill (-9) the sweep with all its processes at random moments, and give the same command again."""
    row = Row("sweep killed (kill -9) at a random moment, then restarted", 0)
    chance = random.Random(1)
    startup = 3.0
    while row.tried < times:
        runs = place.fresh("kills")
        with Watch(runs) as watch:
            while True:
                begin = time.monotonic()
                process = place.start(runs, "--jobs", chance.choice([1, 2]))
                delay = chance.uniform(0, 2 * startup) if row.tried < times else 600
                while process.poll() is None and time.monotonic() - begin < delay:
                    if startup == 3.0 and any(runs.glob("*/*/*/*/*/config.json")):
                        startup = time.monotonic() - begin
                    time.sleep(0.01)
                if not kill(process):
                    row.expect(process.returncode == 0, f"a sweep ended with status {process.returncode}")
                    break
                row.tried += 1
            row.check(place.reference, runs, watch)
    return row


def worker_kills(place: Place, times: int) -> Row:
    """Kill (-9) one of the two worker processes of a sweep at random moments."""
    row = Row("one worker process of `--jobs 2` killed (kill -9) at a random moment", 0)
    chance = random.Random(2)
    while row.tried < times:
        runs = place.fresh("worker_kills")
        with Watch(runs) as watch:
            process = place.start(runs, "--jobs", 2, "--tries", 100)
            while process.poll() is None:
                time.sleep(chance.uniform(0, 4))
                workers = children(process.pid)
                if workers and row.tried < times:
                    with suppress(ProcessLookupError):  # the worker may have ended by itself
                        os.kill(chance.choice(workers), signal.SIGKILL)
                        row.tried += 1
            row.expect(process.returncode == 0, f"a sweep ended with status {process.returncode}")
            kill(process)
            row.check(place.reference, runs, watch)
    return row


def two_at_once(place: Place, times: int) -> Row:
    """Run two sweeps on one folder, and kill one of them every other time."""
    row = Row("two sweeps on the same folder, one of the two killed every other time", times)
    for i in range(times):
        runs = place.fresh("two")
        with Watch(runs) as watch:
            both = [place.start(runs) for _ in range(2)]
            if i % 2:
                while not list(runs.glob("*/*/*/*/*/config.json")) and both[0].poll() is None:
                    time.sleep(0.01)
                kill(both[0])
            for process in both[i % 2 :]:
                _, err = process.communicate(timeout=600)
                row.expect(process.returncode == 0, f"status {process.returncode}: {err[-500:]}")
            row.check(place.reference, runs, watch)
    return row


def full_disk(place: Place, times: int) -> Row:
    """Fill the disk, then make room and give the same command again."""
    row = Row("disk full; the same command again when there is room", times)
    for i in range(times):
        with small_disk(place.fresh("full"), f"{100 + 60 * i}k") as disk, Watch(disk) as watch:
            told = place.finish(disk, status=1)
            row.expect(
                "the disk is full" in told.stdout + told.stderr, f"it said {told.stdout[-300:]}{told.stderr[-300:]}"
            )
            remount(disk, "size=64m")
            place.finish(disk)
            row.check(place.reference, disk, watch)
    return row


def read_only(place: Place, times: int) -> Row:
    """Make the runs folder read-only, then writable, and give the same command again."""
    row = Row("runs folder read-only; the same command again when it is not", times)
    for _ in range(times):
        with small_disk(place.fresh("read_only"), "64m") as disk, Watch(disk) as watch:
            remount(disk, "ro")
            told = place.finish(disk, status=1)
            row.expect(
                "it is read-only" in told.stdout + told.stderr, f"it said {told.stdout[-300:]}{told.stderr[-300:]}"
            )
            row.expect(not list(disk.iterdir()), "something was written")
            remount(disk, "rw")
            place.finish(disk)
            row.check(place.reference, disk, watch)
    return row


def damaged_cache(place: Place, times: int) -> Row:
    """Cut off a file of cached features, or flip a bit in it."""
    row = Row("cached features cut off, or one bit flipped, at a random place", times)
    chance = random.Random(3)
    for i in range(times):
        file = chance.choice(sorted((place.cache / "features").glob("*/*.*")))
        whole = file.read_bytes()
        at = chance.randrange(len(whole))
        changed = whole[:at] if i % 2 else whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :]
        file.write_bytes(changed)
        runs = place.fresh("damaged")
        with Watch(runs) as watch:
            told = place.finish(runs)
            used = any(w in told.stderr for w in ("damaged", "made again"))
            row.expect(used, f"{file.name} changed at {at} of {len(whole)}: no warning")
            row.check(place.reference, runs, watch)
    return row


CLOCK = """import random, time
_time, _random = time.time, random.Random()
def jumping():
    return _time() + _random.choice([0, 1, -1]) * _random.uniform(0, 1e8)
time.time = jumping
time.time_ns = lambda: int(jumping() * 1e9)
"""


def clock(place: Place, times: int) -> Row:
    """Have time.time() jump by up to three years at every call."""
    row = Row("clock jumping by up to three years at every look, files dated 1980 or 2100", times)
    hook = place.folder / "clock"
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(CLOCK)
    for i in range(times):
        runs = place.fresh("clock")
        with Watch(runs) as watch:
            process = place.start(runs, PYTHONPATH=str(hook))
            while not finished(runs) and process.poll() is None:
                time.sleep(0.01)
            kill(process)
            for file in [f for f in runs.rglob("*") if f.is_file() and f.name != "done"]:
                os.utime(file, (315532800, 315532800) if i % 2 else (4102444800, 4102444800))
            place.finish(runs, PYTHONPATH=str(hook))
            row.check(place.reference, runs, watch)
    return row


def replaced_wave(place: Place, times: int) -> Row:
    """Change a recording's samples, but keep its size and modification time."""
    row = Row("recording replaced after indexing, its size and time of change kept", times)
    release, chance = place.folder / "changing", random.Random(4)
    shutil.rmtree(release, ignore_errors=True)
    shutil.copytree(place.release, release)
    waves = sorted(f for f in release.glob("*/sentences/wav/*/*.wav") if not f.name.startswith("."))
    usable = [f for f in waves if f.stem in place.names()]
    runs = place.fresh("replaced")
    place.finish(runs, IEMOCAP=str(release))
    for _ in range(times):
        before = finished(runs)
        file = chance.choice(usable)
        was, whole = file.stat(), bytearray(file.read_bytes())
        at = chance.randrange(len(whole) // 2, len(whole))
        whole[at] ^= 255
        file.write_bytes(whole)
        os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
        listed = place.finish(runs, "--dry_run", IEMOCAP=str(release)).stdout
        row.expect(f"{place.seeds} stale" in listed, f"not noticed: {listed[-200:]}")
        place.finish(runs, IEMOCAP=str(release))
        apart = place.fresh("replaced_apart")
        place.finish(apart, IEMOCAP=str(release), GLAM_CACHE=str(place.fresh("replaced_cache")))
        row.lost += lost(apart, runs) + [name for name in before if name not in finished(runs)]
        row.doubled += sorted(set(finished(runs)) - set(before) - set(finished(apart)))
    return row


def lost_machine(place: Place, times: int) -> Row:
    """Lose one of the two machines of a Ray cluster in mid-sweep."""
    row = Row("one of two Ray nodes killed in mid-sweep", times)
    try:
        from ray.cluster_utils import Cluster
    except ImportError:
        raise PermissionError("Ray is not installed here: pip install -r requirements-cluster.txt") from None
    size: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 200_000_000}
    for _ in range(times):
        runs = place.fresh("lost_machine")
        cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
        try:
            doomed = cluster.add_node(**size)
            with Watch(runs) as watch:
                process = place.start(runs, "--ray", cluster.address)
                while not finished(runs) and process.poll() is None:
                    time.sleep(0.01)
                cluster.remove_node(doomed, allow_graceful=False)
                _, err = process.communicate(timeout=600)
                row.expect(process.returncode == 0, f"status {process.returncode}: {err[-500:]}")
                row.check(place.reference, runs, watch)
        finally:
            cluster.shutdown()
    return row


SCENARIOS: dict[str, tuple[Callable[[Place, int], Row], int]] = {  # the scenario, and how often it is tried
    "kills": (kills, 50),
    "worker_kills": (worker_kills, 10),
    "two_at_once": (two_at_once, 4),
    "full_disk": (full_disk, 4),
    "read_only": (read_only, 2),
    "damaged_cache": (damaged_cache, 6),
    "clock": (clock, 2),
    "replaced_wave": (replaced_wave, 2),
    "lost_machine": (lost_machine, 2),
}


# --------------------------------------------------------------------------------------------------------- command


def write_table(file: Path, rows: list[str]) -> None:
    """Put the rows between the marks in a Markdown file."""
    before, _, rest = file.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    head = "| fault | tried | runs | lost | doubled | other problems |\n|---|--:|--:|--:|--:|---|\n"
    file.write_text(before + MARKS[0] + head + "".join(rows) + MARKS[1] + after, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--kills", type=int, default=SCENARIOS["kills"][1], metavar="N",
        help="how often the scenario kills stops a sweep (default: %(default)s)")  # fmt: skip
    add(
        "--seeds",
        type=int,
        default=20,
        metavar="N",
        help="runs in a sweep: of kills, others have at most 5 (default: 20)",
    )
    add("--only", choices=SCENARIOS, metavar="NAME", help=f"one scenario, and no table: {', '.join(SCENARIOS)}")
    add("--output", type=Path, default=ROOT / "results" / "reliability.md", metavar="FILE",
        help="the Markdown file that holds the table (default: results/reliability.md)")  # fmt: skip
    given = parser.parse_args()
    rows, bad = [], 0
    with tempfile.TemporaryDirectory() as temporary:
        places = {n: Place(Path(temporary) / str(n), n) for n in sorted({given.seeds, min(5, given.seeds)})}
        for name, (scenario, times) in SCENARIOS.items():
            if given.only not in (None, name):
                continue
            place = places[given.seeds if name == "kills" else min(places)]
            begin = time.monotonic()
            try:
                row = scenario(place, given.kills if name == "kills" else times)
            except PermissionError as error:
                rows.append(f"| {name} | 0 | {place.seeds} | – | – | {error} |\n")
                continue
            wrong = len(row.lost) + len(row.doubled) + len(row.problems)
            bad += wrong
            rows.append(
                f"| {row.fault} | {row.tried} | {place.seeds} | {len(row.lost)} | {len(row.doubled)} | "
                f"{'; '.join(row.problems) or 'none'} |\n"
            )
            print(f"{rows[-1].strip()}  {time.monotonic() - begin:.0f} s {row.lost} {row.doubled}", flush=True)
    if given.only is None:
        write_table(given.output, rows)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
