"""How far each job of a sweep is."""

import time
from dataclasses import dataclass

WAITING, TRAINING, RUNNING, LOST = "waiting", "training experts", "running", "lost"
FINISHED, SKIPPED, FAILED = "finished", "skipped", "failed"
ENDED = (FINISHED, SKIPPED, FAILED)


def cells(count: int) -> str:
    """Say how many cells."""
    return "1 cell" if count == 1 else f"{count} cells"


@dataclass
class Progress:
    """How far a job is.

    Args:
        state: One of the words above.
        node: Machine it runs on.
        pid: Its process there.
        since: When it was started, by `time.monotonic`.
        seconds: How long it took.
        lost: How often its worker was lost.
        note: Why it failed or was lost.
    """

    state: str = WAITING
    node: str = ""
    pid: int = 0
    since: float = 0.0
    seconds: float = 0.0
    lost: int = 0
    note: str = ""

    @property
    def running(self) -> bool:
        """Whether a process is at work on it."""
        return self.state in (RUNNING, TRAINING)

    @property
    def elapsed(self) -> float:
        """Seconds that it has run for, or took."""
        return time.monotonic() - self.since if self.running else self.seconds
