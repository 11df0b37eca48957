"""A learning rate that rises and falls once, for few steps (Smith and Topin 2019, "Super-Convergence")."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

RISES = 0.25
"""Of the steps, those in which the rate rises."""
FEWEST = 3
"""Steps that rise and fall; fewer are taken at the peak."""


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler | None:
    """Let the rate rise, from a 25th, to that of the optimiser, and fall to 0, both linearly.

    Args:
        optimizer: Each of its groups has a peak of its own.
        steps: Optimiser steps of the cycle; the rate rises in the first quarter, of fewer than 8 steps in the first 2.

    Returns:
        The schedule, stepped after each step; None for fewer than 3 steps, which are all taken at the peak.
    """
    if steps < FEWEST:
        return None
    return OneCycleLR(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        total_steps=steps,
        pct_start=max(RISES, 2 / steps),  # torch needs two steps to rise
        anneal_strategy="linear",
        cycle_momentum=False,
    )
