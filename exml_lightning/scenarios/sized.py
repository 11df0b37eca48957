"""Data sets of anyone's: images of any size, made to fit the size that a configuration names."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import IMAGENET, ImageFormat
from exml_lightning.core.rng import derive_seed
from exml_lightning.scenarios.datasets import ImageDataset

KEY = "data.scenario.dataset"
TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation", "eval", "dev")
"""What people call the two splits, in lower case; the first that is there is taken."""
GREYS = ((0.449,), (0.226,))
"""The averages of ImageNet's means and standard deviations.

What is taken is ImageNet's, not that of the images at hand: experts of other images then take the same input, a fit
need not read training images, and a private expert says nothing of its images but by its weights.
"""
SET_ASIDE = 5
"""One image of so many is a test image where a data set has no split of its own."""


@dataclass(kw_only=True)
class SizedDataset(ImageDataset):
    """A data set whose images are made to fit (`fit_image`): resized until they cover the size, their middle cropped.

    Args:
        size: Height and width of the images that networks see: one number for both, or two.
        channels: 3 for RGB, 1 for grey.
        mean: Mean of each channel, of pixel values in ``[0, 1]``; default ImageNet's.
        std: Standard deviation of each channel, of pixel values in ``[0, 1]``; default ImageNet's.
    """

    size: int | list[int] = 64
    channels: int = 3
    mean: list[float] | None = None
    std: list[float] | None = None

    def __post_init__(self) -> None:
        sides = [self.size] * 2 if isinstance(self.size, int) else [*self.size]
        if len(sides) != 2 or min(sides) < 1:
            raise ExmlError(f"{KEY}.size is {self.size}: give one number, or height and width")
        if self.channels not in (1, 3):
            raise ExmlError(f"{KEY}.channels is {self.channels}: give 3 (RGB) or 1 (grey)")
        mean, std = IMAGENET if self.channels == 3 else GREYS
        shape = self.channels, sides[0], sides[1]
        try:
            self.image_format = ImageFormat(shape, tuple(self.mean or mean), tuple(self.std or std))
        except ExmlError as error:
            raise ExmlError(f"{KEY}: {error}") from error

    def _cache(self, root: Path, name: str, split: str) -> Path:
        """Return where the images of a split are kept once they are decoded."""
        channels, height, width = self.image_format.shape
        plain = re.sub(r"\W+", "_", name).strip("_")
        return decoded_folder(root) / f"{plain}_{split}_{channels}x{height}x{width}.safetensors"


def decoded_folder(root: Path) -> Path:
    """Return the folder of decoded images in ``data.root``."""
    return root / "decoded"


def set_aside(labels: Tensor, names: Sequence[str]) -> Tensor:
    """Choose the test images of a data set that has no test split: a fifth of each class, by a hash of their names.

    The same on every machine; an image that comes or goes changes the part of one other of its class at most. From
    labels, int64 ``(n,)``, to bool ``(n,)``. Raises `ExmlError` if a class has a single image.
    """
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique().tolist():
        rows = (labels == label).nonzero().flatten().tolist()
        if len(rows) == 1:
            raise ExmlError(
                f"{KEY}: {names[rows[0]]} is the only image of its class: add more, to train and to test on"
            )
        rows.sort(key=lambda row: (derive_seed("test", names[row]), names[row]))
        chosen[rows[: max(1, round(len(rows) / SET_ASIDE))]] = True
    return chosen
