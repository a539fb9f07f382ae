"""What the families of networks share: the classifier's interface, convolution blocks, two kinds of attention."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cli import UserError

AREA_DROPOUT = 0.5  # of area attention's weights, in training


class Classifier(nn.Module):
    """A network (B, 1, F, T) -> logits (B, num_classes); `hidden` returns the input of its last layer, `fc`."""

    paper: ClassVar[str]  # its name in the paper, set by `models.register`
    fc: nn.Linear

    def hidden(self, x: Tensor) -> Tensor:
        """Return the input of the last layer: (B, 1, F, T) -> (B, H)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(x))


def pooled_size(rows: int, frames: int) -> tuple[int, int]:
    """Return a map's size after the trunk's two 2x2 max-pools. Raises UserError if nothing is left of the map."""
    if rows < 4 or frames < 4:
        raise UserError(
            f"the input is too small for this model: its map of {rows} rows x {frames} frames is pooled twice by 2 x 2 "
            "and must be at least 4 x 4; use longer segments or more features"
        )
    return rows // 4, frames // 4


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute `F.linear` as a 1x1 convolution over the last axis's channels: (B, L, in) -> (B, L, out)."""
    return F.conv2d(x.mT.unsqueeze(2), weight[:, :, None, None], bias).squeeze(2).mT


def side_by_side(norms: Sequence[nn.BatchNorm2d], x: Tensor) -> Tensor:
    """Apply batch norms of equal settings, each to its share of the channels, as one: (B, C, h, w) -> (B, C, h, w).

    On a CPU torch computes 16 channels at a time but fewer one by one: two norms of 8 channels take nine times as long
    as one of 16.
    """
    first, sizes = norms[0], [norm.num_features for norm in norms]
    mean, var, weight, bias = (
        torch.cat([getattr(norm, name) for norm in norms]) for name in ("running_mean", "running_var", "weight", "bias")
    )
    x = F.batch_norm(x, mean, var, weight, bias, first.training, first.momentum, first.eps)  # type: ignore[arg-type]
    if first.training:
        for norm, its_mean, its_var in zip(norms, mean.split(sizes), var.split(sizes), strict=True):
            norm.get_buffer("running_mean").copy_(its_mean)
            norm.get_buffer("running_var").copy_(its_var)
            norm.get_buffer("num_batches_tracked").add_(1)
    return x


def convolve(
    x: Tensor, convs: Sequence[nn.Conv2d], norm: nn.BatchNorm2d, shortcut: bool = False, pool: bool = False
) -> Tensor:
    """Apply convolutions side by side, join them along the channels, norm and rectify: (B, c, h, w) -> (B, C, h, w).

    With `shortcut`, the input is added to each output, twice if that has twice the channels. With `pool`, there is a
    2x2 max-pool before the ReLU; the two commute, and so only a quarter is left to rectify. Under
    `torch.inference_mode`, norm and short-cuts are put into the weights, so that the whole map is written once and not
    up to four times. This is not done if the norm has no weights or statistics, or if a short-cut passes a convolution
    in groups, whose weights lack channels.
    """
    fits = norm.affine and norm.track_running_stats and not (shortcut and any(conv.groups > 1 for conv in convs))
    if fits and not norm.training and torch.is_inference_mode_enabled():  # asked last: torch.compile cannot trace it
        maps = list(_normed(x, convs, norm, shortcut))
        return _joined([max_pool(y) for y in maps] if pool else maps).relu_()
    maps = [conv(x) for conv in convs]
    if shortcut:
        maps = [y.add_(x if y.shape == x.shape else torch.cat((x, x), dim=1)) for y in maps]
    y = norm(_joined(maps))
    return F.relu(F.max_pool2d(y, 2) if pool else y)


def _joined(maps: Sequence[Tensor]) -> Tensor:
    return maps[0] if len(maps) == 1 else torch.cat([*maps], dim=1)


