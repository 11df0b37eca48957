"""Accuracy over time: on the whole test stream and on each part of it, after each experience."""

import statistics
from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from exml_lightning.report.figures import BESIDE
from exml_lightning.report.rows import Row, first_rows, mean_and_std
from exml_lightning.report.styles import Point, Styles, draw_line, numbers_of
from exml_lightning.report.text import drawn, with_std

MOST_PARTS = 12
"""Small pictures that there is room for."""
MOST_LETTERS = 20
"""Of the classes of an experience, above its picture."""
DASHES = ((0, (5, 2)), (0, (2, 1.5)), (0, (7, 2, 1, 2)), (0, (1, 1)), (0, (9, 3)), (0, (4, 1, 1, 1, 1, 1)))
HEADINGS = ("scenario", "strategy", "name", "after_experts", "tested_on", "runs", "mean_percent", "std_percent")


def learned(rows: Sequence[Row]) -> list[Row]:
    """Return the first row of each strategy that learned several experts and whose accuracy is known."""
    return [row for row in first_rows(rows) if len(row.runs[0].steps) > 1 and row.percent is not None]


def points(row: Row, part: int | None) -> list[Point]:
    """Return accuracy on a part of the test stream over time, experts counted from 1; None is the whole stream."""
    values: dict[int, list[float]] = defaultdict(list)
    for run in row.runs:
        for step in run.steps:
            fraction = step.whole if part is None else step.parts.get(part)
            if fraction is not None:
                values[step.after + 1].append(100 * fraction)
    return [(after, *mean_and_std(found)) for after, found in sorted(values.items())]


def numbers(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and rows of a table: the whole test stream, a row a strategy, a column an expert."""
    lines = {row.title: {int(after): with_std(mean, std) for after, mean, std in points(row, None)} for row in rows}
    return numbers_of("experts learned", lines)


def long_form(rows: Sequence[Row]) -> list[Sequence[object]]:
    """Return all figures; experts and experiences count from 1, as in the pictures. See `HEADINGS`."""
    return [
        (row.scenario, row.strategy, row.title, after, tested_on, len(row.runs), mean, std)
        for row in rows
        for part in (None, *_parts([row]))
        for tested_on in ("stream" if part is None else f"experience {part + 1}",)
        for after, mean, std in points(row, part)
    ]


def draw(rows: Sequence[Row], baselines: Sequence[Row], styles: Styles) -> Figure:
    """Draw one scenario, baselines as level lines: the whole stream beside small pictures of its parts.

    So are the best of the stored experts together, and chance, as the runs have measured them at their end.
    """
    parts = _parts(rows)
    shown = parts[:MOST_PARTS]
    across = 1 if len(shown) == 1 else 2 if len(shown) <= 6 else 3
    down = -(-len(shown) // across)
    figure = Figure(figsize=(6 + 2.5 * across, max(5.4, 1.7 * down + 1.6)), dpi=110, layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=(5.6, 2.5 * across))
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    axis = left.subplots()
    for row in rows:
        draw_line(axis, points(row, None), styles[row.strategy], row.title)
    last = max(run.steps[-1].after for row in rows for run in row.runs)
    for row, dashes in zip(baselines, cycle(DASHES), strict=False):
        color, marker = styles[row.strategy]
        assert row.percent is not None
        level = [row.percent[0]] * 2
        axis.plot([1, last + 1], level, color=color, linestyle=dashes, marker=marker, label=drawn(row.title), alpha=0.9)
    for name, (color, dots) in BESIDE.items():
        found = [mean for row in rows if (mean := row.mean_of(name.replace(" ", "_"))) is not None]
        if found:
            level = [100 * statistics.fmean(found)] * 2
            axis.plot([1, last + 1], level, color=color, linestyle=dots, linewidth=2, label=name)
    axis.set_title(f"{drawn(rows[0].scenario)}: whole test stream", size="medium")
    axis.set_ylabel("accuracy in %")
    axis.set_xlabel("experts learned")
    axes = list(right.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for small, part in zip(axes, shown, strict=False):
        for row in rows:
            draw_line(small, points(row, part), styles[row.strategy], None, size=3)
        small.set_title(_name(rows, part), fontsize="small", pad=3)
    for small in axes[len(shown) :]:
        small.set_visible(False)
        axes[axes.index(small) - across].tick_params(labelbottom=True)
    more = f", first {len(shown)} of {len(parts)}" if len(shown) < len(parts) else ""
    right.suptitle(f"each experience's part of it{more}", fontsize="medium")
    for every in (axis, *axes[: len(shown)]):
        every.set_ylim(-3, 104)
        every.set_xlim(1 - 0.04 * last - 0.05, last + 1.05 + 0.04 * last)
        every.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        every.grid(alpha=0.3)
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize="small", handlelength=3)
    return figure


def _name(rows: Sequence[Row], part: int) -> str:
    """Name an experience, by its classes too where all runs say the same."""
    classes = {run.classes.get(part) for row in rows for run in row.runs}
    only = classes.pop() if len(classes) == 1 else None
    return f"experience {part + 1}" + (f": {drawn(only, MOST_LETTERS)}" if only else "")


def _parts(rows: Sequence[Row]) -> list[int]:
    return sorted({part for row in rows for run in row.runs for step in run.steps for part in step.parts})
