"""The published settings, the flags, and what makes two runs different."""

import math
import re
from dataclasses import fields, replace

import numpy as np
import pytest
import torch

import cli
import flags
import loops
import models
import recipes
from cli import UserError

# features; segment, overlap in training, in testing; optimiser, rate, decay, schedule; batch, epochs, mixup, copies
PUBLISHED = {
    "GLAM": ("mfcc", 1.8, 1.6, 1.6, "adam", 1e-3, 1e-6, "exp", 32, 50, 0.5, "none"),
    "ResMultiConv3": ("mfcc", 1.8, 1.6, 1.6, "adam", 1e-3, 1e-6, "exp", 32, 50, 0.5, "none"),
    "MHResMultiConv3": ("mfcc", 1.8, 1.6, 1.6, "adam", 1e-3, 1e-6, "exp", 128, 50, 0.5, "none"),
    "AAResMultiConv3": ("mfcc", 1.8, 1.6, 1.6, "adam", 1e-3, 1e-6, "exp", 128, 50, 0.5, "none"),
    "MACNN": ("mfcc", 2.0, 1.0, 1.6, "adam", 1e-3, 1e-6, "step", 32, 50, 0.0, "none"),
    "APCNN": ("spectrogram", 2.0, 1.0, 1.6, "sgd", 0.05, 1e-4, "step", 128, 50, 0.0, "none"),
    "AACNN": ("melspectrogram", 2.0, 1.0, 1.6, "adam", 1e-4, 0.0, "none", 32, 100, 0.0, "vtlp"),
}


def test_test_overlap() -> None:
    assert recipes.usable_test_overlap(1.8, 1.6) == 1.6
    assert recipes.usable_test_overlap(1.6, 1.6) == 0.8
    assert recipes.usable_test_overlap(1, 1.6) == 0.5


@pytest.mark.parametrize("model", PUBLISHED)
def test_recipe_is_as_published(model):
    c = recipes.config_for(model)
    got = (c.feature, c.segment_length, c.train_overlap, c.test_overlap, c.optimizer, c.learning_rate, c.weight_decay,
           c.lr_schedule, c.batch_size, c.epochs, c.alpha, c.augment)  # fmt: skip
    assert got == PUBLISHED[model]
    assert c.changed() == replace(c, threads=1, device="cuda", deterministic=True).changed() == {}


def test_what_few_recipes_change_is_as_published():
    usual = {"n_mfcc": 26, "eps": 1e-8, "lr_decay": 0.0, "lr_min": 1e-6, "happy": "exc", "padding": False, "head": 4,
             "attn_hidden": 64, "class_weights": False, "seed": 987654}  # fmt: skip
    for model in PUBLISHED:
        expected = {**usual, "eps": 1e-7, "lr_decay": 1e-6} if model == "AACNN" else usual
        assert {k: getattr(recipes.config_for(model), k) for k in usual} == expected, model


def test_networks_without_published_settings_are_trained_as_macnn_or_glam():
    for model in set(models.list_models()) - set(PUBLISHED):
        like = "MACNN" if model in ("AACNN_flat", "CNN_GAP") else "GLAM"
        assert recipes.config_for(model) == replace(recipes.config_for(like), model=model), model


@pytest.mark.parametrize(
    ("model", "kind", "expected"),
    [
        ("GLAM", torch.optim.Adam, {"lr": 1e-3, "weight_decay": 1e-6, "eps": 1e-8, "betas": (0.9, 0.999)}),
        ("AACNN", torch.optim.Adam, {"lr": 1e-4, "weight_decay": 0.0, "eps": 1e-7, "betas": (0.9, 0.999)}),
        ("APCNN", torch.optim.SGD, {"lr": 0.05, "weight_decay": 1e-4, "momentum": 0.9, "nesterov": True}),
    ],
)
def test_optimisers_are_as_published(model, kind, expected):
    optimizer = loops.make_optimizer(recipes.config_for(model), torch.nn.Linear(2, 2))
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert {k: group[k] for k in expected} == expected


