"""Pictures of the samples of an expert, in the run folder."""

from collections.abc import Sequence
from pathlib import Path

import torch

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.expert import Expert
from exml_lightning.report.grid import save_grid
from exml_lightning.report.samples import rows_shown, save_samples


def save_pictures(run_folder: Path, samples: Buffer, expert: Expert, class_names: Sequence[str]) -> Path:
    """Write a grid of the samples to ``buffer/``, and plain pixels of some of them to ``samples/``, for reports.

    How probable the expert they were made from finds the labels is written beside the pixels. `class_names` are all
    classes of the stream. Returns the grid, ``buffer/experience=<k>.png``.
    """
    file = f"experience={expert.experience}.png"
    save_grid(run_folder / "buffer" / file, samples.images, samples.labels, class_names, expert.image_format)
    rows = rows_shown(samples.labels)
    images, labels = samples.images[rows], samples.labels[rows]
    with torch.no_grad():
        pairs = zip(images.split(expert.chunk), labels.split(expert.chunk), strict=True)
        parts = [expert.probability(expert.image_format.to_input(chunk), asked) for chunk, asked in pairs]
    confidence, pixels = torch.cat(parts).tolist(), expert.image_format.to_pixels(images)
    save_samples(run_folder / "samples" / file, pixels, labels, class_names, confidence)
    return run_folder / "buffer" / file
