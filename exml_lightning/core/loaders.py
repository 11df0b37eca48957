"""Mini-batches from memory: Lightning's loaders without worker processes and per-sample Python."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.rng import keyed_generator

AHEAD = 64
"""Steps whose draws are made together."""


class Batch(NamedTuple):
    """A mini-batch.

    Args:
        images: Normalised images, float ``(n, channels, height, width)``.
        labels: Class indices in the stream, int64 ``(n,)``; -1 for images of nobody.
        tasks: Task labels, int64 ``(n,)``.
        rows: Places in the buffer, int64 ``(n,)``; None for samples of the test stream.
    """

    images: Tensor
    labels: Tensor
    tasks: Tensor
    rows: Tensor | None = None


class BufferLoader:
    """`n_iter` mini-batches drawn from the buffer that there is when the first is asked for.

    Lightning asks for the loader, and for its iterator, before a new experience has filled the buffer; so the buffer is
    read late, and `__iter__` does nothing. The state is the place in the experience, so that a run continues in the
    middle of one.

    Args:
        read: Returns the experience and its buffer.
        n_iter: Mini-batches of an experience.
        batch_size: Samples of a mini-batch of each process.
        augmentation: Random changes of the images.
        seed: Seed of the draws, which are keyed by experience and step, too.
        image_format: That of the images.
        rank: This process; of the samples drawn for all, it takes its share.
        world_size: Number of processes.
    """

    def __init__(
        self,
        read: Callable[[], tuple[int, Buffer]],
        n_iter: int,
        batch_size: int,
        augmentation: Augmentation,
        seed: int,
        image_format: ImageFormat,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._read, self._n_iter, self._batch_size = read, n_iter, batch_size
        self._augmentation, self._seed, self._format = augmentation, seed, image_format
        self._total, self._own = world_size * batch_size, slice(rank * batch_size, (rank + 1) * batch_size)
        self._experience = -1
        self._position = 0

    def __len__(self) -> int:
        return self._n_iter

    def __iter__(self) -> Iterator[Batch]:
        return self._batches()

    def _batches(self) -> Iterator[Batch]:
        experience, buffer = self._read()
        labels = buffer.certain_labels
        if self._experience != experience:
            self._experience, self._position = experience, 0
        while self._position < self._n_iter:
            ahead = range(self._position, min(self._position + AHEAD, self._n_iter))
            for rows, matrices in zip(*self._draw(buffer, ahead), strict=True):
                self._position += 1
                images = self._augmentation.apply(self._format.to_input(buffer.images[rows]), matrices)
                yield Batch(images, labels[rows], buffer.tasks[rows], rows)

    def _draw(self, buffer: Buffer, steps: range) -> tuple[Tensor, Tensor]:
        """Draw samples and changes of this process for some steps, and bring them to the buffer's device at once."""
        rows, draws = [], []
        for step in steps:
            generator = keyed_generator("batch", self._seed, self._experience, step)
            rows.append(torch.randint(len(buffer), (self._total,), generator=generator)[self._own])
            draws.append(self._augmentation.draw(self._total, generator)[self._own])
        matrices = self._augmentation.matrices(torch.cat(draws), *buffer.images.shape[-2:])
        device = buffer.images.device
        return torch.stack(rows).to(device), matrices.unflatten(0, (len(steps), self._batch_size)).to(device)

    def state_dict(self) -> dict[str, int]:
        """Return the place in the experience."""
        return {"experience": self._experience, "position": self._position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a place in an experience."""
        self._experience, self._position = state["experience"], state["position"]


class ImageLoader:
    """Every image of a set once, in order, normalised by `image_format`.

    Its uint8 images are kept where they are and read a mini-batch at a time, with one task label for all. The process
    `rank` serves every `world_size`-th image.
    """

    def __init__(
        self,
        images: LabelledImages,
        task: int,
        image_format: ImageFormat,
        batch_size: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._images = images
        self._rows = torch.arange(rank, len(images), world_size)
        self._labels = images.labels[self._rows]
        self._task = task
        self._format = image_format
        self._batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self._labels) // self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for rows, labels in zip(self._rows.split(self._batch_size), self._labels.split(self._batch_size), strict=True):
            images = self._format.normalize(self._images.read(rows))
            yield Batch(images, labels, torch.full_like(labels, self._task))
