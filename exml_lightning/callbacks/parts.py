"""The parts of the test stream: their sizes and names, and the accuracies on them, written and printed."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from exml_lightning.callbacks.summary import peak_memory_mb, write_summary
from exml_lightning.core import metrics
from exml_lightning.data import ExpertStream
from exml_lightning.terminal import print_values

LONGEST = 20
"""Characters of a column's name that a table or a picture still has room for."""


def parts_of(stream: ExpertStream) -> tuple[list[int], list[int]]:
    """Return the size of each part of the test stream and the experience that brought it."""
    parts = stream.test_parts
    return [len(part.images) for part in parts], [part.first_seen for part in parts]


def part_names(stream: ExpertStream) -> list[str]:
    """Name the parts of the test stream by their classes; of many, by the first ones."""
    names = stream.scenario.dataset.class_names
    return [shortened([names[c] for c in part.images.labels.unique().tolist()]) for part in stream.test_parts]


def shortened(names: Sequence[str]) -> str:
    """Join names; of a line that would be too long, take the first ones and ``...``."""
    line = " ".join(names)
    cut = line[: LONGEST - 4]
    return line if len(line) <= LONGEST else f"{cut.rpartition(' ')[0] or cut} ..."


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
    **more: str,
) -> None:
    """Write `test.json`.

    Args:
        path: The file.
        stream: The stream, set up.
        row: Accuracy on each part of its test stream, fractions.
        device: The device that was worked on.
        seconds: How long it took.
        command: The command line.
        more: ``baseline``, its name, if one was measured.
    """
    costs = {"peak_memory_mb": peak_memory_mb(device), "seconds_testing": seconds}
    write_summary(path, {**accuracies(stream, row), **costs}, stream, device, command, **more)


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
