"""Checkpoints: trained weights and everything needed to use them, in the layout of the Hugging Face hub.

A checkpoint is a folder with `model.safetensors`, `config.json` and a model card, `README.md`. Its contents are checked
before they are used. Nothing in it is executed: pickled weights, which can hold code, are not read.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import nn

import calibration
import features
import metrics
import models
from cli import UserError
from corpora import LONGEST_LABEL
from files import atomic, digest_file, has_type, read_json, walk, write_json, write_text
from recipes import HAPPY, LARGEST, RULES, settings_text, usable_test_overlap

if TYPE_CHECKING:
    from models.layers import Classifier

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
LARGEST_CONFIG = 2**24  # bytes
_Kind = type | tuple[type, ...]
NUMBER: _Kind = (int, float)
FIELDS: dict[str, _Kind] = {  # fields of config.json that are checked; it also has all those of a run's config.json
    "model": str, "shape": list, "classes": list, "settings": dict, "corpus": str, "dataset": str, "licence": str,
    "synthetic": bool, "split": str, "fold": (int, type(None)), "seed": int, "rule": str, "epoch": int, "scores": dict,
    "temperature": (int, float, type(None)), "temperature_note": str, "weights": str,
}  # fmt: skip
SETTINGS: dict[str, tuple[_Kind, float, float]] = {  # settings that prediction needs: type, least, most
    "feature": (str, 0, 0), "n_mfcc": (int, 1, LARGEST["n_mfcc"]), "padding": (bool, 0, 1), "happy": (str, 0, 0),
    "head": (int, 1, LARGEST["head"]), "attn_hidden": (int, 1, LARGEST["attn_hidden"]),
    "segment_length": (NUMBER, 1e-3, LARGEST["segment_length"]), "test_overlap": (NUMBER, 0, LARGEST["segment_length"]),
}  # fmt: skip


class Checkpoint(PyTorchModelHubMixin):
    """A trained network in eval mode, and its config.json.

    The hub's mixin adds `save_pretrained`, `from_pretrained` and `push_to_hub`. To read a checkpoint, call `load`: it
    uses the network only if told to, and its errors are sentences.
    """

    def __init__(self, module: nn.Module, config: dict[str, Any]):
        self.module: Any = module  # the mixin saves this attribute, so that weights keep their names in the network
        self.config = config
        settings = config["settings"]
        self.classes: list[str] = config["classes"]
        self.feature: str = settings["feature"]
        self.n_mfcc: int = settings["n_mfcc"]
        self.padding: bool = settings["padding"]  # True: training repeated short utterances; False: it left them out
        self.length = float(settings["segment_length"])  # seconds
        self.overlap = usable_test_overlap(self.length, float(settings["test_overlap"]))  # seconds
        self.size, self.hop = features.segment_and_hop(self.length, self.overlap)
        self.temperature: float | None = config["temperature"]  # None without a validation part to fit it on

    @property
    def title(self) -> str:
        """What the checkpoint is, such as `GLAM trained on IEMOCAP (impro)`; it names SYNTHETIC speech as such."""
        synthetic = ", SYNTHETIC speech" if self.config["synthetic"] else ""
        begun = f", begun with {self.config['init']['title']}" if "init" in self.config else ""
        return f"{self.config['model']} trained on {self.config['corpus']} ({self.config['dataset']}{synthetic}){begun}"

    @property
    def heard(self) -> set[str]:
        """Digests (the first `data.HEARD` digits) of the recordings that it was trained on, or that chose its epoch or
        temperature. Raises UserError where config.json does not say."""
        if not isinstance(heard := self.config.get("heard"), str):
            raise UserError("this checkpoint does not say what it was trained on: train again with --save_model")
        return set(heard.split())

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """Return the model card (README.md), made from config.json."""
        return ModelCard(model_card(self.config))

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, config: Any = None, revision: str | None = None, cache_dir: str | Path | None = None,
        force_download: bool = False, local_files_only: bool = False, token: str | bool | None = None,
        map_location: str = "cpu", **_: Any,
    ) -> "Checkpoint":  # fmt: skip
        """Load a checkpoint; the mixin calls this with the contents of config.json.

        This replaces the mixin's own version, which would fall back on pickled weights.
        """
        folder = Path(model_id)
        if folder.is_dir():
            file = folder / WEIGHTS
        else:
            file = Path(hf_hub_download(
                model_id, WEIGHTS, revision=revision, cache_dir=cache_dir, force_download=force_download,
                local_files_only=local_files_only, token=token,
            ))  # fmt: skip
        check(config, f"{model_id}/{CONFIG}")
        _check_weights(file, config)
        module = empty_model(config, file)
        module.load_state_dict(load_file(file, map_location))  # the mixin's own loader refuses tied weights
        _check_weights(file, config)  # once more, as a run that is repeated may have replaced the file meanwhile
        module.eval()
        if not all(bool(v.isfinite().all()) for v in module.state_dict().values()):
            raise UserError(f"{file} holds weights that are not finite numbers; train again")
        return cls(module, config)


# ------------------------------------------------------------------------------------------------- reading


def find(folder: Path, flag: str = "--checkpoint") -> Path:
    """Return the folder of the checkpoint: this folder, its `checkpoint/`, or the only checkpoint below it.

    Raises UserError if there is no checkpoint, or more than one.
    """
    if folder.name in (CONFIG, WEIGHTS):
        folder = folder.parent
    for candidate in (folder / "checkpoint", folder):
        if (candidate / CONFIG).is_file() and (candidate / WEIGHTS).is_file():
            return candidate
    if not folder.is_dir():
        raise UserError(f"{flag} {folder}: there is no such folder; python train.py --save_model makes one")
    below = sorted(where for where, names in walk(folder) if CONFIG in names and WEIGHTS in names)
    if len(below) == 1:
        return below[0]
    if below:
        some = "".join(f"\n  {one.parent if one.name == 'checkpoint' else one}" for one in below[:20])
        raise UserError(f"{flag} {folder}: {len(below)} checkpoints are below it; name one:{some}")
    raise UserError(
        f"{folder} is not a checkpoint: it needs {WEIGHTS} and {CONFIG}; python train.py --save_model makes it"
    )


def load(folder: str | Path, online: bool = False) -> Checkpoint:
    """Read a checkpoint, or the one of a run folder; with `online`, also one of the Hugging Face hub, by `owner/name`.

    The network is used only with `online`, and only if no folder of that name exists. Raises UserError, which names
    the file, for whatever is not a checkpoint.
    """
    where = str(folder)
    if not online or Path(folder).is_dir():
        where = str(find(Path(folder)))
        read_config(Path(where) / CONFIG)
    try:
        return Checkpoint.from_pretrained(where, map_location="cpu")
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise UserError(f"--checkpoint {where} cannot be had from the Hugging Face hub: {error}") from None
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"{where} cannot be read as a checkpoint ({type(error).__name__}: {error})") from None


def read_config(file: Path) -> dict[str, Any]:
    """Read and check a checkpoint's config.json. Raises UserError, which names the file, where it is not one."""
    if file.stat().st_size > LARGEST_CONFIG:
        raise UserError(f"{file} is not a checkpoint's: it is larger than 16 MiB")
    config = read_json(file, "copy the checkpoint's whole folder again, or train again with --save_model")
    check(config, str(file))
    return config


