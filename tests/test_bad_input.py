"""Bad input: a sentence that names the file or the flag, exit status 2, no traceback, nothing half written."""

import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from faults import until

import benchmark
import cli
import evaluate
import path
import predict
import report
import sweep
import train
from tests.conftest import ROOT

QUICK = ("train.py", "--gpu", -1, "--model", "CNN_GAP", "--epochs", 1, "--quiet")


@pytest.fixture
def call(monkeypatch, capsys):
    """`command` for train.py, in this process, which has imported torch."""
    monkeypatch.chdir(ROOT)

    def run(*words, status=0):
        monkeypatch.setattr(sys, "argv", list(map(str, words)))
        with pytest.raises(SystemExit) as exited:
            cli.run_main(train.main)
        out, err = capsys.readouterr()
        assert exited.value.code == status, err
        return subprocess.CompletedProcess(words, status, out, err)

    return run


def test_a_flag_that_is_none_is_refused_in_a_sentence(call):
    """Not with the usage, whose twenty lines would hide it; escaped, as it could command the terminal."""
    said = call("train.py", "--epohcs", "3\x1b[2J", status=2).stderr
    assert said == "error: unrecognized arguments: --epohcs 3\\x1b[2J; train.py --help lists the flags\n"


def refused(call, *words, says):
    error = call(*QUICK, *words, status=2).stderr
    assert error.startswith(("error:", "warning:")), error
    for text in says if isinstance(says, tuple) else (says,):
        assert text in error, error


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--model", "GLAMM"), ("--model GLAMM: choose one of", "GLAM,", "MACNN")),
        (("--dataset", "imprO"), ("dataset imprO: choose one of impro", "script")),
        (("--feature", "mel"), ("--feature mel: choose one of mfcc", "spectrogram")),
        (("--split", "9:1"), ("--split 9:1", "8:2")),
        (("--epoch", "1"), "--epoch"),
        (("--happy", "sad"), ("--happy", "hap+exc")),
        (("--train_overlap", "2"), ("--train_overlap 2.0", "segment")),
        (("--fold", "1"), ("--fold 1", "8:2")),
        (("--dataset", "all", "--split", "speaker", "--fold", "10"), ("--fold 10", "0 to 9")),
        (("--classes", "neutral,bored"), ("bored", "neutral, sad, angry, happy")),
        (("--classes", "neutral"), "two or more"),
        (("--head", "2"), ("--head", "CNN_GAP")),
        (("--happy", "hap", "--dataset", "emodb"), ("--happy is for impro, script, all, demo", "define the class")),
        (("--n_mfcc", "13", "--feature", "spectrogram"), "--n_mfcc: CNN_GAP is trained on spectrogram"),
        (
            ("--dataset", "tests"),
            ("dataset tests: choose one of impro", "or a CSV file; a folder of recordings needs one"),
        ),
        (("--dataset", "README.md"), ("dataset README.md: choose one of", "its name must end in .csv")),
        (("--learning_rate", "0"), "--learning_rate"),
        (("--seed", "-1"), "--seed"),
        (("--device", "cuda"), ("--device cuda", "--gpu -1")),
        (("--save_model", "validation"), "8:2"),
        (("--dataset", "nowhere.csv"), "nowhere.csv does not exist"),
        (("--segment_length", "30"), ("no usable utterance", "--padding")),
    ],
)
def test_a_flag_that_cannot_be(here, call, words, says):
    refused(call, *words, says=says)
    assert not list(here.rglob("config.json"))


@pytest.mark.parametrize("kind", ["missing", "empty", "other"])
def test_a_corpus_that_is_none(here, call, tmp_path, monkeypatch, kind):
    root = tmp_path / "corpus"
    if kind != "missing":
        root.mkdir()
    if kind == "other":
        (root / "holiday.txt").write_text("sun")
    monkeypatch.setattr(path, "IEMOCAP", root)
    refused(call, says=(str(root), "path.py"))


def write_corpus(folder, seconds=2.2, classes=("sad", "angry"), each=6, **formats):
    rng = np.random.default_rng(0)
    rows = ["path,emotion"]
    for i in range(each):
        for c in classes:
            soundfile.write(folder / f"{c}{i}.wav", 0.1 * rng.standard_normal(int(seconds * 16000)), 16000, **formats)
            rows.append(f"{c}{i}.wav,{c}")
    (folder / "own.csv").write_text("\n".join(rows) + "\n")
    return folder / "own.csv"


