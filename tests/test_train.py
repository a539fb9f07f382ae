"""The published losses, the published order of random draws, and one run from the command line to its folder."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from made_runs import edit, make_run
from torch.utils.data import DataLoader, TensorDataset

import data
import features
import files
import flags
import graphs
import loops
import metrics
import models
import path
import recipes
import records
import train
from cli import UserError
from tests.conftest import ROOT, at_a_terminal

SETTINGS = {"epochs": 2, "lr_schedule": "exp", "head": 2, "attn_hidden": 32}
SMALL = ("--gpu", -1, "--model", "MACNN", "--seed", 1, *flags.train_flags(SETTINGS))


@pytest.fixture
def at_emodb(emodb_iemocap, shared_cache, monkeypatch):
    """EMO-DB laid out as IEMOCAP takes IEMOCAP's place."""
    monkeypatch.setattr(path, "IEMOCAP", emodb_iemocap)
    monkeypatch.setattr(path, "CACHE", shared_cache)
    data.forget()


def first_epochs(seed, runs, **changes):
    """Train GLAM for three epochs with two threads, here and now; return the configuration and the epochs' records."""
    config = recipes.config_for("GLAM", dataset="impro", seed=seed, epochs=3, threads=2, **changes)
    folder = train.train(config, runs=runs, quiet=True)
    assert folder.is_relative_to(runs)
    return config, [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]


def assert_losses(records, expected):
    losses = [record["train_loss"] for record in records]
    assert losses[:2] == pytest.approx(expected[:2], rel=1e-3)
    assert losses[2] == pytest.approx(expected[2], rel=5e-3)


def test_losses_and_scores_are_the_published_codes(golden, at_emodb, tmp_path):
    expected = golden["run"]
    config, records = first_epochs(expected["seed"], tmp_path)
    d = data.load(config)
    rows = loops.make_part(d.train, split_of(config).train, d.corpus.labels, "cpu").rows
    assert len(rows) == expected["train_segments"]
    assert_losses(records, expected["train_loss"])
    got, utterance = records[-1]["test"], 100 / 26
    assert abs(got["WA"] - expected["WA"]) < 1.01 * utterance
    smallest = min(map(sum, got["confusion"]))  # one utterance of the smallest class moves UA by this much
    assert abs(got["UA"] - expected["UA"]) < 1.01 * 100 / smallest / 4


def test_losses_are_those_of_the_libraries_of_the_papers_time(at_emodb, tmp_path):
    """torch 1.10.2, librosa 0.8.1 and NumPy 1.23.5 under Python 3.8: the textbook loop over GLAM as it is here. These
    losses are of one thread; those of two differ from them by at most 7e-4."""
    _, records = first_epochs(2602656884, tmp_path, feature="mfcc_reflect")
    assert_losses(records, [2.5833735, 1.0270269, 0.7584638])


def test_draws_are_those_of_the_libraries_of_the_papers_time():
    """torch 1.10.2 and NumPy 1.23.5."""
    torch.manual_seed(2602656884)
    assert loops.epoch_order(1000)[:8].tolist() == [21, 622, 768, 534, 741, 30, 653, 957]
    assert torch.randperm(32)[:8].tolist() == [0, 2, 10, 11, 7, 17, 25, 6]  # mixup's partners
    chosen, generator = data.published_draw(2236, 2602656884)
    assert chosen[:8].tolist() == [1119, 407, 419, 247, 460, 42, 1788, 471]
    assert [generator.beta(0.5, 0.5) for _ in range(3)] == [0.9953311815015127, 0.9434969195187132, 0.9988220124713364]


def split_of(config):
    return data.split_by_name(config.split)(data.load(config).corpus.utterances, config.seed, config.fold)


@pytest.mark.parametrize("n", [1, 31, 100])
def test_epoch_order_is_the_data_loaders(n):
    """Same order as torch's loader, and the global generator left in the same state."""
    for seed in range(3):
        torch.manual_seed(seed)
        loader = DataLoader(TensorDataset(torch.arange(n)), batch_size=32, shuffle=True)
        expected = [torch.cat([batch[0] for batch in loader]) for _ in range(2)]
        after = torch.rand(1)
        torch.manual_seed(seed)
        assert all(torch.equal(loops.epoch_order(n), order) for order in expected)
        assert torch.equal(torch.rand(1), after)


