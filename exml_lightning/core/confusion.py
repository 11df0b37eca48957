"""The confusion matrix of test images, over batches and processes; accuracies are read from it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from exml_lightning.core import distributed


class Confusion(nn.Module):
    """Counts which of `num_classes` classes images of each class were given."""

    counts: Tensor
    """int64 ``(num_classes, num_classes + 1)``: a row for each class, a column for each that it was given; the last for
    images without an answer, as those of a task not yet learned."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(num_classes, num_classes + 1, dtype=torch.long), persistent=False)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Logits are float ``(n, num_classes)``, minus infinity for what is no answer; labels are int64 ``(n,)``.
        """
        best, guesses = logits.max(dim=1)
        columns = self.counts.shape[1]
        cells = labels * columns + guesses.masked_fill(~best.isfinite(), columns - 1)
        self.counts.view(-1).index_add_(0, cells, torch.ones_like(cells))

    def read(self) -> Tensor:
        """Return the counts over all processes, on the CPU, and start anew."""
        counts = distributed.add_up(self.counts).cpu().clone()
        self.counts.zero_()
        return counts


def accuracy_on(counts: Tensor, classes: Sequence[int]) -> float:
    """Return the share of images of some classes that were given their class; 0 where there are none."""
    rows = counts[list(classes)]
    right = sum(int(counts[c, c]) for c in classes)
    return right / max(int(rows.sum()), 1)


def grown(counts: Tensor, num_classes: int) -> Tensor:
    """Return counts with rows and columns for new classes, which nothing was given and which had no images."""
    before = len(counts)
    table = counts.new_zeros(num_classes, num_classes + 1)
    table[:before, :before], table[:before, -1] = counts[:, :-1], counts[:, -1]
    return table
