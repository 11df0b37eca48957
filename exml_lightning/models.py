"""The paper's networks: LeNet5 for MNIST, slim ResNet18 for CIFAR10, MobileNetV2 for CORe50 (Section 5)."""

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import MobileNet_V2_Weights

from exml_lightning.core.errors import ExmlError

__all__ = ["LeNet5", "MobileNetV2", "SlimResNet18"]

Norm = Literal["batch", "group"]


class LeNet5(nn.Module):
    """Three 5x5 convolutions (6, 16, 120 channels) with tanh and average pooling, 84 hidden units, a classifier.

    Args:
        num_classes: Number of logits.
        in_channels: Channels of the input images, which are 32x32.
    """

    def __init__(self, num_classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 6, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.Tanh(),
            nn.AvgPool2d(2),
            nn.Conv2d(16, 120, 5),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(120, 84),
            nn.Tanh(),
        )
        self.classifier = nn.Linear(84, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits ``(n, num_classes)`` of normalised images ``(n, in_channels, 32, 32)``."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


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
        """Compute logits ``(n, num_classes)`` of normalised images ``(n, in_channels, height, width)``."""
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


class MobileNetV2(torchvision.models.MobileNetV2):  # type: ignore[misc]  # torchvision has no types
    """torchvision's MobileNetV2: its features, dropout of 0.2 and one linear layer (``classifier.1``).

    Takes normalised images ``(n, 3, height, width)`` of any size from 32x32 and returns logits ``(n, num_classes)``.

    Args:
        num_classes: Number of logits.
        weights: Pretrained weights of the features, by their name in ``torchvision.models.MobileNet_V2_Weights``, for
            instance ``IMAGENET1K_V1``: torchvision downloads them and checks their hash. The classifier is always
            new. None draws all weights.

    Raises:
        ExmlError: If there are no such weights, or they could not be fetched.
    """

    def __init__(self, num_classes: int = 10, weights: str | None = None) -> None:
        names = list(MobileNet_V2_Weights.__members__)
        if weights is not None and weights not in names:
            raise ExmlError(f"MobileNetV2 has no weights {weights!r}: give one of {', '.join(names)}, or null")
        super().__init__(num_classes=num_classes)
        if weights is None:
            return
        try:
            state = MobileNet_V2_Weights[weights].get_state_dict(progress=False, check_hash=True)
        except (OSError, RuntimeError) as error:  # no network; a wrong hash
            raise ExmlError(
                f"the weights {weights} of MobileNetV2 could not be fetched ({error}): put the file into torch's cache "
                f"({MobileNet_V2_Weights[weights].url}), or do without: weights: null "
                "(-c configs/models/mobilenetv2_random.yaml)"
            ) from error
        prefix = "features."
        self.features.load_state_dict(
            {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        )
