"""Slim ResNet18 for small images, the paper's model for CIFAR10 (Section 5; Lopez-Paz and Ranzato 2017)."""

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["batch", "group"]


class SlimResNet18(nn.Module):
    """ResNet18 (He et al. 2016) with a 3x3 first convolution, no first pooling, and fewer channels.

    Four stages of two blocks with `width`, 2, 4 and 8 times `width` channels; the last three halve the image. Width 20
    gives 1,094,750 parameters with 10 classes.

    Args:
        num_classes: Number of logits.
        width: Channels of the first stage.
        in_channels: Channels of the input images, which may have any size from 8x8.
        norm: Batch norm, or group norm (Wu and He 2018) in 4 groups, which does not mix the images of a batch.
    """

    def __init__(self, num_classes: int = 10, width: int = 20, in_channels: int = 3, norm: Norm = "batch") -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(in_channels, width, 3), _norm(width, norm), nn.ReLU(inplace=True))
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(_Block(before, after, 1 if i == 0 else 2, norm), _Block(after, after, 1, norm))
                for i, (before, after) in enumerate(pairwise(widths))
            )
        )
        self.classifier = nn.Linear(8 * width, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits.

        Args:
            images: Normalised images, ``(n, in_channels, height, width)``.

        Returns:
            Logits ``(n, num_classes)``.
        """
        features = self.stages(self.stem(images)).mean(dim=(2, 3))
        logits: Tensor = self.classifier(features)
        return logits


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(before, after, 3, stride),
            _norm(after, norm),
            nn.ReLU(inplace=True),
            _convolution(after, after, 3),
            _norm(after, norm),
        )
        self.shortcut = (
            nn.Identity()
            if before == after and stride == 1
            else nn.Sequential(_convolution(before, after, 1, stride), _norm(after, norm))
        )

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.body(images) + self.shortcut(images))


def _convolution(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)


def _norm(channels: int, norm: Norm) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(4, channels)
