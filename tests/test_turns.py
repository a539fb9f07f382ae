"""Several runs in one process, and steps replayed from a graph: the numbers are those of one run alone."""

import gc
import sys
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from faults import FLAGS, content, finished
from made_checkpoints import OURS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import flags
import graphs
import loops
import models
import recipes
import sweep
import turns
import workers

pytestmark = pytest.mark.usefixtures("one_thread")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
WHERE = ["cpu", pytest.param("cuda", marks=[CUDA, pytest.mark.gpu])]


# ------------------------------------------------------------------------------------------------- turns


def lottery(where: str, seed: int, rounds: int) -> Iterator[None]:
    torch.manual_seed(seed)
    drawn = []
    for _ in range(rounds):
        drawn += [torch.rand(3), torch.rand(3, device=where).cpu()]
        yield
    return torch.cat(drawn)


@pytest.mark.parametrize("where", WHERE)
def test_a_run_draws_what_it_draws_alone(where: str) -> None:
    alone = [turns.alone(lottery(where, seed, 3 + seed), where) for seed in range(3)]
    torch.manual_seed(99)
    expected = torch.rand(2)
    torch.manual_seed(99)
    together = [turns.Turn(lottery(where, seed, 3 + seed), where) for seed in range(3)]
    while going := [turn for turn in together if turn.going]:
        for turn in going:
            turn.advance()
    assert all(torch.equal(turn.result, one) for turn, one in zip(together, alone, strict=True))
    assert torch.equal(torch.rand(2), expected), "what was there before goes on undisturbed"


def run(*words: object) -> int:
    old, sys.argv = sys.argv, ["sweep.py", *FLAGS[4:], "--datasets", "all", *map(str, words)]
    try:
        return sweep.main()
    finally:
        sys.argv = old


@pytest.mark.parametrize("more", [["--vary", "alpha=0,0.5"], ["--split", "8:1:1", "--save_model", "validation"]])
def test_in_turns_is_as_one_after_the_other(here: Path, tmp_path: Path, capsys, more: list[str]) -> None:
    words = ["--models", "CNN_GAP,MACNN", "--epochs", 2, "--seeds", 2, *more]
    assert run(*words, "--at_once", 3) == 0
    assert run(*words, "--runs", tmp_path / "sequential") == 0
    one, other = finished(here), finished(tmp_path / "sequential")
    assert len(one) == (8 if "--vary" in more else 4)
    assert one.keys() == other.keys() and all(content(one[k]) == content(other[k]) for k in one)
    assert run(*words, "--at_once", 3) == 0
    assert "0 trained now, 0 failed" in capsys.readouterr().out


