"""Pictures of scaling."""

import re
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

SCALING = ("scaling_buffer", "scaling_experts", "scaling_classes", "scaling_images")
TIMES = ("generating", "distilling", "whole process")
MEMORY = "peak memory"


def picture_name(stem: str, device: str) -> str:
    """Name the picture of a device.

    Args:
        stem: Name of the document, without suffix.
        device: Name of the device.
    """
    return f"{stem}_scaling_{re.sub('[^a-z0-9]+', '_', device.lower())}.png"


def save_scaling(results: dict[str, Any], beside: Path) -> None:
    """Write a picture for each device with results of scaling: seconds above, memory below, a column an axis.

    Args:
        results: Parts by device.
        beside: The file of the results.
    """
    for device, measured in results.items():
        parts = [measured[part]["result"] for part in SCALING if part in measured]
        if parts:
            figure = _draw([next(iter(result["tables"].values())) for result in parts])
            figure.savefig(beside.with_name(picture_name(beside.stem, device)))


def _draw(tables: list[list[dict[str, Any]]]) -> Figure:
    figure = Figure(figsize=(3 * len(tables), 4.6), dpi=90, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(tables), squeeze=False, sharex="col")
    for (above, below), rows in zip(grid.T, tables, strict=True):
        name = next(iter(rows[0]))
        x = [row[name] for row in rows]
        for time in TIMES:
            above.loglog(x, [row[time] for row in rows], marker=".", label=time)
        below.semilogx(x, [row[MEMORY] for row in rows], marker=".", color="black")
        below.set_ylim(0, 1.15 * max(row[MEMORY] for row in rows))
        below.set_xlabel(name)
        below.set_xticks(x, [f"{value:,}" for value in x], fontsize="small")
        below.minorticks_off()
        above.yaxis.set_major_formatter("{x:g}")
        above.yaxis.set_minor_formatter(NullFormatter())
        for axis in (above, below):
            axis.grid(alpha=0.3)
    grid[0][0].set_ylabel("seconds")
    grid[1][0].set_ylabel("peak memory, MB")
    grid[0][1 if len(tables) > 1 else 0].legend(fontsize="x-small")
    return figure
