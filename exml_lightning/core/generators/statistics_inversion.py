"""Images made from the statistics that the owner of an expert has published; not in the paper."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.expert import Expert
from exml_lightning.core.features import Features, enlarge
from exml_lightning.core.generators.generator import Progress, balanced_columns, no_progress, require, to_buffer
from exml_lightning.core.generators.optimised import OptimisedImages


@dataclass
class StatisticsInversion(OptimisedImages):
    """Images that have features as the expert's owner published them of a class: these are drawn, an image is fitted.

    Each image has features of its own (`ClassStatistics.sample`), so images of a class differ as the class does. It
    begins with its thumbnail, enlarged; then their `misfit`, the cross-entropy of the class and weighted priors are
    minimised. See `OptimisedImages` for the other settings; `initial` has no meaning here and is refused.

    Args:
        misfit: Weight of the squared distance to the features.
        cross_entropy: Weight of the cross-entropy over the expert's own classes.

    Raises:
        ExmlError: If an expert has no statistics, or a setting no meaning.
    """

    steps: int = 10
    lr: float = 0.2
    temperature: float = 1.0
    batch_size: int = 200
    l2: float = 0.0
    blur: float = 0.0
    total_variation: float = 2e-3
    misfit: float = 10.0
    cross_entropy: float = 0.3

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.initial is None, "images made from statistics begin with thumbnails: set initial to null")

    def generate(
        self, expert: Expert, num_samples: int, generator: torch.Generator, progress: Progress = no_progress
    ) -> Buffer:
        """Make samples from one expert; see `Generator.generate`."""
        require(
            expert.statistics is not None,
            f"{expert.name} has no statistics to make images from: its owner can add them (exml statistics)",
        )
        assert expert.statistics is not None
        device = expert.classes.device
        statistics = expert.statistics.to(device)
        columns = balanced_columns(num_samples, len(expert.classes), generator).to(device)
        wanted = statistics.sample(columns, generator)
        start = enlarge(wanted, expert)
        with Features(expert, statistics.layer)() as look:

            def loss(logits: Tensor, rows: Tensor, images: Tensor) -> Tensor:
                misfit = statistics.misfit(look.pop(images), wanted[rows], columns[rows]).sum()
                if not self.cross_entropy or logits.shape[1] == 1:
                    return self.misfit * misfit
                ce = F.cross_entropy(logits, columns[rows], reduction="sum")
                return self.misfit * misfit + self.cross_entropy * ce

            images = self.optimise(expert, num_samples, columns, loss, generator, progress, start)
        return to_buffer(images, columns, expert)
