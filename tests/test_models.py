"""Networks: as published to the last key, and what every registered one must do."""

import copy
import csv
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from g_mlp_pytorch import gMLP
from made_checkpoints import OURS
from torch import Tensor, nn

import models
from cli import UserError
from models import canonical, create_model, keywords, list_models, paper_name
from models.glam import CHANNELS, Fusion
from models.layers import (
    Classifier,
    area_attention,
    convolve,
    head_attention,
    head_projections,
    max_pool,
    side_by_side,
)

GOLDEN = ["GLAM", "MHResMultiConv3", "MHCNN", "CNN_AttnPooling", "AACNN_flat"]
WITH_DROPOUT = {"AACNN", "AACNN_flat", "AAResMultiConv3"}
SMALL = (10, 17)  # where the size is of no consequence
PARAMS = {
    ("GLAM", (26, 57)): 904078,
    ("GLAM5", (26, 57)): 904142,
    ("gMLPMultiConv", (26, 57)): 904078,
    ("gMLPResConv3", (26, 57)): 818062,
    ("gMLPResConv5", (26, 57)): 990094,
    ("ResMultiConv3", (26, 57)): 686820,
    ("ResMultiConv5", (26, 57)): 686884,
    ("MHResMultiConv3", (26, 57)): 879076,
    ("AAResMultiConv3", (26, 57)): 686820,
    ("APCNN", (400, 197)): 93573,
    ("MACNN", (26, 63)): 155636,
    ("CNN_GAP", (26, 63)): 121972,
    ("AACNN_flat", (26, 63)): 151108,
    ("AACNN", (128, 81)): 93504 + (80 * 64 * 20 + 1) * 4,  # trunk, dense layer
}


pytestmark = pytest.mark.usefixtures("one_thread")


def build(name: str, shape: tuple[int, int] = SMALL, **kwargs: int) -> Classifier:
    torch.manual_seed(1)
    return create_model(name, shape, **kwargs)


def trained(net: Classifier) -> list[nn.Module]:
    """Make a network's norms as different from each other as training does, and return them."""
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    with torch.no_grad():
        for norm in norms:
            norm.running_mean.normal_(std=0.3), norm.running_var.uniform_(0.3, 2)
            norm.weight.uniform_(-1, 1.5), norm.bias.normal_(std=0.3)  # negative weights turn maxima into minima
    return norms


def batch(size: int = 3, shape: tuple[int, int] = SMALL) -> Tensor:
    return torch.randn(size, 1, *shape, generator=torch.Generator().manual_seed(7))


# As published


@pytest.fixture(params=GOLDEN)
def published(request: pytest.FixtureRequest, golden: dict) -> tuple[dict, Classifier, Tensor]:
    """The published network's numbers, ours as initialised from the same seed, and the input."""
    numbers = next(each for each in golden["models"] if each["name"] == request.param)
    shape = tuple(numbers["shape"])
    torch.manual_seed(20211)
    return numbers, create_model(request.param, shape), batch(3, shape)


def test_published_keys_shapes_and_initial_weights(published):
    numbers, net, _ = published
    state = net.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == numbers["keys"]
    assert list(state) == list(numbers["keys"])
    assert sum(each.numel() for each in net.parameters()) == numbers["params"]
    for key, total in numbers["init_sum"].items():
        assert state[key].double().sum().item() == pytest.approx(total, abs=1e-5), key


def test_published_outputs(published):
    numbers, net, x = published
    for without_gradient in (torch.no_grad, torch.inference_mode):  # inference_mode folds norms into the weights
        with without_gradient():
            torch.testing.assert_close(net.eval()(x), torch.tensor(numbers["eval_out"]), atol=1e-5, rtol=1e-5)
    torch.manual_seed(5)
    logits = net.train()(x)
    torch.testing.assert_close(logits, torch.tensor(numbers["train_out"]), atol=2e-5, rtol=1e-5)
    loss = F.cross_entropy(logits, torch.arange(3))
    loss.backward()
    assert loss.item() == pytest.approx(numbers["train_loss"], abs=1e-5)
    norm = math.sqrt(sum(each.grad.double().square().sum().item() for each in net.parameters()))
    assert norm == pytest.approx(numbers["grad_norm"], rel=1e-5)


