"""Every command of the README, run in a fresh copy of the repository; long ones are shortened by flags."""

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

import data
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
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split(
        "\n"
    )
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
    environment = {**os.environ, "IEMOCAP": str(small_release), "GLAM_RUNS": str(checkout / "own"),
                   "GLAM_CACHE": str(checkout / "cache")}  # fmt: skip

    def run(*words):
        done = subprocess.run([sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "Mine" in run("train.py", "--list_models")
    assert "WA" in run("train.py", "--model", "Mine", "--epochs", "2", "--gpu", "-1")
    tests = run("-m", "pytest", "tests/test_models.py", "-k", "Mine", "-p", "no:cacheprovider")
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
    environment = {**os.environ, "IEMOCAP": str(small_release), "GLAM_RUNS": str(checkout / "feature"),
                   "GLAM_CACHE": str(checkout / "cache")}  # fmt: skip
    words = ["train.py", "--model", "CNN_GAP", "--feature", "logstft", "--epochs", "1", "--gpu", "-1"]
    done = subprocess.run([sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (config,) = (checkout / "feature").rglob("config.json")
    assert json.loads(config.read_text())["shape"] == [257, 126]  # 2 s
    (checkout / "features.py").write_text(whole)


def test_the_readme_has_the_original_pages_commands():
    names = "GLAM GLAM_script GLAM_all MACNN MACNN_script MACNN_all attnpooling attnpooling_script attnpooling_all"
    for name in [*names.split(), "ResMultiConv3", "MHResMultiConv3", "AAResMultiConv3", "MHCNN"]:
        assert f"scripts/{name}`" in README, name
