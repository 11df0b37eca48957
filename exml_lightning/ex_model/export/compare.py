"""Whether an ONNX file answers as PyTorch does, on images."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.ex_model.export.onnx_file import ask_onnx
from exml_lightning.ex_model.model import ExModel
from exml_lightning.ex_model.predict import read_image
from exml_lightning.report.samples import read_samples
from exml_lightning.scenarios.image_files import image_files

MOST_IMAGES = 256
"""That are compared; of more, some from all over the folder."""
BATCH = 32
TOLERANCE = 1e-3
"""Difference that rounding may make, against the largest logit."""


@dataclass(frozen=True)
class Comparison:
    """How an ONNX file answered.

    Args:
        source: Where the images are from, in words.
        images: How many.
        equal: Fraction of them with the same label.
        largest: Largest difference of a logit.
        scale: Largest logit of PyTorch, without its sign.
    """

    source: str
    images: int
    equal: float
    largest: float
    scale: float


def find_images(folder: Path, check: Path | None, shape: tuple[int, int, int]) -> tuple[Tensor, str]:
    """Read images to compare answers on.

    Args:
        folder: A folder of experts; the samples of the run that it is in serve where there is no `check`.
        check: A folder of images, or one image file; fitted as `exml predict` does.
        shape: Channels, height and width that the ex-model takes.

    Returns:
        uint8 ``(n, *shape)``, and where they are from.

    Raises:
        ExmlError: If there are none.
    """
    if shape[0] not in (1, 3):
        raise ExmlError(f"the images have {shape[0]} channels: grey (1) or RGB (3) ones can be exported")
    if check is not None:
        files = [str(check)] if check.is_file() else image_files(check)
        read = [read_image(file, shape) for file in files[:: -(-len(files) // MOST_IMAGES) or 1]]
        found = [image for image in read if isinstance(image, Tensor)]
        if not found:
            raise ExmlError(f"--check {check} has no image that can be read: name a folder of images, or one image")
        return torch.stack(found), "given by --check"
    paths = sorted((folder.parent / "samples").glob("experience=*.png")) if folder.name == "ex_model" else []
    samples = [image for path in paths for image in _samples(path, shape)]
    if not samples:
        raise ExmlError(f"{folder} has no samples of a run beside it: give images of the ex-model's kind, --check DIR")
    return torch.stack(samples[:: -(-len(samples) // MOST_IMAGES)]), "samples of the run's buffer"


def _samples(path: Path, shape: tuple[int, int, int]) -> list[Tensor]:
    images = torch.from_numpy(read_samples(path).images.copy()).flatten(0, 1).permute(0, 3, 1, 2)
    if tuple(images.shape[2:]) != shape[1:]:
        return []
    return [image[: shape[0]] for image in images if not bool((image == 255).all())]  # white ones fill places


def compare(ex_model: ExModel, path: Path, images: Tensor, source: str) -> Comparison:
    """Compare the answers of an ONNX file with PyTorch's: the first image alone, the others in batches.

    Args:
        ex_model: On the CPU, in eval mode.
        path: What `write_onnx` made of it.
        images: uint8 ``(n, *ex_model.image_shape)``.
        source: Where they are from.

    Raises:
        ExmlError: If a logit differs by more than rounding makes it, or is no finite number.
    """
    with torch.no_grad():
        ours = torch.cat([ex_model(batch) for batch in _batches(images)])
    theirs = torch.cat(list(ask_onnx(path, (batch / 255 for batch in _batches(images)))))
    largest, scale = (ours - theirs).abs().max().item(), ours.abs().max().item()
    equal = (ours.argmax(dim=1) == theirs.argmax(dim=1)).float().mean().item()
    if not largest <= TOLERANCE * max(scale, 1e-3):  # NaN is not
        raise ExmlError(
            f"model.onnx answers differently from PyTorch on {len(images)} images {source}: logits differ by up to "
            f"{largest:.2g} (the largest is {scale:.2g}), labels are equal on {equal:.2%}; nothing was written"
        )
    return Comparison(source, len(images), equal, largest, scale)


def _batches(images: Tensor) -> Iterator[Tensor]:
    yield images[:1]
    yield from images[1:].split(BATCH) if len(images) > 1 else ()
