"""What published statistics are about: a thumbnail of an image, and what one layer of an expert sees of it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exml_lightning.core.conversion import InputConversion
from exml_lightning.core.errors import ExmlError

if TYPE_CHECKING:
    from exml_lightning.core.expert import Expert

THUMBNAIL = 12
"""Rows and columns that an image is averaged to."""
MOST_VALUES = 512
"""Values that the input of a layer is pooled to, at most."""


def thumbnail_size(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return channels, height and width of the thumbnail of images of a shape."""
    return shape[0], min(THUMBNAIL, shape[1]), min(THUMBNAIL, shape[2])


class Features:
    """The features of images: the thumbnail's values, then what a layer is given, pooled to at most `MOST_VALUES`.

    Of maps, averages over parts of equal size, as many as there is room for; of tokens, their average. Of a layer that
    is called several times, the first call.

    Args:
        expert: The expert.
        layer: Dotted name of the layer in its network; see `middle_layer`.
    """

    def __init__(self, expert: "Expert", layer: str) -> None:
        self._layer, self._convert = expert.model.get_submodule(layer), expert.convert
        self._size = thumbnail_size(expert.own_format.shape)
        self._seen: Tensor | None = None

    @contextmanager
    def __call__(self) -> Iterator["Features"]:
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

    def pop(self, images: Tensor) -> Tensor:
        """Return the features of the normalised images that the expert was asked about last: float32 ``(n, values)``.

        Those of what the network takes, so that they are the same in a stream of other images. Gradients flow to these.

        Raises:
            ExmlError: If the layer was not called, or was given something else than images along the first dimension.
        """
        seen, self._seen = self._seen, None
        if seen is None or len(seen) != len(images):
            raise ExmlError("its middle layer is not given an image after the other, so nothing can be said of classes")
        if isinstance(self._layer, nn.Linear) and seen.ndim == 4:  # channels come last
            seen = seen.flatten(1, 2)
        thumbnails = F.adaptive_avg_pool2d(self._convert(images.float()), self._size[1:])
        return torch.cat([thumbnails.flatten(1), pool(seen.float())], dim=1)


def pool(activations: Tensor) -> Tensor:
    """Pool activations ``(n, ...)`` to ``(n, values)``; see `Features`."""
    if activations.ndim == 4:
        channels, side = activations.shape[1], min(activations.shape[2:])
        while side > 1 and channels * side**2 > MOST_VALUES:
            side -= 1
        activations = F.adaptive_avg_pool2d(activations, side)
    elif activations.ndim == 3:
        activations = activations.mean(dim=1)
    flat = activations.flatten(1)
    return flat if flat.shape[1] <= MOST_VALUES else F.adaptive_avg_pool1d(flat[:, None], MOST_VALUES)[:, 0]


def enlarge(features: Tensor, expert: "Expert") -> Tensor:
    """Make normalised images of the thumbnails that features ``(n, values)`` begin with, smooth between their values.

    Returns ``(n, *expert.image_format.shape)``.
    """
    own, shown = expert.own_format, expert.image_format
    channels, height, width = thumbnail_size(own.shape)
    small = features[:, : channels * height * width].unflatten(1, (channels, height, width))
    images = F.interpolate(small, size=own.shape[1:], mode="bicubic", align_corners=False)
    return images if own == shown else InputConversion(own, shown).to(images.device)(images)


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
