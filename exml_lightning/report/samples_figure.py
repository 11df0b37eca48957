"""Figure 2: original data and what strategies learned from instead, class by class."""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Resampling

from exml_lightning.core.errors import ExmlError
from exml_lightning.report.paper import TABLE_3, order_of, title_of
from exml_lightning.report.rows import Report, Row, first_rows
from exml_lightning.report.samples import Samples, read_samples
from exml_lightning.report.text import drawn, file_name

FAMILIES = {
    "figure_2.png": ("joint_mnist", "split_mnist"),
    "samples_cifar10.png": ("joint_cifar10", "split_cifar10"),
    "samples_core50.png": TABLE_3,
}
"""Scenarios that share a picture, by its name; each other scenario has one of its own."""
ALWAYS = ("replay", "model_inversion", "data_impression")
"""The first rows of a picture, in this order; other strategies that have samples follow."""
MOST_CLASSES = 20
"""Classes of a scenario that there is room for."""
MOST_LETTERS = 24
"""Of the name of a class."""
UPRIGHT = 3
"""Letters of a class's name that stand above a column; longer names are turned."""
PER_CLASS = 2
MOST_PIXELS = 256
"""A side of an image that is shown; larger ones lose what could not be seen."""
IMAGE = 0.46
"""Inches."""


@dataclass(frozen=True)
class Block:
    """What is shown of a scenario, of one run: two images of each class, one above the other; experts a gap apart.

    `strips` are pixels ``(height, width, 4)`` by strategy, all of one size, transparent where there are none; `classes`
    and `experts` have each name and its middle, in pixels.
    """

    title: str
    strips: dict[str, NDArray[np.uint8]]
    classes: Sequence[tuple[str, float]]
    experts: Sequence[tuple[str, float]]

    @property
    def width(self) -> float:
        """Inches."""
        height, width, _ = next(iter(self.strips.values())).shape
        return float(width / height * PER_CLASS * IMAGE)


def sample_files(folder: Path) -> dict[int, Path]:
    """Return the samples in a run folder, by experience."""
    paths = sorted((folder / "samples").glob("experience=*.png"))
    numbers = [re.fullmatch(r"experience=(\d{1,9})", path.stem, re.ASCII) for path in paths]
    return dict(sorted((int(number[1]), path) for number, path in zip(numbers, paths, strict=True) if number))


def read_all(folder: Path, left_out: list[str], most: int) -> dict[int, Samples]:
    """Read the samples of a run's first `most` experts; `left_out` gets a line for each file that is broken, once."""
    read = {}
    for k, path in list(sample_files(folder).items())[:most]:
        try:
            read[k] = read_samples(path)
        except ExmlError as error:
            left_out += [str(error)] if str(error) not in left_out else []
    return read


def sample_blocks(report: Report, left_out: list[str]) -> dict[str, dict[str, Block]]:
    """Return what pictures of samples show of each scenario, by their files; `left_out` gets a line a broken file."""
    names = {scenario: name for name, family in FAMILIES.items() for scenario in family}
    pictures: dict[str, dict[str, Block]] = defaultdict(dict)
    for scenario in sorted(report, key=lambda name: (not name.startswith("joint"), name)):
        block = _read_block(scenario, first_rows(report[scenario]), left_out)
        if block is not None:
            pictures[names.get(scenario, f"samples_{file_name(scenario)}.png")][scenario] = block
    return dict(sorted(pictures.items()))


