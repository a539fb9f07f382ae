"""sweep.py --ray on a real cluster of two nodes on this machine."""

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

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
    assert "2 trained, 3 failed" in told.out
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
    import loops
    import recipes
    import train

    config = recipes.parse_config(
        {"model": "CNN_GAP", "dataset": "all", "epochs": 3, "threads": 1, "gpu": -1, "seed": 1}
    )
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
    assert "0 were done, 1 trained, 0 failed" in told.stdout and not state.exists()
    assert equal(finished(here), sequential(tmp_path / "sequential", "--seed", 1))


def test_no_machine_is_large_enough(here: Path, command) -> None:
    told = command("sweep.py", *FLAGS, "--ray", "local", "--gpus_per_job", 99, status=2)
    assert "no machine of the cluster has" in told.stderr and not finished(here)


def test_no_cluster_there(here: Path, command) -> None:
    command("sweep.py", *FLAGS, "--ray", "not an address", status=2)