def check(config: Any, where: str) -> None:
    """Raise UserError, which names the file `where`, unless `config` is what a checkpoint's config.json holds."""

    def need(right: bool, what: str) -> None:
        if not right:
            raise UserError(f"{where} is not a checkpoint's: {what}; train again with --save_model")

    need(isinstance(config, dict), "it is not a JSON object")
    for name, kind in FIELDS.items():
        need(name in config and has_type(config[name], kind), f"{name!r} is {'wrong' if name in config else 'missing'}")
    settings, classes, shape = config["settings"], config["classes"], config["shape"]
    for name, (kind, least, most) in SETTINGS.items():
        right = name in settings and has_type(settings[name], kind) and (kind is str or least <= settings[name] <= most)
        need(right, f"the setting {name!r} is {'wrong' if name in settings else 'missing'}")
    names = [c for c in classes if isinstance(c, str) and 0 < len(c) <= LONGEST_LABEL and c.isprintable()]
    need(
        2 <= len(classes) <= 1000 and len(set(names)) == len(classes),
        "'classes' are not two or more different printable names",
    )
    tested = config["scores"].get("test")
    need(
        isinstance(tested, dict)
        and all(has_type(tested.get(s), NUMBER) and 0 <= tested[s] <= 100 for s in metrics.SCORES),
        "'scores' lacks the scores of the test part",
    )
    for name in ("corpus", "dataset", "temperature_note"):
        need(config[name].isprintable(), f"{name!r} has characters that are not to be printed")
    begun = config.get("init", {"title": ""})  # what finetune.begin returned, if the training began with a checkpoint
    title = begun.get("title") if isinstance(begun, dict) else None
    need(isinstance(title, str) and title.isprintable(), "'init' has no title that can be printed")
    need(settings["happy"] in HAPPY, f"the setting 'happy' is none of {', '.join(HAPPY)}")
    need(config["rule"] in RULES, f"'rule' is none of {', '.join(RULES)}")
    need(config["temperature"] is None or 1e-3 <= config["temperature"] <= 1e3, "'temperature' is out of range")
    try:
        models.canonical(config["model"])
        length, overlap = float(settings["segment_length"]), float(settings["test_overlap"])
        size, _ = features.segment_and_hop(length, usable_test_overlap(length, overlap))
        made = features.extract(settings["feature"], np.empty((0, size), np.float32), settings["n_mfcc"]).shape[1:]
    except (UserError, RuntimeError) as error:
        raise UserError(f"{where} is not a checkpoint's: {error}") from None
    whole = all(has_type(n, int) for n in shape)  # 26.0 == 26, but is no size
    need(whole and shape == list(made), f"'shape' is not {list(made)}, which its feature and segments give")


