"""Labelled images of a data set, read when they are asked for."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LabelledImages:
    """Images of a data set: a whole split, or a part of one that is read when it is asked for.

    Args:
        split: uint8 ``(m, channels, height, width)``; may be mapped from a file, so that it takes no memory.
        labels: Index into the data set's class names, int64 ``(n,)``.
        groups: The recording session each image comes from, int64 ``(n,)``; all 0 where a data set has none.
        rows: The row of `split` that each image is, int64 ``(n,)``; None if they are all of it, in its order.
    """

    split: Tensor
    labels: Tensor
    groups: Tensor
    rows: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: Tensor) -> "LabelledImages":
        if len(rows) == len(self) and torch.equal(rows, torch.arange(len(self))):
            return self
        chosen = rows if self.rows is None else self.rows[rows]
        return LabelledImages(self.split, self.labels[rows], self.groups[rows], chosen)

    def read(self, rows: Tensor) -> Tensor:
        """Read the images `rows`, int64 ``(k,)``: uint8 ``(k, channels, height, width)``."""
        return self.split[rows if self.rows is None else self.rows[rows]]

    @property
    def images(self) -> Tensor:
        """All images, uint8 ``(n, channels, height, width)``: of a part, read anew each time."""
        return self.split if self.rows is None else self.split[self.rows]
