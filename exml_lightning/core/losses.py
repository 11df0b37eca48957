"""The Ex-Model Distillation loss (Section 3, Eq. 10 and 11)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from exml_lightning.core.targets import Target


def distillation_mse(logits: Tensor, target: Target) -> Tensor:
    """Mean squared error between the ex-model and its target (Eq. 10).

    Args:
        logits: The ex-model's, ``(n, num_classes)``.
        target: What they should be.

    Returns:
        A scalar: the mean over samples and over the classes that take part, which is the paper's squared norm divided
        by the number of classes.
    """
    weights = target.mask.to(logits.dtype)
    return ((logits - target.logits).square() * weights).sum() / weights.sum().clamp_min(1)


def known_cross_entropy(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy over the classes that the ex-model knows so far (second term of Eq. 11).

    Args:
        logits: The ex-model's, ``(n, num_classes)``.
        labels: y_syn, int64 ``(n,)``, each a known class.
        known: Bool ``(num_classes,)``.

    Returns:
        A scalar, the mean over samples.
    """
    return F.cross_entropy(logits.masked_fill(~known, torch.finfo(logits.dtype).min), labels)
