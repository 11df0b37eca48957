"""What a sweep has to do: which cells are finished, which experts are missing, whether the settings exist."""

import contextlib
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exml_lightning.cli.sweep.grid import Grid, Job, cells_of, training_of
from exml_lightning.cli.sweep.progress import FAILED, SKIPPED, WAITING, Progress
from exml_lightning.cli.sweep.remote import last_error
from exml_lightning.cli.sweep.state import FINISHED, check_experts, experts_are_there, state_of
from exml_lightning.core.errors import ExmlError

MANY = 20
"""Grid points of a scenario and a strategy that are all checked."""


@dataclass(frozen=True)
class Plan:
    """What a sweep has to do.

    Args:
        states: What is on disk of each cell, in words.
        progress: How far each job is: the trainings of experts, then the cells.
        trainings: The training that a cell waits for.
    """

    states: dict[Job, str]
    progress: dict[Job, Progress]
    trainings: dict[Job, Job]

    @property
    def pending(self) -> list[Job]:
        """The cells that are to be run."""
        return [cell for cell in self.states if self.progress[cell].state == WAITING]


def plan_of(grid: Grid) -> Plan:
    """Look at what is on disk, and plan the rest.

    Raises:
        ExmlError: See `cells_of`. What is wrong with a single cell is in its progress.
    """
    states: dict[Job, str] = {}
    cells: dict[Job, Progress] = {}
    needed: dict[Path, Job] = {}
    trainings: dict[Job, Job] = {}
    for cell in cells_of(grid):
        try:
            training = training_of(cell, grid)
            missing = training is not None and not experts_are_there(training.folder)
            if training is not None and not missing:
                check_experts(training)
            states[cell] = state_of(cell)
            if states[cell] == FINISHED:
                cells[cell] = Progress(SKIPPED)
                continue
            if training is not None and missing:
                trainings[cell] = needed.setdefault(training.folder, training)
            cells[cell] = Progress()
        except ExmlError as error:
            states[cell] = f"refused: {error}"
            cells[cell] = Progress(FAILED, note=str(error))
    return Plan(states, {**{training: Progress() for training in needed.values()}, **cells}, trainings)


def check_settings(cells: Sequence[Job]) -> None:
    """Let the package parse the settings of one cell of each scenario, strategy and grid point, in this process.

    Where there are more than `MANY` points, only of so many that each value is among them: a cell takes some 0.3 s.

    Raises:
        ExmlError: If there is a key or a value that it does not take.
    """
    from exml_lightning.cli.main import main

    for cell in _examples(cells):
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
                main([*cell.words, "--print_config"])
        except SystemExit as error:
            if error.code:
                what = last_error(said.getvalue()) or " ".join(said.getvalue().split())
                raise ExmlError(f"{cell.scenario}, {cell.strategy}: {what}") from error


def _examples(cells: Sequence[Job]) -> list[Job]:
    """Choose cells that have all values of the grid, whatever their run."""
    points: dict[tuple[str, str], dict[tuple[str, ...], Job]] = defaultdict(dict)
    for cell in cells:
        points[cell.scenario, cell.strategy].setdefault(cell.variant, cell)
    chosen: list[Job] = []
    for found in points.values():
        seen: set[str] = set()
        for variant, cell in found.items():
            if len(found) <= MANY or not seen or not seen.issuperset(variant):
                chosen.append(cell)
                seen.update(variant)
    return chosen