@pytest.mark.parametrize(("name", "shape"), PARAMS, ids=[name for name, _ in PARAMS])
def test_parameter_count(name, shape):
    assert sum(each.numel() for each in create_model(name, shape).parameters()) == PARAMS[name, shape]


def test_all_published_networks_are_there():
    assert {name for name, _ in PARAMS} <= set(list_models())
    assert list_models() == sorted(list_models())


@pytest.mark.parametrize(
    ("alias", "name"), [("MHCNN", "MACNN"), ("CNN_AttnPooling", "APCNN"), ("MAResMultiConv3", "MHResMultiConv3")]
)
def test_alias(alias, name):
    assert canonical(alias) == name
    assert type(create_model(alias)) is type(create_model(name))
    assert alias not in list_models()


def test_names_in_the_paper():
    assert paper_name("MACNN") == paper_name("MHCNN") == "MHCNN"
    assert paper_name("MHResMultiConv3") == "Multi-scale + MHA"
    assert paper_name("GLAM5") == "–"
    assert paper_name("gMLPResConv5") == "– (GLAM with 5x5 convolutions alone)"
    with open(Path(models.__file__).parents[1] / "results" / "published.csv", encoding="utf-8") as f:
        published = {row["model"] for row in csv.DictReader(f)}
    assert {paper_name(name) for name in list_models() if not paper_name(name).startswith("–")} == published


# What every network must do


@pytest.mark.parametrize("shape", [(26, 57), (26, 63)])
@pytest.mark.parametrize("name", list_models())
def test_finite_logits_and_a_gradient_for_every_parameter(name, shape):
    net = build(name, shape)
    logits = net(batch(3, shape))
    assert logits.shape == (3, 4)
    F.cross_entropy(logits, torch.arange(3)).backward()
    assert logits.isfinite().all()
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), key
        assert parameter.ndim == 1 or parameter.grad.any(), key


@pytest.mark.parametrize(("name", "shape"), [("AACNN", (128, 81)), ("APCNN", (400, 197))])
def test_the_feature_each_comparison_uses(name, shape):
    with torch.no_grad():
        assert build(name, shape)(batch(2, shape)).isfinite().all()


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("name", list_models())
def test_number_of_classes(name, classes):
    with torch.no_grad():
        assert build(name, num_classes=classes).eval()(batch(2)).shape == (2, classes)


