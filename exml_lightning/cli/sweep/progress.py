"""How far the jobs of a sweep are: a line for each change, a bar in a terminal, a table of figures at the end."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from time import monotonic

from exml_lightning.cli.sweep.cell import LOG
from exml_lightning.cli.sweep.grid import EXPERTS, Job
from exml_lightning.cli.sweep.on_disk import accuracy_of, figures_of
from exml_lightning.core.errors import ExmlError
from exml_lightning.terminal import Bar, clock, print_rows, say

WAITING, RUNNING, FINISHED, SKIPPED, FAILED = "waiting", "running", "finished", "skipped", "failed"


@dataclass(frozen=True)
class State:
    """How far a job is: one of the words above, why it failed, since when (by `time.monotonic`)."""

    word: str = WAITING
    note: str = ""
    since: float = 0.0


class Progress(dict[Job, State]):
    """How far each job is: the trainings of experts, then the cells."""

    def cells(self, *words: str) -> list[Job]:
        """Return the cells, not the trainings of experts, that are in one of these states; all if none is given."""
        return [job for job, state in self.items() if job.strategy != EXPERTS and (not words or state.word in words)]

    def change(self, job: Job, word: str, note: str = "") -> None:
        """Note down what a job does now, and say it."""
        took, self[job] = monotonic() - self[job].since, State(word, note, monotonic())
        accuracy = accuracy_of(job)
        figures = [f"{accuracy:.1f} %" if accuracy is not None else "", clock(took)] if word == FINISHED else [note]
        say("  ".join(filter(None, [word, job.name, *figures, f"[{self.counts()}]"])))

    def counts(self) -> str:
        """Say how many cells are in which state."""
        states = Counter(self[cell].word for cell in self.cells())
        order = (FINISHED, SKIPPED, FAILED, RUNNING, WAITING)
        return f"{count_cells(states.total())}: " + ", ".join(
            f"{states[word]} {word}" for word in order if states[word]
        )

    def bar(self) -> Bar:
        """Return a bar that counts the cells."""
        return Bar("sweep", len(self.cells()), note=self.counts, done=len(self.cells(SKIPPED, FAILED)))

    def draw(self, bar: Bar) -> None:
        """Draw the bar: cells that have ended, and of those that run the share of their experts that is learned."""
        running = [figures_of(cell) for cell in self.cells(RUNNING)]
        learned = sum(it.get("experiences_learned", 0) / max(1, it.get("experts", 1)) for it in running)
        bar.done = len(self.cells(FINISHED, SKIPPED, FAILED)) + learned
        bar.draw()


def count_cells(count: int) -> str:
    """Say how many cells."""
    return "1 cell" if count == 1 else f"{count} cells"


def print_results(progress: Progress, output: Path) -> None:
    """Print mean and standard deviation over the runs of each scenario, strategy and grid point, and what has failed.

    Args:
        progress: How far each job is.
        output: Folder of the run folders, for the next command.

    Raises:
        ExmlError: If anything has failed.
    """
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for cell in progress.cells(FINISHED, SKIPPED):
        if (accuracy := accuracy_of(cell)) is not None:
            found[cell.scenario, cell.strategy, " ".join(cell.variant)].append(accuracy)
    if found:
        spread = {key: f" ± {stdev(values):.2f}" if len(values) > 1 else "" for key, values in found.items()}
        rows = [[*key, f"{mean(values):.2f}{spread[key]}", str(len(values))] for key, values in sorted(found.items())]
        print_rows("stream accuracy in %", ["scenario", "strategy", "with", "mean ± std", "runs"], rows)
        say(f"next: exml report {output}")
    for job, state in progress.items():
        if state.word == FAILED:
            print(f"failed: {job.name}: {state.note} ({job.folder / LOG})")
    if failed := len(progress.cells(FAILED)):
        raise ExmlError(
            f"{failed} of {count_cells(len(progress.cells()))} failed; put right what is said above, then the same "
            "command runs them again"
        )
