"""GLAM and its ablations: Zhu and Li, "Speech Emotion Recognition with Global-Aware Fusion on Multi-scale Feature
Representation", ICASSP 2022.

One trunk, which differs between models in `kernel` and `block`, and one subclass for each head.
"""

from typing import ClassVar

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
    head_attention,
    head_projections,
    pooled_size,
)

CHANNELS = 128  # of the trunk's map


class Trunk(Classifier):
    """Multi-scale convolutions, then the last layer; `fuse` stands between. Raises UserError if F < 2 or T < 4."""

    kernel: ClassVar[int] = 3  # length of the first convolutions
    block: ClassVar[type[nn.Module]] = MultiScale

    def __init__(self, shape: tuple[int, int], num_classes: int = 4, _width: int = CHANNELS):
        """`_width`, for subclasses: how many inputs the last layer has for each position of the trunk's map."""
        super().__init__()
        features, frames = shape
        rows, columns = pooled_size(2 * features, frames)
        k = self.kernel
        self.positions = rows * columns  # (F // 2) * (T // 4)
        # as published: all convolutions, then the norms, then fc, then the head's own; the initial weights hang on it
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
        # rectified before they are joined: ReLU's gradient is dense, a slice of the join's is not, and batch norm's
        # backward pass takes twelve times as long over a slice
        views = F.relu(self.bn1a(self.conv1a(x))), F.relu(self.bn1b(self.conv1b(x)))
        x = torch.cat(views, dim=2)  # (B, 16, 2F, T)
        # ReLU and max-pool commute; pooling first leaves a quarter to rectify
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (B, 32, F, T//2)
        x = F.relu(F.max_pool2d(self.conv3(x), 2))  # (B, 64, F//2, T//4)
        x = F.relu(self.conv4(x))  # (B, 128, F//2, T//4)
        return F.relu(self.bn5(self.conv5(x)))

    def fuse(self, x: Tensor) -> Tensor:
        """The head, up to the last layer: (B, 128, F//2, T//4) -> (B, H)."""
        return x.flatten(1)

    def hidden(self, x: Tensor) -> Tensor:
        return self.fuse(self.trunk(x))


@register("GLAM", paper="GLAM")
class GLAM(Trunk):
    """The paper's model. Head: global-aware fusion, a gMLP block (Liu et al., "Pay Attention to MLPs", NeurIPS 2021)
    whose tokens are the 128 channels, with a tanh on its gate."""

    def __init__(self, shape: tuple[int, int], num_classes: int = 4):
        super().__init__(shape, num_classes)
        self.gmlp = gMLP(dim=self.positions, depth=1, seq_len=CHANNELS, act=nn.Tanh())

    def fuse(self, x: Tensor) -> Tensor:
        return F.relu(self.gmlp(x.flatten(2))).flatten(1)  # (B, 128, D) -> (B, 128 D)


@register("GLAM5")
class GLAM5(GLAM):
    """GLAM with first convolutions of length 5."""

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
    """Ablation: no global-aware fusion."""


@register("ResMultiConv5")
class ResMultiConv5(ResMultiConv3):
    """`ResMultiConv3` with first convolutions of length 5."""

    kernel = 5


@register("MHResMultiConv3", aliases=["MAResMultiConv3"], paper="Multi-scale + MHA")
class MHResMultiConv3(Trunk):
    """Ablation: head attention in place of global-aware fusion."""

    def __init__(self, shape: tuple[int, int], num_classes: int = 4, heads: int = 4, attn_hidden: int = 64):
        super().__init__(shape, num_classes, _width=heads * attn_hidden)
        projections = head_projections(CHANNELS, attn_hidden, heads)
        self.attention_query, self.attention_key, self.attention_value = projections

    def fuse(self, x: Tensor) -> Tensor:
        x = head_attention(x, self.attention_query, self.attention_key, self.attention_value)
        return F.relu(x).flatten(1)


@register("AAResMultiConv3", paper="Multi-scale + AA")
class AAResMultiConv3(Trunk):
    """Ablation: area attention in place of global-aware fusion, over all positions, row by row."""

    def fuse(self, x: Tensor) -> Tensor:
        x = x.flatten(2).transpose(1, 2)  # (B, D, 128)
        return F.relu(area_attention(x, training=self.training)).flatten(1)