def test_more_at_once_than_memory_holds(here: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """The GPU's memory is full whenever three runs are at it: two go on, and all get done."""
    words = ["--models", "CNN_GAP", "--epochs", 3, "--seeds", 4]
    assert run(*words, "--runs", tmp_path / "sequential") == 0
    real, inside, most = loops.Trainer.epoch, [], []

    def epoch(trainer: loops.Trainer, number: int, *more: Any) -> Any:
        if number > 0:
            if len(inside) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
            inside.append(trainer)
            most.append(len(inside))
        loss = yield from real(trainer, number, *more)
        if number > 0:
            inside.remove(trainer)
        return loss

    monkeypatch.setattr(loops.Trainer, "epoch", epoch)
    assert run(*words, "--at_once", 5) == 0  # more than the four runs
    told = capsys.readouterr()
    assert "4 runs at once do not fit into memory: 3 go on" in told.err
    assert "3 runs at once do not fit into memory: 2 go on" in told.err
    assert told.err.count("do not fit") == 2
    assert "4 trained now, 0 failed" in told.out and max(most) == 2
    one, other = finished(here), finished(tmp_path / "sequential")
    assert one.keys() == other.keys() and all(content(one[k]) == content(other[k]) for k in one)


def test_a_run_for_whose_start_memory_is_short_begins_later(here: Path, capsys, monkeypatch) -> None:
    real, going = turns.Turn._begin, []

    def begin(turn: turns.Turn) -> Any:
        if sum(each.going for each in going) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        going.append(turn)
        return real(turn)

    monkeypatch.setattr(turns.Turn, "_begin", begin)
    configs = [recipes.config_for("CNN_GAP", dataset="all", epochs=1, threads=1, seed=seed) for seed in (1, 2, 3)]
    outcomes = list(workers.in_turns(configs, 3, flags.Options(quiet=True, runs=here)))  # of one call, not of two
    assert "3 runs at once do not fit" in capsys.readouterr().err
    assert [(one.config, one.status) for one in outcomes] == [(config, "done") for config in configs]


@pytest.mark.parametrize(("models", "most"), [("CNN_GAP", 2), ("CNN_GAP,MACNN", 3)])
def test_another_model_may_find_more_room(here: Path, capsys, monkeypatch, models: str, most: int) -> None:
    real, begun, refused, at_once = turns.Turn._begin, [], [], []

    def begin(turn: turns.Turn) -> Any:
        if len(begun) == 2 and not refused:
            refused.append(turn)
            raise torch.OutOfMemoryError("CUDA out of memory.")
        begun.append(turn)
        at_once.append(sum(each.going for each in begun))
        return real(turn)

    monkeypatch.setattr(turns.Turn, "_begin", begin)
    assert run("--models", models, "--epochs", 1, "--seeds", 3 if "," in models else 6, "--at_once", 3) == 0
    told = capsys.readouterr()
    assert told.err.count("3 runs at once do not fit into memory: 2 go on") == 1 and "6 trained now" in told.out
    assert max(at_once) == most


def test_no_more_at_once_than_asked(here: Path, monkeypatch) -> None:
    real, begun, at_once = turns.Turn._begin, [], []

    def begin(turn: turns.Turn) -> Any:
        begun.append(turn)
        at_once.append(sum(each.going for each in begun))
        return real(turn)

    monkeypatch.setattr(turns.Turn, "_begin", begin)
    assert run("--models", "CNN_GAP,MACNN", "--epochs", 1, "--seeds", 3, "--at_once", 2) == 0
    assert len(begun) == 6 and max(at_once) == 2


def test_one_that_memory_does_not_hold_fails_and_the_others_are_kept(here: Path, capsys, monkeypatch) -> None:
    real = loops.Trainer.epoch

    def epoch(trainer: loops.Trainer, *more: Any) -> Any:
        if trainer.config.seed == 7:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return (yield from real(trainer, *more))

    monkeypatch.setattr(loops.Trainer, "epoch", epoch)
    monkeypatch.setattr("seeds.read_seeds", lambda: [5, 7, 9])
    assert run("--models", "CNN_GAP", "--epochs", 1, "--seeds", 3, "--at_once", 3) == 1
    told = capsys.readouterr()
    assert "2 trained now, 1 failed" in told.out and "--batch_size" in told.out and "(tried" not in told.out
    assert len(finished(here)) == 2


def test_an_interruption_ends_the_others_too(here: Path, monkeypatch) -> None:
    """Their locks are free, though the error's traceback holds what they hold."""
    real = loops.Trainer.epoch

    def epoch(trainer: loops.Trainer, *more: Any) -> Any:
        if trainer.config.seed == 2:
            raise KeyboardInterrupt
        return (yield from real(trainer, *more))

    monkeypatch.setattr(loops.Trainer, "epoch", epoch)
    configs = [recipes.config_for("CNN_GAP", dataset="all", epochs=3, threads=1, seed=seed) for seed in (1, 2)]
    with pytest.raises(KeyboardInterrupt) as error:
        list(workers.in_turns(configs, 2, flags.Options(quiet=True, runs=here)))
    assert error.tb and not list(here.rglob("done")) and not list(here.rglob("lock"))


def test_a_gpu_that_fails_for_good_is_every_runs_outcome_and_not_the_end(here: Path, monkeypatch) -> None:
    """After such a failure nothing works on the GPU, not even giving memory back."""

    def fails(*_: Any) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch.cuda, "empty_cache", fails)
    monkeypatch.setattr(loops, "make_optimizer", fails)
    configs = [recipes.config_for("CNN_GAP", dataset="all", epochs=1, threads=1, seed=seed) for seed in (1, 2)]
    outcomes = list(workers.in_turns(configs, 2, flags.Options(quiet=True)))
    assert [(one.config, one.status) for one in outcomes] == [(config, "broke") for config in configs]
    assert all("illegal memory access" in one.text for one in outcomes)


# ------------------------------------------------------------------------------------------------- graphs


def made_up(where: str, count: int = 44) -> loops.Part:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 26, 57, generator=generator).to(where)
    labels = (torch.arange(count) * 7 % 4).to(where)
    return loops.Part(x, torch.arange(count, device=where), np.arange(count), labels, np.arange(count))


