import math

import pytest

from exml_lightning.core import metrics

MATRIX = [[0.9, 0.0, 0.0], [0.5, 0.8, 0.0], [0.6, 0.4, 0.7]]
SIZES = [10, 20, 70]
FIRST_SEEN = [0, 1, 2]


def test_stream_accuracy_is_the_mean_over_samples():
    assert metrics.stream_accuracy(MATRIX[2], SIZES) == pytest.approx((6 + 8 + 49) / 100)


def test_seen_accuracy_leaves_the_future_out():
    assert metrics.seen_accuracy(MATRIX[1], SIZES, FIRST_SEEN, 1) == pytest.approx((5 + 16) / 30)


def test_average_accuracy_is_the_mean_over_time():
    expected = (0.9 + (5 + 16) / 30 + (6 + 8 + 49) / 100) / 3
    assert metrics.average_accuracy(MATRIX, SIZES, FIRST_SEEN) == pytest.approx(expected)


def test_what_was_not_met_yet_does_not_count():
    """Labelled images of the last two experts' classes alone."""
    matrix = [row[1:] for row in MATRIX]
    assert math.isnan(metrics.seen_accuracy(matrix[0], SIZES[1:], [1, 2], 0))
    assert metrics.average_accuracy(matrix, SIZES[1:], [1, 2]) == pytest.approx((0.8 + (8 + 49) / 90) / 2)


def test_forgetting_is_the_drop_from_the_best():
    assert metrics.forgetting(MATRIX, FIRST_SEEN) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.4)) / 2)


def test_forgetting_starts_where_a_part_was_learned():
    # part 1 scored 0.95 by luck before its expert came: that does not count
    assert metrics.forgetting([[0.9, 0.95], [0.5, 0.8], [0.6, 0.4]], [0, 1]) == pytest.approx((0.3 + 0.4) / 2)


def test_one_experience_forgets_nothing():
    assert metrics.forgetting([[0.9]], [0]) == 0
