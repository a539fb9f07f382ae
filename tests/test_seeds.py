"""The 100 seeds, and files of seeds that users edit."""

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import UserError
from seeds import FILE, main, read_seeds, seeds


def test_seeds_are_the_published_ones() -> None:
    np.random.seed(2021)
    assert seeds() == np.random.randint(0, 2**32 - 1, 100).tolist()
    assert (seeds()[0], seeds()[-1], len(set(seeds()))) == (2602656884, 122535323, 100)


def test_seeds_leave_the_global_generator_alone() -> None:
    np.random.seed(1)
    first = np.random.random()
    np.random.seed(1)
    seeds()
    assert np.random.random() == first


def test_committed_file_is_what_the_command_writes(tmp_path: Path, command) -> None:
    command("seeds.py", "--output", tmp_path / "seeds.txt")
    assert (tmp_path / "seeds.txt").read_bytes() == FILE.read_bytes()
    assert read_seeds() == seeds()
    assert [file.name for file in tmp_path.iterdir()] == ["seeds.txt"]


def test_without_output_it_is_the_file_that_is_read(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setattr("seeds.FILE", tmp_path / "seeds.txt")
    monkeypatch.setattr(sys, "argv", ["seeds.py"])
    main()
    assert capsys.readouterr().out == f"100 seeds written to {tmp_path / 'seeds.txt'}\n"
    assert read_seeds(tmp_path / "seeds.txt") == seeds()


def test_output_that_is_a_folder_is_refused(tmp_path: Path, command) -> None:
    assert "--output" in command("seeds.py", "--output", tmp_path, status=2).stderr


def test_read_seeds_takes_what_editors_leave(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"\n 1 \r\n\r\n4294967295\n0")
    assert read_seeds(tmp_path / "mine") == [1, 4294967295, 0]


@pytest.mark.parametrize("line", ["-1", "4294967296", "1.5", "1e3", "abc", "1 2", "²", "٣", "9" * 5000])
def test_a_bad_seed_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    (tmp_path / "mine").write_text(f"7\n\n{line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"mine, line 3"):
        read_seeds(tmp_path / "mine")


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xff\xfe1"])
def test_a_file_without_seeds_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mine").write_bytes(content)
    with pytest.raises(UserError, match="mine"):
        read_seeds(tmp_path / "mine")
    with pytest.raises(UserError, match="missing"):
        read_seeds(tmp_path / "missing")


@given(st.binary(max_size=60))
def test_any_file_gives_seeds_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "seeds"
    file.write_bytes(content)
    try:
        assert all(0 <= seed < 2**32 for seed in read_seeds(file))
    except UserError as error:
        assert str(file) in str(error)
