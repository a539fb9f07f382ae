"""Measure how fast this code is: every technique beside a plain loop, in one run, on one machine.

    python benchmark.py --quick              # minutes on two cores
    python benchmark.py                      # sizes of IEMOCAP's improvised half; for a GPU, or patience
    python benchmark.py --quick --only mfcc,glam_fp32

The plain loop is what a straightforward script does: librosa on one segment at a time, eager float32 (on a GPU with
TF32, as ours), a network written layer after layer, a DataLoader over the segments, evaluation of one utterance at a
time. The plain loop has a process of its own, with the settings of memory and of waiting threads that Python and torch
come with. Our code and the plain loop take turns. A ratio is one of medians; its spread is that of the ratios of
neighbouring turns. The results of both are compared in the same run. All data are SYNTHETIC: noise of the size of
speech. Times hold for this run on this machine; only ratios can be compared with other machines'. CUDA rows need a CUDA
device.
"""

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import cli
import flags
import recipes

SEGMENTS = {"train": 25000, "test": 6000}  # about as many as IEMOCAP's improvised half has at 1.8 s
QUICK = {"train": 320, "test": 160}
PER_UTTERANCE = 11  # segments


def command_line() -> ArgumentParser:
    """Return the parser of this command."""
    parser = cli.parser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="measure with a fraction of the data")
    parser.add_argument(
        "--only",
        type=flags.name_list,
        metavar="A,B,..",
        help="measure these rows only; an unknown name lists all rows",
    )
    parser.add_argument(
        "--repeats", type=cli.count, default=3, metavar="N", help="how often each row is measured (default: 3)"
    )
    parser.add_argument("--threads", type=cli.count, default=2, metavar="N", help="number of CPU threads (default: 2)")
    parser.add_argument(
        "--at_once", type=cli.count, default=8, metavar="N", help="how many seeds train at once on a GPU (default: 8)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write the table to this file, as Markdown")
    return parser


if __name__ == "__main__":
    cli.before_torch(command_line)

import numpy as np
import torch
import torch.nn.functional as F
from g_mlp_pytorch import gMLP
from numpy.typing import NDArray
from torch.utils.data import DataLoader, TensorDataset

import device
import features
import graphs
import loops
import models.cnn
import models.glam
import models.layers
import path
import resume
import turns
from cli import UserError, warn
from files import write_text
from recipes import Config


@dataclass(frozen=True)
class Row:
    """One line of the table. `got` and `needed` are ratios, seconds or per cent, as `unit` says."""

    name: str
    got: float | None
    needed: float
    spread: str = ""
    note: str = ""
    unit: str = "x"

    def line(self) -> str:
        """Return the line in Markdown."""
        got = "not measured" if self.got is None else f"{self.got:.2f} {self.unit}"
        return f"| {self.name} | {got} | {self.spread} | {self.needed:g} {self.unit} | {self.note} |"


def seconds(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return how long a call takes, including the GPU's work, and what it returns.

    It rests first: the threads of a library that was at work, such as OpenBLAS's, spin on for a while and would take
    processor time from the call.
    """
    time.sleep(0.2)
    wait = torch.cuda.synchronize if torch.cuda.is_initialized() else lambda: None  # CPU rows leave a GPU alone
    wait()
    start = time.perf_counter()
    result = function()
    wait()
    return time.perf_counter() - start, result


_plain: list[Callable[[], Any]] = []  # the plain loop, in the plain loop's process


def plain_turn(make: Callable[[], Callable[[], Any]]) -> tuple[float, Any]:
    """Return `seconds` of the function that `make` returned at the first turn; called in the plain loop's process."""
    if not _plain:
        _plain.append(make())
    return seconds(_plain[0])


def compare(
    make: Callable[[], Callable[[], Any]], fast: Callable[[], Any], repeats: int, work: int = 1
) -> tuple[float, str, Any, Any, float]:
    """Measure in turns the function that `make` returns, in a process of its own, and `fast`, in this process.

    `fast` does `work` times as much. The first two turns do not count. Returns the ratio of the medians, the spread of
    ratios, the result of each function, and the median seconds of `fast`.
    """
    process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
    with patch.dict(os.environ, GOMP_SPINCOUNT="300000"), process:  # OpenMP's own default
        pairs = [(process.submit(plain_turn, make).result(), seconds(fast)) for _ in range(2 + repeats)][2:]
    ratios = sorted(work * p[0] / f[0] for p, f in pairs)
    slow, quick = (statistics.median(pair[i][0] for pair in pairs) for i in (0, 1))
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}, n={repeats}"
    return work * slow / quick, spread, pairs[-1][0][1], pairs[-1][1][1], quick


