"""Normal scores: numbers on the scale of their own distribution, so that independent models can be compared."""

import torch
import torch.nn.functional as F
from torch import Tensor

KNOTS = 255
"""Quantiles that stand for the distribution of a class's logits."""
TAIL = 26
"""Quantiles at either end, a tenth of all, that say how scores go on beyond it."""


class ScoreTable:
    """Replaces the logit of each class by its normal score among the logits that a model gave to reference images.

    A logit that is greater than the share p of the reference has the score z with P(Z <= z) = p for a standard normal Z
    (van der Waerden 1952); between quantiles, and beyond the outermost, scores are linear. Not in the paper. Models
    that were trained apart are sure in ways of their own; what can be compared is how sure each is of an image, next to
    how sure it is of others.

    `reference` are its logits of these images, float ``(n, classes)``, n at least 1; `raw` is the weight of the logits
    themselves, which are added to their scores.
    """

    def __init__(self, reference: Tensor, raw: float = 0.0) -> None:
        self._raw = raw
        shares = (torch.arange(KNOTS) + 0.5) / KNOTS
        scores = torch.special.ndtri(shares.double()).float().to(reference.device)
        rising, last = reference.float().sort(dim=0).values, len(reference) - 1
        place = shares.to(reference.device) * last
        low, high = rising[place.floor().long()], rising[place.ceil().long()]
        knots = torch.lerp(low, high, place.frac()[:, None]).T.contiguous()
        # Equal logits have the mean of their scores, so that a unit which always says the same says nothing.
        start, stop = torch.searchsorted(knots, knots), torch.searchsorted(knots, knots, right=True)
        sums = F.pad(scores.cumsum(dim=0), (1, 0))
        self._logits, self._scores = knots, (sums[stop] - sums[start]) / (stop - start)  # (classes, knots)

    def __call__(self, logits: Tensor) -> Tensor:
        """Compute the scores of logits of the same model, float ``(n, classes)``: float32 of the same shape."""
        values, knots, scores = logits.float().T.contiguous(), self._logits, self._scores
        right = torch.searchsorted(knots, values).clamp(1, KNOTS - 1)
        low, high = knots.gather(1, right - 1), knots.gather(1, right)
        share = ((values - low) / (high - low).clamp_min(1e-12)).clamp(0, 1)
        inner = torch.lerp(scores.gather(1, right - 1), scores.gather(1, right), share)
        first, last = knots[:, :1], knots[:, -1:]
        least = (1e-4 * (last - first)).clamp_min(1e-6)  # width of a tail in which many logits are equal
        high_tail, low_tail = scores[:, -1:] - scores[:, -TAIL:][:, :1], scores[:, :TAIL][:, -1:] - scores[:, :1]
        above = (values - last).clamp_min(0) * high_tail / (last - knots[:, -TAIL:][:, :1]).maximum(least)
        below = (values - first).clamp_max(0) * low_tail / (knots[:, :TAIL][:, -1:] - first).maximum(least)
        beyond: Tensor = above + below
        return (inner + beyond + self._raw * values).T


class StandardTable:
    """Replaces the logit of each class by its distance from the mean among reference images, in standard deviations.

    For `reference` see `ScoreTable`. A class whose logits are all equal there says nothing: its score is 0.
    """

    def __init__(self, reference: Tensor) -> None:
        logits = reference.float()
        self._mean, std = logits.mean(dim=0), logits.std(dim=0, correction=0)
        equal = std <= 1e-6 * self._mean.abs().clamp_min(1)  # but for rounding
        self._std = std.masked_fill(equal, torch.inf)

    def __call__(self, logits: Tensor) -> Tensor:
        """Compute the scores of logits of the same model, float ``(n, classes)``: float32 of the same shape."""
        return (logits.float() - self._mean) / self._std
