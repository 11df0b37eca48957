"""Measuring the statistics of an expert's classes on images of them."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from exml_lightning.core.class_statistics import RANK, ClassStatistics
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.features import Features, middle_layer, thumbnail_size
from exml_lightning.core.generators.generator import Progress, no_progress
from exml_lightning.core.generators.unrelated import DRAWINGS
from exml_lightning.core.private_moments import GaussianMechanism, without_noise
from exml_lightning.core.rng import keyed_generator

if TYPE_CHECKING:
    from exml_lightning.core.expert import Expert

LEAST_IMAGES = 20
"""Of each class: fewer are no statistics, and would give single images away."""
HELD_BACK = 0.2
"""Share of the images that the distances of own images are measured on, which the moments have not seen."""
LEAST_DEVIATION = 1e-3
"""Of distances, where images are all alike."""
LEAST_UNIT = 1e-6
"""Of features, where drawings are all alike to a layer."""
NUM_DRAWINGS = 1000
"""Drawings that features are put in units by: whoever has the expert can find these, so they tell nothing of images."""


@torch.no_grad()
def measure(
    expert: "Expert",
    images: Tensor,
    columns: Tensor,
    mechanism: GaussianMechanism | None = None,
    progress: Progress = no_progress,
) -> ClassStatistics:
    """Measure the statistics of an expert's classes on images of them.

    Args:
        expert: The expert; images are shown to it on its device.
        images: Pixels, uint8 ``(n, channels, height, width)``, of the size that `expert.image_format` says.
        columns: The place of each image's class among the expert's, int64 ``(n,)``.
        mechanism: Adds the noise of a differentially private release; None for none.
        progress: Called with the images shown to the expert since the last call; `NUM_DRAWINGS` more than there are.

    Returns:
        The statistics, on the CPU.

    Raises:
        ExmlError: If a class has fewer than `LEAST_IMAGES` images, the layer sees no single images, or it is given NaN.
    """
    counts = check_counts(expert.name, columns, expert.classes.tolist())
    look, to_input = Features(expert, layer := middle_layer(expert)), expert.image_format.to_input

    def features(pixels: Tensor) -> Tensor:
        parts = []
        for chunk in pixels.split(expert.chunk):
            shown = to_input(chunk.to(expert.classes.device))
            with look():
                expert(shown)
                parts.append(look.pop(shown).cpu())
            progress(float(len(chunk)))
        return torch.cat(parts)

    drawings = DRAWINGS.draw(NUM_DRAWINGS, expert.image_format.shape, keyed_generator("units"), torch.device("cpu"))
    centre, units = _units(features(drawings), math.prod(thumbnail_size(expert.own_format.shape)))
    values = features(images) / units - centre
    if mechanism is None and not values.isfinite().all():
        raise ExmlError(f"{expert.name}: what its layer {layer} is given is NaN or infinite for some images")
    held = _held_back(columns, counts) if mechanism is None else mechanism.held_back(len(images), HELD_BACK)
    rank = min(RANK, *(counts * (1 - HELD_BACK) // 2).int().tolist(), values.shape[1] - 1)
    moments = []
    for column, count in enumerate(counts.tolist()):
        own = values[(columns == column) & ~held].double()
        if mechanism is None:
            mean, covariance, edge = own.mean(dim=0), own.T.cov(correction=0), 0.0
        else:
            mean, covariance, edge = mechanism.moments(own, count * (1 - HELD_BACK))
        moments.append((mean + centre, *_directions(covariance, rank, edge)))
    means, directions, variances, rest = (torch.stack(column).float() for column in zip(*moments, strict=True))
    found = ClassStatistics(layer, units, means, directions, variances, rest, torch.tensor([0.0, 1.0]), counts)
    away = found.log_distance((values[held] + centre) * units).amin(dim=1)
    usual = math.log(values.shape[1]) / 2  # of a Gaussian
    if mechanism is None:
        nearest, deviation = float(away.mean()), float(away.std())
    else:
        nearest, deviation = mechanism.mean_and_deviation(away, usual - 1, usual + 2, len(images) * HELD_BACK)
    return replace(found, distance=torch.tensor([nearest, max(deviation, LEAST_DEVIATION)]))


def check_counts(name: str, columns: Tensor, classes: Sequence[object]) -> Tensor:
    """Return how many images of each class there are; `ExmlError`, which calls the expert `name`, if too few."""
    counts = torch.bincount(columns, minlength=len(classes))
    if int(counts.min()) < LEAST_IMAGES:
        fewest = int(counts.argmin())
        raise ExmlError(
            f"{name}: {int(counts[fewest])} images of its class {classes[fewest]!r}: give {LEAST_IMAGES} or more"
        )
    return counts


def _units(features: Tensor, thumbnail: int) -> tuple[Tensor, Tensor]:
    """Return the centre of features, in units, and these: one for the values of the thumbnail, one for the layer's.

    So that the variance of both parts is 1, summed over their values.
    """
    parts = features.split([thumbnail, features.shape[1] - thumbnail], dim=1)
    units = torch.cat([part.var(dim=0).sum().sqrt().clamp_min(LEAST_UNIT).expand(part.shape[1]) for part in parts])
    return features.mean(dim=0) / units, units


def _held_back(columns: Tensor, counts: Tensor) -> Tensor:
    """Choose `HELD_BACK` of the images of each class, bool ``(n,)``."""
    order = torch.randperm(len(columns), generator=keyed_generator("statistics", len(columns)))
    held = torch.zeros(len(columns), dtype=torch.bool)
    for column, count in enumerate(counts.tolist()):
        own = order[columns[order] == column]
        held[own[: int(HELD_BACK * count)]] = True
    return held


def _directions(covariance: Tensor, rank: int, edge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return the main directions of a covariance matrix, their variances and the variance across them.

    `edge` is the largest eigenvalue that noise alone has.
    """
    found, vectors = torch.linalg.eigh(covariance)
    found, size = without_noise(found.flip(0).clamp_min(0), edge), len(found)
    total = max(float(covariance.trace()), float(found.sum()), 1e-6)  # noise has none, on average
    rest = (total - found[:rank].sum()).clamp_min(0) / (size - rank) + 0.01 * total / size
    return vectors.flip(1).T[:rank], found[:rank].maximum(rest), rest
