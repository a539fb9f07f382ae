"""The original's commands by name, from where its page says they can be run, and two at once."""

import json
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
    data = ("runs", "cache", "results", "IEMOCAP_full_release", "emodb", "ravdess", "crema-d")  # path.py's defaults
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".*", "__pycache__", *data))
    shutil.move(copy / "scripts" / "MHCNN", copy / "MHCNN")
    (copy / ".venv").symlink_to(sys.prefix)
    command("./MHCNN", *quick, cwd=copy)
    seeds = [int(s) for s in (ROOT / "seeds.txt").read_text().split()[:3]]
    assert sorted(int(marker.parent.name) for marker in here.rglob("done")) == sorted(seeds)


def test_run_trains_the_next_seeds_in_one_process(here, command):
    quick = ("--model", "CNN_GAP", "--dataset", "script", "--epochs", 1, "--quiet")
    assert command("bash", "run", -1, 2, 0.1, *quick).stdout.count("done:") == 2
    assert len(list(here.rglob("done"))) == 2
    command("bash", "run", -1, *quick, "--alpha", 0.1)
    settings = [json.loads(marker.with_name("config.json").read_text())["settings"] for marker in here.rglob("done")]
    first = [int(seed) for seed in (ROOT / "seeds.txt").read_text().split()[:3]]
    assert sorted(each["seed"] for each in settings) == sorted(first) and {each["alpha"] for each in settings} == {0.1}


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
    name: f"bash scripts/{name}"
    for name in ("all_tables", "demo", "emodb_finetune", "emodb_report", "emodb_tables", "setup", "test")
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


@pytest.mark.parametrize("words", [
    ("all_tables", -1), ("emodb_tables", "scripts", -1), ("emodb_finetune", "scripts"), ("demo", "--epochs", 1),
])  # fmt: skip
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


@pytest.mark.slow
def test_fine_tuning_beside_drawn_weights_on_real_speech(here, emodb, command):
    """In one epoch instead of 10 and 50: two of the three settings are then the same runs."""
    (wave,) = emodb.rglob("03a01Fa.wav")
    words = ("--gpu", -1, "--epochs", 1, "--batch_size", 64)
    told = command("bash", "scripts/emodb_finetune", wave.parent, *words).stdout
    assert len(list(here.rglob("done"))) == 1 + 2 * 2 * 5
    assert told.count("| five_b ") == 2 * 4 * 2 and "which knows these classes: angry, happy, neutral, sad\n" in told


def test_alpha_may_be_written_with_an_exponent(here, command):
    told = command("bash", "run", -1, 1, "1e-3", "--model", "CNN_GAP", "--dataset", "demo", "--dry_run").stdout
    assert "alpha=0.001" in told


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("scripts/comparison", -1, 1, "--dataset", "a, b.csv"), "error: --dataset a, b.csv: tables take names with"),
        (("scripts/emodb_finetune", "--epochs", 1), "error: name the folder of EMO-DB's wave files"),
        (("scripts/demo", "--runs", "x"), "error: --runs: the report needs it too"),
        (("scripts/emodb_finetune", "scripts", "--runs", "x"), "error: --runs: the report needs it too"),
        (("scripts/emodb_tables", "scripts", -1, "--runs", "x"), "error: --runs: tables and figures are made from"),
        (("run", "x"), "error: x: no flag; the arguments are [gpu] [n] [alpha] [flags]"),
        (("run", -1, 0), "error: 0: n, the number of seeds, must be at least 1"),
        (("scripts/comparison", -1, 0), "error: 0: n, the number of seeds, must be at least 1"),
        (("scripts/MACNN_all", -1, 1, 0.3, 4), "error: 4: no flag; the arguments are [gpu] [n] [alpha] [flags]"),
        (("scripts/comparison", -1, 1, 0.3), "error: 0.3: no flag; the arguments are [gpu] [n] [flags]"),
    ],
)
def test_an_argument_too_many_is_told_how_a_script_is_called(command, words, says):
    assert command("bash", *words, status=2).stderr.startswith(says)