def two_epochs(kind: type[loops.Trainer], config: recipes.Config) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of two epochs of 6 batches, the last one ragged, and the weights after them."""

    def work() -> Iterator[None]:
        loops.set_arithmetic(config)
        torch.manual_seed(3)
        part = made_up(config.device)
        model = models.create_model(config.model).to(config.device).to(memory_format=torch.channels_last)
        weights = loops.loss_weights(part, 4) if config.class_weights else None
        trainer = kind(model, loops.make_optimizer(config, model), part, config, weights)
        generator, losses = np.random.RandomState(1), []
        for epoch in range(2):
            losses.append((yield from trainer.epoch(epoch, generator)))
        return losses, model.state_dict()

    return turns.alone(work(), config.device)


SETTINGS: dict[str, dict[str, Any]] = {
    "GLAM": {},
    "dropout": {"model": "AACNN_flat"},
    "no mixup, SGD": {"alpha": 0.0, "optimizer": "sgd", "learning_rate": 0.01},
    "class weights, AdamW, falling rate": {"class_weights": True, "optimizer": "adamw", "lr_decay": 0.1},
}


@pytest.fixture
def repeated(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Replace a graph, which needs a GPU: what was captured is computed again. Return how often, in a list."""
    count = [0]

    def capture(step: Callable[[], None]) -> Callable[[], None]:
        def replay() -> None:
            count[0] += 1
            step()

        return replay

    monkeypatch.setattr(graphs, "capture", capture)
    return count


def config_of(settings: dict[str, Any], where: str = "cpu") -> recipes.Config:
    return recipes.config_for(**{"model": "GLAM", "batch_size": 8, "device": where, "threads": 1, **settings})


def assert_equal(got: Any, expected: Any) -> None:
    assert got[0] == expected[0]
    assert all(torch.equal(got[1][name], weight) for name, weight in expected[1].items())


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_what_a_graph_repeats_is_the_plain_loop(
    settings: dict[str, Any], repeated: list[int], monkeypatch, capsys
) -> None:
    config, counted = config_of(settings), []
    monkeypatch.setattr(loops.tqdm, "update", lambda bar: counted.append(bar))
    assert_equal(two_epochs(graphs.GraphTrainer, config), two_epochs(loops.Trainer, config))
    assert repeated == [7], "of 12 steps 3 come before the graph, and 2 are ragged"
    assert len(counted) == 2 * 12, "bars count every step of either trainer"
    assert "warning" not in capsys.readouterr().err


def refuse(step: Callable[[], None]) -> Callable[[], None]:
    raise RuntimeError("operation not permitted when stream is capturing\nand more")


def only_the_loss(step: Callable[[], None]) -> Callable[[], None]:
    def replay() -> None:
        weights = list(step.__self__.model.parameters())  # type: ignore[attr-defined]
        before = [p.detach().clone() for p in weights]
        step()
        for p, old in zip(weights, before, strict=True):
            p.detach().copy_(old)

    return replay


def only_the_update(step: Callable[[], None]) -> Callable[[], None]:
    def replay() -> None:
        step()
        step.__self__.losses.mul_(2)  # type: ignore[attr-defined]

    return replay


def ten_times_the_rate(step: Callable[[], None]) -> Callable[[], None]:
    def replay() -> None:
        step.__self__.rates.mul_(10)  # type: ignore[attr-defined]
        step()
        step.__self__.rates.div_(10)  # type: ignore[attr-defined]

    return replay


def a_little_more_loss(step: Callable[[], None]) -> Callable[[], None]:
    def replay() -> None:
        step()
        step.__self__.losses.mul_(1.05)  # type: ignore[attr-defined]

    return replay