def test_too_short_for_a_segment(here, call, tmp_path):
    refused(call, "--dataset", write_corpus(tmp_path, seconds=0.5), says=("no usable utterance", "--padding"))
    call(*QUICK, "--dataset", tmp_path / "own.csv", "--padding")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,label\na.wav,sad\n", "emotion"),
        ("file,emotion\na.wav,sad\n", "path"),
        ("path,emotion\na.wav,sad\na.wav,sad\n", "twice"),
        ("path,emotion\na.wav,\n", "line 2"),
        ("path,emotion\na.wav,sad,3\n", "line 2"),
        ("path,emotion\n", "has a header and no rows"),
        ("", "path"),
    ],
)
def test_a_csv_that_is_no_corpus(here, call, tmp_path, text, says):
    (tmp_path / "own.csv").write_text(text)
    refused(call, "--dataset", tmp_path / "own.csv", says=("own.csv", says))


def break_waves(folder):
    """Five broken recordings; returns what each error must say."""
    (folder / "sad0.wav").write_bytes(b"")
    (folder / "sad1.wav").write_bytes((folder / "sad1.wav").read_bytes()[:2000])
    (folder / "angry0.wav").write_bytes(b"this is no audio at all, whatever it is called" * 9)
    soundfile.write(folder / "angry1.wav", np.full(32000, np.nan, np.float32), 16000, subtype="FLOAT")
    (folder / "sad2.wav").unlink()
    return {
        "sad0.wav": "empty",
        "sad1.wav": "truncated",
        "angry0.wav": "audio",
        "angry1.wav": "finite",
        "sad2.wav": "not exist",
    }


def test_broken_recordings_are_listed_together_or_left_out(here, call, tmp_path):
    corpus = write_corpus(tmp_path)
    soundfile.write(tmp_path / "angry2.wav", np.ones(8000) / 2, 16000)
    broken = break_waves(tmp_path)
    error = call(*QUICK, "--dataset", corpus, status=2).stderr
    for name, fault in broken.items():
        (line,) = [line for line in error.splitlines() if name in line]
        assert fault in line
    assert "--skip_bad" in error
    assert not list(here.rglob("config.json"))
    out = call(*QUICK[:-1], "--dataset", corpus, "--skip_bad").stdout
    assert "1 dropped as shorter than 2.0 s (--padding keeps them), 5 broken left out" in out


