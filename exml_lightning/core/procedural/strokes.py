"""Strokes: curves drawn by a pen, like the handwriting of an unknown alphabet."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.procedural.images import ProceduralImages, check_range, coordinates, uniform

SEGMENTS = 16
"""Straight pieces that the length of a curve is measured by."""
PRESSURE = (1.2, 2.5)
"""Ink in the middle of a line; more than 1 is white all the same, so that lines have a flat top and steep sides."""
SMALLEST = 0.15
"""Least side of a drawing before it is scaled, so that a tiny hook is not blown up to a large one."""


@dataclass(frozen=True)
class Strokes(ProceduralImages):
    """White cubic Bezier curves on black, scaled to one size and centred by the mass of their ink.

    At distance d of a lone straight line there is ink ``min(1, pressure * exp(-d^2 / (2 * width^2)))``, the pressure
    drawn from 1.2 to 2.5 for each image: the line integral of a Gaussian pen. Lengths are fractions of the image's
    shorter side.

    Args:
        curves: Least and most curves an image, each number as often as the others.
        connected: Probability that a curve starts where the one before it ended; else it starts anywhere.
        width: Least and greatest width of the pen (standard deviation of its Gaussian).
        size: Longer side of the box around the drawing, without the width of the pen.
        colour: Give ink and ground random colours that differ by 0.3 or more in every channel; else white on black.
    """

    curves: tuple[int, int] = (1, 3)
    connected: float = 0.9
    width: tuple[float, float] = (0.02, 0.04)
    size: float = 0.62
    colour: bool = False

    def __post_init__(self) -> None:
        check_range("strokes curves", self.curves, 1, 64)
        check_range("strokes width", self.width, 0.002, 1)
        if not 0 <= self.connected <= 1:
            raise ExmlError(f"strokes connected is {self.connected}: give a probability, 0 to 1")
        if not 0 < self.size <= 1:
            raise ExmlError(f"strokes size is {self.size}: give a fraction of the image, more than 0, at most 1")

    def _draw(
        self, num_images: int, shape: tuple[int, int, int], generator: torch.Generator, device: torch.device
    ) -> Tensor:
        curves = self._draw_curves(num_images, generator)
        width, pressure = (uniform(num_images, values, generator) for values in (self.width, PRESSURE))
        ground, ink = torch.zeros(num_images, shape[0]), torch.ones(num_images, shape[0])
        if self.colour:
            ground = torch.rand(num_images, shape[0], generator=generator)
            ink = (ground + 0.3 + 0.4 * torch.rand(num_images, shape[0], generator=generator)) % 1
        amount = self.ink(
            curves.to(device, non_blocking=True),
            width.to(device, non_blocking=True),
            pressure.to(device, non_blocking=True),
            *shape[1:],
        )[:, None]
        ground, ink = (colour.to(device, non_blocking=True)[:, :, None, None] for colour in (ground, ink))
        return ground + (ink - ground) * amount

    def _draw_curves(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw control points, float32 ``(num_images, curves, 4, 2)``; curves that are too many repeat the first."""
        least, most = self.curves
        controls = torch.rand(num_images, most, 4, 2, generator=generator)
        connected = torch.rand(num_images, most, 1, generator=generator) < self.connected
        for k in range(1, most):
            controls[:, k, 0] = torch.where(connected[:, k], controls[:, k - 1, 3], controls[:, k, 0])
        count = torch.randint(least, most + 1, (num_images, 1), generator=generator)
        there = torch.arange(most) < count
        return torch.where(there[:, :, None, None], controls, controls[:, :1])

    def ink(self, curves: Tensor, width: Tensor, pressure: Tensor, height: int, breadth: int) -> Tensor:
        """Draw given curves with a pen: ink in ``[0, 1]``, float32 ``(n, height, breadth)``.

        Control points (x, y) of curves, float32 ``(n, curves, 4, 2)``, are in any unit: the drawing is scaled and
        centred. A curve that is the same as the first is drawn once. `width` is that of the pen, ``(n,)``; `pressure`
        the ink in the middle of a line, ``(n,)``.
        """
        corners = torch.einsum("tk,nckd->nctd", _bernstein(curves.device), curves)
        low, high = corners.amin(dim=(1, 2)), corners.amax(dim=(1, 2))
        scale = self.size / (high - low).amax(dim=1).clamp_min(SMALLEST)
        pieces = corners.diff(dim=2)
        repeated = (curves == curves[:, :1]).all(dim=3).all(dim=2)
        repeated[:, 0] = False
        lengths = pieces.norm(dim=3).masked_fill(repeated[:, :, None], 0).flatten(1)
        points, total = self._along(corners[:, :, :-1].flatten(1, 2), pieces.flatten(1, 2), lengths)
        points = (points - points.mean(dim=1, keepdim=True)) * scale[:, None, None]
        y, x = coordinates(height, breadth, curves.device)
        sharpness = 1 / (2 * width**2)[:, None, None]
        dot = pressure * total * scale / (points.shape[1] * width * math.sqrt(2 * math.pi))

        def stamp(points: Tensor) -> Tensor:
            # The pen is a product of a Gaussian of y and one of x: one matrix product sums up all points of an image.
            rows = torch.exp(-sharpness * (y[None, :, None] - points[:, None, :, 1]) ** 2)
            columns = torch.exp(-sharpness * (x[None, None, :] - points[:, :, 0, None]) ** 2)
            return (dot[:, None, None] * (rows @ columns)).clamp_(max=1)

        # Where lines meet, the limit of white takes ink away: what is left is centred by a second look.
        ink = stamp(points)
        mass = ink.sum(dim=(1, 2)).clamp_min(1e-12)
        centre = torch.stack([ink.sum(dim=1) @ x / mass, ink.sum(dim=2) @ y / mass], dim=1)
        return stamp(points - centre[:, None])

    def _along(self, starts: Tensor, pieces: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Walk along all curves of an image in even steps: points ``(n, points, 2)``, and the length of it ``(n,)``.

        `starts` are where straight pieces start, `pieces` lead from there to where they end, both ``(n, pieces, 2)``;
        `lengths` are theirs, ``(n, pieces)``, 0 for those to leave out.
        """
        # Two widths apart, a row of Gaussians looks like a line; nine curves in ten are shorter than 2.2 times the box.
        count = math.ceil(1.1 * self.curves[1] * self.size / self.width[0])
        ends = lengths.cumsum(dim=1)
        total = ends[:, -1:]
        place = (torch.arange(count, device=ends.device) + 0.5) / count * total
        piece = torch.searchsorted(ends, place).clamp_(max=ends.shape[1] - 1)
        along = 1 - (ends.gather(1, piece) - place) / lengths.gather(1, piece).clamp_min(1e-12)
        chosen = piece[:, :, None].expand(-1, -1, 2)
        return starts.gather(1, chosen) + along[:, :, None] * pieces.gather(1, chosen), total[:, 0]


def _bernstein(device: torch.device) -> Tensor:
    """The cubic Bernstein polynomials at even steps, float32 ``(SEGMENTS + 1, 4)``."""
    t = torch.linspace(0, 1, SEGMENTS + 1, device=device)
    return torch.stack([math.comb(3, k) * t**k * (1 - t) ** (3 - k) for k in range(4)], dim=1)