@pytest.mark.parametrize(
    ("capture", "why"),
    [
        (refuse, "operation not permitted"),
        (lambda step: lambda: None, "its loss differs"),
        (only_the_loss, "its update by 1e+00"),
        (only_the_update, "its loss differs by 1e+00, its update by 0e+00"),
        (ten_times_the_rate, "its update by 9e+00"),
        (a_little_more_loss, "its loss differs by 5e-02"),
    ],
)
def test_a_graph_that_does_not_do_the_same_is_not_used(capture: Any, why: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr(graphs, "capture", capture)
    config = config_of({})
    assert_equal(two_epochs(graphs.GraphTrainer, config), two_epochs(loops.Trainer, config))
    told = capsys.readouterr().err
    assert told.count("cannot be replayed as a CUDA graph") == 1 and why in told and "and more" not in told


def test_a_rate_of_zero_is_no_matter_of_the_graph(repeated: list[int], monkeypatch, capsys) -> None:
    monkeypatch.setattr(loops.Trainer, "rate", lambda *which: 0.0)
    two_epochs(graphs.GraphTrainer, config_of({}))
    assert repeated == [7] and "warning" not in capsys.readouterr().err


def test_runs_after_each_other_share_a_stream(monkeypatch) -> None:
    class Stream:
        made = 0

        def __init__(self) -> None:
            Stream.made += 1
            self.device_index = torch.cuda.current_device()

    monkeypatch.setattr(turns, "_idle", defaultdict(list))
    checked: list[bool] = []
    monkeypatch.setattr(turns.device, "check_gpu", lambda: checked.append(True))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    used: list[Any] = []
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: used.append(stream) or nullcontext())
    monkeypatch.setattr(turns.device, "random_state", lambda where: (torch.get_rng_state(), None))

    def work(error: type[Exception] | None = None) -> Iterator[None]:
        yield
        if error:
            raise error

    def begun(*error: type[Exception]) -> turns.Turn:
        turn = turns.Turn(work(*error), "cuda")
        turn.advance()
        return turn

    first, second = begun(), begun(ValueError)
    assert used == [first.stream, second.stream] and first.stream is not second.stream
    first.advance()
    assert not first.going and second.going and first.stream is None
    with pytest.raises(ValueError):
        second.advance()
    third, fourth = begun(), begun()
    assert Stream.made == 2 and third.stream is not fourth.stream
    third.close(), third.close()
    assert third.steps.gi_frame is None, "what the run held is free"
    assert begun().stream and Stream.made == 2
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    assert begun().stream.device_index == 1 and Stream.made == 3 and len(checked) == 6


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED")]
)
def test_a_full_memory_is_no_matter_of_the_graph(error: RuntimeError, monkeypatch) -> None:
    def full(step: Callable[[], None]) -> Callable[[], None]:
        raise error

    monkeypatch.setattr(graphs, "capture", full)
    with pytest.raises(type(error), match=str(error)):
        two_epochs(graphs.GraphTrainer, config_of({}))


@pytest.fixture(params=["its end is an error too", "its end is none"])
def states(request, monkeypatch) -> list[Any]:
    """Make captures break off, without a GPU; return the list of states that the generator is given."""

    class Graph(nullcontext):  # a class, as torch's; on Python 3.13, a generator's frame would hold the exception
        def __exit__(self, *raised: object) -> None:
            if request.param == "its end is an error too":
                raise RuntimeError("operation failed due to a previous error during capture")

    states: list[Any] = []
    generator = SimpleNamespace(clone_state=lambda: "copy", graphsafe_set_state=states.append)
    for name, stand_in in {"CUDAGraph": object, "graph_pool_handle": lambda: (0, 1), "current_device": lambda: 0,
                           "current_stream": object, "graph": lambda *given, **more: Graph()}.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(torch.cuda, "default_generators", (generator,))
    for name in ("_cuda_endAllocateToPool", "_cuda_releasePool"):
        monkeypatch.setattr(torch._C, name, lambda *given: None, raising=False)
    return states


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), KeyboardInterrupt()])
def test_what_broke_a_capture_off_is_raised_not_that_it_ended(
    error: BaseException, states: list[Any], request: pytest.FixtureRequest
) -> None:
    """torch says that the capture failed "due to a previous error"; the error itself must be raised instead."""

    def step() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        graphs.capture(step)
    unended = isinstance(error, KeyboardInterrupt) and "its end is none" in request.node.name
    assert raised.value is error and states == ([] if unended else ["copy"])


def test_what_a_broken_capture_held_is_free_at_once(states: list[Any]) -> None:
    """Without waiting for the garbage collector: a run that found no room would keep its memory from the others."""
    held = []

    def step() -> None:
        activations = torch.ones(3)
        held.append(weakref.ref(activations))
        raise torch.OutOfMemoryError("CUDA out of memory.")

    gc.disable()
    try:
        with suppress(torch.OutOfMemoryError):
            graphs.capture(step)
        assert held[0]() is None
    finally:
        gc.enable()


