"""Several processes on one machine."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning import Trainer


@contextmanager
def first_process_first(trainer: Trainer) -> Iterator[None]:
    """Let the first process of a machine do something before the others do it, too.

    Args:
        trainer: Knows the processes.
    """
    first = trainer.local_rank == 0
    if not first:
        trainer.strategy.barrier("first process first")
    yield
    if first:
        trainer.strategy.barrier("first process first")
