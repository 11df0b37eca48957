"""One callback asks for another."""

from typing import TypeVar

from lightning import Trainer
from lightning.pytorch.callbacks import Callback

C = TypeVar("C", bound=Callback)


def find_callback(trainer: Trainer, kind: type[C]) -> C | None:
    """Return the first callback of a kind, None if there is none."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it from outside
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
