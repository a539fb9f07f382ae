"""What a model is trained with: one `Recipe` per model, as differences from a default; and the `Config` of a run.

`Config` holds everything that shapes a result. A run folder's hash is made from it.
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from cli import UserError, warn_once
from corpora import dataset_folder
from files import digest_of, has_type

SCHEDULES = ("exp", "step", "warmstep", "cosine", "none")
RECORDED = {"warmstep": "step"}  # as published, warmstep is another name for step
OPTIMIZERS = ("adam", "adamw", "sgd")
AUGMENTS = ("none", "vtlp", "upsampling")
HAPPY = ("exc", "hap", "hap+exc")
RULES = {  # rules that pick the reported epoch, and what a caption says of each
    "paper": "the epoch with the best (WA+UA)/2 on the test set itself, which is as published, and optimistic",
    "validation": "the epoch with the best (WA+UA)/2 on the validation part, and of equally good epochs the one with "
    "the lowest cross-entropy there",
    "last": "the last epoch",
}
# fields of a Config that tables show in columns of their own, so that `changed` leaves them out
NAMED = ("model", "recipe", "dataset", "test_dataset", "split", "fold", "seed")
IEMOCAP_DATASETS = ("impro", "script", "all")
# the largest values that fields of a Config may have, a network's also in a checkpoint; 128 is the number of mel bands
LARGEST = {"n_mfcc": 128, "segment_length": 120, "head": 256, "attn_hidden": 4096, "batch_size": 2**24, "threads": 4096}
MACHINE = ("threads", "device", "deterministic")  # fields of a Config in which runs of one row of a table may differ


@dataclass(frozen=True)
class Recipe:
    """How a model was trained in the published work (GLAM, Zhu and Li, ICASSP 2022, and the works it compares with).

    The defaults are GLAM's and those of its multi-scale ablations.
    """

    recipe: str = "GLAM"
    feature: str = "mfcc"
    n_mfcc: int = 26
    segment_length: float = 1.8  # seconds
    train_overlap: float = 1.6  # seconds
    test_overlap: float = 1.6  # seconds
    optimizer: str = "adam"  # sgd has Nesterov momentum 0.9
    learning_rate: float = 1e-3
    weight_decay: float = 1e-6
    eps: float = 1e-8  # Adam's epsilon
    lr_decay: float = 0.0  # the rate of step s is divided by 1 + lr_decay * s, as TensorFlow's Adam does
    lr_schedule: str = "exp"
    lr_min: float = 1e-6  # the schedule steps while the rate is at least this
    batch_size: int = 32
    epochs: int = 50
    alpha: float = 0.5  # of mixup's distribution Beta(alpha, alpha); 0: no mixup
    augment: str = "none"
    class_weights: bool = False
    head: int = 4  # heads of the head attention
    attn_hidden: int = 64  # channels of a head


GLAM = Recipe()
MACNN = replace(GLAM, recipe="MACNN", segment_length=2.0, train_overlap=1.0, lr_schedule="step", alpha=0.0)
APCNN = replace(
    MACNN, recipe="APCNN", feature="spectrogram", optimizer="sgd", learning_rate=0.05, weight_decay=1e-4, batch_size=128
)
AACNN = replace(
    MACNN, recipe="AACNN", feature="melspectrogram", learning_rate=1e-4, eps=1e-7, weight_decay=0.0, lr_decay=1e-6,
    lr_schedule="none", epochs=100, augment="vtlp",
)  # fmt: skip
ATTENTION = replace(GLAM, recipe="GLAM, batch 128", batch_size=128)

RECIPES = {  # by model; a model that is not here is trained as GLAM
    "MHResMultiConv3": ATTENTION,
    "AAResMultiConv3": ATTENTION,
    "MACNN": MACNN,
    "CNN_GAP": MACNN,
    "AACNN_flat": MACNN,
    "APCNN": APCNN,
    "AACNN": AACNN,
}


@dataclass(frozen=True)
class Config(Recipe):
    """Everything that shapes one run's result: the recipe as resolved, the data, the seed and the arithmetic."""

    model: str = "GLAM"
    dataset: str = "impro"
    test_dataset: str = ""  # another corpus to test on (split cross); "": test on a part of `dataset`
    split: str = "8:2"
    fold: int | None = None
    seed: int = 987654
    happy: str = "exc"  # which of IEMOCAP's labels `happy` and `excited` are the class happy
    classes: tuple[str, ...] = ()  # (): all classes of the corpus
    padding: bool = False
    threads: int = 2  # the order of float summation depends on it
    device: str = "cpu"  # cpu or cuda
    amp: bool = False
    deterministic: bool = False
    init: str = ""  # digest of the weights that training begins with; "": they are drawn

    def settings(self) -> dict[str, Any]:
        """Return every field as JSON holds it, but `init` only if there is one."""
        every = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        return {k: v for k, v in every.items() if k != "init" or v}

    def changed(self) -> dict[str, Any]:
        """Return the settings that differ from the published recipe and its defaults: a table's row must say them."""
        published = config_for(self.model).settings()
        return {k: v for k, v in self.settings().items() if k not in (*NAMED, *MACHINE) and v != published.get(k)}

    def hash(self, corpus_digest: str) -> str:
        """Return the name of the folder that holds all runs that differ from this one only in seed and fold."""
        shaping = {k: v for k, v in self.settings().items() if k not in ("seed", "fold", "recipe")}
        for corpus in ("dataset", "test_dataset"):  # a CSV file may have many paths; the digest stands for its contents
            if shaping[corpus]:
                shaping[corpus] = dataset_folder(shaping[corpus])
        return digest_of([shaping, corpus_digest], size=6)