def asked_by(folder, words, fails="nothing", status=1):
    """A script's exit status, its errors and what it asks of Python, which fails where a call has `fails` in it."""
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copy(ROOT / "run", folder)
    (folder / "wav").mkdir()
    (folder / "bin").mkdir()
    stub = folder / "bin" / "python"
    stub.write_text(f'#!/bin/sh\necho "$@" >> "{folder}/asked"\ncase "$*" in *"{fails}"*) exit {status};; esac\n')
    stub.chmod(0o755)
    environment = {"PATH": f"{folder}/bin:/usr/bin:/bin", "VIRTUAL_ENV": str(folder)}
    words = ["bash", *map(str, words)]
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    asked = (folder / "asked").read_text() if (folder / "asked").exists() else ""
    commands = [line for line in asked.splitlines() if line.startswith(("sweep", "report", "train"))]
    return done.returncode, done.stderr, commands


@pytest.mark.parametrize(
    ("words", "asks"),
    [
        (("run",), "--next 1"),
        (("run", -1), "--gpu -1 --next 1"),
        (
            ("scripts/GLAM", 0, 5, 0.3, "--epochs", 1),
            "--model GLAM --dataset impro --gpu 0 --alpha 0.3 --next 5 --epochs 1",
        ),
        (("scripts/comparison",), "--table comparison --print --seeds 1"),
        (("scripts/alpha", 1), "--table alpha --print --gpu 1 --seeds 1"),
        (("scripts/split811", 0, 2, "--jobs", 4), "--table split811 --print --gpu 0 --seeds 2 --jobs 4"),
    ],
)
def test_the_arguments_of_a_script_are_a_gpu_and_a_number(words, asks, tmp_path):
    assert asked_by(tmp_path, words) == (0, "", [f"sweep.py {asks}"])


@pytest.mark.parametrize(
    ("fails", "status", "ends"),
    [("nothing", 1, 0), ("--table ablation", 1, 1), ("--audit", 1, 1), ("--save_model", 130, 130)],
)
def test_all_tables_trains_each_and_goes_on_after_a_run_that_fails_but_not_after_ctrl_c(fails, status, ends, tmp_path):
    done, _, asked = asked_by(tmp_path, ("scripts/all_tables", 0, 3, "--jobs", 2), fails, status)
    assert done == ends
    assert asked[0].startswith("sweep.py --gpu 0 ") and asked[0].endswith("--seeds 3 --jobs 2 --dry_run")
    assert asked[1].endswith("--seeds 1 --save_model --jobs 2")
    if ends == 130:
        assert len(asked) == 2
        return
    files = [",".join(f"results/iemocap/{table}.{ending}" for ending in ("md", "csv", "html")) for table in TABLES]
    assert sorted(asked[2:8]) == [
        f"sweep.py --gpu 0 --table {table} --seeds 3 --print {file} --jobs 2"
        for table, file in zip(TABLES, files, strict=True)
    ]
    assert [line.split()[2] for line in asked[8:12]] == ["confusion", "tsne", "curves", "alpha"]
    assert asked[12:] == ["report.py --audit"]


@pytest.mark.parametrize(("flag", "says"), [("--runs", "figures and the audit"), ("--datasets", "these are IEMOCAP's")])
def test_all_tables_refuses_what_its_figures_would_not_follow(flag, says, tmp_path):
    done, told, asked = asked_by(tmp_path, ("scripts/all_tables", -1, 1, flag, "x"))
    assert (done, asked) == (2, []) and says in told


