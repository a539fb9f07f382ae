"""Whatever happens to a sweep, every run is there in the end, once, and equal to the bit (see faults.py)."""

import re
import sys
from pathlib import Path

import pytest
from faults import SCENARIOS, Place

TIMES = {"kills": 4, "worker_kills": 2, "two_at_once": 2, "damaged_cache": 2}
MARKS = dict.fromkeys(
    ("worker_kills", "two_at_once", "read_only", "damaged_cache", "clock", "replaced_wave"), pytest.mark.slow
)
MARKS["lost_machine"] = pytest.mark.cluster


@pytest.fixture(scope="module")
def place(small_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("faults"), seeds=3, release=small_release)


@pytest.mark.parametrize("name", [pytest.param(n, marks=MARKS.get(n, [])) for n in SCENARIOS])
def test_nothing_is_lost_or_doubled(name: str, place: Place) -> None:
    scenario, _ = SCENARIOS[name]
    try:
        row = scenario(place, TIMES.get(name, 1))
    except PermissionError as error:
        pytest.skip(str(error))
    assert row.tried >= TIMES.get(name, 1)
    assert (row.lost, row.doubled, row.problems) == ([], [], [])


@pytest.mark.parametrize("script", ["tests/faults.py", "tests/long_corpus.py"])
def test_help_of_every_flag(script: str, command) -> None:
    told = command(script, "--help").stdout.partition("show this help message")[2]
    flags = re.findall(r"\n  (--\w+)", told)
    assert flags and re.findall(r"\n  (--\w+)[^\n]*?(?:  +|\n {20,})\w", told) == flags


def test_a_scenario_that_there_is_not_is_refused(command) -> None:
    assert "invalid choice: 'xyz'" in command("tests/faults.py", "--only", "xyz", status=2).stderr


def test_file_size_limit(here: Path, command) -> None:
    """What a full disk is tested with where no small disk may be mounted."""
    words = ["train.py", "--model", "CNN_GAP", "--dataset", "all", "--epochs", "3", "--gpu", "-1", "--quiet"]
    told = command("bash", "-c", 'ulimit -f 40; exec "$0" "$@"', sys.executable, *words, status=2)
    assert "the file size limit is reached" in told.stderr
    assert not [f for f in here.rglob("*") if f.name.endswith(".tmp") or f.name == "done"]
    command(*words)
