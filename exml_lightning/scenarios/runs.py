"""The five runs of every scenario."""

import torch

RUN_SEEDS = (1234, 2345, 3456, 5678, 6789)
"""Seed of each run: decides the class order, and every other draw where no seed is given."""


def class_order(num_classes: int, run_id: int) -> list[int]:
    """Return the classes in the order of a run, 0 to 4: that of Avalanche's benchmarks with the same seed."""
    order: list[int] = torch.randperm(num_classes, generator=torch.Generator().manual_seed(RUN_SEEDS[run_id])).tolist()
    return order