@pytest.mark.parametrize("name", list_models())
@torch.no_grad()
def test_eval_is_repeatable_and_treats_each_segment_alone(name):
    net, x = build(name), batch(4)
    net(x)  # batch norms that have seen something
    together = net.eval()(x)
    assert torch.equal(together, net(x))
    torch.testing.assert_close(together, torch.cat([net(each[None]) for each in x]), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", list_models())
@torch.no_grad()
def test_hidden_is_the_input_of_the_last_layer(name):
    net, x = build(name).eval(), batch(2)
    hidden = net.hidden(x)
    if name == "APCNN":  # two last layers, whose product is pooled
        assert torch.equal(hidden, net.trunk(x).mean((2, 3)))
    else:
        assert torch.equal(net.fc(hidden), net(x))
    assert hidden.ndim == 2


@pytest.mark.parametrize("name", OURS)
@torch.no_grad()
def test_only_area_attention_draws_random_numbers(name):
    net = build(name)
    before = torch.get_rng_state()
    net(batch(2))
    assert torch.equal(before, torch.get_rng_state()) == (name not in WITH_DROPOUT)


@pytest.mark.parametrize("name", ["GLAM", "MHResMultiConv3", "AACNN"])
def test_exports_with_a_free_batch_size(name):
    net = build(name).eval()
    program = torch.export.export(net, (batch(2),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(batch(5)), net(batch(5)))


@pytest.mark.parametrize("name", ["GLAM", "AAResMultiConv3", "MACNN"])
def test_trains_under_torch_compile_in_one_graph(name):
    net = build(name, (26, 63)).train()
    plain, compiled = copy.deepcopy(net), torch.compile(net, backend="eager", fullgraph=True)
    for model in (plain, compiled):
        torch.manual_seed(3)
        model(batch(2, (26, 63))).sum().backward()
    for ours, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("name", ["MHResMultiConv3", "MACNN"])
def test_heads_and_their_width(name):
    net = build(name, heads=2, attn_hidden=8)
    assert len(net.attention_query) == 2
    assert net.attention_value[1].out_channels == 8
    assert net(batch(2)).shape == (2, 4)


# The parts


def naive_area_attention(x: Tensor, max_length: int = 3) -> Tensor:
    """(L, C) -> (L, C), one query and one area at a time."""
    length = len(x)
    spans = [(start, start + n) for n in range(1, max_length + 1) for start in range(length - n + 1)]
    out = torch.zeros_like(x)
    for i in range(length):
        weights = torch.softmax(torch.stack([x[i] @ x[a:b].mean(0) for a, b in spans]), dim=0)
        for weight, (a, b) in zip(weights, spans, strict=True):
            out[i] += weight * x[a:b].sum(0)
    return out


@pytest.mark.parametrize("length", [1, 2, 3, 7])
@pytest.mark.parametrize("max_length", [1, 2, 3])
def test_area_attention_against_a_double_loop(length, max_length):
    x = torch.randn(2, length, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(length))
    expected = torch.stack([naive_area_attention(each, max_length) for each in x])
    torch.testing.assert_close(area_attention(x, max_length), expected)


def test_area_attention_drops_weights_area_by_area():
    x = torch.randn(1, 4, 5, generator=torch.Generator().manual_seed(0))
    values = torch.stack([x[0, a : a + n].sum(0) for n in (1, 2, 3) for a in range(5 - n)])  # 4 + 3 + 2 areas
    keys = torch.stack([x[0, a : a + n].mean(0) for n in (1, 2, 3) for a in range(5 - n)])
    torch.manual_seed(3)
    expected = F.dropout(torch.softmax(x @ keys.T, dim=-1), 0.5) @ values
    torch.manual_seed(3)
    torch.testing.assert_close(area_attention(x, training=True), expected)


def test_head_attention_against_a_loop():
    torch.manual_seed(0)
    query, key, value = head_projections(6, 5, heads=3)
    x = torch.randn(2, 6, 4, 7)
    out = head_attention(x, query, key, value)
    assert out.shape == (2, 5, 3 * 4, 7)
    for head in range(3):
        for row in range(4):
            for column in range(7):
                at = x[:, :, row, column]  # (B, C)
                q, k, v = (F.linear(at, p[head].weight[:, :, 0, 0], p[head].bias) for p in (query, key, value))
                torch.testing.assert_close(out[:, :, head * 4 + row, column], torch.softmax(q * k, dim=1) * v)


def test_head_projections_are_created_head_by_head():
    torch.manual_seed(0)
    lists = head_projections(6, 5, heads=2)
    torch.manual_seed(0)
    for head in range(2):
        for projections in lists:
            assert torch.equal(projections[head].weight, nn.Conv2d(6, 5, 1).weight)


def tensorflow_same(x: np.ndarray, kernel: np.ndarray, bias: float) -> np.ndarray:
    """Correlation of x (F, T) with a kernel, padded as TensorFlow does: (k - 1) // 2 zeros before, the rest after."""
    rows, columns = kernel.shape
    above, left = (rows - 1) // 2, (columns - 1) // 2
    padded = np.zeros((len(x) + rows - 1, x.shape[1] + columns - 1))
    padded[above : above + len(x), left : left + x.shape[1]] = x
    out = np.empty(x.shape)
    for i, j in np.ndindex(x.shape):
        out[i, j] = (padded[i : i + rows, j : j + columns] * kernel).sum() + bias
    return out


@torch.no_grad()
def test_aacnn_stem_is_padded_as_tensorflow_does():
    net, x, seen = build("AACNN", (12, 13)), batch(1, (12, 13)), {}
    for conv in (net.conv1a, net.conv1b):
        conv.register_forward_hook(lambda conv, _, out: seen.update({conv: out}))
    net(x)
    for conv, before in ((net.conv1a, (4, 0)), (net.conv1b, (0, 3))):
        rows, columns = conv.kernel_size
        assert ((rows - 1) // 2, (columns - 1) // 2) == before  # zeros above and left; below and right 5, 1 and 1, 4
        for channel in (0, 15):
            expected = tensorflow_same(x[0, 0].numpy(), conv.weight[channel, 0].numpy(), conv.bias[channel].item())
            np.testing.assert_allclose(seen[conv][0, channel].numpy(), expected, atol=1e-6)


@torch.no_grad()
def test_aacnn_attends_within_each_row_and_rectifies_nothing_after():
    net, x = build("AACNN", (12, 21)).eval(), batch(1, (12, 21))
    rows = net.trunk(x)[0].permute(1, 2, 0)  # (2F//4, T//4, 80)
    assert rows.shape == (6, 5, 80)
    expected = torch.cat([naive_area_attention(row).flatten() for row in rows])
    torch.testing.assert_close(net.hidden(x)[0], expected)


@torch.no_grad()
def test_the_ablation_by_area_attention_attends_over_all_positions_row_by_row():
    net, x = build("AAResMultiConv3", (12, 21)).eval(), batch(1, (12, 21))
    maps = net.trunk(x)[0]  # type: ignore[operator]
    positions = maps.permute(1, 2, 0).flatten(0, 1)  # (rows * frames, 128)
    torch.testing.assert_close(net.hidden(x)[0], naive_area_attention(positions).relu().flatten())


@pytest.mark.parametrize("name", ["ResMultiConv3", "ResMultiConv5", "CNN_GAP"])
@torch.no_grad()
def test_without_a_head_the_map_goes_into_the_last_layer_channel_by_channel(name):
    net, x = build(name, (12, 21)).eval(), batch(1, (12, 21))
    maps = net.trunk(x)[0]  # type: ignore[operator]
    assert torch.equal(net.hidden(x)[0], torch.cat([row for channel in maps for row in channel]))


def test_a_runs_settings_reach_its_network():
    four = models.of_run("MACNN", (26, 57), 5, 4, 64)
    two = models.of_run("MACNN", (26, 57), 5, 2, 8)
    assert len(list(two.attention_query)) == 2 != len(list(four.attention_query))
    assert two.attention_query[0].out_channels == 8 and two.fc.out_features == 5


@pytest.mark.parametrize("keyword", ["heads", "attn_hidden"])
def test_a_network_gets_the_one_setting_of_head_attention_that_it_takes(keyword, monkeypatch):
    monkeypatch.setattr(models, "_classes", dict(models._classes))
    monkeypatch.setattr(models, "_names", dict(models._names))

    class One(Classifier):
        def __init__(self, shape, num_classes=4, *, size):
            super().__init__()
            self.fc = nn.Linear(size, num_classes)

    sized = {
        "heads": lambda self, shape, num_classes=4, heads=4: One.__init__(self, shape, num_classes, size=heads),
        "attn_hidden": lambda self, shape, num_classes=4, attn_hidden=64: One.__init__(
            self, shape, num_classes, size=attn_hidden
        ),
    }
    models.register("One")(type("Sized", (One,), {"__init__": sized[keyword]}))
    assert models.of_run("One", (26, 57), 4, 3, 8).fc.in_features == {"heads": 3, "attn_hidden": 8}[keyword]


@torch.no_grad()
def test_aacnn_norms_as_tensorflow_does():
    net, x = build("AACNN"), batch(4)
    norms = [each for each in net.modules() if isinstance(each, nn.BatchNorm2d)]
    assert {(each.eps, each.momentum) for each in norms} == {(1e-3, 0.01)}
    assert len(norms) == 6
    assert {each.eps for each in build("AACNN_flat").modules() if isinstance(each, nn.BatchNorm2d)} == {1e-5}
    net(x)
    mean = net.conv1a(F.pad(x, (0, 1, 0, 1))).mean((0, 2, 3))
    torch.testing.assert_close(net.bn1a.running_mean, 0.01 * mean)


def test_aacnn_starts_glorot_uniform():
    net = build("AACNN")
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight
            area = weight[0, 0].numel() if weight.ndim == 4 else 1
            bound = math.sqrt(6 / ((weight.shape[0] + weight.shape[1]) * area))
            assert 0.9 * bound < weight.abs().max() <= bound
            assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.15)
            assert not module.bias.any()
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), build("AACNN").parameters(), strict=True))


