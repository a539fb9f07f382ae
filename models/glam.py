"""GLAM and its ablations: Zhu and Li, "Speech Emotion Recognition with Global-Aware Fusion on Multi-scale Feature
Representation", ICASSP 2022.

All models have one trunk, in which only `kernel` and `block` differ; each head is a subclass.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from g_mlp_pytorch import gMLP
from torch import Tensor, nn

from models import register
from models.layers import (
    Classifier,
    MultiScale,
    PlainMultiScale,
    SingleScale3,
    SingleScale5,
    area_attention,
    convolve,
    head_attention,
    head_projections,
    pointwise,
    pooled_size,
)

CHANNELS = 128  # of the map that the trunk returns


class Trunk(Classifier):
    """Multi-scale convolutions, the head (`fuse`) and the last layer. Raises UserError if F < 2 or T < 4."""

    kernel: ClassVar[int] = 3  # length of the first convolutions
    block: ClassVar[type[nn.Module]] = MultiScale

    def __init__(self, shape: tuple[int, int], num_classes: int = 4, _width: int = CHANNELS):
        """Subclasses set `_width`: the number of the last layer's inputs for each position of the trunk's map."""
        super().__init__()
        features, frames = shape
        rows, columns = pooled_size(2 * features, frames)
        k = self.kernel
        self.positions = rows * columns  # (F // 2) * (T // 4)
        # as published: convolutions, norms, fc, then the head's own layers; initial weights depend on this order
        self.conv1a = nn.Conv2d(1, 16, (k, 1), padding=(k // 2, 0))
        self.conv1b = nn.Conv2d(1, 16, (1, k), padding=(0, k // 2))
        self.conv2 = self.block(16)
        self.conv3 = self.block(32)
        self.conv4 = self.block(64)
        self.conv5 = nn.Conv2d(128, CHANNELS, 5, padding=2)
        self.bn1a = nn.BatchNorm2d(16)
        self.bn1b = nn.BatchNorm2d(16)
        self.bn5 = nn.BatchNorm2d(CHANNELS)
        self.fc = nn.Linear(_width * self.positions, num_classes)

    def trunk(self, x: Tensor) -> Tensor:  # (B, 1, F, T)
        # The views are rectified before they are joined. So batch norm gets ReLU's gradient, which is dense, and not a
        # slice of the join's gradient, over which its backward pass takes twelve times as long
        views = convolve(x, (self.conv1a,), self.bn1a), convolve(x, (self.conv1b,), self.bn1b)
        x = torch.cat(views, dim=2)  # (B, 16, 2F, T)
        x = self.conv2(x, pool=True)  # (B, 32, F, T//2)
        x = self.conv3(x, pool=True)  # (B, 64, F//2, T//4)
        x = self.conv4(x)  # (B, 128, F//2, T//4)
        return convolve(x, (self.conv5,), self.bn5)

    def fuse(self, x: Tensor) -> Tensor:
        """Apply the head, up to the last layer: (B, 128, F//2, T//4) -> (B, H)."""
        return x.flatten(1)

    def hidden(self, x: Tensor) -> Tensor:
        return self.fuse(self.trunk(x))


class Fusion(gMLP):
    """Global-aware fusion, (B, 128, D) -> (B, 128, D): a gMLP block (Liu et al., "Pay Attention to MLPs", NeurIPS 2021)
    whose tokens are the 128 channels, with a tanh on its gate.

    Parameters are g-mlp-pytorch's, and so is the computation on a GPU. On a CPU, matrix products are computed as
    convolutions of length 1: on an AMD processor oneDNN computes these two to three times as fast as MKL the products.
    The two halves of the block are computed apart, so that neither has to be copied.
    """

    def __init__(self, positions: int):
        super().__init__(dim=positions, depth=1, seq_len=CHANNELS, act=nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        layer: Any = self.layers[0]
        norm, block = layer.fn.norm, layer.fn.fn.fn
        project, unit, out = block.proj_in[0], block.sgu, block.proj_out
        if x.is_cuda or {type(project), type(out)} != {nn.Linear}:  # others, such as quantised layers, must be called
            return super().forward(x)
        x = x.contiguous()
        normed, halves = norm(x), zip(project.weight.chunk(2), project.bias.chunk(2), strict=True)
        content, gate = (F.gelu(pointwise(normed, *half)) for half in halves)  # (B, 128, 2 D) each
        gate = F.conv1d(unit.norm(gate), unit.weight[0].unsqueeze(2), unit.bias[0])  # over the tokens
        return x + pointwise(torch.tanh(gate) * content, out.weight, out.bias)


@register("GLAM", paper="GLAM")
class GLAM(Trunk):
    """The paper's model, whose head is global-aware fusion."""

    def __init__(self, shape: tuple[int, int], num_classes: int = 4):
        super().__init__(shape, num_classes)
        self.gmlp = Fusion(self.positions)

    def fuse(self, x: Tensor) -> Tensor:
        return F.relu(self.gmlp(x.flatten(2))).flatten(1)  # (B, 128, D) -> (B, 128 D)


@register("GLAM5")
class GLAM5(GLAM):
    """GLAM whose first convolutions have length 5."""

    kernel = 5


@register("gMLPMultiConv", paper="– (GLAM without short-cuts)")
class GMLPMultiConv(GLAM):
    """Ablation: GLAM without short-cuts."""

    block = PlainMultiScale


@register("gMLPResConv3", paper="– (GLAM with 3x3 convolutions alone)")
class GMLPResConv3(GLAM):
    """Ablation: GLAM with 3x3 convolutions alone."""

    block = SingleScale3


@register("gMLPResConv5", paper="– (GLAM with 5x5 convolutions alone)")
class GMLPResConv5(GLAM):
    """Ablation: GLAM with 5x5 convolutions alone."""

    block = SingleScale5


@register("ResMultiConv3", paper="Multi-scale")
class ResMultiConv3(Trunk):
    """Ablation: GLAM without global-aware fusion."""


@register("ResMultiConv5")
class ResMultiConv5(ResMultiConv3):
    """`ResMultiConv3` whose first convolutions have length 5."""

    kernel = 5


@register("MHResMultiConv3", aliases=["MAResMultiConv3"], paper="Multi-scale + MHA")
class MHResMultiConv3(Trunk):
    """Ablation: GLAM with head attention in place of global-aware fusion."""

    def __init__(self, shape: tuple[int, int], num_classes: int = 4, heads: int = 4, attn_hidden: int = 64):
        super().__init__(shape, num_classes, _width=heads * attn_hidden)
        projections = head_projections(CHANNELS, attn_hidden, heads)
        self.attention_query, self.attention_key, self.attention_value = projections

    def fuse(self, x: Tensor) -> Tensor:
        x = head_attention(x, self.attention_query, self.attention_key, self.attention_value)
        return F.relu(x).flatten(1)


@register("AAResMultiConv3", paper="Multi-scale + AA")
class AAResMultiConv3(Trunk):
    """Ablation: GLAM with area attention in place of global-aware fusion, over all positions, row after row."""

    def fuse(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)  # (B, D, 128)
        return F.relu(area_attention(x, training=self.training)).flatten(1)
