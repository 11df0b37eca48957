"""Sums of features with the noise of differential privacy, and what is left of their spectrum (docs/statistics.md)."""

import math
import secrets
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

CLIP = 2.0
"""Length to which features are clipped, in their units: those of an image are mostly 1.3 to 1.8 long."""


@dataclass(frozen=True)
class GaussianMechanism:
    """Adds normal noise to sums over images, to each of which one image adds a vector of length 1 at most.

    Each image enters one sum. So all sums together are as private as a single one: that of a Gaussian mechanism of
    sensitivity 1 and the standard deviation `multiplier` (Dwork and Roth 2014, appendix A; parallel composition,
    McSherry 2009).

    Args:
        multiplier: Standard deviation of the noise, more than 0.
        generator: Draws it; whoever knows its seed can take the noise away. Default one of 256 bits of the operating
            system's entropy: torch's reads 32 bits of a seed, few enough to try all.
    """

    multiplier: float
    generator: np.random.Generator = field(
        default_factory=lambda: np.random.Generator(np.random.Philox(np.random.SeedSequence(secrets.randbits(256))))
    )

    def noise(self, *shape: int) -> Tensor:
        """Draw noise, float64: the sum of four draws, whose rounding does not tell what was added.

        Holohan and Braghin 2021; as Opacus does in its secure mode.
        """
        draws = sum(self.generator.standard_normal(shape) for _ in range(4))
        return torch.from_numpy(np.asarray(draws)) * (self.multiplier / 2)

    def held_back(self, images: int, share: float) -> Tensor:
        """Choose images, bool ``(images,)``: each by a throw of its own, whatever others there are."""
        return torch.from_numpy(self.generator.random(images) < share)

    def moments(self, values: Tensor, images: float) -> tuple[Tensor, Tensor, float]:
        """Return mean and covariance of vectors ``(n, size)``, float64, and how large eigenvalues of noise alone are.

        Vectors are clipped to `CLIP`. Their sum and the sum of their outer products are what noise is added to:
        together, of an image ``(v / CLIP, v v^T / CLIP^2) / sqrt(2)``, of length 1 at most (Dwork, Talwar, Thakurta and
        Zhang 2014). `images` is what sums are divided by, taken as public.
        """
        size, scale = values.shape[1], math.sqrt(2)
        given = values.double().nan_to_num(0, CLIP, -CLIP)  # a norm that is not a number would bound nothing
        short = given * (CLIP / given.norm(dim=1, keepdim=True).clamp_min(CLIP))
        above = self.noise(size, size).triu()  # a symmetric matrix is told by its upper half
        total = short.sum(dim=0) + scale * CLIP * self.noise(size)
        outer = short.T @ short + scale * CLIP**2 * (above + above.triu(1).T)
        mean = total / images
        edge = 2 * math.sqrt(size) * self.multiplier * scale * CLIP**2 / images  # Wigner's semicircle
        own = (scale * CLIP * self.multiplier / images) ** 2  # of the noise of the mean, in its outer product
        covariance = outer / images - torch.outer(mean, mean) + own * torch.eye(size, dtype=torch.float64)
        return mean, covariance, edge

    def mean_and_deviation(self, values: Tensor, low: float, high: float, images: float) -> tuple[float, float]:
        """Return those of numbers ``(n,)`` that are clipped to a range; an image adds ``(u, u^2) / sqrt(2)``.

        The deviation is no less than what noise alone may be taken for.
        """
        middle, half = (low + high) / 2, (high - low) / 2
        clipped = ((values.double() - middle) / half).nan_to_num(0).clamp(-1, 1)
        sums = torch.stack([clipped.sum(), clipped.square().sum()]) + math.sqrt(2) * self.noise(2)
        mean, square = (sums / images).clamp(-1, 1).tolist()
        least = math.sqrt(2) * self.multiplier / images
        return mean * half + middle, math.sqrt(max(square - mean**2, least)) * half


def without_noise(eigenvalues: Tensor, edge: float) -> Tensor:
    """Return what eigenvalues were before a symmetric matrix of noise was added; 0 where noise hides them.

    `edge` is the largest that noise alone has. An eigenvalue theta becomes ``theta + edge^2 / (4 theta)`` (spiked
    Wigner matrices; Capitaine, Donati-Martin and Feral 2009).
    """
    found = (eigenvalues + (eigenvalues.square() - edge**2).clamp_min(0).sqrt()) / 2
    return torch.where(eigenvalues > edge, found, 0.0)
