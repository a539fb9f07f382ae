"""What a model is trained with: one `Recipe` per model, as differences from a default; and the `Config` of a run.

Everything that shapes a result stands in `Config`. A run folder's hash is made from it.
"""

import argparse
import math
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import path
from cli import UserError, add_device, cores, in_help, warn_once
from corpora import dataset_folder, plain_label
from files import digest_of

SCHEDULES = ("exp", "step", "warmstep", "cosine", "none")
RECORDED = {"warmstep": "step"}  # as published: another name for it
OPTIMIZERS = ("adam", "adamw", "sgd")
AUGMENTS = ("none", "vtlp", "upsampling")
HAPPY = ("exc", "hap", "hap+exc")
RULES = {  # rules that pick the reported epoch, and what a caption says of each
    "paper": "the epoch with the best (WA+UA)/2 on the test set itself, as published: optimistic",
    "validation": "the epoch with the best (WA+UA)/2 on the validation part, ties decided by the lowest "
    "cross-entropy there",
    "last": "the last epoch",
}
# fields of a Config that tables show in columns of their own, so that `changed` leaves them out
NAMED = ("model", "recipe", "dataset", "test_dataset", "split", "fold", "seed")
IEMOCAP_DATASETS = ("impro", "script", "all")
# the most that fields of a Config may be, also a checkpoint's; there are 128 mel bands
LARGEST = {"n_mfcc": 128, "segment_length": 120, "head": 256, "attn_hidden": 4096}
MACHINE = ("threads", "device", "deterministic")  # of a Config: runs that differ in these share a row of a table


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
    eps: float = 1e-8  # Adam's
    lr_decay: float = 0.0  # the rate of step s is divided by 1 + lr_decay * s, as TensorFlow's Adam does
    lr_schedule: str = "exp"
    lr_min: float = 1e-6  # the schedule steps while the rate is at least this
    batch_size: int = 32
    epochs: int = 50
    alpha: float = 0.5  # mixup's beta distribution; 0: no mixup
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
    test_dataset: str = ""  # another corpus to test on (split cross); "": a part of the same
    split: str = "8:2"
    fold: int | None = None
    seed: int = 987654
    happy: str = "exc"  # which of IEMOCAP's labels `happy` and `excited` are the class happy
    classes: tuple[str, ...] = ()  # () : all of the corpus
    padding: bool = False
    threads: int = 2  # the order of float summation depends on it
    device: str = "cpu"  # cpu or cuda
    amp: bool = False
    deterministic: bool = False

    def settings(self) -> dict[str, Any]:
        """Every field as JSON holds it."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def changed(self) -> dict[str, Any]:
        """The settings that differ from the published recipe and its defaults: what a table's row must say."""
        published = config_for(self.model).settings()
        return {k: v for k, v in self.settings().items() if k not in (*NAMED, *MACHINE) and v != published[k]}

    def hash(self, corpus_digest: str) -> str:
        """Names the folder that holds the runs differing in seed and fold alone."""
        shaping = {k: v for k, v in self.settings().items() if k not in ("seed", "fold", "recipe")}
        for corpus in ("dataset", "test_dataset"):  # a CSV file by any of its paths; the digest knows its contents
            if shaping[corpus]:
                shaping[corpus] = dataset_folder(shaping[corpus])
        return digest_of([shaping, corpus_digest], size=6)


def usable_test_overlap(length: float, overlap: float) -> float:
    """The overlap in seconds to test with: one not smaller than the segment becomes half the segment."""
    return length / 2 if overlap >= length else overlap


def config_for(model: str, **overrides: Any) -> Config:
    """The published setting of `model` (its canonical name), with `overrides`. Raises UserError for a bad value."""
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


def from_settings(settings: dict[str, Any]) -> Config:
    """The Config a run folder recorded. Raises UserError when a field is missing or unknown."""
    names = {f.name for f in fields(Config)}
    if set(settings) != names:
        raise UserError(f"the recorded settings do not match this version's: {sorted(set(settings) ^ names)}")
    return Config(**{**settings, "classes": tuple(settings["classes"])})


