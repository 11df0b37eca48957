"""Scaling: fits in processes of their own, along one axis at a time."""

import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from benchmarks.performance.figures import MEMORY, TIMES
from benchmarks.performance.workload import ROOT, Workload, write_fit

LAST = 3
"""Points that an exponent is fitted to: the largest."""
LINEAR, FLAT = 1.1, 0.05
"""The largest exponents that count as linear and as flat: 0.05 is 17 % for 25 times as much."""


@dataclass(frozen=True)
class Axis:
    """What is varied.

    Args:
        values: The points.
        workload: The experts of a point.
        settings: The settings of a point, for a factor that makes work of seconds on a GPU as on a CPU.
        extent: What the cost may be proportional to.
        memory_goal: The largest exponent of peak memory.
    """

    values: tuple[int, ...]
    workload: Callable[[int], Workload]
    settings: Callable[[int, int], dict[str, Any]]
    extent: Callable[[int], int] = lambda value: value
    memory_goal: float = LINEAR


def _settings(size: int, steps: int, n_iter: int) -> dict[str, Any]:
    return {"buffer.size": size, "buffer.generator.init_args.steps": steps, "data.n_iter": n_iter}


AXES = {
    "buffer size": Axis(
        (500, 1500, 5000, 15000, 50000),
        lambda value: Workload("LeNet5"),
        lambda value, factor: _settings(value, 3 * factor, 20 * factor),
    ),
    "experts": Axis(
        (2, 5, 10, 20, 50),
        lambda value: Workload("SlimResNet18", value, 2),  # 4 MB each, so that holding all of them would show
        lambda value, factor: {**_settings(64, 2 * factor, 3 * factor), "data.batch_size": 16},
        memory_goal=FLAT,
    ),
    "classes": Axis(
        (4, 10, 100, 1000),
        lambda value: Workload("LeNet5", 2, value // 2),
        lambda value, factor: _settings(1000, 10 * factor, 20 * factor),
    ),
    "image size": Axis(
        (32, 64, 128),
        lambda value: Workload("SlimResNet18", size=value),
        lambda value, factor: {
            **_settings(64, 3 * factor, 4 * factor),
            "buffer.generator.init_args.batch_size": 64,
            "data.batch_size": 32,
        },
        extent=lambda value: value**2,
    ),
}


def exponent(sizes: Sequence[float], costs: Sequence[float], last: int = LAST) -> float:
    """Fit ``cost = c * size ** exponent`` to the last points, by least squares of the logarithms.

    Args:
        sizes: Growing, all more than 0.
        costs: As many, all more than 0.
        last: How many points count.

    Returns:
        The exponent.
    """
    x = [math.log(size) for size in sizes[-last:]]
    y = [math.log(cost) for cost in costs[-last:]]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    product = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return product / sum((a - mean_x) ** 2 for a in x)


def run(device: torch.device, folder: Path, quick: bool, name: str) -> dict[str, Any]:
    """Measure the points of an axis, twice each, and take the smaller figures.

    Args:
        device: Where.
        folder: A folder to work in.
        quick: Do the first two points, once, in a handful of steps.
        name: A name of `AXES`.
    """
    axis = AXES[name]
    factor = 20 if device.type == "cuda" else 1
    values = axis.values[:2] if quick else axis.values
    rows = []
    for value in values:
        settings = axis.settings(value, factor) | {"buffer.cache": None}
        if quick:
            settings |= _settings(8, 1, 1) | {"data.batch_size": 8}
        place = folder / str(value)
        workload = axis.workload(value)
        turns = [
            fit_alone(write_fit(workload, place, device, settings, f"run{turn}"), place / f"run{turn}")
            for turn in range(1 if quick else 2)
        ]
        rows.append({name: value, **{key: min(turn[key] for turn in turns) for key in turns[0]}})
    extents = [axis.extent(value) for value in values]
    goals = dict.fromkeys(TIMES, LINEAR) | {MEMORY: axis.memory_goal}
    fitted = {key: exponent(extents, [row[key] for row in rows]) for key in goals}
    verdicts = [
        {"grows with": name, "cost": key, "exponent": fitted[key], "goal": f"<= {goal}", "met": fitted[key] <= goal}
        for key, goal in goals.items()
    ]
    return {"tables": {f"By {name} (seconds, MB)": rows, f"Exponents of {name}": verdicts}}


def fit_alone(arguments: list[str], run_folder: Path) -> dict[str, float]:
    """Run `exml fit` in a process of its own.

    Args:
        arguments: The words after ``exml``.
        run_folder: Where it writes its summary.

    Returns:
        Seconds and MB. Memory is the device's on a GPU.
    """
    command = [sys.executable, "-m", "exml_lightning", *arguments]
    start = perf_counter()
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    seconds = perf_counter() - start
    if ended.returncode:
        raise RuntimeError(f"exml {' '.join(arguments)} ended with {ended.returncode}: {ended.stdout[-2000:]}")
    summary = json.loads((run_folder / "summary.json").read_text(encoding="utf-8"))
    costs = (summary["seconds_generating"], summary["seconds_distilling"], seconds)
    return {**dict(zip(TIMES, costs, strict=True)), MEMORY: summary["peak_memory_mb"]}
