"""Every command of the README, run in a fresh copy of the repository; long ones are shortened by flags."""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from made_checkpoints import CLASSES, make_checkpoint
from torch.utils.flop_counter import FlopCounterMode

import data
import features
import models
import recipes
import tables
from cli import UserError
from corpora import Utterance
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines() if line.strip()]
SHORTER = [  # a command that begins so: what is added, and what follows a number of seeds becomes 1
    ("bash scripts/demo", "--epochs 1 --seeds 1"),
    ("bash scripts/test", "tests/test_seeds.py"),
    ("python train.py --list", ""),
    ("python train.py", "--epochs 1 --batch_size 64 --gpu -1"),
    ("bash run", "--epochs 1"),
    ("bash scripts/GLAM", "--epochs 1"),
    ("bash scripts/ablation", "--dry_run"),
    ("bash scripts/", "--dry_run"),  # tables: hundreds of runs
    ("python sweep.py", "--epochs 1 --dry_run"),
    ("pip install", "--dry-run --quiet"),
    ("python app.py", "--help"),  # serves until it is stopped: the browser test does that
]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, small_release):
    """A copy of what git would hand out, with a recording, a folder of recordings and a CSV corpus beside it."""
    copy = tmp_path_factory.mktemp("readme") / "GLAM"
    words = ["git", "-c", f"safe.directory={ROOT}", "ls-files"]  # whoever owns it
    tracked = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, tracked):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    (copy / ".venv").symlink_to(sys.prefix)
    (copy / "recordings").mkdir()
    rng = np.random.default_rng(0)
    rows = ["path,emotion,speaker"]
    for i in range(24):
        name = f"recordings/{i}.wav"
        soundfile.write(copy / name, 0.1 * rng.standard_normal(40000), 16000)
        rows.append(f"{name},{('sad', 'angry', 'happy')[i % 3]},s{i % 4}")
    (copy / "my_corpus.csv").write_text("\n".join(rows) + "\n")
    shutil.copy(copy / "recordings" / "0.wav", copy / "recording.wav")
    return copy


