"""What an expert saw of each class, in a few moments: own images are told from others by them, and images made."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from exml_lightning.core.features import Features

if TYPE_CHECKING:
    from exml_lightning.core.expert import Expert

RANK = 64
"""Directions that are kept of a class, at most; and at most half as many as it has images."""


@dataclass(frozen=True)
class ClassStatistics:
    """Mean, main directions and variances of features of images, for each class of an expert.

    Not in the paper. A Gaussian for each class, as in probabilistic PCA (Tipping and Bishop 1999): variance `variances`
    along `directions` and `rest` across them. `distance` says how far own images are from the nearest one. All are of
    features divided by `units`.

    Args:
        layer: Dotted name of the layer in the expert's network that `Features` looks at.
        units: What each feature is divided by, float32 ``(values,)``, more than 0.
        means: Float32 ``(classes, values)``, in the order of the expert's classes.
        directions: Orthonormal rows, float32 ``(classes, rank, values)``.
        variances: Float32 ``(classes, rank)``, more than 0.
        rest: Float32 ``(classes,)``, more than 0.
        distance: Mean and standard deviation of `log_distance` to the nearest class, over held-back own images, float32
            ``(2,)``; the second more than 0.
        images: How many images of each class were measured, int64 ``(classes,)``.
    """

    layer: str
    units: Tensor
    means: Tensor
    directions: Tensor
    variances: Tensor
    rest: Tensor
    distance: Tensor
    images: Tensor

    def to(self, device: torch.device) -> "ClassStatistics":
        """Return the statistics on `device`."""
        return ClassStatistics(self.layer, **{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors by name."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name != "layer"}

    def log_distance(self, features: Tensor) -> Tensor:
        """Compute the logarithm of the Mahalanobis distance to each class, ``(n, classes)``.

        `features` are float32 ``(n, values)``, of `Features`.
        """
        squared = []
        with torch.autocast(features.device.type, enabled=False):  # squares overflow in half precision
            values = features.float() / self.units
            for mean, directions, variances, rest in zip(
                self.means, self.directions, self.variances, self.rest, strict=True
            ):  # one class at a time: of all, the differences would take too much memory
                away = values - mean
                along = (away @ directions.T).square()
                across = (away.square().sum(dim=1) - along.sum(dim=1)).clamp_min(0)
                squared.append((along / variances).sum(dim=1) + across / rest)
        return torch.stack(squared, dim=1).clamp(1e-12, 1e30).log() / 2

    def strangeness(self, features: Tensor) -> Tensor:
        """Say how much farther away from the nearest class images are than own ones, in standard deviations: ``(n,)``.

        Own images have about 0.
        """
        mean, deviation = self.distance
        nearest: Tensor = self.log_distance(features).amin(dim=1)
        strangeness: Tensor = (nearest - mean) / deviation
        return strangeness

    def sample(self, columns: Tensor, generator: torch.Generator) -> Tensor:
        """Draw features of images of classes: float32 ``(n, values)``, along the main directions.

        `columns` are the places of the classes, int64 ``(n,)``; `generator` is one of the CPU.
        """
        draws = torch.randn(len(columns), self.variances.shape[1], generator=generator).to(self.means.device)
        steps = (draws * self.variances[columns].sqrt())[:, None] @ self.directions[columns]
        return (self.means[columns] + steps[:, 0]) * self.units

    def misfit(self, features: Tensor, wanted: Tensor, columns: Tensor) -> Tensor:
        """Compute the squared distance to the features `wanted`, in units of the class's variance: ``(n,)``.

        Not the Mahalanobis distance: that asks for little along the main directions, where images of a class differ.
        """
        values = self.means.shape[1]
        total = self.variances.sum(dim=1) + (values - self.variances.shape[1]) * self.rest
        squared: Tensor = ((features - wanted) / self.units).square().sum(dim=1)
        return squared / total[columns]


class StatisticsLook:
    """Asks an expert and measures how strange images are to it, by its statistics.

    Args:
        expert: The expert, which has statistics.
    """

    def __init__(self, expert: "Expert") -> None:
        statistics = expert.statistics
        assert statistics is not None
        self._statistics = statistics.to(expert.classes.device)
        self._features = Features(expert, statistics.layer)

    @torch.no_grad()
    def __call__(self, ask: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the answer to normalised images, and how strange each is, float32 ``(n, 1)``."""
        with self._features():
            answers = ask(images)
            return answers, self._statistics.strangeness(self._features.pop(images))[:, None]
