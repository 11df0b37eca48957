"""`CheckExperts`: experts still to be learned are read once before work begins."""

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks.find import find_callback
from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.familiarity import layers_that_tell
from exml_lightning.core.finite import check_answers
from exml_lightning.module import ExModelModule


class CheckExperts(Callback):
    """Refuses a fit that would fail at one of its experts, or that the ex-model cannot start."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check; Lightning calls this after it has restored a checkpoint.

        The files of experts learned before are not needed any more.

        Raises:
            ExmlError: If an expert that is still to be learned is missing or broken, or neither the ex-model nor the
                generator can work with it.
        """
        assert isinstance(pl_module, ExModelModule)
        buffer = find_callback(trainer, SyntheticBufferCallback)
        assert buffer is not None
        pl_module.check_start()
        stream, manifest = pl_module.stream, pl_module.stream.manifest
        listening = pl_module.distillation.normalize.listening(pl_module.heads)
        all_units = listening is not None and listening.all_units
        taught = [name for entry in manifest.experts[: stream.num_experts] for name in entry.classes]
        if all_units and len(set(taught)) < len(taught):
            raise ExmlError("model.normalize.others is for experts that share no classes: set it to 0 for these")
        for index in range(stream.completed, stream.num_experts):
            expert = stream.load_expert(index, torch.device("cpu"))
            check_answers(expert)
            buffer.generator.check(expert)
            if all_units:
                expert.check_every_unit(len(pl_module.known))
            if listening is not None and listening.familiarity:
                layers_that_tell(expert)
            del expert  # else it would stay in memory while the next one is read