def test_adamw_is_not_adam():
    given = {"weight_decay": 0.01, "eps": 1e-3, "learning_rate": 0.1}
    optimizer = loops.make_optimizer(recipes.config_for("GLAM", optimizer="adamw", **given), torch.nn.Linear(2, 2))
    assert type(optimizer) is torch.optim.AdamW
    (group,) = optimizer.param_groups
    assert (group["weight_decay"], group["eps"], group["lr"]) == tuple(given.values())


def test_aacnns_rate_falls_with_every_step_as_tensorflows_does():
    part = loops.Part(torch.zeros(70, 1, 1), torch.arange(70), np.arange(70), torch.zeros(70), np.arange(70))
    trainer = loops.Trainer(torch.nn.Linear(1, 1), None, part, recipes.config_for("AACNN"))
    assert trainer.steps == 3  # of 32, 32 and 6 segments
    assert trainer.rate(0, 0) == 1e-4
    assert trainer.rate(0, 2) == 1e-4 / (1 + 1e-6 * 2)
    assert trainer.rate(5, 1) == 1e-4 / (1 + 1e-6 * 16)  # steps count on from epoch to epoch
    rates = (("GLAM", 3, 1e-3 * 0.95**3), ("MACNN", 9, 1e-3), ("MACNN", 10, 1e-4), ("APCNN", 25, 5e-4))
    for model, epoch, rate in rates:
        trainer = loops.Trainer(torch.nn.Linear(1, 1), None, part, recipes.config_for(model))
        assert trainer.rate(epoch, 0) == trainer.rate(epoch, 1) == pytest.approx(rate), (model, epoch)


def test_the_step_uses_the_rate_of_its_epoch():
    part = loops.Part(torch.randn(6, 3, 4), torch.arange(6), np.arange(6), torch.tensor([0, 1] * 3), np.arange(6))
    used = []
    for config in (recipes.config_for("GLAM", threads=1), recipes.config_for("MACNN", threads=1)):
        model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        optimizer = loops.make_optimizer(config, model)
        trainer = loops.Trainer(model, optimizer, part, config)
        for epoch in (0, 12):
            loops.drain(trainer.epoch(epoch, np.random.RandomState(1)))
            used.append(float(optimizer.param_groups[0]["lr"]))
    assert used == pytest.approx([1e-3, 1e-3 * 0.95**12, 1e-3, 1e-4])


@pytest.mark.parametrize(
    ("schedule", "scheduler"),
    [
        ("exp", lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.95)),
        ("step", lambda o: torch.optim.lr_scheduler.StepLR(o, 10, 0.1)),
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10)),
    ],
)
@pytest.mark.parametrize("rate", [1e-3, 0.05, 1e-6])
def test_learning_rate_is_torchs_scheduler_stopped_below_lr_min(schedule, scheduler, rate):
    config = recipes.config_for("GLAM", lr_schedule=schedule, learning_rate=rate)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    torchs = scheduler(optimizer)
    for epoch in range(60):
        now = optimizer.param_groups[0]["lr"]
        assert math.isclose(recipes.learning_rate(config, epoch), now, rel_tol=1e-9, abs_tol=1e-18), epoch
        optimizer.step()
        if now >= 1e-6:
            torchs.step()


def test_original_flag_names_and_letters_keep_working():
    parser = cli.parser()
    flags.add_flags(parser)
    words = (
        "-m MHCNN -f mfcc -i script -n 20 -b 16 -l 0.01 -e 3 -g -1 --lr_min 1e-7 --segment_length 1.5 "
        "--train_overlap 1 --test_overlap 1.2 --alpha 0.2 --lr_schedule warmstep --optimizer sgd --seed 7 "
        "--head 2 --attn_hidden 32"
    )
    c = flags.parse_config(vars(parser.parse_args(words.split())))
    assert (c.model, c.feature, c.dataset, c.n_mfcc, c.batch_size, c.learning_rate, c.epochs) == (
        "MACNN",
        "mfcc",
        "script",
        20,
        16,
        0.01,
        3,
    )
    assert (c.device, c.lr_schedule, c.head, c.attn_hidden, c.seed) == ("cpu", "step", 2, 32, 7)
    long = "--model MACNN --features_to_use mfcc --impro_or_script script --nmfcc 20 --gpu -1"
    same = vars(parser.parse_args(long.split()))
    assert flags.parse_config(same).n_mfcc == 20


