"""From the images of one network to those of another, so that experts of different inputs can teach one ex-model."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat

LUMA = (0.299, 0.587, 0.114)
"""How bright red, green and blue are (ITU-R BT.601)."""


class InputConversion(nn.Module):
    """Turns normalised images of the format `source` into those of `target`; gradients flow through it.

    RGB becomes grey by luma, grey becomes RGB by three equal channels; another size by bilinear interpolation, with
    antialiasing where it shrinks; then the mean and standard deviation of `target` apply. Raises `ExmlError` if the
    channels differ and are not 1 and 3.
    """

    source_mean: Tensor
    source_std: Tensor
    target_mean: Tensor
    target_std: Tensor
    luma: Tensor

    def __init__(self, source: ImageFormat, target: ImageFormat) -> None:
        super().__init__()
        self.source, self.target = source, target
        if source.shape[0] != target.shape[0] and {source.shape[0], target.shape[0]} != {1, 3}:
            raise ExmlError(
                f"images with {source.shape[0]} channels cannot be turned into images with {target.shape[0]}: "
                "only grey (1) and RGB (3) can be turned into each other"
            )
        for name, values in {
            "source_mean": source.mean,
            "source_std": source.std,
            "target_mean": target.mean,
            "target_std": target.std,
            "luma": LUMA,
        }.items():
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Convert normalised images, float ``(n, *source.shape)``, to such of `target`, ``(n, *target.shape)``."""
        pixels = images * self.source_std + self.source_mean
        channels, *size = self.target.shape
        if pixels.shape[1] > channels:
            pixels = (pixels * self.luma).sum(dim=1, keepdim=True)
        if list(pixels.shape[2:]) != size:
            pixels = F.interpolate(pixels, size, mode="bilinear", antialias=True)
        converted: Tensor = (pixels.expand(-1, channels, -1, -1) - self.target_mean) / self.target_std
        return converted