@pytest.mark.parametrize("class_weights", [False, True])
def test_an_epoch_is_a_plain_loop_with_published_draws(here, class_weights):
    """An epoch against the textbook loop: DataLoader, np.random mixup, one loss after the other."""
    config = recipes.config_for("GLAM", dataset="impro", seed=5, batch_size=16)
    weights = torch.tensor([0.1, 0.9, 0.5, 0.7]) if class_weights else None
    d = data.load(config)
    parts = split_of(config)
    part = loops.make_part(d.train, parts.train[:8], d.corpus.labels, "cpu")

    def fresh():
        torch.manual_seed(config.seed)
        model = models.of_run(config.model, d.shape, 4, config.head, config.attn_hidden)
        return model, loops.make_optimizer(config, model)

    model, optimizer = fresh()
    _, generator = data.published_draw(len(d.corpus.utterances), config.seed)
    got = loops.drain(loops.Trainer(model, optimizer, part, config, weights).epoch(0, generator))

    plain, optimizer = fresh()
    np.random.seed(config.seed)
    n = len(d.corpus.utterances)
    chosen = np.random.choice(range(n), int(n * 0.8), replace=False)
    np.testing.assert_array_equal(chosen, parts.train)
    x = torch.from_numpy(np.array(d.train.x))[part.rows].unsqueeze(1)
    total = 0.0
    plain.train()
    for xs, ys in DataLoader(TensorDataset(x, part.labels), batch_size=16, shuffle=True):
        share = np.random.beta(0.5, 0.5)
        partner = torch.randperm(len(ys))
        out = plain(share * xs + (1 - share) * xs[partner])
        loss = share * torch.nn.functional.cross_entropy(out, ys, weights)
        loss = loss + (1 - share) * torch.nn.functional.cross_entropy(out, ys[partner], weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * 16
    assert got == pytest.approx(total / len(x), rel=1e-5)
    for (name, a), b in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4, msg=name)


def test_evaluation_is_the_mean_of_an_utterances_segments(here):
    config = recipes.config_for("GLAM", dataset="impro", seed=5)
    d = data.load(config)
    model = models.of_run(config.model, d.shape, 4, config.head, config.attn_hidden)
    part = loops.make_part(d.test, np.array([7, 0, 3]), d.corpus.labels, "cpu")
    got = loops.evaluate(model, part, config)
    model.eval()
    for logits, utterance in zip(got, (7, 0, 3), strict=True):
        start, count = d.test.starts[utterance], d.test.counts[utterance]
        with torch.no_grad():
            alone = model(torch.from_numpy(d.test.x[start : start + count].copy()).unsqueeze(1)).mean(0)
        np.testing.assert_allclose(logits, alone.numpy(), rtol=1e-3, atol=1e-4)


def test_an_utterances_mean_is_computed_in_double_precision():
    x = torch.tensor([1e8, 1.0, -1e8]).view(3, 1, 1)
    part = loops.Part(x, torch.arange(3), np.zeros(3), torch.zeros(3), np.zeros(1))
    assert loops.evaluate(torch.nn.Flatten(), part, recipes.config_for("GLAM")) == np.float32(1 / 3)


def test_the_summary_draws_nothing_and_changes_nothing(capsys):
    torch.manual_seed(0)
    model = models.create_model("AAResMultiConv3")
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    counts = dict.fromkeys(("n_train", "n_val", "n_test", "n_dropped", "n_bad"), 0)
    names = dict.fromkeys(("model", "dataset", "corpus", "split", "recipe"), "")
    settings = {"segment_length": 1.8, "device": "cpu", "threads": 3}
    changed = {"changed": {"epochs": 1, "alpha": 0.3}, "device": "a processor"}
    run = {"shape": [26, 57], "params": 686820, "settings": settings, **counts, **names, **changed}
    train.print_summary(model, run)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    told = capsys.readouterr().out
    assert "Total params: 686,820\n" in told and "changed: alpha=0.3, epochs=1\n" in told
    assert told.endswith("on a processor, 3 threads\n")
    train.print_summary(model, run)
    assert "Total params" not in capsys.readouterr().out, "runs of one process have the same layers"


