"""`--tensorboard`: every epoch once in the run folder, whatever interrupts it; nothing where it was not asked for."""

import gc
import json
import sys
import threading
from pathlib import Path

import pytest

import board
import cli
import data
import loops
import metrics
import recipes
import records
import train


@pytest.fixture
def config(here) -> recipes.Config:
    return recipes.config_for("CNN_GAP", dataset="all", split="8:1:1", epochs=3, train_overlap=0.0, test_overlap=0.0)


def shown(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) of every point that TensorBoard would draw."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / board.FOLDER))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def records_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


def check(folder: Path) -> None:
    """Every curve shows what epochs.jsonl says, each epoch once."""
    drawn, records = shown(folder), records_of(folder)
    expected = {"loss/train": [r["train_loss"] for r in records], "learning_rate": [r["lr"] for r in records]}
    for part in ("val", "test"):
        for name in ("WA", "UA", "macroF1", "weightedF1"):
            expected[f"{name}/{part}"] = [r[part][name] for r in records]
    for tag, values in expected.items():
        assert [step for step, _ in drawn[tag]] == [r["epoch"] for r in records], tag
        assert [value for _, value in drawn[tag]] == pytest.approx(values, rel=1e-6), tag


@pytest.fixture
def tensorboard():
    return pytest.importorskip("tensorboard", reason="needs TensorBoard: pip install -r requirements-app.txt")


def test_curves_are_the_records_and_shape_no_result(config, here, tmp_path, monkeypatch, tensorboard):
    with monkeypatch.context() as patch:
        patch.setattr(board, "write", lambda folder: None)  # it would mend curves that the run left incomplete
        folder = train.train(config, quiet=True, tensorboard=True)
    assert (folder / board.WHOLE).exists()
    plain = train.train(config, runs=tmp_path / "plain", quiet=True)
    check(folder)
    assert folder.relative_to(here) == plain.relative_to(tmp_path / "plain")
    assert not (plain / board.FOLDER).exists()
    assert [r["train_loss"] for r in records_of(folder)] == [r["train_loss"] for r in records_of(plain)]


