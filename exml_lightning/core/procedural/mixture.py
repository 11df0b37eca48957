"""A mixture of several kinds of procedural images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.procedural.images import ProceduralImages


@dataclass(frozen=True)
class Mixture(ProceduralImages):
    """Each image is of one of several kinds, each equally likely.

    Args:
        parts: The kinds.
    """

    parts: list[ProceduralImages]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ExmlError("mixture parts is empty: give one kind of images or more")

    def _draw(
        self, num_images: int, shape: tuple[int, int, int], generator: torch.Generator, device: torch.device
    ) -> Tensor:
        chosen = torch.randint(len(self.parts), (num_images,), generator=generator)
        images = torch.empty(num_images, *shape, device=device)
        for i, part in enumerate(self.parts):
            rows = (chosen == i).nonzero()[:, 0]
            if len(rows):
                images[rows.to(device, non_blocking=True)] = part._draw(len(rows), shape, generator, device)
        return images