def test_a_report_asks_for_a_setting_as_runs_record_it():
    recorded = recipes.config_for("GLAM", lr_schedule="warmstep").settings()
    for text in ("lr_schedule=warmstep", "lr_schedule=step", "epochs=50", "alpha=.5", "padding=False", "classes="):
        key, value = flags.parse_setting(text)
        assert recorded[key] == value, text


def test_a_setting_that_does_nothing_is_told(capsys):
    parser = cli.parser()
    flags.add_flags(parser)
    for words, said in {
        "--model APCNN --eps 1e-3": "--eps changes nothing in the training of APCNN: its optimizer is sgd here",
        "--lr_schedule none --lr_min 1e-3": "--lr_min changes nothing in the training of GLAM: its lr_schedule is none",
        "--model APCNN --optimizer adam --eps 1e-3 --lr_min 1e-3": "",
    }.items():
        flags.parse_config(vars(parser.parse_args([*words.split(), "--gpu", "-1"])))
        told = capsys.readouterr().err
        assert said in told and bool(said) == bool(told)


def test_help_names_the_default_of_every_setting():
    parser = cli.parser()
    flags.add_flags(parser)
    said = {action.dest: action.help for action in parser._actions}
    for field in fields(recipes.Config):
        if field.name not in ("recipe", "test_dataset", "device"):
            assert re.search(r"\((default|GLAM|AACNN)[:,] ", said[{"init": "init_from"}.get(field.name, field.name)]), (
                field.name
            )


def test_changed_settings_are_given_back_by_their_flags():
    parser = cli.parser()
    flags.add_flags(parser)
    changed = {"alpha": 0.3, "classes": ["very sad", "angry"], "padding": True, "class_weights": False}
    given = vars(parser.parse_args(flags.train_flags(changed)))
    assert given == {**changed, "classes": ("very sad", "angry")}
    assert flags.train_flags({"classes": [], "alpha": 0.0}) == ["--alpha", "0.0"]  # no class named: all of them
    assert flags.train_flags({"init": "c0ffee"}) == ["--init_from", "CHECKPOINT"]


def test_hash_names_what_shapes_a_result_and_nothing_else():
    a = recipes.config_for("GLAM")
    assert recipes.config_for("GLAM", alpha=0).hash("corpus") == recipes.config_for("GLAM", alpha=0.0).hash("corpus")
    assert a.hash("corpus") == replace(a, seed=1).hash("corpus") == replace(a, fold=3).hash("corpus")
    different = [replace(a, alpha=0.3), replace(a, threads=1), replace(a, device="cuda"), replace(a, padding=True),
                 replace(a, classes=("sad", "angry")), replace(a, amp=True), replace(a, init="0")]  # fmt: skip
    hashes = [c.hash("corpus") for c in [a, *different]] + [a.hash("other")]
    assert len(set(hashes)) == len(hashes)

    def other(value):
        return ("sad",) if value == () else f"{value}2" if isinstance(value, str) else (value or 0) + 1

    changed = {f.name: replace(a, **{f.name: other(getattr(a, f.name))}) for f in fields(a)}
    assert {name for name, c in changed.items() if c.hash("corpus") == a.hash("corpus")} == {"seed", "fold", "recipe"}
    mine = [replace(a, dataset=csv).hash("corpus") for csv in ("mine.csv", "/home/me/mine.csv", "yours.csv")]
    assert mine[0] == mine[1] != mine[2]  # one file, one folder, wherever it is named from
    tested = [replace(a, test_dataset=csv).hash("corpus") for csv in ("mine.csv", "/home/me/mine.csv", "yours.csv")]
    assert tested[0] == tested[1] != tested[2]
    assert a.hash("corpus") == "dd6d94a842b9"  # another one, and no run made before would be found