# ----------------------------------------------------------------------------------------------- features


def plain_feature(name: str, x: NDArray) -> NDArray:
    """Return a feature of one segment `(28800,)` by the library that defines it. Raises UserError if there is none."""
    cli.need("the comparison of features", "requirements-dev.txt", "librosa", "python_speech_features")
    import librosa
    import python_speech_features

    if name in features.MFCCS:
        mode = "reflect" if name == "mfcc_reflect" else "constant"
        return librosa.feature.mfcc(y=x, sr=16000, n_mfcc=26, pad_mode=mode)
    if name == "melspectrogram":
        mel = librosa.feature.melspectrogram(y=x, sr=16000, n_fft=800, hop_length=400, n_mels=128)
        return np.log10(np.maximum(mel, 1e-30))
    if name == "fbank":
        return python_speech_features.fbank(x, 16000, winlen=0.04, nfft=1024, nfilt=26)[0]
    if name == "logfbank":
        return python_speech_features.logfbank(x, 16000, winlen=0.04, nfft=1024, nfilt=40, highfreq=4000)
    frames = np.lib.stride_tricks.sliding_window_view(np.pad(x, (0, -(len(x) - 640) % 160)), 640)[::160]
    spectrum = np.abs(np.fft.rfft(frames, 3198))
    if name == "spectrogram":
        decibel = 10 * np.log10(np.maximum(spectrum**2 / 3198, 1e-30))
        return (decibel - decibel.max()).T[:400]
    if name != "interspeech2018":
        raise UserError(f"{name} has no plain form: plain_feature in benchmark.py needs one")
    y = spectrum / spectrum.max() * 2 - 1
    return (np.sign(y) * np.log1p(255 * np.abs(y)) / np.log(256)).T[:400]


def noise(n: int) -> NDArray:
    """Return `n` segments of white noise, the worst case of `spectrogram`; as published, neighbours overlap."""
    wave = np.random.default_rng(0).standard_normal(28800 + 3199 * (n - 1)).astype(np.float32) * 0.1
    return features.segment(wave)


def plain_features(name: str, n: int, threads: int) -> Callable[[], NDArray]:
    """Return a function that computes a feature of `n` segments, one by one."""
    segments = noise(n)
    torch.set_num_threads(threads)
    return lambda: np.stack([plain_feature(name, np.ascontiguousarray(x)) for x in segments])


def feature_row(name: str, needed: float, options: Namespace) -> Row:
    """Measure the extraction of a feature from white noise.

    Our code extracts eight times as many segments, so that both take about as long. After a rest, Linux may run our
    threads on one processor for some 30 ms, which would double the time of as many segments as the plain loop has.
    """
    n, work = 256 if options.quick else 512, 8
    segments = noise(n * work)  # begins as noise(n)
    torch.set_num_threads(options.threads)
    ratio, spread, slow, fast, spent = compare(
        partial(plain_features, name, n, options.threads),
        lambda: features.extract(name, segments).numpy(),
        options.repeats,
        work,
    )
    worst = np.abs(slow - fast[:n]).max() / (1 if name in features.MFCCS else np.ptp(slow))
    if worst > (1e-2 if name in features.MFCCS else 1e-4):
        raise UserError(f"{name} differs from its library by {worst:.1e}")
    return Row(
        f"{name} of segments, CPU", ratio, needed, spread, f"{n * work / spent:.0f} segments/s; differs by {worst:.0e}"
    )


# ----------------------------------------------------------------------------------------- training, evaluation


def made_up(shape: tuple[int, int], count: int, seed: int, where: str) -> loops.Part:
    """Return noise in place of features: `count` segments in utterances of 11 segments."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *shape, generator=generator)
    owner = np.arange(count) // PER_UTTERANCE
    labels = torch.from_numpy((owner * 7 % 4).astype(np.int64))
    rows, x, labels = (t.to(where) for t in (torch.arange(count), x, labels))
    return loops.Part(x, rows, owner, labels, np.arange(owner[-1] + 1))


def plain_loader(part: loops.Part, config: Config) -> DataLoader:
    """Return a DataLoader over single segments, which lie in the CPU's memory."""
    return DataLoader(TensorDataset(part.x.cpu(), part.labels.cpu()), config.batch_size, shuffle=True, num_workers=0)


