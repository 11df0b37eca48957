"""Auxiliary data: images of another data set (Section 4, Auxiliary Data)."""

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import ExmlError
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


@dataclass
class Auxiliary(Generator):
    """Images of another data set, drawn once for each expert and labelled by it.

    Which data set is set by ``data.auxiliary``, since it depends on the scenario.

    Attributes:
        images: What images are drawn from. `connect` sets it.

    Example:
        >>> from pathlib import Path
        >>> import torch
        >>> from exml_lightning import Auxiliary, ExpertStream, Photographs
        >>> expert = ExpertStream(experts="checkpoints/split_digits/run0").load_expert(0, torch.device("cpu"))
        >>> photographs, auxiliary = Photographs(), Auxiliary()
        >>> photographs.open(Path("data"), expert.image_format.shape)
        >>> auxiliary.images = photographs
        >>> auxiliary.generate(expert, 6, torch.Generator().manual_seed(0)).images.shape
        torch.Size([6, 1, 32, 32])
    """

    images: OtherImages | None = field(default=None, init=False, repr=False)

    cheap: ClassVar[bool] = True

    def connect(self, sources: Sources) -> None:
        """Take the auxiliary images; see `Generator.connect`."""
        self.images = sources.other_images()

    def describe(self) -> dict[str, Any]:
        """Return the settings, and which images these are; see `Generator.describe`."""
        return {**super().describe(), **({} if self.images is None else {"auxiliary": self.images.describe()})}

    def generate(
        self, expert: Expert, num_samples: int, generator: torch.Generator, progress: Progress = no_progress
    ) -> Buffer:
        """Draw samples and have the expert label them; `ExmlError` without images. See `Generator.generate`."""
        if self.images is None:
            raise ExmlError("the auxiliary generator has no images to draw from: set data.auxiliary")
        progress = in_two_steps(progress)
        pixels = self.images.draw(num_samples, generator, progress).to(expert.classes.device)
        return label_by_expert(pixels, expert, progress)
