"""Slim ResNet18 for small images, the paper's model for CIFAR10 (Section 5; Lopez-Paz and Ranzato 2017)."""

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn


class SlimResNet18(nn.Module):
    """ResNet18 (He et al. 2016) with a 3x3 first convolution, no first pooling, and fewer channels.

    Four stages of two blocks with `width`, 2, 4 and 8 times `width` channels; the last three halve the image. Width 20
    gives 1,094,750 parameters with 10 classes.

    Args:
        num_classes: Number of logits.
        width: Channels of the first stage.
        in_channels: Channels of the input images, which may have any size from 8x8.
    """

    def __init__(self, num_classes: int = 10, width: int = 20, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(in_channels, width, 3), nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        widths = [width, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.Sequential(
            *(
                nn.Sequential(_Block(before, after, 1 if i == 0 else 2), _Block(after, after, 1))
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

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _convolution(before, after, 3, stride),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            _convolution(after, after, 3),
            nn.BatchNorm2d(after),
        )
        self.shortcut = (
            nn.Identity()
            if before == after and stride == 1
            else nn.Sequential(_convolution(before, after, 1, stride), nn.BatchNorm2d(after))
        )

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.body(images) + self.shortcut(images))


def _convolution(before: int, after: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, size, stride, padding=size // 2, bias=False)
