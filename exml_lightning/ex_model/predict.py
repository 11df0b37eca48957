"""Labels and probabilities of image files by one expert of a folder: an ex-model, or any other."""

import csv
import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from exml_lightning.core.confusion import Confusion, accuracy_on
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.logits import other_in_company
from exml_lightning.core.rejection import none_of_these
from exml_lightning.ex_model.model import load_chosen, read_chosen
from exml_lightning.files import write_whole
from exml_lightning.scenarios.image_files import FORMATS, image_files, read_images

log = logging.getLogger(__name__)
NONE = "none of these"
"""Label of an image that is likely of no class that the ex-model knows; see `Predictions.none`."""
MOST_CLASSES = 12
"""Columns of a confusion matrix that there is room for."""


@dataclass(frozen=True)
class Predictions:
    """What an expert says of images.

    Args:
        classes: The classes it knows.
        files: The images that could be read, relative to where they were looked for.
        probabilities: Float ``(len(files), len(classes))``; each row adds up to 1.
        broken: How many images could not be read.
        none: How probable it is that an image is of none of the classes, float ``(len(files),)``; None of an ex-model
            that was not taught so (docs/statistics.md).
        threshold: The label is `NONE` where `none` is more.
    """

    classes: tuple[str, ...]
    files: tuple[str, ...]
    probabilities: Tensor
    broken: int
    none: Tensor | None = None
    threshold: float = 1.0

    @property
    def places(self) -> Tensor:
        """The place of each label in `classes`, int64 ``(len(files),)``; after the last for `NONE`."""
        best = self.probabilities.argmax(dim=1)
        return best if self.none is None else torch.where(self.none > self.threshold, len(self.classes), best)

    @property
    def labels(self) -> list[str]:
        """The most probable class of each image, or `NONE`."""
        return [[*self.classes, NONE][place] for place in self.places.tolist()]

    @property
    def confusion(self) -> Tensor:
        """What images that lie in folders with the names of classes are labelled; see `Confusion.counts`."""
        counts = Confusion(len(self.classes))
        places = {name: place for place, name in enumerate(self.classes)}
        truth = torch.tensor([places.get(file.partition("/")[0] if "/" in file else "", -1) for file in self.files])
        answers = self.probabilities.masked_fill(self.places[:, None] == len(self.classes), -torch.inf)
        counts.update(answers[truth >= 0], truth[truth >= 0])
        return counts.counts


def predict(
    folder: Path,
    images: Path,
    device: str = "auto",
    expert: int | None = None,
    show_progress: bool = False,
) -> Predictions:
    """Classify image files.

    Each image is made grey or RGB as the expert takes it, resized (bilinear, antialiased) until it just covers the
    expert's input, cropped in the middle and normalised by the expert's mean and standard deviation.

    Args:
        folder: A folder of experts, for instance the ``ex_model/`` of a run.
        images: A folder, searched at any depth, or one image file.
        device: ``cpu``, ``cuda``, or ``auto`` for CUDA where there is one.
        expert: Which expert of the folder, from 0; None for the only one.
        show_progress: Show a progress bar.

    Returns:
        Probabilities over the classes that the expert knows, for each image that can be read. The others are named in a
        warning each.

    Raises:
        ExmlError: If there is no such expert, it is not as its manifest says, or no image can be read.
    """
    manifest = read_chosen(folder, expert)
    entry, own = manifest.experts[0], manifest.input
    if own.shape[0] not in (1, 3):
        raise ExmlError(f"{folder / entry.file} takes images with {own.shape[0]} channels: files have 1 or 3")
    files = [str(images)] if images.is_file() else image_files(images)
    if not files:
        what = "has no images" if images.is_dir() else "is neither a folder nor a file"
        raise ExmlError(f"{images} {what}: name a folder with images in it ({', '.join(FORMATS)}), or one image")
    if device == "cuda" and not torch.cuda.is_available():
        raise ExmlError("there is no CUDA device here: leave out --device, or give --device cpu")
    place = torch.device("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")
    ex_model = load_chosen(folder, manifest).to(place)

    root = images.parent if images.is_file() else images
    read, rows = [], []
    for good, pixels in read_images(files, own.shape, own.chunk, "predicting", show_progress):
        with torch.no_grad():
            rows.append(ex_model(pixels.to(place)).float().cpu())
            if len(rows) == 1 < len(pixels) and other_in_company(rows[0], ex_model(pixels[:1].to(place)).float().cpu()):
                log.warning(
                    "%s answers an image otherwise in other company, perhaps since its batch norm has no "
                    "running statistics: what is said of one depends on the others",
                    folder / entry.file,
                )
        read += [Path(file).relative_to(root).as_posix() for file in good]
    logits = torch.cat(rows)
    threshold = ex_model.rejection_threshold
    found = Predictions(entry.classes, tuple(read), logits.softmax(dim=1), len(files) - len(read))
    if threshold is not None:
        found = replace(found, none=none_of_these(logits), threshold=threshold)
    return found


