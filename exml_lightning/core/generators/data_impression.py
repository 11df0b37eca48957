"""Data impression: images that answer to soft targets drawn from the expert's classifier (Section 4; Nayak 2019)."""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators.generator import (
    Progress,
    balanced_columns,
    no_progress,
    require,
    to_buffer,
)
from exml_lightning.core.generators.optimised import OptimisedImages

EPSILON = 1e-3
"""Added to every concentration, which a Dirichlet distribution needs above 0."""


@dataclass
class DataImpression(OptimisedImages):
    """Images optimised until the expert answers with class probabilities that its own classifier suggests.

    For each sample of class k, probabilities over the expert's own classes are drawn from a Dirichlet distribution
    whose concentration is `beta` times row k of `class_similarity`. The image minimises the Kullback-Leibler divergence
    of ``softmax(expert(image) / temperature)`` from them plus weighted priors; its label is the likeliest class drawn.
    See `OptimisedImages` for the other settings.

    Args:
        beta: Scale of the concentration; small ones draw nearly one class, large ones mixtures. Of several values each
            is used for as many samples. It changes nothing for an expert of two classes, whose similarity is always
            scaled to 1 and 0.

    Example:
        >>> import torch
        >>> from exml_lightning import DataImpression, ExpertStream
        >>> expert = ExpertStream(experts="checkpoints/split_digits/run0").load_expert(0, torch.device("cpu"))
        >>> buffer = DataImpression(steps=2).generate(expert, 6, torch.Generator().manual_seed(0))
        >>> buffer.images.shape, sorted(buffer.labels.unique().tolist())
        (torch.Size([6, 1, 32, 32]), [4, 5])
    """

    beta: float | list[float] = field(default_factory=lambda: [0.1, 1.0, 10.0])

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            len(self._betas) > 0 and all(0 < beta < math.inf for beta in self._betas),
            f"generator beta is {self.beta}: give one number or more, each more than 0",
        )

    @property
    def _betas(self) -> list[float]:
        return self.beta if isinstance(self.beta, list) else [self.beta]

    def generate(
        self, expert: Expert, num_samples: int, generator: torch.Generator, progress: Progress = no_progress
    ) -> Buffer:
        """Make samples from one expert; see `Generator.generate`."""
        similarity = class_similarity(expert.class_weights()).cpu()
        columns = balanced_columns(num_samples, len(similarity), generator)
        turn = torch.arange(num_samples) % len(self._betas)
        beta = torch.tensor(self._betas)[turn[torch.randperm(num_samples, generator=generator)]]
        targets = draw_dirichlet(beta[:, None] * similarity[columns] + EPSILON, generator)
        meant = targets.argmax(dim=1)
        targets = targets.to(expert.classes.device)

        def divergence(logits: Tensor, rows: Tensor, _: Tensor) -> Tensor:
            if logits.shape[1] == 1:  # softmax over one class says nothing: take the logit against 0
                return F.softplus(-logits).sum()
            return F.kl_div(logits.log_softmax(dim=1), targets[rows], reduction="sum")

        images = self.optimise(expert, num_samples, meant.to(targets.device), divergence, generator, progress)
        return to_buffer(images, meant, expert)


def class_similarity(weights: Tensor) -> Tensor:
    """Compute how alike classes are to a classifier: the cosine of their weight rows, scaled to [0, 1] row by row.

    Takes float ``(classes, features)``, returns float ``(classes, classes)``; the diagonal is 1, and the least similar
    class of each row 0 (with one class alone, 1).
    """
    rows = F.normalize(weights.detach(), dim=1)
    cosine = rows @ rows.T
    low, high = cosine.min(dim=1, keepdim=True).values, cosine.max(dim=1, keepdim=True).values
    scaled = (cosine - low) / (high - low).clamp_min(torch.finfo(cosine.dtype).tiny)
    return scaled.fill_diagonal_(1.0)


def draw_dirichlet(concentration: Tensor, generator: torch.Generator) -> Tensor:
    """Draw probabilities, one vector a row: float32 ``(n, classes)``; each row sums to 1.

    `concentration` is positive, ``(n, classes)``, on the CPU; so is the generator of the draws.
    """
    # torch draws gamma variates from the global state only. Their logarithms, since small concentrations underflow:
    # if G has shape a + 1 and U is uniform, G * U ** (1 / a) has shape a.
    numpy = np.random.default_rng(int(torch.randint(2**62, (), generator=generator)))
    shape = concentration.double().numpy()
    logarithm = np.log(numpy.standard_gamma(shape + 1)) + np.log1p(-numpy.random(shape.shape)) / shape
    return torch.from_numpy(logarithm).softmax(dim=1).float()
