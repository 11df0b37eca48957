"""The mean of the weights of networks, one network at a time."""

from collections.abc import Mapping

import torch
from torch import Tensor


def running_mean(mean: Mapping[str, Tensor], new: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Take one more state dict into a mean (Section 5, Param. Avg.) of `count`, which is not looked at if `count` is 0.

    Returns the mean of ``count + 1``, in tensors of its own. Tensors of integers, such as the number of batches that a
    batch-norm layer has seen, have no mean: they are those of `new`.
    """
    return {
        name: torch.lerp(mean[name], tensor, 1 / (count + 1))
        if count and tensor.is_floating_point()
        else tensor.detach().clone()
        for name, tensor in new.items()
    }
