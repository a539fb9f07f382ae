"""sweep.py: which runs there are, what state they are in, and that all of them get done."""

import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from types import SimpleNamespace

import pytest
from faults import FLAGS, ROOT, children, content, finished, until

import data
import flags
import recipes
import seeds
import sweep
import tables
import train
import workers
from cli import UserError
from files import lock

BASE = [*FLAGS[4:], "--datasets", "all"]  # without the models


def jobs(*words: object) -> list[sweep.Job]:
    parser = sweep.command_line()
    given = vars(parser.parse_args([*BASE, *map(str, words)]))
    asked = {k: given.pop(k) for k in vars(parser.parse_args([]))}
    sweep.check(asked)
    every = sweep.jobs_of(asked, given)
    return sweep.of_next_seeds(every, asked["next"]) if asked["next"] else every


def run(*words: object) -> int:
    old, sys.argv = sys.argv, ["sweep.py", *BASE, *map(str, words)]
    try:
        return sweep.main()
    finally:
        sys.argv = old


def test_jobs_are_the_product_in_rounds_of_seeds(here: Path) -> None:
    found = jobs("--models", "GLAM,MACNN", "--splits", "8:2,session", "--seeds", 2, "--vary", "alpha=0,0.3")
    assert len(found) == 2 * 2 * 2 * (1 + 5)
    assert [job.config.seed for job in found] == [s for s in seeds.read_seeds()[:2] for _ in range(24)]
    assert {job.config.alpha for job in found} == {0.0, 0.3}
    assert {job.config.fold for job in found if job.config.split == "session"} == set(range(5))
    assert len({job.folder for job in found}) == len(found)


def test_a_setting_listed_twice_is_one_run(here: Path) -> None:
    assert len(jobs("--models", "GLAM,GLAM", "--vary", "alpha=0.5,0.50")) == 1
    assert [job.config.padding for job in jobs("--vary", "padding=true,false")] == [True, False]
    assert [job.config.deterministic for job in jobs("--vary", "deterministic=true,false")] == [True, False]


def test_seed_of_train_is_taken(here: Path) -> None:
    assert [job.config.seed for job in jobs("--seed", 5)] == [5]


def test_a_clusters_gpus_are_recorded(here: Path) -> None:
    for gpus, device in ((0.3333, "cuda"), (2, "cuda"), (0, "cpu")):
        assert [job.config.device for job in jobs("--ray", "local", "--gpus_per_job", gpus)] == [device]


def test_fold_of_train_is_taken(here: Path) -> None:
    assert [job.config.fold for job in jobs("--splits", "session", "--fold", 3)] == [3]


def test_table_says_what_to_run(here: Path) -> None:
    for table in ("ablation", "alpha"):
        wanted = tables.jobs(table, ["all"])
        found = jobs("--table", table)
        assert {(j.config.model, j.config.split) for j in found} == {(j["model"], j["split"]) for j in wanted}
        assert [j.config.changed() for j in found] == [{**j["changed"], "epochs": 3} for j in wanted]
    assert {j.config.classes for j in jobs("--table", "alpha", "--classes", "neutral,sad")} == {("neutral", "sad")}
    assert {j.config.fold for j in jobs("--table", "ablation", "--splits", "session")} == set(range(5))


def test_a_table_takes_what_train_names_for_its_own() -> None:
    def combinations(**given: str) -> tuple[list[dict], dict, dict]:
        asked: dict = {"table": "comparison", "vary": [], "models": None, "datasets": None, "splits": None}
        return sweep.combinations(asked, given), asked, given

    found, asked, given = combinations(dataset="script", split="session", model="MHCNN")
    assert found == [{"model": "MACNN", "dataset": "script", "split": "session"}] and given == {}
    assert [asked[name] for name in ("models", "datasets", "splits")] == [("MACNN",), ("script",), ("session",)]
    with pytest.raises(UserError, match=r"--dataset a,b\.csv: tables take names with commas between"):
        combinations(dataset="a,b.csv")


def test_what_shapes_a_tables_rows_names_no_run_and_no_machine() -> None:
    named = {"model": "GLAM", "dataset": "impro", "test_dataset": "demo", "split": "8:2", "fold": 0, "seed": 1}
    assert sweep.shaping({"alpha": 0.1, **named, "threads": 1, "runs": Path()}) == {"alpha": 0.1}


