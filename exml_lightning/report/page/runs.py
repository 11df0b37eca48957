"""What the page shows of each run: its matrix, its images and its expert's confidence in them."""

import base64
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from exml_lightning.report.figures import BESIDE
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
Tile = tuple[str, str, str]
"""An image: its pixels as a data URI, what it shows, and the expert's confidence in %."""


class Matrix(NamedTuple):
    """A matrix of a run: names of columns by the experience that brought the part, rows, and what is not shown.

    `classes` are those of each expert, where they are known.
    """

    columns: dict[int, str]
    steps: Sequence[Step]
    cut: str
    classes: dict[int, str]


class Gallery(NamedTuple):
    """Images of one expert: a column a class; and its mean confidence in words."""

    expert: int
    classes: Sequence[str]
    rows: Sequence[Sequence[Tile | None]]
    mean: str


@dataclass(frozen=True)
class ShownRun:
    """A run as the page shows it: name of its strategy, all settings, matrix (None for a baseline) and images.

    `anchor` is its place there, empty where there is only its line in the table; `is_open`, whether it is so at first.
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
        """What the page calls it: of other settings than the strategy's, by its folder, too."""
        number, place = self.run.run_id, "/".join(self.run.folder.parts[-2:])
        named = "" if place == f"{self.run.strategy}/run{number}" else f" ({place})"
        return f"{self.run.scenario}, {self.title}, run {number}{named}"

    @property
    def beside(self) -> str:
        """What its accuracy at the end is to be compared with, in words; empty where it is not known."""
        known = [(name, value) for name in BESIDE if (value := self.run.number(name.replace(" ", "_"))) is not None]
        return ", ".join(f"{name} {100 * value:.1f}" for name, value in known)

    @property
    def cells(self) -> Sequence[tuple[str, float | None]]:
        """Its numbers in the table of all runs: in words, and to sort by."""
        forgetting = self.run.number("forgetting")
        percent = [self.run.percent, None if forgetting is None else 100 * forgetting]
        costs = [self.run.number(f"seconds_{what}") for what in ("generating", "distilling")]
        words = ["-" if value is None else f"{value:.2f}" for value in percent] + [seconds(value) for value in costs]
        return list(zip(words, percent + costs, strict=True))


def show_runs(report: Report, left_out: list[str]) -> list[ShownRun]:
    """Return all runs in the order of the tables; `left_out` gets a line a broken file, and for what has no room."""
    members = [(row, run) for rows in report.values() for row in rows for run in row.runs]
    samples = {run.folder: read_all(run.folder, left_out, MOST_EXPERTS) for _, run in members[:MOST_RUNS]}
    names = _class_names([run for _, run in members[:MOST_RUNS]], samples)
    shown: list[ShownRun] = []
    room, opened = MOST_BYTES, set()
    for i, (row, run) in enumerate(members):
        galleries = [_gallery(k, read) for k, read in samples.get(run.folder, {}).items()]
        size = sum(len(tile[0]) for gallery in galleries for line in gallery.rows for tile in line if tile)
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


def _class_names(runs: Sequence[Run], samples: dict[Path, dict[int, Samples]]) -> dict[Path, dict[int, str]]:
    """Return the classes of each experience, as the run says.

    Of an older run, as far as samples of it, or of one with the same order, tell them.
    """
    orders = {run.folder: (run.scenario, run.run_id, run.words("seed")) for run in runs}
    told: dict[tuple[str, int, str], dict[int, list[tuple[str, ...]]]] = defaultdict(lambda: defaultdict(list))
    for folder, order in orders.items():
        for k, read in samples[folder].items():
            told[order][k].append(read.classes)
    known: dict[Path, dict[int, str]] = defaultdict(dict)
    for folder, order in orders.items():
        for k, lists in told[order].items():
            # An expert may have said of no image that it is of a class: another run tells that one, too.
            own = set(samples[folder][k].classes) if k in samples[folder] else set()
            classes = max((one for one in lists if own <= set(one)), key=lambda one: (len(one), one))
            known[folder][k] = short(", ".join(classes), MOST_LETTERS)
    for run in runs:
        known[run.folder] |= {k: short(words, MOST_LETTERS) for k, words in run.classes.items()}
    return known


def _matrix(run: Run, names: dict[int, str]) -> Matrix:
    word = "part" if run.measure == "accuracy" else "expert"
    parts = sorted({part for step in run.steps for part in step.parts})
    steps, columns = _some(run.steps), _some(parts)
    cut = len(steps) < len(run.steps) or len(columns) < len(parts)
    words = f"{len(steps)} of {len(run.steps)} rows and {len(columns)} of {len(parts)} columns, evenly apart."
    named = {part: names.get(part, f"{word} {part + 1}") for part in columns}
    return Matrix(named, steps, words if cut else "", names)


def _some(items: Sequence[Item]) -> Sequence[Item]:
    """Return all items, or of many some evenly apart, the first and the last among them."""
    if len(items) <= MOST_PARTS:
        return items
    return [items[round(i * (len(items) - 1) / (MOST_PARTS - 1))] for i in range(MOST_PARTS)]


def _gallery(k: int, samples: Samples) -> Gallery:
    told = [value for column in samples.confidence for value in column if value is not None]
    rows = [[_tile(k, samples, i, j) for j in range(len(samples.classes))] for i in range(len(samples.images))]
    mean = f"mean {100 * sum(told) / len(told):.1f} %" if told else ""
    names = [short(name, MOST_LETTERS) for name in samples.classes]
    return Gallery(k + 1, names, [row for row in rows if any(row)], mean)


def _tile(k: int, samples: Samples, i: int, j: int) -> Tile | None:
    """Return image `i` of class `j`; None where there were fewer."""
    pixels = samples.images[i, j]
    shows = f"class {short(samples.classes[j], MOST_LETTERS)}, image {i + 1} of expert {k + 1}"
    if not samples.confidence:
        return None if (pixels == 255).all() else (_data_uri(pixels), shows, "")
    if i >= len(samples.confidence[j]):
        return None
    value = samples.confidence[j][i]
    return _data_uri(pixels), shows, "?" if value is None else f"{100 * value:.1f}"


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((MOST_PIXELS, MOST_PIXELS))
    if (pixels[..., :1] == pixels).all():
        picture = picture.convert("L")
    file = io.BytesIO()
    picture.save(file, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
