from collections import Counter

import pytest
import torch

from exml_lightning.core.generators.generator import balanced_columns, batches
from exml_lightning.core.rng import keyed_generator


@pytest.mark.parametrize(("samples", "classes"), [(10, 2), (11, 3), (1, 1), (5000, 7)])
def test_classes_come_equally_often(samples, classes):
    counts = Counter(balanced_columns(samples, classes, keyed_generator("c")).tolist())
    assert sum(counts.values()) == samples
    assert max(counts.values()) - min(counts.values()) <= (0 if samples % classes == 0 else 1)
    assert len(counts) == min(samples, classes)


def test_fewer_samples_than_classes_draws_without_replacement():
    columns = balanced_columns(4, 100, keyed_generator("c"))
    assert len(set(columns.tolist())) == 4
    assert not torch.equal(columns, balanced_columns(4, 100, keyed_generator("d")))


def test_batches_cover_all_rows_once():
    rows = [i for part in batches(10, 4) for i in range(10)[part]]
    assert rows == list(range(10))
