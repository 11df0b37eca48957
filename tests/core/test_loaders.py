from dataclasses import replace

import torch

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.loaders import BufferLoader, ImageLoader
from exml_lightning.core.rng import keyed_generator


def buffer(offset: int, n: int = 50) -> Buffer:
    images = (torch.arange(n) + offset).float().view(n, 1, 1, 1)
    zeros = torch.zeros(n, dtype=torch.long)
    return Buffer(images, torch.arange(n) + offset, zeros, zeros)


FORMAT = ImageFormat((1, 12, 12), (0.2,), (0.4,))


class Source:
    """What a loader reads late: the experience and its buffer."""

    def __init__(self, samples: Buffer | None = None) -> None:
        self.experience, self.buffer = 0, samples or buffer(0)

    def __call__(self) -> tuple[int, Buffer]:
        return self.experience, self.buffer


def loader_of(source=None, rank=0, world_size=1, **changes) -> BufferLoader:
    values = {"n_iter": 5, "batch_size": 8, "augmentation": Augmentation(), "seed": 3, "image_format": FORMAT}
    return BufferLoader(source or Source(), **{**values, **changes}, rank=rank, world_size=world_size)


def labels(batches) -> list[list[int]]:
    return [batch.labels.tolist() for batch in batches]


def test_the_buffer_is_read_when_the_first_batch_is_asked_for():
    source = Source()
    loader = loader_of(source)
    iterator = iter(loader)
    source.buffer, source.experience = buffer(1000), 1
    assert min(next(iterator).labels) >= 1000


def test_iterating_twice_in_an_experience_goes_on_and_a_new_one_starts_anew():
    # Lightning calls iter() two or three times an epoch and does not exhaust the last
    source = Source()
    loader = loader_of(source)
    iter(loader), iter(loader)
    first = iter(loader)
    seen = [next(first) for _ in range(5)]
    source.experience = 1
    assert len(list(loader)) == 5
    assert labels(seen) == labels(loader_of())


def test_draws_made_together_are_those_of_each_step():
    """A run of 150 steps, begun anew in the middle of a block, against the draws of each step by themselves."""
    augmentation = Augmentation(shift=0.2, rotation=20, flip=True)
    images = torch.rand(50, 1, 4, 4, generator=keyed_generator("loader"))
    changed = replace(buffer(0), images=images)
    loader = loader_of(Source(changed), n_iter=150, augmentation=augmentation)
    first = [batch for _, batch in zip(range(71), loader, strict=False)]
    again = loader_of(Source(changed), n_iter=150, augmentation=augmentation)
    again.load_state_dict({"experience": 0, "position": 71})
    for position, batch in enumerate([*first, *again]):
        draws = keyed_generator("batch", 3, 0, position)
        rows = torch.randint(50, (8,), generator=draws)
        assert torch.equal(batch.labels, rows)
        assert torch.equal(batch.rows, rows)
        assert torch.equal(batch.images, augmentation(images[rows], draws))
    assert position == 149
    assert len(again) == 150


def test_pixels_are_normalised_a_mini_batch_at_a_time():
    pixels = torch.randint(0, 256, (50, 1, 4, 4), generator=keyed_generator("loader"), dtype=torch.uint8)
    augmentation = Augmentation(shift=0.2)
    kinds = [pixels, (pixels / 255 - 0.2) / 0.4]
    both = [list(loader_of(Source(replace(buffer(0), images=x)), augmentation=augmentation)) for x in kinds]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one.images, other.images)


def test_state_goes_on_in_the_middle():
    whole = labels(loader_of())
    loader = loader_of()
    iterator = iter(loader)
    next(iterator), next(iterator)
    again = loader_of()
    again.load_state_dict(loader.state_dict())
    assert labels(again) == whole[2:]


def test_processes_share_the_mini_batch_that_one_would_draw():
    changes = Augmentation(shift=0.2, rotation=30)
    images = torch.rand(50, 1, 6, 6, generator=keyed_generator("images"))
    zeros = torch.zeros(50, dtype=torch.long)
    source = Source(Buffer(images, torch.arange(50), zeros, zeros))
    whole = list(loader_of(source, batch_size=8, augmentation=changes))
    parts = [list(loader_of(source, rank, 2, batch_size=4, augmentation=changes)) for rank in range(2)]
    for step, batch in enumerate(whole):
        assert torch.equal(batch.labels, torch.cat([part[step].labels for part in parts]))
        assert torch.equal(batch.images, torch.cat([part[step].images for part in parts]))


def test_every_test_image_once_over_all_processes():
    pixels = torch.arange(23, dtype=torch.uint8).view(23, 1, 1, 1)
    images = LabelledImages(pixels, torch.arange(23), torch.zeros(23))
    image_format = ImageFormat((1, 1, 1), (0.0,), (1.0,))
    loaders = [ImageLoader(images, 7, image_format, 4, rank, 3) for rank in range(3)]
    drawn = [list(loader) for loader in loaders]
    assert [len(batches) for batches in drawn] == [len(loader) for loader in loaders]
    batches = [batch for part in drawn for batch in part]
    assert sorted(torch.cat([batch.labels for batch in batches]).tolist()) == list(range(23))
    for batch in batches:
        torch.testing.assert_close(batch.images.flatten() * 255, batch.labels.float())
        assert set(batch.tasks.tolist()) == {7}
