"""A learning rate that rises and falls once, for few steps (Smith and Topin 2019, "Super-Convergence")."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

RISES = 0.25
"""Of the steps, those in which the rate rises."""
FEWEST = 3
"""Steps that rise and fall; fewer are taken at the peak."""


def one_cycle(optimizer: Optimizer, steps: int) -> LRScheduler | None:
    """Let the rate rise to that of the optimiser for a quarter of `steps` and fall to 0 in the rest, both linearly.

    None for fewer than 3 steps, which are all taken at the optimiser's rate.
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
