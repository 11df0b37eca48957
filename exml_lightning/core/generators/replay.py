"""Replay: the original data (Section 5, Replay ED), the ideal that generated samples are measured against."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators.generator import Generator, OriginalImages, Progress, Sources, no_progress


@dataclass
class Replay(Generator):
    """Original training images of each experience with their true labels.

    Attributes:
        originals: Finds the original images of an experience, one at least, or raises `ExmlError`. `connect` sets it.
    """

    originals: Callable[[int], OriginalImages] | None = field(default=None, init=False, repr=False)

    def connect(self, sources: Sources) -> None:
        """Take the original images; see `Generator.connect`."""
        self.originals = sources.original_images()

    def generate(
        self, expert: Expert, num_samples: int, generator: torch.Generator, progress: Progress = no_progress
    ) -> Buffer:
        """Draw samples without replacement; where an experience has too few, all of them as often as each other.

        Raises `ExmlError` if there are no original data to draw from. See `Generator.generate`.
        """
        if self.originals is None:
            raise ExmlError("replay needs the original training data: give a scenario")
        originals = self.originals(expert.experience)
        count = len(originals.labels)
        rounds = -(-num_samples // count)
        rows = torch.cat([torch.randperm(count, generator=generator) for _ in range(rounds)])[:num_samples]
        device = expert.classes.device
        labels = originals.labels[rows].to(device)
        progress(float(num_samples))
        return Buffer(
            originals.read(rows).to(device),
            labels,
            torch.full_like(labels, expert.task),
            torch.full_like(labels, expert.experience),
        )
