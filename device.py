"""The device that computes: which one, its memory, its random numbers."""

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from cli import UserError, warn_once

TorchRandomState = tuple[torch.Tensor, torch.Generator | None]  # of the CPU; of the GPU, if a run computes there


def choose_device(gpu: int | None = None, device: str | None = None) -> str:
    """`cpu` or `cuda` from the flags --gpu and --device: CUDA if there is one; --gpu -1 is the CPU.

    Selects the GPU asked for as the current CUDA device. Raises UserError for one that the machine does not have.
    """
    if device not in (None, "cpu", "cuda"):
        raise UserError(f"--device {device}: choose cpu or cuda")
    if gpu is not None and device is not None and (gpu < 0) != (device == "cpu"):
        raise UserError(f"--device {device} and --gpu {gpu} contradict each other: leave one out")
    if gpu is not None and gpu < -1:
        raise UserError(f"--gpu {gpu}: a CUDA device's number, or -1 for the CPU")
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
    """Compute something on the current GPU. Raises UserError where it cannot: torch is made for some generations of
    GPUs, and a GPU may be in use by somebody else alone."""
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

    The maps of a spectrogram batch are tens of megabytes each: handing out fresh pages for every one of them, every
    step, costs APCNN a quarter of its time on a CPU and more; features take a sixth (AMD) to a half (Intel) less.
    Elsewhere than on glibc this does nothing.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, -1)  # never; a batch of 128 spectrograms frees 10 GB every step
    mallopt(top_pad, 2**26)


def give_back_memory() -> None:
    """Give the kernel what `keep_freed_memory` has kept: the next run of this process may need a tenth of it."""
    with suppress(OSError, AttributeError):  # not on glibc
        ctypes.CDLL(None).malloc_trim(0)


def wait_for_gpu(device: str) -> Iterator[None]:
    """Yield until the GPU is done with what was queued on the current stream; on a CPU not once."""
    if device == "cuda":
        event = torch.cuda.Event()
        event.record()
        while not event.query():
            yield


def random_state(device: str) -> TorchRandomState:
    """A copy of the state of torch's generators: the CPU's, and the current GPU's where that computes."""
    if device != "cuda":
        return torch.get_rng_state(), None
    torch.cuda.init()
    return torch.get_rng_state(), torch.cuda.default_generators[torch.cuda.current_device()].clone_state()


def swap_random_state(state: TorchRandomState) -> TorchRandomState:
    """Let torch's generators go on from `state`; returns the one they had. The GPU's is not copied but exchanged, as
    graphs captured under it draw from it."""
    before, gpu = torch.get_rng_state(), None
    torch.set_rng_state(state[0])
    if state[1] is not None:
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        gpu = generator.graphsafe_get_state()
        generator.graphsafe_set_state(state[1])
    return before, gpu


def check_bfloat16(device: str) -> None:
    """Raise UserError where --amp has no bfloat16 arithmetic to use."""
    if device == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"--amp: {describe(device)} has no bfloat16 (compute capability 8.0 and later have it); leave the flag out"
        )
    onednn = torch.backends.mkldnn.is_available()
    if device == "cpu" and not (onednn and torch.ops.mkldnn._is_mkldnn_bf16_supported()):
        raise UserError("--amp: this processor has no instructions for bfloat16 (AVX-512 or SVE); leave the flag out")


def describe(device: str) -> str:
    """The device's name as a report says it."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    with suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8") as f:  # Linux alone says more
        return next(line.partition(":")[2].strip() for line in f if line.startswith("model name"))
    return platform.processor() or platform.machine()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means too little memory, a GPU's or the machine's: cuBLAS and cuDNN tell it by words alone."""
    said = str(error).lower()
    marks = ("error: out of memory", "alloc_failed", "allocation_failed", "cublas_status_not_initialized",
             "unable to find an engine to execute this computation", "allocate memory")  # fmt: skip
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError) and any(mark in said for mark in marks)
    )


def out_of_memory(
    error: BaseException, remedy: str = "finished runs are kept. Use a smaller --batch_size or --gpu -1"
) -> UserError:
    """What to raise for an error that `is_out_of_memory`. `remedy` is for a GPU; the default is that of training."""
    where = "the GPU"
    if isinstance(error, MemoryError) or "allocate memory" in str(error):
        where, remedy = "this machine", "finished runs are kept. Use fewer --jobs; in training, a smaller --batch_size"
    return UserError(f"{where} ran out of memory; {remedy} ({str(error) or type(error).__name__})")


@contextmanager
def explaining_out_of_memory(*remedy: str) -> Iterator[None]:
    """Raise `out_of_memory`, with this remedy if one is given, for an error in the block that `is_out_of_memory`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise out_of_memory(error, *remedy) from None
