"""`CheckExperts`: experts still to be learned are read once before work begins."""

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.finite import check_answers
from exml_lightning.module import ExModelModule


class CheckExperts(Callback):
    """Refuses a fit that would fail at one of its experts, that the ex-model cannot start, or whose epochs are none."""

    def __init__(self, buffer: SyntheticBufferCallback) -> None:
        self._buffer = buffer

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Raise `ExmlError`, which names the key, if a trainer's epoch would not be an experience."""
        if stage == "fit":
            _check_trainer(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check experts; Lightning has restored a checkpoint, so those learned before need no files any more.

        `ExmlError` if one still to be learned is missing or broken, or neither ex-model nor generator can work with it.
        """
        assert isinstance(pl_module, ExModelModule)
        pl_module.prepare_start()
        stream, manifest = pl_module.stream, pl_module.stream.manifest
        distillation, heads = pl_module.distillation, pl_module.heads
        taught = [name for entry in manifest.experts[: stream.num_experts] for name in entry.classes]
        if distillation.asks_all_units(heads) and len(set(taught)) < len(taught):
            raise ExmlError("model.normalize.others is for experts that share no classes: set it to 0 for these")
        for index in range(stream.completed, stream.num_experts):
            expert = stream.load_expert(index, torch.device("cpu"))
            check_answers(expert)
            self._buffer.generator.check(expert)
            distillation.check_expert(expert, len(manifest.class_names), heads)
            del expert  # else it would stay in memory while the next one is read


def _check_trainer(trainer: Trainer) -> None:
    """Refuse settings of the trainer under which an epoch would not be an experience."""
    if trainer.max_epochs == 0:
        raise ExmlError("trainer.max_epochs is 0: give the number of experts to learn, or -1 for all")
    if trainer.max_steps != -1:
        raise ExmlError("trainer.max_steps would stop within an experience: set data.n_iter, or trainer.max_epochs")
    if trainer.check_val_every_n_epoch != 1:
        raise ExmlError("trainer.check_val_every_n_epoch must be 1: accuracy is measured after each experience")
    if trainer.precision not in ("32-true", "16-mixed", "bf16-mixed"):
        raise ExmlError(f"trainer.precision is {trainer.precision}: give 32-true, 16-mixed or bf16-mixed")