@torch.no_grad()
def test_pooling_before_relu_is_the_same():
    net, x = build("GLAM").eval(), batch(2)
    trained(net)
    views = [F.relu(net.bn1a(net.conv1a(x))), F.relu(net.bn1b(net.conv1b(x)))]
    y = torch.cat(views, dim=2)
    assert y.shape == (2, 16, 20, 17)
    for block in (net.conv2, net.conv3):
        y = F.max_pool2d(F.relu(block(y)), 2)
    y = F.relu(net.bn5(net.conv5(F.relu(net.conv4(y)))))
    assert torch.equal(y, net.trunk(x))


def test_norms_side_by_side_are_the_norms_one_by_one():
    torch.manual_seed(0)
    apart = [nn.BatchNorm2d(channels, eps=1e-3, momentum=0.2) for channels in (8, 5)]
    for parameter in (parameter for norm in apart for parameter in norm.parameters()):
        nn.init.uniform_(parameter, 0.5, 1.5)
    together = copy.deepcopy(apart)
    for _ in range(3):
        x = torch.randn(4, 13, 6, 7).mul(3).add(1)
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        left = torch.cat([norm(part) for norm, part in zip(apart, a.split([8, 5], dim=1), strict=True)], dim=1)
        right = side_by_side(together, b)
        for y in (left, right):
            y.square().mul(torch.linspace(-1, 1, 7)).sum().backward()
        torch.testing.assert_close(right, left)
        torch.testing.assert_close(b.grad, a.grad)
    for one, other in zip(apart, together, strict=True):
        torch.testing.assert_close(dict(other.state_dict()), dict(one.state_dict()))
        for p, q in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(q.grad, p.grad)
        one.eval(), other.eval()
    with torch.no_grad():
        expected = torch.cat([norm(part) for norm, part in zip(apart, x.split([8, 5], dim=1), strict=True)], dim=1)
        torch.testing.assert_close(side_by_side(together, x), expected)
    assert together[0].num_batches_tracked == 3
    with pytest.raises(TypeError, match="momentum"):  # None, an average over all batches, is refused
        side_by_side([nn.BatchNorm2d(8, momentum=None)] * 2, torch.randn(2, 16, 3, 3))


