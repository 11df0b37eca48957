"""Figures of a stream, fractions computed from its accuracy matrix.

The matrix has one row for each experience learned and one column for each part of the test stream: ``matrix[i][j]`` is
the accuracy on part ``j`` after experience ``i``. Part ``j`` has ``sizes[j]`` samples; ``first_seen[j]`` is the
experience whose expert first knew it.
"""

import math
import statistics
from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def stream_accuracy(row: Sequence[float], sizes: Sequence[int]) -> float:
    """Mean accuracy over all test samples, from a row (Eq. 2 and 3 with accuracy for the loss)."""
    return sum(a * n for a, n in zip(row, sizes, strict=True)) / sum(sizes)


def seen_accuracy(row: Sequence[float], sizes: Sequence[int], first_seen: Sequence[int], experience: int) -> float:
    """Stream accuracy over the parts met so far, from the row after `experience`; NaN before the first is met."""
    seen = [j for j, first in enumerate(first_seen) if first <= experience]
    return stream_accuracy([row[j] for j in seen], [sizes[j] for j in seen]) if seen else math.nan


def average_accuracy(matrix: Matrix, sizes: Sequence[int], first_seen: Sequence[int]) -> float:
    """Average accuracy over time: the mean over experiences of `seen_accuracy` (Rebuffi et al. 2017).

    Experiences before the first part is met do not count; NaN if none is met.
    """
    found = [seen_accuracy(row, sizes, first_seen, i) for i, row in enumerate(matrix)]
    return statistics.fmean([value for value in found if not math.isnan(value)] or [math.nan])


def forgetting(matrix: Matrix, first_seen: Sequence[int]) -> float:
    """Mean over the parts met before the last experience of the best accuracy they ever had, less the final one.

    As Chaudhry et al. (2018) define it: the best is taken over the experiences from the one that brought the part to
    the one before the last. Negative where accuracy grew; 0 after one experience.
    """
    last = len(matrix) - 1
    drops = [
        max(matrix[i][j] for i in range(first, last)) - matrix[last][j]
        for j, first in enumerate(first_seen)
        if first < last
    ]
    return sum(drops) / len(drops) if drops else 0.0