def check(config: Config) -> None:
    """Raise UserError for a value no run can have, naming its flag."""

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


def parse_setting(text: str, flag: str = "--set") -> tuple[str, Any]:
    """Parse `epochs=10` or `classes=sad,happy`: the setting's name, and its value as a run records it.

    Raises UserError, naming the `flag` it was given with, for an unknown setting or a value of another type.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"{flag} {text}: write SETTING=VALUE, as in {flag} epochs=10")
    usual = {f.name: f.default for f in fields(Config)} | {"fold": 0}
    if key not in usual:
        raise UserError(f"{flag} {text}: settings are {', '.join(usual)}")
    kind: Any = type(usual[key])
    try:
        if kind is bool:
            return key, {"true": True, "false": False}[value.lower()]
        return key, list(class_list(value)) if kind is tuple else kind(RECORDED.get(value, value))
    except (KeyError, ValueError):
        said = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise UserError(f"{flag} {text}: {key} is {said}") from None


def settings_text(changed: dict[str, Any]) -> str:
    """Changed settings as text: `alpha=0.3, epochs=10`. 1 and 1.0 read the same, unequal numbers never."""

    return ", ".join(
        f"{k}={_text(v).removesuffix('.0')}" if isinstance(v, float) else f"{k}={_text(v)}"
        for k, v in sorted(changed.items())
    )


def _text(value: Any) -> str:
    """A setting's value as a flag takes it."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def train_flags(changed: dict[str, Any]) -> list[str]:
    """Changed settings as the flags of train.py that give them."""
    found = []
    for key, value in changed.items():
        if isinstance(value, bool):
            found.append(f"--{key}" if value else f"--no-{key}")
        elif value not in ((), []):  # no classes named: all of them
            found += [f"--{key}", _text(value)]
    return found


def report_flags(changed: dict[str, Any]) -> list[str]:
    """Changed settings as the flags of report.py that ask for their runs."""
    return [word for key, value in changed.items() for word in ("--set", f"{key}={_text(value)}")]


def learning_rate(config: Config, epoch: int) -> float:
    """The learning rate of `epoch`, counted from 0, before `lr_decay`.

    exp: x0.95 an epoch; step: x0.1 every 10; cosine: half a cosine over 10 epochs. A schedule stops once the rate is
    below `lr_min` (as published, so cosine reaches zero after ten epochs and stays there).
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


def comma_list(text: str) -> tuple[str, ...]:
    """`a,b,c` -> ("a", "b", "c")"""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def name_list(text: str) -> tuple[str, ...]:
    """A flag's names, separated by commas. Raises ArgumentTypeError, which argparse prints with the flag, for none."""
    if not (found := comma_list(text)):
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; leave the flag out for the default")
    return found


def class_list(text: str) -> tuple[str, ...]:
    """Class names separated by commas, as a corpus's labels are read."""
    return tuple(label for part in text.split(",") if (label := plain_label(part)))


def check_happy(*datasets: str | None) -> None:
    """Raise UserError where no dataset has the labels of IEMOCAP, which --happy chooses among."""
    if not {*IEMOCAP_DATASETS, "demo"} & {*datasets}:
        raise UserError(
            f"--happy is for {', '.join(IEMOCAP_DATASETS)}, demo; other corpora define the class happy themselves"
        )