@pytest.mark.parametrize(("name", "kernel"), [("gMLPResConv3", "conv3"), ("gMLPResConv5", "conv5")])
@torch.no_grad()
def test_single_scale_block(name, kernel):
    block, x = build(name).eval().conv2, torch.randn(1, 16, 6, 7)
    expected = getattr(block, kernel)(x) + torch.cat((x, x), dim=1)
    torch.testing.assert_close(block(x), F.relu(expected / math.sqrt(1 + 1e-5)))  # a fresh batch norm, in eval mode


@torch.no_grad()
def test_short_cuts_are_all_that_tells_the_multi_scale_blocks_apart():
    x = torch.randn(1, 16, 6, 7)
    cut, plain = (build(name).eval().conv2 for name in ("GLAM", "gMLPMultiConv"))
    outputs = torch.cat((plain.conv3(x), plain.conv5(x)), dim=1)
    torch.testing.assert_close(plain(x), F.relu(outputs / math.sqrt(1 + 1e-5)))
    torch.testing.assert_close(cut(x), F.relu((outputs + torch.cat((x, x), dim=1)) / math.sqrt(1 + 1e-5)))


@pytest.mark.parametrize("name", list_models())
def test_norms_in_the_weights_change_nothing(name):
    net, x = build(name), batch(3)
    norms = trained(net)
    for where in (torch.contiguous_format, torch.channels_last):
        net = net.to(memory_format=where).eval()
        with torch.no_grad():
            expected = net(x)
        with torch.inference_mode():
            torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)
    before = [norm.running_mean.clone() for norm in norms]
    with torch.inference_mode():
        net.train()(x)  # in training mode, norms are not in the weights
    assert not any(torch.equal(norm.running_mean, mean) for norm, mean in zip(norms, before, strict=True))


