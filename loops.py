"""What a run computes: its data as tensors, one pass over the training segments, the logits it is scored on.

The loops are generators: they yield every few steps, so that several runs can share a process (turns.py), and return
their result at the end. `drain` runs such a generator to its end.
"""

import math
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

import data
import device
from cli import UserError, warn_once
from recipes import Config, learning_rate

EVALUATION_BATCH = 256  # the most segments that are scored at once
EVALUATION_VALUES = 2**22  # the most feature values in them: the maps of 256 spectrograms of APCNN would take 7 GB

_T = TypeVar("_T")


def drain(steps: Generator[None, None, _T]) -> _T:
    """Run a generator to its end and return what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


# ------------------------------------------------------------------------------------------- data of a run


@dataclass(frozen=True)
class Part:
    """One part of a split as tensors: N segments of U utterances, each a row of `x`, which may hold other rows too."""

    x: Tensor  # (S, F, T), memory-mapped on a CPU
    rows: Tensor  # (N,) which rows of x are the part's segments
    owner: NDArray[np.int64]  # (N,) each segment's utterance: its position in `utterances`, ascending; no VTLP copies
    labels: Tensor  # (N,) class of each segment
    utterances: NDArray[np.int64]  # (U,) indices into the corpus


def _tensor(x: NDArray) -> Tensor:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(x)  # the array is a read-only map, but nothing here writes to features


def make_part(segments: data.Segments, utterances: NDArray, labels: NDArray, where: str) -> Part:
    """Return the segments of `utterances` as a Part on the device `where`; `labels` are those of the whole corpus.

    On a CPU the features stay memory-mapped. On CUDA this part's rows are copied to the GPU once, unless they would
    fill a third of its free memory.
    """
    rows, owner = segments.rows(utterances)
    x, index = _tensor(segments.x), torch.from_numpy(rows)
    if where == "cuda":
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()  # by earlier runs, usable by this one
        if len(rows) * x[0].numel() * 4 < (torch.cuda.mem_get_info()[0] + kept) / 3:
            x, index = x[index].cuda(), torch.arange(len(rows))
        else:
            warn_once("the features do not fit a third of the GPU's free memory: they stay outside, which is slower")
    return Part(x, index.to(x.device), owner, torch.from_numpy(labels[utterances][owner]).to(where), utterances)


def add_warped(part: Part, warped: NDArray, labels: NDArray) -> Part:
    """Return `part` with warped copies of its segments appended: features `(M, F, T)` with classes `labels` `(M,)`."""
    x = torch.cat([part.x[part.rows], torch.from_numpy(warped).to(part.x.device)])
    more = torch.from_numpy(labels).to(part.labels.device)
    return replace(part, x=x, rows=torch.arange(len(x), device=x.device), labels=torch.cat([part.labels, more]))


def training_part(d: data.Data, train: NDArray, config: Config, quiet: bool = True) -> Part:
    """Return the training segments in their published order, with what the recipe's augmentation adds."""
    labels = d.corpus.labels
    if config.augment == "upsampling":
        train = data.upsample(train, labels, config.seed)
    part = make_part(d.train, train, labels, config.device)
    if config.augment == "vtlp":
        part = add_warped(part, *data.warped(d, train, config, quiet))
    return part


def loss_weights(part: Part, classes: int) -> Tensor:
    """Return each class's weight in the loss `(C,)`: 1 - n_c/N, where n_c of the N training segments are of class c.
    Raises UserError if all segments are of one class, whose weight would be 0."""
    if len(part.labels.unique()) == 1:
        raise UserError("--class_weights: the training part has one class alone, whose weight 1 - n_c/N is 0")
    return 1 - torch.bincount(part.labels, minlength=classes) / len(part.labels)


# --------------------------------------------------------------------------------------------- arithmetic


def set_arithmetic(config: Config) -> None:
    """Set for the whole process what a run asks for: threads, memory, and whether results repeat bit for bit."""
    torch.set_num_threads(config.threads)
    if config.device == "cpu":
        device.keep_freed_memory()
    torch.use_deterministic_algorithms(config.deterministic)
    # by default, --deterministic fills every new tensor, which helps only code that reads memory it has not written
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = not config.deterministic
    if config.device == "cuda":  # by default, each search for the fastest kernel frees all kept memory, other runs' too
        torch._C._cudnn_set_conv_benchmark_empty_cache(False)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = not config.deterministic


@contextmanager
def kernel_search(allowed: bool) -> Iterator[None]:
    """Keep cuDNN from searching for the fastest kernels in this block unless `allowed`: for the last batch, whose size
    differs between most seeds, a search is not worth its time."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before and allowed
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def autocast(config: Config) -> torch.autocast:
    """Return the context of a forward pass: bfloat16 where that is safe if --amp is given, else float32."""
    return torch.autocast(config.device, dtype=torch.bfloat16, enabled=config.amp)


def make_optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    """Return the run's optimiser: Adam, AdamW, or SGD with Nesterov momentum 0.9."""
    rate: Any = config.learning_rate
    graph: dict[str, Any] = {}
    if config.device == "cuda":  # a CUDA graph of the step needs everything that changes on the device
        rate = torch.tensor(rate, device="cuda")
        graph = {"capturable": True}
    common: dict[str, Any] = {"lr": rate, "weight_decay": config.weight_decay, "fused": True}
    if config.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True, **common)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(model.parameters(), eps=config.eps, **graph, **common)


