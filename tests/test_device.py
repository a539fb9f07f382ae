"""device.py: which device computes, what is said where it cannot, and memory that is kept for the next step."""

import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import cli
import data
import device
import loops
import recipes
import train
from cli import UserError
from tests.conftest import ROOT

FAULTS = """
import resource
import device
device.keep_freed_memory()
def faults():  # pages that the kernel hands out for three blocks, 2.4 GB in all, which are freed again
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [b"1" * 800_000_000 for _ in range(3)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc's allocator")
def test_freed_memory_is_kept_however_much_it_is():
    done = subprocess.run([sys.executable, "-c", FAULTS], cwd=ROOT, check=True, capture_output=True, text=True)
    assert int(done.stdout) < 1000


def test_a_gpu_that_torch_cannot_use_is_told(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: iter([folder / "nvidia3"]))
    assert device.choose_device() == "cpu"
    assert "an NVIDIA GPU, and torch" in capsys.readouterr().err
    cli.warn_once.cache_clear()
    assert device.choose_device(-1) == "cpu" and not capsys.readouterr().err, "nobody asked for it"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert device.choose_device() == "cpu" and not capsys.readouterr().err, "it was hidden"


def test_the_gpu_asked_for_computes_and_no_other(monkeypatch):
    chosen: list[int] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert device.choose_device() == device.choose_device(device="cuda") == "cuda" and not chosen
    assert device.choose_device(1) == device.choose_device(0, "cuda") == "cuda" and chosen == [1, 0]
    assert device.choose_device(-1) == device.choose_device(device="cpu") == device.choose_device(-1, "cpu") == "cpu"
    with pytest.raises(UserError, match="--gpu 2: this machine has CUDA devices 0 to 1"):
        device.choose_device(2)
    with pytest.raises(UserError, match="--gpu -2: give a CUDA device's number, or -1 for the CPU"):
        device.choose_device(-2)
    for gpu, name in ((-1, "cuda"), (0, "cpu")):
        with pytest.raises(UserError, match=f"--device {name} and --gpu {gpu} contradict each other"):
            device.choose_device(gpu, name)
    with pytest.raises(UserError, match="--device tpu: choose cpu or cuda"):
        device.choose_device(device="tpu")
    assert chosen == [1, 0]


def test_without_a_gpu_one_asked_for_by_name_is_an_error_and_by_number_a_warning(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(UserError, match="--device cuda: this machine has no CUDA device"):
        device.choose_device(device="cuda")
    assert device.choose_device(0) == "cpu"
    assert "--gpu 0: no CUDA device here, so the CPU computes" in capsys.readouterr().err


def test_what_torch_reads_from_the_environment_is_set_before_it_and_the_users_own_holds():
    names = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "GOMP_SPINCOUNT": "5000"}
    asks = f"import cli, os, sys; print(*(os.environ[name] for name in {list(names)}), 'torch' in sys.modules)"
    for own in ({}, dict.fromkeys(names, "mine")):
        told = subprocess.check_output([sys.executable, "-c", asks], cwd=ROOT, env=own, text=True)
        assert told.split() == [*(own or names).values(), "False"]


def test_a_gpu_that_cannot_compute_is_told(monkeypatch):
    def no_kernel(*shape: int, **where: Any) -> None:
        raise RuntimeError(
            "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors .."
        )

    def full(*shape: int, **where: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch, "ones", no_kernel)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    with pytest.raises(UserError, match=r"^Tesla V100 cannot be used \(CUDA error: no kernel .*device\); .*--gpu -1$"):
        device.check_gpu()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UserError, match="Tesla V100 cannot be used"):
        train.train(recipes.config_for("GLAM", device="cuda"))
    monkeypatch.setattr(torch, "ones", full)
    with pytest.raises(torch.OutOfMemoryError):
        device.check_gpu()


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"), True),
        (RuntimeError("CUDA driver error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("GET was unable to find an engine to execute this computation"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("CUDA error: out of memory"), False),
    ],
)
def test_what_a_full_gpu_says(error, is_memory):
    assert device.is_out_of_memory(error) == is_memory


@pytest.mark.parametrize("allocate", [torch.empty, np.empty, bytearray], ids=["torch", "numpy", "python"])
def test_too_little_memory_on_a_cpu_is_told_as_such(allocate: Callable[[int], object]) -> None:
    with pytest.raises(UserError) as told, device.explaining_out_of_memory():
        allocate(2**58)
    assert str(told.value).startswith("this machine ran out of memory; finished runs are kept. Use fewer --jobs")
    assert "GPU" not in str(told.value) and "()" not in str(told.value)


def test_memory_that_was_kept_is_given_back():
    script = (
        "import device, torch\n"
        "def held(): return next(int(line.split()[1]) for line in open('/proc/self/status') if line[:7] == 'RssAnon')\n"
        "device.keep_freed_memory()\n"
        "blocks = [torch.ones(2**18) for _ in range(400)]  # 400 MB\n"
        "full = held(); del blocks\n"
        "kept = held(); device.give_back_memory()\n"
        "print(full, kept, held())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    full, kept, left = map(int, done.stdout.split())
    assert kept > full - 50_000 and left < full - 350_000


@pytest.mark.parametrize(("free", "kept", "copied"), [(960, 0, False), (964, 0, True), (664, 300, True)])
def test_features_are_copied_to_a_gpu_with_three_times_their_room(free, kept, copied, monkeypatch, capsys):
    """80 numbers are 320 bytes. What earlier runs kept is room too. The GPU's tensors have no memory here."""
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda: kept + 100)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 100)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 10**9))
    segments = data.Segments(np.zeros((10, 4, 5), np.float32), np.arange(2, 10), np.ones(8, np.int64))
    with FakeTensorMode(allow_non_fake_inputs=True):
        part = loops.make_part(segments, np.arange(4), np.arange(8), "cuda")
    assert (part.x.is_cuda, part.rows.is_cuda, part.labels.is_cuda) == (copied, copied, True)
    assert len(part.x) == (4 if copied else 10) and ("do not fit a third" in capsys.readouterr().err) != copied


@pytest.mark.parametrize(("shape", "batch"), [((26, 57), 256), ((128, 81), 256), ((400, 197), 53), ((4000, 4000), 1)])
def test_large_segments_are_scored_a_few_at_a_time(shape, batch):
    assert loops.evaluation_batch(torch.zeros(1, *shape)) == batch
