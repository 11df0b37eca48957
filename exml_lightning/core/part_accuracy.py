"""Accuracy on each part of a test stream, over batches and processes."""

from collections.abc import Sequence

from torch import Tensor, nn
from torchmetrics.aggregation import MeanMetric


class PartAccuracy(nn.Module):
    """Counts right answers, part by part; `sizes` are the numbers of samples of the parts."""

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self._sizes = list(sizes)
        self._means = nn.ModuleList(MeanMetric() for _ in sizes)

    def update(self, part: int, logits: Tensor, labels: Tensor) -> None:
        """Count those of a batch of a part; no answer, for a task not yet learned, is a wrong one.

        Logits are float ``(n, num_classes)``, minus infinity for what is no answer; labels are int64 ``(n,)``.
        """
        best, guesses = logits.max(dim=1)
        self._means[part].update(((guesses == labels) & best.isfinite()).float())  # type: ignore[operator]

    def read(self) -> list[float]:
        """Return the accuracies, fractions, over all processes, and start anew."""
        accuracies = []
        for metric, size in zip(self._means, self._sizes, strict=True):
            assert isinstance(metric, MeanMetric)
            right = round(float(metric.compute()) * size)  # a whole number again, not a rounded fraction
            accuracies.append(right / size)
            metric.reset()
        return accuracies