def plain_epoch(model: torch.nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader, config: Config,
                generator: np.random.RandomState) -> float:  # fmt: skip
    """Train a textbook epoch, which reads the loss back at each step, and return the mean loss."""
    model.train()
    total, segments = 0.0, 0
    for x, y in loader:
        x, y = x.unsqueeze(1).to(config.device), y.to(config.device)
        if config.alpha > 0:
            share, partner = generator.beta(config.alpha, config.alpha), torch.randperm(len(y)).to(config.device)
            logits = model(share * x + (1 - share) * x[partner])
            loss = share * F.cross_entropy(logits, y) + (1 - share) * F.cross_entropy(logits, y[partner])
        else:
            loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total, segments = total + loss.item() * config.batch_size, segments + len(y)
    return total / segments


@torch.no_grad()
def plain_evaluate(model: torch.nn.Module, part: loops.Part, config: Config) -> NDArray[np.float32]:
    """Return the logits of utterances `(U, C)`, computed one utterance at a time."""
    model.eval()
    logits = []
    for utterance in part.utterances:
        segments = part.x[torch.from_numpy(np.flatnonzero(part.owner == utterance)).to(part.x.device)]
        logits.append(model(segments.unsqueeze(1).to(config.device)).mean(0).cpu().numpy())
    return np.array(logits)


def shape_of(config: Config) -> tuple[int, int]:
    """Return the shape (F, T) of the configuration's features."""
    silence = np.zeros((1, int(config.segment_length * 16000)), np.float32)
    return tuple(features.extract(config.feature, silence, config.n_mfcc).shape[1:])  # type: ignore[return-value]


