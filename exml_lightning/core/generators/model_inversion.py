"""Model inversion: images that an expert is sure about (Section 4, Model Inversion)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators.generator import Progress, balanced_columns, no_progress, to_buffer
from exml_lightning.core.generators.optimised import OptimisedImages


@dataclass
class ModelInversion(OptimisedImages):
    """Images optimised until the expert gives them the class they were meant for.

    Minimises the cross-entropy of ``expert(image) / temperature`` over the expert's own classes plus weighted priors.
    See `OptimisedImages` for the settings.

    Example:
        >>> import torch
        >>> from exml_lightning import ExpertStream, ModelInversion
        >>> expert = ExpertStream(experts="checkpoints/split_digits/run0").load_expert(0, torch.device("cpu"))
        >>> buffer = ModelInversion(steps=2).generate(expert, 6, torch.Generator().manual_seed(0))
        >>> buffer.images.shape, sorted(buffer.labels.tolist())
        (torch.Size([6, 1, 32, 32]), [4, 4, 4, 5, 5, 5])
    """

    def generate(
        self, expert: Expert, num_samples: int, generator: torch.Generator, progress: Progress = no_progress
    ) -> Buffer:
        """Make samples from one expert; see `Generator.generate`."""
        columns = balanced_columns(num_samples, len(expert.classes), generator).to(expert.classes.device)

        def cross_entropy(logits: Tensor, rows: Tensor, _: Tensor) -> Tensor:
            if logits.shape[1] == 1:  # softmax over one class says nothing: take the logit against 0
                return F.softplus(-logits).sum()
            return F.cross_entropy(logits, columns[rows], reduction="sum")

        images = self.optimise(expert, num_samples, columns, cross_entropy, generator, progress)
        return to_buffer(images, columns, expert)
