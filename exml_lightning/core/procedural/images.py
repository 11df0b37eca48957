"""The interface of all images that are drawn by a random program."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.settings import Configured

PIXELS_TOGETHER = 2**16
"""Pixels drawn together: few, so that what is computed for them stays in the processor's cache. Not a setting, since
draws depend on it."""


class ProceduralImages(Configured, ABC):
    """A random program that draws images; subclasses are frozen dataclasses."""

    def draw(
        self,
        num_images: int,
        shape: tuple[int, int, int],
        generator: torch.Generator,
        device: torch.device,
        progress: Callable[[float], object] = lambda images: None,
    ) -> Tensor:
        """Draw images: pixels, uint8, ``(num_images, channels, height, width)``, on `device`.

        0 images draw nothing. `shape` is channels, height and width, each at least 1. Every random draw is by the CPU
        generator: the same state gives the same images. `progress` is told the images drawn since the last call.
        """
        images = torch.empty(num_images, *shape, dtype=torch.uint8, device=device)
        size = max(1, PIXELS_TOGETHER // (shape[1] * shape[2]))
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            for part in images.split(size) if num_images else ():
                part.copy_((self._draw(len(part), shape, generator, device) * 255).round_())
                progress(float(len(part)))
        return images

    @abstractmethod
    def _draw(
        self, num_images: int, shape: tuple[int, int, int], generator: torch.Generator, device: torch.device
    ) -> Tensor:
        """Draw a few images at once, at least 1: pixel values, float32 in ``[0, 1]``; see `draw`."""


def check_range(name: str, values: tuple[float, float], least: float, most: float) -> None:
    """Raise `ExmlError` unless `values`, the least and the greatest to draw, are in order and within limits."""
    low, high = values
    if not least <= low <= high <= most:
        raise ExmlError(f"{name} is {list(values)}: give [least, most], from {least:g} to {most:g}")


def uniform(num_images: int, values: tuple[float, float], generator: torch.Generator) -> Tensor:
    """Draw a number for each image, uniformly from a range; float32 ``(num_images,)``, on the CPU."""
    low, high = values
    return low + (high - low) * torch.rand(num_images, generator=generator)


def coordinates(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return where the centres of pixels are: 0 is the middle of the image, 1 the length of its shorter side.

    y of the rows ``(height,)`` and x of the columns ``(width,)``, float32.
    """
    y, x = ((torch.arange(size, device=device) + 0.5 - size / 2) / min(height, width) for size in (height, width))
    return y, x
