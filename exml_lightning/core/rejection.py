"""The class "none of these", which has no unit, and when an image is taken for it (docs/statistics.md)."""

import torch
from torch import Tensor

OWN_REJECTED = 0.01
"""Share of the images made from statistics that are taken for none of the classes that they were made for."""


def none_of_these(logits: Tensor) -> Tensor:
    """Return the probability that images are of no class, ``(n,)``: of a class of logit 0, beside ``(n, classes)``."""
    return torch.sigmoid(-logits.float().logsumexp(dim=1))


def rejection_threshold(own: Tensor) -> float:
    """Return the probability from which on an image is taken for none of the classes, between 0 and 1.

    `own` are the logits of images that are of these, float ``(n, classes)``: `OWN_REJECTED` of them are beyond it. In
    training, the probability of "none of these" is seldom more than a half, even for images of nobody: each expert
    finds some of them its own.
    """
    return float(none_of_these(own).quantile(1 - OWN_REJECTED))
