"""Images that have nothing to do with the experts: a teacher can be matched on anything that it takes in."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch

from exml_lightning.core.buffer import NOBODY, Buffer
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators.generator import (
    Generator,
    OtherImages,
    Progress,
    Sources,
    in_two_steps,
    label_by_expert,
    no_progress,
)
from exml_lightning.core.procedural import DeadLeaves, Mixture, ProceduralImages, Strokes

DRAWINGS = Mixture([Strokes(), DeadLeaves()])
"""Where no images are given. Which kind alone is best, nobody can tell beforehand (docs/notebook_of_trials.md)."""


@dataclass
class Unrelated(Generator):
    """Photographs of anything, or drawings, made once for the whole stream; every expert is asked about all of them.

    Args:
        images: Drawings of this kind. Null for the images of ``data.auxiliary`` where these are given, else for a
            mixture of strokes and dead leaves.

    Attributes:
        others: The images of ``data.auxiliary``. `connect` sets it.

    Example:
        >>> import torch
        >>> from exml_lightning import ExpertStream, Unrelated
        >>> expert = ExpertStream(experts="checkpoints/split_digits/run0").load_expert(0, torch.device("cpu"))
        >>> Unrelated().generate(expert, 6, torch.Generator().manual_seed(0)).images.shape
        torch.Size([6, 1, 32, 32])
    """

    images: ProceduralImages | None = None
    others: OtherImages | None = field(default=None, init=False, repr=False)

    cheap: ClassVar[bool] = True
    once: ClassVar[bool] = True

    def connect(self, sources: Sources) -> None:
        """Take the auxiliary images, if there are any; see `Generator.connect`."""
        self.others = None if self.images is not None else sources.given_images()

    def describe(self) -> dict[str, Any]:
        """Return the settings, and which images these are; see `Generator.describe`."""
        return {**super().describe(), **({} if self.others is None else {"auxiliary": self.others.describe()})}

    def generate(
        self, expert: Expert, num_samples: int, generator: torch.Generator, progress: Progress = no_progress
    ) -> Buffer:
        """Draw samples and have the expert label them; see `Generator.generate`."""
        progress = in_two_steps(progress)
        if self.others is not None:
            pixels = self.others.draw(num_samples, generator, progress).to(expert.classes.device)
        else:
            kind = DRAWINGS if self.images is None else self.images
            pixels = kind.draw(num_samples, expert.image_format.shape, generator, expert.classes.device, progress)
        samples = label_by_expert(pixels, expert, progress)
        return replace(samples, experiences=torch.full_like(samples.experiences, NOBODY))


@dataclass
class UnrelatedPhotographs(Unrelated):
    """`Unrelated` from photographs alone: those of ``data.auxiliary``, else the scenario's; an error without any.

    Example:
        >>> from exml_lightning.core.generators import UnrelatedPhotographs
        >>> UnrelatedPhotographs().once
        True
    """

    images: None = field(default=None, init=False)

    def connect(self, sources: Sources) -> None:
        """Take the auxiliary images; see `Generator.connect`."""
        self.others = sources.other_images()
