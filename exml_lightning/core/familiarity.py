"""How familiar an image is to an expert: how much of it the layers take in at all."""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.rng import keyed_generator

Ask = Callable[[Tensor], Tensor]
Layer = nn.Conv2d | nn.Linear


class LayerShares:
    """Measures which share of its input each layer of an expert takes in.

    A layer whose weights W ``(outputs, inputs)`` have fewer rows than columns is blind to what lies in the null space
    of W. Training moves its rows along the inputs it is given; so more of what it was trained on lies in the space of
    these rows than of what it never met. The share of an input's energy there is |P x|^2 / |x|^2, P the projection on
    it. Not in the paper; that null spaces tell outliers is from Cook, Zare and Gader (2020), "Outlier Detection through
    Null Space Analysis of Neural Networks", whose networks are trained for it, unlike these.

    The layers that `layers_that_tell` finds take part; it raises `ExmlError` if there is none. Energies are summed over
    the places of a convolution, over the tokens of an image, and over several calls of a layer.
    """

    def __init__(self, expert: Expert) -> None:
        self._rows: dict[nn.Module, Tensor] = {layer: _orthonormal(layer) for layer in layers_that_tell(expert)}

    @torch.no_grad()
    def __call__(self, ask: Ask, images: Tensor) -> tuple[Tensor, Tensor]:
        """Ask the expert about normalised images, and look at what its layers are given.

        `ask` asks the expert's network, not a compiled one. Returns the answer, and the shares, float32 ``(n, layers)``
        in ``[0, 1]``; 0 for a layer that is not called.
        """
        nothing = torch.zeros(len(images), 1, device=images.device)
        energies = dict.fromkeys(self._rows, (nothing, nothing))

        def look(layer: nn.Module, inputs: Tensor) -> None:
            taken, whole = _taken(layer, self._rows[layer], inputs)
            before = energies[layer]
            energies[layer] = before[0] + _sum(taken, len(images)), before[1] + _sum(whole, len(images))

        answers = _watched(self._rows, look, ask, images)
        return answers, torch.cat([taken / whole.clamp_min(1e-12) for taken, whole in energies.values()], dim=1)


@torch.no_grad()
def layers_that_tell(expert: Expert) -> list[Layer]:
    """Find the layers of which `LayerShares` can be measured, in the network's order; `ExmlError` if there is none.

    These are convolutions and linear layers with fewer outputs than inputs. Left out are such as the network never
    calls, and such as are given something else than images along the first dimension: tokens before images, or a fixed
    table. Asking about three images of noise, together and one by one, finds them.
    """
    candidates = [layer for layer in expert.model.modules() if isinstance(layer, Layer) and _null_space(layer)]
    generator = keyed_generator("familiarity")
    noise = torch.randn(3, *expert.image_format.shape, generator=generator).to(expert.classes.device)
    together = _input_energies(candidates, expert, noise)
    alone = [_input_energies(candidates, expert, image[None]) for image in noise]
    found = [
        layer
        for layer in candidates
        if all(layer in energies for energies in (together, *alone))
        and torch.allclose(together[layer], torch.cat([energies[layer] for energies in alone]), rtol=1e-3)
    ]
    if not found:
        raise ExmlError(
            f"{expert.name} has no convolution or linear layer with fewer outputs than inputs that can be looked at: "
            "nothing says how familiar images are to it; learn it in a run with model.normalize.familiarity 0"
        )
    return found


def _null_space(layer: Layer) -> bool:
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return len(layer.weight) // groups < layer.weight[0].numel()


def _input_energies(layers: list[Layer], expert: Expert, images: Tensor) -> dict[nn.Module, Tensor]:
    found: dict[nn.Module, Tensor] = {}

    def look(layer: nn.Module, inputs: Tensor) -> None:
        energy = inputs.square()
        if len(energy) % len(images):
            found[layer] = torch.full((len(images), 1), torch.nan, device=images.device)
        else:
            found[layer] = found.get(layer, 0) + _sum(energy, len(images))

    _watched(layers, look, expert, images)
    return found


def _watched(
    layers: Iterable[nn.Module], look: Callable[[nn.Module, Tensor], None], ask: Ask, images: Tensor
) -> Tensor:
    """Ask about images, while `look` sees what layers are given, in float32."""

    def hook(layer: nn.Module, inputs: tuple[Tensor, ...], named: dict[str, Tensor], outputs: Tensor) -> None:
        with torch.autocast(images.device.type, enabled=False):  # squares overflow in half precision
            look(layer, (inputs[0] if inputs else named["input"]).float())

    hooks = [layer.register_forward_hook(hook, with_kwargs=True) for layer in layers]
    try:
        return ask(images)
    finally:
        for handle in hooks:
            handle.remove()


def _orthonormal(layer: Layer) -> Tensor:
    """Return an orthonormal basis of the row space of each group, in the shape of the weights; 0 beyond its rank."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    weight = layer.weight.detach()
    rows = weight.reshape(groups, len(weight) // groups, -1).cpu().double()  # not every device has doubles
    values, vectors = torch.linalg.eigh(rows @ rows.mT)
    least = 1e-10 * values.amax(dim=1, keepdim=True).clamp_min(1e-30)
    scale = torch.where(values > least, values.clamp_min(1e-30).rsqrt(), 0)
    basis: Tensor = (vectors * scale[:, None]).mT @ rows
    return basis.reshape(weight.shape).float().to(weight.device)


def _taken(layer: nn.Module, rows: Tensor, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the energy that the rows take in, and all of it."""
    if isinstance(layer, nn.Linear):
        return F.linear(inputs, rows).square(), inputs.square()
    assert isinstance(layer, nn.Conv2d)
    padding = layer.padding
    if layer.padding_mode != "zeros":
        # as torch's Conv2d itself pads; it has no public name
        inputs, padding = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), (0, 0)
    energy = inputs.square().sum(dim=1, keepdim=True)
    ones = energy.new_ones(1, 1, *rows.shape[2:])
    whole = F.conv2d(energy, ones, None, layer.stride, padding, layer.dilation)
    taken = F.conv2d(inputs, rows, None, layer.stride, padding, layer.dilation, layer.groups).square()
    return taken, whole


def _sum(energy: Tensor, images: int) -> Tensor:
    return energy.reshape(images, -1).sum(dim=1, keepdim=True)