def _check_weights(file: Path, config: dict[str, Any]) -> None:
    if digest_file(file) != config["weights"]:
        raise UserError(
            f"{file} is not the file that {CONFIG} belongs to: it is being replaced, or damaged; try again, or copy "
            "the folder again"
        )


def new_model(config: dict[str, Any]) -> "Classifier":
    """Return a new network of a checked config.json; its weights are drawn."""
    rows, frames = config["shape"]
    settings = {name: config["settings"][name] for name in ("head", "attn_hidden")}
    return models.of_run(config["model"], (rows, frames), len(config["classes"]), **settings)


def empty_model(config: dict[str, Any], weights: Path) -> "Classifier":
    """Return the network of a checked config.json, with weights that are to be overwritten.

    It takes memory only after the shapes in the file `weights` were found to be the network's. If they are not, it
    raises UserError, which names the file.
    """
    try:
        with torch.device("meta"):
            wanted = {k: list(v.shape) for k, v in new_model(config).state_dict().items()}
    except UserError as error:
        raise UserError(f"{weights.with_name(CONFIG)} is not a checkpoint's: {error}") from None
    with safe_open(weights, "pt") as file:
        there = {k: file.get_slice(k).get_shape() for k in file.keys()}  # noqa: SIM118
    if there != wanted:
        odd = sorted(k for k in wanted.keys() | there.keys() if wanted.get(k) != there.get(k))
        what = f"a {config['model']} of shape {config['shape']}"
        raise UserError(
            f"{weights} does not hold the weights of {what}: {odd[0]} differs; copy the checkpoint's whole folder "
            "again or, if the model's code has changed since, train again"
        )
    with torch.random.fork_rng(devices=[]):
        return new_model(config)


# ------------------------------------------------------------------------------------------------- writing


