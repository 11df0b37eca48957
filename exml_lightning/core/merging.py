"""Networks of one architecture put together, layer by layer, by what training changed of each."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from exml_lightning.core.averaging import running_mean

OFF_DIAGONAL = 0.2
"""What is left of the off-diagonal of a Gram matrix (docs/baselines.md has what more and less of it give)."""
RIDGE = 1e-6
"""The least weight of an input, as a share of the mean input's: none is left without a mean."""
MAX_INPUTS = 1500
"""Of a layer with more, Gram matrices are diagonals: a whole one would be kept in every checkpoint."""


@dataclass
class Merge:
    """One network made of many, which come one at a time.

    RegMean (Jin et al. 2023, "Dataless Knowledge Fusion by Merging Weights of Language Models") chooses the weights of
    a layer that answer most nearly as each network does on its own inputs: W = (sum W_i G_i) (sum G_i)^-1, with G_i the
    Gram matrix of the layer's inputs in network i. Here nobody has inputs. But training moves the rows of W_i along the
    inputs it is given; so the Gram matrix of what it changed stands for theirs: G_i = D_i^T D_i, D_i = W_i - c W_0, W_0
    the weights before training and c the projection of W_i on them. It is divided by the mean of its diagonal, so that
    a network that was moved further counts no more, and four fifths of its off-diagonal are left out.

    Linear layers and two-dimensional convolutions (each group by itself) are put together so, the bias as the weight of
    one more input. All else, batch norm with its statistics as well, is the mean of the networks'.

    It holds running sums only, in the type of the weights: `vars` of it can be saved, and given again.
    """

    count: int = 0
    mean: dict[str, Tensor] = field(default_factory=dict)
    weighted: dict[str, Tensor] = field(default_factory=dict)
    """For each layer sum W_i G_i, ``(outputs, inputs)``, inputs those of a group."""
    grams: dict[str, Tensor] = field(default_factory=dict)
    """For each layer sum G_i, ``(groups, inputs, inputs)``, or only the diagonals, ``(groups, 1, inputs)``."""

    @torch.no_grad()
    def add(self, network: nn.Module, initial: Mapping[str, Tensor] | None) -> None:
        """Take one more network into the sums.

        `initial` is the state dict of W_0; where it is None, W_i itself stands for what training changed. The network
        may have more units of classes than those before: these count as 0 in theirs.
        """
        state = network.state_dict()
        mean = {name: _grown(tensor, state[name]) for name, tensor in self.mean.items()}
        self.mean = running_mean(mean, state, self.count)
        self.count += 1
        for name, layer in network.named_modules(remove_duplicate=False):  # a layer that is used twice has two names
            if not isinstance(layer, nn.Conv2d | nn.Linear) or f"{name}.weight" not in state:
                continue
            groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
            rows = _rows(name, state, groups)
            gram = _gram(rows if initial is None else _change(rows, _rows(name, initial, groups)))
            weighted = (rows @ gram if _is_square(gram) else rows * gram).flatten(0, 1)
            for sums, new in ((self.weighted, weighted.to(layer.weight)), (self.grams, gram.to(layer.weight))):
                sums[name] = new if name not in sums else _grown(sums[name], new) + new

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """Return the state dict of the one network, in tensors of its own; that of a single network as it is."""
        merged = {name: tensor.clone() for name, tensor in self.mean.items()}
        for name, sums in self.grams.items() if self.count > 1 else ():
            gram, weighted = sums.cpu().double(), self.weighted[name].cpu().double()
            weighted = weighted.reshape(len(gram), -1, gram.shape[2])
            rows = torch.linalg.solve(gram, weighted, left=False) if _is_square(gram) else weighted / gram
            rows, weight = rows.flatten(0, 1), merged[f"{name}.weight"]
            inputs = weight[0].numel()
            weight.copy_(rows[:, :inputs].reshape(weight.shape))
            if f"{name}.bias" in merged:
                merged[f"{name}.bias"].copy_(rows[:, inputs])
        return merged


def _rows(name: str, state: Mapping[str, Tensor], groups: int) -> Tensor:
    """Return weights and bias as float64 ``(groups, outputs, inputs)``, on the CPU, as not every device has doubles."""
    weight, bias = state[f"{name}.weight"], state.get(f"{name}.bias")
    columns = [weight.flatten(1)] if bias is None else [weight.flatten(1), bias[:, None]]
    return torch.cat(columns, dim=1).cpu().double().reshape(groups, len(weight) // groups, -1)


def _change(rows: Tensor, initial: Tensor) -> Tensor:
    """Return what is not initial weights, however much weight decay has left of these."""
    return rows - (rows * initial).sum() / initial.square().sum().clamp_min(1e-30) * initial


def _gram(change: Tensor) -> Tensor:
    diagonal = change.square().sum(dim=1)
    scale = diagonal.mean().clamp_min(1e-30)
    if change.shape[2] > MAX_INPUTS:
        return (diagonal / scale + RIDGE)[:, None]
    gram = OFF_DIAGONAL * change.mT @ change + torch.diag_embed((1 - OFF_DIAGONAL) * diagonal)
    return gram / scale + RIDGE * torch.eye(change.shape[2], dtype=gram.dtype)


def _is_square(gram: Tensor) -> bool:
    return gram.shape[1] == gram.shape[2]


def _grown(sums: Tensor, new: Tensor) -> Tensor:
    """Return sums on the device of what is to be added to them, with rows of zeros where they have fewer."""
    sums = sums.to(new.device)
    return sums if sums.shape == new.shape else F.pad(sums, [0, 0] * (new.ndim - 1) + [0, len(new) - len(sums)])
