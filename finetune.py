"""Training that begins with the weights of a checkpoint: `train.py --init_from`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cli import UserError
from recipes import Config

if TYPE_CHECKING:
    from checkpoints import Checkpoint
    from data import Data, Parts

DIGITS = 12  # hexadecimal digits of the weights' digest that a run's settings have


def digest(folder: Path, config: Config) -> str:
    """Return the name of a checkpoint's weights in a run's settings, `Config.init`: their digest, shortened.

    Raises UserError if there is no checkpoint in `folder`, or one of another model, feature or segment length.
    """
    import checkpoints

    return _digest(
        checkpoints.read_config(checkpoints.find(folder, "--init_from") / checkpoints.CONFIG), folder, config
    )


def _digest(made: dict[str, Any], folder: Path, config: Config) -> str:
    """Return what `digest` returns, given the contents of the checkpoint's config.json."""
    same = ("segment_length", "feature", "n_mfcc", "head", "attn_hidden")
    for flag, theirs in [("model", made["model"]), *((name, made["settings"][name]) for name in same)]:
        if theirs != getattr(config, flag):
            raise UserError(f"--init_from {folder}: its {flag} is {theirs}, so add --{flag} {theirs}")
    return made["weights"][:DIGITS]


def load(folder: Path | None, config: Config) -> "Checkpoint | None":
    """Return the checkpoint that a run begins with; None if its weights are drawn. Raises UserError if the checkpoint
    is not the one that the run's settings name."""
    if folder is None and not config.init:
        return None
    import checkpoints

    if folder is None:
        raise UserError(f"the run begins with the weights {config.init}: init_from must name their folder")
    start = checkpoints.load(checkpoints.find(folder, "--init_from"))
    if _digest(start.config, folder, config) != config.init:
        raise UserError(f"the run begins with the weights {config.init or '(none)'}: --init_from {folder} has others")
    return start


def check_unheard(start: "Checkpoint", d: "Data", parts: "Parts") -> None:
    """Raise UserError if the checkpoint was trained on a recording of the test part, or chosen by it."""
    from data import HEARD

    heard = start.heard
    if known := [d.corpus.utterances[i].name for i in parts.test if d.contents[i][:HEARD] in heard]:
        raise UserError(
            f"--init_from: {len(known)} of {len(parts.test)} test utterances, as {known[0]}, were used to train or "
            "choose the checkpoint, so that scores on them would be too good: take a checkpoint of other recordings, "
            "or another --split or --seed"
        )


def last_layer(start: "Checkpoint") -> dict[str, int]:
    """Return the weights whose shapes depend on the number of classes, by name, each with its axis of classes."""
    import checkpoints

    with torch.device("meta"):
        more = checkpoints.new_model({**start.config, "classes": [*start.classes, "one more"]}).state_dict()
    sizes = {name: zip(value.shape, more[name].shape, strict=True) for name, value in start.module.state_dict().items()}
    axes = {name: [axis for axis, (n, other) in enumerate(size) if n != other] for name, size in sizes.items()}
    return {name: axis[0] for name, axis in axes.items() if axis}


@torch.no_grad()
def begin(model: nn.Module, start: "Checkpoint", classes: list[str]) -> dict[str, Any]:
    """Put the checkpoint's weights into the model, and return what config.json says of them.

    In the last layer, a class that the checkpoint does not know keeps the weights that were drawn for it.
    """
    known = [name for name in classes if name in start.classes]
    here, there = (torch.tensor([*map(names.index, known)], dtype=torch.int64) for names in (classes, start.classes))
    ours, last = model.state_dict(), last_layer(start)
    for name, value in start.module.state_dict().items():
        if name in last:
            ours[name].index_copy_(last[name], here, value.index_select(last[name], there))
        else:
            ours[name].copy_(value)
    return {"title": start.title, "licence": start.config["licence"], "known_classes": known}
