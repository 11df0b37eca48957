"""The target logits: what the expert and the previous ex-model say, merged (Section 3, Eq. 6-9)."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Normalize = Literal["center", "standardize", "center_batch", "quantile", "none"]
Merge = Literal["unit", "sample"]
Unknown = Literal["skip", "zero"]


@dataclass(frozen=True)
class Target:
    """What the ex-model's logits should be.

    Args:
        logits: Float ``(n, num_classes)``; 0 where `mask` is False.
        mask: Bool ``(n, num_classes)``: the units that take part in the loss.
    """

    logits: Tensor
    mask: Tensor


def normalize_logits(logits: Tensor, known: Tensor, how: Normalize, heads: Tensor | None = None) -> Tensor:
    """Put the logits of a model on a common scale (Eq. 6 and 7).

    Args:
        logits: Float ``(n, num_classes)``.
        known: The classes that the model knows, bool ``(num_classes,)``.
        how: ``center`` subtracts the mean over the known classes; ``standardize`` also divides by the standard
            deviation over them (population); ``center_batch`` subtracts each class's mean over the batch; ``none``, and
            ``quantile``, for which `Teachers` answer in `NormalScores` already, change nothing.
        heads: The task of each class, int64 ``(num_classes,)``, for a multi-head model: each head is normalised by
            itself. None for a single head.

    Returns:
        Logits of the same shape, 0 for classes that are not known.
    """
    logits = logits * known  # masks, not a selection of columns: no host sync on a GPU
    if how in ("none", "quantile"):
        return logits
    if how == "center_batch":
        return logits - logits.mean(dim=0, keepdim=True)
    centred = (logits - _head_mean(logits, known, heads)) * known
    if how == "center":
        return centred
    return centred / _head_mean(centred.square(), known, heads).sqrt().clamp_min(1e-6)


def _head_mean(values: Tensor, known: Tensor, heads: Tensor | None) -> Tensor:
    """Mean over the known classes of each class's head; `values` are 0 for the others."""
    if heads is None:
        return values.sum(dim=1, keepdim=True) / known.sum().clamp_min(1)
    members = ((heads[:, None] == heads) & known[:, None]).to(values.dtype)
    return values @ members / members.sum(dim=0).clamp_min(1)


def merge_targets(
    expert_logits: Tensor,
    expert_classes: Tensor,
    previous_logits: Tensor,
    previous_known: Tensor,
    labels: Tensor,
    *,
    normalize: Normalize = "center",
    merge: Merge = "unit",
    unknown: Unknown = "skip",
    heads: Tensor | None = None,
) -> Target:
    """Merge the answers of the expert and of the previous ex-model (Eq. 8 and 9).

    Args:
        expert_logits: ``(n, classes of the expert)``.
        expert_classes: Class index of each of its columns, int64 ``(classes of the expert,)``.
        previous_logits: ``(n, num_classes)``, all units of the previous ex-model.
        previous_known: The classes that the previous ex-model knows, bool ``(num_classes,)``; all False before the
            first experience ends.
        labels: Class index y_syn of each sample, int64 ``(n,)``; read by ``merge="sample"`` only.
        normalize: See `normalize_logits`; each model over the classes that it knows.
        merge: ``unit``: a class that only one of the two knows takes its logit, a class that both know takes the mean.
            ``sample``: the literal reading of Eq. 9, where the sample's label chooses the whole vector of the expert,
            of the previous ex-model, or their mean.
        unknown: What happens to classes that nobody asked knows: ``skip`` leaves them out of the loss, ``zero`` sets
            their target to 0 (the authors' code).
        heads: The task of each class, int64 ``(num_classes,)``, for a multi-head ex-model; see `normalize_logits`. Unit
            by unit, the new head's target is then the expert and that of the old heads the previous ex-model.

    Returns:
        The merged target.
    """
    n, num_classes = previous_logits.shape
    expert_known = torch.zeros_like(previous_known).index_fill(0, expert_classes, True)
    all_units = torch.zeros_like(previous_logits).index_copy(1, expert_classes, expert_logits)
    expert = normalize_logits(all_units, expert_known, normalize, heads)
    previous = normalize_logits(previous_logits, previous_known, normalize, heads)
    if merge == "unit":
        from_expert = expert_known.expand(n, num_classes)
        from_previous = previous_known.expand(n, num_classes)
    else:
        from_expert = expert_known[labels, None] & expert_known
        from_previous = previous_known[labels, None] & previous_known
    votes = from_expert.long() + from_previous.long()
    logits = (expert * from_expert + previous * from_previous) / votes.clamp_min(1)
    mask = votes > 0
    return Target(logits, torch.ones_like(mask) if unknown == "zero" else mask)


def add_targets(scores: Tensor, expert_classes: Tensor, previous_scores: Tensor, others: float) -> Target:
    """Add what the expert says of every class of the stream to what the ex-model has learned of it so far.

    Not in the paper. An expert whose classifier has a unit for each class of the stream has learned of the classes it
    never saw that its own images are not of them. Each class ends with the score of the expert that knows it, plus
    `others` times the sum of all other experts' scores of it.

    Args:
        scores: The expert's normal scores of all classes, float ``(n, num_classes)``.
        expert_classes: The classes that it knows, int64.
        previous_scores: The previous ex-model's, float ``(n, num_classes)``; 0 before the first experience ends.
        others: Weight of classes that the expert does not know.

    Returns:
        The target, in which all classes take part.
    """
    weights = torch.full_like(scores[0], others).index_fill(0, expert_classes, 1.0)
    target = previous_scores + weights * scores
    return Target(target, torch.ones_like(target, dtype=torch.bool))