class PlainGLAM(models.glam.GLAM):
    """GLAM with its layers computed one after another, as a paper's figure has them."""

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        def both(block: Any, x: torch.Tensor) -> torch.Tensor:
            return F.relu(block.bn(torch.cat((block.conv3(x) + x, block.conv5(x) + x), dim=1)))

        views = F.relu(self.bn1a(self.conv1a(x))), F.relu(self.bn1b(self.conv1b(x)))
        x = torch.cat(views, dim=2)
        for block in (self.conv2, self.conv3):
            x = F.max_pool2d(both(block, x), 2)
        return F.relu(self.bn5(self.conv5(both(self.conv4, x))))

    def fuse(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(gMLP.forward(self.gmlp, x.flatten(2))).flatten(1)


class PlainAPCNN(models.cnn.APCNN):
    """APCNN with its layers computed one after another."""

    def trunk(self, x: torch.Tensor) -> torch.Tensor:
        views = F.relu(self.bn1a(self.conv1a(x))), F.relu(self.bn1b(self.conv1b(x)))
        x = torch.cat(views, dim=1)
        x = F.max_pool2d(F.relu(self.bn2(self.conv2(x))), 2)
        x = F.max_pool2d(F.relu(self.bn3(self.conv3(x))), 2)
        x = F.relu(self.bn4(self.conv4(x)))
        return F.relu(self.bn5(self.conv5(x)))


PLAIN = {"GLAM": PlainGLAM, "APCNN": PlainAPCNN}


def fresh(config: Config, shape: tuple[int, int], fast: bool) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Return a model and its optimiser as in train.py (`fast`) or as in the plain loop; the weights are the same."""
    torch.manual_seed(1)
    if fast:
        model = models.create_model(config.model, shape).to(config.device)
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return model, loops.make_optimizer(config, model)
    model = PLAIN[config.model](shape).to(config.device)
    common: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return model, torch.optim.SGD(model.parameters(), momentum=0.9, nesterov=True, **common)
    return model, torch.optim.Adam(model.parameters(), eps=config.eps, **common)


def sizes(config: Config, options: Namespace) -> tuple[int, int]:
    """Return the numbers of training and test segments; APCNN, whose maps are large, gets a tenth of them."""
    chosen = QUICK if options.quick else SEGMENTS
    share = 10 if config.model == "APCNN" else 1
    return max(32, chosen["train"] // share), max(22, chosen["test"] // share)


def plain_arithmetic(config: Config) -> None:
    """Set the plain loop's process to our number of threads and, on a GPU, to TF32, as our process is."""
    torch.set_num_threads(config.threads)
    if config.device == "cuda":
        device.check_gpu()  # a GPU may admit a single process only
        torch.backends.cudnn.benchmark = torch.backends.cuda.matmul.allow_tf32 = True


def plain_training(
    config: Config, shape: tuple[int, int], n_train: int, n_test: int, anew: bool = False
) -> Callable[[], float]:
    """Return a function that trains and evaluates a plain epoch at each call, and returns its loss. With `anew`, each
    epoch is the first of a new seed."""
    plain_arithmetic(config)
    part, test = made_up(shape, n_train, 0, config.device), made_up(shape, n_test, 1, config.device)
    loader = plain_loader(part, config)

    def start() -> tuple[torch.nn.Module, torch.optim.Optimizer, np.random.RandomState]:
        return *fresh(config, shape, fast=False), np.random.RandomState(1)

    first = start()

    def epoch() -> float:
        model, optimizer, generator = start() if anew else first
        loss = plain_epoch(model, optimizer, loader, config, generator)
        plain_evaluate(model, test, config)
        return loss

    return epoch


def plain_evaluation(config: Config, shape: tuple[int, int], n: int) -> Callable[[], NDArray[np.float32]]:
    """Return a function that computes the logits of a test set in the plain way."""
    plain_arithmetic(config)
    test, (model, _) = made_up(shape, n, 1, config.device), fresh(config, shape, fast=False)
    return lambda: plain_evaluate(model, test, config)


def our_training(config: Config, part: loops.Part, test: loops.Part) -> Callable[[], float]:
    """Return a function that trains and evaluates an epoch as train.py does at each call, and returns its loss."""
    losses: list[float] = []

    def endless() -> Generator[None, None, None]:
        model, optimizer = fresh(config, (part.x.shape[1], part.x.shape[2]), fast=True)
        trainer, generator = graphs.make_trainer(model, optimizer, part, config), np.random.RandomState(1)
        while True:
            loss = yield from trainer.epoch(len(losses), generator)
            yield from loops.evaluation(model, test, config)
            losses.append(loss)

    turn = turns.Turn(endless(), config.device)

    def epoch() -> float:
        before = len(losses)
        while len(losses) == before:
            turn.advance()
        return losses[-1]

    return epoch


def difference_of(
    name: str, config: Config, n_train: int, test: loops.Part, ours: Callable[[loops.Part], list[float]]
) -> float:
    """Return the largest relative difference between our first epoch's losses and the plain one's, of equal weights and
    draws. Raises UserError where it is too large. No more segments are used than --quick has, as over hundreds of steps
    the order of summation alone drives two runs apart."""
    shape, n = (test.x.shape[1], test.x.shape[2]), min(n_train, QUICK["train"])
    epoch = plain_training(config, shape, n, len(test.rows))
    loops.set_arithmetic(config)
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # TF32 rounds by up to 1e-3
    plain, few = epoch(), made_up(shape, n, 0, config.device)
    difference = max(abs(loss - plain) / plain for loss in ours(few))
    loops.set_arithmetic(config)
    if difference > (1e-2 if config.amp else 1e-3):
        raise UserError(f"{name}: the first epoch's loss differs by {difference:.1e}")
    return difference


def epoch_row(name: str, needed: float, config: Config, options: Namespace) -> Row:
    """Measure one epoch with its evaluation."""
    shape, (n_train, n_test) = shape_of(config), sizes(config, options)
    part, test = made_up(shape, n_train, 0, config.device), made_up(shape, n_test, 1, config.device)
    difference = difference_of(name, config, n_train, test, lambda few: [our_training(config, few, test)()])
    plain, ours = partial(plain_training, config, shape, n_train, n_test), our_training(config, part, test)
    ratio, spread, _, _, spent = compare(plain, ours, options.repeats)
    share = 100 * flops(config, shape, n_train, n_test) / spent / matrix_rate(config)
    note = f"{n_train}+{n_test} segments; loss differs by {difference:.0e}; {share:.0f} % of this machine's matrix rate"
    return Row(name, ratio, needed, spread, note)


def flops(config: Config, shape: tuple[int, int], n_train: int, n_test: int) -> float:
    """Return the floating-point operations of an epoch with its evaluation, as torch counts them."""
    from torch.utils.flop_counter import FlopCounterMode

    model, _ = fresh(config, shape, fast=False)
    with FlopCounterMode(display=False) as counter:
        out = model(torch.randn(1, 1, *shape, device=config.device).expand(2, -1, -1, -1))  # batch norm needs two
        forward = counter.get_total_flops() / 2  # of one segment
        out.sum().backward()
        training = counter.get_total_flops() / 2
    return training * n_train + forward * n_test


def matrix_rate(config: Config) -> float:
    """Measure the operations per second of a square matrix product in the arithmetic of a run. On a CPU, the product is
    also computed as a convolution of length 1, and the faster way counts."""
    n, times = (8192, 10) if config.device == "cuda" else (2048, 1)  # large enough that a GPU's launches take no time
    kind = torch.bfloat16 if config.amp else torch.float32
    a, b = (torch.randn(n, n, device=config.device, dtype=kind) for _ in range(2))

    def products(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        for _ in range(times):
            multiply(a, b)

    def fastest(multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> float:
        products(multiply)
        return min(seconds(partial(products, multiply))[0] for _ in range(5))

    spent = fastest(torch.matmul)
    if config.device == "cpu":
        spent = min(spent, fastest(lambda a, b: models.layers.pointwise(a.unsqueeze(0), b)))
    return times * 2 * n**3 / spent


def glam(options: Namespace, **changes: Any) -> Config:
    """Return GLAM's published configuration with these changes; the device is the CPU if they name none."""
    return recipes.config_for("GLAM", **{"threads": options.threads, "device": "cpu", **changes})


def apcnn(options: Namespace, **changes: Any) -> Config:
    """Return APCNN's configuration with a batch of 32: the published 128 takes more memory, but runs the same code."""
    return recipes.config_for("APCNN", batch_size=32, threads=options.threads, device="cpu", **changes)


def evaluation_row(name: str, needed: float, config: Config, options: Namespace) -> Row:
    """Measure the computing of a test set's utterance logits; the plain loop stays in float32."""
    loops.set_arithmetic(config)
    shape, (_, n) = shape_of(config), sizes(config, options)
    test = made_up(shape, n, 1, config.device)
    model, _ = fresh(config, shape, fast=True)
    ratio, spread, slow, fast, spent = compare(
        partial(plain_evaluation, config, shape, n), lambda: loops.evaluate(model, test, config), options.repeats
    )
    difference = np.abs(slow - fast).max()
    if not config.amp and difference > 1e-3:
        raise UserError("evaluation differs")
    return Row(name, ratio, needed, spread, f"{n / spent:.0f} segments/s; logits differ by {difference:.0e}")


def seed_of(
    config: Config, shape: tuple[int, int], part: loops.Part, test: loops.Part, epochs: int, state: Path
) -> Generator[None, None, float]:
    """Train the epochs of a seed as train.py does, in turns; each epoch is evaluated and its state saved to a file.
    Returns the first epoch's loss."""
    model, optimizer = fresh(config, shape, fast=True)
    trainer, generator, losses = graphs.make_trainer(model, optimizer, part, config), np.random.RandomState(1), []
    history = resume.History([], {"test": []})
    for epoch in range(epochs):
        losses.append((yield from trainer.epoch(epoch, generator)))
        history.logits["test"].append((yield from loops.evaluation(model, test, config)))
        resume.save_state(state, model, optimizer, generator, history)
    return losses[0]


def seeds_row(name: str, needed: float, config: Config, options: Namespace, share: bool = False) -> Row:
    """Measure seeds that take turns in one process against plain seeds one after another.

    For a plain seed, the start of its process is not counted; the building of its network, which takes milliseconds, is
    counted at each epoch. With `share`, the row says which part of the matrix rate the seeds reach together.
    """
    shape, (n_train, n_test) = shape_of(config), sizes(config, options)
    part, test = made_up(shape, n_train, 0, config.device), made_up(shape, n_test, 1, config.device)
    epochs, count = 2 if options.quick else 10, options.at_once  # several, as a real run starts once in 50

    def together(part: loops.Part, epochs: int) -> list[Any]:
        with tempfile.TemporaryDirectory() as folder:
            states = [Path(folder) / str(number) for number in range(count)]
            seeds = [seed_of(config, shape, part, test, epochs, state) for state in states]
            running = [turns.Turn(seed, config.device) for seed in seeds]
            while going := [turn for turn in running if turn.going]:
                for turn in going:
                    turn.advance()
            return [turn.result for turn in running]

    difference = difference_of(name, config, n_train, test, lambda few: together(few, 1))
    ratio, spread, _, _, spent = compare(
        partial(plain_training, config, shape, n_train, n_test, anew=True),
        lambda: together(part, epochs),
        options.repeats,
        epochs * count,
    )
    rate = 100 * flops(config, shape, n_train, n_test) * epochs * count / spent / matrix_rate(config)
    per_hour = 3600 * epochs * count / spent / config.epochs
    note = (
        f"{count} at once; {n_train}+{n_test} segments; {per_hour:.0f} seeds an hour; loss differs by {difference:.0e}"
    )
    if share:
        return Row(name, rate, needed, f"n={options.repeats}", note, "%")
    return Row(name, ratio, needed, spread, f"{note}; {rate:.0f} % of the matrix rate")


# --------------------------------------------------------------------------------------- start, memory, linearity


def help_time(options: Namespace) -> Row:
    """Measure train.py --help and report.py --help, and return the slower one's row."""
    words = [[sys.executable, script, "--help"] for script in ("train.py", "report.py")]

    def answer(command: list[str]) -> float:
        return seconds(lambda: subprocess.run(command, check=True, capture_output=True, cwd=path.ROOT))[0]

    times = [max(map(answer, words)) for _ in range(options.repeats)]
    return Row("train.py --help, report.py --help", statistics.median(times), 1, f"n={options.repeats}", "at most", "s")


FIRST_STEP = """
import os, sys, time, torch
def first(*_, **__):
    print(time.time() - float(os.environ["STARTED"])); sys.stdout.flush(); os._exit(0)
torch.optim.Adam.step = first
import cli, train
sys.argv = ["train.py", "--dataset", "demo", "--gpu", "-1", "--quiet"]
cli.run_main(train.main)
"""


def first_step(options: Namespace) -> Row:
    """Measure the time from the command to the first optimiser step, with cached features."""
    with tempfile.TemporaryDirectory() as runs:
        environment = {**os.environ, "GLAM_RUNS": runs}
        times = []
        for _ in range(options.repeats + 1):
            environment["STARTED"] = str(time.time())
            words = [sys.executable, "-c", FIRST_STEP]
            done = subprocess.run(words, cwd=path.ROOT, env=environment, capture_output=True, text=True, check=True)
            times.append(float(done.stdout))
    times = times[1:]  # the first call may have made the corpus and the features
    return Row("command to first training step, CPU", statistics.median(times), 6, f"n={len(times)}", "at most", "s")


MEMORY = """
import sys
from pathlib import Path
import features, handleIEMOCAP, path
root, path.CACHE = Path(sys.argv[1]), Path(sys.argv[2])
features.load(handleIEMOCAP.index(root), "mfcc", 1.8, 1.6)
status = Path("/proc/self/status").read_text()
print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
"""


def memory(options: Namespace) -> Row:
    """Measure the peak memory of feature extraction, for a corpus and for one four times as large."""
    from corpora import synthetic

    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for utterances in (150, 600) if options.quick else (1000, 4000):
            root = Path(folder) / str(utterances)
            synthetic.make(root, utterances)
            words = [sys.executable, "-c", MEMORY, str(root), str(Path(folder) / f"cache{utterances}")]
            done = subprocess.run(words, check=True, capture_output=True, text=True, cwd=path.ROOT)
            peaks.append(int(done.stdout) / 1024)
    note = f"{peaks[0]:.0f} MB, then {peaks[1]:.0f} MB for four times the corpus; at most"
    return Row("peak memory of feature extraction, 4x over 1x", peaks[1] / peaks[0], 1.1, "n=1", note)


def linear(options: Namespace) -> Row:
    """Measure the time of an epoch at 1x, 2x and 4x the segments."""
    config = recipes.config_for("MACNN", threads=options.threads, device="cpu")
    loops.set_arithmetic(config)
    shape, base = shape_of(config), 320 if options.quick else 3200
    per_segment = []
    for times in (1, 2, 4):
        part, test = made_up(shape, base * times, 0, "cpu"), made_up(shape, base * times // 4, 1, "cpu")
        model, optimizer = fresh(config, shape, fast=True)

        def epoch(
            part: loops.Part = part, test: loops.Part = test, model: Any = model, optimizer: Any = optimizer
        ) -> None:
            loops.drain(graphs.make_trainer(model, optimizer, part, config).epoch(0, np.random.RandomState(1)))
            loops.evaluate(model, test, config)

        epoch()
        per_segment.append(statistics.median(seconds(epoch)[0] for _ in range(options.repeats)) / (base * times))
    note = (
        "time per segment at 1x, 2x, 4x: " + ", ".join(f"{p / per_segment[0]:.2f}" for p in per_segment) + "; at most"
    )
    return Row(
        "a run's cost per segment, 4x over 1x", per_segment[-1] / per_segment[0], 1.1, f"n={options.repeats}", note
    )


# ------------------------------------------------------------------------------------------------ the table


def on_gpu(
    measure: Callable[[str, float, Config, Namespace], Row], name: str, needed: float, o: Namespace, **changes: Any
) -> Row:
    """Measure a row of GLAM on a CUDA device; without one, return a row that says so."""
    if not torch.cuda.is_available():
        return Row(name, None, needed, note="no CUDA device here")
    return measure(name, needed, glam(o, device="cuda", **changes), o)


SHARE = "share of the matrix rate, GLAM seeds at once, CUDA, --amp"
ROWS: dict[str, Callable[[Namespace], Row]] = {  # name for --only: how the row is measured
    **{name: partial(feature_row, name, 6 if name in features.MFCCS else 3) for name in features.FEATURES},
    "glam_fp32": lambda o: epoch_row("GLAM epoch with evaluation, CPU, fp32", 1.3, glam(o), o),
    "glam_amp": lambda o: epoch_row("GLAM epoch with evaluation, CPU, --amp", 2, glam(o, amp=True), o),
    "apcnn_fp32": lambda o: epoch_row("APCNN epoch with evaluation, CPU, fp32", 1.4, apcnn(o), o),
    "apcnn_amp": lambda o: epoch_row("APCNN epoch with evaluation, CPU, --amp", 2, apcnn(o, amp=True), o),
    "evaluation_cpu": lambda o: evaluation_row("evaluation of a test set, CPU", 3, glam(o), o),
    "evaluation_amp": lambda o: evaluation_row("evaluation of a test set, CPU, --amp", 3, glam(o, amp=True), o),
    "evaluation_cuda": lambda o: on_gpu(evaluation_row, "evaluation of a test set, CUDA", 20, o),
    "seeds_cuda": lambda o: on_gpu(seeds_row, "GLAM seeds an hour, CUDA, batch 32", 12, o),
    "matrix_share_cuda": lambda o: replace(on_gpu(partial(seeds_row, share=True), SHARE, 25, o, amp=True), unit="%"),
    "glam_cuda": lambda o: on_gpu(epoch_row, "GLAM epoch with evaluation, CUDA, batch 32", 5, o),
    **{measure.__name__: measure for measure in (help_time, first_step, memory, linear)},
}


def heading(options: Namespace) -> str:
    """Return the lines above the rows: what is measured on which machine, and the names of the columns."""
    where = device.describe("cuda" if torch.cuda.is_available() else "cpu")
    versions = [f"{name} {version(name)}" for name in ("torch", "librosa", "numpy")]
    data = f"SYNTHETIC data{' (--quick)' if options.quick else ''}"
    machine = f"{where}, {options.threads} CPU threads of {os.cpu_count()}"
    return "\n".join(
        [
            f"{data}; {machine}; {', '.join(versions)}, Python {sys.version.split()[0]}",
            "",
            "| what | reached | spread | needed | notes |",
            "|---|---|---|---|---|",
        ]
    )


def main() -> int:
    """Run `python benchmark.py` and return the exit status."""
    options = command_line().parse_args()
    wanted = options.only or tuple(ROWS)
    if unknown := [name for name in wanted if name not in ROWS]:
        raise UserError(f"--only {unknown[0]}: choose from {', '.join(ROWS)}")
    glam(options)  # refuses a number of threads that no run can have
    lines = [heading(options)]
    print(lines[0], flush=True)
    failed = False
    for name in wanted:
        try:
            with device.explaining_out_of_memory("a smaller --at_once takes less"):
                line = ROWS[name](options).line()
        except UserError as error:  # the other rows are still measured
            warn(str(error))
            failed, line = True, f"| {name} | not measured |  |  | {error} |"
        lines.append(line)
        print(line, flush=True)
        if options.output:
            write_text(options.output, "\n".join(lines) + "\n")
    return int(failed)


if __name__ == "__main__":
    cli.run_main(main)
