"""What a verb prints and draws: lines, progress bars, tables; ``--quiet``; SIGTERM; what Lightning need not say."""

import argparse
import logging
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

from rich import box
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.jupyter import JupyterMixin
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

EVERY = 0.25
"""Seconds between two drawings of a bar: what it shows of a GPU, a GPU has to be waited for."""
LINE_EVERY = 30.0
"""Seconds between two lines where no bar can be drawn."""
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
    """Return whether bars can be drawn: in a person's terminal or notebook; a log would keep every drawing."""
    log = "CI" in os.environ or os.environ.get("TERM") in ("dumb", "unknown")
    return not _Switch.quiet and (Console().is_jupyter or (sys.stdout.isatty() and not log))


RANKS = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")
"""Where those who start several processes say which one it is."""


def is_first_process() -> bool:
    """Return whether this is the first of several processes, as their environment says, or the only one."""
    return next((os.environ[name] for name in RANKS if name in os.environ), "0") == "0"


class Place:
    """Where a notebook shows what changes: later pictures take the place of the first, so that it saves one."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, picture: JupyterMixin) -> None:
        """Show something of rich's; in a notebook only."""
        from IPython.display import display

        if self._handle is None:
            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)


def clock(seconds: float) -> str:
    """Say a time: ``0:48``, ``3:20``, ``2:05:00``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Bar:
    """A progress bar in a terminal or a notebook; elsewhere lines. Used in a ``with``, or by start and stop.

    Nothing runs beside the work: it is drawn as work is reported, every `EVERY` seconds, if `shown` and where bars can
    be drawn; where they cannot, a line is printed every `LINE_EVERY` seconds, and none of shorter work. `note` is asked
    each time what else there is to say; `done` is work done before; `leave` keeps its line.
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
        self._start, self._next = time.monotonic(), math.inf
        self._progress: Progress | None = None
        self._place: Place | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def __enter__(self) -> "Bar":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *args: Any) -> None:
        self.stop(kind is None)

    def start(self) -> None:
        """Start the clock, and draw the bar if it can be; within another one it is not."""
        self._start = time.monotonic()
        if not self._shown or is_quiet() or Bar._drawn is not None or not is_first_process():
            return
        console = Console()
        if not draws_bars() or (console.is_jupyter and not self._leave):  # a notebook has a place for what stays only
            self._next = self._start + LINE_EVERY
            return
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
        if console.is_jupyter:
            self._place = Place()
        else:
            self._progress.start()
            console.show_cursor(True)  # a process that is killed would leave it hidden
        Bar._drawn = self
        self.draw()

    def stop(self, finished: bool = True) -> None:
        """Draw it a last time, where it was if the work is not `finished`, and leave the terminal as it was."""
        self._next = math.inf
        if self._progress is None:
            return
        try:
            if finished:
                self.draw()
        finally:
            self._progress.stop()
            self._progress = self._place = Bar._drawn = None

    def advance(self, amount: float = 1.0) -> None:
        """Count work done since the last call, and draw the bar, or say how far it is, if it is time."""
        self.done += amount
        if time.monotonic() < self._next:
            return
        if self._progress is not None:
            self.draw()
        else:
            say(f"{self.title}: {', '.join(self._words())}")
            self._next = time.monotonic() + LINE_EVERY

    def skip(self, amount: float) -> None:
        """Count work that was done before: it says nothing of the time left."""
        self.done += amount
        self._before += amount

    def draw(self) -> None:
        """Draw the bar now."""
        if self._progress is None:
            return
        self._progress.update(self._task, description=self.title, completed=self.done, words="  ".join(self._words()))
        if self._place is not None:
            self._place.show(self._progress)
        else:
            self._progress.refresh()
        self._next = time.monotonic() + EVERY

    def _words(self) -> list[str]:
        done, left = self.done - self._before, self.total - self.done
        took = clock(self.seconds) if left <= 0 else f"{clock(self.seconds / done * left)} left" if done > 0 else ""
        return [words for words in (f"{self.done:.0f}/{self.total:.0f}", took, self.note()) if words]


MOST = 12
"""Rows and columns of a matrix that are printed, the newest ones; all are in the files of the run."""


