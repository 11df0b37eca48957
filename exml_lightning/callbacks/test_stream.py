"""Accuracy on the test stream: `test.json` and its table, of an ex-model or of a baseline."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from exml_lightning.callbacks.origin import origin
from exml_lightning.core import metrics
from exml_lightning.data import ExpertStream
from exml_lightning.files import write_text
from exml_lightning.terminal import print_values

LONGEST_NAME = 20
"""Characters of a column's name that a table or a picture still has room for."""


def parts_of(stream: ExpertStream) -> tuple[list[int], list[int]]:
    """Return the size of each part of the test stream and the experience that brought it."""
    parts = stream.test_parts
    return [len(part.images) for part in parts], [part.first_seen for part in parts]


def part_names(stream: ExpertStream) -> list[str]:
    """Name the parts of the test stream by their classes, or by their experience where that would be long."""
    names = stream.scenario.dataset.class_names
    classes = [" ".join(names[c] for c in part.images.labels.unique().tolist()) for part in stream.test_parts]
    if max(map(len, classes)) <= LONGEST_NAME:
        return classes
    return [f"part {part.first_seen + 1}" for part in stream.test_parts]


def accuracies(stream: ExpertStream, row: Sequence[float]) -> dict[str, Any]:
    """Return what `summary.json` and `test.json` have in common.

    Args:
        stream: The stream, set up.
        row: Accuracy on each part of its test stream, fractions.

    Returns:
        Stream accuracy and accuracy per experience, by their names in the files.
    """
    return {
        "stream_accuracy": metrics.stream_accuracy(row, parts_of(stream)[0]),
        "accuracy_per_experience": list(row),
    }


def write_test(
    path: Path,
    stream: ExpertStream,
    row: Sequence[float],
    device: torch.device,
    seconds: float,
    command: str,
    baseline: str | None = None,
) -> None:
    """Write `test.json`.

    Args:
        path: The file.
        stream: The stream, set up.
        row: Accuracy on each part of its test stream, fractions.
        device: The device that was worked on.
        seconds: How long it took.
        command: The command line.
        baseline: Name of the baseline, if one was measured.
    """
    costs = {"peak_memory_mb": peak_memory_mb(device), "seconds_testing": seconds}
    content = {**accuracies(stream, row), **costs, **origin(stream, device, command)}
    if baseline is not None:
        content["baseline"] = baseline
    write_text(path, json.dumps(content, indent=2) + "\n")


def print_accuracies(stream: ExpertStream, row: Sequence[float], title: str, always: bool = False) -> None:
    """Print the accuracy on each part of the test stream and on the whole, in per cent.

    Args:
        stream: The stream, set up.
        row: Accuracy on each part of its test stream, fractions.
        title: Heading.
        always: Also under `--quiet`.
    """
    values = {name: f"{100 * a:.2f} %" for name, a in zip(part_names(stream), row, strict=True)}
    whole = metrics.stream_accuracy(row, parts_of(stream)[0])
    print_values(title, {**values, "stream accuracy": f"{100 * whole:.2f} %"}, always)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of this process so far, in MB: allocated on a GPU, else resident (0 on Windows, which tells none)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return 0.0
    status = Path("/proc/self/status")
    # Linux counts the peak of the process that started this one into `ru_maxrss`.
    for line in status.read_text(encoding="utf-8").splitlines() if status.is_file() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
