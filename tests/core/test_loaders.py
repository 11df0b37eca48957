from types import SimpleNamespace

import torch

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.loaders import BufferLoader, ImageLoader
from exml_lightning.core.procedural import Strokes
from exml_lightning.core.rng import keyed_generator


def buffer(offset: int, n: int = 50) -> Buffer:
    images = (torch.arange(n) + offset).float().view(n, 1, 1, 1)
    zeros = torch.zeros(n, dtype=torch.long)
    return Buffer(images, torch.arange(n) + offset, zeros, zeros)


def stream(**changes):
    values = {
        "n_iter": 5,
        "batch_size": 8,
        "seed": 3,
        "experience": 0,
        "buffer": buffer(0),
        "augmentation": Augmentation(),
        "skipped": [],
        "fresh": None,
    }
    return SimpleNamespace(**{**values, **changes})


def labels(batches) -> list[list[int]]:
    return [batch.labels.tolist() for batch in batches]


def test_mini_batches_are_drawn_by_the_key():
    drawn = list(BufferLoader(stream(), rank=0))
    assert len(drawn) == len(BufferLoader(stream(), rank=0)) == 5
    for position, batch in enumerate(drawn):
        expected = torch.randint(50, (8,), generator=keyed_generator("batch", 3, 0, position))
        assert torch.equal(batch.labels, expected)
        assert torch.equal(batch.images.flatten().long(), expected)


def test_the_buffer_is_read_when_the_first_batch_is_asked_for():
    source = stream()
    loader = BufferLoader(source, rank=0)
    iterator = iter(loader)
    source.buffer, source.experience = buffer(1000), 1
    assert min(next(iterator).labels) >= 1000


def test_iterating_twice_in_an_experience_goes_on_and_a_new_one_starts_anew():
    # Lightning calls iter() two or three times an epoch and does not exhaust the last
    source = stream()
    loader = BufferLoader(source, rank=0)
    iter(loader), iter(loader)
    first = iter(loader)
    seen = [next(first) for _ in range(5)]
    source.experience = 1
    assert len(list(loader)) == 5
    assert labels(seen) == labels(BufferLoader(stream(), rank=0))


def test_draws_made_together_are_those_of_each_step():
    """A run of 150 steps, begun anew in the middle of a block, against the draws of each step by themselves."""
    augmentation = Augmentation(shift=0.2, rotation=20, flip=True)
    images = torch.rand(50, 1, 4, 4, generator=keyed_generator("loader"))
    changed = Buffer(images, *buffer(0).tensors()[1:])
    source = stream(n_iter=150, augmentation=augmentation, buffer=changed)
    loader = BufferLoader(source)
    first = [batch for _, batch in zip(range(71), loader, strict=False)]
    again = BufferLoader(source)
    again.load_state_dict({"experience": 0, "position": 71})
    for position, batch in enumerate([*first, *again]):
        draws = keyed_generator("batch", 3, 0, position)
        rows = torch.randint(50, (8,), generator=draws)
        assert torch.equal(batch.labels, rows)
        assert torch.equal(batch.rows, rows)
        assert torch.equal(batch.images, augmentation(images[rows], draws))
    assert position == 149


def test_state_goes_on_in_the_middle():
    whole = labels(BufferLoader(stream(), rank=0))
    loader = BufferLoader(stream(), rank=0)
    iterator = iter(loader)
    next(iterator), next(iterator)
    again = BufferLoader(stream(), rank=0)
    again.load_state_dict(loader.state_dict())
    assert labels(again) == whole[2:]


def test_processes_share_the_mini_batch_that_one_would_draw():
    changes = Augmentation(shift=0.2, rotation=30)
    images = torch.rand(50, 1, 6, 6, generator=keyed_generator("images"))
    zeros = torch.zeros(50, dtype=torch.long)
    source = {"buffer": Buffer(images, torch.arange(50), zeros, zeros), "augmentation": changes}
    whole = list(BufferLoader(stream(batch_size=8, **source)))
    parts = [list(BufferLoader(stream(batch_size=4, **source), rank, 2)) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert torch.equal(batch.labels, torch.cat([part[step].labels for part in parts]))
        assert torch.equal(batch.images, torch.cat([part[step].images for part in parts]))


def test_the_experience_of_a_skipped_expert_has_no_mini_batch():
    assert list(BufferLoader(stream(skipped=[0], buffer=None))) == []


def test_images_are_augmented_each_time_in_another_way():
    images = torch.zeros(1, 1, 9, 9)
    images[0, 0, 4, 4] = 1
    zero = torch.zeros(1, dtype=torch.long)
    source = stream(buffer=Buffer(images, zero, zero, zero), augmentation=Augmentation(shift=0.3))
    drawn = torch.cat([batch.images for batch in BufferLoader(source, rank=0)])
    assert len({image.numpy().tobytes() for image in drawn}) == 40


def test_every_test_image_once_over_all_processes():
    pixels = torch.arange(23, dtype=torch.uint8).view(23, 1, 1, 1)
    images = LabelledImages(pixels, torch.zeros(23), torch.zeros(23))
    image_format = ImageFormat((1, 1, 1), (0.0,), (1.0,))
    loaders = [ImageLoader(images, torch.arange(23), 7, image_format, 4, rank, 3) for rank in range(3)]
    drawn = [list(loader) for loader in loaders]
    assert [len(batches) for batches in drawn] == [len(loader) for loader in loaders]
    batches = [batch for part in drawn for batch in part]
    assert sorted(torch.cat([batch.labels for batch in batches]).tolist()) == list(range(23))
    for batch in batches:
        torch.testing.assert_close(batch.images.flatten() * 255, batch.labels.float())
        assert set(batch.tasks.tolist()) == {7}


def test_fresh_images_are_drawn_by_the_key_and_each_process_takes_its_share():
    image_format = ImageFormat((1, 12, 12), (0.2,), (0.4,))
    manifest = SimpleNamespace(input=image_format)
    one = list(BufferLoader(stream(fresh=Strokes(), manifest=manifest, batch_size=16)))
    two = [list(BufferLoader(stream(fresh=Strokes(), manifest=manifest), rank, 2)) for rank in range(2)]
    for step, batch in enumerate(one):
        pixels = Strokes().draw(16, (1, 12, 12), keyed_generator("fresh", 3, 0, step), torch.device("cpu"))
        torch.testing.assert_close(batch.images, (pixels - 0.2) / 0.4)
        assert torch.equal(batch.images, torch.cat([two[0][step].images, two[1][step].images]))
        assert batch.rows is None
        assert batch.labels.tolist() == [-1] * 16
    assert not torch.equal(one[0].images, one[1].images)
    source = stream(fresh=Strokes(), manifest=manifest, batch_size=16)
    loader = BufferLoader(source)
    loader.load_state_dict({"experience": 0, "position": 3})
    assert torch.equal(next(iter(loader)).images, one[3].images)
