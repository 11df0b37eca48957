"""The Ex-Model Distillation loss (Section 3, Eq. 10 and 11)."""

from collections.abc import Sequence

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


def distillation_kl(logits: Tensor, target: Target, temperature: float, heads: Sequence[Tensor] = ()) -> Tensor:
    """Kullback-Leibler divergence between softened probabilities (Hinton et al. 2015), instead of Eq. 10.

    Args:
        logits: The ex-model's, ``(n, num_classes)``.
        target: What they should be; classes that take no part have no probability.
        temperature: Divides the logits of both, more than 0.
        heads: The classes of each head, bool ``(num_classes,)``, for a multi-head ex-model: each has probabilities of
            its own. Empty for a single head.

    Returns:
        A scalar: the mean over samples of ``KL(softmax(target / T) || softmax(logits / T)) * T ** 2``; with several
        heads, the mean of this over those that take part.
    """
    if heads:
        parts = [target.mask & head for head in heads]
        each = torch.stack([distillation_kl(logits, Target(target.logits, part), temperature) for part in parts])
        return each.sum() / torch.stack([part.any() for part in parts]).sum().clamp_min(1)
    absent = ~target.mask
    nothing = torch.finfo(logits.dtype).min / 2  # -inf would make NaN of 0 * inf
    wanted = (target.logits / temperature).masked_fill(absent, nothing).log_softmax(dim=1)
    given = (logits / temperature).masked_fill(absent, nothing).log_softmax(dim=1)
    return F.kl_div(given, wanted, log_target=True, reduction="batchmean") * temperature**2


def known_cross_entropy(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy over the classes that the ex-model knows so far (second term of Eq. 11).

    Args:
        logits: The ex-model's, ``(n, num_classes)``.
        labels: y_syn, int64 ``(n,)``, each a known class.
        known: Bool ``(num_classes,)``; or ``(n, num_classes)`` where each sample has its own, those of its task's head.

    Returns:
        A scalar, the mean over samples.
    """
    return F.cross_entropy(logits.masked_fill(~known, torch.finfo(logits.dtype).min), labels)
