"""Accuracy over time: on the whole test stream and on each part of it, after each experience."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from exml_lightning.report.cells import Column, Group, mean_and_std
from exml_lightning.report.figures import save_figure
from exml_lightning.report.paper import title_of
from exml_lightning.report.text import csv_text, drawn, file_name

MOST_PARTS = 12
"""Small pictures that there is room for."""
DASHES = ((0, (5, 2)), (0, (2, 1.5)), (0, (7, 2, 1, 2)), (0, (1, 1)), (0, (9, 3)), (0, (4, 1, 1, 1, 1, 1)))
CSV_HEADINGS = ("scenario", "strategy", "name", "after_experts", "tested_on", "runs", "mean_percent", "std_percent")

Point = tuple[int, float, float | None]
"""An experience, and mean and standard deviation of the accuracy after it, in %."""


def picture_name(scenario: str) -> str:
    """Name the picture of a scenario."""
    return f"accuracy_over_time_{file_name(scenario)}.png"


def learned(column: Column) -> dict[str, Group]:
    """Return the main groups that learned more than one expert, by strategy."""
    groups = {strategy: cell.main for strategy, cell in column.cells.items() if not cell.main.runs[0].is_baseline}
    return {strategy: group for strategy, group in groups.items() if len(group.runs[0].over_time) > 1}


def points(group: Group, part: int | None) -> list[Point]:
    """Return accuracy over time, over the runs of a group.

    Args:
        group: The runs.
        part: The part of the test stream, by the experience that brought it; None for the whole stream.
    """
    values: dict[int, list[float]] = {}
    for run in group.runs:
        for row in run.over_time:
            fraction = row.stream if part is None else row.parts.get(part)
            if fraction is not None:
                values.setdefault(row.after, []).append(100 * fraction)
    return [(after, *mean_and_std(found)) for after, found in sorted(values.items())]


def over_time_csv(columns: dict[str, Column]) -> str:
    """Write all figures in long form; experts and experiences count from 1, as in the pictures."""
    rows: list[Sequence[object]] = []
    for scenario, column in columns.items():
        for strategy, group in learned(column).items():
            for part in (None, *_parts({strategy: group})):
                tested_on = "stream" if part is None else f"experience {part + 1}"
                for after, mean, std in points(group, part):
                    figures = (after + 1, tested_on, len(group.runs), mean, std)
                    rows.append((scenario, strategy, title_of(strategy), *figures))
    return csv_text(CSV_HEADINGS, rows)


def save_over_time(path: Path, column: Column, styles: dict[str, tuple[str, str]]) -> None:
    """Save the picture of one scenario.

    Args:
        path: The PNG file.
        column: The scenario; `learned` must not be empty.
        styles: Colour and marker of each strategy.
    """
    groups = learned(column)
    parts = _parts(groups)
    shown = parts[:MOST_PARTS]
    across = 1 if len(shown) == 1 else 2 if len(shown) <= 6 else 3
    down = -(-len(shown) // across)
    figure = Figure(figsize=(6 + 2.5 * across, max(5.4, 1.7 * down + 1.6)), dpi=110, layout="constrained")
    grid = figure.add_gridspec(1, 2, width_ratios=(5.6, 2.5 * across))
    left, right = figure.add_subfigure(grid[0]), figure.add_subfigure(grid[1])
    axis = left.subplots()
    for strategy, group in groups.items():
        _line(axis, points(group, None), styles[strategy], drawn(title_of(strategy)), 5)
    last = max(run.over_time[-1].after for group in groups.values() for run in group.runs)
    for (strategy, mean), dashes in zip(_baselines(column), _endless(DASHES), strict=False):
        color, marker = styles[strategy]
        ends = [1, last + 1]
        name = drawn(title_of(strategy))
        axis.plot(ends, [mean, mean], color=color, linestyle=dashes, marker=marker, label=name, alpha=0.9)
    axis.set_title(f"{drawn(column.scenario)}: whole test stream", fontsize="medium")
    axis.set_ylabel("accuracy in %")
    axis.set_xlabel("experts learned")
    axes = list(right.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    for small, part in zip(axes, shown, strict=False):
        for strategy, group in groups.items():
            _line(small, points(group, part), styles[strategy], None, 3)
        small.set_title(f"experience {part + 1}", fontsize="small", pad=3)
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
    save_figure(figure, path)


def _line(axis: Any, line: list[Point], style: tuple[str, str], label: str | None, size: float) -> None:
    color, marker = style
    after = [experience + 1 for experience, _, _ in line]
    axis.plot(after, [mean for _, mean, _ in line], color=color, marker=marker, markersize=size, label=label, lw=1.4)
    if any(std for _, _, std in line):
        low, high = ([mean + side * (std or 0.0) for _, mean, std in line] for side in (-1, 1))
        axis.fill_between(after, low, high, color=color, alpha=0.15, linewidth=0)


def _parts(groups: dict[str, Group]) -> list[int]:
    rows = [row for group in groups.values() for run in group.runs for row in run.over_time]
    return sorted({part for row in rows for part in row.parts})


def _baselines(column: Column) -> list[tuple[str, float]]:
    return [
        (strategy, cell.main.accuracy[0]) for strategy, cell in column.cells.items() if cell.main.runs[0].is_baseline
    ]


def _endless(items: Sequence[Any]) -> Iterator[Any]:
    while True:
        yield from items