@pytest.mark.parametrize(
    ("kernel", "settings", "shortcut", "norms"),
    [
        ((3, 5), {"padding": (2, 4), "dilation": 2}, True, {}),
        (3, {"padding": 1, "padding_mode": "circular"}, True, {}),
        (4, {"padding": "same"}, True, {}),
        (3, {"stride": 2, "groups": 2, "bias": False}, False, {}),
        (3, {"padding": 1, "groups": 2}, True, {}),
        (3, {"padding": 1}, True, {"affine": False}),
        (3, {"padding": 1}, True, {"track_running_stats": False}),
    ],
)
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_norms_in_the_weights_of_any_convolution(kernel, settings, shortcut, norms):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(4, 8, kernel, **settings), torch.randn(2, 4, 7, 9)
    norm = nn.BatchNorm2d(8, eps=0.1, **norms).eval()
    with torch.no_grad():
        if norm.track_running_stats:
            norm.running_mean.normal_(), norm.running_var.uniform_(0, 0.2)
        expected = convolve(x, [conv], norm, shortcut)
    with torch.inference_mode():
        torch.testing.assert_close(convolve(x, [conv], norm, shortcut), expected, rtol=1e-4, atol=1e-5)


def test_hooks_see_every_layer_where_gradients_may_be_wanted():
    net, seen = build("GLAM").eval(), []
    for name, module in net.named_modules():
        module.register_forward_hook(lambda *_, name=name: seen.append(name))
    with torch.no_grad():
        net(batch(1))
    assert {"conv1a", "bn1a", "conv2.conv3", "conv4.bn", "conv5", "bn5", "gmlp", "fc"} <= set(seen)
    seen.clear()
    with torch.inference_mode():
        net(batch(1))
    assert not {"bn1a", "conv4.bn", "bn5"} & set(seen)  # no norm is called: they are in the weights


@pytest.mark.parametrize("size", [(4, 4), (5, 4), (7, 9)])
def test_max_pool_is_torchs(size):
    for where in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(2, 3, *size).to(memory_format=where)
        assert torch.equal(max_pool(x), F.max_pool2d(x, 2))


def test_fusion_is_the_librarys_gmlp():
    torch.manual_seed(0)
    fusion = Fusion(positions=12)
    for parameter in fusion.parameters():
        nn.init.normal_(parameter, std=0.3)  # those of the gate begin so near 0 that a wrong one would not be seen
    x = torch.randn(3, 4, 3, CHANNELS).permute(0, 3, 1, 2).flatten(2).requires_grad_()  # as channels last leaves it

    def results(forward, amp):
        x.grad = None
        fusion.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=amp):
            y = forward(x)
        y.square().sum().backward()
        return [y, x.grad.clone(), *(parameter.grad.clone() for parameter in fusion.parameters())]

    def theirs(x):
        return gMLP.forward(fusion, x)

    def difference(some, others):
        return torch.stack([(a - b).norm() / b.norm() for a, b in zip(some, others, strict=True)])

    exact = results(theirs, amp=False)
    assert (difference(results(fusion.forward, amp=False), exact) < 2e-6).all()
    ours, library = (difference(results(forward, amp=True), exact) for forward in (fusion.forward, theirs))
    assert (ours < 1.5 * library + 5e-3).all()  # bfloat16 costs as much either way


