"""`RunLogger`: `metrics.csv` in the run folder, which a resumed run goes on with."""

import csv
import io
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from exml_lightning.files import write_text


class RunLogger(Logger):
    """Writes ``metrics.csv`` into the run folder.

    Lightning's CSVLogger deletes the file of an earlier start as soon as it is made, before it is known whether the run
    may continue. This one leaves it alone until `keep` says how far it counts, and then replaces it as a whole.

    Args:
        folder: The run folder.
        save_every: Rows between two writes; every checkpoint writes too.
    """

    def __init__(self, folder: str, save_every: int = 50) -> None:
        super().__init__()
        self._folder = folder
        self._save_every = save_every
        self._rows: list[dict[str, float | str]] = []

    @property
    def name(self) -> str:
        """No name: the run folder is enough."""
        return ""

    @property
    def version(self) -> str:
        """No version: the run folder is enough."""
        return ""

    @property
    def save_dir(self) -> str:
        """The run folder."""
        return self._folder

    @rank_zero_only
    def keep(self, step: int) -> None:
        """Take over the rows of an earlier start.

        Args:
            step: The step at which the run goes on; rows from there on are dropped.
        """
        path = Path(self._folder) / "metrics.csv"
        if step and path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                earlier = [{k: v for k, v in row.items() if k and v} for row in csv.DictReader(file)]
            self._rows = [{**row} for row in earlier if row.get("step", "").isdigit() and int(row["step"]) < step]

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row.

        Args:
            metrics: Value of each name.
            step: The optimiser step, from 0.
        """
        self._rows.append({"step": -1 if step is None else step, **metrics})
        if len(self._rows) % self._save_every == 0:
            self.save()

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Leave the settings to ``config.yaml``."""

    @rank_zero_only
    def save(self) -> None:
        """Write the file."""
        if not self._rows:
            return
        names = ["step", *sorted({name for row in self._rows for name in row} - {"step"})]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(Path(self._folder) / "metrics.csv", text.getvalue())

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file at the end."""
        self.save()
