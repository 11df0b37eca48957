from collections import Counter

import pytest

from exml_lightning.core.buffer import batches
from exml_lightning.core.generators.generator import balanced_columns
from exml_lightning.core.rng import keyed_generator


@pytest.mark.parametrize(("samples", "classes"), [(10, 2), (11, 3), (4, 100), (5000, 7)])
def test_classes_come_equally_often(samples, classes):
    counts = Counter(balanced_columns(samples, classes, keyed_generator("c")).tolist())
    assert sum(counts.values()) == samples
    assert max(counts.values()) - min(counts.values()) <= (0 if samples % classes == 0 else 1)
    assert len(counts) == min(samples, classes)


def test_batches_cover_all_rows_once():
    rows = [i for part in batches(10, 4) for i in range(10)[part]]
    assert rows == list(range(10))