def set_rate(optimizer: torch.optim.Optimizer, rate: float | Tensor) -> None:
    """Set the learning rate of every parameter group; a rate that is a tensor is changed in place."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].copy_(rate) if isinstance(rate, Tensor) else group["lr"].fill_(rate)
        else:
            group["lr"] = rate


# ------------------------------------------------------------------------------------------------ training


def epoch_order(n: int) -> Tensor:
    """Return the order `(n,)` of one shuffled pass, drawn as torch's `DataLoader(shuffle=True)` draws it.

    Two seeds are drawn from torch's global generator: first the loader's, which nothing here uses, then the sampler's.
    """
    torch.empty((), dtype=torch.int64).random_()
    seed = int(torch.empty((), dtype=torch.int64).random_())
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


Draw = tuple[Tensor, float, Tensor | None]  # a batch's positions (B,), mixup's lambda, each position's partner (B,)


def draws(n: int, config: Config, generator: np.random.RandomState) -> Iterator[Draw]:
    """Yield the random draws of one pass over `n` segments, step by step in the published order."""
    for batch in epoch_order(n).split(config.batch_size):
        if config.alpha > 0:
            yield batch, generator.beta(config.alpha, config.alpha), torch.randperm(len(batch))
        else:
            yield batch, 1.0, None


class Trainer:
    """The training steps of a run, launched kernel by kernel; `GraphTrainer` takes the same steps faster on CUDA."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, part: Part, config: Config,
                 class_weights: Tensor | None = None):  # fmt: skip
        self.model, self.optimizer, self.part, self.config = model, optimizer, part, config
        self.class_weights = class_weights
        self.steps = math.ceil(len(part.rows) / config.batch_size)  # in an epoch

    def rate(self, epoch: int, step: int) -> float:
        """Return the learning rate of step `step` of epoch `epoch`, both counted from 0."""
        return learning_rate(self.config, epoch) / (1 + self.config.lr_decay * (epoch * self.steps + step))

    def step(self, batch: Tensor, lam: Any, rest: Any, partner: Tensor | None) -> Tensor:
        """Train on the segments at the positions `batch` `(B,)` of the part; returns the loss, as a tensor: nothing
        waits for the device. With `partner` `(B,)`, each segment is mixed with its partner, weighted `lam` to `rest`;
        `rest` is 1 - lam, computed in double precision as published."""
        part, config = self.part, self.config
        x = part.x[part.rows[batch.to(part.rows.device)]].to(config.device, non_blocking=True).unsqueeze(1)
        y = part.labels[batch.to(part.labels.device, non_blocking=True)]
        if partner is not None:
            partner = partner.to(y.device, non_blocking=True)
            x = lam * x + rest * x[partner]  # (B, 1, F, T)
        with autocast(config):
            logits = self.model(x).float()
        loss = F.cross_entropy(logits, y, self.class_weights)
        if partner is not None:
            loss = lam * loss + rest * F.cross_entropy(logits, y[partner], self.class_weights)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def pass_over(self, epoch: int, generator: np.random.RandomState, bar: Any) -> Generator[None, None, Tensor]:
        """Take every step of an epoch; returns the steps' losses `(steps,)`."""
        losses = []
        for number, (batch, lam, partner) in enumerate(draws(len(self.part.rows), self.config, generator)):
            set_rate(self.optimizer, self.rate(epoch, number))
            with kernel_search(len(batch) == self.config.batch_size):
                losses.append(self.step(batch, lam, 1 - lam, partner))
            bar.update()
            yield
        return torch.stack(losses)

    def epoch(self, epoch: int, generator: np.random.RandomState, quiet: bool = True) -> Generator[None, None, float]:
        """Train once on each of the N training segments; `epoch` counts from 0. Returns the epoch's loss as published:
        sum(batch loss x nominal batch size) / N."""
        self.model.train()
        title = f"epoch {epoch + 1}"
        with tqdm(total=self.steps, desc=title, leave=False, disable=quiet or None, unit="batch") as bar:
            losses = yield from self.pass_over(epoch, generator, bar)
        total = losses.double().sum()
        yield from device.wait_for_gpu(self.config.device)
        # as published: the smaller last batch counts as a full one
        return float(total) * self.config.batch_size / len(self.part.rows)


# ---------------------------------------------------------------------------------------------- evaluation


def evaluation_batch(x: Tensor) -> int:
    """Return how many of the segments `x` `(S, ..)` are scored at once."""
    return max(1, min(EVALUATION_BATCH, EVALUATION_VALUES // x[0].numel()))


def evaluation(model: nn.Module, part: Part, config: Config) -> Generator[None, None, NDArray[np.float32]]:
    """Return the logits `(U, C)` of the part's utterances: the mean over their segments, in double precision."""
    model.eval()
    logits = []
    size = evaluation_batch(part.x)
    for rows in part.rows.split(size):
        with torch.inference_mode(), autocast(config), kernel_search(len(rows) == min(size, len(part.rows))):
            logits.append(model(part.x[rows].to(config.device).unsqueeze(1)))
        yield
    with torch.inference_mode():
        whole = torch.cat(logits).double()  # (N, C)
    yield from device.wait_for_gpu(config.device)
    segments = whole.cpu().numpy()
    first = np.searchsorted(part.owner, np.arange(len(part.utterances)))
    counts = np.diff(np.append(first, len(segments)))
    return (np.add.reduceat(segments, first) / counts[:, None]).astype(np.float32)


def evaluate(model: nn.Module, part: Part, config: Config) -> NDArray[np.float32]:
    """Return the logits that `evaluation` returns, without yielding in between."""
    return drain(evaluation(model, part, config))
