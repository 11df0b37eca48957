"""One hue and one marker a strategy, the same in all figures; lines with bands."""

from collections.abc import Sequence
from typing import Any

from exml_lightning.report.text import drawn

STYLES = {
    "model_inversion": ("#0072b2", "o"),
    "data_impression": ("#e69f00", "s"),
    "auxiliary": ("#009e73", "^"),
    "procedural": ("#56b4e9", "p"),
    "best": ("#6a3d9a", "H"),
    "best_with_statistics": ("#c51b7d", "$s$"),
    "refined": ("#00494f", "$r$"),
    "photographs": ("#66a61e", "$p$"),
    "replay": ("#222222", "D"),
    "noise": ("#8c8c8c", "v"),
    "precomputed": ("#cc79a7", "8"),
    "oracle": ("#8c564b", "P"),
    "ensemble_average": ("#d62728", "X"),
    "probability_average": ("#ff9896", "<"),
    "min_entropy": ("#9467bd", "h"),
    "concat": ("#17becf", ">"),
    "parameter_average": ("#7f7f00", "*"),
    "parameter_average_batch_norm": ("#bcbd22", "d"),
    "merged": ("#1b9e77", "|"),
}
_OTHERS = ("#b15928", "$a$"), ("#33a02c", "$b$"), ("#fb9a99", "$c$"), ("#a6cee3", "$d$"), ("#fdbf6f", "$e$")

Styles = dict[str, tuple[str, str]]
Point = tuple[float, float, float | None]
"""A place, and mean and standard deviation there in %."""


def styles_of(strategies: Sequence[str]) -> Styles:
    """Return colour and marker of each strategy; given all of a report, those of users look the same in its figures."""
    unknown = sorted(set(strategies) - STYLES.keys())
    return {**STYLES, **{name: _OTHERS[i % len(_OTHERS)] for i, name in enumerate(unknown)}}


def numbers_of(corner: str, lines: dict[str, dict[int, str]], missing: str = "") -> tuple[list[str], list[list[str]]]:
    """Return the headings and rows of a table of lines: a row a strategy, a column a place."""
    places = sorted({place for line in lines.values() for place in line})
    rows = [[name, *(line.get(place, missing) for place in places)] for name, line in lines.items()]
    return [corner, *(f"{place:,}" for place in places)], rows


def draw_line(axis: Any, points: Sequence[Point], style: tuple[str, str], label: str | None, size: float = 5) -> None:
    """Draw a line of means, in a band of one standard deviation."""
    color, marker = style
    places = [place for place, _, _ in points]
    means = [mean for _, mean, _ in points]
    name = None if label is None else drawn(label)
    axis.plot(places, means, color=color, marker=marker, markersize=size, label=name, linewidth=1.4)
    if any(std for _, _, std in points):
        low, high = ([mean + side * (std or 0.0) for _, mean, std in points] for side in (-1, 1))
        axis.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)
