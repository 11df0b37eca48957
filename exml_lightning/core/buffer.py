"""The buffer: samples the ex-model is distilled on, of fixed size (Section 3, Algorithm 1)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from exml_lightning.core.images import ImageFormat

MADE = 5, 6
"""Part of the buffer that samples made from experts may have beside those of nobody: five of six."""
NOBODY = -1
"""The experience of samples that were made from no expert."""


@dataclass(frozen=True)
class Buffer:
    """Samples, one row each.

    Args:
        images: ``(n, channels, height, width)``: uint8 pixels, as drawings and photographs are, or normalised floats,
            as optimised images are; `ImageFormat.to_input` takes both.
        labels: Class indices in the stream, int64 ``(n,)``.
        tasks: Task labels, int64 ``(n,)``.
        experiences: The experience whose expert each sample was made from, int64 ``(n,)``; `NOBODY` for drawings and
            photographs that were made from none.
        targets: What all experts so far said of the sample, merged: float32 ``(n, num_classes)``. Only of images that
            are asked about once, and only after the first expert, else None.
    """

    images: Tensor
    labels: Tensor
    tasks: Tensor
    experiences: Tensor
    targets: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Tensor) -> "Buffer":
        return self._each(lambda column: column[rows])

    @property
    def certain_labels(self) -> Tensor:
        """The labels of samples that were made from experts, -1 for those of `NOBODY`: int64 ``(n,)``."""
        return self.labels.masked_fill(self.experiences == NOBODY, -1)

    def columns(self) -> dict[str, Tensor]:
        """Return the columns that there are, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: column for name, column in named.items() if column is not None}

    def to(self, device: torch.device) -> "Buffer":
        """Return the buffer on `device`."""
        return self._each(lambda column: column.to(device))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the columns by name, on the CPU."""
        return self.to(torch.device("cpu")).columns()

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Buffer":
        return Buffer(**{name: change(column) for name, column in self.columns().items()})

    @staticmethod
    def cat(buffers: list["Buffer"]) -> "Buffer":
        """Join buffers, in order; they have the same columns."""
        names = buffers[0].columns()
        return Buffer(**{name: torch.cat([buffer.columns()[name] for buffer in buffers]) for name in names})


def quotas(counts: list[int], total: int) -> list[int]:
    """Share `total` places, at most ``sum(counts)``, among groups of `counts` samples as equally as these allow.

    The places of groups differ by at most one, except where a group has too few samples.
    """
    shares = [0] * len(counts)
    smallest_first = sorted(range(len(counts)), key=lambda g: (counts[g], -g))
    for i, group in enumerate(smallest_first):
        shares[group] = min(counts[group], total // (len(counts) - i))
        total -= shares[group]
    return shares


def update_buffer(
    buffer: Buffer | None, new: Buffer, size: int, generator: torch.Generator, image_format: ImageFormat
) -> Buffer:
    """Make room for the samples of a new expert (Algorithm 1, lines 4 and 5).

    Returns ``size - len(new)`` samples of `buffer` (None before the first experience), fewer only if it has fewer, then
    `new`. As many stay from each earlier experience (differing by at most one); `generator` chooses. `size` is N. Where
    the buffer holds samples of `NOBODY`, those of experts have at most `made_places`. Where one of both holds pixels
    and the other normalised images, these are made of the pixels, by `image_format`.
    """
    if buffer is None:
        return new
    experiences = buffer.experiences.cpu()
    groups = {int(e): (experiences == e).nonzero().flatten() for e in experiences.unique()}
    places, counts = min(size - len(new), len(buffer)), [len(group) for e, group in groups.items() if e != NOBODY]
    room = max(made_places(size) - len(new), places - len(groups[NOBODY])) if NOBODY in groups else places
    shares = quotas(counts, min(room, sum(counts)))
    if NOBODY in groups:  # the first
        shares = [places - sum(shares), *shares]
    rows = [
        group[torch.randperm(len(group), generator=generator)[:share]].sort().values
        for group, share in zip(groups.values(), shares, strict=True)
    ]
    old = buffer[torch.cat(rows).to(buffer.images.device)]
    if old.images.dtype != new.images.dtype:
        old, new = (replace(part, images=image_format.to_input(part.images)) for part in (old, new))
    return Buffer.cat([old, new])


def made_places(size: int) -> int:
    """Return how many of N = `size` places samples made from experts may have beside those of nobody, at least 1."""
    part, whole = MADE
    return max(size * part // whole, 1)


def share(size: int, experience: int) -> int:
    """Return the samples of N = `size` that a new expert brings: floor(N / i), i its place from 1, at least 1."""
    return max(size // (experience + 1), 1)


def batches(num_samples: int, batch_size: int) -> Iterator[slice]:
    """Cut `num_samples` rows into slices of at most `batch_size`."""
    for start in range(0, num_samples, batch_size):
        yield slice(start, min(start + batch_size, num_samples))
