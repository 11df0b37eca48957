"""`RunLogger`: `metrics.csv` in the run folder, which a resumed run goes on with."""

import csv
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from exml_lightning.files import write_whole


class RunLogger(Logger):
    """Writes ``metrics.csv`` into the run folder.

    Lightning's CSVLogger deletes the file of an earlier start as soon as it is made, before it is known whether the run
    may continue. This one leaves it alone until `keep` says how far it counts. The file is always replaced as a whole,
    every `save_every` rows (more rows as it grows), and at every checkpoint; new columns come after the others.
    """

    def __init__(self, folder: str, save_every: int = 50) -> None:
        super().__init__()
        self._folder = folder
        self._save_every = save_every
        self._path = Path(folder) / "metrics.csv"
        self._written = 0
        self._just_saved = False
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
        """Take over the rows of an earlier start, but for those from `step` on, at which the run goes on."""
        if not step or not self._path.is_file():
            return
        with self._path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if (row.get("step") or "").isdigit() and int(row["step"]) < step:
                    self._rows.append({name: value for name, value in row.items() if name and value})
        self._write()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add a row of values by name, with the optimiser step, from 0."""
        self._rows.append({"step": -1 if step is None else step, **metrics})
        # Lightning logs a step after the checkpoint of that step is written: that row must not wait.
        if self._just_saved or len(self._rows) - self._written >= max(self._save_every, self._written // 10):
            self._write()
            self._just_saved = False

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Leave the settings to ``config.yaml``."""

    @rank_zero_only
    def save(self) -> None:
        """Add the new rows to the file; a checkpoint does so before it is written."""
        self._write()
        self._just_saved = True

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write the file at the end."""
        self._write()

    def _write(self) -> None:
        if self._written == len(self._rows):
            return
        names = dict.fromkeys(name for row in self._rows for name in row)

        def write(part: Path) -> None:
            with part.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, fieldnames=list(names), lineterminator="\n")
                writer.writeheader()
                writer.writerows(self._rows)

        write_whole(self._path, write)
        self._written = len(self._rows)
