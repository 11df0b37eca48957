"""Changed copies of the images of a buffer, made once, so that teachers need be asked about each of them only once."""

from dataclasses import replace

import torch

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.images import ImageFormat


def changed_copies(
    buffer: Buffer, copies: int, augmentation: Augmentation, image_format: ImageFormat, generator: torch.Generator
) -> Buffer:
    """Change each image of a buffer `copies` times, each time in another way.

    Args:
        buffer: The samples, n of them.
        copies: Of each, 1 or more.
        augmentation: Changes them, by draws of `generator`.
        image_format: That of the images.
        generator: On the CPU.

    Returns:
        ``copies * n`` samples: first one copy of each, then another. Pixels stay pixels, rounded; normalised images
        stay normalised. What else there is of a sample is that of each of its copies.
    """
    kept = replace(buffer, targets=None)
    parts = []
    for _ in range(copies):
        for start in range(0, len(buffer), image_format.chunk):
            images = buffer.images[start : start + image_format.chunk]
            changed = augmentation(image_format.to_input(images), generator)
            parts.append(image_format.to_pixels(changed) if images.dtype == torch.uint8 else changed)
    samples = Buffer.cat([kept] * copies)
    return replace(samples, images=torch.cat(parts))
