"""Small random changes of images, drawn for each sample (Section 4.1)."""

import math
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from exml_lightning.core.errors import ExmlError


@dataclass(frozen=True)
class Augmentation:
    """Shift, rotation and flip in one batched, differentiable operation on the device of the images.

    Without rotation displacements are rounded to whole pixels, so images stay as sharp as those of a test.

    Args:
        shift: Largest displacement along each axis, as a fraction of the image's size, 0 to 1.
        rotation: Largest rotation either way, in degrees; 0 to 180.
        flip: Mirror half of the images left to right.

    Example:
        >>> import torch
        >>> from exml_lightning import Augmentation
        >>> images = torch.rand(6, 1, 32, 32)
        >>> changed = Augmentation(shift=0.06, flip=True)(images, torch.Generator().manual_seed(0))
        >>> changed.shape, torch.equal(changed, images), torch.equal(Augmentation()(images, torch.Generator()), images)
        (torch.Size([6, 1, 32, 32]), False, True)
    """

    shift: float = 0.0
    rotation: float = 0.0
    flip: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.shift <= 1:
            raise ExmlError(f"augmentation.shift is {self.shift}: give a fraction of the image's size, 0 to 1")
        if not 0 <= self.rotation <= 180:
            raise ExmlError(f"augmentation.rotation is {self.rotation}: give degrees, 0 to 180")

    @property
    def changes(self) -> bool:
        """Whether it changes images at all."""
        return bool(self.shift or self.rotation or self.flip)

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Change each image, float ``(n, channels, height, width)``, in its own way, by draws of a CPU generator.

        The shape stays; pixels from outside repeat the border. Gradients flow to `images`.
        """
        return self.apply(images, self.matrices(self.draw(len(images), generator), *images.shape[-2:]))

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw the changes of images, on the CPU, so that they are the same on every device.

        Returns float32 in ``[0, 1)``, ``(num_images, 4)``, a row an image for `matrices`; where there is nothing to
        change, nothing is drawn: ``(num_images, 0)``.
        """
        return torch.rand(num_images, 4 if self.changes else 0, generator=generator)

    def matrices(self, draws: Tensor, height: int, width: int) -> Tensor:
        """Say where the pixels of changed images come from, given what `draw` returned and the size of the images.

        Returns float32 ``(num_images, 2, 3)``, on the CPU: what takes coordinates (x, y, 1) of a changed image, from -1
        to 1, to those of the original; ``(num_images, 0, 3)`` where there is nothing to change.
        """
        if not self.changes:
            return draws.new_empty(len(draws), 0, 3)
        angle = (2 * draws[:, 0] - 1) * math.radians(self.rotation)
        mirror = torch.where(draws[:, 1] < 0.5, -1.0, 1.0) if self.flip else torch.ones(len(draws))
        move = (2 * draws[:, 2:] - 1) * 2 * self.shift
        if not self.rotation:
            half = torch.tensor([width, height]) / 2
            move = (move * half).round() / half
        cos, sin = angle.cos(), angle.sin()
        return torch.stack(
            [
                torch.stack([mirror * cos, -sin * height / width, move[:, 0]], dim=1),
                torch.stack([mirror * sin * width / height, cos, move[:, 1]], dim=1),
            ],
            dim=1,
        )

    def apply(self, images: Tensor, matrices: Tensor) -> Tensor:
        """Change each image by its matrix; see `matrices` and `__call__`."""
        if not self.changes:
            return images
        size = images.shape[-2:]
        # One product for all images: `affine_grid` makes a tiny one for each, and takes longer than the sampling.
        grid = matrices.to(images).flatten(0, 1) @ _coordinates(*size, images.device).to(images.dtype)
        grid = grid.view(len(images), 2, *size).permute(0, 2, 3, 1)
        return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


@cache
def _coordinates(height: int, width: int, device: torch.device) -> Tensor:
    """The centres of pixels, from -1 to 1, in rows x, y and 1; float32 ``(3, height * width)``."""
    y, x = ((2 * torch.arange(size) + 1) / size - 1 for size in (height, width))
    return torch.stack([x.repeat(height), y.repeat_interleave(width), torch.ones(height * width)]).to(device)
