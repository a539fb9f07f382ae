"""Training that begins with a checkpoint's weights."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from faults import content
from made_checkpoints import CLASSES, OURS, make_checkpoint
from safetensors.torch import load_file

import checkpoints
import data
import evaluate
import finetune
import models
import recipes
import report
import train
from cli import UserError
from tests.conftest import Command

SMALL: dict[str, Any] = {"epochs": 2, "head": 2, "attn_hidden": 32}


@pytest.fixture
def scripted(here: Path) -> Path:
    """A network trained on the scripted half; the runs below train on the improvised half, with the same speakers."""
    config = recipes.config_for("MACNN", dataset="script", split="8:1:1", seed=1, **SMALL)
    return train.train(config, runs=here, save_model="validation", quiet=True)


def config_of(folder: Path, **changes: Any) -> recipes.Config:
    config = recipes.config_for("MACNN", **{"dataset": "impro", "split": "8:1:1", "seed": 1, **SMALL, **changes})
    return replace(config, init=finetune.digest(folder, config))


def fine_tune(config: recipes.Config, folder: Path | None, runs: Path, **options: Any) -> Path:
    return train.train(config, runs=runs, init_from=folder, quiet=True, **options)


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["train_loss"] for line in (folder / "epochs.jsonl").read_text().splitlines()]


def test_drawn_weights_given_as_a_checkpoint_change_no_number(here: Path, tmp_path: Path) -> None:
    """Batches, mixup and dropout draw the same numbers, whatever the weights are."""
    config = recipes.config_for("MACNN", dataset="impro", seed=1, alpha=0.5, **SMALL)
    plain = train.train(config, runs=here, quiet=True)
    made = make_checkpoint(tmp_path / "drawn", "MACNN", head=2, attn_hidden=32)
    torch.manual_seed(1)
    network = models.of_run("MACNN", (26, 63), 4, 2, 32)
    described = checkpoints.read_config(made / "config.json")
    checkpoints.save(made, network, described, "last", described["scores"])
    begun = fine_tune(config_of(made, split="8:2", alpha=0.5), made, here)
    assert begun.parent != plain.parent and losses(begun) == losses(plain)


def test_a_run_begins_with_the_weights(here: Path, scripted: Path) -> None:
    """At a rate of nearly nothing it also ends with them."""
    folder = fine_tune(config_of(scripted, learning_rate=1e-12), scripted, here, save_model="last")
    begun, ended = (load_file(f / "checkpoint" / "model.safetensors") for f in (scripted, folder))
    for name, _ in models.of_run("MACNN", (26, 63), 4, 2, 32).named_parameters():  # not the norms' statistics
        assert begun[name].allclose(ended[name]), name
    assert json.loads((folder / "config.json").read_text())["init"]["known_classes"] == CLASSES


@pytest.mark.parametrize("model", OURS)
@pytest.mark.parametrize("classes", [CLASSES[::-1], ["sad", "glad", "angry"], ["one", "two"]])
def test_a_class_keeps_its_weights_in_the_last_layer(tmp_path: Path, model: str, classes: list[str]) -> None:
    start = checkpoints.load(make_checkpoint(tmp_path / "c", model))
    network = models.of_run(model, start.config["shape"], len(classes), 4, 64)
    drawn = {name: value.clone() for name, value in network.state_dict().items()}
    known = finetune.begin(network, start, classes)["known_classes"]
    assert known == [name for name in classes if name in CLASSES]
    old, last = start.module.state_dict(), "top_down." if model == "APCNN" else "fc."
    for name, value in network.state_dict().items():
        if name.startswith(last):
            for row, of in zip(value, classes, strict=True):
                assert row.equal(old[name][CLASSES.index(of)] if of in known else drawn[name][classes.index(of)]), name
        else:
            assert value.equal(old[name]), name


def test_what_is_said_of_a_run_and_its_checkpoint(here: Path, scripted: Path, capsys: pytest.CaptureFixture) -> None:
    folder = fine_tune(config_of(scripted), scripted, here, save_model="last")
    before, after = checkpoints.load(scripted), checkpoints.load(folder)
    begun = "MACNN trained on synthetic (script, SYNTHETIC speech)"
    assert after.title == f"MACNN trained on synthetic (impro, SYNTHETIC speech), begun with {begun}"
    assert f"Begun with {begun}" in (folder / "checkpoint" / "README.md").read_text()
    assert "of the weights it began with" in after.config["licence"]
    weights = before.config["weights"][:12]
    assert after.config["changed"]["init"] == after.config["settings"]["init"] == weights
    report.main(["--runs", str(here), "--set", f"init={weights}"])
    assert f"init={weights}" in capsys.readouterr().out
    assert report.main(["--runs", str(here), "--audit"]) == 0
    # both runs' recordings were heard: of the improvised half nothing but its test part is left, of the other neither
    for dataset, checkpoint, left in (("impro", after, after.config["n_test"]), ("script", before, None)):
        part = evaluate.fair_part(data.corpus(dataset), checkpoint, dataset)
        left = left or before.config["n_test"]
        assert len(part.utterances) == left
    assert len(evaluate.fair_part(data.corpus("script"), after, "script").utterances) == before.config["n_test"]


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(here: Path, scripted: Path, monkeypatch) -> None:
    config = config_of(scripted)
    whole = content(fine_tune(config, scripted, here / "whole"))
    show = train.save_state

    def stop(*given: Any) -> None:
        show(*given)
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "save_state", stop)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(config, scripted, here / "parts")
    monkeypatch.setattr(train, "save_state", show)
    assert content(fine_tune(config, scripted, here / "parts")) == whole


def test_recordings_that_the_checkpoint_heard_are_not_tested_on(here: Path, scripted: Path) -> None:
    n_test = checkpoints.load(scripted).config["n_test"]
    with pytest.raises(UserError, match=rf"--init_from: \d+ of {n_test} test utterances, as Ses.*, were used to"):
        fine_tune(config_of(scripted, dataset="script", seed=2), scripted, here)
    fine_tune(config_of(scripted, dataset="script"), scripted, here)  # the same seed has the same parts


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "GLAM", "segment_length": 2.0}, "its model is MACNN, so add --model MACNN"),
        ({"segment_length": 1.8}, r"its segment_length is 2\.0, so add --segment_length 2\.0"),
        ({"feature": "mfcc_reflect"}, "its feature is mfcc, so add --feature mfcc"),
        ({"n_mfcc": 20}, "its n_mfcc is 26, so add --n_mfcc 26"),
        ({"head": 4}, "its head is 2, so add --head 2"),
    ],
)
def test_a_checkpoint_of_something_else(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    made = make_checkpoint(tmp_path / "c", "MACNN", head=2, attn_hidden=32)
    config = recipes.config_for(**{"model": "MACNN", **SMALL, **changes})
    with pytest.raises(UserError, match=f"--init_from .*: {said}"):
        finetune.digest(made, config)


def test_bad_checkpoints_are_named(here: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--init_from .*nowhere: there is no such folder"):
        config_of(tmp_path / "nowhere")
    made = make_checkpoint(tmp_path / "c", "MACNN", head=2, attn_hidden=32, heard=None)
    config = config_of(made)
    with pytest.raises(UserError, match="does not say what it was trained on"):
        fine_tune(config, made, here)
    other = make_checkpoint(tmp_path / "other", "MACNN", head=2, attn_hidden=32, scale=2.0)
    for folder, said in ((other, f"--init_from {other} has others"), (None, "init_from must name their folder")):
        with pytest.raises(UserError, match=f"begins with the weights {config.init}: {said}"):
            fine_tune(config, folder, here)
    with pytest.raises(UserError, match=r"begins with the weights \(none\): --init_from .* has others"):
        fine_tune(replace(config, init=""), other, here)
    with pytest.raises(UserError, match=r"--init_from .*nowhere: there is no such folder"):
        fine_tune(config, tmp_path / "nowhere", here)


def test_the_command(here: Path, scripted: Path, command: Command) -> None:
    words = ("--model", "MACNN", "--split", "8:1:1", "--gpu", -1, "--epochs", 1, "--head", 2, "--attn_hidden", 32)
    words = (*words, "--init_from", scripted)
    said = command("train.py", *words).stdout
    assert "changed: attn_hidden=32, epochs=1, head=2, init=" in said
    assert "(script, SYNTHETIC speech), which knows these classes: neutral, sad, angry, happy\n" in said
    sweep = ("sweep.py", "--models", "MACNN", *words[2:], "--seeds", 2)
    assert command(*sweep, "--jobs", 2).stdout.splitlines()[-1] == "0 finished before, 2 trained now, 0 failed"
    assert "2 done" in command(*sweep, "--dry_run").stdout
    assert "leave --ray out" in command("sweep.py", *words[4:], "--ray", "local", status=2).stderr
    last = command("sweep.py", "--models", "GLAM", *words[4:8], "--init_from", scripted, status=2)
    assert "its model is MACNN, so add --model MACNN" in last.stderr


def test_a_table_of_fine_tuned_runs(here: Path, tmp_path: Path, command: Command) -> None:
    """A checkpoint is one model's: a table of several models is refused, with the flag that makes it one of this."""
    made = make_checkpoint(tmp_path / "c", "MACNN")
    words = ("--table", "comparison", "--gpu", -1, "--epochs", 1, "--init_from", made, "--print")
    assert "its model is MACNN, so add --model MACNN" in command("sweep.py", *words, status=2).stderr
    table = command("sweep.py", *words, "--model", "MACNN").stdout
    assert "| MHCNN (MACNN) | ours SYNTHETIC |" in table and "missing" not in table
    assert re.search(r"^impro: corpus synthetic, digest \w+; none needed: made by corpora/synthetic.py\.$", table, re.M)


def test_a_folder_that_gets_more_checkpoints_meanwhile(here: Path, scripted: Path, command: Command) -> None:
    """Here the runs save their weights below the folder in which the one checkpoint was found."""
    words = ("--init_from", here, "--save_model", "--gpu", -1, "--epochs", 1, "--head", 2, "--attn_hidden", 32)
    command("train.py", "--model", "MACNN", *words, "--split", "session")
    for folder in here.glob("impro/*"):
        shutil.rmtree(folder)
    command("sweep.py", "--models", "MACNN", *words, "--seeds", 2, "--splits", "8:1:1")
