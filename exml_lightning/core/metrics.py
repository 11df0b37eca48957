"""Figures of a stream, computed from its accuracy matrix.

The matrix has one row for each experience learned and one column for each part of the test stream:
``matrix[i][j]`` is the accuracy on part ``j`` after experience ``i``, a fraction.
"""

from collections.abc import Sequence

Matrix = Sequence[Sequence[float]]


def stream_accuracy(row: Sequence[float], sizes: Sequence[int]) -> float:
    """Mean accuracy over all test samples (Eq. 2 and 3 with accuracy for the loss).

    Args:
        row: Accuracy on each part of the test stream.
        sizes: Number of samples of each part.

    Returns:
        A fraction.
    """
    return sum(a * n for a, n in zip(row, sizes, strict=True)) / sum(sizes)


def seen_accuracy(row: Sequence[float], sizes: Sequence[int], first_seen: Sequence[int], experience: int) -> float:
    """Stream accuracy over the parts of the test stream met so far.

    Args:
        row: Accuracy on each part of the test stream after `experience`.
        sizes: Number of samples of each part.
        first_seen: The experience whose expert first knew each part.
        experience: The experience just learned.

    Returns:
        A fraction.
    """
    seen = [j for j, first in enumerate(first_seen) if first <= experience]
    return stream_accuracy([row[j] for j in seen], [sizes[j] for j in seen])


def average_accuracy(matrix: Matrix, sizes: Sequence[int], first_seen: Sequence[int]) -> float:
    """Average accuracy over time: the mean over experiences of `seen_accuracy` (Rebuffi et al. 2017).

    Args:
        matrix: Accuracy matrix.
        sizes: Number of samples of each part of the test stream.
        first_seen: The experience whose expert first knew each part.

    Returns:
        A fraction.
    """
    return sum(seen_accuracy(row, sizes, first_seen, i) for i, row in enumerate(matrix)) / len(matrix)


def forgetting(matrix: Matrix, first_seen: Sequence[int]) -> float:
    """Mean over the parts met before the last experience of the best accuracy they ever had, less the final one.

    As Chaudhry et al. (2018) define it: the best is taken over the experiences from the one that brought the part to
    the one before the last.

    Args:
        matrix: Accuracy matrix.
        first_seen: The experience whose expert first knew each part.

    Returns:
        A fraction, negative where accuracy grew; 0 after one experience.
    """
    last = len(matrix) - 1
    drops = [
        max(matrix[i][j] for i in range(first, last)) - matrix[last][j]
        for j, first in enumerate(first_seen)
        if first < last
    ]
    return sum(drops) / len(drops) if drops else 0.0