@dataclass(frozen=True)
class Options:
    """The flags of a run that shape no result; all others are fields of its Config."""

    runs: Path = field(default_factory=lambda: path.RUNS)  # the folder that run folders go into
    save_model: str | None = None  # the rule whose epoch's weights are kept; None: none are
    skip_bad: bool = False  # leave broken recordings out instead of stopping
    quiet: bool = False
    tensorboard: bool = False


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a run. One that is not given is absent from the parsed namespace: the model's recipe decides it."""

    def group(title: str, text: str = "") -> Any:
        return parser.add_argument_group(title, text, argument_default=argparse.SUPPRESS)

    yes_no = {"action": argparse.BooleanOptionalAction}
    add = group("data").add_argument
    add(
        "--dataset",
        "--train",
        "--impro_or_script",
        "-i",
        metavar="NAME",
        help="impro, script, all (IEMOCAP's improvised half, its scripted half, or both), demo (synthetic), "
        "another corpus by name, or a CSV file with the columns "
        "path,emotion[,name,speaker,session,dialog,split] (default: impro)",
    )
    add(
        "--test",
        dest="test_dataset",
        metavar="NAME",
        help="train on --dataset and test on all of this corpus, with the classes that both have (--split cross)",
    )
    add(
        "--happy", choices=HAPPY, help="the labels of IEMOCAP that make up the class happy (default: exc, as published)"
    )
    add("--classes", type=lambda text: class_list(",".join(name_list(text))), metavar="A,B,..",
        help="train on these classes only (default: all classes of the corpus)")  # fmt: skip
    add(
        "--split",
        metavar="NAME",
        help="8:2 (default, as published), 8:1:1, session, superb, speaker, dialog, given (by the column split of a "
        "CSV file), cross (with --test)",
    )
    add(
        "--seed",
        type=int,
        metavar="N",
        help="decides the split, the initial weights, the batches and mixup (default: 987654; sweep.py takes its seeds "
        "from seeds.txt)",
    )
    add(
        "--fold", type=int, metavar="K", help="one fold of a split with folds; they count from 0 (default: all in turn)"
    )
    add(
        "--padding", **yes_no, help="repeat utterances shorter than a segment instead of leaving them out (default: no)"
    )
    add("--segment_length", type=float, metavar="S", help="length of a segment in seconds (GLAM: 1.8)")
    add(
        "--train_overlap",
        type=float,
        metavar="S",
        help="seconds that neighbouring segments share in training (GLAM: 1.6)",
    )
    add("--test_overlap", type=float, metavar="S", help="seconds that they share in scoring (GLAM: 1.6)")
    add(
        "--feature",
        "--features_to_use",
        "-f",
        metavar="NAME",
        help="mfcc, melspectrogram, spectrogram, interspeech2018, logfbank, fbank (GLAM: mfcc)",
    )
    add("--n_mfcc", "--nmfcc", "-n", type=int, metavar="N", help="number of MFCC coefficients (default: 26)")
    add(
        "--augment",
        choices=AUGMENTS,
        help="add to the training data: a VTLP-warped copy of each utterance (vtlp), or utterances of small classes "
        "drawn again (upsampling) (default: none; AACNN: vtlp)",
    )
    add(
        "--class_weights",
        **yes_no,
        help="weight the loss of class c by 1 - n_c/N, where n_c of the N training segments are of class c "
        "(default: no)",
    )

    add = group("model").add_argument
    add("--model", "-m", metavar="NAME", help="the network (default: GLAM); --list_models shows all")
    add("--head", type=int, metavar="N", help="number of heads of the head attention (default: 4)")
    add("--attn_hidden", type=int, metavar="N", help="channels of an attention head (default: 64)")

    add = group(
        "training", "Defaults are the published settings of the model (README.md, recipes.py); those of GLAM are shown."
    ).add_argument
    add("--epochs", "-e", type=int, metavar="N", help="passes over the training data (GLAM: 50)")
    add("--batch_size", "-b", type=int, metavar="N", help="training segments in a batch (GLAM: 32)")
    add("--optimizer", choices=OPTIMIZERS, help="sgd has Nesterov momentum 0.9 (GLAM: adam)")
    add("--learning_rate", "-l", type=float, metavar="R", help="learning rate of the first epoch (GLAM: 0.001)")
    add(
        "--lr_schedule",
        choices=SCHEDULES,
        help="exp: the rate is multiplied by 0.95 every epoch; step, or warmstep: by 0.1 every 10 epochs; cosine: it "
        "falls to 0 over 10 epochs and stays there; none: it is constant (GLAM: exp)",
    )
    add("--lr_min", type=float, metavar="R", help="the schedule stops once the rate is below this (default: 1e-6)")
    add("--lr_decay", type=float, metavar="D", help="also divide the rate of step s by 1 + D*s (GLAM: 0; AACNN: 1e-6)")
    add("--weight_decay", type=float, metavar="W", help="weight decay of the optimizer (GLAM: 1e-6)")
    add("--eps", type=float, metavar="E", help="Adam's epsilon (GLAM: 1e-8)")
    add("--alpha", type=float, metavar="A", help="A of the distribution Beta(A, A) of mixup; 0: no mixup (GLAM: 0.5)")

    machine = group("machine")
    add_device(machine)
    add = machine.add_argument
    add(
        "--threads",
        type=int,
        metavar="N",
        help="number of CPU threads; the last digits of results depend on it (default: 2)",
    )
    add(
        "--amp",
        **yes_no,
        help="compute in bfloat16 where that is safe: faster, and GLAM's scores are not visibly lower; a CPU needs "
        "AVX-512 or SVE, a GPU compute capability 8.0 (default: no)",
    )
    add(
        "--deterministic",
        **yes_no,
        help="make runs repeat bit for bit on the same machine; slower on a GPU (default: no)",
    )

    add = group("output").add_argument
    runs = in_help(path.RUNS)
    add("--runs", type=Path, metavar="DIR", help=f"where run folders go (default: {runs}, set in path.py)")
    add(
        "--save_model",
        nargs="?",
        const="last",
        choices=RULES,
        metavar="RULE",
        help="keep the weights of the epoch that this rule picks, in the run folder's checkpoint/; the rule is last "
        "(also if none is named), validation or paper (default: no weights are kept)",
    )
    add("--tensorboard", **yes_no, help="write learning curves and settings for TensorBoard into the run folder")
    add("--skip_bad", **yes_no, help="leave broken recordings out and count them, instead of stopping")
    add("--quiet", **yes_no, help="print no progress bars, no model summary and no table")