def test_class_weights_are_asked_for_and_given_to_the_trainer(here, monkeypatch):
    given = []
    real = graphs.make_trainer
    monkeypatch.setattr(graphs, "make_trainer", lambda *words: given.append(words[-1]) or real(*words))
    for class_weights in (False, True):
        train.train(recipes.config_for("CNN_GAP", epochs=1, class_weights=class_weights), quiet=True)
    labels = data.load(recipes.config_for("CNN_GAP")).corpus.labels
    assert given[0] is None and given[1].shape == (len(set(labels)),) and len(given[1].unique()) > 1


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_threads_and_bfloat16_are_those_asked_for():
    before = torch.get_num_threads()
    try:
        for threads in (2, 1):
            loops.set_arithmetic(recipes.config_for("GLAM", threads=threads))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    part = loops.Part(torch.randn(6, 3, 4), torch.arange(6), np.arange(6), torch.tensor([0, 1] * 3), np.arange(6))
    model, computed = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2)), []
    model.register_forward_hook(lambda module, given, logits: computed.append(logits.dtype))
    for amp in (False, True):
        config = recipes.config_for("GLAM", amp=amp)
        trainer = loops.Trainer(model, loops.make_optimizer(config, model), part, config)
        loss = trainer.step(torch.arange(6), 1.0, 0.0, None)
        assert loss.dtype == torch.float32 and not loss.requires_grad
        loops.evaluate(model, part, config)
    assert computed == [torch.float32] * 2 + [torch.bfloat16] * 2  # in training and in scoring
    assert loops.autocast(recipes.config_for("GLAM", amp=True, device="cuda")).fast_dtype == torch.bfloat16


def test_deterministic_is_asked_of_torch_and_memory_kept_on_a_cpu(monkeypatch):
    kept = []
    monkeypatch.setattr(loops.device, "keep_freed_memory", lambda: kept.append(True))
    for deterministic in (True, False):
        loops.set_arithmetic(recipes.config_for("GLAM", deterministic=deterministic))
        assert torch.are_deterministic_algorithms_enabled() == deterministic
        fast = (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32)
        assert fast == (not deterministic,) * 3 and not torch.utils.deterministic.fill_uninitialized_memory
    assert len(kept) == 2


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_run_computes_with_its_own_threads_and_determinism_and_gives_memory_back(here, deterministic, monkeypatch):
    threads, given_back = 1 + deterministic, []
    monkeypatch.setattr(loops.device, "give_back_memory", lambda: given_back.append(True))
    train.train(recipes.config_for("CNN_GAP", epochs=1, threads=threads, deterministic=deterministic), quiet=True)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == (threads, deterministic)
    assert given_back


@pytest.mark.parametrize("deterministic", [False, True])
def test_kernels_are_searched_for_at_full_batches_alone(here, deterministic, monkeypatch):
    """Last batches are of another size for nearly every seed: a search for each would cost more than it gains."""
    config = recipes.config_for("CNN_GAP", dataset="impro", seed=5, batch_size=4, deterministic=deterministic)
    d, searched = data.load(config), []
    part = loops.make_part(d.train, split_of(config).train[:8], d.corpus.labels, "cpu")
    assert len(part.rows) % 4
    model = models.of_run(config.model, d.shape, 4, config.head, config.attn_hidden)
    model.register_forward_pre_hook(lambda *_: searched.append(torch.backends.cudnn.benchmark))
    loops.set_arithmetic(config)
    trainer = loops.Trainer(model, loops.make_optimizer(config, model), part, config)
    loops.drain(trainer.epoch(0, np.random.RandomState(1)))
    full = [not deterministic] * (trainer.steps - 1)
    assert full and searched == [*full, False] and torch.backends.cudnn.benchmark != deterministic

    searched.clear()
    monkeypatch.setattr(loops, "EVALUATION_BATCH", 4)
    loops.evaluate(model, part, config)
    assert searched == [*full, False]
    searched.clear()
    monkeypatch.setattr(loops, "EVALUATION_BATCH", 1000)  # one batch of all is the same in every epoch
    loops.evaluate(model, part, config)
    assert searched == [not deterministic]


