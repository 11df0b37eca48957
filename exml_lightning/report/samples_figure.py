"""Figure 2: original data and what strategies learned from instead, class by class."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from exml_lightning.report.cells import Column
from exml_lightning.report.figures import save_figure
from exml_lightning.report.paper import TABLE_3, order_of, title_of
from exml_lightning.report.sample_blocks import IMAGE, PER_CLASS, Block, read_block, run_with_samples
from exml_lightning.report.text import drawn, file_name

FAMILIES = {
    "figure_2.png": ("joint_mnist", "split_mnist"),
    "samples_cifar10.png": ("joint_cifar10", "split_cifar10"),
    "samples_core50.png": TABLE_3,
}
"""Scenarios that share a picture, by its name; each other scenario has one of its own."""
ALWAYS = ("replay", "model_inversion", "data_impression")
"""Rows of every picture, in this order; other strategies that have samples follow."""
UPRIGHT = 3
"""Letters of a class's name that stand above a column; longer names are turned."""
ROW_GAP, BLOCK_GAP, LEFT = 0.12, 0.45, 1.75
"""Inches: between rows, between scenarios, and for the names of the rows."""
DPI = 120


def sample_figures(columns: dict[str, Column]) -> tuple[dict[str, dict[str, Block]], list[str]]:
    """Read all samples.

    Args:
        columns: All cells, by scenario.

    Returns:
        The pictures that there are samples for, by the name of the file: what they show of each scenario. And a line
        for each file that is broken.
    """
    found = [name for name, column in columns.items() if run_with_samples(column) is not None]
    together = {scenario for family in FAMILIES.values() for scenario in family}
    pictures = {name: family for name, family in FAMILIES.items() if any(scenario in found for scenario in family)}
    if "samples_core50.png" in pictures:
        pictures["samples_core50.png"] = tuple(name for name in TABLE_3 if name in found)
    for scenario in found:
        if scenario not in together:
            name = f"samples_{file_name(scenario)}.png"
            pictures[name] = (*pictures.get(name, ()), scenario)  # one of the name of a family joins it
    left_out: list[str] = []
    blocks = {
        name: {scenario: read_block(columns.get(scenario), left_out) for scenario in scenarios}
        for name, scenarios in pictures.items()
    }
    return {name: by_scenario for name, by_scenario in blocks.items() if _has_pixels(by_scenario)}, left_out


def _has_pixels(blocks: dict[str, Block]) -> bool:
    return any(block.pixels for block in blocks.values())


def save_sample_figure(path: Path, blocks: dict[str, Block]) -> None:
    """Save one picture: a row a strategy, a block a scenario; all of one block from one run.

    Args:
        path: The PNG file.
        blocks: What it shows, by scenario.
    """
    present = {strategy for block in blocks.values() for strategy in block.pixels}
    rows = [*ALWAYS, *sorted(present - set(ALWAYS), key=order_of)]
    row_height = PER_CLASS * IMAGE + ROW_GAP
    longest = max(block.longest_name for block in blocks.values())
    title = 0.55 if longest <= UPRIGHT else 0.45 + 0.08 * longest
    width = LEFT + sum(block.width for block in blocks.values()) + BLOCK_GAP * len(blocks)
    height = title + row_height * len(rows) + 0.3
    figure = Figure(figsize=(width, height), dpi=DPI)

    def place(left: float, row: int, block: Block) -> Any:
        bottom = height - title - row_height * (row + 1) + ROW_GAP
        axis = figure.add_axes((left / width, bottom / height, block.width / width, PER_CLASS * IMAGE / height))
        axis.set_axis_off()
        return axis

    left = LEFT
    for scenario, block in blocks.items():
        axes = [place(left, i, block) for i in range(len(rows))]
        for strategy, axis in zip(rows, axes, strict=True):
            if strategy in block.pixels:
                pixels = block.pixels[strategy]
                smooth = len(pixels) > PER_CLASS * IMAGE * DPI  # else pixels are to be seen
                axis.imshow(pixels, interpolation="auto" if smooth else "nearest", aspect="auto")
            else:
                why = "no samples" if strategy in block.strategies else "no runs"
                axis.text(0.5, 0.5, why, ha="center", va="center", color="0.4", transform=axis.transAxes)
        name = drawn(scenario) if block.run_id is None else f"{drawn(scenario)}, run {block.run_id}"
        top = height - 0.12
        figure.text((left + block.width / 2) / width, top / height, name, ha="center", va="top", fontsize="medium")
        _name(block, axes[0], axes[-1])
        left += block.width + BLOCK_GAP
    for i, strategy in enumerate(rows):
        name = "original data" if strategy == "replay" else drawn(title_of(strategy)).removesuffix(" ED")
        middle = height - title - row_height * i - PER_CLASS * IMAGE / 2
        figure.text((LEFT - 0.12) / width, middle / height, name, ha="right", va="center")
    save_figure(figure, path)


def _name(block: Block, first: Any, last: Any) -> None:
    """Write the classes above the first row, and the experts below the last."""
    words: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center"}
    rotation = 0 if block.longest_name <= UPRIGHT else 90
    for name, middle in block.classes:
        place = (middle / block.shape[1], 1)
        first.annotate(name, place, xytext=(0, 3), va="bottom", rotation=rotation, fontsize="small", **words)
    shown = len(block.experts)
    for i, (k, middle) in enumerate(block.experts if block.num_experts > 1 else ()):
        more = f" of {block.num_experts}" if shown < block.num_experts and i == shown - 1 else ""
        place = (middle / block.shape[1], 0)
        last.annotate(f"expert {k + 1}{more}", place, xytext=(0, -4), va="top", fontsize="small", **words)
