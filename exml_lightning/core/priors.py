"""Natural image priors (Section 4.1), which pull float images ``(n, channels, height, width)`` towards real ones."""

from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.hooks import RemovableHandle


def l2_norm(images: Tensor) -> Tensor:
    """Squared L2 norm of each image, ``(n,)`` (Section 4.1, L2 norm penalization)."""
    return images.square().sum(dim=(1, 2, 3))


def blur(images: Tensor) -> Tensor:
    """Squared distance of each image to its Gaussian blur, ``(n,)`` (Section 4.1, Blur).

    The kernel is the 3x3 binomial one, (1, 2, 1) by (1, 2, 1) over 16; the border is repeated.
    """
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    # Shifted sums: on a CPU, several times faster than a convolution with one channel a group.
    rows = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    blurred = (rows[..., :-2] + 2 * rows[..., 1:-1] + rows[..., 2:]) / 16
    return (images - blurred).square().sum(dim=(1, 2, 3))


def total_variation(images: Tensor) -> Tensor:
    """Sum of squared differences of an image's neighbouring pixels, ``(n,)`` (Mahendran and Vedaldi 2014, beta 2)."""
    down = (images[:, :, 1:] - images[:, :, :-1]).square().sum(dim=(1, 2, 3))
    right = (images[:, :, :, 1:] - images[:, :, :, :-1]).square().sum(dim=(1, 2, 3))
    return down + right


_EPSILON = 1e-5
"""Keeps the inverse deviation of a channel that is constant finite."""


class _Distance(torch.autograd.Function):
    """Squared distance of the means and variances of channels to given ones.

    By hand, since the gradient is one line and autograd's goes through the activations many times.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
        # The statistics that batch norm computes in train mode come from one pass, in any memory format.
        _, means, inverse = torch.native_batch_norm(values, None, None, None, None, True, 0.0, _EPSILON)
        mean_distance, variance_distance = means - mean, inverse.pow(-2) - _EPSILON - variance
        ctx.save_for_backward(values, means, mean_distance, variance_distance)
        return mean_distance.square().sum() + variance_distance.square().sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        values, means, mean_distance, variance_distance = ctx.saved_tensors
        share = gradient * means.numel() / values.numel()  # of one value in the mean of its channel
        slope = 4 * share * variance_distance
        offset = 2 * share * mean_distance - slope * means
        along = [-1, *[1] * (values.ndim - 2)]
        return torch.addcmul(offset.view(along), values, slope.view(along)), None, None


class BatchNormStatistics:
    """Distance of a batch to the statistics that batch-norm layers recorded (Section 4.1; Yin et al. 2020).

    A context manager: inside it, each forward pass of `model`, which should be in eval mode, adds, for **every**
    batch-norm layer that tracks statistics, the squared distances of the mean and of the variance of its input to its
    running ones.
    """

    def __init__(self, model: nn.Module) -> None:
        # _BatchNorm: what all of torch's own have in common, also SyncBatchNorm
        self._layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        self._hooks: list[RemovableHandle] = []
        self._terms: list[Tensor] = []

    def __enter__(self) -> "BatchNormStatistics":
        self._hooks = [layer.register_forward_pre_hook(self._compare) for layer in self._layers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()
        self._terms.clear()

    def __len__(self) -> int:
        return len(self._layers)

    def _compare(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _BatchNorm)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        with torch.autocast(inputs[0].device.type, enabled=False):
            self._terms.append(_Distance.apply(inputs[0].float(), layer.running_mean, layer.running_var))

    def pop(self) -> Tensor:
        """Return the sum over layers since the last call, a scalar, and start anew; `RuntimeError` if none has run."""
        if not self._terms:
            raise RuntimeError("no batch-norm layer has run")
        total = torch.stack(self._terms).sum()
        self._terms.clear()
        return total
