"""What Figure 2 shows of a scenario: images of each class, of one run, put side by side."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exml_lightning.core.errors import ExmlError
from exml_lightning.report.cells import Column
from exml_lightning.report.samples import Samples, read_samples
from exml_lightning.report.text import drawn

MOST_CLASSES = 20
"""Classes of a scenario that there is room for."""
MOST_LETTERS = 24
"""Of the name of a class."""
PER_CLASS = 2
MOST_PIXELS = 256
"""A side of an image that is shown; larger ones lose what could not be seen."""
IMAGE = 0.46
"""Inches."""


@dataclass(frozen=True)
class Block:
    """What is shown of a scenario: two images of each class, one above the other; experts a gap apart.

    Args:
        run_id: The run, None if there is none with samples.
        strategies: Those that there are runs of.
        pixels: uint8 ``(height, width, 3)`` by strategy, all of one size; white where a class has no samples.
        classes: Name of each class, as it is drawn, and its middle, in pixels.
        experts: Each expert that is shown and its middle, in pixels.
        num_experts: How many experts have samples.
    """

    run_id: int | None
    strategies: frozenset[str]
    pixels: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    classes: tuple[tuple[str, float], ...] = ()
    experts: tuple[tuple[int, float], ...] = ()
    num_experts: int = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels; nothing is higher than wide."""
        first = next(iter(self.pixels.values()), None)
        return (10, 17) if first is None else (first.shape[0], first.shape[1])

    @property
    def width(self) -> float:
        """Inches."""
        return self.shape[1] / self.shape[0] * PER_CLASS * IMAGE

    @property
    def longest_name(self) -> int:
        """Letters of the longest name of a class."""
        return max((len(name) for name, _ in self.classes), default=0)


def read_block(column: Column | None, left_out: list[str]) -> Block:
    """Read what is shown of a scenario.

    Args:
        column: Its cells, None where there are no runs.
        left_out: Gets a line for each file that is broken.
    """
    if column is None:
        return Block(None, frozenset())
    run_id = run_with_samples(column)
    runs = {name: run for name, cell in column.cells.items() for run in cell.main.runs if run.run_id == run_id}
    files = {strategy: sample_files(run.folder) for strategy, run in runs.items()}
    experts = sorted({k for paths in files.values() for k in paths})
    shown = experts[:MOST_CLASSES]  # each has a class at least
    read = {strategy: _read(paths, shown, left_out) for strategy, paths in files.items()}
    samples = _of_one_size({strategy: by_k for strategy, by_k in read.items() if by_k})
    if not samples:
        return Block(None, frozenset(column.cells))
    width = next(iter(next(iter(samples.values())).values())).images.shape[3]
    gap = max(width // 12, 1)
    places: dict[tuple[int, str], int] = {}
    middles: list[tuple[int, float]] = []
    right = -gap - width // 2
    for k, names in _classes(list(samples.values())).items():
        if places and len(places) + len(names) > MOST_CLASSES:
            break
        left = right + gap + width // 2
        places |= {(k, name): left + i * (width + gap) for i, name in enumerate(names)}
        right = left + len(names) * (width + gap) - gap
        middles.append((k, (left + right) / 2))
    classes = tuple((drawn(name, MOST_LETTERS), left + width / 2) for (_, name), left in places.items())
    pixels = {strategy: _strip(by_k, places, gap, right) for strategy, by_k in samples.items()}
    return Block(run_id, frozenset(column.cells), pixels, classes, tuple(middles), len(experts))


def run_with_samples(column: Column) -> int | None:
    """Return the run that most strategies have samples of, the lowest of several; None if there are no samples."""
    counts = Counter(
        run_id
        for cell in column.cells.values()
        for run_id in {run.run_id for run in cell.main.runs if sample_files(run.folder)}
    )
    return min(counts, key=lambda run_id: (-counts[run_id], run_id), default=None)


def sample_files(folder: Path) -> dict[int, Path]:
    """Return the samples in a run folder, by experience."""
    found = {}
    for path in (folder / "samples").glob("experience=*.png"):
        number = re.fullmatch(r"experience=(\d{1,9})", path.stem)
        if number:
            found[int(number[1])] = path
    return found


def _read(paths: dict[int, Path], experts: list[int], left_out: list[str]) -> dict[int, Samples]:
    read = {}
    for k in experts:
        try:
            if k in paths:
                read[k] = read_samples(paths[k])
        except ExmlError as error:
            left_out.append(str(error))
    return read


def _of_one_size(samples: dict[str, dict[int, Samples]]) -> dict[str, dict[int, Samples]]:
    """Make all images as large as the largest, by repeating pixels."""
    sizes = [read.images.shape[2:4] for by_k in samples.values() for read in by_k.values()]
    if not sizes:
        return samples
    height, width = (max(sides) for sides in zip(*sizes, strict=True))
    scale = min(1.0, MOST_PIXELS / max(height, width))
    height, width = round(height * scale), round(width * scale)

    def resized(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
        rows, columns = (
            (2 * np.arange(new) + 1) * old // (2 * new)  # the nearest to the middle of each new pixel
            for old, new in zip(images.shape[2:4], (height, width), strict=True)
        )
        return images[:, :, rows][:, :, :, columns]

    return {
        strategy: {k: Samples(read.classes, resized(read.images)) for k, read in by_k.items()}
        for strategy, by_k in samples.items()
    }


def _classes(samples: list[dict[int, Samples]]) -> dict[int, list[str]]:
    """Return the classes of each expert: an expert may have said of no image of one strategy that it is of a class."""
    known = {}
    for k in sorted({k for by_k in samples for k in by_k}):
        lists = sorted((by_k[k].classes for by_k in samples if k in by_k), key=len, reverse=True)
        known[k] = list(dict.fromkeys(name for names in lists for name in names))
    return known


def _strip(samples: dict[int, Samples], places: dict[tuple[int, str], int], gap: int, right: int) -> NDArray[np.uint8]:
    """Put the samples of one strategy where they belong; the rest is white."""
    height, width = next(iter(samples.values())).images.shape[2:4]
    pixels = np.full((PER_CLASS * (height + gap) - gap, right, 3), 255, np.uint8)
    for k, read in samples.items():
        for i, name in enumerate(read.classes):
            if (k, name) in places:
                left = places[k, name]
                for row in range(PER_CLASS):
                    top = row * (height + gap)
                    pixels[top : top + height, left : left + width] = read.images[row, i]
    return pixels
