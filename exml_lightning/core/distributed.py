"""Several processes that do one piece of work together; alone, each of these does nothing."""

from typing import TypeVar

import torch.distributed as dist
from torch import Tensor

from exml_lightning.core.errors import BrokenExpertError

T = TypeVar("T")


def together() -> bool:
    """Whether there is a process group."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """The place of this process, from 0."""
    return dist.get_rank() if together() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if together() else 1


def broadcast(tensor: Tensor, source: int) -> None:
    """Overwrite a contiguous tensor, of the same shape everywhere, with that of the process `source`."""
    if together():
        dist.broadcast(tensor, source)


def from_first(value: T) -> T:
    """Return what the first process has, whatever the others gave."""
    if not together():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def raise_together(error: BrokenExpertError | None) -> None:
    """Raise in all processes the `BrokenExpertError` that one of them has found (None: nothing), so that none waits."""
    said = None if error is None else str(error.args[0])
    found = [said]
    if together():
        found = [None] * world_size()
        dist.all_gather_object(found, said)
    for message in found:
        if message is not None:
            raise BrokenExpertError(message) from error


def add_up(tensor: Tensor) -> Tensor:
    """Return the sum over all processes."""
    if together():
        tensor = tensor.clone()
        dist.all_reduce(tensor)
    return tensor