def test_a_run_that_diverges_says_so(here, command):
    words = ("--gpu", -1, "--model", "CNN_GAP", "--optimizer", "sgd", "--learning_rate", "1e30", "--epochs", 3)
    done = command("train.py", *words, "--quiet", status=2)
    assert "training diverged; try a smaller --learning_rate" in done.stderr and not list(here.rglob("done"))
    last = command(
        "train.py", *words[:-1], 1, "--batch_size", 100_000, "--quiet", status=2
    )  # one step: no loss shows it
    assert "training diverged" in last.stderr and not list(here.rglob("done"))


def test_a_feature_that_is_not_finite_is_not_called_a_learning_rate_too_high(here, monkeypatch):
    monkeypatch.setitem(features.FEATURES, "logs", lambda x: x.unfold(1, 800, 400).mT.mul(0).log())
    with pytest.raises(UserError, match="--feature logs gives values that are not finite"):
        train.train(recipes.config_for("CNN_GAP", dataset="impro", epochs=1, feature="logs"), quiet=True)


def test_a_loss_that_is_no_number_stops_a_run_whose_outputs_are_some(here, monkeypatch):
    def epoch(*given):
        yield
        return float("inf")

    monkeypatch.setattr(loops.Trainer, "epoch", epoch)
    with pytest.raises(UserError, match="epoch 1, loss inf: training diverged"):
        train.train(recipes.config_for("CNN_GAP", dataset="all", epochs=1, threads=1), quiet=True)


def test_outputs_of_any_part_and_epoch_that_are_no_numbers_stop_a_run(here, monkeypatch):
    real, scored = loops.evaluation, []

    def evaluation(*given):
        scored.append((yield from real(*given)))
        return scored[-1] * (np.nan if len(scored) == 4 else 1)  # of the test part, in the second epoch

    monkeypatch.setattr(loops, "evaluation", evaluation)
    with pytest.raises(UserError, match=r"epoch 2, loss \d.*: training diverged"):
        train.train(recipes.config_for("CNN_GAP", dataset="all", split="8:1:1", epochs=3, threads=1), quiet=True)


def test_heard_is_what_trained_and_what_an_epoch_was_chosen_by():
    train_part, val, test = (np.array([i]) for i in (2, 1, 0))
    d = SimpleNamespace(contents=[letter * 64 for letter in "abc"])
    for parts, rule, heard in (
        (data.Parts(train_part, val, test), "validation", "bc"),
        (data.Parts(train_part, None, test), "last", "c"),
        (data.Parts(train_part, val, test), "paper", "abc"),
    ):
        assert train.heard_digests(d, parts, rule) == " ".join(letter * data.HEARD for letter in heard)


def test_a_finished_run_is_told_under_each_rule_its_split_allows(tmp_path, capsys):
    right = ((0, 1), [(0, 0), (0, 1), (1, 0)])  # on the validation part the second epoch, on the test part the first
    folder = make_run(tmp_path, [(0, 1), (0, 0), (1, 0)], (0, 1), split="8:1:1", val=right)
    train.print_result(folder)
    told = capsys.readouterr().out
    whole, others = told.split("confusion")  # the first rule's table, then a line for each other rule
    assert "epoch 2 (rule validation)" in whole and "SYNTHETIC" not in whole and "rule last: epoch 3: WA 0.0" in others
    assert "WA 50.0" in others and "rule validation" not in others
    assert "rule paper: epoch 1 (chosen on the test set: optimistic): WA 100.0" in others
    train.print_result(make_run(tmp_path, [(0, 1), (0, 0), (1, 0)], (0, 1)))
    told = capsys.readouterr().out
    assert "epoch 3 (rule last)" in told and "rule validation" not in told and "rule paper: epoch 1 (" in told


@pytest.mark.parametrize(("by", "now", "other"), [("a", "b", True), ("a", "a", False), ("a", None, False)])
def test_other_code_is_told_of_where_it_is_known_to_be(by, now, other, tmp_path, monkeypatch, capsys):
    folder = make_run(tmp_path, [(0, 1)], (0, 1))
    edit(folder / "config.json", commit=by)
    monkeypatch.setattr(train, "commit", lambda: now)
    train.say_finished(folder)
    assert ("by other code than now (commit a)" in capsys.readouterr().out) == other


