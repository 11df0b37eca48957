"""The target logits: what the expert and the previous ex-model say, merged (Section 3, Eq. 8 and 9)."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from exml_lightning.core.scales import Scale

Merge = Literal["unit", "sample"]


class Answers(NamedTuple):
    """What both teachers say of a mini-batch.

    Args:
        expert: The expert's logits or scores, float ``(n, classes of the expert)``.
        classes: Class index of each class that the expert knows, int64.
        previous: The previous ex-model's logits or scores, float ``(n, num_classes)``; 0 where it knows nothing.
        known: The classes that the previous ex-model knows, bool ``(num_classes,)``; all False in the first experience.
    """

    expert: Tensor
    classes: Tensor
    previous: Tensor
    known: Tensor


@dataclass(frozen=True)
class Target:
    """What the ex-model's logits should be.

    Args:
        logits: Float ``(n, num_classes)``; 0 where `mask` is False.
        mask: Bool ``(n, num_classes)``: the units that take part in the loss.
    """

    logits: Tensor
    mask: Tensor


def merge_targets(
    answers: Answers, labels: Tensor, scale: Scale, merge: Merge = "unit", heads: Tensor | None = None
) -> Target:
    """Merge the answers of the expert, for its own classes, and of the previous ex-model (Eq. 8 and 9).

    Classes that nobody asked knows take no part.

    Args:
        answers: Of both.
        labels: Class index y_syn of each sample, int64 ``(n,)``; read by ``merge="sample"`` only.
        scale: Normalises the logits of each model over the classes that it knows.
        merge: ``unit``: a class that only one of the two knows takes its logit, a class that both know takes the mean,
            or the larger one where "none of these" competes.
            ``sample``: the literal reading of Eq. 9, where the sample's label chooses the whole vector of the expert,
            of the previous ex-model, or their mean.
        heads: The task of each class, int64 ``(num_classes,)``, for a multi-head ex-model; see `Scale`. Unit by unit,
            the new head's target is then the expert and that of the old heads the previous ex-model.
    """
    n, num_classes = answers.previous.shape
    expert_known = torch.zeros_like(answers.known).index_fill(0, answers.classes, True)
    all_units = torch.zeros_like(answers.previous).index_copy(1, answers.classes, answers.expert)
    expert = scale(all_units, expert_known, heads)
    previous = scale(answers.previous, answers.known, heads)
    if merge == "unit":
        from_expert = expert_known.expand(n, num_classes)
        from_previous = answers.known.expand(n, num_classes)
    else:
        from_expert = expert_known[labels, None] & expert_known
        from_previous = answers.known[labels, None] & answers.known
    votes = from_expert.long() + from_previous.long()
    logits = (expert * from_expert + previous * from_previous) / votes.clamp_min(1)
    if scale.none_of_these:  # who finds an image strange does not say that it is of no class
        logits = torch.where(votes > 1, torch.maximum(expert, previous), logits)
    return Target(logits, votes > 0)
