"""Several runs that take turns in one process, each computing as if it were alone.

A run is a generator that yields every few steps. A process has only one set of torch's random generators and one
current CUDA stream; while a run has its turn, these are its own. So a run's numbers do not depend on which other runs
there are, and on a GPU the runs' kernels overlap.
"""

from collections import defaultdict
from collections.abc import Generator
from contextlib import nullcontext
from typing import Generic, TypeVar

import torch

import device

_T = TypeVar("_T")
# by GPU, the streams of ended runs, which later runs use again: cuBLAS keeps a workspace for each stream for good
_idle: defaultdict[int, list[torch.cuda.Stream]] = defaultdict(list)


class Turn(Generic[_T]):
    """A run that goes on when `advance` is called; once `going` is false, `result` is what the run returned."""

    def __init__(self, steps: Generator[None, None, _T], where: str):
        self.steps, self.where = steps, where
        self.going = True
        self.result: _T | None = None
        self.stream: torch.cuda.Stream | None = None
        self.random: device.TorchRandomState | None = None

    def _begin(self) -> device.TorchRandomState:
        if self.where == "cuda":
            device.check_gpu()
        random = device.random_state(self.where)
        if self.where == "cuda":
            idle = _idle[torch.cuda.current_device()]
            self.stream = idle.pop() if idle else torch.cuda.Stream()
        return random

    def advance(self) -> None:
        """Let the run go on until it yields or ends. Raises what the run raises and, at the first turn, UserError if
        the GPU cannot be used."""
        before = device.swap_random_state(self.random or self._begin())
        try:
            with torch.cuda.stream(self.stream) if self.stream else nullcontext():
                next(self.steps)
        except StopIteration as end:
            self.result = end.value
            self._end()
        except BaseException:
            self._end()
            raise
        finally:
            self.random = device.swap_random_state(before)

    def close(self) -> None:
        """End the run where it is; its files stay as they were after its last finished epoch."""
        self.steps.close()
        self._end()

    def _end(self) -> None:
        self.going = False
        if self.stream:
            _idle[self.stream.device_index].append(self.stream)
            self.stream = None


def alone(steps: Generator[None, None, _T], where: str) -> _T | None:
    """Run the only run of this process to its end; returns what the run returns."""
    turn = Turn(steps, where)
    while turn.going:
        turn.advance()
    return turn.result
