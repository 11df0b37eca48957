"""Clocks: work of several kinds timed in turn, in one process, and compared round by round."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter

import torch

Job = Callable[[], None]
"""One step of some work."""


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_steps(job: Job, steps: int, synchronize: Job) -> float:
    """Return the seconds that a step takes.

    Args:
        job: One step.
        steps: How many to do, at least 1.
        synchronize: Waits for the device; called before and after.
    """
    synchronize()
    start = perf_counter()
    for _ in range(steps):
        job()
    synchronize()
    return (perf_counter() - start) / steps


def interleave(jobs: Mapping[str, Job], rounds: int, steps: int, synchronize: Job) -> dict[str, list[float]]:
    """Time jobs in turn within each round, so that whatever slows the machine down slows all of them down.

    Args:
        jobs: One step of each, by name.
        rounds: How often each has its turn, after one turn that does not count.
        steps: Steps of a turn.
        synchronize: Waits for the device.

    Returns:
        Seconds a step of each job, a figure a round.
    """
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for turn in range(rounds + 1):
        for name, job in list(jobs.items())[:: -1 if turn % 2 else 1]:
            elapsed = time_steps(job, steps, synchronize)
            if turn:
                seconds[name].append(elapsed)
    return seconds


def ratio(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """Divide figures round by round.

    Args:
        a: A figure a round.
        b: As many.

    Returns:
        ``median``, ``min`` and ``max`` of the ratios ``a / b``.
    """
    ratios = [x / y for x, y in zip(a, b, strict=True)]
    return {"median": median(ratios), "min": min(ratios), "max": max(ratios)}
