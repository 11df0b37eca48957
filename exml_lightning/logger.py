"""`RunLogger`: `metrics.csv` in the run folder, kept when a run is resumed."""

import csv
from pathlib import Path

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import rank_zero_only


class RunLogger(CSVLogger):
    """Lightning's CSV logger, writing ``metrics.csv`` straight into the run folder.

    Lightning's own deletes the file of an earlier start; this one holds its rows until `keep` says how far they count.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: str) -> None:
        super().__init__(save_dir=folder, name="", version="")
        path = Path(folder) / "metrics.csv"
        self._earlier: list[dict[str, str]] = []
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                self._earlier = [row for row in csv.DictReader(file) if (row.get("step") or "").isdigit()]

    @rank_zero_only
    def keep(self, step: int) -> None:
        """Write the earlier rows before `step` again.

        Args:
            step: The step at which the run continues; 0 for a new run.
        """
        for row in self._earlier:
            if int(row["step"]) < step:
                values = {key: float(value) for key, value in row.items() if value and key and key != "step"}
                self.log_metrics(values, int(row["step"]))
        self._earlier = []
