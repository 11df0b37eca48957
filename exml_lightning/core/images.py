"""What an image is for a network: shape, mean and standard deviation."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from exml_lightning.core.errors import ExmlError

if TYPE_CHECKING:  # torch takes seconds to import, and manifests are listed without it
    import torch
    from torch import Tensor

PIXELS = 2**17
"""Of a chunk: 128 images of 32 x 32."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels, which most RGB networks are trained with."""
FEWEST = 16
"""Images of a chunk: with fewer, a network takes longer for each."""


@dataclass(frozen=True)
class ImageFormat:
    """The input that a network expects; `ExmlError` if the numbers do not fit together.

    Args:
        shape: Channels, height and width.
        mean: Mean of each channel, of pixel values in ``[0, 1]``.
        std: Standard deviation of each channel, of pixel values in ``[0, 1]``.
    """

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise ExmlError(f"input shape {list(self.shape)} is not [channels, height, width]")
        if not len(self.mean) == len(self.std) == self.shape[0]:
            raise ExmlError(
                f"input mean {list(self.mean)} and std {list(self.std)} need one value a channel ({self.shape[0]})"
            )
        if not all(math.isfinite(value) for value in (*self.mean, *self.std)):
            raise ExmlError(f"input mean {list(self.mean)} and std {list(self.std)} must be finite numbers")
        if min(self.std) <= 0:
            raise ExmlError(f"input std {list(self.std)} must be positive")

    @property
    def chunk(self) -> int:
        """How many images a network is asked about together where there are many.

        So few that what its layers make of them takes little memory, and on a CPU no longer a piece than it must.
        """
        return max(FEWEST, PIXELS // (self.shape[1] * self.shape[2]))

    def _channels(self, values: tuple[float, ...], like: "Tensor") -> "Tensor":
        import torch

        dtype = like.dtype if like.dtype.is_floating_point else torch.float32
        return torch.tensor(values, dtype=dtype).to(like.device, non_blocking=True).view(-1, 1, 1)

    def normalize(self, images: "Tensor") -> "Tensor":
        """Turn pixel values ``(n, channels, height, width)`` into network input, float of the same shape.

        They are uint8 in ``[0, 255]`` or float in ``[0, 1]``.
        """
        import torch

        pixels = images.float() / 255 if images.dtype == torch.uint8 else images
        return (pixels - self._channels(self.mean, images)) / self._channels(self.std, images)

    def to_input(self, images: "Tensor") -> "Tensor":
        """Turn images as a buffer holds them into network input: pixels are uint8, floats are network input already."""
        import torch

        return self.normalize(images) if images.dtype == torch.uint8 else images

    def to_pixels(self, images: "Tensor") -> "Tensor":
        """Turn images as a buffer holds them into pixels, uint8, for people to look at; see `to_input`."""
        import torch

        if images.dtype == torch.uint8:
            return images
        values = images * self._channels(self.std, images) + self._channels(self.mean, images)
        return (values * 255).round().clamp(0, 255).byte()

    def limits(self, device: "torch.device") -> tuple["Tensor", "Tensor"]:
        """Return the least and the greatest network input that real pixels can have, float ``(channels, 1, 1)``."""
        import torch

        black = torch.zeros(self.shape[0], 1, 1, device=device)
        return self.normalize(black), self.normalize(black + 1)
