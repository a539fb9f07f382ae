"""Which device computes."""

from typing import TYPE_CHECKING

from cli import UserError, warn

if TYPE_CHECKING:
    import torch


def device_type(gpu: int | None = None, device: str | None = None) -> str:
    """`cpu` or `cuda` from the flags --gpu and --device: CUDA if there is one; --gpu -1 is the CPU.

    Selects the GPU asked for as the current CUDA device. Raises UserError for one the machine has not.
    """
    import torch

    if gpu is not None and device is not None and (gpu < 0) != (device == "cpu"):
        raise UserError(f"--device {device} and --gpu {gpu} contradict each other: leave one out")
    if device == "cpu" or (gpu is not None and gpu < 0):
        return "cpu"
    if not torch.cuda.is_available():
        if device == "cuda":
            raise UserError(
                "--device cuda: this machine has no CUDA device (or torch cannot use it); leave the flag out"
            )
        if gpu is not None:
            warn(f"--gpu {gpu}: no CUDA device here, so the CPU computes (--gpu -1 asks for it)")
        return "cpu"
    if gpu is not None:
        if gpu >= torch.cuda.device_count():
            raise UserError(f"--gpu {gpu}: this machine has CUDA devices 0 to {torch.cuda.device_count() - 1}")
        torch.cuda.set_device(gpu)
    return "cuda"


def keep_freed_memory(keep: bool = True) -> None:
    """Tell glibc to keep freed blocks for the next step instead of giving them back to the kernel.

    The maps of a spectrogram batch are tens of megabytes each: handing out fresh pages for every one of them, every
    step, costs APCNN a quarter of its time on a CPU. Elsewhere than on glibc this does nothing. Without `keep`, go back
    to what glibc starts with.
    """
    import ctypes

    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_max, 0 if keep else 2**16)
    mallopt(trim_threshold, 2**31 - 1 if keep else 2**17)
    mallopt(top_pad, 2**26 if keep else 2**17)


def describe(device: str) -> str:
    """The device's name as a report says it."""
    import platform

    import torch

    return torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()


def out_of_memory(error: "torch.OutOfMemoryError") -> UserError:
    """What to say when a GPU's memory does not suffice."""
    return UserError(
        f"the GPU ran out of memory; finished runs are kept. Use a smaller --batch_size or --gpu -1 ({error})"
    )
