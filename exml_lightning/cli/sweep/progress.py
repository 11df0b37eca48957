"""How far the jobs of a sweep are: a line for each change, a table of figures at the end."""

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from exml_lightning.cli.sweep.cell import LOG
from exml_lightning.cli.sweep.grid import Job
from exml_lightning.cli.sweep.on_disk import accuracy_of
from exml_lightning.core.errors import ExmlError
from exml_lightning.terminal import print_rows, say

WAITING, RUNNING, FINISHED, SKIPPED, FAILED = "waiting", "running", "finished", "skipped", "failed"


@dataclass(frozen=True)
class State:
    """How far a job is: one of the words above; why it failed."""

    word: str = WAITING
    note: str = ""


class Progress(dict[Job, State]):
    """How far each job is: the trainings of experts, then the cells."""

    def cells(self, *words: str) -> list[Job]:
        """Return the cells, not the trainings of experts, that are in one of these states; all if none is given."""
        return [job for job, state in self.items() if job.words[0] != "experts" and (not words or state.word in words)]

    def change(self, job: Job, word: str, note: str = "") -> None:
        """Note down what a job does now, and say it."""
        self[job] = State(word, note)
        accuracy = accuracy_of(job) if word == FINISHED else None
        what = note if accuracy is None else f"{accuracy:.1f} %"
        say("  ".join(filter(None, [word, job.name, what, f"[{self.counts()}]"])))

    def counts(self) -> str:
        """Say how many cells are in which state."""
        states = Counter(self[cell].word for cell in self.cells())
        words = (FINISHED, SKIPPED, FAILED, RUNNING, WAITING)
        return "cells: " + ", ".join(f"{states[word]} {word}" for word in words if states[word])


def print_results(progress: Progress, output: Path) -> None:
    """Print mean and standard deviation over the runs of each scenario, strategy and grid point, and what has failed.

    Raises:
        ExmlError: If anything has failed.
    """
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for cell in progress.cells(FINISHED, SKIPPED):
        if (accuracy := accuracy_of(cell)) is not None:
            found[cell.scenario, cell.strategy, " ".join(cell.variant)].append(accuracy)
    if found:
        spread = {key: f" ± {stdev(values):.2f}" if len(values) > 1 else "" for key, values in found.items()}
        rows = [[*key, f"{mean(values):.2f}{spread[key]}", str(len(values))] for key, values in found.items()]
        print_rows("stream accuracy in %", ["scenario", "strategy", "with", "mean ± std", "runs"], rows)
        say(f"next: exml report {output}")
    for job, state in progress.items():
        if state.word == FAILED:
            print(f"failed: {job.name}: {state.note} ({job.folder / LOG})")
    if failed := len(progress.cells(FAILED)):
        raise ExmlError(
            f"{failed} of {len(progress.cells())} cells failed; put right what is said above, then the same command "
            "runs them again"
        )
