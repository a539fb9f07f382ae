"""Training steps on CUDA, each as one launch: a step of these networks is hundreds of small kernels, and launching them
one by one takes longer than computing them.

After a few plain steps, a step is captured as a CUDA graph, which is replayed for every full batch from then on. The
graph is checked before it is trusted: from the same weights, a replay must give the loss and the update of a plain
step. If it does not, or if a step cannot be captured, every step stays plain, and a warning says so.
"""

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cli import warn
from device import is_out_of_memory
from loops import Draw, Part, Trainer, draws, kernel_search, set_rate
from recipes import Config

WARM_UP = 3  # plain steps before the capture: they choose the kernels and create the optimiser's state
REPLAYS_PER_TURN = 4  # replays before another run has its turn


def capture(step: Callable[[], None]) -> Callable[[], None]:
    """Capture the work that `step` queues on the current stream as a CUDA graph; returns a function that repeats this
    work in the same memory.

    Raises what `step` raises during the capture, after putting torch back into the state from before.
    """
    graph, pool, gpu = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle(), torch.cuda.current_device()
    cause: BaseException | None = None
    try:
        with torch.cuda.graph(graph, pool=pool, stream=torch.cuda.current_stream()):
            try:
                step()
            except BaseException as error:
                cause = error
                raise
        return graph.replay
    except RuntimeError as end:  # ending a capture that broke off raises an error of its own, whatever the cause
        cause = cause or end
        # torch 2.11 leaves the allocator in the middle of a capture that broke off: it would never free memory again
        with suppress(RuntimeError):  # raised if torch did not leave it so
            torch._C._cuda_endAllocateToPool(gpu, pool)
            torch._C._cuda_releasePool(gpu, pool)
        random = torch.cuda.default_generators[gpu]  # its state waits for the capture's end; a copy of it does not
        random.graphsafe_set_state(random.clone_state())
    try:
        raise cause  # outside the except block: within it, `end` would become its context, and refer back to it
    finally:
        cause = None  # it refers to this frame: the cycle would keep the run's memory until Python looks for cycles