def shortened(command: str) -> str:
    """The command with its seeds cut to one and the flags of SHORTER added."""
    extra = next((flags for start, flags in SHORTER if command.startswith(start)), "")
    command = re.sub(r"^(bash (?:run|scripts/\w+) 0) \d+", r"\1 1", command)
    return f"{command} {extra}".strip()


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme(command, checkout, small_release, request):
    environment = {**os.environ, "IEMOCAP": str(small_release), "GLAM_RUNS": str(checkout / "runs"),
                   "GLAM_CACHE": str(checkout / "cache"), "VIRTUAL_ENV": sys.prefix,
                   "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}  # fmt: skip
    if "emodb" in command:
        environment["EMODB"] = str(request.getfixturevalue("emodb"))
    if "--split speaker" in command and "--fold" not in command:
        command += " --fold 0"
    done = subprocess.run(
        ["bash", "-c", shortened(command)], cwd=checkout, env=environment, capture_output=True, text=True,
        stdin=subprocess.DEVNULL, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, f"{shortened(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr


def test_every_script_and_file_named_in_the_readme_exists():
    for name in re.findall(r"`((?:[\w/]+\.(?:py|md|txt|json|csv))|(?:scripts/\w+)|(?:\w+/))`", README):
        if not name.startswith(("models/mine", "checkpoint")) and name not in NOT_OURS:
            assert (ROOT / name).exists(), name


NOT_OURS = {"config.json", "split.json", "glam.py", "cnn.py", "layers.py"}  # of a run folder, of models/


def test_the_model_of_the_readme_in_under_thirty_lines(checkout, small_release):
    """The example under "Add a model", put where it says, trains, is listed and has its gradient checked."""
    (example,) = re.findall(r"```python\n(# models/mine.py\n.*?)```", README, re.DOTALL)
    assert len(example.splitlines()) < 30
    (checkout / "models" / "mine.py").write_text(example)
    environment = {
        **os.environ,
        "IEMOCAP": str(small_release),
        "GLAM_RUNS": str(checkout / "own"),
        "GLAM_CACHE": str(checkout / "cache"),
    }

    def run(*words):
        done = subprocess.run([sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Mine" in run("train.py", "--list_models")
    assert "WA" in run("train.py", "--model", "Mine", "--epochs", "2", "--gpu", "-1")
    every = [f"tests/test_{what}.py" for what in ("models", "turns", "checkpoint", "export")]
    tests = run("-m", "pytest", *every, "-k", "Mine", "-p", "no:cacheprovider")
    assert re.search(r"[1-9]\d* passed", tests)
    (checkout / "models" / "mine.py").unlink()


def test_the_split_of_the_readme(monkeypatch):
    """The example under "Add a split", in data.py, leaves out each sentence once."""
    (example,) = re.findall(r"```python\n(# data.py\n.*?)```", README, re.DOTALL)
    monkeypatch.setattr(data, "SPLITS", {**data.SPLITS})
    monkeypatch.setattr(data, "_text", None, raising=False)
    exec(compile(example, "README.md", "exec"), vars(data))
    utterances = [Utterance(f"u{i}", f"u{i}.wav", "A", "", f"text{i % 4}", "", "n") for i in range(20)]
    split = data.SPLITS["text"]
    assert split.folds is not None and split.folds(utterances) == 4
    tested = []
    for fold in range(4):
        parts = split(utterances, seed=1, fold=fold)
        assert parts.val is not None
        texts = [{utterances[i].dialog for i in part} for part in (parts.train, parts.val, parts.test)]
        assert [len(part) for part in texts] == [2, 1, 1] and len(set.union(*texts)) == 4
        tested += parts.test.tolist()
    assert sorted(tested) == list(range(20))
    data.split("leaky")(lambda utterances, seed, fold: data.Parts(np.arange(15), None, np.arange(14, 20)))
    with pytest.raises(UserError, match="--split leaky: its function puts an utterance into two parts"):
        data.SPLITS["leaky"](utterances, seed=1)


def test_the_feature_of_the_readme(checkout, small_release):
    """The example under "Add a feature", at the end of features.py, is found by name and trained on."""
    (example,) = re.findall(r"```python\n(# features.py\n.*?)```", README, re.DOTALL)
    whole = (checkout / "features.py").read_text()
    (checkout / "features.py").write_text(f"{whole}\n\n{example}")
    environment = {
        **os.environ,
        "IEMOCAP": str(small_release),
        "GLAM_RUNS": str(checkout / "feature"),
        "GLAM_CACHE": str(checkout / "cache"),
    }
    words = ["train.py", "--model", "CNN_GAP", "--feature", "logstft", "--epochs", "1", "--gpu", "-1"]
    done = subprocess.run([sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (config,) = (checkout / "feature").rglob("config.json")
    assert json.loads(config.read_text())["shape"] == [257, 126]  # 2 s
    (checkout / "features.py").write_text(whole)


def test_the_library_of_the_readme(tmp_path, monkeypatch, capsys):
    """The lines under "Use it on a recording", where a recording and a checkpoint are as the commands leave them."""
    (example,) = (text for text in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "inference." in text)
    make_checkpoint(tmp_path / "runs" / "demo" / "8-1-1" / "GLAM" / "0123456789ab" / "1" / "checkpoint")
    soundfile.write(tmp_path / "recording.wav", np.random.default_rng(0).normal(0, 0.1, 40000), 16000)
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(compile(example, "README.md", "exec"), found)
    label, probabilities = capsys.readouterr().out.split("\n", 1)
    numbers = [float(number) for number in probabilities.strip().strip("[]").split()]
    assert label in CLASSES and len(numbers) == 4 and sum(numbers) == pytest.approx(1, abs=1e-6)
    shapes = re.search(r"# \(B, (.*)\) -> \(B, (\d)\)", example)
    assert shapes is not None
    into = (2, *map(int, shapes[1].split(", ")))
    with torch.inference_mode():
        assert found["model"](torch.zeros(into)).shape == (2, int(shapes[2]))


def test_the_corpus_of_the_readme(checkout):
    """The module under "Train it on your corpus" and its line of path.py, put where they say, are a dataset."""
    (example,) = re.findall(r"```python\n(# corpora/mine.py\n.*?)```", README, re.DOTALL)
    (line,) = re.findall(r"`(MINE = [^`]*)`", README)
    whole = (checkout / "path.py").read_text()
    folder = checkout / "its folder"
    folder.mkdir()
    for name in ("anna_12_a", "anna_13_n", "bert_12_n"):
        soundfile.write(folder / f"{name}.wav", np.zeros(160), 16000)
    asks = (
        "import data; c = data.corpus('mine');"
        "print(c.name, *c.classes, *(c.classes[y] + u.speaker + u.dialog for u, y in zip(c.utterances, c.labels)))"
    )
    environment = {key: value for key, value in os.environ.items() if key != "MINE"}
    try:
        (checkout / "path.py").write_text(f"{whole}{line}\n")
        (checkout / "corpora" / "mine.py").write_text(example)
        words = [sys.executable, "-c", asks]
        done = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True)
    finally:
        (checkout / "path.py").write_text(whole)
        (checkout / "corpora" / "mine.py").unlink(missing_ok=True)
    assert done.stdout.strip() == "My corpus neutral angry angryanna12 neutralanna13 neutralbert12", done.stderr


def inline(start):
    """The commands in the text, not in a block, that begin so."""
    return re.findall(rf"`({start}[^`]*)`", " ".join(README.split()))


def listed(command, checkout, **variables):
    """The runs that a command lists under --dry_run: their state and what each is."""
    environment = {**os.environ, "GLAM_CACHE": str(checkout / "cache"), "VIRTUAL_ENV": sys.prefix, **variables}
    words = ["bash", "-c", f"{command} --dry_run"]
    done = subprocess.run(words, cwd=checkout, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr[-2000:]
    states = "done|started|missing|repeat|stale"
    return re.findall(rf"^({states}) +(.+)$", done.stdout, re.MULTILINE)


@pytest.mark.slow
def test_all_tables_lists_the_runs_that_the_readme_says(checkout, small_release):
    (command,) = inline("bash scripts/all_tables")
    command = command.replace("[gpu]", "-1").replace("[n]", "1")
    found = listed(command, checkout, IEMOCAP=str(small_release), GLAM_RUNS=str(checkout / "none"))
    runs = {run for state, run in found if state == "missing"}
    whole = sum(" fold " not in run for run in runs)
    folds = {
        split: sum(bool(re.search(rf" {split} .* fold 0\b", run)) for run in runs) for split in ("session", "speaker")
    }
    more = 5 * folds["session"] + 10 * folds["speaker"]  # of IEMOCAP; the small release lacks a speaker in some
    said = " ".join(README.split())
    assert whole and more and f"one seed is {whole} runs for the published tables" in said
    assert f"and {more} more with sessions or speakers left out" in said
    assert f"by default trains 5 seeds, {5 * (whole + more):,} runs" in said


def operations(model, dataset, split):
    """Floating-point operations of all folds of a run on IEMOCAP, whose utterances last 4.55 s in the mean."""
    config = recipes.config_for(model)
    utterances = {"impro": 2236, "script": 2075, "all": 4311}[dataset]
    folds, trained, tested = {"8:2": (1, 0.8, 0.2), "session": (5, 0.6, 0.4), "speaker": (10, 0.8, 0.2)}[split]
    segments = [
        1 + (4.55 - config.segment_length) / (config.segment_length - overlap)  # of an utterance
        for overlap in (config.train_overlap, config.test_overlap)
    ]
    copies = 2 if config.augment == "vtlp" else 1
    forward, training = operations_of_a_segment(model, config)
    epoch = copies * trained * segments[0] * training + tested * segments[1] * forward
    return folds * config.epochs * utterances * epoch


@functools.cache
def operations_of_a_segment(model, config):
    silence = np.zeros((1, int(config.segment_length * 16000)), np.float32)
    shape = tuple(features.extract(config.feature, silence).shape[1:])
    with FlopCounterMode(display=False) as counter:
        out = models.create_model(model, shape)(torch.randn(1, 1, *shape).expand(2, -1, -1, -1))  # batch norm needs two
        forward = counter.get_total_flops() / 2
        out.sum().backward()
    return forward, counter.get_total_flops() / 2


def test_the_hours_on_a_gpu_are_those_of_the_measured_rate():
    said = " ".join(README.split())
    (an_hour,) = map(int, re.findall(r"one H100 trained GLAM at a rate of (\d+) seeds an hour", said))
    runs = {
        (spec.model, spec.dataset, spec.split.replace("8:1:1", "8:2"), str(spec.changed))  # 8:1:1 trains as 8:2
        for table in tables.TABLES.values()
        for spec in table.row_specs()
    }
    glam = operations("GLAM", "impro", "8:2")
    hours = {"8:2": 0.0, "session": 0.0, "speaker": 0.0}
    for model, dataset, split, _ in runs:
        hours[split] += operations(model, dataset, split) / glam / an_hour
    whole, folds = hours["8:2"], hours["session"] + hours["speaker"]
    assert 0.4 < whole < 0.6 and "a seed of the published tables takes half an hour" in said
    assert 3.5 < folds < 4.5 and "its runs with sessions and speakers left out take four hours more" in said
    assert 20 < 5 * (whole + folds) < 28 and "all 1,020 runs take a day" in said
    assert 1.5 < 100 / an_hour < 2.5 and "a hundred seeds would take two hours" in said


@pytest.mark.slow
def test_emodb_tables_trains_no_run_again_but_for_weights(checkout, emodb):
    (command,) = inline("bash scripts/emodb_tables")
    found = listed(command.replace("EMODB_DIR", str(emodb)), checkout)
    again = [run.split()[0] for state, run in found if state == "repeat"]
    assert sorted(again) == ["AACNN", "GLAM", "MACNN", "ResMultiConv3"]
    assert {state for state, _ in found} <= {"done", "missing", "repeat"}
    assert sum(state == "done" for state, _ in found) > 100


def test_the_readme_has_the_original_pages_commands():
    names = "GLAM GLAM_script GLAM_all MACNN MACNN_script MACNN_all attnpooling attnpooling_script attnpooling_all"
    for name in [*names.split(), "ResMultiConv3", "MHResMultiConv3", "AAResMultiConv3", "MHCNN"]:
        assert f"scripts/{name}`" in README, name