def test_settings_survive_json():
    a = recipes.config_for("AACNN", classes=("sad", "angry"), fold=2)
    assert "init" not in a.settings(), "the hashes of runs from before there was it would change"
    for config in (a, replace(a, init="c0ffee")):
        assert recipes.from_settings(config.settings()) == config
    with pytest.raises(UserError, match="alpha"):
        recipes.from_settings({k: v for k, v in a.settings().items() if k != "alpha"})
    with pytest.raises(UserError, match=r"\['seed', 'speed'\]"):
        recipes.from_settings({**a.settings(), "seed": "1", "speed": 7})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_overlap": 1.8}, "--train_overlap 1.8: must be shorter than the segment"),
        *(
            ({flag: 0}, f"--{flag} 0: must be at least 1")
            for flag in ("n_mfcc", "epochs", "batch_size", "threads", "head", "attn_hidden")
        ),
        ({"learning_rate": float("nan")}, "--learning_rate nan"),
        *(
            ({flag: -1.0}, f"--{flag} -1.0: must be 0 or more")
            for flag in ("weight_decay", "lr_decay", "lr_min", "alpha", "train_overlap", "test_overlap")
        ),
        *(({flag: 0.0}, f"--{flag} 0.0: must be greater") for flag in ("segment_length", "learning_rate", "eps")),
        ({"seed": 2**32}, "--seed 4294967296"),
        ({"threads": 4097}, "--threads 4097: must be at most 4096"),  # of billions, torch would raise its own error
        ({"batch_size": 10**20}, "--batch_size 100000000000000000000: must be at most 16777216"),
        ({"fold": -1}, "--fold -1: folds count from 0"),
        ({"optimizer": "lamb"}, "--optimizer lamb: choose one of adam"),
        ({"lr_schedule": "line"}, "--lr_schedule line: choose one of exp"),
        ({"augment": "noise"}, "--augment noise: choose one of none"),
        ({"happy": "sad"}, "--happy sad: choose one of exc"),
    ],
)
def test_impossible_values_name_their_flag(changes, words):
    with pytest.raises(UserError) as error:
        recipes.config_for("GLAM", **changes)
    assert words in str(error.value)


def test_amp_needs_a_device_with_bfloat16(here, small_release, monkeypatch):
    """Where the run computes, and before it starts: a cluster's driver may have none."""
    import device
    import train

    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    config = flags.parse_config({"amp": True, "device": "cpu", "dataset": "all", "model": "CNN_GAP", "epochs": 1})
    with pytest.raises(UserError, match="--amp: this processor has no instructions for bfloat16"):
        train.train(config, quiet=True)
    assert not list(here.rglob("config.json"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    with pytest.raises(UserError, match="--amp: Tesla T4 has no bfloat16"):
        device.check_bfloat16("cuda")


def test_settings_as_text_tell_unequal_numbers_apart():
    assert recipes.settings_text({"epochs": 10, "lr_decay": 1.0, "alpha": 0.3}) == "alpha=0.3, epochs=10, lr_decay=1"
    assert recipes.settings_text({"alpha": 0.3}) != recipes.settings_text({"alpha": 0.3000001})
    assert recipes.settings_text({"lr_min": 1e-6}) == "lr_min=1e-06"


@pytest.mark.parametrize(
    ("flag", "value"), [("segment_length", 121), ("head", 257), ("attn_hidden", 4097), ("n_mfcc", 129)]
)
def test_what_no_checkpoint_may_have_is_refused_before_training(flag, value):
    with pytest.raises(UserError, match=f"--{flag} {value}.*: must be at most"):
        recipes.config_for("MHResMultiConv3", **{flag: value})
    assert getattr(recipes.config_for("MHResMultiConv3", **{flag: value - 1}), flag) == value - 1


@pytest.mark.parametrize("flag", ["head", "attn_hidden"])
def test_a_head_is_asked_of_networks_that_have_one(flag):
    assert getattr(flags.parse_config({"model": "MHResMultiConv3", flag: 8, "gpu": -1}), flag) == 8
    with pytest.raises(UserError, match=f"--{flag}: the model GLAM has no head attention"):
        flags.parse_config({flag: 8, "gpu": -1})
