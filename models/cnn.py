"""The models that GLAM is compared with: attention pooling, head fusion and area attention, all on one trunk."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import register
from models.layers import (
    Classifier,
    area_attention,
    convolve,
    head_attention,
    head_projections,
    pooled_size,
    side_by_side,
)

CHANNELS = 80  # of the map that the trunk returns


class Trunk(Classifier):
    """A stem of a tall and a wide convolution, joined, then four 3x3 convolutions: (B, 1, F, T) -> (B, 80, h, w).

    Raises UserError if the map is too small to be pooled twice.
    """

    join: ClassVar[int] = 1  # the dimension along which the stem's halves are joined: 1 channels, 2 feature rows
    norm: ClassVar[dict[str, Any]] = {}  # batch norm's settings that differ from torch's defaults

    def __init__(self, shape: tuple[int, int]):
        super().__init__()
        rows, frames = (size - 1 for size in shape)  # the stem loses a row and a frame
        self.rows, self.frames = pooled_size(rows * self.join, frames)
        stem = 8 * self.join  # 16 channels come out either way
        self.conv1a = nn.Conv2d(1, stem, (10, 2), padding=(4, 0))
        self.conv1b = nn.Conv2d(1, stem, (2, 8), padding=(0, 3))
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.conv3 = nn.Conv2d(32, 48, 3, padding=1)
        self.conv4 = nn.Conv2d(48, 64, 3, padding=1)
        self.conv5 = nn.Conv2d(64, CHANNELS, 3, padding=1)
        self.bn1a = nn.BatchNorm2d(stem, **self.norm)
        self.bn1b = nn.BatchNorm2d(stem, **self.norm)
        self.bn2 = nn.BatchNorm2d(32, **self.norm)
        self.bn3 = nn.BatchNorm2d(48, **self.norm)
        self.bn4 = nn.BatchNorm2d(64, **self.norm)
        self.bn5 = nn.BatchNorm2d(CHANNELS, **self.norm)

    def trunk(self, x: Tensor) -> Tensor:  # (B, 1, F, T)
        halves = (self.conv1a, self.bn1a), (self.conv1b, self.bn1b)
        if self.training and self.join == 1:
            x = torch.cat([conv(x) for conv, _ in halves], dim=1)
            x = F.relu(side_by_side([norm for _, norm in halves], x))  # (B, 16, F-1, T-1)
        else:  # the halves are rectified before they are joined, as in models/glam.py
            x = torch.cat([convolve(x, (conv,), norm) for conv, norm in halves], dim=self.join)
        x = convolve(x, (self.conv2,), self.bn2, pool=True)
        x = convolve(x, (self.conv3,), self.bn3, pool=True)
        x = convolve(x, (self.conv4,), self.bn4)
        return convolve(x, (self.conv5,), self.bn5)  # (B, 80, h, w)


@register("APCNN", aliases=["CNN_AttnPooling"], paper="APCNN")
class APCNN(Trunk):
    """Attention pooling: Li et al., "An Attention Pooling Based Representation Learning Method for Speech Emotion
    Recognition", Interspeech 2018.

    Its last layers are two 1x1 convolutions, whose product is pooled. They read a map and not a vector, so `hidden`
    returns the mean of that map over positions, (B, 80).
    """

    def __init__(self, shape: tuple[int, int], num_classes: int = 4):
        super().__init__(shape)
        self.top_down = nn.Conv2d(CHANNELS, num_classes, 1)
        self.bottom_up = nn.Conv2d(CHANNELS, 1, 1)

    def hidden(self, x: Tensor) -> Tensor:
        return self.trunk(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.trunk(x)
        x = torch.softmax(self.top_down(x), dim=1) * self.bottom_up(x)  # (B, classes, h, w)
        return x.mean((2, 3))


@register("MACNN", aliases=["MHCNN"], paper="MHCNN")
class MACNN(Trunk):
    """Head fusion: Xu et al., "Improve Accuracy of Speech Emotion Recognition with Attention Head Fusion", CCWC
    2020."""

    def __init__(self, shape: tuple[int, int], num_classes: int = 4, heads: int = 4, attn_hidden: int = 64):
        super().__init__(shape)
        self.fc = nn.Linear(attn_hidden, num_classes)
        projections = head_projections(CHANNELS, attn_hidden, heads)
        self.attention_query, self.attention_key, self.attention_value = projections

    def hidden(self, x: Tensor) -> Tensor:
        x = head_attention(self.trunk(x), self.attention_query, self.attention_key, self.attention_value)
        return F.relu(x).mean((2, 3))  # (B, 64, 4h, w) -> (B, 64)


@register("CNN_GAP")
class CNNGAP(Trunk):
    """The trunk, followed by a dense layer alone."""

    def __init__(self, shape: tuple[int, int], num_classes: int = 4):
        super().__init__(shape)
        self.fc = nn.Linear(CHANNELS * self.rows * self.frames, num_classes)

    def hidden(self, x: Tensor) -> Tensor:
        return self.trunk(x).flatten(1)  # as published: no global average pooling, in spite of the name


@register("AACNN_flat")
class AACNNFlat(Trunk):
    """The AACNN of the GLAM authors' PyTorch code: area attention over all positions, row after row."""

    join = 2

    def __init__(self, shape: tuple[int, int], num_classes: int = 4):
        super().__init__(shape)
        self.fc = nn.Linear(CHANNELS * self.rows * self.frames, num_classes)

    def hidden(self, x: Tensor) -> Tensor:
        x = self.trunk(x).flatten(2).transpose(1, 2)  # (B, h*w, 80)
        return F.relu(area_attention(x, training=self.training)).flatten(1)


@register("AACNN", paper="AACNN")
class AACNN(Trunk):
    """Area attention within each feature row: Xu et al., "Speech Emotion Recognition with Multiscale Area Attention and
    Data Augmentation", ICASSP 2021, after its TensorFlow 2 reference."""

    join = 2
    norm: ClassVar[dict[str, Any]] = {"eps": 1e-3, "momentum": 0.01}  # TensorFlow's defaults as torch writes them

    def __init__(self, shape: tuple[int, int], num_classes: int = 4):
        features, frames = shape
        super().__init__((features + 1, frames + 1))
        self.fc = nn.Linear(CHANNELS * self.rows * self.frames, num_classes)
        for name, parameter in self.named_parameters():  # TensorFlow's initialisation
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def trunk(self, x: Tensor) -> Tensor:
        # TensorFlow's padding "same" puts the odd zero below and to the right, so both halves of the stem keep F x T
        return super().trunk(F.pad(x, (0, 1, 0, 1)))

    def hidden(self, x: Tensor) -> Tensor:
        x = self.trunk(x).permute(0, 2, 3, 1)  # (B, 2F//4, T//4, 80): each row is a sequence over time
        return area_attention(x, training=self.training).flatten(1)