def test_emodb_tables_are_of_four_classes_on_the_gpu_asked_for(tmp_path):
    done, _, asked = asked_by(tmp_path, ("scripts/emodb_tables", tmp_path / "wav", 0, 2, "--deterministic"))
    assert done == 0 and asked[-1] == "report.py --runs results/emodb/runs --audit"
    trained = [line for line in asked if line.startswith("sweep")][1:]  # the first one trains none
    made = [line for line in asked[:-1] if line.startswith("report")]
    assert len(trained) > 10 and len(made) > 10
    for line in trained:
        assert line.startswith("sweep.py --datasets emodb --gpu 0 --classes neutral,sad,angry,happy ")
        assert " --deterministic" in line and re.search(r"--seeds [12]\b", line)
    assert any("--seeds 2" in line for line in trained)
    assert all(
        "--runs results/emodb/runs --dataset emodb --set classes=neutral,sad,angry,happy" in line for line in made
    )
    rules = re.findall(r"--figure (\S+) .*--split (\S+) --rule (\S+)", "\n".join(made))
    assert rules == [("confusion", "8:2", "paper"), ("confusion", "speaker", "validation"), ("curves", "8:2", "paper"),
                     ("reliability", "8:1:1", "validation"), ("tsne", "8:2", "paper")]  # fmt: skip


def test_fine_tuning_begins_with_what_the_first_run_prints_though_the_others_are_quiet(tmp_path):
    status, _, (first, *others) = asked_by(tmp_path, ("scripts/emodb_finetune", tmp_path / "wav", "--quiet"))
    assert status == 0 and first.endswith(" --save_model validation --quiet --no-quiet") and len(others) == 8
    assert all(line.startswith("report") or line.endswith(" --quiet") for line in others)


def test_emodb_tables_end_with_ctrl_c(tmp_path):
    done, _, asked = asked_by(tmp_path, ("scripts/emodb_tables", tmp_path / "wav"), "--save_model", 130)
    assert done == 130 and len(asked) == 2


def test_emodb_tables_go_on_after_a_run_that_fails(tmp_path):
    status, _, asked = asked_by(tmp_path, ("scripts/emodb_tables", tmp_path / "wav"), "--amp")
    asked = "\n".join(asked)
    assert status == 1
    assert asked.index("--amp") < asked.index("--models APCNN") < asked.index("report.py --table comparison")
    assert "report.py --runs results/emodb/runs --audit" in asked


def set_up(folder, name, *words, fails="nothing", active=None):
    """A script that installs, where nothing is installed: its exit status and what it calls."""
    for part in ("scripts", "bin"):
        (folder / part).mkdir(exist_ok=True)
    for file in ("setup", name):
        shutil.copy(ROOT / "scripts" / file, folder / "scripts")
    for file in ("requirements.txt", "requirements-dev.txt"):
        (folder / file).touch()
    real = f'*"-m pip --version"*) ;; *"print(sys.prefix)"*) echo "{folder}";; "-c "*) exec "{sys.executable}" "$@";;'
    for command, cases in (("python", real), ("ruff", ""), ("mypy", "")):
        told = f'echo "{command} $@" >> "{folder}/asked"; case "{command} $*" in "{fails}"*) exit 1;; esac'
        (folder / "bin" / command).write_text(f'#!/bin/sh\ncase "$*" in {cases} *) {told};; esac\n')
        (folder / "bin" / command).chmod(0o755)
    (folder / "asked").write_text("")
    environment = {"PATH": f"{folder}/bin:/usr/bin:/bin", **(active or {"VIRTUAL_ENV": str(folder)})}
    command = ["bash", f"scripts/{name}", *words]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return done.returncode, (folder / "asked").read_text().splitlines()


def test_requirements_are_installed_where_they_changed_and_nowhere_else(tmp_path):
    pip = "python -m pip install --quiet --disable-pip-version-check -r"
    assert set_up(tmp_path, "setup", fails=pip) == (1, [f"{pip} requirements.txt"])
    assert set_up(tmp_path, "setup") == (0, [f"{pip} requirements.txt"])
    assert set_up(tmp_path, "setup", "requirements-dev.txt") == (0, [f"{pip} requirements-dev.txt"])
    (tmp_path / "requirements.txt").write_text("torch==2.12\n")
    assert set_up(tmp_path, "setup", "requirements-dev.txt") == (0, [f"{pip} requirements.txt"])
    assert set_up(tmp_path, "setup", "requirements-dev.txt") == (0, [])
    assert set_up(tmp_path, "setup", "requirements-none.txt") == (2, [])


