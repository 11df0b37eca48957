"""What the page shows of each run: its matrix, its images and its expert's confidence in them."""

import base64
import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exml_lightning.report.rows import Report
from exml_lightning.report.runs import Run, Step
from exml_lightning.report.samples import Samples
from exml_lightning.report.samples_figure import read_all
from exml_lightning.report.settings import say
from exml_lightning.report.text import seconds, short

MOST_RUNS = 200
"""Runs whose matrix and images are shown; all are in the table."""
MOST_BYTES = 8 * 10**6
"""Of all images on the page, as they are written there."""
MOST_EXPERTS = 12
"""Of a run whose images are shown."""
MOST_PIXELS = 64
"""A side of an image; larger ones are made smaller."""
MOST_PARTS = 24
"""Rows and columns of a matrix; of longer streams some are shown, evenly apart."""
MOST_LETTERS = 24
"""Of what a column or an image is called."""

Item = TypeVar("Item")
Order = tuple[str, int, str]


@dataclass(frozen=True)
class Matrix:
    """A matrix of a run.

    Args:
        columns: Their names, by the experience that brought the part.
        steps: The rows that are shown.
        cut: What is not shown, in words.
    """

    columns: dict[int, str]
    steps: Sequence[Step]
    cut: str


@dataclass(frozen=True)
class Tile:
    """An image: its pixels as a data URI, what it shows, and the expert's confidence in %."""

    source: str
    shows: str
    confidence: str


@dataclass(frozen=True)
class Gallery:
    """Images of one expert: a column a class."""

    expert: int
    classes: Sequence[str]
    rows: Sequence[Sequence[Tile | None]]
    mean: str


@dataclass(frozen=True)
class ShownRun:
    """A run as the page shows it.

    Args:
        run: The run.
        title: Name of its strategy.
        anchor: Its place on the page; empty where there is only its line in the table.
        settings: All of its settings.
        matrix: Its matrix; None for a baseline.
        galleries: Its images.
        is_open: Whether it is open at first.
    """

    run: Run
    title: str
    anchor: str
    settings: Sequence[str]
    matrix: Matrix | None
    galleries: Sequence[Gallery]
    is_open: bool

    @property
    def name(self) -> str:
        """What the page calls it."""
        return f"{self.run.scenario}, {self.title}, run {self.run.run_id}"

    @property
    def cells(self) -> Sequence[tuple[str, float | None]]:
        """Its numbers in the table of all runs: in words, and to sort by."""
        forgetting = self.run.number("forgetting")
        costs = [self.run.number(f"seconds_{what}") for what in ("generating", "distilling")]
        percent = [self.run.percent, None if forgetting is None else 100 * forgetting]
        return [
            *(("-" if value is None else f"{value:.2f}", value) for value in percent),
            *((seconds(value), value) for value in costs),
        ]


def show_runs(report: Report, left_out: list[str]) -> list[ShownRun]:
    """Return all runs in the order of the tables.

    Args:
        report: All rows.
        left_out: Gets a line for each file that is broken, and for what has no room.
    """
    members = [(row, run) for rows in report.values() for row in rows for run in row.runs]
    samples = {run.folder: read_all(run.folder, left_out, MOST_EXPERTS) for _, run in members[:MOST_RUNS]}
    names = _class_names([run for _, run in members[:MOST_RUNS]], samples)
    shown: list[ShownRun] = []
    room, opened = MOST_BYTES, set()
    for i, (row, run) in enumerate(members):
        galleries = [_gallery(k, read) for k, read in samples.get(run.folder, {}).items()]
        size = sum(len(tile.source) for gallery in galleries for line in gallery.rows for tile in line if tile)
        if size > room:
            left_out.append(f"images of {run.folder} are not on the page, which has room for {MOST_BYTES // 10**6} MB")
            galleries = []
        else:
            room -= size
        is_first = bool(run.steps) and run.scenario not in opened
        opened |= {run.scenario} if is_first else set()
        matrix = _matrix(run, names[run.folder]) if run.steps and i < MOST_RUNS else None
        anchor = f"run-{i + 1}" if i < MOST_RUNS else ""
        settings = [f"{key} {say(value)}" for key, value in row.settings.items()]
        shown.append(ShownRun(run, row.title, anchor, settings, matrix, galleries, is_first))
    if len(members) > MOST_RUNS:
        left_out.append(f"matrix and images of {len(members) - MOST_RUNS} of {len(members)} runs are not on the page")
    return shown


def _order(run: Run) -> Order:
    """Return what runs that meet the same classes in the same order have in common."""
    return run.scenario, run.run_id, run.words("seed")


def _class_names(runs: Sequence[Run], samples: dict[Path, dict[int, Samples]]) -> dict[Path, dict[int, str]]:
    """Return the classes of each experience, as far as samples of the run, or of one with the same order, tell them."""
    told: dict[Order, dict[int, list[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for k, read in samples[run.folder].items():
            told[_order(run)][k].append(read.classes)
    known: dict[Path, dict[int, str]] = {}
    for run in runs:
        own = {k: set(read.classes) for k, read in samples[run.folder].items()}
        known[run.folder] = {
            # An expert may have said of no image that it is of a class: another run tells that one, too.
            k: short(", ".join(max((len(one), one) for one in lists if own.get(k, set()) <= set(one))[1]), MOST_LETTERS)
            for k, lists in told[_order(run)].items()
        }
    return known


def _matrix(run: Run, names: dict[int, str]) -> Matrix:
    word = "part" if run.measure == "accuracy" else "expert"
    parts = sorted({part for step in run.steps for part in step.parts})
    steps, columns = _some(run.steps), _some(parts)
    cut = len(steps) < len(run.steps) or len(columns) < len(parts)
    words = f"{len(steps)} of {len(run.steps)} rows and {len(columns)} of {len(parts)} columns, evenly apart."
    return Matrix({part: names.get(part, f"{word} {part + 1}") for part in columns}, steps, words if cut else "")


def _some(items: Sequence[Item]) -> Sequence[Item]:
    """Return all items, or of many some evenly apart, the first and the last among them."""
    if len(items) <= MOST_PARTS:
        return items
    return [items[round(i * (len(items) - 1) / (MOST_PARTS - 1))] for i in range(MOST_PARTS)]


def _gallery(k: int, samples: Samples) -> Gallery:
    told = [value for column in samples.confidence for value in column if value is not None]
    rows = [list(_tiles(k, samples, row)) for row in range(len(samples.images))]
    mean = f"mean {100 * sum(told) / len(told):.1f} %" if told else ""
    names = [short(name, MOST_LETTERS) for name in samples.classes]
    return Gallery(k + 1, names, [row for row in rows if any(row)], mean)


def _tiles(k: int, samples: Samples, row: int) -> Iterator[Tile | None]:
    for column, name in enumerate(samples.classes):
        pixels = samples.images[row, column]
        told = samples.confidence[column] if samples.confidence else ()
        if row >= len(told) if samples.confidence else bool((pixels == 255).all()):
            yield None  # there were fewer
            continue
        value = told[row] if row < len(told) else None
        words = "" if not samples.confidence else "?" if value is None else f"{100 * value:.1f}"
        yield Tile(_data_uri(pixels), f"class {short(name, MOST_LETTERS)}, image {row + 1} of expert {k + 1}", words)


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    if (pixels[..., :1] == pixels).all():
        picture = picture.convert("L")
    file = io.BytesIO()
    picture.save(file, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
