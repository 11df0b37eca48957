"""The order in which weights and activations lie in memory, which decides how fast convolutions are."""

from copy import deepcopy

import torch
from torch import Tensor, nn

from exml_lightning.core.rng import keyed_generator


def fast_layout(network: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """Let a network work with the channels of a pixel side by side (`torch.channels_last`), if it can.

    The network, on the CPU, is changed in place and returned in the mode it was in. Its answers stay the same but for
    rounding, its state dict as well. Narrow convolutions on a CPU are up to twice as fast so (docs/performance.md). A
    network whose code relies on the other order, in eval or in train mode (``view`` on feature maps), keeps that; so
    does one with convolutions from and to few channels, which crash in torch 2.14. `shape` is that of its images:
    channels, height and width.
    """
    if any(isinstance(layer, nn.Conv2d) and _crashes(layer) for layer in network.modules()):
        return network
    mode = network.training
    images = torch.randn(2, *shape, generator=keyed_generator("layout"))
    network.eval()
    try:
        before = _answer(network, images)
        try:
            after = _answer(network.to(memory_format=torch.channels_last), images)
            _answer(deepcopy(network).train(), images)
        except Exception:  # anyone's code: `view`, weights that have no channels
            after = torch.full_like(before, torch.nan)
        if not (after - before).abs().max() <= 1e-3 * before.abs().max():
            network.to(memory_format=torch.contiguous_format)
    finally:
        network.train(mode)
    return network


def _crashes(layer: nn.Conv2d) -> bool:
    """Whether its gradients corrupt memory in torch 2.14.1 on a CPU with AVX2 (oneDNN 3.12), as was seen."""
    return 1 < layer.in_channels < 8 and layer.out_channels < 8


def _answer(network: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        answer: Tensor = network(images)
    return answer