def test_folds_are_those_without_broken_recordings(here: Path, tmp_path: Path, small_release: Path) -> None:
    waves = sorted(small_release.rglob("Ses0*.wav"))[:12]
    rows = [f"{wave},{('sad', 'angry')[i % 2]},{'ABC'[i // 2 % 3]}" for i, wave in enumerate(waves)]
    (tmp_path / "own.csv").write_text("\n".join(["path,emotion,speaker", *rows, "broken.wav,sad,D"]) + "\n")
    (tmp_path / "broken.wav").write_text("no sound")
    words = ["--models", "CNN_GAP", "--datasets", tmp_path / "own.csv", "--splits", "speaker", "--padding"]
    assert [job.config.fold for job in jobs(*words, "--skip_bad")] == [0, 1, 2]
    with pytest.raises(UserError, match="broken"):
        jobs(*words)


def test_the_table_printed_is_of_the_runs_trained(here: Path, monkeypatch, capsys: pytest.CaptureFixture) -> None:
    """Flags of train.py hold for both: here fewer epochs, larger batches, and the machine."""
    monkeypatch.setitem(tables.TABLES, "one", tables.Table("One", (tables.RowSpec("one", "CNN_GAP"),)))
    words = ["--table", "one", "--batch_size", "64", "--print"]
    assert run(*words) == 0
    told = capsys.readouterr().out
    assert told.count("done: CNN_GAP all 8:2") == 1 and "0 finished before, 1 trained now, 0 failed" in told
    (row,) = [line for line in told.splitlines() if line.startswith("| all ")]
    assert "SYNTHETIC" in row and "missing" not in row
    assert "In every row: batch_size=64, device=cpu, epochs=3, threads=1." in told
    assert run(*words, "--dry_run") == 0
    told = capsys.readouterr().out
    assert told.startswith("done    CNN_GAP all") and "1 done\n" in told and "trained now" not in told and row in told
    words[-1:-1] = ["--next", "1"]  # more seeds of seeds.txt, in which none is left to train
    first = seeds.read_seeds()[0]
    monkeypatch.setattr(seeds, "read_seeds", lambda: [first])
    assert run(*words) == 0
    assert row in capsys.readouterr().out
    files = [here / "table.csv", here / "table.tex"]
    assert run(*words, ",".join(map(str, files))) == 0
    assert files[0].read_text().startswith("table,kind,dataset") and "booktabs" in files[1].read_text()


def test_the_table_printed_is_of_what_was_asked_for(here: Path, tmp_path: Path, monkeypatch) -> None:
    import report

    printed: list[list[str]] = []
    monkeypatch.setattr(report, "main", printed.append)
    monkeypatch.setattr(sweep, "run_all", lambda *given, **more: [])
    words = ["--models", "GLAM,MACNN", "--splits", "session", "--runs", tmp_path, "--happy", "hap"]
    assert run("--table", "comparison", *words, "--print", "a.md,b.tex") == 0
    for told, file in zip(printed, ("a.md", "b.tex"), strict=True):
        flags = dict(zip(told[::2], told[1::2], strict=True))
        sets = {value for flag, value in zip(told[::2], told[1::2], strict=True) if flag == "--set"}
        assert sets == {"device=cpu", "epochs=3", "happy=hap", "threads=1"}
        expected = {"--table": "comparison", "--datasets": "all", "--splits": "session", "--models": "GLAM,MACNN"}
        assert flags.items() >= {**expected, "--runs": str(tmp_path), "--output": file}.items()


def test_the_table_printed_is_of_the_csv_as_it_is_now(
    here: Path, tmp_path: Path, small_release: Path, monkeypatch, capsys: pytest.CaptureFixture
) -> None:
    """There are more runs of its old content, which are another corpus of the same name."""
    waves = sorted(small_release.rglob("Ses01*.wav"))[:12]
    monkeypatch.setitem(tables.TABLES, "one", tables.Table("One", (tables.RowSpec("one", "CNN_GAP"),)))
    file = tmp_path / "mine.csv"
    words = ["--table", "one", "--datasets", file, "--padding", "--print", "--seeds"]
    for number, seeds_of in ((0, 2), (1, 1)):
        labels = ["sad" if (i + number) % 3 else "angry" for i in range(len(waves))]
        rows = [f"{wave},{label}\n" for wave, label in zip(waves, labels, strict=True)]
        file.write_text("path,emotion\n" + "".join(rows))
        data.forget()
        assert run(*words, seeds_of) == 0
        told = capsys.readouterr().out
        (row,) = [line for line in told.splitlines() if line.startswith(f"| {file} ")]
        assert row.split("|")[8].strip() == str(seeds_of)
        assert f"digest {data.identity(recipes.config_for('CNN_GAP', dataset=str(file)))[1][:8]}" in told


