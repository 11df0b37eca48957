"""Dead leaves: random shapes that cover each other, as things before a camera do."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.procedural.images import ProceduralImages, coordinates

RADII = (0.08, 0.6)
"""Least and greatest radius, as fractions of the shorter side."""
SIDES = (3, 6)
"""Fewest and most sides of a polygon."""


@dataclass(frozen=True)
class DeadLeaves(ProceduralImages):
    """Overlapping discs, ellipses and convex polygons, nearest first, before a ground that covers the image.

    Radii r have the density r^-3, which makes statistics the same at every scale, as those of photographs nearly are
    (Lee, Mumford and Huang 2001, "Occlusion models for natural images"; as training images: Baradad et al. 2021,
    "Learning to See by Looking at Noise"). Half of the shapes have round outlines, of which a third are discs, and half
    are polygons. Each has one colour (grey if there is one channel), which changes linearly across it, and a noise.

    Args:
        leaves: Shapes an image, the ground not counted.
        gradient: Greatest change of a shape's brightness along the image's shorter side.
        texture: Greatest standard deviation of a shape's noise.
    """

    leaves: int = 40
    gradient: float = 0.5
    texture: float = 0.1

    def __post_init__(self) -> None:
        if self.leaves < 2:
            raise ExmlError(f"dead leaves leaves is {self.leaves}: give 2 or more")
        for name in ("gradient", "texture"):
            if not 0 <= getattr(self, name) <= 1:
                raise ExmlError(f"dead leaves {name} is {getattr(self, name)}: give a share of the brightness, 0 to 1")

    def _draw(
        self, num_images: int, shape: tuple[int, int, int], generator: torch.Generator, device: torch.device
    ) -> Tensor:
        channels, height, width = shape
        y, x = coordinates(height, width, device)
        pixels = torch.stack(
            [x.repeat(height), y.repeat_interleave(width), torch.ones(height * width, device=device)]
        )  # (3, pixels)
        nearest = self._nearest(num_images, (height, width), pixels, generator)
        looks = self._draw_looks(num_images, channels, generator).to(device, non_blocking=True)
        noise = torch.randn(num_images, height * width, generator=generator).to(device, non_blocking=True)
        seen = looks.gather(1, nearest[:, :, None].expand(-1, -1, channels + 3)).transpose(1, 2)
        shade = seen[:, -3] * noise + seen[:, -2] * pixels[0] + seen[:, -1] * pixels[1]
        return (seen[:, :channels] + shade[:, None]).clamp_(0, 1).view(num_images, *shape)

    def _nearest(self, num_images: int, size: tuple[int, int], pixels: Tensor, generator: torch.Generator) -> Tensor:
        """Draw shapes and say which is seen in each pixel, by its depth; `leaves` is the ground.

        Returns int64 ``(num_images, pixels)`` in ``[0, leaves]``.
        """
        frames = self._draw_frames(num_images, size, generator)
        depth = torch.rand(num_images, self.leaves, generator=generator).argsort(dim=1).float()
        corners = _draw_corners(num_images, self.leaves // 2, generator)
        frames, depth, corners = (tensor.to(pixels.device, non_blocking=True) for tensor in (frames, depth, corners))
        num_round = self.leaves - self.leaves // 2
        # Within its frame a round shape is the unit disc, |q|^2 <= 1 with q = F (x, y, 1): a quadratic form F'F.
        form = (frames.transpose(2, 3) @ frames)[:, :num_round].flatten(2)
        is_round = form @ (pixels[:, None] * pixels[None]).flatten(0, 1) <= 1
        # A polygon has its corners on the unit circle: each side is a chord, at cos(half its angle) from the centre.
        following = torch.cat([corners[..., 1:], corners[..., :1] + 2 * math.pi], dim=2)
        normal, half = (corners + following) / 2, (following - corners) / 2
        is_polygon = torch.ones_like(is_round[:, : self.leaves // 2])
        for k in range(SIDES[1]):
            side = torch.stack([normal[..., k].cos(), normal[..., k].sin()], dim=2)[:, :, None]
            line = (side @ frames[:, num_round:])[:, :, 0]
            line[..., 2] -= half[..., k].cos()
            is_polygon &= line @ pixels <= 0
        covered = torch.cat([is_round, is_polygon], dim=1)
        return torch.where(covered, depth[:, :, None], float(self.leaves)).amin(dim=1).long()

    def _draw_frames(self, num_images: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
        """Draw what takes coordinates (x, y, 1) to those of a shape, float32 ``(num_images, leaves, 2, 3)``."""
        x, y, turn, spread, stretch = torch.rand(5, num_images, self.leaves, generator=generator)
        low, high = RADII
        radius = (low**-2 + spread * (high**-2 - low**-2)) ** -0.5
        stretch = (3 * stretch).clamp_min(1).sqrt()
        cos, sin = (2 * math.pi * turn).cos(), (2 * math.pi * turn).sin()
        rows = torch.stack([torch.stack([cos, sin], dim=2), torch.stack([-sin, cos], dim=2)], dim=2)
        rows = rows / (radius[:, :, None] * torch.stack([stretch, 1 / stretch], dim=2))[..., None]
        height, width = size
        centre = torch.stack([(x - 0.5) * width, (y - 0.5) * height], dim=2) / min(size)
        return torch.cat([rows, -rows @ centre[..., None]], dim=3)

    def _draw_looks(self, num_images: int, channels: int, generator: torch.Generator) -> Tensor:
        """Draw colour, noise and gradient (x, y), ``(num_images, leaves + 1, channels + 3)``."""
        grey = torch.rand(num_images, self.leaves + 1, 1, generator=generator)
        tint = 0.15 * torch.randn(num_images, self.leaves + 1, channels, generator=generator)
        noise, slope, turn = torch.rand(3, num_images, self.leaves + 1, 1, generator=generator)
        slope, turn = self.gradient * slope, 2 * math.pi * turn
        return torch.cat([grey + tint, self.texture * noise, slope * turn.cos(), slope * turn.sin()], dim=2)


def _draw_corners(num_images: int, polygons: int, generator: torch.Generator) -> Tensor:
    """Draw angles of corners, rising, ``(num_images, polygons, most sides)``; too many repeat the last."""
    fewest, most = SIDES
    sides = torch.randint(fewest, most + 1, (num_images, polygons, 1), generator=generator)
    moved = 0.8 * torch.rand(num_images, polygons, most, generator=generator)
    angles = 2 * math.pi * (torch.arange(most) + moved) / sides
    return angles.gather(2, torch.arange(most).minimum(sides - 1))
