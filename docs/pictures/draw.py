"""Draws the pictures of `docs/concepts.md`.

python docs/pictures/draw.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

FOLDER = Path(__file__).parent
PAPER, INK, GREY = "#fbfbf8", "#1d2433", "#666c7d"
EXPERTS = ["#4477aa", "#cc6677", "#228833", "#aa8811"]
EX_MODEL = "#7a4fa3"
Place = tuple[float, float]


def canvas(width: float, height: float) -> Axes:
    """Make a light sheet, which can be read on a dark page, too; a unit is an inch."""
    figure = pyplot.figure(figsize=(width, height), facecolor=PAPER)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.axis("off")
    return axes


def save(axes: Axes, folder: Path, name: str) -> None:
    """Write a picture and let it go."""
    axes.figure.savefig(folder / f"{name}.png", dpi=110, facecolor=PAPER)
    pyplot.close("all")


def box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str, full: bool = False
) -> None:
    """Draw a box with text in its middle; its lower left corner is at x, y."""
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.08", linewidth=1.6, edgecolor=colour,
            facecolor=colour if full else PAPER,
        )
    )  # fmt: skip
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", size=10, color=PAPER if full else INK)


def arrow(axes: Axes, start: Place, end: Place, colour: str = INK, bend: float = 0, dashed: bool = False) -> None:
    """Draw an arrow."""
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="-|>", mutation_scale=13, linewidth=1.5, color=colour,
            connectionstyle=f"arc3,rad={bend}", linestyle="--" if dashed else "-", shrinkA=0, shrinkB=0,
        )
    )  # fmt: skip


def note(axes: Axes, x: float, y: float, text: str, colour: str = INK, where: str = "center", size: float = 9) -> None:
    """Write a few words."""
    axes.text(x, y, text, ha=where, va="center", size=size, color=colour)


def stream(folder: Path) -> None:
    """Experts arrive one at a time; the ex-model grows."""
    axes = canvas(9, 3.3)
    for i, classes in enumerate(["4 5", "2 8", "6 9"]):
        x = 0.5 + 2.8 * i
        box(axes, x, 2.25, 1.5, 0.7, f"expert {i + 1}\nknows {classes}", EXPERTS[i])
        arrow(axes, (x + 0.75, 2.2), (x + 0.75, 1.32), EXPERTS[i])
        note(axes, x + 0.85, 1.77, "teaches,\nthen is dropped", GREY, "left", 8)
        known = " ".join(["4 5", "2 8", "6 9"][: i + 1])
        box(axes, x, 0.55, 1.5, 0.72, f"ex-model\nknows {known}", EX_MODEL, full=True)
        if i:
            arrow(axes, (x - 1.25, 0.91), (x - 0.05, 0.91), EX_MODEL)
    arrow(axes, (7.65, 0.91), (8.3, 0.91), EX_MODEL, dashed=True)
    note(axes, 8.6, 2.6, "...", INK, size=16)
    note(axes, 8.6, 0.91, "...", INK, size=16)
    arrow(axes, (0.5, 0.22), (8.5, 0.22), GREY)
    note(axes, 4.5, 0.36, "experiences", GREY)
    save(axes, folder, "stream")


def experience(folder: Path) -> None:
    """What happens in one experience: images are made, then distilled."""
    axes = canvas(9, 4.1)
    box(axes, 0.3, 2.9, 1.6, 0.8, "new expert\n(frozen)", EXPERTS[2])
    box(axes, 0.3, 0.5, 1.6, 0.8, "previous\nex-model (frozen)", EX_MODEL)
    box(axes, 3.3, 1.65, 1.5, 0.9, "buffer\nN images", INK)
    box(axes, 6.0, 1.65, 1.0, 0.9, "merged\ntarget", GREY)
    box(axes, 7.6, 2.9, 1.2, 0.8, "ex-model\nlearns", EX_MODEL, full=True)
    arrow(axes, (1.95, 3.45), (3.75, 2.6), EXPERTS[2], -0.25)
    note(axes, 3.55, 3.45, "1  generate images\n    that it is sure about", EXPERTS[2], "left")
    arrow(axes, (1.1, 2.85), (3.25, 2.2), GREY, 0.2, dashed=True)
    arrow(axes, (1.1, 1.35), (3.25, 2.0), GREY, -0.2, dashed=True)
    note(axes, 0.35, 2.1, "2  both are asked about\n    each mini-batch", GREY, "left")
    arrow(axes, (4.85, 2.1), (5.95, 2.1), GREY)
    note(axes, 5.4, 2.28, "3  merge", GREY)
    arrow(axes, (6.5, 2.6), (7.55, 3.2), INK, -0.2)
    note(axes, 6.75, 3.2, "4  be like it", INK, "right")
    arrow(axes, (8.2, 2.85), (1.95, 0.75), EX_MODEL, -0.42)
    note(axes, 6.75, 0.55, "5  after n_iter steps: becomes\n    the previous ex-model", EX_MODEL, "left")
    save(axes, folder, "experience")


def merging(folder: Path) -> None:
    """Target merging, unit by unit."""
    axes = canvas(9, 3.5)
    classes = ["4", "5", "2", "8", "6", "9"]
    rows = {
        "new expert": ["", "1.0", "-1.0", "", "", ""],
        "previous ex-model": ["2.0", "-2.0", "", "", "", ""],
        "target": ["2.0", "-0.5", "-1.0", "", "", ""],
    }
    colours = {"new expert": EXPERTS[2], "previous ex-model": EX_MODEL, "target": INK}
    for k, name in enumerate(classes):
        note(axes, 2.9 + k * 0.95, 3.2, f"class {name}", GREY)
    for j, (name, values) in enumerate(rows.items()):
        y = 2.45 - j * 0.8
        note(axes, 2.3, y + 0.25, name, colours[name], "right", 10)
        for k, value in enumerate(values):
            colour = colours[name] if value else "#c4c8d2"
            box(axes, 2.5 + k * 0.95, y, 0.8, 0.5, value or "-", colour, full=name == "target" and value != "")
    for k, text in enumerate(["only the\nprevious\nknows it", "both: the\nmean", "only the\nexpert\nknows it"]):
        note(axes, 2.9 + k * 0.95, 0.42, text, INK, size=8)
    note(axes, 2.9 + 4 * 0.95, 0.42, "nobody knows them yet:\nno part in the loss", GREY, size=8)
    save(axes, folder, "merging")


def buffer(folder: Path) -> None:
    """The buffer over experiences: always N samples, shared equally."""
    axes = canvas(9, 3.5)
    for i in range(4):
        y, left = 2.5 - i * 0.62, 2.0
        note(axes, 1.85, y + 0.21, f"experience {i + 1}", INK, "right", 10)
        for j in range(i + 1):
            width = 6.6 / (i + 1)
            box(axes, left, y, width - 0.04, 0.42, "N" if i == 0 else f"N / {i + 1}", EXPERTS[j], full=True)
            left += width
    note(axes, 5.3, 3.2, "samples from expert 1, 2, 3, 4: older ones are thinned out at random", GREY)
    arrow(axes, (2.0, 0.42), (8.6, 0.42), GREY)
    arrow(axes, (8.6, 0.42), (2.0, 0.42), GREY)
    note(axes, 5.3, 0.2, "buffer.size = N samples, however many experts come", GREY)
    save(axes, folder, "buffer")


def main(folder: Path = FOLDER) -> None:
    """Draw all of them.

    Args:
        folder: Where to.
    """
    for draw in (stream, experience, merging, buffer):
        draw(folder)


if __name__ == "__main__":
    main()