def save(
    folder: Path,
    module: nn.Module,
    run: dict[str, Any],
    rule: str,
    record: dict[str, Any],
    validation: tuple[NDArray, NDArray] | None = None,
) -> None:
    """Write a checkpoint of `module`, trained by the run whose config.json is `run`.

    `record` is the object of epochs.jsonl for the epoch of these weights. `validation` has that epoch's logits `(U, C)`
    and labels `(U,)`, on which the temperature is fitted. Each file is replaced as a whole, config.json last, as it
    holds the digest of the weights that it belongs to.
    """
    temperature, note = None, f"none: the split {run['split']} has no validation part to fit one on"
    if validation is not None:
        temperature = round(calibration.fit_temperature(*validation), 6)
        note = f"fitted on the {len(validation[1])} validation utterances of epoch {record['epoch']}"
    config = {**run, "rule": rule, "epoch": record["epoch"], "scores": record, "temperature": temperature,
              "temperature_note": note, "optimistic": rule == "paper"}  # fmt: skip
    # cloned, as safetensors refuses tensors that share memory, as tied weights do
    weights = {name: tensor.cpu().contiguous().clone() for name, tensor in module.state_dict().items()}
    with atomic(folder / WEIGHTS) as new:
        new.write_bytes(save_tensors(weights))
    write_text(folder / CARD, model_card(config))
    write_json(folder / CONFIG, {**config, "weights": digest_file(folder / WEIGHTS)})


def _slug(text: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in text.lower()).strip("-")


def _scores_table(config: dict[str, Any]) -> str:
    lines = ["| part | utterances | WA | UA | macro F1 | weighted F1 |", "|---|---|---|---|---|---|"]
    for part, key in (("test", "n_test"), ("val", "n_val")):
        if s := config["scores"].get(part):
            numbers = " | ".join(f"{s[name]:.2f}" for name in metrics.SCORES)
            lines.append(f"| {'validation' if part == 'val' else part} | {config.get(key, '')} | {numbers} |")
    return "\n".join(lines)


def model_card(config: dict[str, Any]) -> str:
    """Return the README.md of a checkpoint, which begins with the hub's metadata."""
    settings, model = config["settings"], config["model"]
    licence = "mit" if config["synthetic"] and "init" not in config else "other"
    data = ModelCardData(
        license=licence,
        license_name=None if licence != "other" else f"{_slug(config['corpus'])}-terms",
        library_name="pytorch",
        pipeline_tag="audio-classification",
        tags=["speech-emotion-recognition", _slug(model), _slug(config["corpus"]), f"rule-{config['rule']}"]
        + ["synthetic"] * config["synthetic"],
    )
    fold = "" if config["fold"] is None else f", fold {config['fold']}"
    names = ", ".join(config["classes"])
    temperature, (rows, frames) = config["temperature"], config["shape"]
    emphasis = "**" if config["rule"] == "paper" else ""
    warning = "> Trained on SYNTHETIC sound: this shows that the code runs, and knows nothing about speech.\n\n"
    return f"""---
{data.to_yaml()}
---
# {model} on {config["corpus"]}

{warning if config["synthetic"] else ""}Recognises {names} in speech, from segments of {settings["segment_length"]} s.

- Corpus: {config["corpus"]}, dataset `{config["dataset"]}`; split `{config["split"]}`{fold}, seed {config["seed"]}
- Weights of epoch {config["epoch"]}, chosen by the rule `{config["rule"]}`: {emphasis}{RULES[config["rule"]]}{emphasis}
- Begun with {config["init"]["title"] if "init" in config else "weights drawn by the seed"}
- Changed from the recipe {config["recipe"]}: {settings_text(config.get("changed") or {}) or "nothing"}
- Feature: {settings["feature"]}, {rows} x {frames}; segments overlap by {settings["test_overlap"]} s
- Temperature of the probabilities: {"" if temperature is None else f"{temperature}, "}{config["temperature_note"]}

## Scores in per cent

{_scores_table(config)}

## Licence

Terms of the corpus it was trained on: {config["licence"]}. They may bind what is done with these weights.

## Use

In a checkout of the repository that made it:

    python predict.py recording.wav --checkpoint FOLDER
    python export.py --checkpoint FOLDER --output model.onnx --waveform

or `models.from_pretrained("FOLDER")`: a network in eval mode, features (B, 1, {rows}, {frames}) to logits
(B, {len(config["classes"])}), in the order {names}. `config.json` holds every setting.

It knows this corpus: its speakers, language and microphones, and emotions as its annotators named them. It does not
tell what anybody feels, and no decision about a person should rest on it.
"""
