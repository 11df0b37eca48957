"""Changed copies of the images of a buffer, made once, so that teachers need be asked about each of them only once."""

import torch

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.buffer import Buffer, batches
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
    images = buffer.images
    made = images.new_empty(copies * len(buffer), *images.shape[1:])
    for copy in made.split(len(buffer)):
        for here in batches(len(buffer), image_format.chunk):
            changed = augmentation(image_format.to_input(images[here]), generator)
            copy[here] = image_format.to_pixels(changed) if images.dtype == torch.uint8 else changed
    columns = (buffer.labels, buffer.tasks, buffer.experiences)
    return Buffer(made, *(column.repeat(copies) for column in columns))
