"""Scales: how the logits of both teachers are made comparable before they are merged (Section 3, Eq. 6 and 7)."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.procedural import ProceduralImages
from exml_lightning.core.rng import keyed_generator
from exml_lightning.core.score_table import ScoreTable, StandardTable
from exml_lightning.core.settings import Configured

SPREAD = 1e-5
"""Standard deviation of a layer's share among reference images, below which it says nothing of an image."""
OWN = 3.0
"""Score of own images, beside what is left of the logits: a probability of 0.95 against "none of these"."""
LARGEST_SCORE = 10.0
REFERENCE = 1000
"""Images that logits are compared with, where they are drawn: four for each quantile that is kept of them."""


class Scale(Configured, ABC):
    """Puts the logits of a model on a common scale; subclasses are frozen dataclasses."""

    @abstractmethod
    def __call__(self, logits: Tensor, known: Tensor, heads: Tensor | None = None) -> Tensor:
        """Normalise the logits of a mini-batch, float ``(n, num_classes)`` (Eq. 6 and 7).

        `known` are the classes that the model knows, bool ``(num_classes,)``; the others become 0. `heads` is the task
        of each class, int64 ``(num_classes,)``, for a multi-head model, each head of which is normalised by itself;
        None for a single head.
        """

    def score_weights(self) -> "ScoreWeights | None":
        """Return the weights of what is scored of an expert; None where its logits are taken as they are."""
        return None

    def fitted(self, num_experts: int, heads: Sequence[int] | None, statistics: bool = False) -> tuple["Scale", str]:
        """Return the scale for the experts at hand, and what is left out of it for them, in words; "" for nothing.

        `heads` is the task of each class, for a multi-head ex-model; None for a single head. `statistics`: whether any
        expert has published some.
        """
        return self, ""

    @property
    def none_of_these(self) -> bool:
        """Whether scores are against a class "none of these", of score 0."""
        return False

    @property
    def asks_both(self) -> bool:
        """Whether both teachers are asked about all images of the buffer, to make the scale of their answers."""
        return False

    def reference_images(self, image_format: ImageFormat, seed: int, device: torch.device) -> Tensor | None:
        """Draw what logits are compared with in place of the buffer's images; None for these.

        Returns pixels, uint8 ``(REFERENCE, channels, height, width)``, the same for all experts.
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
class ReferenceScores(NoScale):
    """Replaces the expert's logits by scores among those of reference images; not in the paper.

    Args:
        reference: Procedural images to compare logits with in place of the buffer's, `REFERENCE` of them, the same for
            all experts. Null for the buffer's images.

    An expert that has published statistics is scored by its statistics; see `StatisticsScores`.
    """

    reference: ProceduralImages | None = field(default=None, kw_only=True)

    @abstractmethod
    def among_rivals(self, statistics: bool) -> Scale:
        """Return the scale for experts that compete; `statistics` as in `Scale.fitted`."""

    def fitted(self, num_experts: int, heads: Sequence[int] | None, statistics: bool = False) -> tuple[Scale, str]:
        """Return `Center` where experts never compete, else `among_rivals`; see `Scale.fitted`."""
        if heads is not None:
            return Center(), "the common scale (heads of different tasks never compete)"
        if num_experts == 1:
            return Center(), "the common scale (a single expert has nothing to be compared with)"
        return self.among_rivals(statistics), ""

    def reference_images(self, image_format: ImageFormat, seed: int, device: torch.device) -> Tensor | None:
        """Draw `reference`, if there is one; see `Scale.reference_images`."""
        if self.reference is None:
            return None
        return self.reference.draw(REFERENCE, image_format.shape, keyed_generator("reference", seed), device)


@dataclass(frozen=True)
class NormalScores(ReferenceScores):
    """Replaces the expert's logits by their normal scores among those of reference images; not in the paper.

    The previous ex-model has learned such scores and is taken at its word.

    Args:
        raw_logits: Weight of the logits themselves, which are added to their scores; see `ScoreTable`.
        familiarity: Weight of how familiar an image is to the layers of the expert, which is added to the scores of its
            classes; see `LayerShares`. 0 for nothing. An expert with no layer that tells is scored without.

    Raises:
        ExmlError: If a weight is less than 0.
    """

    raw_logits: float = 0.3
    familiarity: float = 2.0

    def __post_init__(self) -> None:
        for name in ("raw_logits", "familiarity"):
            if not getattr(self, name) >= 0:
                raise ExmlError(f"model.normalize.{name} is {getattr(self, name)}: give 0 or more")

    def score_weights(self) -> "ScoreWeights":
        """Return the weights; see `Scale.score_weights`."""
        return ScoreWeights(self.raw_logits, self.familiarity)

    def among_rivals(self, statistics: bool) -> Scale:
        """Return the scale with a class "none of these", or without; see `ReferenceScores.among_rivals`."""
        kind = StatisticsScale if statistics else NormalScores
        return kind(**vars(self))


@dataclass(frozen=True)
class StandardScores(ReferenceScores):
    """Replaces a logit by how many standard deviations it is above the mean of its class among the reference images.

    `NormalScores` in a straight line, for references like the experts' own images: photographs for experts of
    photographs, or what experts with batch norm make of drawings (docs/notebook_of_trials.md). An image of a class is
    far above all but a few of these, and quantiles no longer say how far.

    The previous ex-model is put on the scale anew wherever it is asked: images that are made from experts are, for the
    first of these, all of its own classes.
    """

    def score_weights(self) -> "ScoreWeights":
        """Return what says that the line is straight; see `Scale.score_weights`."""
        return ScoreWeights(straight=True)

    @property
    def asks_both(self) -> bool:
        """Whether it is these that they are compared with; see `Scale.asks_both`."""
        return self.reference is None

    def among_rivals(self, statistics: bool) -> Scale:
        """Return the scale of `NormalScores` where experts have published statistics."""
        return StatisticsScale(reference=self.reference) if statistics else self


@dataclass(frozen=True)
class StatisticsScale(NormalScores):
    """`NormalScores` where experts have published statistics: a class "none of these" competes.

    It is taken by itself where it applies.
    """

    @property
    def none_of_these(self) -> bool:
        """See `Scale.none_of_these`."""
        return True


@dataclass(frozen=True)
class ScoreWeights:
    """The weights of `NormalScores`; `straight` for those of `StandardScores`."""

    raw_logits: float = 0.0
    familiarity: float = 0.0
    straight: bool = False


class StatisticsScores:
    """The scores of an expert that has published statistics.

    Its logits, times `raw_logits`, less how strange the image is to it, in standard deviations of its own images
    (`ClassStatistics.strangeness`), plus `OWN`; at most `LARGEST_SCORE` away from 0. A class "none of these", of score
    0, is likelier than all others for an image that no expert finds its own.
    """

    def __init__(self, weights: ScoreWeights) -> None:
        self._raw = weights.raw_logits

    def __call__(self, logits: Tensor, strangeness: Tensor) -> Tensor:
        """Compute the score of each class, float32 ``(n, classes)``, from logits and strangeness, ``(n, 1)``."""
        return (self._raw * logits.float() - strangeness + OWN).clamp(-LARGEST_SCORE, LARGEST_SCORE)


class ExpertScores:
    """The normal scores of one expert, and how familiar images are to it.

    `logits` are its own, of the reference images, float ``(n, classes)``; `shares` what its layers take in of them,
    float ``(n, layers)``, ``(n, 0)`` without familiarity; `layers` how much each of these counts, float ``(layers,)``,
    0 or more.
    """

    def __init__(self, weights: ScoreWeights, logits: Tensor, shares: Tensor, layers: Tensor) -> None:
        self._logits = StandardTable(logits) if weights.straight else ScoreTable(logits, weights.raw_logits)
        self._shares: ScoreTable | None = None
        if shares.shape[1]:
            self._shares = ScoreTable(shares)
            telling = layers * (shares.std(dim=0, correction=0) > SPREAD)  # else rounding alone
            self._weights = weights.familiarity * telling / telling.sum().clamp_min(1e-12)

    def __call__(self, logits: Tensor, shares: Tensor) -> Tensor:
        """Compute the score of each class, float32 ``(n, classes)``; see `ExpertScores` for the shapes.

        Added to all: the mean of the normal scores of the shares of the layers that tell, each by how much it counts,
        times the weight of familiarity.
        """
        scores = self._logits(logits)
        return scores if self._shares is None else scores + (self._shares(shares) @ self._weights)[:, None]


def _head_mean(values: Tensor, known: Tensor, heads: Tensor | None) -> Tensor:
    """Mean over the known classes of each class's head; `values` are 0 for the others."""
    if heads is None:
        return values.sum(dim=1, keepdim=True) / known.sum().clamp_min(1)
    members = ((heads[:, None] == heads) & known[:, None]).to(values.dtype)
    return values @ members / members.sum(dim=0).clamp_min(1)