class NothingFromTheHost(TorchDispatchMode):
    """Refuses every operation that reads a tensor in the host's memory: a graph would repeat the value it had at
    capture, or could not be captured."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = tree_leaves((args, kwargs or {}))
        assert not any(isinstance(each, torch.Tensor) and each.device.type == "cpu" for each in read), func
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("name", OURS)
def test_a_step_that_is_captured_stays_on_the_gpu(name: str, monkeypatch) -> None:
    """The step runs on tensors without memory, which say that they are on a GPU. One on another device is an error, and
    so is a value that the host asks for. Backward and the optimiser's step, which are torch's own, need a real GPU."""
    config = recipes.config_for(name, batch_size=4, device="cuda")
    shape = (400, 197) if config.feature == "spectrogram" else (26, 57)
    monkeypatch.setattr(torch.Tensor, "backward", lambda loss: None)
    with FakeTensorMode():
        with torch.device("cuda"):
            model = models.of_run(name, shape, 4, config.head, config.attn_hidden)
            x, rows, labels = torch.zeros(10, *shape), torch.arange(10), torch.zeros(10, dtype=torch.int64)
            weights = torch.ones(4)
        optimizer = torch.optim.SGD(model.parameters())
        monkeypatch.setattr(optimizer, "step", lambda: None)
        part = loops.Part(x, rows, np.arange(10), labels, np.arange(10))
        for given in (None, weights):
            trainer = graphs.make_trainer(model, optimizer, part, config, given)
            assert isinstance(trainer, graphs.GraphTrainer)
            with NothingFromTheHost():
                trainer._take_due_step()
            assert all(tensor.is_cuda for tensor in trainer._state())
            assert trainer.step(torch.arange(4), 0.25, 0.75, torch.arange(4)).is_cuda, "a plain step"


class ChannelsLast(NothingFromTheHost):
    """Refuses also a convolution whose maps or weight do not lie channels last: cuDNN would convert them."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if "conv" in str(func):
            self.seen = [*getattr(self, "seen", []), func]
            for each in (*args[:2], out):
                assert each.is_contiguous(memory_format=torch.channels_last), (func, each.shape, each.stride())
        return out


@pytest.mark.parametrize("name", OURS)
def test_a_batch_that_is_scored_stays_on_the_gpu_channels_last(name: str) -> None:
    """The norms are in the weights, and the tensors have no memory, as above."""
    config = recipes.config_for(name, device="cuda")
    shape = (400, 197) if config.feature == "spectrogram" else (26, 57)
    with FakeTensorMode():
        with torch.device("cuda"):
            model = models.of_run(name, shape, 4, config.head, config.attn_hidden)
            x, labels = torch.zeros(10, *shape), torch.zeros(10, dtype=torch.int64)
            part = loops.Part(x, torch.arange(10), np.arange(10), labels, np.arange(10))
        for layer in model.modules():
            if isinstance(layer, torch.nn.Conv2d):  # as model.to(memory_format=...), which these tensors refuse
                layer.weight = torch.nn.Parameter(layer.weight.to(memory_format=torch.channels_last))
        with ChannelsLast() as mode:
            next(loops.evaluation(model, part, config))
        assert len(mode.seen) >= 6


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_a_cuda_graph_is_the_plain_loop(settings: dict[str, Any], capsys) -> None:
    config = replace(config_of(settings, "cuda"), deterministic=True)
    got, expected = two_epochs(graphs.GraphTrainer, config), two_epochs(loops.Trainer, config)
    assert got[0] == pytest.approx(expected[0], rel=1e-3)
    assert "warning" not in capsys.readouterr().err


@pytest.mark.gpu
@CUDA
def test_memory_and_random_numbers_are_there_after_a_capture_that_broke_off() -> None:
    def host_asks() -> None:
        (torch.ones(3, device="cuda") * 2).sum().item()

    with torch.cuda.stream(torch.cuda.Stream()), pytest.raises(RuntimeError):
        graphs.capture(host_asks)
    block = torch.ones(2**26, device="cuda")
    held = torch.cuda.memory_reserved()
    del block
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= held - 4 * 2**26
    assert torch.rand(2, device="cuda").isfinite().all()  # torch's generator no longer waits for the capture's end


@pytest.mark.gpu
@CUDA
def test_seeds_at_once_on_a_gpu_are_as_alone(here: Path, tmp_path: Path) -> None:
    words = ["--models", "GLAM,AACNN_flat", "--epochs", 2, "--seeds", 2, "--deterministic", "--device", "cuda"]
    words = [word for word in words if word != "--gpu"]
    for folder, at_once in ((tmp_path / "together", 4), (tmp_path / "alone", 1)):
        old, sys.argv = sys.argv, ["sweep.py", "--datasets", "all", *map(str, words), "--runs", str(folder),
                                   "--at_once", str(at_once), "--quiet"]  # fmt: skip
        try:
            assert sweep.main() == 0
        finally:
            sys.argv = old
    one, other = finished(tmp_path / "together"), finished(tmp_path / "alone")
    assert len(one) == 4 and one.keys() == other.keys() and all(content(one[k]) == content(other[k]) for k in one)
