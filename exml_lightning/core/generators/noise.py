"""Gaussian noise, labelled by the expert: the control that any image will do."""

from dataclasses import dataclass

import torch

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators.generator import Generator, Progress, label_by_expert, no_progress


@dataclass
class Noise(Generator):
    """Images of N(0, 1) noise, limited to the values that real pixels can have, labelled by the expert.

    Example:
        >>> import torch
        >>> from exml_lightning import ExpertStream, Noise
        >>> expert = ExpertStream(experts="checkpoints/split_digits/run0").load_expert(0, torch.device("cpu"))
        >>> buffer = Noise().generate(expert, 6, torch.Generator().manual_seed(0))
        >>> buffer.images.shape, set(buffer.labels.tolist()) <= {4, 5}
        (torch.Size([6, 1, 32, 32]), True)
    """

    def generate(
        self, expert: Expert, num_samples: int, generator: torch.Generator, progress: Progress = no_progress
    ) -> Buffer:
        """Draw samples and have the expert label them; see `Generator.generate`."""
        low, high = expert.image_format.limits(expert.classes.device)
        images = torch.randn(num_samples, *expert.image_format.shape, generator=generator).to(low.device)
        return label_by_expert(images.clamp_(low, high), expert, progress)
