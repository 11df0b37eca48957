import pytest
import torch

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.generators import Precomputed, Replay
from exml_lightning.core.rng import keyed_generator

PIXELS = torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 8, 8) * 50
LABELS = torch.tensor([1, 3, 3, 1, 3])


class Originals:
    """Keeps which rows were read."""

    labels = LABELS

    def __init__(self):
        self.rows = []

    def read(self, rows):
        self.rows += rows.tolist()
        return PIXELS[rows]


def find(experience):
    if experience != 2:
        raise ExmlError(f"none for expert {experience}")
    return Originals()


def replay(expert, n, key="replay", originals=find):
    generator = Replay()
    generator.originals = originals
    return generator.generate(expert, n, keyed_generator(key))


def values(buffer):
    assert buffer.images.dtype == torch.uint8
    return (buffer.images[:, 0, 0, 0] // 50).tolist()


def test_replay_serves_originals_with_their_labels(make_expert):
    buffer = replay(make_expert(experience=2), 3)
    rows = values(buffer)
    assert len(set(rows)) == 3
    assert buffer.labels.tolist() == [LABELS[row] for row in rows]
    assert buffer.experiences.tolist() == [2, 2, 2]
    assert rows != values(replay(make_expert(experience=2), 3, key="another"))


def test_replay_repeats_all_equally_where_there_are_too_few(make_expert):
    counts = torch.tensor(values(replay(make_expert(experience=2), 12))).bincount()
    assert counts.sum() == 12
    assert set(counts.tolist()) == {2, 3}


def test_replay_without_data_is_refused(make_expert):
    with pytest.raises(ExmlError, match="original training data"):
        Replay().generate(make_expert(), 2, keyed_generator())
    for experience in (1, 3):  # one without images, one that the scenario does not have
        with pytest.raises(ExmlError, match=f"none for expert {experience}"):
            replay(make_expert(experience=experience), 2)


def test_replay_reads_no_more_images_than_it_gives(make_expert):
    originals = Originals()
    expert = make_expert(experience=2)
    generator = Replay()
    generator.originals = lambda experience: originals
    buffer = replay(expert, 2, originals=generator.originals)
    assert [PIXELS[row, 0, 0, 0] // 50 for row in originals.rows] == values(buffer)
    assert len(originals.rows) == 2


def precomputed(n):
    labels = torch.tensor([1, 3] * n)[:n]
    images = torch.arange(n, dtype=torch.float).view(n, 1, 1, 1).expand(n, 1, 8, 8)
    generator = Precomputed()
    generator.read = lambda expert: Buffer(images, labels, torch.zeros_like(labels), torch.zeros_like(labels))
    return generator


def test_precomputed_draws_without_replacement_from_a_larger_file(make_expert):
    buffer = precomputed(50).generate(make_expert(), 20, keyed_generator("a"))
    rows = buffer.images[:, 0, 0, 0].int()
    assert len(rows.unique()) == 20
    assert torch.equal(buffer.labels, torch.where(rows % 2 == 0, 1, 3))
    assert not torch.equal(rows, precomputed(50).generate(make_expert(), 20, keyed_generator("b")).images[:, 0, 0, 0])


def test_precomputed_with_too_few_is_refused(make_expert):
    with pytest.raises(ExmlError, match="has 3 precomputed samples, but 4 are asked for"):
        precomputed(3).generate(make_expert(), 4, keyed_generator())
