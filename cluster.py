"""Train runs on the machines of a Ray cluster (`pip install -r requirements-cluster.txt`): sweep.py --ray.

This process, the driver, sends the code and, once, the features, through Ray's object store. So workers need neither
the recordings nor a shared disk. They send back the files of a run, which the driver writes.
"""

import logging
import os
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import board
import cli
import data
import path
import records
import train
from cli import UserError, warn
from files import atomic, lock, sweep_temporaries
from flags import Options
from recipes import Config
from records import STATE
from workers import Execute, Outcome, Status, attempt

FILES = ("config.json", "split.json", "epochs.jsonl", "predictions.npz", "checkpoint/README.md",
         "checkpoint/model.safetensors", "checkpoint/config.json")  # fmt: skip
NODES_LOST = 10  # how often a run is sent elsewhere because its machine was lost, at most


@dataclass(frozen=True)
class Share:
    """How many CPUs and GPUs of a machine a run takes."""

    cpus: float
    gpus: float


# ---------------------------------------------------------------------------------------------- on a worker


@contextmanager
def _scratch() -> Iterator[Path]:
    """Yield a temporary folder, after removing those of workers that Ray killed, as when a sweep was interrupted."""
    for stale in Path(tempfile.gettempdir()).glob("glam-worker-*"):
        with suppress(OSError, UserError), lock(stale / ".lock", wait=False) as free:
            if free:
                shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="glam-worker-") as temporary, lock(Path(temporary) / ".lock"):
        yield Path(temporary)


def _train_there(
    config: Config, save_model: str | None, d: data.Data, warp: Any, state: bytes | None
) -> tuple[Outcome, dict[str, bytes]]:
    """Train a run in a temporary folder on a worker. Returns its outcome and, if it is done, the bytes of its files.

    `state` holds the state file of an interrupted run, from which this run goes on.
    """
    with _scratch() as runs:
        folder = records.folder_of(config, d.corpus.dataset, d.digest, runs)
        if state is not None:
            folder.mkdir(parents=True)
            (folder / STATE).write_bytes(state)
        own = replace(d, warp=warp)
        outcome = attempt(config, lambda: train.train(config, d=own, runs=runs, save_model=save_model, quiet=True))
        if outcome.status != "done":
            return outcome, {}
        return outcome, {name: (folder / name).read_bytes() for name in FILES if (folder / name).exists()}


# ----------------------------------------------------------------------------------------------- the driver


@contextmanager
def _sources() -> Iterator[Path]:
    """Yield a temporary folder with a copy of this repository's code and nothing else."""
    with tempfile.TemporaryDirectory() as temporary:
        for pattern in ("*.py", "models/**/*.py", "corpora/**/*.py", "results/published.csv"):
            for file in sorted(path.ROOT.glob(pattern)):
                copy = Path(temporary) / file.relative_to(path.ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, copy)
        yield Path(temporary)


@contextmanager
def connected(address: str, share: Share, options: Options) -> Iterator[Execute]:
    """Connect to the cluster at `address` (`local` starts one here), and yield the function that trains runs on it.

    Raises UserError where there is no cluster, or none of its machines is large enough for a run.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    cli.need("--ray", "requirements-cluster.txt", "ray")
    import ray

    here: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    if address != "local":  # Ray then looks for the cluster once, for 40 s, instead of twenty times
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")
    with _sources() as sources:
        environment = {"working_dir": str(sources), "env_vars": {"GLAM_COMMIT": train.commit() or ""}}
        try:
            ray.init(address, runtime_env=environment, log_to_driver=False, logging_level=logging.ERROR, **here)
        except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            raise UserError(f"--ray {address}: {error}") from None
        try:
            if not _room(share):
                raise UserError(
                    f"no machine of the cluster has {share.cpus:g} CPUs and {share.gpus:g} GPUs for a run: "
                    f"see --cpus_per_job (default: --threads) and --gpus_per_job"
                )
            yield lambda configs: _run(configs, share, options)
        finally:
            ray.shutdown()


def _room(share: Share) -> int:
    """Return how many runs the cluster's machines can train at once."""
    import ray

    room = 0
    for node in ray.nodes():
        if node["Alive"]:
            has = node["Resources"]
            wants = [(has.get("CPU", 0), share.cpus), (has.get("GPU", 0), share.gpus)]
            room += int(min((much / want for much, want in wants if want), default=1))  # 1 if runs take nothing
    return room


@dataclass
class _Job:
    """A run that waits to be sent to a worker, or is under way on one."""

    config: Config
    machines_lost: int = 0
    reference: Any = None  # Ray's reference of the result, while the run is under way
    held: ExitStack = field(default_factory=ExitStack)  # holds the lock on the run folder while the run is under way


