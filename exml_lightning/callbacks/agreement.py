"""`AgreementCallback`: how far the ex-model agrees with its experts, where there is no data set to be right on."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer

from exml_lightning.callbacks.results import ResultsCallback, write_matrix
from exml_lightning.core import metrics
from exml_lightning.core.agreement import agreement
from exml_lightning.module import ExModelModule
from exml_lightning.report.figures import save_matrix
from exml_lightning.terminal import print_matrix, say


class AgreementCallback(ResultsCallback):
    """Writes ``agreement_matrix.csv``, its picture and ``summary.json``.

    The matrix has a column for each expert: the fraction of its part of the buffer for which the ex-model, asked about
    all classes it knows, gives the class that the expert gave, asked about its own.
    """

    def measure(self, module: ExModelModule) -> list[float]:
        """Compare the ex-model with the experts learned so far; see `ResultsCallback.measure`."""
        module.eval()
        row = agreement(module, module.stream.buffer, module.stream.manifest.input)
        module.train()
        return row

    def values_to_log(self, module: ExModelModule) -> dict[str, float]:
        """Return the agreements; see `ResultsCallback.values_to_log`."""
        # a column for each expert would make metrics.csv as wide as the stream is long
        return {"agreement/mean": self._means()[-1], "agreement/newest": self.rows[-1][-1]}

    def write(self, folder: Path, module: ExModelModule) -> dict[str, Any]:
        """Write the matrix; see `ResultsCallback.write`."""
        means, learned = self._means(), range(module.stream.completed)
        title = f"agreement with each expert, {folder}"
        write_matrix(folder / "agreement_matrix.csv", learned, self.matrix, "mean", means)
        save_matrix(folder / "agreement_matrix.png", self.rows, _names(module), title, "asked")
        return {
            "agreement": means[-1],
            "agreement_per_expert": self.rows[-1],
            "forgetting": metrics.forgetting(self.rows, learned),
        }

    def print_matrix(self, module: ExModelModule) -> None:
        """Print the matrix; see `ResultsCallback.print_matrix`."""
        print_matrix(
            "agreement with each expert in % after each experience",
            self.rows,
            _names(module),
            {"mean": self._means()},
        )

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say what the figures do not."""
        super().on_fit_end(trainer, pl_module)
        if trainer.is_global_zero:
            say("agreement is on images made from the experts: try real ones with `exml predict`")

    def _means(self) -> list[float]:
        return [sum(row) / len(row) for row in self.rows]


def _names(module: ExModelModule) -> list[str]:
    return [f"expert {k + 1}" for k in range(module.stream.completed)]
