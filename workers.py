"""Train runs in this process, one after the other or several in turns, or several in processes of their own.

Each of these ways, like the one in cluster.py, takes configurations and yields an Outcome for each. None of them waits
for a run that another process holds, or tries a broken run again: `sweep.run_all` gives them such a run once more.
"""

import contextlib
import errno
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Literal, NamedTuple

from cli import UserError, keep_bars_apart, refusal, warn
from flags import Options
from recipes import Config

Status = Literal[
    "done",
    "held",  # another process trains it
    "failed",  # the reason will stay: it is not tried again
    "broke",  # the reason may pass: it is tried again, a few times
    "lost",  # its machine was lost: it is tried again, and this does not count as a try
]


class Outcome(NamedTuple):
    """What became of a run."""

    config: Config
    status: Status
    text: str = ""  # what went wrong


# errors of a disk, a network or a limit that may be gone the next time
PASSING = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE, errno.ENFILE)

Execute = Callable[[Sequence[Config]], Iterator[Outcome]]  # trains runs; each outcome comes as its run ends


def accident(config: Config, error: Exception) -> Outcome:
    """Return the outcome of a run that raised this error, as one run's accident is no reason to stop the others."""
    import device

    if isinstance(error, UserError):
        return Outcome(config, "failed", str(error))
    if device.is_out_of_memory(error):
        return Outcome(config, "failed", str(device.out_of_memory(error)))
    if isinstance(error, OSError) and (reason := refusal(error)):
        return Outcome(config, "broke" if error.errno in PASSING else "failed", reason)
    traceback.print_exception(error)
    return Outcome(config, "broke", f"{type(error).__name__}: {error}")


def attempt(config: Config, train_one: Callable[[], Path | None]) -> Outcome:
    """Return the outcome of calling `train_one`, which returns a run's folder, or None if another process holds it."""
    try:
        return Outcome(config, "done" if train_one() else "held")
    except Exception as error:
        return accident(config, error)


def train_here(config: Config, options: Options, corpus: tuple[str, str]) -> Outcome:
    """Train a run in this process, if its corpus still is `corpus`, the `data.identity` when the sweep began."""
    import data
    import train

    def train_one() -> Path | None:
        if data.identity(config) != corpus:
            raise data.changed_meanwhile(corpus[0])
        return train.train(config, wait=False, **vars(options))

    return attempt(config, train_one)


# ------------------------------------------------------------------------------- in turns, in this process


def in_turns(configs: Sequence[Config], at_once: int, options: Options) -> Iterator[Outcome]:
    """Train up to `at_once` runs in this process, in turns.

    If the GPU's memory is too small, fewer run at once; when a run ends and another model is next, one more is tried.
    A run that found no room goes on later from its last epoch.
    """
    import torch

    import device
    import train
    from turns import Turn

    queue, room = deque(configs), at_once
    running: list[tuple[Turn[Path | None], Config]] = []
    try:
        while queue or running:
            while queue and len(running) < room:
                config = queue.popleft()
                running.append((Turn(train.steps(config, wait=False, **vars(options)), config.device), config))
            for each in list(running):
                turn, config = each
                try:
                    turn.advance()
                    if turn.going:
                        continue
                    outcome = Outcome(config, "done" if turn.result else "held")
                    if turn.result and queue and queue[0].model != config.model:  # the next model may be smaller
                        room = min(at_once, room + 1)
                except Exception as error:
                    if device.is_out_of_memory(error) and len(running) > 1:
                        room = len(running) - 1
                        warn(f"{len(running)} runs at once do not fit into memory: {room} go on")
                        queue.appendleft(config)
                        outcome = None
                    else:
                        outcome = accident(config, error)
                running.remove(each)
                with contextlib.suppress(RuntimeError):  # if a GPU fails for good, each run on it says so
                    torch.cuda.empty_cache()
                if outcome:
                    yield outcome
    finally:
        for turn, _ in running:
            turn.close()


# ------------------------------------------------------------------------------- several in processes of their own


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        signal.raise_signal(signal.SIGKILL)  # even in the middle of a run, as files on disk are whole at any moment


def _serve(pipe: connection.Connection, gpu: int | None, options: Options) -> None:
    """Train the runs that come through the pipe until it is closed. This is what a worker's process does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if gpu is not None:
        from device import choose_device

        choose_device(gpu)  # each process has its own choice of a GPU
    keep_bars_apart()
    with contextlib.suppress(EOFError):
        while True:
            config, corpus = pipe.recv()
            pipe.send(train_here(config, options, corpus))


class Worker:
    """A process that trains one run at a time."""

    def __init__(self, gpu: int | None, options: Options):
        context = get_context("spawn")  # a fork of a process that has used torch's threads or CUDA would hang
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, gpu, options), daemon=True)
        self.config: Config | None = None
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child inherits it; on Ctrl-C, the parent ends us
        try:
            self.process.start()
        finally:
            signal.signal(signal.SIGINT, before)
        theirs.close()

    def give(self, config: Config) -> None:
        """Start a run. If the process is dead, `outcome` will say so."""
        import data

        self.config = config
        with contextlib.suppress(BrokenPipeError):
            self.pipe.send((config, data.identity(config)))

    def outcome(self) -> Outcome:
        """Wait for the run, and return its outcome."""
        config, self.config = self.config, None
        assert config is not None
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join()
            status = self.process.exitcode or 0
            how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
            return Outcome(config, "broke", f"its process died ({how}; out of memory?)")

    def end(self) -> None:
        """Kill the process, whatever it does."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def in_processes(configs: Sequence[Config], jobs: int, gpu: int | None, options: Options) -> Iterator[Outcome]:
    """Train runs in `jobs` processes. However this process ends, it leaves none of them behind."""
    queue = deque(configs)
    workers = [Worker(gpu, options) for _ in range(min(jobs, len(queue)))]
    try:
        while queue or any(worker.config for worker in workers):
            for i, worker in enumerate(workers):
                if worker.config is None and queue:
                    if not worker.process.is_alive():
                        worker.end()
                        worker = workers[i] = Worker(gpu, options)
                    worker.give(queue.popleft())
            busy = {worker.pipe: worker for worker in workers if worker.config}
            for pipe in connection.wait(list(busy)):
                yield busy[pipe].outcome()  # type: ignore[index]
    finally:
        for worker in workers:
            worker.end()
