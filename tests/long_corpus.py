"""Measure the memory that hours of synthetic speech take: index, features and one epoch of a small model.

    python tests/long_corpus.py --hours 20 --folder DIR      # DIR takes 2.6 GB

Memory is looked up every 50 ms. *Anonymous* memory belongs to the process alone. *File* memory is pages of libraries
and of memory-mapped features, which the system takes back when it needs them.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def memory(pid: int) -> dict[str, int]:
    """Return the resident memory of a process now, in kB: RssAnon, RssFile and others."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {name: int(kb) for name, kb in re.findall(r"^(\w+):\s+(\d+) kB$", text, re.MULTILINE)}


def measured(words: list[str], environment: dict[str, str]) -> tuple[float, int, int]:
    """Run a command, and return its seconds and its largest anonymous and mapped memory in MB."""
    begin, most = time.monotonic(), {"RssAnon": 0, "RssFile": 0}
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, env=environment)
    while process.poll() is None:
        now = memory(process.pid)
        most = {name: max(kb, now.get(name, 0)) for name, kb in most.items()}
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"{words} gave {process.returncode}")
    return time.monotonic() - begin, most["RssAnon"] // 1024, most["RssFile"] // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=20, metavar="H", help="of synthetic speech (default: 20)")
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="DIR",
        help="where recordings and features go, and stay (default: a temporary one)",
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).absolute()
        names = {"IEMOCAP": "release", "GLAM_CACHE": "cache", "GLAM_RUNS": "runs"}
        environment = {**os.environ, **{name: str(folder / f"{given.hours:g}h" / sub) for name, sub in names.items()}}
        run = ["train.py", "--model", "CNN_GAP", "--dataset", "all", "--gpu", "-1", "--epochs", "1"]
        steps = {
            "recordings made": ["-m", "corpora.synthetic", environment["IEMOCAP"], "--hours", f"{given.hours:g}"],
            "index": ["handleIEMOCAP.py"],
            "features (mfcc) and one epoch of CNN_GAP": run,
            "another epoch, features kept": [*run, "--seed", "1"],
        }
        print("| step | hours | minutes | anonymous, MB | file, MB |\n|---|--:|--:|--:|--:|")
        rows = []
        for name, words in steps.items():
            seconds, anonymous, mapped = measured(words, environment)
            rows.append(f"| {name} | {given.hours:g} | {seconds / 60:.1f} | {anonymous} | {mapped} |")
            print(rows[-1], file=sys.stderr, flush=True)
        print("\n".join(rows))


if __name__ == "__main__":
    main()
