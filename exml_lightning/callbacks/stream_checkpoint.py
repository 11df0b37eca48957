"""`StreamCheckpoint`: one checkpoint an experience, and `last.ckpt`."""

import shutil
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from exml_lightning.core.errors import ExmlError
from exml_lightning.files import write_whole
from exml_lightning.module import ExModelModule


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write a checkpoint whole; every process must call this.

    Args:
        trainer: The trainer.
        path: The file; replaced in one step if it exists.
    """
    for logger in trainer.loggers:
        logger.save()  # so that a resumed run finds the rows up to here
    if trainer.is_global_zero:
        write_whole(path, trainer.save_checkpoint)
    else:
        trainer.save_checkpoint(path)  # takes part and writes nothing


class StreamCheckpoint(Checkpoint):
    """Writes ``checkpoints/experience=<k>.ckpt`` after each experience, and ``last.ckpt`` then and in between.

    In between means every `every_n_steps` steps and when a fit stops early (``trainer.max_time``, SIGTERM), but never
    after the last step of an experience: Lightning would resume such a file in the next experience and leave out the
    end of this one.

    Args:
        every_n_steps: Steps between two safety copies within an experience; 0 for none.
    """

    def __init__(self, every_n_steps: int = 500) -> None:
        if every_n_steps < 0:
            raise ExmlError(f"checkpoint.every_n_steps is {every_n_steps}: give 0 or more")
        self.every_n_steps = every_n_steps

    @staticmethod
    def folder(trainer: Trainer) -> Path:
        """The folder of the checkpoints of a run."""
        return Path(trainer.default_root_dir) / "checkpoints"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write ``last.ckpt`` if it is time."""
        assert isinstance(pl_module, ExModelModule)
        if self.due(trainer, batch_idx) and pl_module.attached is not None:
            save_checkpoint(trainer, self.folder(trainer) / "last.ckpt")

    def due(self, trainer: Trainer, batch_idx: int) -> bool:
        """Whether it is time for ``last.ckpt`` after a step."""
        steps = batch_idx + 1
        asked = trainer.should_stop or (self.every_n_steps > 0 and steps % self.every_n_steps == 0)
        return asked and steps < trainer.num_training_batches

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``experience=<k>.ckpt`` and the same as ``last.ckpt``, unless the experience was cut short."""
        assert isinstance(pl_module, ExModelModule)
        if pl_module.stream.completed != trainer.current_epoch + 1:
            return
        path = self.folder(trainer) / f"experience={trainer.current_epoch}.ckpt"
        save_checkpoint(trainer, path)
        if trainer.is_global_zero:
            write_whole(path.with_name("last.ckpt"), lambda part: shutil.copyfile(path, part))
