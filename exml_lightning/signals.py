"""SIGTERM, by which clusters end a job: it stops a verb as Ctrl-C does, and lets a fit write a checkpoint first."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(SystemExit):
    """SIGTERM has arrived; the exit status is 143, as a shell reports it."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


def terminate(number: int, frame: Any) -> None:
    """Handle SIGTERM at once.

    Raises:
        Terminated: Always.
    """
    raise Terminated


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` in the body, so that files being written are taken away."""
    if threading.current_thread() is not threading.main_thread():  # Python handles signals in that one only
        yield
        return
    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