def test_rows_that_a_corpus_cannot_have_are_left_out(here: Path, tmp_path: Path, small_release: Path, capsys) -> None:
    """A CSV without sessions: the rows with a speaker left out are trained all the same."""
    waves = sorted(small_release.rglob("Ses0*.wav"))[:12]
    rows = [f"{wave},{('sad', 'angry')[i % 2]},{'ABC'[i // 2 % 3]}" for i, wave in enumerate(waves)]
    (tmp_path / "own.csv").write_text("\n".join(["path,emotion,speaker", *rows]) + "\n")
    found = jobs("--table", "speaker_independent", "--datasets", tmp_path / "own.csv", "--padding")
    assert {(job.config.split, job.config.fold) for job in found} == {("speaker", fold) for fold in range(3)}
    assert capsys.readouterr().err.count("have no session") == 1
    with pytest.raises(UserError, match="have no session"):
        jobs("--models", "GLAM", "--splits", "session", "--datasets", tmp_path / "own.csv", "--padding")
    none = ["--table", "comparison", "--splits", "dialog", "--datasets", tmp_path / "own.csv", "--padding"]
    assert jobs(*none) == [] and run(*none, "--print") == 0
    assert capsys.readouterr().err.count("have no dialog") == 1


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--vary", "alpha"], "write SETTING=VALUE"),
        (["--vary", "runs=a,b"], "--vary runs=a,b: choose one of test, feature, n_mfcc,"),
        (["--vary", "device=gpu"], "--device gpu: choose cpu or cuda"),
        (["--vary", "padding=1"], "--vary padding=1: padding is true or false"),
        (["--vary", "seed=1,2"], "and --seeds take several"),
        (["--vary", "classes=sad,angry"], "choose one of test, feature"),
        (["--seeds", "1", "--next", "1"], "contradict"),
        (["--seed", "5", "--seeds", "2"], "--seed 5 and --seeds 2 contradict"),
        (["--seed", "5", "--next", "2"], "--seed 5 and --next 2 contradict"),
        (["--seeds", "101"], "101 seeds are asked for, and seeds.txt has 100"),
        (["--next", "101"], "--next 101: 101 seeds are asked for"),
        (["--models", "GLAM", "--model", "GLAM"], "contradict"),
        (["--vary", "alpha=0", "--vary", "alpha=1"], "--vary alpha is given twice: write all its values after one"),
        (["--vary", "alpha=,"], "--vary alpha=,: write SETTING=VALUE"),
        (["--vary", "test=emodb", "--test", "demo"], "--test and --vary test contradict each other"),
        (["--vary", "alpha=0,1", "--alpha", "1"], "--alpha and --vary alpha contradict each other"),
        (["--models", "GLAMM"], "--model GLAMM: choose one of"),
        (["--vary", "feature=mfcc,mel"], "--feature mel: choose one of mfcc"),
        (["--splits", "9:1"], "--split 9:1: choose one of"),
        (["--fold", "0", "--datasets", "none.csv"], "--fold 0: the split 8:2 has no folds"),
        (["--splits", "session", "--fold", "5"], "--fold 5: the split session has the folds 0 to 4"),
        (["--table", "ablation", "--models", "CNN_GAP"], "--models CNN_GAP: the rows of this table are of"),
        (["--table", "ablation", "--vary", "alpha=0"], "leave --vary out"),
        (["--table", "protocols", "--splits", "session"], "take another"),
        (["--table", "alpha", "--alpha", "0.4"], "rows of this table differ in alpha"),
        (["--print"], "--table NAME"),
        (["--table", "ablation", "--print", "a.pdf"], "--print a.pdf: a file's name must end in .md, .csv,"),
        (["--gpus_per_job", "0.5"], "--ray"),
        (["--ray", "local", "--gpus_per_job", "1.5"], "--gpus_per_job 1.5: Ray takes whole numbers"),
        (["--ray", "local", "--gpus_per_job", "0.33333"], "below 1, four decimals"),
        (["--ray", "local", "--gpus_per_job", "-1"], "--gpus_per_job -1.0: must be 0 or more"),
        (["--ray", "local", "--cpus_per_job", "inf"], "--cpus_per_job inf: must be 0 or more"),
        (["--ray", "local", "--jobs", "2"], "--jobs is for this machine"),
        (["--ray", "local", "--at_once", "2"], "--at_once is for this machine"),
        (["--at_once", "2", "--jobs", "2"], "leave one out"),
        (["--at_once", "2", "--vary", "threads=1,2"], "share a process"),
        (["--at_once", "2", "--vary", "deterministic=true,false"], "share a process"),
    ],
)
def test_bad_flags(words: list[str], text: str, here: Path) -> None:
    with pytest.raises(UserError, match=text.replace("[", r"\[")):
        jobs(*words)


