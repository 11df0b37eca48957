"""`Measured`: accuracies on the test stream, beside chance, and the confusion matrix they are read from."""

import csv
import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exml_lightning.core import metrics
from exml_lightning.core.confusion import accuracy_on
from exml_lightning.data import ExpertStream
from exml_lightning.files import write_text
from exml_lightning.report.figures import save_matrix
from exml_lightning.scenarios import TestPart
from exml_lightning.terminal import print_values

LONGEST = 20
"""Characters of a column's name that a table or a picture still has room for."""


@dataclass(frozen=True)
class Measured:
    """What the images of a test stream were taken for.

    Args:
        stream: Its stream, set up.
        counts: The confusion matrix; see `Confusion.counts`.
        known: The classes that could be answers, class indices.
    """

    stream: ExpertStream
    counts: Tensor
    known: Collection[int]

    @property
    def row(self) -> list[float]:
        """Accuracy on each part of the test stream, a fraction."""
        return [accuracy_on(self.counts, classes_in(part)) for part in self.stream.test_parts]

    @property
    def stream_accuracy(self) -> float:
        """Accuracy on the whole test stream, a fraction."""
        return metrics.stream_accuracy(self.row, parts_of(self.stream)[0])

    @property
    def chance(self) -> float:
        """The accuracy of guessing among the known classes, each as often; a task label leaves those of its head."""
        return chance(self.stream, self.known)

    def figures(self) -> dict[str, Any]:
        """Return accuracies as ``summary.json`` and ``test.json`` name them, fractions."""
        names = self.stream.manifest.class_names
        return {
            "stream_accuracy": self.stream_accuracy,
            "accuracy_per_experience": self.row,
            "accuracy_per_class": {names[c]: accuracy_on(self.counts, [c]) for c in self._classes()},
            "chance": self.chance,
        }

    def print(self, title: str, always: bool = False) -> None:
        """Print accuracies in per cent: on each part of the test stream, and on the whole beside chance.

        `always`: also under `--quiet`.
        """
        parts = dict(zip(part_names(self.stream), self.row, strict=True))
        values = {**parts, "stream accuracy": self.stream_accuracy, "chance": self.chance}
        print_values(title, {name: f"{100 * value:.2f} %" for name, value in values.items()}, always)

    def write_confusion(self, folder: Path, name: str) -> None:
        """Write the confusion matrix as ``<name>.csv``, numbers of images, and ``<name>.png``, shares of each class.

        A row for each class with images; a column for each class that some expert knows, and for no answer at all,
        where there was none to some.
        """
        names, own, manifest = self.stream.manifest.class_names, self._classes(), self.stream.manifest
        known = sorted({c for k in range(len(manifest.experts)) for c in manifest.classes_of(k)})
        columns = [names[c] for c in known]
        if int(self.counts[:, -1].sum()):
            columns, known = [*columns, "no answer"], [*known, -1]
        table = self.counts[own][:, known]
        text = io.StringIO()
        lines = [[names[c], *row] for c, row in zip(own, table.tolist(), strict=True)]
        csv.writer(text, lineterminator="\n").writerows([["class", *columns], *lines])
        write_text(folder / f"{name}.csv", text.getvalue())
        shares: list[list[float]] = (table / table.sum(dim=1, keepdim=True).clamp_min(1)).tolist()
        words, rows = ([shortened([each]) for each in line] for line in (columns, [names[c] for c in own]))
        save_matrix(folder / f"{name}.png", shares, words, str(folder), "was taken for", rows)

    def _classes(self) -> list[int]:
        return sorted(c for part in self.stream.test_parts for c in classes_in(part))


def chance(stream: ExpertStream, known: Collection[int]) -> float:
    """Return the accuracy of guessing on the whole test stream; see `Measured.chance`."""
    heads, right = stream.heads, 0.0
    for part in stream.test_parts:
        rivals = torch.tensor([c for c in known if heads is None or heads[c] == part.task], dtype=torch.long)
        right += int(torch.isin(part.images.labels, rivals).sum()) / max(len(rivals), 1)
    return right / sum(parts_of(stream)[0])


def parts_of(stream: ExpertStream) -> tuple[list[int], list[int]]:
    """Return the size of each part of the test stream and the experience that brought it."""
    parts = stream.test_parts
    return [len(part.images) for part in parts], [part.first_seen for part in parts]


def part_names(stream: ExpertStream) -> list[str]:
    """Name the parts of the test stream by their classes; of many, by the first ones."""
    names = stream.manifest.class_names
    return [shortened([names[c] for c in classes_in(part)]) for part in stream.test_parts]


def classes_in(part: TestPart) -> list[int]:
    """Return the classes that a part of the test stream has images of, class indices of the stream."""
    found: list[int] = part.images.labels.unique().tolist()
    return found


def shortened(names: Sequence[str]) -> str:
    """Join names; of a line that would be too long, take the first ones and ``...``."""
    line = " ".join(names)
    cut = line[: LONGEST - 4]
    return line if len(line) <= LONGEST else f"{cut.rpartition(' ')[0] or cut} ..."
