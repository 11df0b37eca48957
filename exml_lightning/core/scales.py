"""Scales: how the logits of both teachers are made comparable before they are merged (Section 3, Eq. 6 and 7)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.procedural import ProceduralImages
from exml_lightning.core.rng import keyed_generator
from exml_lightning.core.score_table import ScoreTable
from exml_lightning.core.settings import Configured

SPREAD = 1e-5
"""Standard deviation of a layer's share among reference images, below which it says nothing of an image."""


class Scale(Configured, ABC):
    """Puts the logits of a model on a common scale; subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(self, logits: Tensor, known: Tensor, heads: Tensor | None = None) -> Tensor:
        """Normalise the logits of a mini-batch, float ``(n, num_classes)`` (Eq. 6 and 7).

        `known` are the classes that the model knows, bool ``(num_classes,)``; the others become 0. `heads` is the task
        of each class, int64 ``(num_classes,)``, for a multi-head model, each head of which is normalised by itself;
        None for a single head.
        """

    def score_weights(self, heads: Tensor | None) -> "ScoreWeights | None":
        """Return the weights of what is scored of an expert; None where its logits are taken as they are.

        `heads` is the task of each class, for a multi-head ex-model; None for a single head.
        """
        return None

    def reference_images(
        self, num_images: int, image_format: ImageFormat, seed: int, device: torch.device
    ) -> Tensor | None:
        """Draw what logits are compared with in place of the buffer's images; None for these.

        Returns pixels, uint8 ``(num_images, channels, height, width)``, the same for all experts.
        """
        return None


@dataclass(frozen=True)
class Center(Scale):
    """Subtracts the mean over the known classes, as the authors' code does."""

    def __call__(self, logits: Tensor, known: Tensor, heads: Tensor | None = None) -> Tensor:
        """Centre each sample; see `Scale.__call__`."""
        logits = logits * known  # masks, not a selection of columns: no host sync on a GPU
        return (logits - _head_mean(logits, known, heads)) * known


@dataclass(frozen=True)
class Standardize(Scale):
    """Also divides by the standard deviation over the known classes (population)."""

    def __call__(self, logits: Tensor, known: Tensor, heads: Tensor | None = None) -> Tensor:
        """Standardise each sample; see `Scale.__call__`."""
        centred = Center()(logits, known, heads)
        return centred / _head_mean(centred.square(), known, heads).sqrt().clamp_min(1e-6)


@dataclass(frozen=True)
class CenterBatch(Scale):
    """Subtracts each class's mean over the mini-batch."""

    def __call__(self, logits: Tensor, known: Tensor, heads: Tensor | None = None) -> Tensor:
        """Centre each class; see `Scale.__call__`."""
        logits = logits * known
        return logits - logits.mean(dim=0, keepdim=True)


@dataclass(frozen=True)
class NoScale(Scale):
    """Takes logits as they are."""

    def __call__(self, logits: Tensor, known: Tensor, heads: Tensor | None = None) -> Tensor:
        """Mask the classes that are not known; see `Scale.__call__`."""
        return logits * known


@dataclass(frozen=True)
class NormalScores(NoScale):
    """Replaces the expert's logits by their normal scores among those of reference images; not in the paper.

    The previous ex-model has learned such scores and is taken at its word.

    Args:
        raw_logits: Weight of the logits themselves, which are added to their scores; see `ScoreTable`.
        others: Weight of what the expert says of the classes it does not know, for experts with a unit for each class
            of the stream; see `add_targets`. 0 for nothing. With task labels it does nothing: heads never compete.
        familiarity: Weight of how familiar an image is to the layers of the expert, which is added to the scores of its
            own classes; see `LayerShares`. 0 for nothing. With task labels it does nothing.
        reference: Procedural images to compare logits with in place of the buffer's, as many as the buffer has, the
            same for all experts: for a buffer of images that were made from the experts. Null for the buffer's.

    Raises:
        ExmlError: If a weight is less than 0.
    """

    raw_logits: float = 0.0
    others: float = 0.0
    familiarity: float = 0.0
    reference: ProceduralImages | None = None

    def __post_init__(self) -> None:
        for name in ("raw_logits", "others", "familiarity"):
            if not getattr(self, name) >= 0:
                raise ExmlError(f"model.normalize.{name} is {getattr(self, name)}: give 0 or more")

    def score_weights(self, heads: Tensor | None) -> "ScoreWeights":
        """Return the weights; see `Scale.score_weights`."""
        if heads is not None:
            return ScoreWeights(self.raw_logits)
        return ScoreWeights(self.raw_logits, self.others, self.familiarity)

    def reference_images(
        self, num_images: int, image_format: ImageFormat, seed: int, device: torch.device
    ) -> Tensor | None:
        """Draw `reference`, if there is one; see `Scale.reference_images`."""
        if self.reference is None:
            return None
        generator = keyed_generator("reference", seed)
        return self.reference.draw(num_images, image_format.shape, generator, device)


@dataclass(frozen=True)
class ScoreWeights:
    """The weights of `NormalScores` that hold for the heads at hand."""

    raw_logits: float = 0.0
    others: float = 0.0
    familiarity: float = 0.0


class ExpertScores:
    """The normal scores of one expert, and how familiar images are to it.

    `logits` are its own, of the reference images, float ``(n, classes)``; `shares` what its layers take in of them,
    float ``(n, layers)``, ``(n, 0)`` without familiarity; `own` the columns of `logits` for classes it knows, int64.
    """

    def __init__(self, weights: ScoreWeights, logits: Tensor, shares: Tensor, own: Tensor) -> None:
        self._logits = ScoreTable(logits, weights.raw_logits)
        self._own = own
        self._shares: ScoreTable | None = None
        if shares.shape[1]:
            self._shares = ScoreTable(shares)
            telling = (shares.std(dim=0, correction=0) > SPREAD).float()  # else rounding alone
            self._weights = weights.familiarity * telling / telling.sum().clamp_min(1)

    def __call__(self, logits: Tensor, shares: Tensor) -> Tensor:
        """Compute the score of each class, float32 ``(n, classes)``; see `ExpertScores` for the shapes.

        Added for the expert's own classes: the mean of the normal scores of the shares of all layers that tell, times
        the weight of familiarity.
        """
        scores = self._logits(logits)
        if self._shares is None:
            return scores
        familiar = self._shares(shares) @ self._weights
        return scores.index_add(1, self._own, familiar[:, None].expand(-1, len(self._own)))


def _head_mean(values: Tensor, known: Tensor, heads: Tensor | None) -> Tensor:
    """Mean over the known classes of each class's head; `values` are 0 for the others."""
    if heads is None:
        return values.sum(dim=1, keepdim=True) / known.sum().clamp_min(1)
    members = ((heads[:, None] == heads) & known[:, None]).to(values.dtype)
    return values @ members / members.sum(dim=0).clamp_min(1)