def usable_test_overlap(length: float, overlap: float) -> float:
    """Return the overlap in seconds to test with: `overlap` or, if a segment is not longer, half a segment."""
    return length / 2 if overlap >= length else overlap


def config_for(model: str, **overrides: Any) -> Config:
    """Return the published settings of `model` (canonical name) with `overrides`. Raises UserError for a bad value."""
    recipe = RECIPES.get(model, GLAM)
    config = Config(**{**asdict(recipe), "model": model, **overrides})
    floats: Any = {f.name: float(getattr(config, f.name)) for f in fields(Config) if f.type is float}
    config = replace(config, **floats)  # 1 and 1.0 are one setting: they must give one run folder
    config = replace(config, lr_schedule=RECORDED.get(config.lr_schedule, config.lr_schedule))
    check(config)
    overlap = usable_test_overlap(config.segment_length, config.test_overlap)
    if overlap != config.test_overlap:
        warn_once(f"--test_overlap {config.test_overlap} is not shorter than the segment: {overlap} s is used")
        config = replace(config, test_overlap=overlap)
    return config


def improper(settings: dict[str, Any]) -> list[str]:
    """Return which fields of a Config the recorded settings lack, or hold as values of another type."""
    settings = {"init": "", **settings}

    def right(value: Any, kind: Any) -> bool:
        if kind == tuple[str, ...]:  # a list in JSON
            return isinstance(value, list) and all(isinstance(each, str) for each in value)
        return has_type(value, kind)

    return [f.name for f in fields(Config) if f.name not in settings or not right(settings[f.name], f.type)]


def from_settings(settings: dict[str, Any]) -> Config:
    """Return the Config that a run folder recorded. Raises UserError for a field that is missing, unknown, or of
    another type."""
    unknown = settings.keys() - {f.name for f in fields(Config)}
    if wrong := sorted({*improper(settings), *unknown}):
        raise UserError(f"the recorded settings do not match this version's: {wrong}")
    return Config(**{**settings, "classes": tuple(settings["classes"])})


def check(config: Config) -> None:
    """Raise UserError, naming the flag, for a value that no run can have."""

    def need(right: bool, flag: str, rule: str) -> None:
        if not right:
            raise UserError(f"--{flag} {getattr(config, flag)}: {rule}")

    for flag in ("n_mfcc", "epochs", "batch_size", "threads", "head", "attn_hidden"):
        need(getattr(config, flag) >= 1, flag, "must be at least 1")
    for flag in ("segment_length", "learning_rate", "eps"):
        need(0 < getattr(config, flag) < float("inf"), flag, "must be greater than 0")
    for flag, most in LARGEST.items():
        need(getattr(config, flag) <= most, flag, f"must be at most {most}")
    for flag in ("weight_decay", "lr_decay", "lr_min", "alpha", "train_overlap", "test_overlap"):
        need(0 <= getattr(config, flag) < float("inf"), flag, "must be 0 or more")
    if (config.split == "cross") != bool(config.test_dataset):
        raise UserError("--test NAME and --split cross go together: train on one corpus, test on another")
    need(
        config.train_overlap < config.segment_length,
        "train_overlap",
        f"must be shorter than the segment of {config.segment_length} s (--segment_length)",
    )
    need(0 <= config.seed < 2**32, "seed", "must be from 0 to 4294967295")
    need(config.fold is None or config.fold >= 0, "fold", "folds count from 0")
    for flag, choices in (
        ("optimizer", OPTIMIZERS),
        ("lr_schedule", SCHEDULES),
        ("augment", AUGMENTS),
        ("happy", HAPPY),
    ):
        need(getattr(config, flag) in choices, flag, f"choose one of {', '.join(choices)}")


def settings_text(changed: dict[str, Any]) -> str:
    """Return changed settings as text: `alpha=0.3, epochs=10`. 1 and 1.0 read the same, unequal numbers never do."""

    return ", ".join(
        f"{k}={value_text(v).removesuffix('.0')}" if isinstance(v, float) else f"{k}={value_text(v)}"
        for k, v in sorted(changed.items())
    )


def value_text(value: Any) -> str:
    """Return a setting's value as its flag takes it."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def learning_rate(config: Config, epoch: int) -> float:
    """Return the learning rate of `epoch`, counted from 0, before `lr_decay` is applied.

    exp multiplies it by 0.95 every epoch, step by 0.1 every 10 epochs; cosine follows half a cosine over 10 epochs. As
    published, a schedule stops once the rate is below `lr_min`, so cosine reaches 0 after ten epochs and stays there.
    """
    rate = config.learning_rate
    for step in range(1, epoch + 1):
        if rate < config.lr_min:
            break
        if config.lr_schedule == "exp":
            rate *= 0.95
        elif config.lr_schedule == "step" and step % 10 == 0:
            rate *= 0.1
        elif config.lr_schedule == "cosine":
            rate = config.learning_rate * (1 + math.cos(math.pi * step / 10)) / 2
    return rate