def test_what_vary_names_it_takes() -> None:
    with pytest.raises(UserError) as error:
        sweep.variants(["foo=1"])
    names = str(error.value).partition("choose one of ")[2].partition(";")[0].split(", ")
    flags = sweep.command_line().format_help()
    assert "alpha" in names and "seed" not in names
    values = {"test": "demo", "classes": "sad"}
    for name in names:
        assert f"--{name} " in flags or f"--{name}," in flags, name
        sweep.variants([f"{name}={values.get(name) or getattr(recipes.Config(), name)}"])


def test_runs_that_differ_in_what_vary_takes_are_told_apart() -> None:
    usual = recipes.config_for("GLAM")
    other = {bool: not usual.padding, int: 1, float: 0.125, str: "other"}
    for name in sweep.VARIED:
        varied = dataclasses.replace(usual, **{name: other[type(getattr(usual, name))]})
        assert f"{name}={getattr(varied, name)}" in sweep.describe(varied)
    of_fold = dataclasses.replace(usual, split="session", fold=3)
    assert sweep.describe(of_fold) == "GLAM impro session seed 987654 fold 3"


def test_a_cluster_writes_no_tensorboard_here(here: Path) -> None:
    with pytest.raises(UserError, match="leave it out on a Ray cluster"):
        run("--ray", "local", "--tensorboard", "--models", "GLAM")


