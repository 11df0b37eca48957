"""Replay: the original data (Section 5, Replay ED), the ideal that generated samples are measured against."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators.generator import Generator, Progress, no_progress, require

Originals = Sequence[tuple[Tensor, Tensor]]


@dataclass
class Replay(Generator):
    """Original training images of each experience with their true labels.

    Attributes:
        originals: For each experience its training images, uint8 ``(n, channels, height, width)``, and their class
            indices in the stream, int64 ``(n,)``. Whoever owns the data sets it.
    """

    originals: Originals | None = field(default=None, init=False, repr=False)

    def check(self, expert: Expert) -> None:
        """Refuse an expert whose original data are not there; see `Generator.check`."""
        require(self.originals is not None, "replay needs the original training data: give a scenario")
        assert self.originals is not None
        known = expert.experience < len(self.originals) and len(self.originals[expert.experience][1]) > 0
        require(
            known,
            f"replay needs the original training data, but the scenario has none for expert {expert.experience}: "
            "use another strategy, or learn fewer experts (trainer.max_epochs)",
        )

    def generate(
        self, expert: Expert, num_samples: int, generator: torch.Generator, progress: Progress = no_progress
    ) -> Buffer:
        """Draw samples without replacement; where an experience has too few, all of them as often as each other.

        See `Generator.generate`.

        Raises:
            ExmlError: If there are no original data to draw from.
        """
        self.check(expert)
        assert self.originals is not None
        images, labels = self.originals[expert.experience]
        rounds = -(-num_samples // len(images))
        rows = torch.cat([torch.randperm(len(images), generator=generator) for _ in range(rounds)])[:num_samples]
        device = expert.classes.device
        labels = labels[rows].to(device)
        progress(float(num_samples))
        return Buffer(
            expert.image_format.normalize(images[rows].to(device)),
            labels,
            torch.full_like(labels, expert.task),
            torch.full_like(labels, expert.experience),
        )
