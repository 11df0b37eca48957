"""`StartLoggers`: loggers begin once all checks of a fit are passed; `log_picture`."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image

from exml_lightning.callbacks.run_logger import RunLogger
from exml_lightning.core.errors import ExmlError, one_line

NEEDS = {"TensorBoardLogger": "tensorboard", "WandbLogger": "wandb"}
"""Packages, and extras of ours, of loggers of Lightning."""


def check_installed(class_path: str) -> None:
    """Raise `ExmlError`, which says how to install it, if the package of a logger is missing; before any work."""
    package = NEEDS.get(class_path.rpartition(".")[2])
    if package and find_spec(package) is None:
        raise ExmlError(
            f'trainer.logger: {package} is not installed: pip install "exml-lightning[{package}]", or in a clone '
            f'pip install -e ".[{package}]"'
        )


class StartLoggers(Callback):
    """Lets the loggers begin at the step where a fit goes on; a fit that is refused has written and sent nothing.

    Place it before `SyntheticBufferCallback`, which logs pictures. The trainer is not given the `others`, those beside
    `RunLogger`: Lightning would begin with them at once.
    """

    def __init__(self, others: Sequence[Logger] = ()) -> None:
        self._others = others

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin; `ExmlError` if a logger cannot, for instance since nobody is logged in."""
        for logger in trainer.loggers:
            if isinstance(logger, RunLogger):
                logger.keep(trainer.global_step)
        for logger in self._others:
            if isinstance(logger, TensorBoardLogger):  # events of an earlier start, which this one repeats, go
                logger._kwargs["purge_step"] = trainer.global_step or None  # they are the keywords of its writer
            try:
                _ = getattr(logger, "experiment", None)
            except Exception as error:  # of the service, whatever it is
                raise ExmlError(f"{type(logger).__name__} cannot begin ({one_line(error)[:200]})") from error
            trainer.loggers = [*trainer.loggers, logger]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """End the run at Weights & Biases: it has failed."""
        _finish(trainer, 1)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End the run at Weights & Biases: another fit in this process is another run."""
        _finish(trainer, 0)


def _finish(trainer: Trainer, status: int) -> None:
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=status)


def log_picture(logger: Logger, name: str, path: Path, step: int) -> None:
    """Log a picture, a PNG file, at an optimiser step by a logger that takes some."""
    if isinstance(logger, TensorBoardLogger):
        with Image.open(path) as image:
            logger.experiment.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(name, [str(path)], step)