@pytest.mark.parametrize("name", ["proj_in", "proj_out"])
def test_what_stands_in_a_linear_layers_place_is_called(name):
    """`torch.ao.quantization.quantize_dynamic` and adapters put other modules there."""
    fusion, x = Fusion(positions=12), torch.randn(3, CHANNELS, 12)
    block, own = fusion.layers[0].fn.fn.fn, nn.Module()
    if name == "proj_in":
        own.linear, block.proj_in[0] = block.proj_in[0], own
    else:
        own.linear, block.proj_out = block.proj_out, own
    own.forward = lambda x: 2 * own.linear(x)
    torch.testing.assert_close(fusion(x), gMLP.forward(fusion, x))


# The registry


def test_a_new_model_is_found_by_name(monkeypatch):
    monkeypatch.setattr(models, "_classes", dict(models._classes))
    monkeypatch.setattr(models, "_names", dict(models._names))

    @models.register("Mean", aliases=["Average"], paper="a mean")
    class Mean(Classifier):
        def __init__(self, shape, num_classes=4, scale=1.0):
            super().__init__()
            self.fc = nn.Linear(shape[0], num_classes)

        def hidden(self, x):
            return x.mean((1, 3))

    assert "Mean" in list_models()
    assert canonical("Average") == "Mean"
    assert paper_name("Mean") == Mean.paper == "a mean"
    assert keywords("Mean") == ["num_classes", "scale"]
    assert create_model("Average", SMALL, num_classes=3)(batch(2)).shape == (2, 3)
    with pytest.raises(ValueError, match="Average"):
        models.register("Average")(Mean)


def test_unknown_name_lists_the_choices():
    for call in (canonical, create_model, paper_name, keywords):
        with pytest.raises(UserError, match=r"'GLAN'.*AACNN.*GLAM.*MACNN"):
            call("GLAN")


def test_unknown_keyword_lists_what_there_is():
    with pytest.raises(UserError, match=r"GLAM takes no 'heads'.*num_classes"):
        create_model("GLAM", heads=4)
    with pytest.raises(UserError, match=r"MACNN takes no 'head'.*num_classes, heads, attn_hidden"):
        create_model("MHCNN", head=4)
    with pytest.raises(UserError, match="takes no 'width'"):
        create_model("ResMultiConv3", width=4)


@pytest.mark.parametrize("keyword", ["num_classes", "heads", "attn_hidden"])
@pytest.mark.parametrize("name", ["MACNN", "MHResMultiConv3"])
def test_numbers_are_positive(name, keyword):
    for value in (0, -1):
        with pytest.raises(UserError, match=f"{keyword} of at least 1, not {value}"):
            create_model(name, **{keyword: value})


# Stems of the CNNs, except AACNN's, take away a row and a frame; AACNN_flat's, joined along rows, doubles the rows.
GLAM_FAMILY = [name for name in list_models() if type(build(name, (26, 57))).__module__ == "models.glam"]
SMALLEST = {"APCNN": (5, 5), "MACNN": (5, 5), "CNN_GAP": (5, 5), "AACNN_flat": (3, 5), "AACNN": (2, 4),
            **dict.fromkeys(GLAM_FAMILY, (2, 4))}  # fmt: skip


@pytest.mark.parametrize("name", SMALLEST)
def test_smallest_shape(name):
    features, frames = SMALLEST[name]
    with torch.no_grad():
        assert build(name, (features, frames)).eval()(batch(2, (features, frames))).isfinite().all()
    for shape in ((features - 1, frames), (features, frames - 1)):
        with pytest.raises(UserError, match="too small"):
            create_model(name, shape)


def test_import_does_not_need_torch():
    code = "import sys, models; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=True)
