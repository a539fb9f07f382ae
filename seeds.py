"""The 100 seeds of the published tables.

`python seeds.py` writes them to seeds.txt, one on a line, in the order in which they are run.
"""

from pathlib import Path

import numpy as np

from cli import UserError, parser, run_main
from files import write_text

FILE = Path(__file__).resolve().parent / "seeds.txt"


def seeds() -> list[int]:
    """Return the 100 published seeds, each below 2**32 - 1: the first is 2602656884, the last 122535323."""
    return np.random.RandomState(2021).randint(0, 2**32 - 1, 100, dtype=np.int64).tolist()


def read_seeds(path: Path = FILE) -> list[int]:
    """Return the seeds in a file, one on a line; blank lines are skipped. Raises UserError naming file and line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise UserError(f"{path} cannot be read as seeds ({error}); `python seeds.py` writes it") from None
    found = []
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text:
            continue
        # NumPy's and torch's generators both take 0 .. 2**32 - 1
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 2**32):
            raise UserError(f"{path}, line {number}: {text[:40]!r} is not a seed, a whole number from 0 to 4294967295")
        found.append(int(text))
    if not found:
        raise UserError(f"{path} holds no seeds; `python seeds.py` writes them")
    return found


def main() -> None:
    arguments = parser(description=__doc__)
    arguments.add_argument("--output", type=Path, default=FILE, metavar="FILE", help="(default: seeds.txt)")
    args = arguments.parse_args()
    if args.output.is_dir():
        raise UserError(f"--output {args.output} is a folder; name a file")
    write_text(args.output, "".join(f"{seed}\n" for seed in seeds()))
    print(f"{len(seeds())} seeds written to {args.output}")


if __name__ == "__main__":
    run_main(main)
