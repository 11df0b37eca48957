"""A few images of each class as plain pixels, for figures made later: `samples/experience=<k>.png` of a run folder."""

import json
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from exml_lightning.core.errors import ExmlError
from exml_lightning.files import check_regular, write_whole

if TYPE_CHECKING:
    from torch import Tensor

MOST_CLASSES = 10
PER_CLASS = 5
KEY = "exml"
MOST_PIXELS = 25 * 10**6
"""Of a picture: fifty images of 700 x 700."""
MOST_TIMES_AS_LONG = 8
"""A side of an image, against the other."""
LEAST_SIDE = 96
"""Of an image in the picture, so that people can see it: smaller ones are enlarged by a whole number."""


@dataclass(frozen=True)
class Samples:
    """Some images of each class: uint8 ``(PER_CLASS, classes, height, width, 3)``, white where there were fewer.

    `confidence` has, by class, the probability of it that the expert gives each image, None where it is no number; it
    is empty in older files, which do not say it.
    """

    classes: tuple[str, ...]
    images: NDArray[np.uint8]
    confidence: tuple[tuple[float | None, ...], ...] = ()


def rows_shown(labels: "Tensor") -> list[int]:
    """Return which images `save_samples` saves, by their labels, int64 ``(n,)``: the first of each class."""
    return [row for rows in _rows_by_class(labels).values() for row in rows]


def _rows_by_class(labels: "Tensor") -> dict[int, list[int]]:
    shown = labels.unique().tolist()[:MOST_CLASSES]
    return {label: (labels == label).nonzero().flatten()[:PER_CLASS].tolist() for label in shown}


def save_samples(
    path: Path,
    images: "Tensor",
    labels: "Tensor",
    class_names: Sequence[str],
    confidence: Sequence[float] | None = None,
) -> None:
    """Save the first images of each class as a PNG: a column a class, without gaps, at most ten classes.

    Each pixel of small images is drawn as a square of pixels, which `read_samples` takes for one again.
    `images` are pixels, uint8 ``(n, 1 or 3, height, width)``; `labels` class indices, int64 ``(n,)``, of
    `class_names`; `confidence` the probability of its label that the expert gives each image, None if nobody has asked.
    """
    shown = _rows_by_class(labels)
    height, width = images.shape[2:]
    canvas = np.full((PER_CLASS, len(shown), height, width, 3), 255, dtype=np.uint8)
    told: list[list[float | None]] = []
    for column, rows in enumerate(shown.values()):
        pixels = images[rows].cpu().permute(0, 2, 3, 1).numpy()
        canvas[: len(rows), column] = pixels  # one channel becomes three
        told.append([_rounded(confidence[row]) for row in rows] if confidence is not None else [])
    picture = Image.fromarray(canvas.transpose(0, 2, 1, 3, 4).reshape(PER_CLASS * height, len(shown) * width, 3))
    picture = _enlarged(picture, -(-LEAST_SIDE // max(height, width)))
    about = PngInfo()
    words: dict[str, Any] = {"classes": [class_names[c] for c in shown], "size": [height, width]}
    about.add_text(KEY, json.dumps(words if confidence is None else {**words, "confidence": told}))
    write_whole(path, lambda part: picture.save(part, format="png", pnginfo=about, optimize=True))


def _enlarged(picture: Image.Image, times: int) -> Image.Image:
    return picture.resize((times * picture.width, times * picture.height), Image.Resampling.NEAREST)


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def read_samples(path: Path) -> Samples:
    """Read the PNG that `save_samples` has written; raises `ExmlError` if it is not such a file, or too large."""
    try:
        check_regular(path)
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path, formats=("PNG",)) as picture,
        ):
            if picture.width * picture.height > MOST_PIXELS:
                raise ValueError("too large")
            about = json.loads(picture.text[KEY])  # type: ignore[attr-defined]
            names, (height, width) = tuple(map(str, about["classes"])), about["size"]
            if len(names) > MOST_CLASSES or max(height, width) > MOST_TIMES_AS_LONG * min(height, width):
                raise ValueError("an odd shape")
            confidence = _confidence(about.get("confidence"), len(names))
            times = picture.height // (PER_CLASS * height)  # 1 in older files
            pixels = np.asarray(picture.convert("RGB"))[::times, ::times]
        images = pixels.reshape(PER_CLASS, height, len(names), width, 3).transpose(0, 2, 1, 3, 4)
    except Exception as error:  # the decoders raise almost anything
        raise ExmlError(f"{path} holds no samples of a run: delete it") from error
    return Samples(names, images, confidence)


def _confidence(given: Any, num_classes: int) -> tuple[tuple[float | None, ...], ...]:
    if given is None:
        return ()
    values = tuple(tuple(column) for column in given)
    if len(values) != num_classes or max(map(len, values), default=0) > PER_CLASS:
        raise ValueError("confidence of other images")
    told = [value for column in values for value in column if value is not None]
    if not all(type(value) in (int, float) and 0 <= value <= 1 for value in told):
        raise ValueError("confidence that is no fraction")
    return values