def max_pool(x: Tensor) -> Tensor:
    """Compute `F.max_pool2d(x, 2)`, but not the indices of the maxima, which only training needs and which take longer
    to write than the maxima: (B, C, h, w) -> (B, C, h // 2, w // 2)."""
    x = x[:, :, : x.shape[2] // 2 * 2, : x.shape[3] // 2 * 2]
    x = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
    return torch.maximum(x[..., ::2], x[..., 1::2])


def _normed(x: Tensor, convs: Sequence[nn.Conv2d], norm: nn.BatchNorm2d, shortcut: bool) -> Iterator[Tensor]:
    """Yield each convolution's output, with its share of the batch norm and its short-cut put into weight and bias."""
    mean, var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight * (var + norm.eps).rsqrt()
    shift, sizes = norm.bias - mean * scale, [conv.out_channels for conv in convs]
    for conv, times, plus in zip(convs, scale.split(sizes), shift.split(sizes), strict=True):
        weight = conv.weight * times[:, None, None, None]
        if shortcut:
            height, width = conv.weight.shape[2:]
            middle = weight[:, :, (height - 1) // 2, (width - 1) // 2].unflatten(0, (-1, conv.in_channels))
            middle.diagonal(dim1=1, dim2=2).add_(times.view(-1, conv.in_channels))
        bias = plus if conv.bias is None else torch.addcmul(plus, conv.bias, times)
        yield conv._conv_forward(x, weight, bias)  # with the convolution's padding and stride


# Blocks take c channels and return 2c; with `pool`, they halve rows and columns.


class MultiScale(nn.Module):
    """3x3 and 5x5 convolutions side by side, each with a short-cut: (B, c, h, w) -> (B, 2c, h, w).

    Zhu and Li, ICASSP 2022.
    """

    shortcut: ClassVar[bool] = True

    def __init__(self, channels: int):
        super().__init__()
        self.conv3 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv5 = nn.Conv2d(channels, channels, 5, padding=2)
        self.bn = nn.BatchNorm2d(2 * channels)

    def forward(self, x: Tensor, pool: bool = False) -> Tensor:
        return convolve(x, (self.conv3, self.conv5), self.bn, self.shortcut, pool)


class PlainMultiScale(MultiScale):
    """`MultiScale` without the short-cuts."""

    shortcut = False


class SingleScale3(nn.Module):
    """One 3x3 convolution with a short-cut that carries the input twice: (B, c, h, w) -> (B, 2c, h, w)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv3 = nn.Conv2d(channels, 2 * channels, 3, padding=1)
        self.bn = nn.BatchNorm2d(2 * channels)

    def forward(self, x: Tensor, pool: bool = False) -> Tensor:
        return convolve(x, (self.conv3,), self.bn, shortcut=True, pool=pool)


class SingleScale5(nn.Module):
    """`SingleScale3` with a 5x5 convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv5 = nn.Conv2d(channels, 2 * channels, 5, padding=2)
        self.bn = nn.BatchNorm2d(2 * channels)

    def forward(self, x: Tensor, pool: bool = False) -> Tensor:
        return convolve(x, (self.conv5,), self.bn, shortcut=True, pool=pool)


# Head attention


def head_projections(channels: int, width: int, heads: int) -> tuple[nn.ModuleList, nn.ModuleList, nn.ModuleList]:
    """Return 1x1 convolutions channels -> width for queries, keys and values of each head, created head by head."""
    query, key, value = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
    for _ in range(heads):
        for projections in (query, key, value):
            projections.append(nn.Conv2d(channels, width, 1))
    return query, key, value


def head_attention(x: Tensor, query: nn.ModuleList, key: nn.ModuleList, value: nn.ModuleList) -> Tensor:
    """Attend to channels at each position: (B, C, h, w) -> (B, width, heads * h, w), with the heads along the rows.

    Each head computes softmax(Q * K) * V, with element-wise products and the softmax over channels. Head fusion: Xu et
    al., "Improve Accuracy of Speech Emotion Recognition with Attention Head Fusion", CCWC 2020.
    """
    projections = [*query, *key, *value]  # computed as one convolution, which reads the input once
    weight = torch.cat([each.weight for each in projections])
    bias = torch.cat([each.bias for each in projections])
    q, k, v = F.conv2d(x, weight, bias).unflatten(1, (3, len(query), -1)).unbind(1)  # (B, heads, width, h, w) each
    fused = torch.softmax(q * k, dim=2) * v
    return fused.transpose(1, 2).flatten(2, 3)


# Area attention


def run_sums(x: Tensor, max_length: int) -> list[Tensor]:
    """Return the sums of every 1, 2 .. max_length neighbours (last axis): (..., L) -> [(..., L), (..., L - 1), ...]."""
    sums = [x]
    for n in range(1, max_length):
        sums.append(sums[-1][..., :-1] + x[..., n:])
    return sums


def area_attention(x: Tensor, max_length: int = 3, training: bool = False) -> Tensor:
    """Let positions attend to areas of positions: (..., L, C) -> (..., L, C).

    An area is a run of 1 .. max_length neighbours; areas are listed by length first. An area's key is the mean of its
    positions, its value their sum. Logits are unscaled dot products; with `training`, weights are subject to dropout.
    Li, Kaiser, Bengio and Si, "Area Attention", ICML 2019.
    """
    # as published: its areas may have two dimensions, but the memory that they are taken from has only one row
    # A dot product with a mean is the mean of the dot products, which takes a third of the multiplications
    logits = [each / length for length, each in enumerate(run_sums(x @ x.mT, max_length), start=1)]
    weights = torch.softmax(torch.cat(logits, dim=-1), dim=-1)  # (..., L, A), A = L + (L-1) + (L-2)
    values = torch.cat(run_sums(x.mT, max_length), dim=-1).mT  # (..., A, C)
    return F.dropout(weights, AREA_DROPOUT, training) @ values
