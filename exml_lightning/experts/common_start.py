"""What the training of experts seems to have begun with, where their manifest does not say."""

from pathlib import Path

import torch
from torch import Tensor

from exml_lightning.core.averaging import running_mean
from exml_lightning.core.expert import Expert
from exml_lightning.experts.manifest import Manifest
from exml_lightning.experts.weights import load_weights

ALIKE = 0.1
"""Least cosine between the weights of an expert and the mean of the others', if they began with the same.

It is 0 but for chance where networks began with weights of their own; experts of split_fashion, split_mnist and
split_digits had 0.69 to 0.94.
"""


class CommonStart:
    """The mean of the weights of the experts of one architecture, which is near what all of them began with.

    Each file is read once, when the first of these experts is asked about; the mean is kept.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder, self._manifest = folder, manifest
        self._means: dict[int, tuple[dict[str, Tensor], int] | None] = {}

    @torch.no_grad()
    def of(self, expert: Expert) -> dict[str, Tensor] | None:
        """Return the mean, on the CPU; None for an expert that is alone with its architecture, or began elsewhere."""
        found = self._mean(expert.experience)
        if found is None:
            return None
        mean, count = found
        own = torch.cat([tensor.flatten().cpu() for tensor in expert.model.parameters()])
        others = count * torch.cat([mean[name].flatten() for name, _ in expert.model.named_parameters()]) - own
        return mean if float(torch.cosine_similarity(own, others, dim=0)) > ALIKE else None

    def _mean(self, index: int) -> tuple[dict[str, Tensor], int] | None:
        if index not in self._means:
            entries, skeleton = self._manifest.experts, self._manifest.experts[index].architecture.skeleton()
            alike = [k for k, entry in enumerate(entries) if entry.architecture.skeleton() == skeleton]
            mean: dict[str, Tensor] = {}
            count = 0
            for k in alike if len(alike) > 1 else []:
                if entries[k].path(self._folder).is_file():  # one that was learned before may be gone
                    network = skeleton.empty((entries[k].input or self._manifest.input).shape)
                    load_weights(network, entries[k].path(self._folder), entries[k].weights)
                    mean, count = running_mean(mean, network.state_dict(), count), count + 1
            self._means.update(dict.fromkeys(alike, (mean, count) if count > 1 else None))
        return self._means[index]
