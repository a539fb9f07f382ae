"""Make checkpoints by hand, with random weights, so that each test of their use can choose what it is about."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

import checkpoints
import features
import metrics
import models
import recipes

# what only these networks must do is not asked of a model that somebody adds
OURS = [name for name in models.list_models() if models._classes[name].__module__ in ("models.cnn", "models.glam")]
CLASSES = ["neutral", "sad", "angry", "happy"]


def make_checkpoint(
    folder: Path, model: str = "GLAM", *, classes: list[str] | None = None, validation: bool = False,
    rule: str = "last", synthetic: bool = True, scale: float = 1.0, heard: str | None = "", **settings: Any,
) -> Path:  # fmt: skip
    """Write a checkpoint as train.py does. A larger `scale` of the last layer's weights makes it more confident."""
    classes = classes or CLASSES
    config = recipes.config_for(models.canonical(model), split="8:1:1" if validation else "8:2", **settings)
    silence = np.zeros((1, int(config.segment_length * features.SAMPLE_RATE)), np.float32)
    rows, frames = features.extract(config.feature, silence, config.n_mfcc).shape[1:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = models.of_run(model, (rows, frames), len(classes), config.head, config.attn_hidden)
        with torch.no_grad():
            if hasattr(network, "fc"):
                network.fc.weight *= scale
            for name, buffer in network.named_buffers():  # not the identity, as after training
                if name.endswith("running_mean"):
                    buffer += torch.randn_like(buffer) / 10
                if name.endswith("running_var"):
                    buffer *= 1 + torch.rand_like(buffer)
    generator = np.random.default_rng(0)
    labels = generator.integers(0, len(classes), 40)
    logits = (generator.standard_normal((40, len(classes))) + np.eye(len(classes))[labels]).astype(np.float32)
    record = {"epoch": 3, "lr": 1e-3, "train_loss": 1.0, "test": metrics.scores(logits, labels)}
    run = {
        "model": config.model, "recipe": config.recipe, "dataset": "demo", "corpus": "synthetic",
        "licence": "none needed", "synthetic": synthetic, "split": config.split, "fold": None, "folds": None,
        "seed": config.seed, "classes": classes, "shape": [rows, frames], "settings": config.settings(),
        "changed": config.changed(), "hash": "c0ffee", "n_train": 80, "n_test": 40,
        "n_val": 40 if validation else 0, "versions": {}, **({} if heard is None else {"heard": heard}),
    }  # fmt: skip
    checkpoints.save(folder, network, run, rule, record, (logits, labels) if validation else None)
    return folder
