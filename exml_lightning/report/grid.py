"""A picture of the images in the buffer, grouped by class."""

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from exml_lightning.files import write_whole


def save_grid(
    path: Path,
    images: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    per_class: int = 10,
    max_classes: int = 20,
) -> None:
    """Save a picture with one row of images a class, the class's name and number of samples beside it.

    Args:
        path: The PNG file.
        images: Pixel values in ``[0, 1]``, ``(n, 1 or 3, height, width)``.
        labels: Class indices, int64 ``(n,)``.
        class_names: Name of each class.
        per_class: Images a row, at most.
        max_classes: Rows, at most; the title says so where there are more classes.
    """
    present = labels.unique().tolist()
    shown = present[:max_classes]
    figure = Figure(figsize=(0.7 * per_class + 1.6, 0.75 * len(shown) + 0.6), dpi=110, layout="constrained")
    axes = figure.subplots(len(shown), per_class, squeeze=False)
    for row, label in zip(axes, shown, strict=True):
        members = (labels == label).nonzero().flatten()
        pixels = images[members[:per_class]].cpu().permute(0, 2, 3, 1).numpy()
        for column, axis in enumerate(row):
            axis.set_xticks([])
            axis.set_yticks([])
            axis.spines[:].set_visible(False)
            if column < len(pixels):
                axis.imshow(pixels[column].squeeze(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        row[0].set_ylabel(f"{class_names[label]}\n({len(members)})", rotation=0, ha="right", va="center")
    more = f", first {len(shown)} of {len(present)} classes" if len(shown) < len(present) else ""
    figure.suptitle(f"{path.stem}: {len(labels)} new images{more}", fontsize="medium")
    FigureCanvasAgg(figure)
    write_whole(path, lambda part: figure.savefig(part, format="png"))