@pytest.mark.parametrize(("name", "rows"), [("AACNN", 128), ("APCNN", 400)])
def test_models_train_on_their_own_features_with_their_own_augmentation(here, name, rows):
    """AACNN: mel spectrograms, and warped copies; APCNN: spectrograms."""
    config = recipes.config_for(name, dataset="all", epochs=1, batch_size=16, threads=1)
    run = json.loads((train.train(config, quiet=True) / "config.json").read_text())
    assert run["shape"][0] == rows and run["changed"] == {"epochs": 1, "batch_size": 16}


def test_one_run_from_the_command_line(here, command):
    done = command("train.py", *SMALL, "--dataset", "script", "--save_model")
    (folder,) = [marker.parent for marker in here.rglob("done")]
    assert folder.relative_to(here).parts[:3] == ("script", "8-2", "MACNN")
    assert folder.name == "1"
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["epochs"] == 2
    assert config["changed"] == SETTINGS
    assert {*config["versions"]} == {"python", "torch", "numpy", "g-mlp-pytorch", "soundfile", "soxr"}
    network = models.create_model("MACNN", tuple(config["shape"]), heads=2, attn_hidden=32)
    assert config["params"] == sum(p.numel() for p in network.parameters())
    assert config["synthetic"]
    split = json.loads((folder / "split.json").read_text())
    assert split["digest"] == config["split_digest"] == files.digest_of([split["train"], split["val"], split["test"]])
    records = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
    assert [record["lr"] for record in records] == pytest.approx([1e-3, 0.95e-3])  # those trained with
    assert all(record["seconds"] > 0 for record in records)
    with np.load(folder / "predictions.npz", allow_pickle=False) as predictions:
        assert predictions["test_logits"].shape == (2, config["n_test"], 4)
        assert predictions["test_names"].tolist() == split["test"]
        for record, logits in zip(records, predictions["test_logits"], strict=True):
            assert record["test"] == metrics.scores(logits, predictions["test_labels"])
    assert sorted(f.name for f in folder.iterdir() if f.name not in ("lock", "checkpoint")) == [
        "config.json",
        "done",
        "epochs.jsonl",
        "predictions.npz",
        "split.json",
    ]
    assert {"model.safetensors", "config.json"} <= {f.name for f in (folder / "checkpoint").iterdir()}
    for word in ("neutral", "happy", "precision", "confusion", "weighted F1", "SYNTHETIC", "dropped", "optimistic"):
        assert word in done.stdout, word
    assert f"\n{config['params']:,} parameters" in done.stdout

    # standard error is no terminal here: a line an epoch, not a bar
    told = [line for line in done.stderr.splitlines() if ": epoch " in line]
    assert len(told) == config["settings"]["epochs"] and "\r" not in done.stderr
    last, score = json.loads((folder / "epochs.jsonl").read_text().splitlines()[-1]), "loss={:.3f}, test WA={:.1f}"
    assert f": epoch {len(told)} of {len(told)}, {score.format(last['train_loss'], last['test']['WA'])}" in told[-1]

    again = command("train.py", *SMALL, "--dataset", "script", "--save_model")
    assert ": epoch " not in again.stderr  # nothing is trained twice


@pytest.mark.parametrize(("split", "fold"), [("8:2", None), ("8:1:1", None), ("dialog", None), ("session", 3)])
def test_a_run_is_of_the_parts_of_its_own_split_seed_and_fold(here, split, fold, monkeypatch):
    trained, real = [], graphs.make_trainer
    monkeypatch.setattr(graphs, "make_trainer", lambda *words: trained.append(words) or real(*words))
    config = recipes.config_for("CNN_GAP", dataset="all", split=split, fold=fold, seed=5, epochs=1, threads=1)
    folder, d = train.train(config, quiet=True), data.load(config)
    whole = d.corpus.utterances
    parts = data.SPLITS[split](whole, 5, fold)
    model, _, part, *_ = trained[0]
    assert all(p.is_contiguous(memory_format=torch.channels_last) for p in model.parameters() if p.dim() == 4)
    assert part.utterances.tolist() == parts.train.tolist()
    assert part.rows.tolist() == d.train.rows(parts.train)[0].tolist()
    assert json.loads((folder / "split.json").read_text()) == data.split_record(whole, parts)
    with np.load(folder / "predictions.npz") as predictions:
        for name, rows in {"val": parts.val, "test": parts.test}.items():
            if rows is not None:
                assert predictions[f"{name}_names"].tolist() == [whole[i].name for i in rows]


