"""Figure 3: stream accuracy against the size of the buffer."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullFormatter, NullLocator

from exml_lightning.report.paper import title_of
from exml_lightning.report.rows import SIZE, Row, mean_and_std
from exml_lightning.report.settings import key_of
from exml_lightning.report.styles import Styles, draw_line, numbers_of
from exml_lightning.report.text import drawn, file_name, with_std

IN_THE_PAPER = "mt_cifar10"
HEADINGS = ("scenario", "strategy", "name", "buffer_size", "runs", "mean_percent", "std_percent")

Curve = dict[int, Sequence[float]]
"""Accuracies of runs in %, by the size of their buffer."""


def picture_name(scenario: str) -> str:
    """Name the picture of a scenario: the paper's Figure 3 is of one of them."""
    return "figure_3.png" if scenario == IN_THE_PAPER else f"buffer_size_{file_name(scenario)}.png"


def curves(rows: Sequence[Row]) -> dict[str, Curve]:
    """Return a curve for each strategy that has rows which differ only in the size of the buffer.

    Points are of the runs that all sizes have, where there are such; of several sets of rows, the one with most sizes.
    """
    found: dict[str, Curve] = {}
    for strategy, family in _families(rows).items():
        shared = set.intersection(*({run.run_id for run in row.runs} for row in family))
        found[strategy] = {
            row.settings[SIZE]: [
                run.percent for run in row.runs if run.percent is not None and (run.run_id in shared or not shared)
            ]
            for row in family
        }
    return found


def without_smaller(rows: Sequence[Row]) -> list[Row]:
    """Leave out of each curve the rows of smaller buffers than its largest, unless they have more runs."""
    smaller = {
        id(row) for *others, largest in _families(rows).values() for row in others if len(row.runs) <= len(largest.runs)
    }
    return [row for row in rows if id(row) not in smaller]


def _families(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of the longest curve of each strategy, from the smallest buffer to the largest."""
    families: dict[str, dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if not row.is_baseline and SIZE in row.settings and row.percent is not None:
            but_size = {key: value for key, value in row.settings.items() if key != SIZE}
            families[row.strategy][key_of(but_size)].append(row)
    longest = {strategy: max(family.values(), key=len) for strategy, family in families.items()}
    return {
        strategy: sorted(family, key=lambda row: float(row.settings[SIZE]))
        for strategy, family in longest.items()
        if len(family) > 1
    }


def numbers(found: dict[str, Curve]) -> tuple[list[str], list[list[str]]]:
    """Return the headings and rows of a table: a row a strategy, a column a size."""
    lines = {
        title_of(strategy): {size: f"{with_std(*mean_and_std(of))} ({len(of)})" for size, of in curve.items()}
        for strategy, curve in found.items()
    }
    return numbers_of("buffer", lines, "no runs")


def long_form(scenario: str, found: dict[str, Curve]) -> list[Sequence[object]]:
    """Return a row for each strategy and size; see `HEADINGS`."""
    return [
        (scenario, strategy, title_of(strategy), size, len(values), *mean_and_std(values))
        for strategy, curve in found.items()
        for size, values in curve.items()
    ]


def draw(scenario: str, found: dict[str, Curve], styles: Styles) -> Figure:
    """Draw a line a strategy, in bands of one standard deviation."""
    figure = Figure(figsize=(7.6, 4.2), dpi=110, layout="constrained")
    axis = figure.subplots()
    for strategy, curve in found.items():
        points = [(size, *mean_and_std(values)) for size, values in curve.items()]
        draw_line(axis, points, styles[strategy], title_of(strategy))
    ticks = sorted({size for curve in found.values() for size in curve})
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(FixedLocator(ticks))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    are_close = any(b < 1.8 * a for a, b in pairwise(ticks))
    axis.set_xticks(ticks, [f"{size:,}" for size in ticks], rotation=45 if are_close else 0)
    axis.set_xlabel("samples in the buffer")
    axis.set_ylabel("stream accuracy in %")
    axis.grid(alpha=0.3)
    axis.set_title(drawn(scenario), fontsize="medium")
    figure.legend(loc="outside right center", frameon=False)
    return figure
