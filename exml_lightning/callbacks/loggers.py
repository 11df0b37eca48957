"""Loggers beside `metrics.csv`: TensorBoard and Weights & Biases, in the run folder, with pictures."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from lightning import Trainer
from lightning.fabric.loggers.logger import _DummyExperiment, rank_zero_experiment
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from exml_lightning.callbacks.run_logger import RunLogger
from exml_lightning.core.errors import ExmlError, one_line


class TensorBoard(TensorBoardLogger):
    """Writes ``tensorboard/`` into the run folder: losses, accuracies, and pictures of the generated samples.

    Nothing is written before all checks of a fit are passed.

    Args:
        folder: The run folder; null for that of the run.

    Raises:
        ExmlError: If TensorBoard is not installed.
    """

    def __init__(self, folder: str | None = None) -> None:
        _require("tensorboard", "TensorBoard")
        super().__init__(folder or "runs", name="tensorboard", version="")
        self._started = False

    @rank_zero_only
    def keep(self, step: int) -> None:
        """Begin to write.

        Args:
            step: The step at which the run goes on; what an earlier start wrote from there on is not shown any more.
        """
        self._kwargs["purge_step"] = step or None
        self._started = True

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What writes; nothing before `keep`."""
        return super().experiment if self._started else _DummyExperiment()

    @rank_zero_only
    def save(self) -> None:
        """Write what waits, without the ``hparams.yaml`` of Lightning: the settings are in ``config.yaml``."""
        self.experiment.flush()


class WandB(WandbLogger):
    """Logs to Weights & Biases: losses, accuracies, and pictures of the generated samples.

    Nothing is sent before all checks of a fit are passed. A run that is resumed is another run of the same name there,
    unless it is given an `id`.

    Args:
        folder: Where its local files go (``wandb/`` in it); null for the run folder.
        project: Name of the project.
        name: Name of the run; null for its folder.
        id: Identifier of the run there; the same one goes on with it.
        offline: Send nothing: ``wandb sync`` does it later.

    Raises:
        ExmlError: If wandb is not installed.
    """

    def __init__(
        self,
        folder: str | None = None,
        project: str = "exml_lightning",
        name: str | None = None,
        id: str | None = None,
        offline: bool = False,
    ) -> None:
        _require("wandb", "Weights & Biases")
        super().__init__(name or folder, folder or "runs", id=id, offline=offline, project=project)
        self._started = False

    @rank_zero_only
    def keep(self, step: int) -> None:
        """Begin to log.

        Args:
            step: The step at which the run goes on.

        Raises:
            ExmlError: If it cannot begin, for instance since nobody is logged in.
        """
        import wandb

        Path(str(self.save_dir)).mkdir(parents=True, exist_ok=True)
        self._started = True
        try:
            _ = self.experiment
        except wandb.errors.Error as error:
            raise ExmlError(
                f"Weights & Biases cannot begin ({one_line(error)[:200]}): `wandb login`, or "
                "--trainer.logger.init_args.offline true"
            ) from error

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """What logs; nothing before `keep`."""
        return super().experiment if self._started else _DummyExperiment()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write and send what waits, and end the run there: another fit in this process is another run."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=0 if status == "success" else 1)
        self._experiment, self._started = None, False


def start_loggers(trainer: Trainer) -> None:
    """Let the loggers of ours begin, once all checks are passed and it is known where a fit goes on."""
    for logger in trainer.loggers:
        if isinstance(logger, RunLogger | TensorBoard | WandB):
            logger.keep(trainer.global_step)


def log_picture(logger: Logger, name: str, path: Path, step: int) -> None:
    """Log a picture, by a logger that takes some.

    Args:
        logger: Any logger.
        name: What the picture shows.
        path: Its file, PNG.
        step: The optimiser step.
    """
    if isinstance(logger, TensorBoardLogger):
        with Image.open(path) as image:
            logger.experiment.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(name, [str(path)], step)


def _require(package: str, name: str) -> None:
    if find_spec(package) is None:
        raise ExmlError(
            f'trainer.logger: {name} is not installed: pip install "exml-lightning[{package}]", or in a clone '
            f'pip install -e ".[{package}]"'
        )
