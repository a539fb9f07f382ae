"""Networks by name.

A network is a `layers.Classifier` decorated with `register` in its family's file. Every module of this package is
imported, so a new family, or a new class in an old one, needs no entry in a list. The families need torch, and are
imported only when a name is first asked for: `import models` alone is cheap.
"""

import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cli import UserError

if TYPE_CHECKING:
    from models.layers import Classifier

_Class = TypeVar("_Class", bound="type[Classifier]")

_classes: dict[str, "type[Classifier]"] = {}  # by canonical name
_names: dict[str, str] = {}  # every name and alias -> canonical name


def register(name: str, *, aliases: Sequence[str] = (), paper: str = "–") -> Callable[[_Class], _Class]:
    """Return a class decorator that makes a network known by `name` and `aliases`. `paper` is what the paper's tables
    call the network, or a text that begins with "–" if it is in none.

    Raises ValueError if a name is taken.
    """

    def add(cls: _Class) -> _Class:
        taken = [each for each in (name, *aliases) if each in _names]
        if taken:
            raise ValueError(f"a model is already registered as {taken[0]!r}")
        cls.paper = paper
        _classes[name] = cls
        _names.update(dict.fromkeys((name, *aliases), name))
        return cls

    return add


@functools.cache
def _import_families() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def list_models() -> list[str]:
    """Return the canonical names of all networks, sorted."""
    _import_families()
    return sorted(_classes)


def canonical(name: str) -> str:
    """Return the canonical name of a network given by name or alias. Raises UserError, with the choices, if unknown."""
    _import_families()
    if name not in _names:
        raise UserError(f"unknown model {name!r}: choose one of {', '.join(list_models())}")
    return _names[name]


def paper_name(name: str) -> str:
    """Return what the paper's tables call a network (`MACNN`: `MHCNN`); a text beginning with "–" if it is in none."""
    return _classes[canonical(name)].paper


def keywords(name: str) -> list[str]:
    """Return the keywords that a network takes besides its input's shape, but not its family's own (`_width`)."""
    parameters = inspect.signature(_classes[canonical(name)]).parameters
    return [each for each in parameters if each != "shape" and not each.startswith("_")]


def create_model(name: str, shape: tuple[int, int] = (26, 57), **kwargs: Any) -> "Classifier":
    """Return a new network for features of `shape` (F rows, T frames): (B, 1, F, T) -> logits (B, num_classes).

    Every network takes `num_classes` (default 4); those with head attention take `heads` (4) and `attn_hidden` (64).
    The initial weights follow from `torch.manual_seed`. Raises UserError for an unknown name, a keyword that the
    network does not take, a number that is not positive, and a shape that is too small for the network.
    """
    known = keywords(name)
    unknown = [each for each in kwargs if each not in known]
    if unknown:
        raise UserError(f"model {canonical(name)} takes no {unknown[0]!r}: it takes {', '.join(known)}")
    for each in ("num_classes", "heads", "attn_hidden"):
        if kwargs.get(each, 1) < 1:
            raise UserError(f"model {canonical(name)} needs {each} of at least 1, not {kwargs[each]}")
    return _classes[canonical(name)](shape, **kwargs)


def of_run(name: str, shape: tuple[int, int], num_classes: int, head: int, attn_hidden: int) -> "Classifier":
    """Return the network that a run's settings describe; `head` and `attn_hidden` count only for head attention."""
    heads = {key: n for key, n in (("heads", head), ("attn_hidden", attn_hidden)) if key in keywords(name)}
    return create_model(name, shape, num_classes=num_classes, **heads)


def from_pretrained(folder: str | Path, online: bool = False) -> "Classifier":
    """Return a checkpoint's or run folder's trained network in eval mode: features (B, 1, F, T) -> logits (B, classes).

    With `online`, `folder` may be an `owner/name` on the Hugging Face hub; without it, the internet is not used.
    `checkpoints.load` also returns classes and settings. Raises UserError if `folder` is not a checkpoint.
    """
    import checkpoints

    return checkpoints.load(folder, online).module
