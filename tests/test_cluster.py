"""sweep.py --ray on a real cluster of two nodes on this machine."""

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from faults import FLAGS, Watch, content, finished, until

pytest.importorskip("ray", reason="pip install -r requirements-cluster.txt")
pytestmark = pytest.mark.cluster
BASE = [*FLAGS, "--tries", "3", "--cpus_per_job", "1"]
STORE = 200_000_000  # bytes: Ray would take a third of the memory


@pytest.fixture
def cluster() -> Iterator[object]:
    """Two nodes, one CPU each; the driver sits on the first."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    yield made
    made.shutdown()


def run(*words: object) -> int:
    import sweep

    old, sys.argv = sys.argv, ["sweep.py", *BASE, *map(str, words)]
    try:
        return sweep.main()
    finally:
        sys.argv = old


def sequential(runs: Path, *words: object) -> dict[str, Path]:
    import sweep

    old, sys.argv = sys.argv, ["sweep.py", *FLAGS, "--runs", str(runs), *map(str, words)]
    try:
        assert sweep.main() == 0
    finally:
        sys.argv = old
    return finished(runs)


def equal(one: dict[str, Path], other: dict[str, Path]) -> bool:
    return one.keys() == other.keys() and all(content(one[k]) == content(other[k]) for k in one)


def test_a_node_is_killed_in_mid_sweep(cluster, here: Path, tmp_path: Path, capsys) -> None:
    doomed = cluster.add_node(num_cpus=1, object_store_memory=STORE)
    killed: list[float] = []

    def busy() -> bool:
        """Whether a run is on the node: at no other moment is one lost with it."""
        import ray
        from ray._private.state import available_resources_per_node

        free = available_resources_per_node().get(doomed.node_id) if ray.is_initialized() else None
        return free is not None and not free.get("CPU")

    def kill() -> None:
        until(lambda: len(finished(here)) >= 2, 300)  # each node has begun its second run: the first ones end together
        until(lambda: busy() and not time.sleep(1) and busy(), 300)
        cluster.remove_node(doomed, allow_graceful=False)
        killed.append(time.monotonic())

    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    words = ["--seeds", 4, "--epochs", 80, "--save_model"]  # some seconds each: a node takes a moment to die
    with Watch(here) as watch:
        assert run(*words, "--ray", cluster.address) == 0
    thread.join(600)
    told = capsys.readouterr()
    assert killed and "the machine it was on was lost; it is tried again" in told.err
    reference = sequential(tmp_path / "sequential", *words)
    assert len(reference) == 4 and equal(finished(here), reference)
    assert watch.doubled(tmp_path / "sequential") == []


def test_failures_are_reported_and_the_rest_is_done(cluster, here: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    """A run that breaks by itself, one whose worker dies, and one that diverges; vtlp, too."""
    import cluster as driver
    import seeds

    broken, dying, diverging = seeds.read_seeds()[:3]
    real = driver._train_there

    def there(config, *more):
        import os

        from cli import UserError

        if config.seed == broken:
            raise RuntimeError("an accident")
        if config.seed == dying:
            os._exit(3)
        if config.seed == diverging:
            raise UserError("the loss is nan")
        return real(config, *more)

    def outcome(config, *more):
        import workers

        files: dict[str, bytes] = {}

        def one():
            files.update(there(config, *more)[1])
            return True

        return workers.attempt(config, one), files

    monkeypatch.setattr(driver, "_train_there", outcome)
    words = ["--seeds", 5, "--augment", "vtlp", "--tries", 2]
    assert run(*words, "--ray", cluster.address) == 1
    told = capsys.readouterr()
    assert "2 trained now, 3 failed" in told.out
    assert (
        "an accident (tried 2 times)" in told.out
        and "its worker was lost" in told.out
        and "the loss is nan" in told.out
    )
    monkeypatch.undo()
    reference = sequential(tmp_path / "sequential", *words)
    assert equal(
        finished(here), {k: v for k, v in reference.items() if Path(k).name not in map(str, (broken, dying, diverging))}
    )


def test_local_cluster_by_command(here: Path, tmp_path: Path, command) -> None:
    import flags
    import loops
    import train

    config = flags.parse_config({"model": "CNN_GAP", "dataset": "all", "epochs": 3, "threads": 1, "gpu": -1, "seed": 1})
    real = loops.Trainer.epoch

    def once(trainer, epoch, *given):
        if epoch == 2:
            raise KeyboardInterrupt
        return (yield from real(trainer, epoch, *given))

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loops.Trainer, "epoch", once)
        train.train(config, runs=here, quiet=True)
    (state,) = here.glob("*/*/*/*/*/state.safetensors")  # its worker goes on from there
    told = command("sweep.py", *BASE, "--seed", 1, "--ray", "local")
    assert "0 finished before, 1 trained now, 0 failed" in told.stdout and not state.exists()
    assert equal(finished(here), sequential(tmp_path / "sequential", "--seed", 1))


def test_no_machine_is_large_enough(here: Path, command) -> None:
    told = command("sweep.py", *FLAGS, "--ray", "local", "--gpus_per_job", 99, status=2)
    assert "no machine of the cluster has" in told.stderr and not finished(here)


def test_no_cluster_there(here: Path, command) -> None:
    command("sweep.py", *FLAGS, "--ray", "not an address", status=2)


def test_a_cluster_whose_token_is_lacking_is_told(monkeypatch) -> None:
    import ray

    import cluster
    from cli import UserError
    from flags import Options

    def refuse(*_: object, **__: object) -> None:
        raise ray.exceptions.AuthenticationError("no authentication token was found")

    monkeypatch.setattr(ray, "init", refuse)
    found = cluster.connected("auto", cluster.Share(1, 0), Options())
    with pytest.raises(UserError, match="--ray auto: no authentication token was found"), found:
        pass


# ------------------------------------------------------------------------------------------ without a cluster


@pytest.fixture
def config(here: Path) -> Any:
    import recipes

    return recipes.config_for("CNN_GAP", dataset="all", epochs=1, threads=1, seed=1)


def folder_of(config: Any, runs: Path) -> Path:
    import data
    import records

    return records.folder_of(config, *data.identity(config), runs)


def test_machines_have_room_for_what_all_of_a_run_fits(monkeypatch) -> None:
    import ray

    import cluster as driver

    has = [(True, {"CPU": 4.0, "GPU": 1.0}), (False, {"CPU": 64.0, "GPU": 8.0}), (True, {"CPU": 3.0})]
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": alive, "Resources": each} for alive, each in has])
    shares = {(1, 0.5): 2, (2, 0): 3, (3, 1): 1, (8, 0): 0, (0, 0): 2}
    assert {share: driver._room(driver.Share(*share)) for share in shares} == shares


def test_a_run_that_is_held_or_done_meanwhile_is_not_sent(config, here: Path, monkeypatch) -> None:
    import cluster as driver
    import data
    import records
    from files import lock

    sent: list[Any] = []
    sender: Any = SimpleNamespace(
        save_model=None, load=lambda config: data.load(config), send=lambda *_: sent.append(_)
    )
    folder, real = folder_of(config, here), records.locked
    job = driver._Job(config, reference="of the machine that was lost")
    with lock(folder / "lock"):
        assert driver._start(job, here, sender) is None
    assert (sent, job.reference) == ([], None)

    @contextmanager
    def late(folder: Path) -> Iterator[bool]:
        with real(folder) as mine:
            (folder / "done").touch()
            yield mine

    monkeypatch.setattr(records, "locked", late)
    assert driver._start(job, here, sender) == folder
    assert (sent, job.reference) == ([], None)


def test_runs_are_locked_until_written_and_few_at_once(config, here: Path, monkeypatch) -> None:
    from dataclasses import replace

    import ray

    import cluster as driver
    import flags
    import sweep
    import workers

    under_way, free = [], []

    def wait(references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        under_way.append(len(references))
        return references[:1], references[1:]

    load, send = (lambda config: driver.data.load(config)), (lambda config, *_: config.seed)
    sender = SimpleNamespace(save_model=None, load=load, send=send)
    monkeypatch.setattr(driver, "_Sender", lambda *_: sender)
    monkeypatch.setattr(driver, "_room", lambda share: 1)
    monkeypatch.setattr(driver, "_result", lambda job: (workers.Outcome(job.config, "done"), {}))
    monkeypatch.setattr(driver, "_keep", lambda folder, files: free.append(sweep._is_free(folder)))
    monkeypatch.setattr(ray, "wait", wait)
    configs = [replace(config, seed=seed) for seed in range(1, 5)]
    outcomes = list(driver._run(configs, driver.Share(1, 0), flags.Options(runs=here)))
    assert [(one.config, one.status) for one in outcomes] == [(config, "done") for config in configs]
    assert free == [False] * 4 and all(sweep._is_free(folder_of(config, here)) for config in configs)
    assert under_way == [2, 2, 2, 1]


def test_a_lost_machine_is_not_the_runs_fault_ten_times(config, monkeypatch) -> None:
    import ray

    import cluster as driver

    def lost(reference: object) -> None:
        raise ray.exceptions.NodeDiedError("gone")

    monkeypatch.setattr(ray, "get", lost)
    job = driver._Job(config)
    assert [driver._result(job)[0].status for _ in range(11)] == ["lost"] * 10 + ["failed"]


def test_a_worker_is_sent_all_it_needs_the_features_once(config, tmp_path: Path, monkeypatch) -> None:
    from dataclasses import replace

    import ray

    import cluster as driver
    import data

    put, asked, options, real = [], [], {}, data.load
    remote = SimpleNamespace(remote=lambda *given: given)
    monkeypatch.setattr(
        ray, "remote", lambda function: SimpleNamespace(options=lambda **o: options.update(o) or remote)
    )
    monkeypatch.setattr(ray, "put", lambda d: put.append(d) or d)
    monkeypatch.setattr(data, "load", lambda config, skip_bad: asked.append(skip_bad) or real(config, skip_bad))
    sender = driver._Sender(driver.Share(2, 0.5), "last", True)
    assert options == {"num_cpus": 2, "num_gpus": 0.5, "max_retries": 0}
    config = replace(config, augment="vtlp")
    d, state = sender.load(config), tmp_path / "state"
    _, rule, sent, warp, begun = sender.send(config, d, state)
    expected = data.warped(d, data.split_by_name("8:2")(d.corpus.utterances, 1, None).train, config)
    assert all(np.array_equal(one, other) for one, other in zip(warp, expected, strict=True))
    assert (rule, begun, asked) == ("last", None, [True]) and type(sent.train.x) is type(sent.test.x) is np.ndarray
    state.write_bytes(b"begun")
    assert sender.send(replace(config, augment="none"), d, state)[3:] == (None, b"begun") and len(put) == 1
    assert [kept is d for kept, _ in sender.sent.values()] == [True]  # else another's might get its id


def test_what_a_worker_sends_replaces_what_was_there(tmp_path: Path, monkeypatch) -> None:
    import cluster as driver

    folder = tmp_path / "run"
    old = ("done", "epochs.jsonl.gz", "split.json.gz", "checkpoint/config.json", "tensorboard/events", "config.json")
    for name in old:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("old")
    new = dict.fromkeys(("config.json", "split.json", "epochs.jsonl", "predictions.npz"), b"new")
    files = {**new, "../stray": b"", "own.py": b""}
    with monkeypatch.context() as patch, pytest.raises(TypeError):
        patch.setattr(driver, "atomic", None)  # the disk is full
        driver._keep(folder, files)
    assert not (folder / "done").exists()
    driver._keep(folder, files)
    have = {str(f.relative_to(tmp_path)): f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    assert have == {**{f"run/{name}": b"new" for name in new}, "run/done": b""}


def test_a_worker_needs_no_corpus(here: Path, small_release: Path, tmp_path: Path, monkeypatch) -> None:
    """Not for the weights of a run on two corpora either."""
    import cluster as driver
    import data
    import recipes

    for name, sessions in (("a", "12"), ("b", "3")):
        waves = sorted(f for s in sessions for f in small_release.rglob(f"Ses0{s}*.wav"))[::2]
        rows = [f"{wave},{('sad', 'angry')[i % 2]},{wave.name[:5]}{wave.stem[-4]}" for i, wave in enumerate(waves)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,emotion,speaker", *rows]) + "\n")
    own, other = str(tmp_path / "a.csv"), str(tmp_path / "b.csv")
    config = recipes.config_for("CNN_GAP", dataset=own, test_dataset=other, split="cross", epochs=1, padding=True)
    d = data.load(config)
    monkeypatch.setattr(data, "corpus", None)
    outcome, files = driver._train_there(config, "last", d, None, None)
    assert (outcome.status, outcome.text) == ("done", "") and "checkpoint/model.safetensors" in files
    assert json.loads(files["checkpoint/config.json"])["synthetic"] is False
