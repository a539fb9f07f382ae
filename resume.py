"""What a run has recorded so far, and the state file from which an interrupted run is resumed."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

import metrics
from device import is_out_of_memory
from files import atomic, digest_of, read_bytes


@dataclass
class History:
    """What a run has recorded so far, one entry an epoch."""

    records: list[dict[str, Any]]
    logits: dict[str, list[NDArray[np.float32]]]  # by part, an array (U, C) for each epoch
    best: dict[str, Tensor] = field(default_factory=dict)  # the weights of `best_epoch`
    best_epoch: int | None = None  # the epoch, from 0, that the rule of --save_model picks so far
    val_labels: NDArray[np.int64] | None = None  # (U,)
    code: list[dict[str, Any]] = field(default_factory=list)  # commits and versions that trained it, the latest last

    @property
    def val(self) -> tuple[list[NDArray[np.float32]], NDArray[np.int64]] | None:
        """The validation utterances' logits of every epoch, and their labels; None if there is no validation part."""
        return None if self.val_labels is None else (self.logits["val"], self.val_labels)

    def pick(self, rule: str) -> int:
        """Return the epoch, from 0, that a rule picks so far."""
        return metrics.pick_epoch(self.records, rule, self.val)


class BrokenState(Exception):
    """The error for a state file that cannot be used."""


def _digest(tensors: dict[str, Tensor], text: dict[str, str]) -> str:
    """Return the digest of everything in a state file, by which a file that is not as it was written is recognised."""
    rows = [
        [k, str(v.dtype), list(v.shape), hashlib.blake2b(v.numpy().tobytes(), digest_size=16).hexdigest()]
        for k, v in sorted(tensors.items())
    ]
    return digest_of([rows, text])


def save_state(
    file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, generator: np.random.RandomState, history: History
) -> None:
    """Write everything needed to go on after the last recorded epoch, atomically, as one safetensors file."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, values in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in values.items()}
    tensors |= {f"best.{k}": v for k, v in history.best.items()}
    tensors |= {f"logits.{part}": torch.from_numpy(np.stack(v)) for part, v in history.logits.items()}
    tensors["rng.torch"] = torch.get_rng_state()
    if next(model.parameters()).is_cuda:
        tensors["rng.cuda"] = torch.cuda.get_rng_state()
    values = {
        "records": history.records,
        "best_epoch": history.best_epoch,
        "code": history.code,
        "numpy": generator.get_state(legacy=False),
    }
    text = {key: json.dumps(value, default=np.ndarray.tolist) for key, value in values.items()}
    tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
    with atomic(file) as temporary:
        temporary.write_bytes(save(tensors, {**text, "check": _digest(tensors, text)}))


def _parse(raw: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the other values of a state file. Raises ValueError, among others, if it is damaged."""
    tensors = load(raw)
    text = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    if text.pop("check") != _digest(tensors, text):
        raise ValueError("it is not as it was written")
    return tensors, {key: json.loads(value) for key, value in text.items()}


def _moments(saved: dict[str, Tensor], parameters: list[nn.Parameter]) -> dict[int, dict[str, Tensor]]:
    """Return the optimiser's state by parameter number, from `saved`, which has it by number and name: `0.exp_avg`."""
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in saved.items():
        number, name = key.split(".", 1)
        parameter = parameters[int(number)]
        if value.shape == parameter.shape:
            # a fused optimiser goes through memory in order: moments must lie as their parameter lies, channels last
            value = torch.empty_like(parameter, device="cpu").copy_(value)
        moments.setdefault(int(number), {})[name] = value
    return moments


def load_state(
    file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, generator: np.random.RandomState, history: History
) -> None:
    """Restore what `save_state` wrote; without a file, change nothing. Raises BrokenState for a file that cannot be
    used; the model may then be half restored. An error that says nothing about the file is raised as it is: OSError,
    lack of memory, a GPU's error."""
    if not file.exists():
        return
    raw = read_bytes(file)  # if the system refuses to read it, the file may still be sound
    try:
        tensors, values = _parse(raw)

        def part(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        moments = _moments(part("optimizer."), list(model.parameters()))
        model.load_state_dict(part("model."))
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        generator.set_state(values["numpy"])
        torch.set_rng_state(tensors["rng.torch"])
        if next(model.parameters()).is_cuda:
            torch.cuda.set_rng_state(tensors["rng.cuda"])
        history.logits, history.best = {k: list(v.numpy()) for k, v in part("logits.").items()}, part("best.")
        history.records, history.best_epoch, history.code = values["records"], values["best_epoch"], values["code"]
    except (SafetensorError, AttributeError, LookupError, ValueError, TypeError, RuntimeError) as error:
        if is_out_of_memory(error) or isinstance(error, torch.AcceleratorError):
            raise
        raise BrokenState(f"{file} cannot be used ({type(error).__name__}: {error})") from None
