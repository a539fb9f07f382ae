"""The original's commands by name, from where its page says they can be run, and two at once."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

NAMED = {  # as on the original's page (AACNN added): model, dataset
    "GLAM": ("GLAM", "impro"), "GLAM_script": ("GLAM", "script"), "GLAM_all": ("GLAM", "all"),
    "MACNN": ("MACNN", "impro"), "MACNN_script": ("MACNN", "script"), "MACNN_all": ("MACNN", "all"),
    "attnpooling": ("APCNN", "impro"), "attnpooling_script": ("APCNN", "script"), "attnpooling_all": ("APCNN", "all"),
    "AACNN": ("AACNN", "impro"), "AACNN_script": ("AACNN", "script"), "AACNN_all": ("AACNN", "all"),
    "ResMultiConv3": ("ResMultiConv3", "impro"), "MHResMultiConv3": ("MHResMultiConv3", "impro"),
    "AAResMultiConv3": ("AAResMultiConv3", "impro"), "MHCNN": ("MACNN", "impro"),
}  # fmt: skip


@pytest.mark.parametrize("name", NAMED)
def test_a_script_asks_for_its_model_and_data(here, command, name):
    model, dataset = NAMED[name]
    out = command("bash", f"scripts/{name}", -1, 1, 0.3, "--dry_run").stdout
    assert out.splitlines()[0].split()[:6] == ["missing", model, dataset, "8:2", "seed", "2602656884"]
    assert "alpha=0.3" in out


def test_whoever_gives_a_scripts_own_flag_is_right(here, command):
    out = command("bash", "scripts/AACNN_script", -1, 1, "--dataset", "demo", "--dry_run").stdout
    assert out.splitlines()[0].split()[:3] == ["missing", "AACNN", "demo"]


def test_a_script_trains_from_the_root_from_scripts_and_moved_to_the_root(here, command, tmp_path):
    """Seeds are taken up in the order of seeds.txt, one a command."""
    quick = (-1, 1, "--epochs", 1, "--feature", "mfcc", "--quiet")
    command("bash", "scripts/MHCNN", *quick)
    command("bash", "MHCNN", *quick, cwd=ROOT / "scripts")
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "cache", "results", ".*_cache"))
    shutil.move(copy / "scripts" / "MHCNN", copy / "MHCNN")
    (copy / ".venv").symlink_to(sys.prefix)
    command("./MHCNN", *quick, cwd=copy)
    seeds = [int(s) for s in (ROOT / "seeds.txt").read_text().split()[:3]]
    assert sorted(int(marker.parent.name) for marker in here.rglob("done")) == sorted(seeds)


def test_run_trains_the_next_seeds_in_one_process(here, command):
    quick = ("--model", "CNN_GAP", "--dataset", "script", "--epochs", 1, "--quiet")
    command("bash", "run", -1, 2, *quick)
    assert len(list(here.rglob("done"))) == 2
    command("bash", "run", -1, *quick)
    assert len(list(here.rglob("done"))) == 3


def test_two_runs_at_once_share_the_work(here):
    words = ["bash", "run", "-1", "3", "--model", "CNN_GAP", "--dataset", "script", "--epochs", "3"]
    both = [
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert len(list(here.rglob("done"))) == 3
    for folder in (marker.parent for marker in here.rglob("done")):
        records = [json.loads(line) for line in (folder / "epochs.jsonl").read_text().splitlines()]
        assert [record["epoch"] for record in records] == [1, 2, 3]


TABLES = ("ablation", "alpha", "comparison", "protocols", "speaker_independent", "split811")
HELP = {
    name: f"bash scripts/{name}" for name in ("all_tables", "demo", "emodb_report", "emodb_tables", "setup", "test")
}
HELP |= {name: f"bash scripts/{name} [gpu] [n] [flags]:" for name in TABLES}
HELP |= {"table": "bash scripts/table NAME [gpu] [n] [flags]:"}
HELP |= dict.fromkeys(("../run", *NAMED), "bash run [gpu] [n] [alpha] [flags]:")


@pytest.mark.parametrize("name", HELP)
def test_the_help_of_a_script_is_all_it_does(name, tmp_path):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    shutil.copy(ROOT / "run", tmp_path)
    environment = {"PATH": "/usr/bin:/bin"}  # no environment is active: what installs would make one
    words = ["bash", f"scripts/{name}", "--help"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith(HELP[name]) and not done.stderr, done
    assert ("python sweep.py --help lists them" in done.stdout) == ("[flags]" in HELP[name])
    if name in NAMED:
        assert "\nHere: --model " in done.stdout and done.stdout.endswith(f" --dataset {NAMED[name][1]}\n")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run", "scripts"]


@pytest.mark.parametrize("words", [("all_tables", -1), ("emodb_tables", "scripts", -1), ("demo", "--epochs", 1)])
def test_help_behind_other_words_is_all_it_does_too(words, tmp_path):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    words = ["bash", f"scripts/{words[0]}", *map(str, words[1:]), "--help"]
    done = subprocess.run(
        words, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0 and done.stdout.startswith(f"bash {words[1]}") and not done.stderr, done


@pytest.mark.parametrize("words", [("all_tables", -1, 101), ("emodb_tables", "{wav}", -1, 101)])
def test_a_wrong_number_of_seeds_shows_before_anything_is_trained(words, here, command, tmp_path):
    told = command("bash", *(str(w).format(wav=tmp_path) for w in (f"scripts/{words[0]}", *words[1:])), status=2)
    assert told.stderr.count("101 seeds are asked for, and seeds.txt has 100") == 1 and not told.stdout


def test_alpha_may_be_written_with_an_exponent(here, command):
    told = command("bash", "run", -1, 1, "1e-3", "--model", "CNN_GAP", "--dataset", "demo", "--dry_run").stdout
    assert "alpha=0.001" in told


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("scripts/comparison", -1, 1, "--dataset", "a, b.csv"), "error: --dataset a, b.csv: tables take names with"),
        (("scripts/demo", "--runs", "x"), "error: --runs: the report needs it too"),
        (("run", "x"), "error: x: no flag; the arguments are [gpu] [n] [alpha] [flags]"),
        (("scripts/MACNN_all", -1, 1, 0.3, 4), "error: 4: no flag; the arguments are [gpu] [n] [alpha] [flags]"),
        (("scripts/comparison", -1, 1, 0.3), "error: 0.3: no flag; the arguments are [gpu] [n] [flags]"),
    ],
)
def test_an_argument_too_many_is_told_how_a_script_is_called(command, words, says):
    assert command("bash", *words, status=2).stderr.startswith(says)


def test_emodb_tables_go_on_after_a_run_that_fails(tmp_path):
    shutil.copytree(ROOT / "scripts", tmp_path / "scripts")
    (tmp_path / "wav").mkdir()
    (tmp_path / "bin").mkdir()
    stub = tmp_path / "bin" / "python"
    stub.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncase "$*" in *--amp*) exit 1;; esac\n')
    stub.chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "VIRTUAL_ENV": str(tmp_path)}
    words = ["bash", "scripts/emodb_tables", str(tmp_path / "wav")]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    asked = (tmp_path / "asked").read_text()
    assert done.returncode == 1, done
    assert asked.index("--amp") < asked.index("--models APCNN") < asked.index("report.py --table comparison")
    assert "report.py --runs results/emodb/runs --audit" in asked


def test_an_environment_that_was_left_half_made_is_completed(tmp_path):
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts")
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)  # as long before `activate`
    base = Path(sys.executable).resolve().parent
    environment = {"PATH": f"{base}:/usr/bin:/bin", "HOME": str(tmp_path)}
    words = ["bash", "scripts/setup"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and (tmp_path / ".venv" / "bin" / "activate").exists(), done


def test_an_environment_that_was_moved_is_not_taken_for_another(tmp_path):
    """Its `activate` has the old folder's name: pip would install into the system's Python."""
    old, new = tmp_path / "old", tmp_path / "new"
    (old / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts" / "setup", old / "scripts")
    (old / "requirements.txt").write_text("")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", old / ".venv"], check=True)
    old.rename(new)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    words = ["bash", "scripts/setup"]
    done = subprocess.run(words, cwd=new, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and done.stderr.startswith("error: .venv was made in another folder"), done
