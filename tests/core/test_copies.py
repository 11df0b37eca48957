"""Copies of the images of a buffer, changed once."""

import torch

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.copies import changed_copies
from exml_lightning.core.images import ImageFormat

FORMAT = ImageFormat((1, 8, 8), (0.5,), (0.25,))
CHANGES = Augmentation(shift=0.25, flip=True)


def buffer_of(images: torch.Tensor) -> Buffer:
    n = len(images)
    return Buffer(images, torch.arange(n) % 3, torch.zeros(n, dtype=torch.long), torch.arange(n) // 2)


def test_each_copy_is_changed_in_its_own_way_and_is_of_its_sample():
    buffer = buffer_of(torch.randn(2100, 1, 8, 8, generator=torch.Generator().manual_seed(0)))  # more than a chunk
    made = changed_copies(buffer, 2, CHANGES, FORMAT, torch.Generator().manual_seed(7))
    draws = torch.Generator().manual_seed(7)
    chunks = [*buffer.images.split(FORMAT.chunk)] * 2
    assert torch.equal(made.images, torch.cat([CHANGES(chunk, draws) for chunk in chunks]))
    assert not torch.equal(made.images[:2100], made.images[2100:])
    for name in ("labels", "tasks", "experiences"):
        assert torch.equal(getattr(made, name), getattr(buffer, name).repeat(2))


def test_pixels_stay_pixels():
    pixels = torch.randint(256, (5, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = changed_copies(buffer_of(pixels), 3, CHANGES, FORMAT, torch.Generator().manual_seed(7)).images
    draws = torch.Generator().manual_seed(7)
    expected = torch.cat([CHANGES(FORMAT.normalize(pixels), draws) for _ in range(3)])
    assert made.dtype == torch.uint8
    assert (FORMAT.normalize(made) - expected).abs().max() <= 0.5 / 255 / 0.25 + 1e-5  # half a step of a pixel
