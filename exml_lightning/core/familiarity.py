"""How familiar an image is to an expert: how much of it the layers take in by what training changed in them."""

import copy
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from exml_lightning.core.expert import Expert
from exml_lightning.core.rng import keyed_generator

Ask = Callable[[Tensor], Tensor]
Layer = nn.Conv2d | nn.Linear


class LayerShares:
    """Measures which share of its input each layer of an expert takes in by what training changed.

    Training moves the rows of a layer's weights W ``(outputs, inputs)`` along the inputs it is given; so more of what
    it was trained on lies in the space of the change D = W - c W0 than of what it never met. W0 are the weights that
    training began with and c = <W, W0> / <W0, W0>, since weight decay shrinks them. The share of an input's
    energy there is |P x|^2 / |x|^2, P the projection on the rows of D. Not in the paper; that null spaces
    tell outliers is from Cook, Zare and Gader (2020), "Outlier Detection through Null Space Analysis of Neural
    Networks", whose networks are trained for it, unlike these.

    A layer counts by the smaller one of the two dimensions that its share compares: that of the space of the change,
    and that of what it is blind to. The layers that `layers_that_tell` finds take part. Energies are summed over the
    places of a convolution, over the tokens of an image, and over several calls of a layer.

    W0 are the weights that the expert began with; where nothing is known of them, D = W.
    """

    def __init__(self, expert: Expert) -> None:
        names = {module: name for name, module in expert.model.named_modules()}
        self._probes: dict[nn.Module, tuple[nn.Module, nn.Module]] = {}
        initial, weights = expert.began_with(), []
        for layer in layers_that_tell(expert):
            origin = None if initial is None else initial[f"{names[layer]}.weight"]
            rows, rank = _changed_rows(layer, origin)
            self._probes[layer] = _probe(layer, rows), _probe(layer, torch.ones_like(layer.weight[: _groups(layer)]))
            inputs = _groups(layer) * layer.weight[0].numel()
            weights.append(float(min(rank, inputs - rank)))
        self.weights = torch.tensor(weights, device=expert.classes.device)
        """How much each layer counts, float32 ``(layers,)``, 0 or more."""

    def __len__(self) -> int:
        return len(self._probes)

    @torch.no_grad()
    def __call__(self, ask: Ask, images: Tensor) -> tuple[Tensor, Tensor]:
        """Ask the expert about normalised images, and look at what its layers are given.

        `ask` asks the expert's network, not a compiled one. Returns the answer, and the shares, float32 ``(n, layers)``
        in ``[0, 1]``; 0 for a layer that is not called.
        """
        nothing = torch.zeros(len(images), 1, device=images.device)
        energies = dict.fromkeys(self._probes, (nothing, nothing))

        def look(layer: nn.Module, inputs: Tensor) -> None:
            rows, ones = self._probes[layer]
            before = energies[layer]
            # by the layer's own forward, which may pad as no attribute of it says
            taken, whole = rows.forward(inputs).square(), ones.forward(inputs.square())
            energies[layer] = before[0] + _sum(taken, len(images)), before[1] + _sum(whole, len(images))

        answers = _watched(self._probes, look, ask, images)
        shares = [taken / whole.clamp_min(1e-12) for taken, whole in energies.values()]
        return answers, torch.cat([torch.empty(len(images), 0, device=images.device), *shares], dim=1)


@torch.no_grad()
def layers_that_tell(expert: Expert) -> list[Layer]:
    """Find the layers of which `LayerShares` can be measured, in the network's order; there may be none.

    These are convolutions and linear layers with fewer outputs than inputs. Left out are such as the network never
    calls, and such as are given something else than images along the first dimension: tokens before images, or a fixed
    table. Asking about three images of noise, together and one by one, finds them. A network with batch norm has none:
    what is left of an image behind it tells experts apart no longer (docs/notebook_of_trials.md).
    """
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in expert.model.modules()):
        return []
    candidates = [layer for layer in expert.model.modules() if isinstance(layer, Layer) and _null_space(layer)]
    generator = keyed_generator("familiarity")
    noise = torch.randn(3, *expert.image_format.shape, generator=generator).to(expert.classes.device)
    together = _input_energies(candidates, expert, noise)
    alone = [_input_energies(candidates, expert, image[None]) for image in noise]
    return [
        layer
        for layer in candidates
        if all(layer in energies for energies in (together, *alone))
        and torch.allclose(together[layer], torch.cat([energies[layer] for energies in alone]), rtol=1e-3)
    ]


def _groups(layer: Layer) -> int:
    return layer.groups if isinstance(layer, nn.Conv2d) else 1


def _null_space(layer: Layer) -> bool:
    return len(layer.weight) // _groups(layer) < layer.weight[0].numel()


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


def _changed_rows(layer: Layer, initial: Tensor | None) -> tuple[Tensor, int]:
    """Return an orthonormal basis of the change of each group, in the shape of the weights, and its dimension.

    Where the change has fewer directions than rows, the other rows are 0.
    """
    weight, groups = layer.weight.detach(), _groups(layer)
    change = weight.cpu().double()  # not every device has doubles
    if initial is not None:
        origin = initial.cpu().double()
        change = change - (change * origin).sum() / origin.square().sum().clamp_min(1e-30) * origin
    _, values, vectors = torch.linalg.svd(change.reshape(groups, len(weight) // groups, -1), full_matrices=False)
    there = values > 1e-5 * values.amax(dim=1, keepdim=True).clamp_min(1e-30)
    rows = torch.where(there[:, :, None], vectors, 0)
    return rows.reshape(weight.shape).float().to(weight.device), int(there.sum())


def _probe(layer: Layer, weight: Tensor) -> nn.Module:
    """Copy a layer, with other rows and no bias, whose `forward` does what the layer's does."""
    probe = copy.copy(layer)
    probe._parameters = {"weight": nn.Parameter(weight.float(), requires_grad=False), "bias": None}
    return probe


def _sum(energy: Tensor, images: int) -> Tensor:
    return energy.reshape(images, -1).sum(dim=1, keepdim=True)