class _Sender:
    """Sends runs to workers. Runs that train on the same features share one copy, which is sent once."""

    def __init__(self, share: Share, save_model: str | None, skip_bad: bool):
        import ray

        self.save_model, self.skip_bad = save_model, skip_bad
        self.remote = ray.remote(_train_there).options(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0)
        # id of the data -> the data, kept so that nothing else gets this id, and Ray's reference of the sent copy
        self.sent: dict[int, tuple[data.Data, Any]] = {}

    def load(self, config: Config) -> data.Data:
        """Return the data that a run trains on; features are extracted on this machine."""
        import torch

        return data.load(config if torch.cuda.is_available() else replace(config, device="cpu"), self.skip_bad)

    def send(self, config: Config, d: data.Data, state: Path) -> Any:
        """Send a run, and its file `state` if it is there, to a worker. Returns Ray's reference of the result."""
        import ray

        if id(d) not in self.sent:
            plain = replace(d.train, x=np.asarray(d.train.x))  # in memory: x may be a memory-mapped file
            test = plain if d.test is d.train else replace(d.test, x=np.asarray(d.test.x))
            self.sent[id(d)] = d, ray.put(replace(d, train=plain, test=test))
        warp = None
        if config.augment == "vtlp":  # the warped copies are made here, as workers do not have the recordings
            parts = data.split_by_name(config.split)(d.corpus.utterances, config.seed, config.fold)
            warp = data.warped(d, parts.train, replace(config, device="cpu"))
        begun = state.read_bytes() if state.exists() else None
        return self.remote.remote(config, self.save_model, self.sent[id(d)][1], warp, begun)


def _keep(folder: Path, files: dict[str, bytes]) -> None:
    """Write the files that a worker sent into a run folder, whose lock is held."""
    sweep_temporaries(folder)
    records.open_again(folder)
    board.remove(folder)
    for name in FILES:  # and no others, so that a worker cannot decide what is written where
        if name in files:
            with atomic(folder / name) as temporary:
                temporary.write_bytes(files[name])
    records.finish(folder)


def _result(job: _Job) -> tuple[Outcome, dict[str, bytes]]:
    """Return the outcome and the files that a worker sent, or an outcome that says that it or its machine was lost."""
    from ray import exceptions, get

    try:
        return get(job.reference)
    except exceptions.NodeDiedError:
        job.machines_lost += 1
        status: Status = "lost" if job.machines_lost <= NODES_LOST else "failed"
        return Outcome(job.config, status, "the machine it was on was lost"), {}
    except exceptions.RayError as error:
        what = (str(error).strip() or type(error).__name__).splitlines()[0]
        return Outcome(job.config, "broke", f"its worker was lost ({what})"), {}


def _run(configs: Sequence[Config], share: Share, options: Options) -> Iterator[Outcome]:
    """Train runs on the cluster; each one's folder is locked while it is under way. Yields their outcomes."""
    import ray

    runs, sender = options.runs, _Sender(share, options.save_model, options.skip_bad)
    queue = deque(_Job(config) for config in configs)
    under_way: dict[Any, _Job] = {}
    waiting_since = time.monotonic()
    try:
        while queue or under_way:
            # one run more than fits is sent, so that no worker waits for its next run
            while queue and len(under_way) <= _room(share):
                job = queue.popleft()
                outcome = attempt(job.config, partial(_start, job, runs, sender))
                if job.reference is not None:
                    under_way[job.reference] = job
                    continue
                job.held.close()
                yield outcome
            ready, _ = ray.wait(list(under_way), timeout=2) if under_way else ([], [])
            for reference in ready:
                waiting_since = time.monotonic()
                job = under_way.pop(reference)
                outcome = _finish(job, runs)
                job.held.close()
                if outcome.status == "lost":  # the run is not to blame
                    warn(f"{job.config.model} seed {job.config.seed}: {outcome.text}; it is tried again")
                    queue.append(job)
                else:
                    yield outcome
            if not _room(share) and time.monotonic() - waiting_since > 60:
                waiting_since = time.monotonic()
                warn("no machine is left that is large enough for a run; waiting for one to join the cluster")
    finally:
        for job in under_way.values():
            job.held.close()


def _start(job: _Job, runs: Path, sender: _Sender) -> Path | None:
    """Lock a run's folder, send the run, and set `job.reference`. Returns the folder, or None if another process holds
    it. A run that is held, or already finished, is not sent and gets no reference."""
    job.reference = None
    d = sender.load(job.config)
    folder = records.folder_of(job.config, d.corpus.dataset, d.digest, runs)
    if records.finished(folder, sender.save_model):
        return folder
    if not job.held.enter_context(records.locked(folder)):
        return None
    if not records.finished(folder, sender.save_model):  # another process may have finished it before we had the lock
        records.warn_of_replacement(folder, sender.save_model)
        job.reference = sender.send(job.config, d, folder / STATE)
    return folder


def _finish(job: _Job, runs: Path) -> Outcome:
    """Write the files that a worker sent, if its run is done, and return the outcome."""
    outcome, files = _result(job)
    if outcome.status != "done":
        return outcome

    def keep() -> Path:
        folder = records.folder_of(job.config, *data.identity(job.config), runs)
        _keep(folder, files)
        return folder

    return attempt(job.config, keep)
