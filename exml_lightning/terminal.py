"""What a verb prints and draws while it works: plain lines, progress bars; and `--quiet`, which leaves them out."""

import argparse
import os
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

EVERY = 0.25
"""Seconds between two drawings of a bar: what it shows of a GPU, a GPU has to be waited for."""
WORDS = 76
"""Columns of a terminal that the words of a bar take at most."""


class _Switch:
    quiet = False


def set_quiet(quiet: bool) -> None:
    """Leave out plain lines, tables and bars from now on, or print them again."""
    _Switch.quiet = quiet


def is_quiet() -> bool:
    """Return whether plain lines, tables and bars are left out."""
    return _Switch.quiet


def say(line: str) -> None:
    """Print a line, unless `--quiet` was given."""
    if not _Switch.quiet:
        print(line, flush=True)


class Quiet(argparse.Action):
    """The option ``--quiet`` of a parser: it acts at once and is no part of a configuration."""

    HELP = "Only errors, warnings and what the verb exists to print: no progress bars, no tables."

    def __init__(self, option_strings: list[str], **kwargs: Any) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=self.HELP)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Be quiet."""
        set_quiet(True)


def draws_bars() -> bool:
    """Return whether bars can be drawn: only in a terminal of a person, since a log would keep every drawing."""
    log = "CI" in os.environ or os.environ.get("TERM") in ("dumb", "unknown")
    return not _Switch.quiet and sys.stdout.isatty() and not log


def clock(seconds: float) -> str:
    """Say a time: ``0:48``, ``3:20``, ``2:05:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Bar:
    """A progress bar in the terminal; elsewhere it counts and draws nothing. Used in a ``with``, or by start and stop.

    Nothing runs beside the work: a bar is drawn as work is reported, `EVERY` so many seconds.

    Args:
        title: What is done.
        total: The work.
        shown: Draw it, where bars can be drawn.
        note: Asked at each drawing what else there is to say.
        done: Work that was done before.
        leave: Keep its line at the end.
    """

    _drawn: ClassVar["Bar | None"] = None

    def __init__(
        self,
        title: str,
        total: float,
        shown: bool = True,
        note: Callable[[], str] = lambda: "",
        done: float = 0.0,
        leave: bool = True,
    ) -> None:
        self.title, self.total, self.note, self.done = title, total, note, done
        self._shown, self._leave, self._before = shown, leave, done
        self._start = self._next = time.monotonic()
        self._progress: Progress | None = None

    def __enter__(self) -> "Bar":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *args: Any) -> None:
        self.stop(kind is None)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def start(self) -> None:
        """Start the clock, and draw the bar if it can be; within another one it is not."""
        self._start = time.monotonic()
        if not self._shown or not draws_bars() or Bar._drawn is not None:
            return
        console = Console()
        width = max(4, min(40, console.width - WORDS))
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(width),
            TextColumn("{task.fields[words]}"),
            console=console,
            auto_refresh=False,
            transient=not self._leave,
            redirect_stderr=sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(self.title, total=self.total, words="")
        self._progress.start()
        console.show_cursor(True)  # a process that is killed would leave it hidden
        Bar._drawn = self
        self.draw()

    def stop(self, finished: bool = True) -> None:
        """Draw it a last time, and leave the terminal as it was.

        Args:
            finished: Whether the work is done; else the bar stays where it was.
        """
        if self._progress is None:
            return
        try:
            if finished:
                self.draw()
        finally:
            self._progress.stop()
            self._progress = Bar._drawn = None

    def advance(self, amount: float = 1.0) -> None:
        """Count work done since the last call, and draw the bar if it is time."""
        self.done += amount
        if self._progress is not None and time.monotonic() >= self._next:
            self.draw()

    def draw(self) -> None:
        """Draw the bar now."""
        if self._progress is None:
            return
        words = [f"{self.done:.0f}/{self.total:.0f}", self._time(), self.note()]
        self._progress.update(self._task, description=self.title, words="  ".join(filter(None, words)), refresh=True)
        self._next = time.monotonic() + EVERY

    def _time(self) -> str:
        """Say how long it took, or will take."""
        done = self.done - self._before
        if self.done >= self.total:
            return clock(self.seconds)
        return f"{clock(self.seconds / done * (self.total - self.done))} left" if done > 0 else ""
