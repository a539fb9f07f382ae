"""The device that computes: which one it is, its memory and its random numbers."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from cli import UserError, warn_once

TorchRandomState = tuple[torch.Tensor, torch.Generator | None]  # the CPU's; the GPU's, if a run computes there


def choose_device(gpu: int | None = None, device: str | None = None) -> str:
    """Return `cpu` or `cuda` as the flags --gpu and --device say (--gpu -1: the CPU); by default CUDA if there is one.

    The GPU that --gpu names becomes the current CUDA device. Raises UserError if the machine does not have the device
    asked for, or if the flags contradict each other.
    """
    if device not in (None, "cpu", "cuda"):
        raise UserError(f"--device {device}: choose cpu or cuda")
    if gpu is not None and device is not None and (gpu < 0) != (device == "cpu"):
        raise UserError(f"--device {device} and --gpu {gpu} contradict each other: leave one out")
    if gpu is not None and gpu < -1:
        raise UserError(f"--gpu {gpu}: give a CUDA device's number, or -1 for the CPU")
    if device == "cpu" or gpu == -1:
        return "cpu"
    if not torch.cuda.is_available():
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        if not hidden and any(Path("/dev").glob("nvidia[0-9]*")):
            warn_once(
                f"there is an NVIDIA GPU, and torch {torch.__version__} cannot use it: install a newer driver, "
                "or a torch made for yours (https://pytorch.org/get-started/previous-versions)"
            )
        if device == "cuda":
            raise UserError(
                "--device cuda: this machine has no CUDA device (or torch cannot use it); leave the flag out"
            )
        if gpu is not None:
            warn_once(f"--gpu {gpu}: no CUDA device here, so the CPU computes (--gpu -1 asks for it)")
        return "cpu"
    if gpu is not None:
        if gpu >= torch.cuda.device_count():
            raise UserError(f"--gpu {gpu}: this machine has CUDA devices 0 to {torch.cuda.device_count() - 1}")
        torch.cuda.set_device(gpu)
    return "cuda"


def check_gpu() -> None:
    """Raise UserError if the current GPU cannot compute: torch is made for some generations of GPUs only, and another
    process may have the GPU to itself."""
    try:
        torch.ones(1, device="cuda").add_(1).item()
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        why = str(error).splitlines()[0]
        raise UserError(
            f"{torch.cuda.get_device_name()} cannot be used ({why}); choose another with --gpu N, or the "
            "CPU with --gpu -1"
        ) from None


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks for the next step instead of giving them back to the kernel.

    The maps of a batch of spectrograms are tens of megabytes each. Without this, fresh pages for every map in every
    step cost APCNN a quarter or more of its time on a CPU; with it, extracting features takes a sixth (AMD) to a half
    (Intel) less time. Without glibc this does nothing.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, -1)  # never trim: a batch of 128 spectrograms frees 10 GB every step
    mallopt(top_pad, 2**26)


def give_back_memory() -> None:
    """Give back to the kernel what `keep_freed_memory` kept: this process's next run may need only a tenth of it."""
    with suppress(OSError, AttributeError):  # raised without glibc
        ctypes.CDLL(None).malloc_trim(0)


def wait_for_gpu(device: str) -> Iterator[None]:
    """Yield until the GPU is done with what was queued on the current stream; on a CPU, do not yield at all."""
    if device == "cuda":
        event = torch.cuda.Event()
        event.record()
        while not event.query():
            yield


def random_state(device: str) -> TorchRandomState:
    """Return a copy of the state of torch's generators: the CPU's and, if `device` is `cuda`, the current GPU's."""
    if device != "cuda":
        return torch.get_rng_state(), None
    torch.cuda.init()
    return torch.get_rng_state(), torch.cuda.default_generators[torch.cuda.current_device()].clone_state()


def swap_random_state(state: TorchRandomState) -> TorchRandomState:
    """Let torch's generators go on from `state`; returns the state that they had. The GPU's state is exchanged, not
    copied, because a graph draws from the very state object under which it was captured."""
    before, gpu = torch.get_rng_state(), None
    torch.set_rng_state(state[0])
    if state[1] is not None:
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        gpu = generator.graphsafe_get_state()
        generator.graphsafe_set_state(state[1])
    return before, gpu


def check_bfloat16(device: str) -> None:
    """Raise UserError if the device lacks the bfloat16 arithmetic that --amp needs."""
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"--amp: {describe(device)} has no bfloat16 (compute capability 8.0 and later have it); leave the flag out"
        )
    onednn = torch.backends.mkldnn.is_available()
    if device == "cpu" and not (onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        raise UserError("--amp: this processor has no instructions for bfloat16 (AVX-512 or SVE); leave the flag out")


def describe(device: str) -> str:
    """Return the device's name as reports print it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    with suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8") as f:  # only Linux says more
        return next(line.partition(":")[2].strip() for line in f if line.startswith("model name"))
    return platform.processor() or platform.machine()


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a GPU or the machine lacks memory; cuBLAS and cuDNN say so only in words."""
    said = str(error).lower()
    marks = ("error: out of memory", "alloc_failed", "allocation_failed", "cublas_status_not_initialized",
             "unable to find an engine to execute this computation", "allocate memory")  # fmt: skip
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(mark in said for mark in marks)
    )


def out_of_memory(
    error: BaseException, remedy: str = "finished runs are kept. Use a smaller --batch_size or --gpu -1"
) -> UserError:
    """Return the UserError to raise for an error that `is_out_of_memory`; `remedy` is what to do if a GPU is full."""
    where = "the GPU"
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        where, remedy = "this machine", "finished runs are kept. Use fewer --jobs; in training, a smaller --batch_size"
    return UserError(f"{where} ran out of memory; {remedy} ({str(error) or type(error).__name__})")


@contextmanager
def explaining_out_of_memory(*remedy: str) -> Iterator[None]:
    """Turn an error in the block that `is_out_of_memory` into `out_of_memory`, with `remedy` if one is given."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, *remedy) from None
