"""`ResultsCallback`: what accuracy and agreement have in common: the matrix, and when files are written."""

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks.summary import peak_memory_mb, statistics_used, write_summary
from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
from exml_lightning.core.expert import Expert
from exml_lightning.files import write_text
from exml_lightning.module import ExModelModule
from exml_lightning.terminal import Place, print_values


class ResultsCallback(Callback, ABC):
    """Keeps a row of figures for each experience, writes them into the run folder and prints them.

    It comes after `buffer`, which knows what the stream has cost. A run folder that is not kept is not told.
    """

    def __init__(self, buffer: SyntheticBufferCallback, command: str = "", is_kept: bool = True) -> None:
        self._buffer, self._command, self._is_kept = buffer, command, is_kept
        buffer.visitors.append(self.meet)
        self.matrix: dict[int, list[float]] = {}
        """A row for each experience learned, fractions."""
        self._peak = 0.0
        self._place = Place()

    @abstractmethod
    def meet(self, module: ExModelModule, expert: Expert) -> None:
        """Ask a new expert what there is to ask, while it is in memory; its experience has just begun."""

    @abstractmethod
    def measure(self, module: ExModelModule) -> list[float]:
        """Return the row of the experience just learned; empty if there is none."""

    @abstractmethod
    def write(self, folder: Path, module: ExModelModule) -> dict[str, Any]:
        """Write the matrix as a table and pictures; return the figures for ``summary.json``, fractions first."""

    @abstractmethod
    def print_matrix(self, module: ExModelModule) -> None:
        """Print the matrix."""

    @abstractmethod
    def last_words(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """Return what a finished fit says of the figures, fractions by name; the last is the one that matters."""

    @abstractmethod
    def values_to_log(self, module: ExModelModule) -> dict[str, float]:
        """Return the figures of the experience just learned, for loggers."""

    @property
    def rows(self) -> list[list[float]]:
        """The rows of the matrix, in order."""
        return [self.matrix[k] for k in sorted(self.matrix)]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin another table: a notebook may run several fits."""
        self._place = Place()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the figures over, write those so far and print the table."""
        assert isinstance(pl_module, ExModelModule)
        if pl_module.stream.completed != trainer.current_epoch + 1:
            return  # the experience was cut short
        row = self.measure(pl_module)
        if not row:
            return
        self.matrix[trainer.current_epoch] = row
        for logger in trainer.loggers:
            logger.log_metrics(self.values_to_log(pl_module), trainer.global_step - 1)
        if trainer.is_global_zero:
            self._write_all(trainer, pl_module)
            self.print_matrix(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and print the summary, again if the run was finished before."""
        assert isinstance(pl_module, ExModelModule)
        if trainer.is_global_zero and self.matrix and pl_module.stream.completed == trainer.max_epochs:
            figures, costs = self._write_all(trainer, pl_module)
            completed, there = pl_module.stream.completed, len(pl_module.stream.manifest.experts)
            values = {"experts": f"{completed} of {there} (trainer.max_epochs)"} if completed < there else {}
            values["generating"] = f"{costs['seconds_generating']:.1f} s"
            values["distilling"] = f"{costs['seconds_distilling']:.1f} s"
            values["peak memory"] = f"{costs['peak_memory_mb']:.0f} MB"
            values |= {name: f"{100 * value:.2f} %" for name, value in self.last_words(figures).items()}
            print_values(f"finished: {trainer.default_root_dir}" if self._is_kept else "finished", values)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows of the matrix and the peak of memory."""
        return {"matrix": self.matrix, "peak_memory_mb": self._peak}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to saved figures."""
        self.matrix, self._peak = dict(state["matrix"]), state["peak_memory_mb"]

    def _write_all(self, trainer: Trainer, module: ExModelModule) -> tuple[dict[str, Any], dict[str, float]]:
        folder = Path(trainer.default_root_dir)
        figures = self.write(folder, module)
        self._peak = max(self._peak, peak_memory_mb(module.device))
        costs = {
            "peak_memory_mb": self._peak,
            "seconds_generating": self._buffer.clock.seconds_generating,
            "seconds_distilling": self._buffer.clock.seconds_distilling,
        }
        work = {"steps": module.stream.n_iter, "images": self._buffer.size}
        if self._buffer.uses_statistics(module):
            work |= statistics_used(module.stream.manifest.experts[: module.stream.num_experts])
        all_figures = {**figures, **costs, "experiences_learned": len(self.matrix), **work}
        write_summary(folder / "summary.json", all_figures, module.stream, module.device, self._command)
        return figures, costs


def write_matrix(
    path: Path, columns: Sequence[object], matrix: dict[int, list[float]], last: str, totals: Sequence[float]
) -> None:
    """Write a matrix as CSV: a row after each experience.

    Shorter rows leave the rest of `columns` empty; `totals` are the values of one more column, named `last`.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["after_experience", *columns, last])
    for (k, row), total in zip(sorted(matrix.items()), totals, strict=True):
        writer.writerow([k, *row, *[""] * (len(columns) - len(row)), total])
    write_text(path, text.getvalue())
