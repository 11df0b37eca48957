"""Coloured noise: the power spectrum of photographs, and nothing else of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from exml_lightning.core.procedural.images import ProceduralImages, check_range, uniform


@dataclass(frozen=True)
class ColouredNoise(ProceduralImages):
    """Gaussian noise whose amplitude falls as 1/f^a, with channels mixed at random.

    Photographs have an a of about 1 (Field 1987, "Relations between the statistics of natural images and the response
    properties of cortical cells"; as training images: Baradad et al. 2021, "Learning to See by Looking at Noise"). A
    random matrix for each image mixes the channels, so that colours are related in a way of its own.

    Args:
        exponent: Least and greatest a.
        brightness: Least and greatest mean of a channel.
        contrast: Least and greatest standard deviation of an image, before values are clipped to ``[0, 1]``.
    """

    exponent: tuple[float, float] = (0.5, 2.0)
    brightness: tuple[float, float] = (0.3, 0.7)
    contrast: tuple[float, float] = (0.1, 0.3)

    def __post_init__(self) -> None:
        check_range("coloured noise exponent", self.exponent, 0, 10)
        check_range("coloured noise brightness", self.brightness, 0, 1)
        check_range("coloured noise contrast", self.contrast, 0, 1)

    def _draw(
        self, num_images: int, shape: tuple[int, int, int], generator: torch.Generator, device: torch.device
    ) -> Tensor:
        channels, height, width = shape
        exponent, contrast = (uniform(num_images, values, generator) for values in (self.exponent, self.contrast))
        brightness = uniform(num_images * channels, self.brightness, generator).view(num_images, channels, 1, 1)
        mixing = torch.randn(num_images, channels, channels, generator=generator).to(device, non_blocking=True)
        noise = torch.randn(num_images, *shape, generator=generator).to(device, non_blocking=True)
        down, right = torch.fft.fftfreq(height, device=device), torch.fft.rfftfreq(width, device=device)
        frequency = (down[:, None] ** 2 + right**2).sqrt()
        frequency[0, 0] = torch.inf  # the mean is the brightness
        amplitude = frequency ** -exponent.to(device, non_blocking=True)[:, None, None]
        amplitude = amplitude.masked_fill(frequency.isinf(), 0)  # where the exponent is 0, too
        spectrum = torch.fft.rfft2(noise) * amplitude[:, None]
        images = mixing @ torch.fft.irfft2(spectrum, s=(height, width)).flatten(2)
        images = images / images.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp_min(1e-12)
        images = contrast.to(device, non_blocking=True)[:, None, None, None] * images.view(num_images, *shape)
        pixels: Tensor = brightness.to(device, non_blocking=True) + images
        return pixels.clamp_(0, 1)
