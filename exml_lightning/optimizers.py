"""Making the optimiser and the learning-rate schedule, anew for each expert."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from lightning.pytorch.cli import LRSchedulerCallable, LRSchedulerTypeUnion, OptimizerCallable
from torch import nn

from exml_lightning.core.errors import ExmlError

Schedule = LRSchedulerCallable | Literal["cosine"] | None


def default_optimizer(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """Make the default optimiser: Adam with learning rate 0.001."""
    return torch.optim.Adam(parameters, lr=1e-3)


def make_optimizer(
    network: nn.Module, optimizer: OptimizerCallable, schedule: Schedule, steps: int
) -> tuple[torch.optim.Optimizer, LRSchedulerTypeUnion | None]:
    """Make both for an expert.

    Args:
        network: The ex-model.
        optimizer: Makes the optimiser.
        schedule: ``cosine`` falls to 0 over `steps`; or what makes a schedule; or None.
        steps: Optimiser steps of an expert.

    Returns:
        The optimiser, and the schedule if there is one.

    Raises:
        ExmlError: If one of them refuses its arguments.
    """
    try:
        made = optimizer(network.parameters())
        if schedule == "cosine":
            return made, torch.optim.lr_scheduler.CosineAnnealingLR(made, steps)
        return made, None if schedule is None else schedule(made)
    except (ValueError, TypeError) as error:
        raise ExmlError(f"model.optimizer or model.lr_scheduler: {error}") from error


def describe_optimizer(
    network: nn.Module, optimizer: OptimizerCallable, schedule: Schedule, steps: int
) -> dict[str, Any]:
    """Return what must stay the same of both for a run to continue, as plain values; see `make_optimizer`."""
    made, scheduled = make_optimizer(network, optimizer, schedule, steps)
    return {
        "optimizer": f"{type(made).__name__} {made.defaults}",
        "lr_scheduler": schedule
        if scheduled is None or schedule == "cosine"
        else f"{type(scheduled).__name__} {scheduled.state_dict()}",
    }
