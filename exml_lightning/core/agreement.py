"""How far an ex-model agrees with its experts about images of nothing in particular: no labelled image is needed."""

from collections.abc import Sequence

import torch
from torch import Tensor


def agreement(logits: Tensor, answers: Tensor, classes: Sequence[int]) -> float:
    """Return the share of images to which an ex-model, choosing among an expert's classes, gives the expert's answer.

    Among all its classes it has to disagree about images that look more like another expert's. `logits` are the
    ex-model's, float ``(n, num_classes)``; `answers` the class that the expert gave each image, among `classes`, its
    own, class indices.
    """
    own = torch.tensor(classes, device=logits.device)
    return float((own[logits[:, own].argmax(dim=1)] == answers.to(logits.device)).double().mean())


def by_guessing(answers: Tensor) -> float:
    """Return the agreement of always giving the class that the expert gives most often; see `agreement`."""
    return int(answers.long().bincount().max()) / len(answers)