def test_a_look_at_folds_extracts_nothing(here: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    import path

    monkeypatch.setattr(path, "CACHE", tmp_path / "cache")
    assert run("--models", "CNN_GAP", "--epochs", 2, "--splits", "speaker", "--dry_run") == 0
    assert capsys.readouterr().out.count("missing CNN_GAP") == 10
    assert not (tmp_path / "cache" / "features").exists()


@pytest.mark.parametrize(("split", "runs"), [("session", 5), ("dialog", 1)])
def test_what_is_done_needs_no_features_again(
    split: str, runs: int, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    import path

    words = ["--models", "CNN_GAP", "--epochs", 1, "--splits", split, "--runs", tmp_path / "own"]
    assert run(*words) == 0
    monkeypatch.setattr(path, "CACHE", tmp_path / "cache")
    data.forget()
    capsys.readouterr()
    assert run(*words) == 0
    assert f"{runs} finished before, 0 trained now, 0 failed" in capsys.readouterr().out
    assert not (tmp_path / "cache" / "features").exists()


def test_a_corpus_is_listed_once_for_all_rows_with_folds(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import handleIEMOCAP

    listed, index = [], handleIEMOCAP.index
    monkeypatch.setattr(handleIEMOCAP, "index", lambda root: listed.append(root) or index(root))
    data.forget()
    assert len(jobs("--models", "GLAM,CNN_GAP", "--splits", "session,speaker", "--dry_run")) == 2 * (5 + 10)
    assert len(listed) == 1


def test_a_stale_csv_is_one_by_any_of_its_paths(here: Path, small_release: Path, tmp_path: Path, monkeypatch) -> None:
    import handleIEMOCAP

    rows = [f"{u.path},{u.emotion}" for u in handleIEMOCAP.index(small_release) if u.emotion in ("neu", "sad")]
    (tmp_path / "my.csv").write_text("\n".join(["path,emotion", *rows]) + "\n")
    one = ["--models", "CNN_GAP", "--epochs", 1, "--datasets"]
    assert run(*one, tmp_path / "my.csv") == 0
    rows[0] = f"{rows[0].rsplit(',', 1)[0]},{'sad' if rows[0].endswith('neu') else 'neu'}"
    (tmp_path / "my.csv").write_text("\n".join(["path,emotion", *rows]) + "\n")
    data.forget()
    monkeypatch.chdir(tmp_path)
    for spelt in ("my.csv", "./my.csv", tmp_path / "my.csv"):
        assert [job.state for job in jobs(*one, spelt)] == ["stale"], spelt


def test_states_and_time_left(here: Path, small_release: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    import path

    one = ["--models", "CNN_GAP", "--epochs", 2]
    assert run(*one, "--dry_run") == 0
    told = capsys.readouterr().out
    assert "1 missing" in told and "unknown until a first run is finished" in told
    assert run(*one) == 0
    assert [job.state for job in jobs(*one, "--alpha", 0.1)] == ["missing"], "the corpus is as it was"
    (done,) = finished(here).values()
    begun = Path(str(done).replace(str(seeds.read_seeds()[0]), str(seeds.read_seeds()[1])))
    shutil.copytree(done, begun)
    (begun / "done").unlink()
    assert [job.state for job in jobs(*one, "--seeds", 3)] == ["done", "started", "missing"]
    assert [job.state for job in jobs(*one, "--seeds", 3, "--save_model")] == ["repeat", "started", "missing"]
    (done / "epochs.jsonl").write_text("".join(json.dumps({"seconds": 100.0}) + "\n" for _ in range(2)))
    todo = [job for job in jobs(*one, "--seeds", 4) if job.state != "done"]
    assert sweep.time_left(todo[1:], 2) == "time left: about 03:20 with 2 at once"
    assert sweep.time_left(todo[1:], 8) == "time left: about 03:20 with 2 at once"  # only two runs are left
    assert sweep.time_left(todo, 3).startswith("time left: about 03:20")  # one run has both its epochs behind it
    assert run(*one, "--seeds", 4, "--dry_run", "--ray", "10.0.0.1:6379") == 0
    assert "about 06:40 one after the other; a cluster shares this\n" in capsys.readouterr().out
    assert sweep.time_left(jobs(*one, "--save_model"), 1) == "time left: about 03:20 with 1 at once"  # all epochs anew
    assert "not counted" in sweep.time_left([*todo, *jobs("--models", "GLAM")], 1)
    assert sweep.time_left([], 1) == "nothing to do"
    (other,) = jobs(*one, "--alpha", 0.1)
    assert "about 03:20" in sweep.time_left([other], 1)  # taken from other settings of this model
    shutil.copytree(done, other.folder)
    (other.folder / "epochs.jsonl").write_text('{"seconds": 1.0}\n')  # which says nothing where others are like the run
    for flag in ("--jobs", "--at_once"):
        assert run(*one, "--seeds", 4, "--dry_run", flag, 2) == 0
        assert "about 03:20 with 2 at once\n" in capsys.readouterr().out

    changed = tmp_path / "changed"
    shutil.copytree(small_release, changed)
    split = json.loads((done / "split.json").read_text())
    wave = next(f for f in changed.rglob(f"{split['test'][0]}.wav"))
    wave.write_bytes(wave.read_bytes()[:-2] + b"\x01\x02")
    monkeypatch.setattr(path, "IEMOCAP", changed)
    data.forget()
    assert [job.state for job in jobs(*one, "--seeds", 3)] == ["stale", "missing", "missing"]


NO_RUNS = [{"settings": {**recipes.Config().settings(), **odd}} for odd in ({"alpha": float("nan")}, {"dataset": 5})]


@pytest.mark.parametrize("text", ["", "[]", "{}", *map(json.dumps, NO_RUNS)])
def test_what_is_no_record_of_a_run_makes_none_stale(text: str, here: Path) -> None:
    (job,) = jobs("--models", "CNN_GAP")
    other = job.folder.parents[1] / "other" / job.folder.name / "config.json"
    other.parent.mkdir(parents=True)
    other.write_text(text)
    assert [job.state for job in jobs("--models", "CNN_GAP")] == ["missing"]


SECONDS = [f'{{"seconds": {seconds}}}' for seconds in ("Infinity", "9" * 400, "NaN", "-1", '"5"', "null")]


@pytest.mark.parametrize("line", [*SECONDS, "{}", "{", "[" * 100_000], ids=lambda line: line[:20])
def test_seconds_that_none_can_be_are_no_estimate(line: str, tmp_path: Path) -> None:
    (tmp_path / "epochs.jsonl").write_text(f"{line}\n")
    assert sweep.epochs(tmp_path) == []


def test_a_quiet_sweep_draws_no_bar(here: Path, monkeypatch) -> None:
    drawn: list[bool] = []
    monkeypatch.setattr(sweep, "run_all", lambda *given, bar: drawn.append(bar) or [])
    assert run("--models", "CNN_GAP", "--seeds", 2) == 0 and drawn == [False]


def test_runs_only_what_is_missing(here: Path, capsys) -> None:
    two = ["--models", "CNN_GAP", "--epochs", 1, "--seeds", 2]
    assert run(*two) == 0
    assert capsys.readouterr().out.endswith("0 finished before, 2 trained now, 0 failed\n")
    before = {name: (folder / "done").stat().st_ctime_ns for name, folder in finished(here).items()}
    assert run(*two[:-1], 3) == 0
    told = capsys.readouterr().out
    assert told.count("done:") == 1 and told.endswith("2 finished before, 1 trained now, 0 failed\n")
    assert before.items() <= {name: (f / "done").stat().st_ctime_ns for name, f in finished(here).items()}.items()


def test_vary_takes_test_corpora(here: Path, tmp_path: Path, small_release: Path) -> None:
    waves = sorted(small_release.rglob("Ses0*.wav"))[:20]
    for name, some in (("a", waves[:10]), ("b", waves[10:])):
        rows = [f"{wave},{('sad', 'angry')[i % 2]},{name}{i % 3}" for i, wave in enumerate(some)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,emotion,speaker", *rows]) + "\n")
    words = ["--datasets", tmp_path / "a.csv", "--padding", "--vary"]
    for flag in ("test", "test_dataset"):
        (job,) = jobs(*words, f"{flag}={tmp_path / 'b.csv'}")
        assert (job.config.split, job.config.test_dataset) == ("cross", str(tmp_path / "b.csv"))


def test_next_takes_the_seeds_that_lack_something(here: Path) -> None:
    first, second, third = seeds.read_seeds()[:3]
    one = ["--models", "CNN_GAP", "--epochs", 1]
    assert run(*one, "--seed", second) == 0
    assert [job.config.seed for job in jobs(*one, "--next", 2)] == [first, third]
    (begun,) = (job.folder for job in jobs(*one, "--seed", first))
    begun.mkdir(parents=True)
    assert [job.state for job in jobs(*one, "--seed", first)] == ["missing"], "an empty folder is no run"
    (begun / "config.json").write_text("{}")
    assert [(job.config.seed, job.state) for job in jobs(*one, "--next", 1)] == [(first, "started")]


def test_what_stops_every_run_is_listed_once(here: Path, tmp_path: Path, capsys) -> None:
    rows = [f"{tmp_path / name}.wav,{label}" for name, label in (("one", "a"), ("t\x1bwo", "b"), ("three", "a"))]
    (tmp_path / "mine.csv").write_text("\n".join(["path,emotion", *rows]))
    words = ["--models", "CNN_GAP", "--epochs", 1, "--seeds", 2, "--datasets", tmp_path / "mine.csv"]
    assert run(*words) == 1
    told = capsys.readouterr().out
    assert told.count("three.wav: does not exist") == 1 and told.count("cannot be used") == 4
    assert "t\\x1bwo.wav" in told and "\x1b" not in told, "a name could command the terminal"
    assert all(not line.endswith(":") for line in told.splitlines()[-2:])


def test_an_error_that_may_pass_is_tried_again(here: Path, monkeypatch, capsys) -> None:
    real, errors = train._epochs, [errno.EIO, errno.EMFILE]

    def one(*given):
        if errors:
            raise OSError(errors.pop(), "it may pass", "a file")
        return real(*given)

    monkeypatch.setattr(train, "_epochs", one)
    assert run("--models", "CNN_GAP", "--epochs", 1) == 0 and len(finished(here)) == 1
    full = OSError(errno.ENOSPC, "No space left on device", "a file")
    assert workers.accident(recipes.config_for("CNN_GAP"), full)[1:] == (
        "failed",
        "cannot use a file: the disk is full",
    )


def test_one_run_that_fails_does_not_stop_the_others(here: Path, monkeypatch, capsys) -> None:
    real, calls = train._epochs, []

    def one(config, *more):
        calls.append(config.seed)
        if config.seed == seeds.read_seeds()[0]:
            raise UserError("the loss is nan")
        if config.seed == seeds.read_seeds()[1]:
            raise RuntimeError("an accident")
        return real(config, *more)

    monkeypatch.setattr(train, "_epochs", one)
    assert run("--models", "CNN_GAP", "--epochs", 1, "--seeds", 3, "--tries", 2) == 1
    told = capsys.readouterr()
    assert "1 trained now, 2 failed" in told.out and "the loss is nan" in told.out
    assert "RuntimeError: an accident (tried 2 times)" in told.out and told.err.count("Traceback") == 2
    assert [calls.count(seed) for seed in seeds.read_seeds()[:3]] == [1, 2, 1], "bad input is not tried again"
    assert len(finished(here)) == 1


def test_a_run_that_another_process_holds_comes_last(here: Path, capsys) -> None:
    words = ["--models", "CNN_GAP", "--epochs", 1, "--seeds", 2]
    first, second = (job.folder for job in jobs(*words))
    sweeping = threading.Thread(target=run, args=words, daemon=True)
    with lock(first / "lock"):
        sweeping.start()
        until((second / "done").exists)
    sweeping.join(600)
    assert (first / "done").exists()
    assert capsys.readouterr().out.endswith("0 finished before, 2 trained now, 0 failed\n")


def test_held_runs_are_given_again_only_once_they_are_free(tmp_path: Path, monkeypatch) -> None:
    todo = [sweep.Job(recipes.config_for("CNN_GAP", seed=seed), tmp_path / str(seed), "missing") for seed in (1, 2)]
    given, holds = [], [ExitStack() for _ in todo]
    for job, hold in zip(todo, holds, strict=True):
        hold.enter_context(lock(job.folder / "lock"))
    monkeypatch.setattr(sweep.time, "sleep", lambda seconds: holds.pop(0).close())  # each look frees one lock

    def execute(configs):
        given.append([config.seed for config in configs])
        for config in configs:
            yield workers.Outcome(config, "done" if sweep._is_free(tmp_path / str(config.seed)) else "held")

    assert sweep.run_all(todo, execute, 3, False) == []
    assert given == [[1, 2], [1], [2]]


def test_a_lock_that_cannot_be_had_is_told_by_trying(tmp_path: Path, monkeypatch) -> None:
    def refuse(folder: Path) -> None:
        raise errors.pop()

    errors = [UserError("this file system has no locks"), PermissionError(13, "Permission denied")]
    monkeypatch.setattr(sweep.records, "locked", refuse)
    assert sweep._is_free(tmp_path) and sweep._is_free(tmp_path)


def test_a_run_that_is_done_is_told_with_its_last_scores(tmp_path: Path) -> None:
    epochs = [{"test": {"WA": 10.0 * i, "UA": 20.0 * i}, "seconds": 1.6} for i in (1, 2)]
    (tmp_path / "epochs.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in epochs))
    told = sweep._line(sweep.Job(recipes.config_for("CNN_GAP", seed=7), tmp_path, "missing"))
    assert told == "done: CNN_GAP impro 8:2 seed 7: WA 20.0  UA 40.0 (last epoch), 3 s"


def test_what_broke_is_tried_again_and_told(tmp_path: Path, monkeypatch, capsys) -> None:
    todo = [sweep.Job(recipes.config_for("CNN_GAP", seed=seed), tmp_path / str(seed), "missing") for seed in (1, 2, 3)]
    given, counted = [], []
    monkeypatch.setattr(sweep.tqdm, "update", lambda bar: counted.append(bar))

    def execute(configs):
        given.append([config.seed for config in configs])
        for config in configs:
            broke = config.seed == 1 or (config.seed == 2 and len(given) == 1)
            yield workers.Outcome(config, "broke" if broke else "done", "why" * broke)

    (failure,) = sweep.run_all(todo, execute, 3, False)
    assert given == [[1, 2, 3], [1, 2], [1]] and failure.endswith("seed 1: why (tried 3 times)")
    assert len(counted) == 3, "the bar counts each run once"
    told = capsys.readouterr().err
    assert told.count("why; it is tried again") == 3 and "sweep:" not in told, "no bar, as none was asked for"


def test_processes_give_what_one_process_gives(here: Path, tmp_path: Path, capsys) -> None:
    words = ["--models", "CNN_GAP", "--epochs", 2, "--seeds", 3]
    assert run(*words, "--jobs", 2, "--runs", tmp_path / "processes") == 0
    assert capsys.readouterr().out.count("done:") == 3
    assert run(*words) == 0
    one, other = finished(here), finished(tmp_path / "processes")
    assert len(one) == 3 and one.keys() == other.keys() and all(content(one[k]) == content(other[k]) for k in one)


def test_a_process_trains_on_no_other_corpus_and_waits_for_nobody(here: Path, monkeypatch) -> None:
    monkeypatch.setattr(train, "train", lambda config, wait=True, **options: here if wait else None)
    (job,) = jobs("--models", "CNN_GAP")
    name, digest = data.identity(job.config)
    assert workers.train_here(job.config, flags.Options(), (name, digest)).status == "held"
    outcome = workers.train_here(job.config, flags.Options(), (name, "of before"))
    assert outcome.status == "failed" and "all has changed since this command began" in outcome.text


@pytest.mark.parametrize("at_once", [1, 2])
def test_a_worker_that_dies_is_told_and_replaced(at_once: int, here: Path, monkeypatch) -> None:
    chosen = []

    class Dying(workers.Worker):
        def __init__(self, gpu, options):
            chosen.append(gpu)
            super().__init__(None, options)

        def give(self, config):
            if config.seed == 1:
                os.kill(self.process.pid, signal.SIGKILL)
                self.process.join()
            super().give(config)

    monkeypatch.setattr(workers, "Worker", Dying)
    configs = [job.config for seed in (1, 2) for job in jobs("--models", "CNN_GAP", "--seed", seed, "--epochs", 1)]
    outcomes = {o.config.seed: o for o in workers.in_processes(configs, at_once, 1, flags.Options(quiet=True))}
    assert (outcomes[1].status, outcomes[2].status) == ("broke", "done") and "killed by signal 9" in outcomes[1].text
    assert chosen == [1] * 2


def test_a_worker_chooses_its_gpu(monkeypatch) -> None:
    import device

    chosen, pipe = [], SimpleNamespace(recv=lambda: ().__getitem__(0))
    monkeypatch.setattr(device, "choose_device", chosen.append)
    monkeypatch.setattr(workers, "keep_bars_apart", lambda: None)
    for gpu in (None, 1):
        with suppress(IndexError):
            workers._serve(pipe, gpu, flags.Options())
    assert chosen == [1]


def test_several_at_once_are_quiet_and_get_what_was_asked_for(tmp_path: Path) -> None:
    given = {"gpu": 1, "runs": tmp_path, "save_model": "last", "skip_bad": True, "tensorboard": True, "epochs": 1}
    options = flags.Options(**{name: value for name, value in given.items() if name not in ("gpu", "epochs")})
    for jobs, at_once, expected in ((2, 1, {"jobs": 2, "gpu": 1}), (1, 2, {"at_once": 2}), (1, 1, {"at_once": 1})):
        with sweep._executor({"ray": None, "jobs": jobs, "at_once": at_once}, given, []) as execute:
            quiet = dataclasses.replace(options, quiet=jobs * at_once > 1)
            assert execute.keywords == {**expected, "options": quiet}  # type: ignore[attr-defined]
            assert execute.func is (workers.in_processes if jobs > 1 else workers.in_turns)  # type: ignore[attr-defined]


def test_a_run_asks_a_cluster_for_what_it_takes(monkeypatch) -> None:
    import cluster

    monkeypatch.setattr(cluster, "connected", lambda address, share, options: (address, share, options.save_model))
    asked: dict = {"ray": "there", "gpus_per_job": None, "cpus_per_job": None}
    settings: list[dict] = [{"threads": 2}, {"threads": 3}, {"device": "cuda"}]
    todo = [sweep.Job(recipes.config_for("CNN_GAP", **each), Path(), "missing") for each in settings]
    given = {"save_model": "last", "epochs": 1}
    assert sweep._executor(asked, given, todo[:2]) == ("there", cluster.Share(3, 0.0), "last")
    assert sweep._executor(asked, given, todo) == ("there", cluster.Share(3, 1.0), "last")
    assert sweep._executor(asked | {"gpus_per_job": 0.25, "cpus_per_job": 0.5}, given, todo)[1] == cluster.Share(
        0.5, 0.25
    )


def group(pgid: int) -> list[str]:
    """Command lines of the processes of a process group that are alive."""
    found = []
    for task in Path("/proc").glob("[0-9]*"):
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
            if int(fields[2]) == pgid and fields[0] != "Z":
                found.append((task / "cmdline").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.parametrize(
    "how", ["Ctrl-C", pytest.param("SIGINT to the parent", marks=pytest.mark.slow), "kill -9 of the parent"]
)
def test_no_process_is_left(how: str, here: Path) -> None:
    words = [
        sys.executable,
        "sweep.py",
        *BASE,
        "--models",
        "CNN_GAP",
        "--epochs",
        "1000",
        "--seeds",
        "3",
        "--jobs",
        "2",
    ]
    process = subprocess.Popen(words, cwd=ROOT, start_new_session=True, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 60
        while len(list(here.glob("*/*/*/*/*/epochs.jsonl"))) < 2 and time.monotonic() < end:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        assert len(children(process.pid)) == 2
        if how == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        else:
            os.kill(process.pid, signal.SIGKILL if "9" in how else signal.SIGINT)
        told = process.communicate(timeout=600)[1]  # which waits until all of them have closed their standard error
        assert process.returncode == (-9 if "9" in how else 130)
        assert "Traceback" not in told and "leaked" not in told and ("interrupted" in told or "9" in how)
        end = time.monotonic() + 60
        while group(process.pid) and time.monotonic() < end:
            time.sleep(0.05)
        assert group(process.pid) == []
    finally:
        for pid in [process.pid]:
            if group(pid):
                os.killpg(pid, signal.SIGKILL)


def test_help_explains_every_state() -> None:
    told = " ".join(sweep.command_line().format_help().split())
    for state in ("done", "started", "missing", "repeat", "stale"):
        assert re.search(rf"{state}: \w+", told.partition("train none. States: ")[2].partition(" where:")[0]), state
