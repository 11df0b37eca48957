"""Figure 2: original data and what strategies learned from instead, class by class."""

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from exml_lightning.core.errors import ExmlError
from exml_lightning.report.cells import Cell, Column
from exml_lightning.report.figures import save_figure
from exml_lightning.report.paper import TABLE_3, order_of, title_of
from exml_lightning.report.runs import Run
from exml_lightning.report.samples import Samples, read_samples

FAMILIES = {
    "figure_2.png": ("joint_mnist", "split_mnist"),
    "samples_cifar10.png": ("joint_cifar10", "split_cifar10"),
    "samples_core50.png": TABLE_3,
}
"""Scenarios that share a picture, by its name; each other scenario has one of its own."""
ALWAYS = ("replay", "model_inversion", "data_impression")
"""Rows of every picture, in this order; other strategies that have samples follow."""
MOST_CLASSES = 20
"""Classes of a scenario that there is room for."""
PER_CLASS = 2
UPRIGHT = 3
"""Letters of a class's name that stand above a column; longer names are turned."""
IMAGE, ROW_GAP, BLOCK_GAP, LEFT = 0.46, 0.12, 0.45, 1.75
"""Inches: an image, between rows, between scenarios, and for the names of the rows."""
DPI = 120


@dataclass(frozen=True)
class Block:
    """What is shown of a scenario: two images of each class, one above the other; experts a gap apart.

    Args:
        run_id: The run, None if there is none with samples.
        strategies: Those that there are runs of.
        pixels: uint8 ``(height, width, 3)`` by strategy, all of one size; white where a class has no samples.
        classes: Name of each class and its middle, in pixels.
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


def sample_figures(columns: dict[str, Column]) -> dict[str, dict[str, Block]]:
    """Read all samples.

    Args:
        columns: All cells, by scenario.

    Returns:
        The pictures that there are samples for, by the name of the file: what they show of each scenario.

    Raises:
        ExmlError: If a file of samples is broken.
    """
    found = {name: run for name, column in columns.items() if (run := _run_with_samples(column)) is not None}
    together = {scenario for family in FAMILIES.values() for scenario in family}
    pictures = {name: family for name, family in FAMILIES.items() if any(scenario in found for scenario in family)}
    if "samples_core50.png" in pictures:
        pictures["samples_core50.png"] = tuple(name for name in TABLE_3 if name in found)
    pictures |= {f"samples_{name}.png": (name,) for name in found if name not in together}
    return {
        name: {scenario: _block(columns.get(scenario)) for scenario in scenarios}
        for name, scenarios in pictures.items()
    }


def save_sample_figure(path: Path, blocks: dict[str, Block]) -> None:
    """Save one picture: a row a strategy, a block a scenario; all of one block from one run.

    Args:
        path: The PNG file.
        blocks: What it shows, by scenario.
    """
    present = {strategy for block in blocks.values() for strategy in block.pixels}
    rows = [*ALWAYS, *sorted(present - set(ALWAYS), key=order_of)]
    row_height = PER_CLASS * IMAGE + ROW_GAP
    longest = max(block.longest_name for block in blocks.values())
    title = 0.55 if longest <= UPRIGHT else 0.45 + 0.08 * longest
    width = LEFT + sum(block.width for block in blocks.values()) + BLOCK_GAP * len(blocks)
    height = title + row_height * len(rows) + 0.3
    figure = Figure(figsize=(width, height), dpi=DPI)

    def place(left: float, row: int, block: Block) -> Any:
        bottom = height - title - row_height * (row + 1) + ROW_GAP
        axis = figure.add_axes((left / width, bottom / height, block.width / width, PER_CLASS * IMAGE / height))
        axis.set_axis_off()
        return axis

    left = LEFT
    for scenario, block in blocks.items():
        axes = [place(left, i, block) for i in range(len(rows))]
        for strategy, axis in zip(rows, axes, strict=True):
            if strategy in block.pixels:
                pixels = block.pixels[strategy]
                smooth = len(pixels) > PER_CLASS * IMAGE * DPI  # else pixels are to be seen
                axis.imshow(pixels, interpolation="auto" if smooth else "nearest", aspect="auto")
            else:
                why = "no samples" if strategy in block.strategies else "no runs"
                axis.text(0.5, 0.5, why, ha="center", va="center", color="0.4", transform=axis.transAxes)
        name = scenario if block.run_id is None else f"{scenario}, run {block.run_id}"
        top = height - 0.12
        figure.text((left + block.width / 2) / width, top / height, name, ha="center", va="top", fontsize="medium")
        _name(block, axes[0], axes[-1])
        left += block.width + BLOCK_GAP
    for i, strategy in enumerate(rows):
        name = "original data" if strategy == "replay" else title_of(strategy).removesuffix(" ED")
        middle = height - title - row_height * i - PER_CLASS * IMAGE / 2
        figure.text((LEFT - 0.12) / width, middle / height, name, ha="right", va="center")
    save_figure(figure, path)


def _name(block: Block, first: Any, last: Any) -> None:
    """Write the classes above the first row, and the experts below the last."""
    words: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center"}
    rotation = 0 if block.longest_name <= UPRIGHT else 90
    for name, middle in block.classes:
        place = (middle / block.shape[1], 1)
        first.annotate(name, place, xytext=(0, 3), va="bottom", rotation=rotation, fontsize="small", **words)
    shown = len(block.experts)
    for i, (k, middle) in enumerate(block.experts if block.num_experts > 1 else ()):
        more = f" of {block.num_experts}" if shown < block.num_experts and i == shown - 1 else ""
        place = (middle / block.shape[1], 0)
        last.annotate(f"expert {k + 1}{more}", place, xytext=(0, -4), va="top", fontsize="small", **words)


def _block(column: Column | None) -> Block:
    """Return what is shown of a scenario."""
    if column is None:
        return Block(None, frozenset())
    run_id = _run_with_samples(column)
    found = {strategy: _files(run) for strategy, cell in column.cells.items() if (run := _run(cell, run_id))}
    samples = {strategy: {k: read_samples(path) for k, path in files.items()} for strategy, files in found.items()}
    if not samples:
        return Block(None, frozenset(column.cells))
    sizes = {read.images.shape[2:4]: found[name][k] for name, by_k in samples.items() for k, read in by_k.items()}
    if len(sizes) > 1:
        raise ExmlError(f"{' and '.join(map(str, sizes.values()))} have images of different sizes: delete one")
    ((_, width),) = sizes
    known = _classes(list(samples.values()))
    gap = max(width // 12, 1)
    places: dict[tuple[int, str], int] = {}
    experts: list[tuple[int, float]] = []
    right = -gap - width // 2
    for k, names in known.items():
        if places and len(places) + len(names) > MOST_CLASSES:
            break
        left = right + gap + width // 2
        places |= {(k, name): left + i * (width + gap) for i, name in enumerate(names)}
        right = left + len(names) * (width + gap) - gap
        experts.append((k, (left + right) / 2))
    classes = tuple((name, left + width / 2) for (_, name), left in places.items())
    pixels = {strategy: _strip(by_k, places, gap, right) for strategy, by_k in samples.items()}
    return Block(run_id, frozenset(column.cells), pixels, classes, tuple(experts), len(known))


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


def _run_with_samples(column: Column) -> int | None:
    """Return the run that most strategies have samples of; the lowest of several."""
    counts = Counter(
        run_id for cell in column.cells.values() for run_id in {run.run_id for run in cell.main.runs if _files(run)}
    )
    return min(counts, key=lambda run_id: (-counts[run_id], run_id), default=None)


def _run(cell: Cell, run_id: int | None) -> Run | None:
    """Return a run of the group that fills a cell, if it has samples."""
    return next((run for run in cell.main.runs if run.run_id == run_id and _files(run)), None)


def _files(run: Run) -> dict[int, Path]:
    """Return the samples of a run, by experience."""
    found = {}
    for path in (run.folder / "samples").glob("experience=*.png"):
        number = re.fullmatch(r"experience=(\d+)", path.stem)
        if number:
            found[int(number[1])] = path
    return dict(sorted(found.items()))