def stopped_in_the_third(config, monkeypatch):
    """Train until the third epoch that is begun; the list grows with every one."""
    real, calls = loops.Trainer.epoch, []

    def stop_in_the_third(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(loops.Trainer, "epoch", stop_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        train.train(config, quiet=True, tensorboard=True)
    return calls


def test_a_run_that_fails_leaves_no_thread_behind(config, monkeypatch, tensorboard):
    before = threading.active_count()
    stopped_in_the_third(config, monkeypatch)
    gc.collect()  # the error's frames
    assert threading.active_count() == before


def test_a_run_that_goes_on_shows_no_epoch_twice(config, here, monkeypatch, tensorboard):
    calls = stopped_in_the_third(config, monkeypatch)
    check(next(here.rglob("epochs.jsonl")).parent)  # what is done is shown already
    folder = train.train(config, quiet=True, tensorboard=True)
    assert len(calls) == 4
    check(folder)


def test_curves_that_a_run_left_half_written_are_no_whole_ones(config, monkeypatch, tensorboard):
    stopped_in_the_third(config, monkeypatch)
    folder = train.train(config, quiet=True)
    assert not (folder / board.FOLDER).exists()
    train.train(config, quiet=True, tensorboard=True)
    check(folder)


def test_a_finished_run_gets_its_curves_without_training(config, monkeypatch, tensorboard):
    folder = train.train(config, quiet=True)
    assert not (folder / board.FOLDER).exists()
    monkeypatch.setattr(loops.Trainer, "epoch", None)
    assert train.train(config, quiet=True, tensorboard=True) == folder
    check(folder)
    before = sorted((folder / board.FOLDER).iterdir())
    monkeypatch.setattr(records, "locked", None)  # nor is it locked, for which it would have to be writable
    train.train(config, quiet=True, tensorboard=True)
    assert sorted((folder / board.FOLDER).iterdir()) == before


def test_a_run_that_another_process_finished_meanwhile_gets_its_curves(config, monkeypatch, tensorboard):
    folder, real, looks = train.train(config, quiet=True), records.finished, iter([False])
    monkeypatch.setattr(records, "finished", lambda *given: next(looks, True) and real(*given))
    monkeypatch.setattr(loops.Trainer, "epoch", None)
    train.train(config, quiet=True, tensorboard=True)
    check(folder)


def test_a_sweep_gives_finished_runs_the_curves_they_lack(config, command, tensorboard):
    folder = train.train(config, quiet=True)
    words = ("--splits", "8:1:1", "--epochs", 3, "--train_overlap", 0, "--test_overlap", 0, "--seed", config.seed)
    asked = ("sweep.py", "--gpu", -1, "--models", "CNN_GAP", "--datasets", "all", *words, "--tensorboard")
    assert "done: CNN_GAP" in command(*asked).stdout
    check(folder)
    assert "1 finished before, 0 trained now" in command(*asked).stdout
    assert "0 finished before, 1 trained now" in command(*asked, "--save_model", "last").stdout


def test_of_two_processes_that_make_a_runs_curves_one_does(config, monkeypatch, tensorboard):
    folder, real = train.train(config, quiet=True), board.Board
    made: list[Path] = []
    monkeypatch.setattr(board, "Board", lambda *given: made.append(folder) or real(*given))
    threads = [threading.Thread(target=board.write, args=(folder,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    check(folder)


def test_curves_that_broke_off_after_the_run_are_made_again(config, monkeypatch, tensorboard):
    folder, real = train.train(config, quiet=True), board.Board.add

    def full(self, record):
        if record["epoch"] == 2:
            raise OSError(28, "No space left on device")
        real(self, record)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(board.Board, "add", full)
        train.train(config, quiet=True, tensorboard=True)
    train.train(config, quiet=True, tensorboard=True)
    check(folder)


def test_curves_whose_writer_was_killed_after_the_run_are_made_again(config, tensorboard):
    folder = train.train(config, quiet=True)
    run = records.read_run(folder)
    board.Board(folder, run.config, run.epochs[:2]).writer.close()  # as a kill leaves them
    train.train(config, quiet=True, tensorboard=True)
    check(folder)


def test_settings_are_there_to_compare_runs_by(config, tensorboard):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    folder = train.train(config, quiet=True, tensorboard=True)
    events = EventAccumulator(str(folder / board.FOLDER))
    events.Reload()
    tags = events.summary_metadata
    assert json.loads(events.Tensors("run/text_summary")[0].tensor_proto.string_val[0]) == json.loads(
        (folder / "config.json").read_text()
    )
    about = plugin_data_pb2.HParamsPluginData.FromString(tags["_hparams_/session_start_info"].plugin_data.content)
    written = dict(about.session_start_info.hparams)
    settings = json.loads((folder / "config.json").read_text())["settings"]
    assert written.keys() == settings.keys()
    assert (written["epochs"].number_value, written["split"].string_value) == (3, "8:1:1")
    assert written["classes"].string_value == str(settings["classes"])
    drawn, last = shown(folder), records_of(folder)[-1]["test"]
    assert {tag: drawn[f"last/{tag}"] for tag in metrics.SCORES} == {
        tag: [(3, pytest.approx(last[tag]))] for tag in metrics.SCORES
    }


def test_without_the_package_it_says_what_to_install(config, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(cli.UserError, match=r"--tensorboard needs tensorboard: pip install -r requirements-app\.txt"):
        train.train(config, quiet=True, tensorboard=True)
    assert not list(data.path.RUNS.rglob("config.json"))


def test_the_flag_of_the_command(here, command, tensorboard):
    words = ("--gpu", -1, "--model", "CNN_GAP", "--epochs", 1, "--train_overlap", 0, "--dataset", "all")
    command("train.py", *words, "--tensorboard")
    assert list(here.rglob("events.out.tfevents.*"))
