"""Images drawn by a random program, labelled by the expert: no data, and nothing asked of the expert but labels."""

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators.generator import Generator, Progress, label_by_expert, no_progress
from exml_lightning.core.procedural import ProceduralImages, Strokes


@dataclass
class Procedural(Generator):
    """Procedural images, drawn anew for each expert and labelled by it.

    Args:
        images: Which images: `Strokes` for digits and letters, `DeadLeaves` for photographs (docs/which_images.md).
        fresh: Distil on images that are drawn anew for each step and never kept; those of the buffer are then there to
            look at, and to compare logits with. Fresh images have no label.

    Example:
        >>> import torch
        >>> from exml_lightning import ExpertStream, Procedural
        >>> expert = ExpertStream(experts="checkpoints/split_digits/run0").load_expert(0, torch.device("cpu"))
        >>> Procedural().generate(expert, 6, torch.Generator().manual_seed(0)).images.shape
        torch.Size([6, 1, 32, 32])
    """

    images: ProceduralImages = field(default_factory=Strokes)
    fresh: bool = False

    cheap: ClassVar[bool] = True

    @property
    def fresh_images(self) -> ProceduralImages | None:
        """The images, if `fresh`; see `Generator.fresh_images`."""
        return self.images if self.fresh else None

    def generate(
        self, expert: Expert, num_samples: int, generator: torch.Generator, progress: Progress = no_progress
    ) -> Buffer:
        """Draw samples and have the expert label them; see `Generator.generate`."""
        pixels = self.images.draw(num_samples, expert.image_format.shape, generator, expert.classes.device)
        return label_by_expert(pixels, expert, progress)
