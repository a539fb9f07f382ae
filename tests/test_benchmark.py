"""benchmark.py: its rows measure what they say and compare results; those for a GPU do the same on a CPU."""

import os
import re
import time
from argparse import Namespace
from functools import partial

import pytest
import torch

import benchmark
import loops
from cli import UserError

pytestmark = pytest.mark.usefixtures("one_thread")
OPTIONS = Namespace(quick=True, repeats=1, threads=1, at_once=3)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "QUICK", {"train": 40, "test": 22})


@pytest.mark.parametrize("name", benchmark.PLAIN)
def test_plain_networks_are_the_networks(name: str) -> None:
    config, shape = benchmark.recipes.config_for(name, device="cpu"), (20, 17)
    (plain, _), (fast, _) = benchmark.fresh(config, shape, fast=False), benchmark.fresh(config, shape, fast=True)
    assert type(plain).trunk is not type(fast).trunk
    x = torch.randn(3, 1, *shape)
    for net in (plain, fast):
        net(x).square().sum().backward()
    for one, other in zip(plain.parameters(), fast.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(fast.eval()(x), plain.eval()(x))


def test_plain_loops_compute_plain_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = benchmark.fresh, []
    monkeypatch.setattr(benchmark, "fresh", lambda *given, fast: asked.append(fast) or real(*given, fast=fast))
    config, shape = benchmark.glam(OPTIONS), (20, 17)
    going, anew = (benchmark.plain_training(config, shape, 40, 22, anew=each) for each in (False, True))
    assert going() == anew() == anew() != going()
    assert benchmark.plain_evaluation(config, shape, 22)().shape[1] == 4 and asked == [False] * 5


def test_the_plain_loop_has_a_process_of_its_own() -> None:
    waiting = os.environ.get("GOMP_SPINCOUNT")
    torch.manual_seed(1)
    *_, theirs, ours, _ = benchmark.compare(partial(partial, torch.initial_seed), torch.initial_seed, 1)
    assert theirs != ours == 1  # nor is it a fork, which would begin with what is set here
    waits = iter((0.5, 0.5, 0))  # the first two turns do not count
    ratio, spread, theirs, _, spent = benchmark.compare(
        partial(partial, os.getenv, "GOMP_SPINCOUNT"), lambda: time.sleep(next(waits)), 1, work=1000
    )
    assert theirs == "300000" and os.environ.get("GOMP_SPINCOUNT") == waiting  # libgomp's own, and ours as before
    assert spent < 0.4 and spread == f"{ratio:.2f} to {ratio:.2f}, n=1"


def test_seeds_in_turns_are_compared_with_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    row = benchmark.seeds_row("seeds", 12, benchmark.glam(OPTIONS), OPTIONS)
    assert row.got > 0 and "3 at once; 40+22 segments" in row.note and re.search(r"\d seeds an hour", row.note)
    monkeypatch.setattr(benchmark, "matrix_rate", lambda config: 1e15)  # far above a CPU's
    row = benchmark.seeds_row("share", 25, benchmark.glam(OPTIONS), OPTIONS, share=True)
    assert 0 < row.got < 1 and row.unit == "%" and "not measured" not in row.line()


def test_a_fast_way_to_something_else_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    real = loops.Trainer.step
    monkeypatch.setattr(loops.Trainer, "step", lambda *given: real(*given) * 1.01)
    for row in (benchmark.seeds_row, benchmark.epoch_row):
        with pytest.raises(UserError, match="the first epoch's loss differs by 1"):
            row("GLAM", 12, benchmark.glam(OPTIONS), OPTIONS)


def test_a_row_of_the_cpu_needs_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is for one process alone, which the plain loop's then cannot use."""
    waits: list[None] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waits.append(None))
    assert benchmark.seconds(lambda: len(waits))[1] == len(waits) == 0
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)  # as after a tensor there
    assert benchmark.seconds(lambda: len(waits))[1] == 1 and len(waits) == 2

    def refuse() -> None:
        raise UserError("it is in use")

    monkeypatch.setattr(benchmark.device, "check_gpu", refuse)
    with pytest.raises(UserError, match="it is in use"):
        benchmark.plain_arithmetic(benchmark.glam(OPTIONS, device="cuda"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UserError("it differs"), "it differs"),
        (torch.OutOfMemoryError("CUDA out of memory"), "the GPU ran out of memory; a smaller --at_once takes less"),
    ],
)
def test_a_row_that_fails_does_not_end_the_table(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    def broken(options: Namespace) -> benchmark.Row:
        raise error

    monkeypatch.setitem(benchmark.ROWS, "glam_fp32", broken)
    words = ["benchmark.py", "--quick", "--only", "glam_fp32,glam_cuda", "--output", str(tmp_path / "table.md")]
    monkeypatch.setattr("sys.argv", words)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main() == 1
    told = (tmp_path / "table.md").read_text()
    assert f"| glam_fp32 | not measured |  |  | {said}" in told and "no CUDA device here" in told


def test_rows_that_need_a_gpu_say_so_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cuda = [name for name in benchmark.ROWS if name.endswith("_cuda")]
    assert sorted(cuda) == ["evaluation_cuda", "glam_cuda", "matrix_share_cuda", "seeds_cuda"]
    for name in cuda:
        assert "| not measured |" in (line := benchmark.ROWS[name](OPTIONS).line()) and "no CUDA device here" in line


def test_from_the_command_line(command, tmp_path) -> None:
    told = command(
        "benchmark.py", "--quick", "--only", "help_time,glam_cuda", "--repeats", 1, "--output", tmp_path / "t.md"
    )
    assert told.stdout.count("\n| ") == 3 and told.stdout.startswith("SYNTHETIC data (--quick)")
    assert (tmp_path / "t.md").read_text() == told.stdout
    refused = command("benchmark.py", "--only", "glam", status=2).stderr
    assert refused.endswith(f"choose from {', '.join(benchmark.ROWS)}\n")
    refused = command("benchmark.py", "--threads", 3_000_000_000, status=2).stderr
    assert refused.endswith("--threads 3000000000: must be at most 4096\n")