def test_folds_are_counted_without_broken_recordings(call, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(train, "folds_to_run", lambda config, options: asked.append(options) or [])
    call(*QUICK, "--runs", tmp_path, "--skip_bad")
    call(*QUICK, "--runs", tmp_path)
    assert [(options.runs, options.skip_bad) for options in asked] == [(tmp_path, True), (tmp_path, False)]


@pytest.mark.parametrize(
    ("rate", "channels", "subtype"), [(8000, 1, "PCM_16"), (48000, 2, "PCM_24"), (44100, 1, "FLOAT")]
)
def test_other_formats_are_converted(here, call, tmp_path, rate, channels, subtype):
    rng, rows = np.random.default_rng(0), ["path,emotion"]
    for i in range(10):
        soundfile.write(
            tmp_path / f"{i}.wav", 0.1 * rng.standard_normal((int(2.1 * rate), channels)), rate, subtype=subtype
        )
        rows.append(f"{i}.wav,{('sad', 'angry')[i % 2]}")
    (tmp_path / "own.csv").write_text("\n".join(rows))
    call(*QUICK, "--dataset", tmp_path / "own.csv")


def test_a_label_without_a_wave_and_a_wave_without_a_label(here, call, command, small_release, tmp_path, monkeypatch):
    root = tmp_path / "IEMOCAP_full_release"
    shutil.copytree(small_release, root)
    waves = sorted(w for w in root.rglob("*.wav") if not w.name.startswith("._"))
    waves[0].rename(waves[0].with_name(waves[0].name.replace(waves[0].stem[-3:], "777")))
    monkeypatch.setenv("IEMOCAP", str(root))
    monkeypatch.setattr(path, "IEMOCAP", root)
    out = command("handleIEMOCAP.py").stdout
    assert "without" in out and waves[0].stem in out
    call(*QUICK, "--dataset", "all")


def test_a_test_overlap_that_is_too_long_is_halved(here, call):
    error = call(*QUICK, "--dataset", "impro", "--test_overlap", "2.5").stderr
    assert "--test_overlap 2.5" in error and "1.0 s" in error


def test_an_output_folder_that_cannot_be_written(here, command, tmp_path):
    (tmp_path / "file").write_text("")
    refused(command, "--dataset", "impro", "--runs", tmp_path / "file" / "runs", says=str(tmp_path / "file"))


def test_ctrl_c_while_torch_is_imported_is_told_in_a_word(here, tmp_path):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for script in ("train.py", "benchmark.py"):
        words = [sys.executable, "-c", f"import runpy, sys; sys.path.insert(0, {str(tmp_path)!r}); "
                 f"sys.argv = [{script!r}]; runpy.run_path({script!r}, run_name='__main__')"]  # fmt: skip
        done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == -signal.SIGINT and done.stderr == "interrupted\n", done


def test_ctrl_c_keeps_what_is_done(here, command):
    words = [sys.executable, *map(str, QUICK[:-1]), "--dataset", "impro", "--epochs", "500"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until(lambda: list(here.rglob("state.safetensors")))
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Traceback" not in error and "interrupted" in error
    assert list(here.rglob("state.safetensors")) and not list(here.rglob("done"))


def test_a_split_that_cannot_be_leaves_no_run_behind(here, call, tmp_path):
    corpus = tmp_path / "mine.csv"
    rng = np.random.default_rng(0)
    for i in range(6):
        soundfile.write(tmp_path / f"{i}.wav", rng.normal(0, 0.1, 40000), 16000)
    rows = [f"{i}.wav,{'ab'[i % 2]}" for i in range(6)]
    corpus.write_text("\n".join(["path,emotion", *rows]))
    refused(call, "--dataset", corpus, "--split", "dialog", says="dialog")
    assert not [file for file in here.rglob("*") if file.is_file()]


def test_output_that_is_closed_or_cannot_be_spelt_stops_nothing(here, command):
    """Trained by a user without a name, as of `docker run --user`: torch asks for one."""
    call = "import sys; sys.argv[0] = 'train.py'; import pwd; pwd.getpwuid = lambda uid: {}[uid]; import train"
    words = (*QUICK[1:], "--dataset", "demo")
    environment = {k: v for k, v in os.environ.items() if k not in ("USER", "LOGNAME", "LNAME", "USERNAME")}
    closed = ("bash", "-c", 'exec "$0" "$@" >&- 2>&-', sys.executable)
    command(*closed, "-c", f"{call}; train.cli.run_main(train.main)", *words, env=environment)
    assert len(list(here.rglob("done"))) == 1
    table = ("report.py", "--rule", "last")
    ascii_only = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command(*closed, *table, env=ascii_only)
    told = command(*table, env={**os.environ, "PYTHONIOENCODING": "ascii"}).stdout
    assert "CNN_GAP" in told and "\\xb1" in told  # ±


def test_a_bar_starts_no_process(command):
    """As tqdm's lock, which processes could share, does where these are not forked: by default from Python 3.14 on."""
    call = """
import multiprocessing, os, cli
from tqdm import tqdm
multiprocessing.set_start_method("forkserver")
def main():
    tqdm([]).close()
    try:
        print("child", os.waitpid(-1, os.WNOHANG))
    except ChildProcessError:
        print("no child")
cli.run_main(main)
"""
    assert command(sys.executable, "-c", call).stdout == "no child\n"


def test_the_help_of_a_runs_folder_with_a_percent_sign(command):
    for script in ("train.py", "report.py"):
        told = command(script, "--help", env={**os.environ, "GLAM_RUNS": "/tmp/100% d/runs"}).stdout
        assert "/tmp/100% d/runs, set in path.py" in " ".join(told.split())


def test_more_threads_than_cores_are_told(here, call):
    for threads, told in ((cli.cores(), False), (cli.cores() + 1, True)):
        error = call(*QUICK, "--threads", threads, "--dataset", "nowhere", status=2).stderr
        assert (f"--threads {threads}: there are {cli.cores()} cores here; more threads" in error) == told


@pytest.mark.parametrize(
    ("script", "words"),
    [
        *((sweep, ["--" + flag]) for flag in ("seeds", "next", "jobs", "at_once", "tries")),
        *((benchmark, ["--" + flag]) for flag in ("repeats", "threads", "at_once")),
        (report, ["--errors"]),
        (predict, ["a.wav", "--checkpoint", "c", "--jobs"]),
        (evaluate, ["impro", "--checkpoint", "c", "--jobs"]),
    ],
)
@pytest.mark.parametrize(("number", "said"), [("0", "0: must be at least 1"), ("-3", "-3: must"), ("x", "x is not a")])
def test_counts_are_at_least_one(script, words, number, said, capsys):
    parser = script.command_line()
    parser.parse_args([*words, "1"])
    with pytest.raises(SystemExit) as end:
        parser.parse_args([*words[:-1], f"{words[-1]}={number}"])
    assert end.value.code == 2 and f"argument {words[-1]}: {said}" in capsys.readouterr().err
