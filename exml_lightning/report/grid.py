"""A picture of the images in the buffer, grouped by class."""

from collections.abc import Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure
from torch import Tensor

from exml_lightning.core.images import ImageFormat
from exml_lightning.report.figures import save_figure


def save_grid(
    path: Path,
    images: Tensor,
    labels: Tensor,
    class_names: Sequence[str],
    image_format: ImageFormat,
    per_class: int = 10,
    max_classes: int = 20,
) -> None:
    """Save a PNG with one row of at most `per_class` images a class, the class's name and number of samples beside it.

    `images` are as a buffer holds those of `image_format`, ``(n, 1 or 3, height, width)``; `labels` class indices,
    int64 ``(n,)``, of `class_names`. The title says so where there are more than `max_classes`.
    """
    present = labels.unique().tolist()
    shown = present[:max_classes]
    height, width = images.shape[2:]
    per_class = min(per_class, int(labels.bincount().max()))
    gap = max(width // 8, 1)
    size = len(shown) * (height + gap) - gap, per_class * (width + gap) - gap
    canvas = torch.full((*size, 3), 255, dtype=torch.uint8)
    names = []
    for i, label in enumerate(shown):
        members = (labels == label).nonzero().flatten()
        names.append(f"{class_names[label]}\n({len(members)})")
        for j, image in enumerate(image_format.to_pixels(images[members[:per_class]]).cpu()):
            top, left = i * (height + gap), j * (width + gap)
            canvas[top : top + height, left : left + width] = image.permute(1, 2, 0)  # one channel becomes three
    figure = Figure(figsize=(0.7 * max(per_class, 5) + 1.6, 0.75 * len(shown) + 0.6), dpi=110, layout="constrained")
    axis = figure.subplots()
    axis.imshow(canvas.numpy(), interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([i * (height + gap) + (height - 1) / 2 for i in range(len(shown))], names)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    more = f", first {len(shown)} of {len(present)} classes" if len(shown) < len(present) else ""
    figure.suptitle(f"{path.stem}: {len(labels)} new images{more}", fontsize="medium")
    save_figure(figure, path)