def test_a_quiet_run_leaves_nothing_on_the_terminal(here):
    words = ("--dataset", "all", "--model", "CNN_GAP", "--epochs", 1, "--gpu", -1, "--threads", 1, "--train_overlap", 0)
    lines = at_a_terminal("train.py", *words, "--augment", "vtlp", "--quiet")
    assert not [line for line in lines if line and not line.startswith("warning: ")]


def test_a_runs_bar_shows_validation_scores_where_there_are_some(here):
    words = ("--dataset", "all", "--model", "CNN_GAP", "--epochs", 1, "--gpu", -1, "--threads", 1)
    for split, shown, hidden in (("8:1:1", "val WA=", "test WA="), ("8:2", "test WA=", "val WA=")):
        lines = "\n".join(at_a_terminal("train.py", *words, "--split", split))
        assert shown in lines and hidden not in lines and "epoch 1 of 1" not in lines, "a bar, and no lines of a log"


def test_after_all_folds_their_scores_together_are_told_and_the_command_for_them(
    here, command, tmp_path, monkeypatch, capsys
):
    runs = tmp_path / "own runs"
    words = ("--dataset", "all", "--model", "CNN_GAP", "--epochs", 1, "--alpha", 0.5, "--gpu", -1, "--threads", 1)
    words = ["train.py", *map(str, words), "--split", "session", "--runs", str(runs)]
    for more in (["--fold", "0"], ["--quiet"], []):
        monkeypatch.setattr(sys, "argv", [*words, *more])
        train.main()
        told = capsys.readouterr().out
        assert ("report.py" in told) == (more == [])
    title, *scores, line = told.splitlines()[-4:]
    assert told.count("report.py") == 1 and line.startswith("their table: python report.py ")
    rows = [*csv.DictReader(command(*shlex.split(line)[3:], "--format", "csv").stdout.splitlines())]
    assert {(row["changed"][:10], row["rule"], row["n"]) for row in rows} == {("alpha=0.5,", "validation", "1")}
    assert title == f"all 5 folds together, {rows[0]['utterances']} test utterances, rule validation, SYNTHETIC corpus"
    for which, said in zip(("pooled", "averaged"), scores, strict=True):
        told = [float(number) for number in re.findall(r"\d+\.\d\d", said)]
        assert told == pytest.approx([float(row["mean"]) for row in rows if row["folds"] == which], abs=0.006)


def test_folds_of_a_split_without_validation_are_told_by_the_last_epoch(tmp_path, capsys):
    """Nor does the command that is told choose an epoch on the test set."""
    folders = [make_run(tmp_path, [(0, 1), (0, 0)], (0, 1), split="text", fold=fold, folds=2) for fold in (0, 1)]
    train.print_folds(folders, {"runs": tmp_path})
    *_, title, pooled, _, command = capsys.readouterr().out.splitlines()
    assert title.endswith("test utterances, rule last") and "WA 50.00" in pooled
    assert command.endswith(f"--model GLAM --rule last --runs {tmp_path}")


HELP = {  # script -> words that its help has, among others
    "train.py": (),
    "report.py": ("--audit",),
    "sweep.py": (),
    "predict.py": ("python predict.py FOLDER", "--timeline", "softmax", "exit status"),
    "evaluate.py": (),
    "export.py": ("--waveform", "metadata"),
    "handleIEMOCAP.py": (),
}


@pytest.mark.parametrize(("script", "words"), HELP.items(), ids=HELP)
def test_help_teaches_without_the_slow_imports(script, words):
    command = [sys.executable, "-X", "importtime", script, "--help"]
    before = os.times()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    after = os.times()  # the processor's time, as other work on a machine takes none of it
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1
    assert all(each in done.stdout for each in ("usage:", f"python {script}", *words))
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"torch", "librosa", "pandas", "matplotlib", "scipy", "sklearn"}


