"""Broken copies of images: what an expert can be taught that is none of its classes, from its own images alone."""

import torch
from torch import Tensor

WAYS = 4
"""Turned by a quarter, by half, by three quarters, or with its quarters in another order."""


def break_images(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn each image, or put its quarters in another order, so that it shows its class no longer.

    After the destroyed images of FedOV (Diao, Li and He 2023, "Towards Addressing Label Skews in One-Shot Federated
    Learning"), and the turned ones of CSI (Tack, Mo, Jeong and Shin 2020).

    Args:
        images: Float ``(n, channels, height, width)``. Those that are not square are not turned by quarters.
        generator: On the CPU.

    Returns:
        Copies, of the same shape, each broken in its own way.
    """
    height, width = images.shape[-2:]
    ways = torch.randint(WAYS, (len(images),), generator=generator)
    if height != width:
        ways = torch.where(ways % 2 == 0, 3, 1)
    orders = _other_orders(len(images), generator).to(images.device)
    ways = ways.to(images.device)[:, None, None, None]
    made = _with_quarters(images, orders)
    for turns in range(3) if height == width else (1,):
        made = torch.where(ways == turns, torch.rot90(images, turns + 1, (2, 3)), made)
    return made


def _other_orders(count: int, generator: torch.Generator) -> Tensor:
    """Draw orders of four, none of them as it was: int64 ``(count, 4)``."""
    orders = torch.rand(count, 4, generator=generator).argsort(dim=1)
    same = (orders == torch.arange(4)).all(dim=1)
    return torch.where(same[:, None], orders.roll(1, dims=1), orders)


def _with_quarters(images: Tensor, orders: Tensor) -> Tensor:
    """Put the quarters of each image in an order; a last row or column that belongs to no quarter stays."""
    n, channels, height, width = images.shape
    h, w = height // 2, width // 2
    quarters = images[:, :, : 2 * h, : 2 * w].reshape(n, channels, 2, h, 2, w).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)
    moved = quarters[torch.arange(n, device=images.device)[:, None], orders]
    made = images.clone()
    made[:, :, : 2 * h, : 2 * w] = (
        moved.unflatten(1, (2, 2)).permute(0, 3, 1, 4, 2, 5).reshape(n, channels, 2 * h, 2 * w)
    )
    return made
