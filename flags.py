"""The flags of a run: defined for argparse, read into a Config, and written again from a run's settings."""

import argparse
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import path
from cli import UserError, add_device, cores, in_help, warn_once
from corpora import plain_label
from recipes import (
    AUGMENTS,
    HAPPY,
    IEMOCAP_DATASETS,
    OPTIMIZERS,
    RECORDED,
    RULES,
    SCHEDULES,
    Config,
    config_for,
    value_text,
)


@dataclass(frozen=True)
class Options:
    """The flags of a run that shape no result; all others are fields of its Config."""

    runs: Path = field(default_factory=lambda: path.RUNS)  # the folder that run folders go into
    save_model: str | None = None  # the weights of this rule's epoch are kept; None: no weights are kept
    skip_bad: bool = False  # leave broken recordings out instead of stopping
    quiet: bool = False
    tensorboard: bool = False
    init_from: Path | None = None  # the checkpoint whose weights Config.init names


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of a run. One that is not given is absent from the parsed namespace: the model's recipe decides."""

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
    add("--classes", type=lambda text: tuple(map(plain_label, name_list(text))), metavar="A,B,..",
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
        help="mfcc, mfcc_reflect (with segments padded as in librosa before version 0.9), melspectrogram, "
        "spectrogram, interspeech2018, logfbank, fbank (GLAM: mfcc)",
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
    add(
        "--init_from",
        type=Path,
        metavar="FOLDER",
        help="begin with the weights of this checkpoint or run folder, to fine-tune it; in the last layer, classes "
        "that it does not know begin with drawn weights (default: all weights are drawn by the seed)",
    )
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
    """Pop a Config's flags from `given`, the parsed namespace as a dict; returns the Config that they and the model's
    recipe make. Raises UserError."""
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
    if "n_mfcc" in overrides and config.feature not in features.MFCCS:
        raise UserError(f"--n_mfcc: {model} is trained on {config.feature} here; leave it out, or add --feature mfcc")
    if "init_from" in given:
        import checkpoints
        import finetune

        # found once, as runs may save checkpoints below the folder that is named
        given["init_from"] = checkpoints.find(given["init_from"], "--init_from")
        config = replace(config, init=finetune.digest(given["init_from"], config))
    return config


def check_happy(*datasets: str | None) -> None:
    """Raise UserError if none of the datasets has IEMOCAP's labels, among which --happy chooses."""
    if not {*IEMOCAP_DATASETS, "demo"} & {*datasets}:
        raise UserError(
            f"--happy is for {', '.join(IEMOCAP_DATASETS)}, demo; other corpora define the class happy themselves"
        )


def comma_list(text: str) -> tuple[str, ...]:
    """Split text at its commas: `a,b,c` -> ("a", "b", "c")."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def name_list(text: str) -> tuple[str, ...]:
    """Return a flag's names, separated by commas. Raises ArgumentTypeError, which argparse prints, if there is none."""
    if not (found := comma_list(text)):
        raise argparse.ArgumentTypeError(f"{text!r} names nothing; leave the flag out for the default")
    return found


def parse_setting(text: str, flag: str = "--set") -> tuple[str, Any]:
    """Parse `epochs=10` or `classes=sad,happy`: the setting's name, and its value as a run records it.

    Raises UserError, naming the `flag` that the text was given with, for an unknown setting or a value of another type.
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
        return key, [*map(plain_label, comma_list(value))] if kind is tuple else kind(RECORDED.get(value, value))
    except (KeyError, ValueError):
        said = {bool: "true or false", int: "a whole number", float: "a number"}[kind]
        raise UserError(f"{flag} {text}: {key} is {said}") from None


def train_flags(changed: dict[str, Any]) -> list[str]:
    """Return changed settings as the flags of train.py that set them."""
    found = []
    for key, value in changed.items():
        if key == "init":  # a digest: where the checkpoint is, no record says
            found += ["--init_from", "CHECKPOINT"]
        elif isinstance(value, bool):
            found.append(f"--{key}" if value else f"--no-{key}")
        elif value not in ((), []):  # no classes need no flag: the default is all of them
            found += [f"--{key}", value_text(value)]
    return found


def report_flags(changed: dict[str, Any]) -> list[str]:
    """Return changed settings as the flags of report.py that select the runs with these settings."""
    return [word for key, value in changed.items() for word in ("--set", f"{key}={value_text(value)}")]
