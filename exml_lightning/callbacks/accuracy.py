"""`AccuracyCallback`: the accuracy matrix on a test stream of labelled images, a scenario's or a person's own."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from torch import Tensor

from exml_lightning.callbacks.measured import Measured, chance, part_names, parts_of
from exml_lightning.callbacks.results import ResultsCallback, write_matrix
from exml_lightning.callbacks.stored_experts import StoredExperts
from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
from exml_lightning.core import metrics
from exml_lightning.core.confusion import grown
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.module import ExModelModule
from exml_lightning.report.figures import save_accuracy_over_time, save_matrix
from exml_lightning.terminal import print_matrix, say

STORED = ("stored_experts_by", "stored_experts")
"""What ``summary.json`` calls the better baseline, and its accuracy."""


class AccuracyCallback(ResultsCallback):
    """Writes ``accuracy_matrix.csv``, a column for each part of the test stream, its pictures and ``summary.json``."""

    def __init__(self, buffer: SyntheticBufferCallback, command: str = "", is_kept: bool = True) -> None:
        super().__init__(buffer, command, is_kept)
        self._counts: Tensor | None = None
        self._parts: dict[int, int] = {}
        """The sizes of the parts that rows were measured on, by the experience that brought them."""
        self._stored: StoredExperts | None = StoredExperts()
        """None where some experts have not seen all test images."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Fit the rows of a checkpoint to the test stream; `ExmlError` if they were measured on other images.

        The stream may have grown by classes, of which no ex-model of before knew anything.
        """
        assert isinstance(pl_module, ExModelModule)
        stream = pl_module.stream
        sizes, first_seen = parts_of(stream)
        now = dict(zip(first_seen, sizes, strict=True))
        before, met = ({k: n for k, n in parts.items() if k < stream.completed} for parts in (self._parts, now))
        if self.matrix and before != met:
            raise ExmlError(
                "the test images of classes learned so far are not those that the run was measured on (there are "
                f"{sum(met.values())}, there were {sum(before.values())}): give the same ones, or start another run "
                "with --trainer.default_root_dir DIR"
            )
        for k, row in self.matrix.items():
            found = dict(zip(self._parts, row, strict=True))
            self.matrix[k] = [found.get(first, 0.0) for first in now]
        if self.matrix and self._parts != now:
            if self._stored is not None and stream.completed and trainer.is_global_zero:
                say(
                    "what the stored experts have together is not known: those learned before were not asked about all "
                    "of these images; measure it by `exml test -c ensemble_average` and the options of this command"
                )
            self._stored = None
        self._parts = now
        if self._counts is not None:
            self._counts = grown(self._counts, len(stream.manifest.class_names))

    def meet(self, module: ExModelModule, expert: Expert) -> None:
        """Ask the expert about the test stream; see `ResultsCallback.meet`."""
        if self._stored is not None:
            trainer = module.trainer
            shown = trainer.progress_bar_callback is not None and trainer.is_global_zero
            self._stored.meet(expert, module.stream, shown)

    def measure(self, module: ExModelModule) -> list[float]:
        """Return the accuracies that validation has just measured; see `ResultsCallback.measure`."""
        self._counts = module.confusion
        return [] if module.confusion is None else self._measured(module).row

    def values_to_log(self, module: ExModelModule) -> dict[str, float]:
        """Return the accuracies; see `ResultsCallback.values_to_log`."""
        measured = self._measured(module)
        values = {f"test/accuracy_{j}": a for j, a in zip(parts_of(module.stream)[1], measured.row, strict=True)}
        return {**values, "test/stream_accuracy": measured.stream_accuracy}

    def write(self, folder: Path, module: ExModelModule) -> dict[str, Any]:
        """Write the matrix; see `ResultsCallback.write`."""
        sizes, first_seen = parts_of(module.stream)
        streams, seen = self.over_time(module)
        beside = self.beside(module)
        write_matrix(folder / "accuracy_matrix.csv", first_seen, self.matrix, "stream", streams)
        save_accuracy_over_time(folder / "accuracy_over_time.png", streams, seen, str(folder), beside)
        totals = {"whole stream": streams, **beside}
        save_matrix(folder / "accuracy_matrix.png", self.rows, part_names(module.stream), str(folder), totals=totals)
        measured = self._measured(module)
        measured.write_confusion(folder, "confusion_matrix")
        best = {} if self._stored is None else dict(zip(STORED, self._stored.found[max(self.matrix)], strict=True))
        average = metrics.average_accuracy(self.rows, sizes, first_seen)
        return {
            **measured.figures(),
            "average_accuracy": None if math.isnan(average) else average,
            "forgetting": metrics.forgetting(self.rows, first_seen),
            **best,
        }

    def print_matrix(self, module: ExModelModule) -> None:
        """Print the matrix; see `ResultsCallback.print_matrix`."""
        streams, seen = self.over_time(module)
        beside = self.beside(module)
        del beside["chance"]  # the last words say it
        totals = {"seen so far": seen, "whole stream": streams, **beside}
        print_matrix("accuracy in % after each experience", self.rows, part_names(module.stream), totals, self._place)

    def last_words(self, figures: Mapping[str, Any]) -> dict[str, float]:
        """Return accuracy beside what it is worth; see `ResultsCallback.last_words`."""
        stored = {}
        if self._stored is not None:
            by, together = (figures[name] for name in STORED)
            stored[f"stored experts together ({by.replace('_', ' ')})"] = together
        over_time = {"average accuracy": figures["average_accuracy"], "forgetting": figures["forgetting"]}
        return {
            **{name: value for name, value in over_time.items() if value is not None},
            "chance": figures["chance"],
            **stored,
            "ex-model": figures["stream_accuracy"],
        }

    def over_time(self, module: ExModelModule) -> tuple[list[float], list[float]]:
        """Return the accuracy after each experience on the whole test stream, and on the parts met so far.

        The latter is NaN before the first part is met.
        """
        sizes, first_seen = parts_of(module.stream)
        rows = sorted(self.matrix.items())
        streams = [metrics.stream_accuracy(row, sizes) for _, row in rows]
        return streams, [metrics.seen_accuracy(row, sizes, first_seen, k) for k, row in rows]

    def beside(self, module: ExModelModule) -> dict[str, list[float]]:
        """Return what accuracy on the whole test stream is to be compared with after each experience, by name."""
        classes_of, learned = module.stream.manifest.classes_of, sorted(self.matrix)
        known = [{c for j in range(k + 1) for c in classes_of(j)} for k in learned]
        stored = {} if self._stored is None else {"stored experts": [self._stored.found[k][1] for k in learned]}
        return {**stored, "chance": [chance(module.stream, classes) for classes in known]}

    def state_dict(self) -> dict[str, Any]:
        """Return also what was counted last, and the parts it was counted on."""
        stored = None if self._stored is None else self._stored.state_dict()
        return {**super().state_dict(), "counts": self._counts, "parts": self._parts, "stored": stored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to saved figures."""
        super().load_state_dict(state)
        self._counts, self._parts = state["counts"], dict(state["parts"])
        if state["stored"] is None:
            self._stored = None
        elif self._stored is not None:
            self._stored.load_state_dict(state["stored"])

    def _measured(self, module: ExModelModule) -> Measured:
        assert self._counts is not None
        return Measured(module.stream, self._counts, module.known.nonzero().flatten().tolist())