def _read_block(scenario: str, rows: Sequence[Row], left_out: list[str]) -> Block | None:
    runs = [run for row in rows for run in row.runs if sample_files(run.folder)]
    counts = Counter(run.run_id for run in runs)
    run_id = min(counts, key=lambda run_id: (-counts[run_id], run_id), default=None)  # most strategies have it
    read = {run.strategy: read_all(run.folder, left_out, MOST_CLASSES) for run in runs if run.run_id == run_id}
    samples = {strategy: by_k for strategy, by_k in read.items() if by_k}
    if not samples:
        return None
    known: dict[int, list[str]] = {}
    for k in sorted({k for by_k in samples.values() for k in by_k}):
        # An expert may have said of no image of one strategy that it is of a class.
        lists = sorted((by_k[k].classes for by_k in samples.values() if k in by_k), key=len, reverse=True)
        names = list(dict.fromkeys(name for names in lists for name in names))
        if not known or len(names) + sum(map(len, known.values())) <= MOST_CLASSES:
            known[k] = names
    sizes = [read.images.shape[2:4] for by_k in samples.values() for read in by_k.values()]
    height, width = (min(max(sides), MOST_PIXELS) for sides in zip(*sizes, strict=True))
    gap = max(width // 12, 1)
    places: dict[tuple[int, str], int] = {}
    left, experts = 0, []
    for k, names in known.items():
        places |= {(k, name): left + i * (width + gap) for i, name in enumerate(names)}
        right = left + len(names) * (width + gap) - gap
        experts.append((f"expert {k + 1}", (left + right) / 2))
        left = right + gap + width // 2
    strips = {}
    for strategy, by_k in samples.items():
        strip = np.zeros((PER_CLASS * (height + gap) - gap, right, 4), np.uint8)
        for (k, name), x in places.items():
            if k in by_k and name in by_k[k].classes:
                column = by_k[k].images[:PER_CLASS, by_k[k].classes.index(name)]
                for row, pixels in enumerate(column):
                    y = row * (height + gap)
                    image = Image.fromarray(np.ascontiguousarray(pixels)).convert("RGBA")
                    strip[y : y + height, x : x + width] = np.asarray(image.resize((width, height), Resampling.NEAREST))
        strips[strategy] = strip
    classes = [(drawn(name, MOST_LETTERS), x + width / 2) for (_, name), x in places.items()]
    return Block(f"{drawn(scenario)}, run {run_id}", strips, classes, experts if len(experts) > 1 else ())


def draw(blocks: dict[str, Block]) -> Figure:
    """Draw a row a strategy, a block a scenario; all of one block from one run."""
    present = {strategy for block in blocks.values() for strategy in block.strips}
    rows = [*(s for s in ALWAYS if s in present), *sorted(present - set(ALWAYS), key=order_of)]
    widths = [block.width for block in blocks.values()]
    longest = max(len(name) for block in blocks.values() for name, _ in block.classes)
    height = len(rows) * (PER_CLASS * IMAGE + 0.15) + (0.7 if longest <= UPRIGHT else 0.6 + 0.08 * longest)
    figure = Figure(figsize=(sum(widths) + 2.2, height), dpi=120)
    figure.set_layout_engine("constrained", wspace=0.04)
    axes: Any = figure.subplots(len(rows), len(widths), squeeze=False, width_ratios=widths)
    for column, block in zip(axes.T, blocks.values(), strict=True):
        for strategy, axis in zip(rows, column, strict=True):
            axis.spines[:].set_visible(False)
            axis.tick_params(length=0, labelsize="small")
            axis.set_xticks([])
            axis.set_yticks([])
            if strategy in block.strips:
                strip = block.strips[strategy]
                axis.imshow(strip, interpolation="nearest" if len(strip) < 120 else "auto")
            else:
                axis.text(0.5, 0.5, "no samples", ha="center", va="center", color="0.5", transform=axis.transAxes)
        column[0].set_title(block.title, fontsize="medium")
        turned = max(len(name) for name, _ in block.classes) > UPRIGHT
        column[0].xaxis.tick_top()
        column[0].set_xticks([x for _, x in block.classes], [n for n, _ in block.classes], rotation=90 if turned else 0)
        column[-1].set_xticks([x for _, x in block.experts], [name for name, _ in block.experts])
    for strategy, axis in zip(rows, axes[:, 0], strict=True):
        name = "original data" if strategy == "replay" else drawn(title_of(strategy)).removesuffix(" ED")
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
    return figure
