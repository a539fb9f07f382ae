"""A run that is killed goes on from its last finished epoch, and ends as if nothing had been."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from faults import ROOT, content
from safetensors.torch import load_file, save_file

import audit
import cluster
import data
import flags
import loops
import pack
import recipes
import records
import resume
import train
from cli import UserError

WAYS: dict[
    str, dict[str, Any]
] = {  # together, all kinds of state: dropout's draws, momentum, augmentations, mixup, batch normalisation, a rate
    "CNN_GAP": {"model": "CNN_GAP"},
    "dropout and mixup": {"model": "AAResMultiConv3", "batch_size": 64},
    "momentum": {"model": "APCNN", "feature": "mfcc", "batch_size": 32},
    "upsampling and class weights": {"model": "CNN_GAP", "augment": "upsampling", "class_weights": True, "alpha": 0.5},
    "vtlp and a decaying rate": {"model": "CNN_GAP", "augment": "vtlp", "lr_decay": 1e-2, "optimizer": "adamw"},
    "validation, cosine": {"model": "CNN_GAP", "split": "8:1:1", "lr_schedule": "cosine"},
}


def trained(config: recipes.Config, runs: Path, save_model: str | None = None) -> Path:
    folder = train.train(config, runs=runs, save_model=save_model, quiet=True)
    assert folder is not None
    return folder


class Killed(BaseException):
    """Stands in for kill -9: nothing catches it."""


def config_of(way: str, epochs: int = 3) -> recipes.Config:
    return flags.parse_config({"dataset": "all", "gpu": -1, "threads": 1, "epochs": epochs, "seed": 7, **WAYS[way]})


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch):
    """`stop(n)`: the next run ends in the middle of its epoch n, counted from 0."""
    real = loops.Trainer.epoch

    def until(n: int | None) -> None:
        def one(trainer, epoch, *more):
            loss = yield from real(trainer, epoch, *more)
            if epoch == n:
                raise Killed
            return loss

        monkeypatch.setattr(loops.Trainer, "epoch", one)

    return until


@pytest.mark.parametrize("way", WAYS)
def test_resumed_run_is_the_same_to_the_bit(way: str, here: Path, tmp_path: Path, stop, capsys) -> None:
    config, rule = config_of(way), "validation" if "validation" in way else "last"
    if config.model == "AAResMultiConv3":  # which is slow
        config = recipes.replace(config, epochs=2, classes=("neutral", "sad"))
    whole = trained(config, tmp_path / "whole", rule)
    for n in range(1, config.epochs):
        stop(n)
        with pytest.raises(Killed):
            trained(config, here, rule)
        assert len(next(here.rglob("epochs.jsonl")).read_text().splitlines()) == n
    next(here.rglob("config.json")).with_name(".split.json.1-ab.tmp").touch()  # as a killed writer leaves it
    stop(None)
    resumed = trained(config, here, rule)
    assert content(resumed) == content(whole)
    assert not (resumed / "state.safetensors").exists() and "starts again" not in capsys.readouterr().err


def test_resumed_run_has_the_best_weights_of_before(here: Path, tmp_path: Path, stop, monkeypatch) -> None:
    config = config_of("CNN_GAP")
    monkeypatch.setattr(train.metrics, "pick_epoch", lambda records, rule, val: 0)  # the first epoch is the best
    whole = trained(config, tmp_path / "whole", "paper")
    stop(2)
    with pytest.raises(Killed):
        trained(config, here, "paper")
    stop(None)
    assert content(trained(config, here, "paper")) == content(whole)


def test_best_weights_asked_for_too_late_are_trained_again(here: Path, tmp_path: Path, stop, capsys) -> None:
    config = config_of("CNN_GAP")
    whole = trained(config, tmp_path / "whole", "paper")
    stop(2)
    with pytest.raises(Killed):
        trained(config, here)
    stop(None)
    again = trained(config, here, "paper")
    assert content(again) == content(whole)
    assert "starts again" in capsys.readouterr().err


def test_a_run_that_starts_again_has_let_go_of_its_first_model(here: Path, stop, monkeypatch) -> None:
    """It has also let go of its segments, which on a GPU could leave too little room for a second copy."""
    config = config_of("CNN_GAP", epochs=2)
    stop(1)
    with pytest.raises(Killed):
        trained(config, here)
    stop(None)
    real, made = train.models.of_run, []

    def of_run(*given):
        assert not any(model() is not None for model in made)
        model = real(*given)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(train.models, "of_run", of_run)
    trained(config, here, "paper")
    assert len(made) == 2


def test_weights_that_another_rule_picked_are_not_taken_for_this_ones(
    here: Path, tmp_path: Path, stop, monkeypatch, capsys
) -> None:
    config = config_of("validation, cosine")
    first, latest = (lambda records: 0), (lambda records: len(records) - 1)
    rules = {"validation": first, "paper": latest, "last": latest}
    monkeypatch.setattr(train.metrics, "pick_epoch", lambda records, rule, val: rules[rule](records))
    whole = trained(config, tmp_path / "whole", "validation")
    stop(2)
    with pytest.raises(Killed):
        trained(config, here, "paper")
    stop(None)
    assert content(trained(config, here, "validation")) == content(whole)
    assert "does not hold the weights that --save_model validation picks" in capsys.readouterr().err


@pytest.mark.parametrize("epochs", [0, 2])
def test_a_run_begun_on_another_split_begins_again(
    epochs: int, here: Path, tmp_path: Path, stop, monkeypatch, capsys
) -> None:
    config = config_of("CNN_GAP")
    whole = trained(config, tmp_path / "whole")
    now = data.SPLITS["8:2"]
    with monkeypatch.context() as before:
        then = recipes.replace(now, divide=lambda utterances, seed, fold: now.divide(utterances, seed + 1, fold))
        before.setitem(data.SPLITS, "8:2", then)
        stop(epochs)
        with pytest.raises(Killed):
            trained(config, here)
    stop(None)
    assert content(trained(config, here)) == content(whole)
    told = "was begun on another split of the utterances; the run starts again" in capsys.readouterr().err
    assert told == (epochs > 0)


def test_weights_by_another_rule_are_made_when_asked_for(here: Path, tmp_path: Path) -> None:
    config = config_of("CNN_GAP", epochs=2)
    folder = trained(config, here, "last")
    assert trained(config, here, "paper") == folder
    assert json.loads((folder / "checkpoint" / "config.json").read_text())["rule"] == "paper"
    assert content(folder) == content(trained(config, tmp_path / "paper", "paper"))


def test_a_gpus_generator_goes_on_too(tmp_path: Path, monkeypatch) -> None:
    """Dropout draws from it. The test acts as if the weights were on a GPU."""
    model, given = torch.nn.Linear(1, 1), []
    optimizer = torch.optim.Adam(model.parameters())
    history = resume.History([], {"test": [np.ones((2, 2), np.float32)]})
    monkeypatch.setattr(model, "parameters", lambda: iter([SimpleNamespace(is_cuda=True)]))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda: torch.arange(16, dtype=torch.uint8))
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state: given.append(state.tolist()))
    for deal in (resume.save_state, resume.load_state):
        deal(tmp_path / "state", model, optimizer, np.random.RandomState(1), history)
    assert given == [list(range(16))]


def test_a_run_is_finished_though_its_lock_cannot_be_removed(here: Path, monkeypatch) -> None:
    real = Path.unlink

    def refuse(file: Path, missing_ok: bool = False) -> None:
        if file.name == "lock":
            raise OSError(30, "Read-only file system", str(file))
        real(file, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert records.finished(trained(config_of("CNN_GAP", epochs=1), here))


def test_a_run_folder_in_which_nothing_was_written_is_removed(tmp_path: Path) -> None:
    for name, writes in (("empty", False), ("begun", True)):
        folder = tmp_path / name
        with pytest.raises(ValueError, match="refused"), records.locked(folder) as mine:
            assert mine and (folder / "lock").exists()
            if writes:
                (folder / "config.json").touch()
            raise ValueError("refused")
        assert folder.exists() == writes and not (folder / "lock").exists()


def test_a_run_that_another_process_trains_is_waited_for_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "run"
    with records.locked(folder), records.locked(folder) as mine:
        assert not mine and not capsys.readouterr().err  # without `wait`, nothing is said

    def wait() -> None:
        with records.locked(folder, wait=True) as mine:
            held.append(mine)

    held: list[bool] = []
    with records.locked(folder) as mine:
        assert mine
        other = threading.Thread(target=wait)
        other.start()
        other.join(0.5)
        assert f"{folder} is in use by another process" in capsys.readouterr().err and not held
    other.join(30)
    assert held == [True]


def test_a_run_that_another_process_trains_is_left_to_it_on_request(here: Path, monkeypatch) -> None:
    waited: list[bool] = []
    monkeypatch.setattr(records, "locked", lambda folder, wait: waited.append(wait) or nullcontext(False))
    config = config_of("CNN_GAP")
    assert train.train(config, wait=False) is None and train.train(config) is None and waited == [False, True]


def test_weights_that_are_gone_are_made_again(here: Path) -> None:
    config = config_of("CNN_GAP", epochs=1)
    folder = trained(config, here, "last")
    before = (folder / "checkpoint" / "model.safetensors").read_bytes()
    (folder / "checkpoint" / "model.safetensors").unlink()
    assert trained(config, here, "last") == folder
    assert (folder / "checkpoint" / "model.safetensors").read_bytes() == before


def test_finished_run_is_not_repeated_and_at_no_moment_beside_its_state(here: Path, stop, monkeypatch, capsys) -> None:
    config = config_of("CNN_GAP", epochs=2)

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(os, "truncate", killed)
        trained(config, here)
    folder = records.folder_of(config, *data.identity(config), here)
    assert not list(folder.glob(".*"))
    assert records.finished(folder) and not (folder / "state.safetensors").exists() and not audit.problems(folder)
    before = content(folder), (folder / "done").stat().st_ctime_ns
    stop(0)
    assert trained(config, here) == folder
    assert (content(folder), (folder / "done").stat().st_ctime_ns) == before and not capsys.readouterr().out


def test_a_run_that_another_user_began_is_finished_by_us(here: Path, monkeypatch) -> None:
    def refuse(file: Path, size: int) -> None:
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr(os, "truncate", refuse)
    assert records.finished(trained(config_of("CNN_GAP", epochs=2), here))


def test_other_settings_have_another_folder(here: Path) -> None:
    config = config_of("CNN_GAP")
    name, digest = data.identity(config)
    folders = {
        records.folder_of(recipes.replace(config, **other), name, digest, here)
        for other in (
            {},
            {"epochs": 4},
            {"alpha": 0.1},
            {"threads": 2},
            {"seed": 8},
            {"split": "8:1:1"},
            {"padding": True},
        )
    }
    assert len(folders) == 7
    assert records.folder_of(config, name, "0" * 32, here) not in folders


def state_after_an_epoch(here: Path, stop) -> tuple[recipes.Config, Path]:
    config = config_of("CNN_GAP", epochs=2)
    stop(1)
    with pytest.raises(Killed):
        trained(config, here)
    stop(None)
    return config, records.folder_of(config, *data.identity(config), here) / "state.safetensors"


@pytest.mark.parametrize(
    "damage", ["cut", "flipped", "empty", "pickle", "other weights", "other records", "other network"]
)
def test_damaged_state_is_not_used(damage: str, here: Path, tmp_path: Path, stop, capsys) -> None:
    config, state = state_after_an_epoch(here, stop)
    whole = state.read_bytes()
    if damage in ("cut", "empty"):
        state.write_bytes(whole[: len(whole) // 2 if damage == "cut" else 0])
    elif damage == "flipped":
        state.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    elif damage == "pickle":
        torch.save({"model": torch.zeros(1)}, state)
    elif damage == "other network":
        model, history = torch.nn.Linear(1, 1), resume.History([], {"test": [np.ones((2, 2), np.float32)]})
        optimizer = torch.optim.Adam(model.parameters())
        resume.save_state(state, model, optimizer, np.random.RandomState(1), history)
    else:
        from safetensors import safe_open

        with safe_open(state, "pt") as f:
            text = f.metadata()
        tensors = load_file(state)
        if damage == "other weights":
            tensors[next(k for k in tensors if k.startswith("model."))].zero_()
        else:
            text["records"] = "[]"
        save_file(tensors, state, text)
    folder = trained(config, here)
    assert f"{state} cannot be used" in capsys.readouterr().err
    assert content(folder) == content(trained(config, tmp_path / "whole"))


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_split_that_cannot_be_read_is_written_anew(text: str, here: Path, tmp_path: Path, stop, capsys) -> None:
    config, state = state_after_an_epoch(here, stop)
    (state.parent / "split.json").write_text(text)
    assert content(trained(config, here)) == content(trained(config, tmp_path / "whole"))
    assert "starts again" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        torch.AcceleratorError("CUDA error"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_gpu_that_fails_while_a_state_is_read_loses_nothing(
    error: RuntimeError, here: Path, stop, monkeypatch
) -> None:
    config, state = state_after_an_epoch(here, stop)
    before = state.read_bytes()

    def fail(model: torch.nn.Module, weights: dict[str, Any]) -> None:
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(torch.nn.Module, "load_state_dict", fail)
        trained(config, here)
    assert state.read_bytes() == before
    folder = trained(config, here)
    assert (folder / "done").exists()


def test_a_state_that_the_system_refuses_is_kept(here: Path, stop) -> None:
    """An example is a process that may not open more files."""
    config, state = state_after_an_epoch(here, stop)
    before, script = (
        state.read_bytes(),
        (
            "import json, resource, sys; from pathlib import Path; import numpy as np, torch, recipes, resume, train\n"
            "real = resume.load_state\n"
            "def load(*given):\n"
            "    most = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
            "    resource.setrlimit(resource.RLIMIT_NOFILE, (3, most[1]))\n"
            "    try: return real(*given)\n"
            "    finally: resource.setrlimit(resource.RLIMIT_NOFILE, most)\n"
            "train.load_state = load\n"
            "train.train(recipes.from_settings(json.loads(sys.argv[1])), runs=Path(sys.argv[2]), quiet=True)"
        ),
    )
    words = [sys.executable, "-c", script, json.dumps(config.settings()), str(here)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "Too many open files" in done.stderr and state.read_bytes() == before
    assert (trained(config, here) / "done").exists()


def test_unfinished_run_is_not_reported(here: Path, stop) -> None:
    import report

    state_after_an_epoch(here, stop)
    assert report.runs(here) == []


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_command_killed_in_an_epoch(seed: int, here: Path, tmp_path: Path) -> None:
    epochs = 20  # of a tenth of a second or less: the last is still to come when the second begins
    given = f"--model CNN_GAP --dataset all --gpu -1 --threads 1 --quiet --epochs {epochs} --seed {seed} --save_model"
    words = [sys.executable, "train.py", *given.split()]
    process = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE)
    while not list(here.glob("*/*/*/*/*/state.safetensors")) and process.poll() is None:
        time.sleep(0.002)
    time.sleep(0.05 * seed)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (state,) = here.glob("*/*/*/*/*/state.safetensors")
    before = (state.parent / "epochs.jsonl").read_text().splitlines()
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    assert (state.parent / "epochs.jsonl").read_text().splitlines()[: len(before)] == before, (
        "begun anew, not continued"
    )
    config = flags.parse_config(
        {"model": "CNN_GAP", "dataset": "all", "gpu": -1, "threads": 1, "epochs": epochs, "seed": seed}
    )
    assert content(state.parent) == content(trained(config, tmp_path / "whole", "last"))


def test_what_began_a_run_is_recorded_beside_what_ended_it(here: Path, stop, monkeypatch, capsys) -> None:
    config, commits = config_of("CNN_GAP"), ["one"]
    monkeypatch.setattr(train, "commit", lambda: commits[-1])
    for epochs in (1, 2):
        stop(epochs)
        with pytest.raises(Killed):
            trained(config, here)
        assert ("goes on with another commit" in capsys.readouterr().err) == (epochs == 2)
        commits.append("other")
    stop(None)
    run = json.loads((trained(config, here) / "config.json").read_text())
    assert run["commit"] == "other" and [code["commit"] for code in run["earlier"]] == ["one"]
    assert "goes on with another commit" in capsys.readouterr().err


def test_a_look_at_a_run_that_is_repeated_leaves_what_there_is(here: Path, stop) -> None:
    config = config_of("CNN_GAP")
    folder = trained(config, here)
    stop(1)
    with pytest.raises(Killed):
        trained(config, here, "paper")
    stop(None)
    assert trained(config, here) == folder and (folder / "state.safetensors").exists()
    trained(config, here, "paper")
    assert not (folder / "state.safetensors").exists()


def test_a_run_whose_records_are_being_replaced_is_not_finished(here: Path, tmp_path: Path, monkeypatch) -> None:
    """A repetition that ends between two of its records must not leave a mixture that counts as a run."""
    config = config_of("CNN_GAP", epochs=2)
    monkeypatch.setattr(train, "commit", lambda: "one")
    folder = trained(config, here)
    monkeypatch.setattr(train, "commit", lambda: "other")
    with monkeypatch.context() as patch:
        patch.setattr(train, "save_predictions", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            trained(config, here, "last")
    assert not records.finished(folder) and not (folder / "done").exists()
    assert json.loads((folder / "config.json").read_text())["commit"] == "other", "records are the repetition's"
    assert content(trained(config, here, "last")) == content(trained(config, tmp_path / "whole", "last"))


def test_a_run_killed_before_it_counts_as_done_repeats_its_last_epoch_alone(here: Path, stop, monkeypatch) -> None:
    config = config_of("CNN_GAP")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(records, "finish", lambda folder: (_ for _ in ()).throw(Killed))
        trained(config, here)
    stop(config.epochs - 2)
    assert (trained(config, here) / "done").exists()


def test_weights_do_not_outlive_the_records_they_are_of(here: Path, monkeypatch) -> None:
    """A repetition is killed while it replaces them; the next one, without --save_model, must leave no weights."""
    config = config_of("CNN_GAP", epochs=2)
    folder = trained(config, here, "last")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train, "save_predictions", lambda *_: (_ for _ in ()).throw(Killed))
        trained(config, here, "paper")
    trained(config, here)
    assert records.finished(folder) and records.kept_rule(folder) is None


@pytest.mark.parametrize("gone", ["config.json", "epochs.jsonl"])
def test_a_run_deleted_in_its_last_moment_does_not_count_as_done(gone: str, here: Path, monkeypatch) -> None:
    config, save = config_of("CNN_GAP", epochs=2), train.save_predictions

    def delete(file: Path, *given: Any) -> None:
        save(file, *given)
        (file.parent / gone).unlink()

    with monkeypatch.context() as patch, pytest.raises(UserError, match=f"{gone} went away while this run was trained"):
        patch.setattr(train, "save_predictions", delete)
        trained(config, here)
    assert audit.problems(trained(config, here)) == []


def test_a_reader_finds_the_records_of_a_packed_run_at_any_moment_of_its_repetition(here: Path, monkeypatch) -> None:
    config, seen = config_of("CNN_GAP", epochs=2), []
    folder = trained(config, here)
    assert pack.pack(folder)
    before = records.read_epochs(folder)
    opened, wrote = records.open_again, train.write_text

    def look(*given: Any, then: Any) -> None:
        then(*given)
        seen.append(len(records.read_epochs(folder)))

    monkeypatch.setattr(records, "open_again", lambda *given: look(*given, then=opened))
    monkeypatch.setattr(train, "write_text", lambda *given: look(*given, then=wrote))
    trained(config, here, "last")
    assert seen == [len(before)] * 2 and not list(folder.glob("*.gz")) and records.finished(folder, "last")


def test_what_a_cluster_sends_takes_the_place_of_all_that_was_there(here: Path, tmp_path: Path) -> None:
    config = config_of("CNN_GAP", epochs=2)
    folder = trained(config, here, "last")
    assert pack.pack(folder) and records.kept_rule(folder) == "last"
    sent = trained(config, tmp_path / "worker")
    cluster._keep(folder, {name: (sent / name).read_bytes() for name in cluster.FILES if (sent / name).exists()})
    assert records.finished(folder) and records.kept_rule(folder) is None and not list(folder.glob("*.gz"))


def test_a_finished_run_repeated_for_its_weights_keeps_its_records_until_the_end(here: Path, stop) -> None:
    config = config_of("CNN_GAP")
    folder = trained(config, here)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    stop(1)
    with pytest.raises(Killed):
        trained(config, here, "paper")
    left = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert before.items() <= left.items() and "done" in left and records.finished(folder)
    assert not records.finished(folder, "paper")
    stop(None)
    trained(config, here, "paper")
    assert records.finished(folder, "paper") and not (folder / "state.safetensors").exists()
    assert (folder / "predictions.npz").read_bytes() == before["predictions.npz"]
    assert pack.pack(folder)
    stop(1)
    with pytest.raises(Killed):
        trained(config, here, "last")
    assert (folder / "epochs.jsonl.gz").exists()
    stop(None)
    trained(config, here, "last")
    assert not list(folder.glob("*.gz")) and len(records.read_epochs(folder)) == config.epochs