def parse_config(given: dict[str, Any]) -> Config:
    """Pop the flags of a Config from `given`, a namespace as a dict, and resolve them with the model's recipe."""
    import features
    import models
    from device import choose_device

    device = choose_device(given.pop("gpu", None), given.pop("device", None))
    if device == "cpu" and given.get("threads", 1) > cores():
        warn_once(f"--threads {given['threads']}: there are {cores()} cores here; more threads than cores are slower")
    model = given.pop("model", "GLAM")
    try:
        model = models.canonical(model)
    except UserError:
        raise UserError(f"--model {model}: choose one of {', '.join(models.list_models())}") from None
    for flag, keyword in (("head", "heads"), ("attn_hidden", "attn_hidden")):
        if flag in given and keyword not in models.keywords(model):
            raise UserError(f"--{flag}: the model {model} has no head attention")
    if "test_dataset" in given:
        given.setdefault("split", "cross")
    corpora = {given.get("dataset", Config().dataset), given.get("test_dataset")}
    if "happy" in given:
        check_happy(*corpora)
    overrides = {f.name: given.pop(f.name) for f in fields(Config) if f.name in given}
    config = config_for(model, **{**overrides, "device": device})
    if config.feature not in features.FEATURES:
        raise UserError(f"--feature {config.feature}: choose one of {', '.join(features.FEATURES)}")
    for flag, setting, value in (("eps", "optimizer", "sgd"), ("lr_min", "lr_schedule", "none")):
        if flag in overrides and getattr(config, setting) == value:
            warn_once(f"--{flag} changes nothing in the training of {model}: its {setting} is {value} here")
    if "n_mfcc" in overrides and config.feature != "mfcc":
        raise UserError(f"--n_mfcc: {model} is trained on {config.feature} here; leave it out, or add --feature mfcc")
    return config
