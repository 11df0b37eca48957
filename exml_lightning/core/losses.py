"""The Ex-Model Distillation loss (Section 3, Eq. 10 and 11)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from exml_lightning.core.targets import Target


def distillation_mse(logits: Tensor, target: Target) -> Tensor:
    """Mean squared error between the ex-model's logits, ``(n, num_classes)``, and its target (Eq. 10), a scalar.

    The mean over samples and the classes that take part: the paper's squared norm divided by the number of classes.
    """
    weights = target.mask.to(logits.dtype)
    return ((logits - target.logits).square() * weights).sum() / weights.sum().clamp_min(1)


def distillation_kl(
    logits: Tensor, target: Target, temperature: float, heads: Sequence[Tensor] = (), none_of_these: bool = False
) -> Tensor:
    """Kullback-Leibler divergence between softened probabilities (Hinton et al. 2015), instead of Eq. 10; a scalar.

    The mean over samples of ``KL(softmax(target / T) || softmax(logits / T)) * T ** 2``, T the temperature, more than
    0; classes that take no part have no probability. Logits are ``(n, num_classes)``. For a multi-head ex-model `heads`
    are the classes of each head, bool ``(num_classes,)``: each has probabilities of its own, and the result is the mean
    over those heads that take part. With `none_of_these` a class beside all others has the logit 0, in both.
    """
    if heads:
        parts = [target.mask & head for head in heads]
        each = torch.stack([distillation_kl(logits, Target(target.logits, part), temperature) for part in parts])
        return each.sum() / torch.stack([part.any() for part in parts]).sum().clamp_min(1)
    if none_of_these:
        logits, nothing_known = F.pad(logits, (0, 1)), F.pad(target.logits, (0, 1))
        target = Target(nothing_known, F.pad(target.mask, (0, 1), value=True))
    absent = ~target.mask
    nothing = torch.finfo(logits.dtype).min / 2  # -inf would make NaN of 0 * inf
    wanted = (target.logits / temperature).masked_fill(absent, nothing).log_softmax(dim=1)
    given = (logits / temperature).masked_fill(absent, nothing).log_softmax(dim=1)
    return F.kl_div(given, wanted, log_target=True, reduction="batchmean") * temperature**2


def known_cross_entropy(logits: Tensor, labels: Tensor, known: Tensor) -> Tensor:
    """Cross-entropy over the classes that the ex-model knows so far (second term of Eq. 11), the mean over samples.

    Logits are ``(n, num_classes)``, labels y_syn, int64 ``(n,)``, each a known class, or -1 for a sample that has none
    and adds nothing; `known` is bool ``(num_classes,)``, or ``(n, num_classes)`` where each sample has its own, those
    of its task's head.
    """
    possible = logits.masked_fill(~known, torch.finfo(logits.dtype).min)
    return F.cross_entropy(possible, labels, ignore_index=-1, reduction="sum") / len(labels)
