"""How familiar an image is to an expert: how much of it the layers take in at all."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert

Ask = Callable[[Tensor], Tensor]
Energies = tuple[Tensor, Tensor]


class LayerShares:
    """Measures which share of its input each layer of an expert takes in.

    A layer whose weights W ``(outputs, inputs)`` have fewer rows than columns is blind to what lies in the null space
    of W. Training moves its rows along the inputs it is given; so more of what it was trained on lies in the space of
    these rows than of what it never met. The share of an input's energy there is |P x|^2 / |x|^2, P the projection on
    it. Not in the paper; that null spaces tell outliers is from Cook, Zare and Gader (2020), "Outlier Detection through
    Null Space Analysis of Neural Networks", whose networks are trained for it, unlike these.

    Convolutions and linear layers with fewer outputs than inputs take part. Energies are summed over the places of a
    convolution, over the tokens of an image, and over several calls of a layer.

    Args:
        expert: The expert. Its linear layers are given images, or groups of an image's tokens, along the first
            dimension.

    Raises:
        ExmlError: If it has no such layer.
    """

    def __init__(self, expert: Expert) -> None:
        self._rows: dict[nn.Module, Tensor] = {}
        for layer in expert.model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
                weights = layer.weight.detach().reshape(groups, len(layer.weight) // groups, -1)
                if weights.shape[1] < weights.shape[2]:
                    self._rows[layer] = _orthonormal(weights).reshape(layer.weight.shape)
        blank = torch.zeros(1, *expert.image_format.shape, device=expert.classes.device)
        asked = self._energies(expert, blank)[1]
        self._rows = {layer: rows for layer, rows in self._rows.items() if layer in asked}
        if not self._rows:
            raise ExmlError(
                f"{expert.name} has no convolution or linear layer with fewer outputs than inputs: nothing says how "
                "familiar images are to it; learn it in a run with model.familiarity 0"
            )

    def __len__(self) -> int:
        return len(self._rows)

    @torch.no_grad()
    def __call__(self, ask: Ask, images: Tensor) -> tuple[Tensor, Tensor]:
        """Ask the expert, and look at what its layers are given.

        Args:
            ask: Asks the network of the expert, not a compiled one.
            images: Normalised images, ``(n, channels, height, width)``.

        Returns:
            What `ask` returns, and the shares, float32 ``(n, layers)`` in ``[0, 1]``.
        """
        answers, energies = self._energies(ask, images)
        pairs = [energies[layer] for layer in self._rows]
        return answers, torch.cat([taken / whole.clamp_min(1e-12) for taken, whole in pairs], dim=1)

    def _energies(self, ask: Ask, images: Tensor) -> tuple[Tensor, dict[nn.Module, Energies]]:
        energies: dict[nn.Module, Energies] = {}

        def look(layer: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
            with torch.autocast(images.device.type, enabled=False):  # squares overflow in half precision
                taken, whole = _taken(layer, self._rows[layer], inputs[0].float())
            before = energies.get(layer, (0, 0))
            energies[layer] = before[0] + _sum(taken, len(images)), before[1] + _sum(whole, len(images))

        hooks = [layer.register_forward_hook(look) for layer in self._rows]
        try:
            return ask(images), energies
        finally:
            for hook in hooks:
                hook.remove()


def _orthonormal(weights: Tensor) -> Tensor:
    """Return an orthonormal basis of the row space of each group, ``(groups, outputs, inputs)``; 0 beyond its rank."""
    rows = weights.double()
    values, vectors = torch.linalg.eigh(rows @ rows.mT)
    least = 1e-10 * values.amax(dim=1, keepdim=True).clamp_min(1e-30)
    scale = torch.where(values > least, values.clamp_min(1e-30).rsqrt(), 0)
    basis: Tensor = (vectors * scale[:, None]).mT @ rows
    return basis.float()


def _taken(layer: nn.Module, rows: Tensor, inputs: Tensor) -> Energies:
    """Return the energy that the rows take in, and all of it."""
    if isinstance(layer, nn.Linear):
        return F.linear(inputs, rows).square(), inputs.square()
    assert isinstance(layer, nn.Conv2d)
    padding = layer.padding
    if layer.padding_mode != "zeros":
        inputs, padding = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), (0, 0)
    energy = inputs.square().sum(dim=1, keepdim=True)
    ones = energy.new_ones(1, 1, *rows.shape[2:])
    whole = F.conv2d(energy, ones, None, layer.stride, padding, layer.dilation)
    taken = F.conv2d(inputs, rows, None, layer.stride, padding, layer.dilation, layer.groups).square()
    return taken, whole


def _sum(energy: Tensor, images: int) -> Tensor:
    return energy.reshape(images, -1).sum(dim=1, keepdim=True)
