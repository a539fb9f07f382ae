"""Files from elsewhere: a clear error or a right answer, never code that runs or a file outside our folders."""

import json
import os
import pickle
import re
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from faults import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_runs import make_run

import data
import flags
import pack
import recipes
import records
import report
import resume
import seeds
import train
from cli import UserError
from corpora import Utterance, csv_file
from files import read_json

FUZZ = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
UTTERANCES = [
    Utterance(f"Ses01F_impro01_{s}00{i}", f"/c/{i}.wav", s, "1", "Ses01F_impro01", "impro", e)
    for i, e in enumerate(("neu", "sad", "ang", "exc"))
    for s in "FM"
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


NASTY = [b"", b"\0", b"\xff\xfe", b'"', b",", b"\n", b"\r", b"NaN", b"1e999", b"-1", b"null", b"[]", b"{}", b"../../x",
         b"9" * 30, b"9" * 5000, b"[" * 200000]  # fmt: skip


@st.composite
def changes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A way to damage a file: bytes replaced, removed or added at a few places, or something else altogether."""
    if draw(st.integers(0, 9)) == 0:
        other = draw(st.binary(max_size=200))
        return lambda _: other
    new = st.binary(max_size=8) | st.sampled_from(NASTY)
    edits = draw(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 40), new), min_size=1, max_size=3))

    def change(whole: bytes) -> bytes:
        for where, length, new in edits:
            at = int(where * len(whole))
            whole = whole[:at] + new + whole[at + length :]
        return whole

    return change


# ------------------------------------------------------------------------------------------------------- readers


@FUZZ
@given(change=changes())
def test_csv_corpus(change: Callable, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    rows = "".join(f"{u.path},{u.emotion},{u.speaker},{u.session}\n" for u in UTTERANCES)
    file.write_bytes(change(f"path,emotion,speaker,session\n{rows}".encode()))
    try:
        found = csv_file.utterances(file)
        whole = data.corpus(str(file))
    except UserError as error:
        assert str(file) in str(error) or str(tmp_path) in str(error)
        return
    assert len(found) == len(whole.utterances) == len(whole.labels), "a row was dropped silently"


@FUZZ
@given(names=st.lists(st.text(max_size=12).filter(lambda t: "\0" not in t), min_size=1, max_size=4, unique=True))
def test_csv_corpus_says_every_row_back(names: list[str], tmp_path: Path) -> None:
    import csv

    file = tmp_path / "mine.csv"
    rows = [(n, e) for n, e in zip(names, "abab", strict=False) if n.strip()]
    rows = list({n.strip(): (n, e) for n, e in rows}.values())
    try:
        with open(file, "w", newline="", encoding="utf-8") as f:
            csv.writer(f).writerows([("path", "emotion"), *rows])
    except UnicodeEncodeError:
        return
    if not rows:
        with pytest.raises(UserError, match="has a header and no rows"):
            csv_file.utterances(file)
        return
    files = [os.path.normpath(tmp_path / name.strip()) for name, _ in rows]
    if len(set(files)) < len(files):
        with pytest.raises(UserError, match="is there twice"):
            csv_file.utterances(file)
        return
    found = csv_file.utterances(file)
    assert {os.path.normpath(u.path) for u in found} == set(files) and len({u.name for u in found}) == len(files)


@FUZZ
@given(change=changes())
def test_json_files(change: Callable, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_bytes(change(json.dumps({"a": [1, 2.5, None], "b": "text"}).encode()))
    try:
        read_json(file)
    except UserError as error:
        assert str(file) in str(error)


@FUZZ
@given(change=changes())
def test_seeds(change: Callable, tmp_path: Path) -> None:
    file = tmp_path / "seeds.txt"
    file.write_bytes(change(b"2602656884\n3431165269\n3149797433\n"))
    try:
        assert all(0 <= seed < 2**32 for seed in seeds.read_seeds(file))
    except UserError as error:
        assert str(file) in str(error)


def look_at(runs: Path) -> None:
    """What reports and sweeps read of a run folder."""
    import sweep

    with suppress(UserError):  # that all are broken
        assert len(report.table(report.runs(runs), "last")) <= 1
    for run in report.runs(runs):
        for read in (
            lambda run=run: run.predictions("test"),
            lambda run=run: run.scores("paper"),
            lambda run=run: run.split_digest,
        ):
            try:
                read()
            except UserError:
                continue
        with suppress(UserError):
            assert records.Halved(run).scores("validation")
        with suppress(UserError):
            assert records.Halved(run).split_digest
        assert isinstance(sweep.epochs(run.folder), list)
    sweep._is_stale(runs / "impro" / "8-2" / "GLAM" / "other" / "1", recipes.config_for("GLAM"))


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("config.json", False),
        ("epochs.jsonl", False),
        ("split.json", False),
        ("predictions.npz", False),
        ("epochs.jsonl.gz", True),
        ("split.json.gz", True),
        ("predictions.npz", True),
    ],
)
def test_run_folder(name: str, packed: bool, tmp_path: Path) -> None:
    labels = np.array([0, 1, 2, 3, 0, 1])
    folder = make_run(tmp_path, [labels, labels[::-1]], labels, settings={"epochs": 2})
    assert not packed or pack.pack(folder)
    whole = (folder / name).read_bytes()

    @settings(FUZZ, max_examples=60)
    @given(change=changes())
    def one(change: Callable) -> None:
        (folder / name).write_bytes(change(whole))
        look_at(tmp_path)

    one()


def test_run_configuration_of_other_types(tmp_path: Path) -> None:
    labels = np.array([0, 1, 2, 3, 0, 1])
    folder = make_run(tmp_path, [labels], labels)
    config = json.loads((folder / "config.json").read_text())

    @settings(FUZZ, max_examples=60)
    @given(key=st.sampled_from(sorted(config)), value=JSON)
    def one(key: str, value: object) -> None:
        (folder / "config.json").write_text(json.dumps({**config, key: value}))
        look_at(tmp_path)

    one()


def parts_of_a_run() -> tuple[torch.nn.Module, torch.optim.Optimizer, np.random.RandomState]:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return model, optimizer, np.random.RandomState(1)


@FUZZ
@given(change=changes())
def test_state(change: Callable, tmp_path: Path) -> None:
    file = tmp_path / "state.safetensors"
    resume.save_state(file, *parts_of_a_run(), resume.History([{"epoch": 1}], {"test": [np.ones((2, 2), np.float32)]}))
    whole = file.read_bytes()
    file.write_bytes(change(whole))
    history = resume.History([], {})
    try:
        resume.load_state(file, *parts_of_a_run(), history)
    except resume.BrokenState as error:
        assert str(file) in str(error)
        return
    assert history.records == [{"epoch": 1}], "a damaged state was used"


def test_state_comes_back(tmp_path: Path) -> None:
    file, run = tmp_path / "state.safetensors", parts_of_a_run()
    resume.save_state(file, *run, resume.History([{"epoch": 1}], {"test": [np.ones((2, 2), np.float32)]}, best_epoch=0))
    other, history = parts_of_a_run(), resume.History([], {})
    resume.load_state(file, *other, history)
    assert (history.records, history.best_epoch) == ([{"epoch": 1}], 0)
    assert all(torch.equal(a, b) for a, b in zip(run[0].parameters(), other[0].parameters(), strict=True))
    assert run[2].randint(1 << 30) == other[2].randint(1 << 30)


# --------------------------------------------------------------------------------------------- code in disguise


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, target: Path):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


def test_nothing_here_unpickles() -> None:
    words = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "*.py"]  # whoever owns it
    tracked = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    forbidden = re.compile(
        r"^\s*(import|from) (c?[pP]ickle|dill|joblib|shelve|marshal|cloudpickle)\b|pickle\.loads?\(|torch\.load\(|"
        r"allow_pickle\s*=\s*True|yaml\.(unsafe_|full_)?load\(|read_pickle\(|\beval\(|\bexec\("
    )
    found = []
    for name in tracked.stdout.split():
        if name.startswith("tests/"):
            continue
        text = (ROOT / name).read_text(encoding="utf-8").replace("model.eval()", "").replace(".eval()", "")
        found += [f"{name}: {line.strip()}" for line in text.splitlines() if forbidden.search(line)]
        loads = re.findall(r"np\.load\((?:[^()]|\([^()]*\))*\)", text)
        found += [f"{name}: {load} without allow_pickle=False" for load in loads if "allow_pickle=False" not in load]
    assert found == []


def test_pickles_are_not_opened(here: Path, tmp_path: Path) -> None:
    """In every place from which something is read."""
    target, bomb = tmp_path / "it ran", pickle.dumps(Bomb(tmp_path / "it ran"))
    config = flags.parse_config({"model": "CNN_GAP", "dataset": "all", "gpu": -1, "epochs": 1, "seed": 3})
    folder = train.train(config, runs=here, save_model="last", quiet=True)
    wanted = [folder / "predictions.npz", folder / "config.json", folder / "epochs.jsonl", folder / "split.json"]
    for file in wanted:
        whole = file.read_bytes()
        file.write_bytes(bomb)
        for read in (lambda: report.runs(here)[0].predictions("test"), lambda: report.table(report.runs(here), "last")):
            try:
                read()
            except (UserError, IndexError):
                continue
        file.write_bytes(whole)
    np.savez(folder / "predictions.npz", test_names=np.array([Bomb(target)], dtype=object))
    with pytest.raises(UserError):
        report.runs(here)[0].predictions("test")

    import checkpoints

    for name in ("model.safetensors", "config.json"):
        whole = (folder / "checkpoint" / name).read_bytes()
        (folder / "checkpoint" / name).write_bytes(bomb)
        with pytest.raises(UserError):
            checkpoints.load(folder)
        (folder / "checkpoint" / name).write_bytes(whole)
    torch.save(Bomb(target), folder / "checkpoint" / "model.safetensors")
    with pytest.raises(UserError):
        checkpoints.load(folder)

    begun = recipes.replace(config, seed=4)
    state = records.folder_of(begun, *data.identity(begun), here) / "state.safetensors"
    state.parent.mkdir(parents=True)
    torch.save({"model": Bomb(target)}, state)
    train.train(begun, runs=here, quiet=True)
    assert not target.exists()
    pickle.loads(bomb)
    assert target.exists(), "the bomb is a dud"


# ------------------------------------------------------------------------------------- names that lead elsewhere


def every_file(folder: Path) -> set[str]:
    return {str(f.relative_to(folder)) for f in folder.rglob("*")}


@pytest.mark.parametrize(
    "name", ["../../../../../../x", "/tmp/x/../y", "..", "a/../../b", "~", "c:\\x", "%2e%2e/x", "$HOME"]
)
def test_names_in_a_csv_do_not_lead_out(
    name: str, here: Path, small_release: Path, tmp_path: Path, monkeypatch
) -> None:
    import path

    monkeypatch.setattr(path, "CACHE", tmp_path / "cache")
    waves = sorted(f for f in small_release.glob("*/sentences/wav/*/*.wav") if f.stat().st_size > 80000)[:12]
    lines = [f"{name}{i},{wave},{'ab'[i % 2]},{name},{name},{name},{name}" for i, wave in enumerate(waves)]
    manifest = tmp_path / f"{'..' if name == '..' else ''}.csv"
    manifest.write_text("name,path,emotion,speaker,session,dialog,split\n" + "\n".join(lines) + "\n")
    before = every_file(small_release)
    config = flags.parse_config({"model": "CNN_GAP", "dataset": str(manifest), "gpu": -1, "epochs": 1, "threads": 1})
    folder = train.train(config, runs=here, save_model="last", quiet=True)
    assert folder is not None and folder.resolve().is_relative_to(here.resolve())
    assert {f.name for f in tmp_path.iterdir()} == {manifest.name, "cache", here.name}
    assert every_file(small_release) == before
    assert len(report.runs(here)) == 1 and report.runs(here)[0].dataset == folder.relative_to(here).parts[0]


@pytest.mark.parametrize("key", ["dataset", "model", "split", "hash", "seed", "recipe", "corpus"])
def test_a_run_from_elsewhere_does_not_lead_out(key: str, tmp_path: Path, monkeypatch) -> None:
    labels = np.array([0, 1, 2, 3] * 3)
    root = tmp_path / "a" / "b" / "c" / "d"
    folder = make_run(root / "runs", [labels, labels[::-1]], labels)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, key: 7 if key == "seed" else "../../../../x"}))
    before, out = every_file(tmp_path), root / "figures"
    for name in ("curves", "confusion"):
        with suppress(UserError):
            report.main(["--runs", str(root / "runs"), "--figure", name, "--rule", "last", "--output", str(out)])
    assert {f for f in every_file(tmp_path) - before if not f.startswith("a/b/c/d/figures")} == set()
    assert out.exists() == (key not in ("dataset", "split", "model")), "nothing was drawn"


def test_a_worker_decides_no_path(tmp_path: Path) -> None:
    import cluster

    folder = tmp_path / "runs" / "run"
    own = dict.fromkeys(("config.json", "split.json", "epochs.jsonl", "predictions.npz"), b"{}")
    cluster._keep(folder, {**own, "../../x": b"no", "/tmp/w/no": b"no", "done": b"no"})
    assert every_file(tmp_path) == {"runs", "runs/run", *(f"runs/run/{name}" for name in (*own, "done"))}
    assert (folder / "done").read_bytes() == b""
    with pytest.raises(UserError, match=r"predictions\.npz went away"):  # some of a run does not count as one
        cluster._keep(tmp_path / "other", {name: own[name] for name in ("config.json", "split.json", "epochs.jsonl")})
    assert not (tmp_path / "other" / "done").exists()


def test_refused_files_show_no_traceback(tmp_path: Path, command) -> None:
    file = tmp_path / "bad.csv"
    file.write_bytes(b"path,emotion\n\xff\xfe,x\n")
    told = command("train.py", "--dataset", file, "--gpu", -1, status=2)
    assert str(file) in told.stderr
