"""What one layer of an expert saw of each class, in a few moments, which tell own images from others."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.rng import keyed_generator

if TYPE_CHECKING:
    from exml_lightning.core.expert import Expert

RANK = 64
"""Directions that are kept of a class, at most; and at most half as many as it has images."""
MOST_VALUES = 512
"""Values that the activations of an image are pooled to, at most."""
LEAST_IMAGES = 20
"""Of each class: fewer are no statistics, and would give single images away."""
HELD_BACK = 0.2
"""Share of the images that the distances of own images are measured on, which the moments have not seen."""


@dataclass(frozen=True)
class ClassStatistics:
    """Mean, main directions and variances of the pooled input of a layer, for each class of an expert.

    Not in the paper. A Gaussian for each class, as in probabilistic PCA (Tipping and Bishop 1999): variance `variances`
    along `directions` and `rest` across them. `distance` says how far own images are from the nearest one.

    Args:
        layer: Dotted name of the layer in the expert's network; see `middle_layer`.
        means: Float32 ``(classes, values)``, in the order of the expert's classes.
        directions: Orthonormal rows, float32 ``(classes, rank, values)``.
        variances: Float32 ``(classes, rank)``, more than 0.
        rest: Float32 ``(classes,)``, more than 0.
        distance: Mean and standard deviation of `log_distance` to the nearest class, over held-back own images, float32
            ``(2,)``; the second more than 0.
        images: How many images of each class were measured, int64 ``(classes,)``.
    """

    layer: str
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

    def log_distance(self, activations: Tensor) -> Tensor:
        """Compute the logarithm of the Mahalanobis distance to each class, ``(n, classes)``.

        `activations` are float32 ``(n, values)``, as `Watch` pools them.
        """
        squared = []
        with torch.autocast(activations.device.type, enabled=False):  # squares overflow in half precision
            for mean, directions, variances, rest in zip(
                self.means, self.directions, self.variances, self.rest, strict=True
            ):  # one class at a time: of all, the differences would take too much memory
                away = activations.float() - mean
                along = (away @ directions.T).square()
                across = (away.square().sum(dim=1) - along.sum(dim=1)).clamp_min(0)
                squared.append((along / variances).sum(dim=1) + across / rest)
        return torch.stack(squared, dim=1).clamp_min(1e-12).log() / 2

    def strangeness(self, activations: Tensor) -> Tensor:
        """Say how much farther away from the nearest class images are than own ones, in standard deviations: ``(n,)``.

        Own images have about 0.
        """
        mean, deviation = self.distance
        nearest: Tensor = self.log_distance(activations).amin(dim=1)
        strangeness: Tensor = (nearest - mean) / deviation
        return strangeness

    def sample(self, columns: Tensor, generator: torch.Generator) -> Tensor:
        """Draw activations of classes: float32 ``(n, values)``, along the main directions.

        `columns` are the places of the classes, int64 ``(n,)``; `generator` is one of the CPU.
        """
        draws = torch.randn(len(columns), self.variances.shape[1], generator=generator).to(self.means.device)
        steps = (draws * self.variances[columns].sqrt())[:, None] @ self.directions[columns]
        return self.means[columns] + steps[:, 0]

    def misfit(self, activations: Tensor, wanted: Tensor, columns: Tensor) -> Tensor:
        """Compute the squared distance to the activations `wanted`, in units of the class's variance: ``(n,)``.

        Not the Mahalanobis distance: that asks for little along the main directions, where images of a class differ.
        """
        values = self.means.shape[1]
        total = self.variances.sum(dim=1) + (values - self.variances.shape[1]) * self.rest
        squared: Tensor = (activations - wanted).square().sum(dim=1)
        return squared / total[columns]


class Watch:
    """Sees what a layer is given, pooled to at most `MOST_VALUES` values an image.

    Of maps, averages over parts of equal size, as many as there is room for; of tokens, their average. Of a layer that
    is called several times, the first call.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: nn.Module) -> None:
        self._layer = layer
        self._seen: Tensor | None = None

    @contextmanager
    def __call__(self) -> Iterator["Watch"]:
        """Look on, within the context."""

        def look(layer: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            if self._seen is None:
                self._seen = inputs[0] if inputs else named["input"]

        self._seen = None
        handle = self._layer.register_forward_pre_hook(look, with_kwargs=True)
        try:
            yield self
        finally:
            handle.remove()
            self._seen = None

    def pop(self, images: int) -> Tensor:
        """Return the pooled activations of the last call with so many images, float32 ``(images, values)``.

        Raises:
            ExmlError: If the layer was not called, or was given something else than images along the first dimension.
        """
        seen, self._seen = self._seen, None
        if seen is None or len(seen) != images:
            raise ExmlError("its middle layer is not given an image after the other, so nothing can be said of classes")
        if isinstance(self._layer, nn.Linear) and seen.ndim == 4:  # channels come last
            seen = seen.flatten(1, 2)
        return pool(seen.float())


def pool(activations: Tensor) -> Tensor:
    """Pool activations ``(n, ...)`` to ``(n, values)``; see `Watch`."""
    if activations.ndim == 4:
        channels, side = activations.shape[1], min(activations.shape[2:])
        while side > 1 and channels * side**2 > MOST_VALUES:
            side -= 1
        activations = F.adaptive_avg_pool2d(activations, side)
    elif activations.ndim == 3:
        activations = activations.mean(dim=1)
    flat = activations.flatten(1)
    return flat if flat.shape[1] <= MOST_VALUES else F.adaptive_avg_pool1d(flat[:, None], MOST_VALUES)[:, 0]


def middle_layer(expert: "Expert") -> str:
    """Find the layer whose input tells most: the middle one of convolutions and linear layers, as they are called.

    Returns its dotted name in the expert's network. Chosen on split_mnist, split_fashion and split_cifar10
    (docs/notebook_of_trials.md): of LeNet5 the third of five, of the slim ResNet18 the eleventh of twenty-one.

    Raises:
        ExmlError: If the network has no such layer.
    """
    called: list[nn.Module] = []
    handles = [
        layer.register_forward_pre_hook(lambda layer, _: called.append(layer))
        for layer in expert.model.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear)
    ]
    try:
        with torch.no_grad():
            expert(torch.zeros(1, *expert.image_format.shape, device=expert.classes.device))
    finally:
        for handle in handles:
            handle.remove()
    order = list(dict.fromkeys(called))
    if not order:
        raise ExmlError(f"{expert.name} has no convolution and no linear layer to look into")
    names: dict[nn.Module, str] = {layer: name for name, layer in expert.model.named_modules()}
    return names[order[len(order) // 2]]


@torch.no_grad()
def measure(expert: "Expert", images: Tensor, columns: Tensor) -> ClassStatistics:
    """Measure the statistics of an expert's classes on images of them.

    Args:
        expert: The expert; images are shown to it on its device.
        images: Pixels, uint8 ``(n, channels, height, width)``, of the size that `expert.image_format` says.
        columns: The place of each image's class among the expert's, int64 ``(n,)``.

    Returns:
        The statistics, on the CPU.

    Raises:
        ExmlError: If a class has fewer than `LEAST_IMAGES` images, or the layer sees no single images.
    """
    counts = torch.bincount(columns, minlength=len(expert.classes))
    if int(counts.min()) < LEAST_IMAGES:
        raise ExmlError(f"{expert.name}: {int(counts.min())} images of one of its classes: give {LEAST_IMAGES} or more")
    layer = middle_layer(expert)
    watch, parts = Watch(expert.model.get_submodule(layer)), []
    for chunk in images.split(expert.chunk):
        with watch():
            expert(expert.image_format.to_input(chunk.to(expert.classes.device)))
            parts.append(watch.pop(len(chunk)).cpu())
    activations = torch.cat(parts)
    order = torch.randperm(len(images), generator=keyed_generator("statistics", len(images)))
    held = torch.zeros(len(images), dtype=torch.bool)
    for column in range(len(counts)):
        own = order[columns[order] == column]
        held[own[: int(HELD_BACK * len(own))]] = True
    each = [activations[(columns == column) & ~held] for column in range(len(counts))]
    rank = min(RANK, *(len(values) // 2 for values in each), max(activations.shape[1] - 1, 1))
    moments = [_moments(values, rank) for values in each]
    means, directions, variances, rest = (torch.stack(column) for column in zip(*moments, strict=True))
    found = ClassStatistics(layer, means, directions, variances, rest, torch.tensor([0.0, 1.0]), counts)
    away = found.log_distance(activations[held]).amin(dim=1)
    found.distance.copy_(torch.stack([away.mean(), away.std().clamp_min(1e-3)]))
    return found


def _moments(activations: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return mean, directions, variances and the variance across them of the activations of a class."""
    values = activations.double()
    mean, size = values.mean(dim=0), values.shape[1]
    away = values - mean
    found, vectors = torch.linalg.eigh(away.T @ away / len(values))
    variances, directions = found.flip(0).clamp_min(0), vectors.flip(1).T
    average = variances.mean().clamp_min(1e-8)  # a class whose images are all alike
    rest = (variances[rank:].mean() if size > rank else variances.new_zeros(())) + 0.01 * average
    kept = variances[:rank].maximum(rest)
    return mean.float(), directions[:rank].float(), kept.float(), rest.float()


class StatisticsLook:
    """Asks an expert and measures how strange images are to it, by its statistics.

    Args:
        expert: The expert, which has statistics.
    """

    def __init__(self, expert: "Expert") -> None:
        statistics = expert.statistics
        assert statistics is not None
        self._statistics = statistics.to(expert.classes.device)
        self._watch = Watch(expert.model.get_submodule(statistics.layer))

    @torch.no_grad()
    def __call__(self, ask: Callable[[Tensor], Tensor], images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the answer to normalised images, and how strange each is, float32 ``(n, 1)``."""
        with self._watch():
            answers = ask(images)
            return answers, self._statistics.strangeness(self._watch.pop(len(images)))[:, None]