def print_matrix(
    title: str,
    matrix: Sequence[Sequence[float]],
    columns: Sequence[str],
    totals: Mapping[str, Sequence[float]],
    place: Place,
) -> None:
    """Print fractions in per cent, one row for each experience learned; of a long stream the newest rows and columns.

    Shorter rows leave the rest empty, as does NaN; `totals` are more columns, by name. In a notebook it takes the
    `place` of the one before.
    """
    if is_quiet():
        return
    rows, shown = range(len(matrix))[-MOST:], range(len(columns))[-MOST:]
    table = Table(box=box.SIMPLE)
    table.add_column("learned", no_wrap=True)
    for j in shown:
        table.add_column(columns[j], justify="right", overflow="fold")
    for name in totals:
        table.add_column(name, justify="right", style="bold", overflow="fold")
    for i in rows:
        values = [matrix[i][j] if j < len(matrix[i]) else math.nan for j in shown]
        values += [total[i] for total in totals.values()]
        table.add_row(f"expert {i + 1}", *("" if math.isnan(value) else f"{100 * value:.1f}" for value in values))
    _print(title if len(rows) == len(matrix) else f"{title}, the last {len(rows)} of {len(matrix)}", table, place)


def print_values(title: str, values: dict[str, str], always: bool = False) -> None:
    """Print names and values; `always`: also under `--quiet`, where that is what the verb exists to print."""
    if always or not is_quiet():
        _print(title, _table((), list(values.items())))


def print_rows(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of words, which may be a stranger's, below headings and a title."""
    if not is_quiet():
        _print(title, _table(headings, rows))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(*headings, box=box.SIMPLE, show_header=bool(headings))
    for column in table.columns:
        column.overflow = "fold"
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


WIDE = 200
"""Columns of a table that is no terminal's: a file has room."""
LEAST = 12
"""Columns of a terminal that are left for each cell that is folded."""


def _narrow(table: Table, width: int) -> None:
    """Let the widest columns of a table be folded, and the others be whole."""
    table.padding = (0, 1, 0, 0)
    words = [[*map(str, column.cells), *str(column.header).split()] for column in table.columns]
    wanted = sorted((max(map(cell_len, cells)), i) for i, cells in enumerate(words))
    room = width - 2 * len(wanted) - 1
    for left, (size, i) in zip(range(len(wanted))[::-1], wanted, strict=True):
        if size > room - LEAST * left:
            break
        table.columns[i].width, room = size, room - size


class _Titled(JupyterMixin):
    """A table below its title, as one picture for a notebook."""

    def __init__(self, title: str, table: Table) -> None:
        self._parts = Text(title), table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self._parts


def _print(title: str, table: Table, place: Place | None = None) -> None:
    console = Console()
    if console.is_jupyter:
        (place or Place()).show(_Titled(title, table))
        return
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console = Console(width=WIDE)
    if console.measure(table, options=console.options.update(width=WIDE)).maximum > console.width:
        _narrow(table, console.width)
    console.print(title, soft_wrap=True, highlight=False, markup=False)
    console.print(table)


class Terminated(SystemExit):
    """SIGTERM has arrived; the exit status is 143, as a shell reports it."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


def terminate(number: int, frame: Any) -> None:
    """Handle SIGTERM at once, by raising `Terminated`."""
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


NOT_SO = (
    ".*exists and is not empty.*",
    ".*in eval mode at the start of training.*",
    ".*does not have many workers.*",
    ".*args parameter is intended to run from within Python.*",
    ".*smaller than the logging interval.*",
    ".*Total length of .list. across ranks is zero.*",
    ".*isinstance.treespec, LeafSpec.. is deprecated.*",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave these warnings and Lightning's tips out in the body; it is imported there first, if it was not before."""
    with warnings.catch_warnings():
        for message in NOT_SO:
            warnings.filterwarnings("ignore", message=message)
        import lightning.pytorch  # noqa: F401 - it sets the level of its own log

        log = logging.getLogger("lightning.pytorch")
        before = log.level
        log.setLevel(logging.WARNING)
        try:
            yield
        finally:
            log.setLevel(before)