class GraphTrainer(Trainer):
    """Training steps that are replayed from a graph.

    A graph takes no arguments. So the draws of a whole epoch are copied to the device before the epoch, and the graph
    itself counts which step is due. Drawing batches and mixup beforehand changes no draw, as these come from the CPU's
    generators and dropout's from the GPU's.
    """

    def __init__(self, *given: Any):
        super().__init__(*given)
        size, where = self.config.batch_size, self.part.x.device
        self.due = torch.zeros(1, dtype=torch.int64, device=where)  # number of the step that is due
        self.batches = torch.zeros(self.steps, size, dtype=torch.int64, device=where)
        self.partners = torch.zeros_like(self.batches)
        self.lams = torch.zeros(2, self.steps, device=where)  # mixup's lambda and 1 - lambda
        self.rates = torch.zeros(self.steps, dtype=torch.float64, device=where)
        self.losses = torch.zeros(self.steps, device=where)
        self.replay: Callable[[], None] | None = None
        self.plain_steps = 0  # taken so far, on full batches
        self.refused = False

    def _take_due_step(self) -> None:
        """Take step number `due`, without reading this number on the host: it stays on the device."""
        lam, rest = self.lams.index_select(1, self.due).squeeze(1).unbind()
        batch = self.batches.index_select(0, self.due).squeeze(0)
        partner = self.partners.index_select(0, self.due).squeeze(0) if self.config.alpha > 0 else None
        set_rate(self.optimizer, self.rates.index_select(0, self.due).squeeze(0))
        loss = self.step(batch, lam, rest, partner)
        self.losses.index_copy_(0, self.due, loss.unsqueeze(0))
        self.due.add_(1)

    def _state(self) -> list[Tensor]:
        """Return every tensor that a step changes."""
        optimizer = [v for values in self.optimizer.state.values() for v in values.values() if isinstance(v, Tensor)]
        return [*self.model.state_dict().values(), *optimizer, self.due, self.losses]

    def _capture(self) -> None:
        """Take the step that is due and capture it; if a replay does not do the same, let every step stay plain."""
        before, number = [tensor.detach().clone() for tensor in self._state()], int(self.due)
        weights = [p.detach().clone() for p in self.model.parameters()]  # running statistics would drown their changes
        cuda = self.due.is_cuda
        random = torch.cuda.get_rng_state() if cuda else torch.get_rng_state()

        def restore() -> None:
            for tensor, old in zip(self._state(), before, strict=True):
                tensor.detach().copy_(old)
            torch.cuda.set_rng_state(random) if cuda else torch.set_rng_state(random)

        def outcome() -> tuple[Tensor, Tensor]:
            """Return the loss of the step just taken, and what the step added to the weights."""
            moved = [p.detach() - old for p, old in zip(self.model.parameters(), weights, strict=True)]
            return self.losses[number].clone(), torch.cat([each.flatten() for each in moved])

        self._take_due_step()
        loss, moved = outcome()
        restore()
        try:
            self.replay = capture(self._take_due_step)
            self.replay()
            again, moved_again = outcome()
            loss_error, update_error = (again - loss).abs(), (moved_again - moved).norm()
            # Summing in another order moves the loss by 1e-5; a weight whose gradient is noise may step either way.
            # At a learning rate of 0 both updates are 0, which must pass
            if loss_error <= 1e-2 * loss.abs() and update_error <= 0.5 * moved.norm():
                return
            why = f"its loss differs by {loss_error / loss.abs():.0e}, its update by {update_error / moved.norm():.0e}"
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            why = str(error).splitlines()[0]
        self.replay, self.refused = None, True
        warn(
            f"the training step cannot be replayed as a CUDA graph ({why}); steps are launched kernel by kernel, which "
            "is slower"
        )
        restore()
        self._take_due_step()

    def _send(self, epoch: int, steps: list[Draw]) -> None:
        """Copy the draws and the learning rates of an epoch to the device; the epoch's first step is then due."""
        batches, partners = torch.zeros(2, self.steps, self.config.batch_size, dtype=torch.int64).unbind()
        for number, (batch, _, partner) in enumerate(steps):
            batches[number, : len(batch)] = batch
            if partner is not None:
                partners[number, : len(batch)] = partner
        self.batches.copy_(batches)
        self.partners.copy_(partners)
        self.lams.copy_(torch.tensor([(lam, 1 - lam) for _, lam, _ in steps]).T)
        self.rates.copy_(torch.tensor([self.rate(epoch, number) for number in range(self.steps)], dtype=torch.float64))
        self.due.zero_()

    def pass_over(self, epoch: int, generator: np.random.RandomState, bar: Any) -> Generator[None, None, Tensor]:
        steps = list(draws(len(self.part.rows), self.config, generator))
        self._send(epoch, steps)
        for number, (batch, lam, partner) in enumerate(steps):
            if len(batch) < self.config.batch_size:  # the last batch, whose shape the graph does not have
                set_rate(self.optimizer, self.rate(epoch, number))
                here = self.batches[number, : len(batch)]  # on the device already: a copy from the host would wait
                others = None if partner is None else self.partners[number, : len(batch)]
                with kernel_search(False):
                    self.losses[number] = self.step(here, lam, 1 - lam, others)
                self.due.add_(1)
            elif self.replay:
                self.replay()
            elif self.refused or self.plain_steps < WARM_UP:
                self._take_due_step()
                self.plain_steps += 1
            else:
                self._capture()
            bar.update()
            if number % REPLAYS_PER_TURN == 0:
                yield
        return self.losses.clone()


def make_trainer(
    model: nn.Module, optimizer: torch.optim.Optimizer, part: Part, config: Config, class_weights: Tensor | None = None
) -> Trainer:
    """Return a GraphTrainer if the training segments are on a GPU, else a plain Trainer."""
    kind = GraphTrainer if part.x.is_cuda else Trainer
    return kind(model, optimizer, part, config, class_weights)
