"""A first look at an expert, before any work: how sure it is of drawings, and how large its logits are."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor

from exml_lightning.core.errors import BrokenExpertError, foreign_code
from exml_lightning.core.expert import LARGEST, Expert, confidence_in
from exml_lightning.core.finite import check_logits
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.logits import other_in_company
from exml_lightning.core.procedural import ColouredNoise, DeadLeaves, Mixture, Strokes
from exml_lightning.core.rng import keyed_generator

DRAWINGS = 32
"""Strokes, leaves and noise that each expert is shown. Of 64 and of 512 the spreads are the same within a fifth."""
FAR = 4.0
"""How many times the median of the stream a spread of logits may be, or its inverse. Experts trained alike on different
classes were within 0.6 to 1.7 times it, one whose classifier was multiplied by 10 at 9 to 11 times it."""


class FirstLook(NamedTuple):
    """What an expert answers to drawings.

    Args:
        confidence: The mean probability of its answer among its own classes, in ``[0, 1]``; of the one class, against a
            logit of 0, where it knows one.
        spread: The standard deviation of its logits over images and its own classes (population).
        other_in_company: Whether it answers an image otherwise when it is shown alone.
    """

    confidence: float
    spread: float
    other_in_company: bool = False


def draw_everything(image_format: ImageFormat, seed: int, device: torch.device) -> Tensor:
    """Draw what all experts of a run are shown: normalised images ``(DRAWINGS, channels, height, width)``."""
    kinds = Mixture([Strokes(), DeadLeaves(), ColouredNoise()])
    generator = keyed_generator("first look", seed)
    return image_format.normalize(kinds.draw(DRAWINGS, image_format.shape, generator, device))


@torch.no_grad()
def first_look(expert: Expert, drawings: Tensor) -> FirstLook:
    """Ask an expert about drawings, normalised images on its device, ``(n, channels, height, width)``.

    Raises `BrokenExpertError` if its answers are NaN, infinite, absurdly large, or the same for all of them, and
    `ExmlError` if it cannot be asked.
    """
    with foreign_code(expert.name, f"its answers to {len(drawings)} drawings", "correct its network"):
        logits, alone = expert(drawings).float(), expert(drawings[:1]).float()
    check_logits(logits, expert, "drawings")
    largest = float(logits.abs().max())
    if largest > LARGEST:
        raise BrokenExpertError(
            f"{expert.name} answers drawings with logits up to {largest:.1e}: nothing can learn these"
        )
    if torch.equal(logits.amax(dim=0), logits.amin(dim=0)):  # to the last bit: a weak answer is an answer
        raise BrokenExpertError(f"{expert.name} gives {len(logits)} drawings one and the same answer: it tells nothing")
    confidence = confidence_in(logits, logits.argmax(dim=1)).mean()
    return FirstLook(float(confidence), float(logits.std(correction=0)), other_in_company(logits, alone))


def far_from_others(spreads: Sequence[float]) -> dict[int, float]:
    """Find spreads that are more than `FAR` times their median, or less than its `FAR`-th part.

    Returns how many times the median each of them is, by its place; nothing for fewer than three, of which none can be
    said to be the odd one.
    """
    middle = median(spreads) if len(spreads) > 2 else 0.0
    if not middle:
        return {}
    times = {place: spread / middle for place, spread in enumerate(spreads)}
    return {place: ratio for place, ratio in times.items() if not 1 / FAR <= ratio <= FAR}