def write_predictions(predictions: Predictions, path: Path) -> None:
    """Write a CSV, replacing one that is there.

    Columns: ``file``, ``label``, ``probability`` (of the label) and, for each class, ``p(<class>)``, among the classes;
    then, if the ex-model tells, ``none of these``, the probability that it is of no class.
    """
    none = [] if predictions.none is None else [NONE]

    def write(part: Path) -> None:
        with part.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            table = csv.writer(file)
            table.writerow(["file", "label", "probability", *(f"p({name})" for name in predictions.classes), *none])
            own = predictions.probabilities
            columns = own if predictions.none is None else torch.cat([own, predictions.none[:, None]], dim=1)
            places = predictions.places.tolist()
            for name, label, place, row in zip(
                predictions.files, predictions.labels, places, columns.tolist(), strict=True
            ):
                table.writerow([name, label, *(f"{value:.6g}" for value in (row[place], *row))])

    write_whole(path, write)


def how_much_is_right(predictions: Predictions) -> tuple[str, list[str], list[list[str]]] | None:
    """Return a line, and the headings and rows of a table: a row for each class that has a folder with its name.

    The table has what images of the class were labelled; where classes are many, the most frequent mistake. None where
    no folder has the name of a class.
    """
    counts, names = predictions.confusion, predictions.classes
    total, own = int(counts.sum()), counts.sum(dim=1).nonzero().flatten().tolist()
    if not total:
        return None
    right = f"right: {100 * accuracy_on(counts, own):.1f} % of {total} images of {len(own)} classes"
    line = f"{right}; by guessing among the {len(names)} that it knows: {100 / len(names):.1f} %"
    left = len(predictions.files) - total
    line += f". {left} images in other folders are labelled, but not counted" if left else ""
    few, labels = len(names) <= MOST_CLASSES, [*names, NONE]
    shown = labels if predictions.none is not None else list(names)
    rows = []
    for c in own:
        wrong = counts[c].clone()
        wrong[c] = 0
        worst = f"{labels[int(wrong.argmax())]} ({int(wrong.max())})" if int(wrong.sum()) else ""
        labelled = [str(n) for n in counts[c, : len(shown)].tolist()] if few else [worst]
        rows.append([names[c], str(int(counts[c].sum())), f"{100 * accuracy_on(counts, [c]):.1f}", *labelled])
    return line, ["images of", "number", "% right", *(shown if few else ["taken for most"])], rows


def summarize(predictions: Predictions) -> list[tuple[str, str, str]]:
    """Return label, number of images and mean probability of each label that was given, in the order of the classes."""
    best, given = predictions.probabilities.amax(dim=1), predictions.places
    if predictions.none is not None:
        best = torch.where(given == len(predictions.classes), predictions.none, best)
    return [
        ([*predictions.classes, NONE][k], str(int((given == k).sum())), f"{best[given == k].mean().item():.3f}")
        for k in given.unique().tolist()
    ]
