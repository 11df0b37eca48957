"""`StreamCheckpoint`: one checkpoint an experience, and `last.ckpt`; `EpochCheckpoint` of one expert's training."""

import shutil
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from exml_lightning.callbacks.resume import FORMAT, go_back
from exml_lightning.core.errors import BrokenExpertError, ExmlError
from exml_lightning.files import write_whole
from exml_lightning.module import ExModelModule


class _WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place; Lightning's own way leads through the folder of temporary files."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        def write(part: Path) -> None:
            try:
                with part.open("wb") as file:  # given a path, torch does not say why it cannot write
                    torch.save(checkpoint, file)
            except RuntimeError as error:
                reason = error.__context__  # raised on the way out, in the place of what went wrong
                raise (reason if isinstance(reason, OSError) else error) from None

        write_whole(Path(path), write)


def save_checkpoint(trainer: Trainer, path: Path) -> None:
    """Write a checkpoint whole, replacing a file in one step; every process must call this."""
    for logger in trainer.loggers:
        logger.save()  # so that a resumed run finds the rows up to here
    trainer.strategy.checkpoint_io = _WholeCheckpoints()
    trainer.save_checkpoint(path)


class StreamCheckpoint(Checkpoint):
    """Writes ``checkpoints/experience=<k>.ckpt`` after each experience, and ``last.ckpt`` then and in between.

    In between means every `every_n_steps` steps and when a fit stops early (``trainer.max_time``, SIGTERM), but never
    after the last step of an experience, since Lightning would resume such a file in the next experience and leave out
    the end of this one; nor while gradients are accumulated.

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

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Write the number of the format, which `find_checkpoint` looks at."""
        checkpoint["exml_lightning"] = FORMAT

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write ``last.ckpt`` if it is time, and numbers have not gone wrong."""
        steps = batch_idx + 1
        asked = trainer.should_stop or (self.every_n_steps > 0 and steps % self.every_n_steps == 0)
        between = steps % trainer.accumulate_grad_batches != 0  # gradients of half a step are not saved
        if not asked or between or steps == trainer.num_training_batches:
            return
        assert isinstance(pl_module, ExModelModule)
        pl_module.check_numbers(wait=True)
        save_checkpoint(trainer, self.folder(trainer) / "last.ckpt")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write ``experience=<k>.ckpt`` and the same as ``last.ckpt``, unless the experience was cut short."""
        assert isinstance(pl_module, ExModelModule)
        if pl_module.stream.completed != trainer.current_epoch + 1:
            return
        path = self.folder(trainer) / f"experience={trainer.current_epoch}.ckpt"
        save_checkpoint(trainer, path)
        if trainer.is_global_zero:
            write_whole(path.with_name("last.ckpt"), lambda part: shutil.copyfile(path, part))

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Keep nothing of an expert that turned out to be broken, so that a sound one can take its place."""
        if isinstance(exception, BrokenExpertError) and trainer.is_global_zero:
            go_back(Path(trainer.default_root_dir), trainer.current_epoch)


class EpochCheckpoint(Checkpoint):
    """Keeps the newest epoch of an expert's training in one file, so that it can go on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        save_checkpoint(trainer, self.path)
