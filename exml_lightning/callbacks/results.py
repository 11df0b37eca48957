"""`ResultsCallback`: the accuracy matrix, `summary.json`, `test.json` and their pictures."""

import csv
import io
import json
import time
from pathlib import Path
from typing import Any, TypeVar

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
from exml_lightning.core import metrics
from exml_lightning.files import write_text
from exml_lightning.logger import RunLogger
from exml_lightning.module import ExModelModule
from exml_lightning.report.accuracy import accuracies, part_names, parts_of, print_accuracies, write_test
from exml_lightning.report.figures import save_accuracy_matrix, save_accuracy_over_time
from exml_lightning.report.table import print_accuracy_matrix, print_values

C = TypeVar("C", bound=Callback)


class ResultsCallback(Callback):
    """Keeps the figures of a run, writes them into the run folder and prints them after each experience.

    Place it after `SyntheticBufferCallback`, so that generating does not count as distilling.
    """

    def __init__(self) -> None:
        self.matrix: dict[int, list[float]] = {}
        """Accuracy on each part of the test stream after each experience."""
        self.seconds_distilling = 0.0
        self._since: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and keep the rows of ``metrics.csv`` from before a resume."""
        if isinstance(trainer.logger, RunLogger):
            trainer.logger.keep(trainer.global_step)
        self._since = time.monotonic()

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and forget the accuracies of the experience before."""
        assert isinstance(pl_module, ExModelModule)
        pl_module.accuracy = []
        self._since = time.monotonic()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock: measuring accuracy does not count as distilling."""
        self._stop_clock()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the accuracies over, write the figures so far and print the table."""
        self._stop_clock()
        assert isinstance(pl_module, ExModelModule)
        if pl_module.accuracy and pl_module.stream.completed == trainer.current_epoch + 1:
            self.matrix[trainer.current_epoch] = list(pl_module.accuracy)
            sizes, first_seen = parts_of(pl_module.stream)
            values = {f"test/accuracy_{j}": a for j, a in zip(first_seen, pl_module.accuracy, strict=True)}
            values["test/stream_accuracy"] = metrics.stream_accuracy(pl_module.accuracy, sizes)
            for logger in trainer.loggers:
                logger.log_metrics(values, trainer.global_step - 1)
            if trainer.is_global_zero:
                self._write(trainer, pl_module)
                self._print_matrix(pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and print the summary, again if the run was finished before."""
        assert isinstance(pl_module, ExModelModule)
        if trainer.is_global_zero and self.matrix and pl_module.stream.completed == trainer.max_epochs:
            summary = self._write(trainer, pl_module)
            fractions = ("stream_accuracy", "average_accuracy", "forgetting")
            values = {name.replace("_", " "): f"{100 * summary[name]:.2f} %" for name in fractions}
            values["generating"] = f"{summary['seconds_generating']:.1f} s"
            values["distilling"] = f"{summary['seconds_distilling']:.1f} s"
            values["peak memory"] = f"{summary['peak_memory_mb']:.0f} MB"
            print_values(f"finished: {trainer.default_root_dir}", values)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock of ``exml test``."""
        self._since = time.monotonic()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``test.json`` and print the accuracies."""
        assert isinstance(pl_module, ExModelModule)
        assert self._since is not None
        seconds = time.monotonic() - self._since
        if trainer.is_global_zero:
            path = Path(trainer.default_root_dir) / "test.json"
            write_test(path, pl_module.stream, pl_module.accuracy, pl_module.device, seconds)
            print_accuracies(pl_module.stream, pl_module.accuracy, str(path))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the accuracies of ``exml validate``; a fit prints its own table, and its clock goes on."""
        assert isinstance(pl_module, ExModelModule)
        self._since = time.monotonic()
        if trainer.is_global_zero and trainer.state.fn == "validate":
            print_accuracies(pl_module.stream, pl_module.accuracy, "accuracy on the test stream")

    def state_dict(self) -> dict[str, Any]:
        """Return the rows of the matrix and the seconds spent, those of the experience under way included."""
        running = 0.0 if self._since is None else time.monotonic() - self._since
        return {"matrix": self.matrix, "seconds_distilling": self.seconds_distilling + running}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to saved figures."""
        self.matrix = dict(state["matrix"])
        self.seconds_distilling = state["seconds_distilling"]

    def _stop_clock(self) -> None:
        if self._since is not None:
            self.seconds_distilling += time.monotonic() - self._since
        self._since = None

    def _write(self, trainer: Trainer, module: ExModelModule) -> dict[str, Any]:
        folder = Path(trainer.default_root_dir)
        sizes, first_seen = parts_of(module.stream)
        learned = sorted(self.matrix)
        rows = [self.matrix[k] for k in learned]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["after_experience", *first_seen, "stream"])
        streams, seen = self._over_time(module)
        for k, row, stream in zip(learned, rows, streams, strict=True):
            writer.writerow([k, *row, stream])
        write_text(folder / "accuracy_matrix.csv", text.getvalue())
        save_accuracy_over_time(folder / "accuracy_over_time.png", streams, seen, str(folder))
        save_accuracy_matrix(folder / "accuracy_matrix.png", rows, part_names(module.stream), str(folder))
        buffer = find_callback(trainer, SyntheticBufferCallback)
        summary = {
            **accuracies(module.stream, rows[-1], module.device),
            "average_accuracy": metrics.average_accuracy(rows, sizes, first_seen),
            "forgetting": metrics.forgetting(rows, first_seen),
            "seconds_generating": 0.0 if buffer is None else buffer.seconds_generating,
            "seconds_distilling": self.seconds_distilling,
            "experiences_learned": len(rows),
        }
        write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
        return summary

    def _print_matrix(self, module: ExModelModule) -> None:
        rows = [self.matrix[k] for k in sorted(self.matrix)]
        print_accuracy_matrix(rows, part_names(module.stream), *self._over_time(module))

    def _over_time(self, module: ExModelModule) -> tuple[list[float], list[float]]:
        """Return the stream accuracy after each experience, over all parts and over those met so far."""
        sizes, first_seen = parts_of(module.stream)
        rows = sorted(self.matrix.items())
        streams = [metrics.stream_accuracy(row, sizes) for _, row in rows]
        return streams, [metrics.seen_accuracy(row, sizes, first_seen, k) for k, row in rows]


def find_callback(trainer: Trainer, kind: type[C]) -> C | None:
    """Return the first callback of a kind, None if there is none."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it from outside
    return next((callback for callback in callbacks if isinstance(callback, kind)), None)
