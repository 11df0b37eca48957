"""What a sweep shows while it runs: a live table in a terminal, else a line for each change."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from statistics import mean
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from exml_lightning.cli.sweep.grid import EXPERTS, Job
from exml_lightning.cli.sweep.progress import (
    ENDED,
    FAILED,
    FINISHED,
    LOST,
    RUNNING,
    SKIPPED,
    TRAINING,
    WAITING,
    Progress,
    cells,
)
from exml_lightning.cli.sweep.state import accuracy_of, figures_of

FRAME = 8
"""Lines of a terminal that are not rows of the table."""
ACTIVE = (TRAINING, RUNNING, LOST, FAILED)
"""States that have rows, in this order."""


class View:
    """Shows how far the jobs are.

    Args:
        progress: How far each job is.
        console: Where to.
    """

    def __init__(self, progress: Mapping[Job, Progress], console: Console) -> None:
        self._progress, self._console = progress, console
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def __enter__(self) -> "View":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *args: Any) -> None:
        if self._console.is_terminal:
            self.refresh()
            self._live.stop()

    def refresh(self) -> None:
        """Draw the table anew; without a terminal, nothing."""
        if self._console.is_terminal:
            self._live.update(self.render(), refresh=True)

    def changed(self, job: Job) -> None:
        """Say what a job does now, where there is no table."""
        if self._console.is_terminal:
            return
        progress = self._progress[job]
        words = [progress.state, job.name]
        if progress.running:
            words.append(f"on {progress.node}, process {progress.pid}")
        if progress.state == FINISHED:
            words += filter(None, [so_far(job), duration(progress.seconds)])
        if progress.note:
            words.append(f"({progress.note})")
        words.append(f"[{self._counts()}]")
        self._console.print("  ".join(words), markup=False, highlight=False, soft_wrap=True)

    def render(self) -> Group:
        """Return the counts, and the table of what runs, was lost or failed."""
        table = Table(box=box.SIMPLE)
        table.add_column("state", no_wrap=True)
        table.add_column("cell", overflow="fold", min_width=24)
        table.add_column("where", no_wrap=True)
        table.add_column("time", justify="right", no_wrap=True)
        table.add_column("learned", overflow="fold", min_width=18)
        shown = [job for state in ACTIVE for job, progress in self._progress.items() if progress.state == state]
        for job in shown[: max(1, self._console.height - FRAME)]:
            progress = self._progress[job]
            state = progress.state if progress.state != LOST else f"lost, retry {progress.lost}"
            where = f"{progress.node}, {progress.pid}" if progress.running else ""
            row = [state, job.name, where, duration(progress.elapsed), _short(progress.note) or so_far(job)]
            table.add_row(*(Text(word) for word in row))
        return Group(Text(f"{self._counts()}{self._time_left()}"), table)

    def _counts(self) -> str:
        """Count the cells, not the trainings of experts."""
        states = Counter(progress.state for job, progress in self._progress.items() if job.strategy != EXPERTS)
        order = (FINISHED, SKIPPED, FAILED, RUNNING, LOST, WAITING)
        return f"{cells(states.total())}: " + ", ".join(f"{states[state]} {state}" for state in order if states[state])

    def _time_left(self) -> str:
        """Guess the time left, by the mean time of cells of the same scenario and strategy, else of all."""
        took: dict[tuple[str, str], list[float]] = defaultdict(list)
        for job, progress in self._progress.items():
            if progress.state == FINISHED:
                took[job.scenario, job.strategy].append(progress.seconds)
        running = sum(progress.running for progress in self._progress.values())
        if not took or not running:
            return ""
        overall = mean(mean(seconds) for seconds in took.values())
        left = 0.0
        for job, progress in self._progress.items():
            if progress.state not in ENDED:
                expected = mean(took.get((job.scenario, job.strategy), [overall]))
                left += max(0.0, expected - (progress.elapsed if progress.running else 0.0))
        return f"; about {duration(left / running)} left"


def _short(note: str) -> str:
    """Leave out the middle of a long note, where its paths are: the error is before it, the advice after."""
    return note if len(note) <= 160 else f"{note[:75]} ... {note[-75:]}"


def so_far(job: Job) -> str:
    """Say how many experts a cell has learned, and its stream accuracy."""
    figures = None if job.strategy == EXPERTS else figures_of(job)
    if figures is None:
        return ""
    learned, accuracy = figures.get("experiences_learned"), accuracy_of(figures)
    words = [] if learned is None else [f"{learned}/{figures.get('experts', '?')}"]
    return ", ".join([*words, *([] if accuracy is None else [f"{100 * accuracy:.1f} %"])])


def duration(seconds: float) -> str:
    """Say a time: ``48 s``, ``3 min 20 s``, ``2 h 05 min``."""
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    hours, left = divmod(minutes, 60)
    return f"{minutes} min {rest:02} s" if hours < 1 else f"{hours} h {left:02} min"
