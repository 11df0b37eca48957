"""`AccuracyCallback`: the accuracy matrix on the test stream of a scenario."""

from pathlib import Path
from typing import Any

from exml_lightning.callbacks.results import ResultsCallback, write_matrix
from exml_lightning.callbacks.summary import accuracies, part_names, parts_of
from exml_lightning.core import metrics
from exml_lightning.module import ExModelModule
from exml_lightning.report.figures import save_accuracy_over_time, save_matrix
from exml_lightning.terminal import print_matrix


class AccuracyCallback(ResultsCallback):
    """Writes ``accuracy_matrix.csv``, a column for each part of the test stream, its pictures and ``summary.json``."""

    def measure(self, module: ExModelModule) -> list[float]:
        """Return the accuracies that validation has just measured; see `ResultsCallback.measure`."""
        return list(module.accuracy)

    def values_to_log(self, module: ExModelModule) -> dict[str, float]:
        """Return the accuracies; see `ResultsCallback.values_to_log`."""
        sizes, first_seen = parts_of(module.stream)
        values = {f"test/accuracy_{j}": a for j, a in zip(first_seen, self.rows[-1], strict=True)}
        return {**values, "test/stream_accuracy": metrics.stream_accuracy(self.rows[-1], sizes)}

    def write(self, folder: Path, module: ExModelModule) -> dict[str, Any]:
        """Write the matrix; see `ResultsCallback.write`."""
        sizes, first_seen = parts_of(module.stream)
        streams, seen = self.over_time(module)
        write_matrix(folder / "accuracy_matrix.csv", first_seen, self.matrix, "stream", streams)
        save_accuracy_over_time(folder / "accuracy_over_time.png", streams, seen, str(folder))
        save_matrix(folder / "accuracy_matrix.png", self.rows, part_names(module.stream), str(folder))
        return {
            **accuracies(module.stream, self.rows[-1]),
            "average_accuracy": metrics.average_accuracy(self.rows, sizes, first_seen),
            "forgetting": metrics.forgetting(self.rows, first_seen),
        }

    def print_matrix(self, module: ExModelModule) -> None:
        """Print the matrix; see `ResultsCallback.print_matrix`."""
        streams, seen = self.over_time(module)
        print_matrix(
            "accuracy in % after each experience",
            self.rows,
            part_names(module.stream),
            {"seen so far": seen, "whole stream": streams},
        )

    def over_time(self, module: ExModelModule) -> tuple[list[float], list[float]]:
        """Return the accuracy after each experience on the whole test stream, and on the parts met so far."""
        sizes, first_seen = parts_of(module.stream)
        rows = sorted(self.matrix.items())
        streams = [metrics.stream_accuracy(row, sizes) for _, row in rows]
        return streams, [metrics.seen_accuracy(row, sizes, first_seen, k) for k, row in rows]