def test_the_recorded_rate_is_that_of_an_epochs_first_step_and_its_seconds_its_own(here):
    config = recipes.config_for("CNN_GAP", dataset="script", epochs=2, lr_decay=0.1, lr_schedule="none", threads=1)
    begun = time.perf_counter()
    folder = train.train(config, quiet=True)
    assert sum(record["seconds"] for record in records.read_epochs(folder)) < time.perf_counter() - begun
    d = data.load(config)
    segments = len(loops.training_part(d, split_of(config).train, config).rows)
    first, second = (record["lr"] for record in records.read_epochs(folder))
    assert (first, second) == pytest.approx((1e-3, 1e-3 / (1 + 0.1 * -(-segments // config.batch_size))))


def test_a_rate_that_is_a_tensor_is_changed_in_place():
    """A CUDA graph reads it where it was."""
    rate = torch.tensor(0.1)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    for new in (0.5, torch.tensor(0.25)):
        loops.set_rate(optimizer, new)
        assert optimizer.param_groups[0]["lr"] is rate and rate == new


@pytest.mark.parametrize("alias", ["MHCNN", "CNN_AttnPooling", "MAResMultiConv3"])
def test_a_model_by_another_name_does_not_get_anothers_recipe(alias, here):
    with pytest.raises(UserError, match=f"{alias} is another name of {models.canonical(alias)}: config_for"):
        train.train(recipes.config_for(alias, epochs=1), quiet=True)
    assert not here.exists()


def test_the_commit_of_a_run_is_of_the_code_that_trains_it(tmp_path, monkeypatch):
    def git(*words):
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True)

    def now():
        train.commit.cache_clear()  # as another process
        return train.commit()

    git("init")
    for name in ("path.py", "train.py"):
        (tmp_path / name).write_text("IEMOCAP = 1")
    git("add", ".")
    git("commit", "-m", "one")
    git("config", "status.showUntrackedFiles", "no")  # as some have it for all their repositories
    monkeypatch.setattr(path, "ROOT", tmp_path)
    monkeypatch.delenv("GLAM_COMMIT", raising=False)
    at_first = now()
    git("commit", "--allow-empty", "-m", "two")  # while a sweep goes on
    assert train.commit() == at_first and len(at_first) == 40
    at_second = now()
    assert at_second not in (at_first, None)
    index = tmp_path / ".git" / "index"
    written = index.stat().st_ctime_ns
    os.utime(tmp_path / "train.py", (0, 0))  # which git would note in its index, with a lock that a kill leaves
    assert now() == at_second and index.stat().st_ctime_ns == written
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))  # where there is no git
        assert now() is None
    (tmp_path / "new.txt").write_text("")
    (tmp_path / "path.py").write_text("IEMOCAP = 2")  # where the corpus is
    assert now() == at_second
    (tmp_path / "results.json").write_text("{}")
    git("add", "results.json")
    assert now() == at_second, "what is no module shapes no run"
    (tmp_path / "env" / "lib").mkdir(parents=True)
    (tmp_path / "env" / "lib" / "package.py").write_text("")
    assert now() == at_second, "nor does an environment's package"
    for folder in ("models", "corpora", "."):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "mine.py").write_text("")
        assert now() == f"{at_second}-dirty", "a model, a corpus or another module that the commit does not hold"
        (tmp_path / folder / "mine.py").unlink()
    (tmp_path / "train.py").write_text("IEMOCAP = 2")
    assert now() == f"{at_second}-dirty"
    git("add", ".")
    assert now() == f"{at_second}-dirty"
    copy = tmp_path / "vendor" / "glam"  # in a repository that is not its own
    copy.mkdir(parents=True)
    (copy / "train.py").write_text("")
    monkeypatch.setattr(path, "ROOT", copy)
    assert now() is None
    real, asked = subprocess.run, []
    monkeypatch.setattr(subprocess, "run", lambda words, **kwargs: asked.append(words) or real(words, **kwargs))
    assert now() is None and f"safe.directory={copy}" in asked[0], "no other owner's repository above it is trusted"
    monkeypatch.setattr(subprocess, "run", real)
    monkeypatch.setenv("GLAM_COMMIT", "of a copy")
    assert now() == "of a copy"
    monkeypatch.setenv("GLAM_COMMIT", "")
    assert now() is None, "nor is it known of the copy"
    train.commit.cache_clear()


def test_models_are_listed(command):
    out = command("train.py", "--list_models").stdout
    assert [line.split(maxsplit=1)[0] for line in out.splitlines()] == ["--model", *models.list_models()]
    assert "in the paper's tables" in out.splitlines()[0]