def test_nothing_is_installed_into_another_python_than_the_active_environments(tmp_path):
    """PATH is set anew in a login shell, as tmux starts them, and VIRTUAL_ENV is not."""
    (tmp_path / "other").mkdir()
    other = {"VIRTUAL_ENV": str(tmp_path / "other")}
    assert set_up(tmp_path, "setup", active=other) == (2, [])
    assert set_up(tmp_path, "setup", active={"CONDA_PREFIX": other["VIRTUAL_ENV"]}) == (2, [])
    status, asked = set_up(tmp_path, "setup", active={**other, "CONDA_PREFIX": str(tmp_path)})
    assert status == 0 and len(asked) == 1


def test_pins_agree_with_each_other():
    """Or pip refuses to install two of the files together, and one after the other it replaces what the first asks for.
    Of packages that are installed here."""
    pinned = "\n".join(file.read_text() for file in ROOT.glob("requirements*.txt"))
    pins = {canonicalize_name(name): version for name, version in re.findall(r"^(\S+)==(\S+)$", pinned, re.M)}
    there = [each for each in metadata.distributions() if canonicalize_name(each.name) in pins]
    assert len(there) > 20
    for each in there:
        for needed in map(Requirement, each.requires or []):
            if (name := canonicalize_name(needed.name)) in pins and (not needed.marker or needed.marker.evaluate()):
                assert needed.specifier.contains(pins[name], prereleases=True), f"{each.name} needs {needed}"


@pytest.mark.parametrize("failing", range(5))
def test_lint_types_and_tests_are_all_asked_for(failing, tmp_path):
    steps = ["ruff check", "ruff format", "mypy", "python -m pytest", "nothing"]
    done, asked = set_up(tmp_path, "test", fails=steps[failing])
    called = [line for line in asked if "pip" not in line]
    assert done == (failing < 4) and len(called) == min(failing + 1, 4)
    assert all(line.startswith(step) for line, step in zip(called, steps, strict=False))


def test_the_demo_trains_and_tells_by_a_rule_that_chooses_nothing(tmp_path):
    done, asked = set_up(tmp_path, "demo", "--jobs", "2")
    assert done == 0 and asked[-2:] == [
        "python sweep.py --models GLAM,MACNN,ResMultiConv3 --datasets demo --seeds 2 --epochs 3 --jobs 2",
        "python report.py --dataset demo --rule last",
    ]


def test_an_environment_that_is_gone_is_not_active(tmp_path):
    for file in ("scripts/table", "scripts/environment", ".venv/bin/activate"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "scripts" / "table", tmp_path / "scripts")
    shutil.copy(ROOT / "scripts" / "environment", tmp_path / "scripts")
    (tmp_path / ".venv" / "bin" / "activate").write_text("echo .venv; exit\n")
    words = ["bash", "scripts/table", "comparison"]
    for gone, found in ((tmp_path / "gone", ".venv\n"), (tmp_path / "scripts", "")):
        for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
            environment = {"PATH": "/usr/bin:/bin", name: str(gone)}
            done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
            assert done.stdout == found, done


@pytest.mark.parametrize("active", [{}, {"VIRTUAL_ENV": "/gone"}])
def test_an_environment_that_was_left_half_made_is_completed(active, tmp_path):
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup", tmp_path / "scripts")
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)  # as long before `activate`
    base = Path(sys.executable).resolve().parent
    environment = {"PATH": f"{base}:/usr/bin:/bin", "HOME": str(tmp_path), **active}
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
