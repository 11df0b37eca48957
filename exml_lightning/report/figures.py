"""Pictures of a run: its accuracy over time and its accuracy matrix."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from exml_lightning.files import write_whole

MOST_LABELS = 30
"""Rows or columns of a matrix that have room for a name each; of more, only some are named."""
MOST_UPRIGHT = 20
"""Columns whose names have room side by side."""
BESIDE = {"stored experts": ("#2ca02c", "--"), "chance": ("#7f7f7f", ":")}
"""How what an ex-model is compared with is drawn: its colour and its dashes."""


def save_accuracy_over_time(
    path: Path, streams: Sequence[float], seen: Sequence[float], title: str, beside: Mapping[str, Sequence[float]]
) -> None:
    """Save a line chart as PNG: accuracy after each experience, fractions, on all and on the parts `seen` so far.

    `beside` are lines of what others reach on the whole test stream, named as in `BESIDE`.
    """
    figure = Figure(figsize=(6, 3.8), dpi=110, layout="constrained")
    axis = figure.subplots()
    experts = range(1, len(streams) + 1)
    for values, label, color, offset in (
        (seen, "experiences seen so far", "tab:blue", 6),
        (streams, "whole stream", "tab:orange", -14),
    ):
        axis.plot(experts, [100 * value for value in values], marker="o", color=color, label=label)
        if label == "whole stream" and values[-1] == seen[-1]:
            continue  # they meet at the end: one number is enough
        axis.annotate(
            f"{100 * values[-1]:.1f}",
            (len(values), 100 * values[-1]),
            xytext=(0, offset),
            textcoords="offset points",
            ha="center",
            color=color,
        )
    for name, values in beside.items():
        color, dashes = BESIDE[name]
        percent, marker = [100 * value for value in values], "_" if len(values) == 1 else None
        axis.plot(experts, percent, color=color, linestyle=dashes, marker=marker, label=name)
    axis.set_ylim(0, 105)
    axis.set_xlabel("experts learned")
    axis.set_ylabel("accuracy in %")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.grid(alpha=0.3)
    axis.legend(loc="best")
    axis.set_title(title, fontsize="medium")
    save_figure(figure, path)


def save_matrix(
    path: Path,
    matrix: Sequence[Sequence[float]],
    parts: Sequence[str],
    title: str,
    axis_label: str = "tested on",
    names: Sequence[str] = (),
    totals: Mapping[str, Sequence[float]] | None = None,
) -> None:
    """Save fractions as a PNG heat map: a row an experience (shorter ones leave the rest empty), a column a part.

    Where rows have `names`, they are classes, and columns what was said of them. `totals` are more columns, by name, a
    gap away.
    """
    rows, width = len(matrix), len(parts)
    whole = [[*row, *[math.nan] * (width - len(row))] for row in matrix]
    more = [name.replace(" ", "\n") for name in totals or ()]
    if totals:
        whole = [[*row, math.nan, *(values[i] for values in totals.values())] for i, row in enumerate(whole)]
    columns, longest = len(whole[0]), max(map(len, parts))
    figure = Figure(
        figsize=(min(0.75 * columns, 15) + 2.2, min(0.5 * rows, 10) + 1.6 + 0.07 * longest),
        dpi=110,
        layout="constrained",
    )
    axis = figure.subplots()
    picture = axis.imshow(whole, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    named = range(0, width, 1 + width // MOST_LABELS)
    ticks, labels = [*named, *range(width + 1, columns)], [*(parts[j] for j in named), *more]
    axis.set_xticks(ticks, labels, rotation=0 if longest <= 5 and columns <= MOST_UPRIGHT else 45)
    labelled = range(0, rows, 1 + rows // MOST_LABELS)
    axis.set_yticks(labelled, [names[i] if names else f"expert {i + 1}" for i in labelled])
    axis.set_xlabel(axis_label)
    axis.set_ylabel("is" if names else "after learning")
    if rows * columns <= 200:  # numbers in more cells than these cannot be read
        for i, row in enumerate(whole):
            for j, value in enumerate(row):
                if math.isnan(value):
                    continue
                color = "white" if value > 0.6 else "black"
                axis.text(j, i, f"{100 * value:.0f}", ha="center", va="center", color=color, fontsize="small")
    bar = figure.colorbar(picture, ax=axis, ticks=[0, 0.5, 1])
    bar.ax.set_yticklabels(["0 %", "50 %", "100 %"])
    axis.set_title(title, fontsize="medium")
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, and free its memory: it is of no use afterwards."""
    canvas = FigureCanvasAgg(figure)
    write_whole(path, lambda part: figure.savefig(part, format="png"))
    figure.clear()  # a figure is full of cycles: until they are collected, those of many experiences would stay
    del canvas.renderer
