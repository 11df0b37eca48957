"""Figure 3: stream accuracy against the size of the buffer."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from exml_lightning.report.cells import SIZE, Column, Group
from exml_lightning.report.figures import save_figure
from exml_lightning.report.paper import title_of
from exml_lightning.report.settings import differences
from exml_lightning.report.text import csv_text, drawn, escape, file_name, markdown, with_std

IN_THE_PAPER = "mt_cifar10"
CSV_HEADINGS = ("scenario", "strategy", "name", "buffer_size", "runs", "mean_percent", "std_percent", "note")


def figure_name(scenario: str) -> str:
    """Name the picture of a scenario: the paper's Figure 3 is of one of them."""
    return "figure_3.png" if scenario == IN_THE_PAPER else f"buffer_size_{file_name(scenario)}.png"


def with_sizes(columns: dict[str, Column]) -> dict[str, dict[str, tuple[Group, ...]]]:
    """Return the groups of two or more sizes of each strategy, for each scenario that has any."""
    lines = {
        name: {strategy: cell.sizes for strategy, cell in column.cells.items() if cell.sizes}
        for name, column in columns.items()
    }
    return {name: found for name, found in lines.items() if found}


def buffer_size_markdown(lines: dict[str, tuple[Group, ...]], column: Column) -> str:
    """Write the figures of one scenario: a row a strategy, a column a size."""
    sizes = _all_sizes(lines)
    rows, notes = [], []
    for strategy, groups in lines.items():
        by_size = {group.settings[SIZE]: group for group in groups}
        cells = [
            f"{with_std(*by_size[size].accuracy)} ({len(by_size[size].runs)})" if size in by_size else "no runs"
            for size in sizes
        ]
        rows.append([title_of(strategy), *cells])
        note = _note(strategy, groups[0], column)
        notes += [f"{escape(f'{title_of(strategy)}: {note}')}  \n"] if note else []
    return markdown(["buffer", *(f"{size:,}" for size in sizes)], rows) + ("\n" if notes else "") + "".join(notes)


def buffer_size_csv(columns: dict[str, Column]) -> str:
    """Write the figures of all scenarios: a row for each strategy and size."""
    rows: list[Sequence[object]] = []
    for scenario, lines in with_sizes(columns).items():
        for strategy, groups in lines.items():
            note = _note(strategy, groups[0], columns[scenario])
            for group in groups:
                figures = (group.settings[SIZE], len(group.runs), *group.accuracy)
                rows.append((scenario, strategy, title_of(strategy), *figures, note))
    return csv_text(CSV_HEADINGS, rows)


def save_buffer_size(
    path: Path, scenario: str, lines: dict[str, tuple[Group, ...]], styles: dict[str, tuple[str, str]]
) -> None:
    """Save the picture of one scenario: a line a strategy, a band of one standard deviation.

    Args:
        path: The PNG file.
        scenario: Its name.
        lines: Groups by strategy, from the smallest buffer to the largest.
        styles: Colour and marker of each strategy.
    """
    figure = Figure(figsize=(7.6, 4.2), dpi=110, layout="constrained")
    axis = figure.subplots()
    for strategy, groups in lines.items():
        color, marker = styles[strategy]
        sizes = [group.settings[SIZE] for group in groups]
        means = [group.accuracy[0] for group in groups]
        stds = [group.accuracy[1] or 0.0 for group in groups]
        axis.plot(sizes, means, color=color, marker=marker, label=drawn(title_of(strategy)))
        low, high = ([m + side * s for m, s in zip(means, stds, strict=True)] for side in (-1, 1))
        if any(stds):
            axis.fill_between(sizes, low, high, color=color, alpha=0.15, linewidth=0)
    ticks = _all_sizes(lines)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    are_close = any(b < 1.8 * a for a, b in pairwise(ticks))
    axis.set_xticks(ticks, [f"{size:,}" for size in ticks], rotation=45 if are_close else 0)
    axis.set_xlabel("samples in the buffer")
    axis.set_ylabel("stream accuracy in %")
    axis.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False)
    runs = sorted({len(group.runs) for groups in lines.values() for group in groups})
    many = f"{runs[0]}" if len(runs) == 1 else f"{runs[0]} to {runs[-1]}"
    band = "; bands: one standard deviation" if runs[-1] > 1 else ""
    axis.set_title(f"{drawn(scenario)}: {many} run{'' if runs[-1] == 1 else 's'} a point{band}", fontsize="medium")
    save_figure(figure, path)


def _all_sizes(lines: dict[str, tuple[Group, ...]]) -> list[int]:
    return sorted({group.settings[SIZE] for groups in lines.values() for group in groups})


def _note(strategy: str, group: Group, column: Column) -> str:
    """Say how a line differs from the table's cell, but for the size, and which runs it is over."""
    cell = column.cells[strategy]
    settings = {**group.settings, SIZE: cell.main.settings.get(SIZE)}
    words = [*differences(settings, cell.main.settings), cell.sizes_note]
    return "; ".join(word for word in words if word)
