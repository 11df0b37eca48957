"""`StopOnSignal`: SIGTERM ends a fit after a checkpoint, so that the same command goes on from there."""

import ctypes
import signal
import sys
import threading
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher

from exml_lightning.terminal import Terminated

DEATH_OF_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
EVERY = 10
"""Steps between two looks at whether another process was told to stop."""


class StopOnSignal(Callback):
    """Stops after the step under way, where `StreamCheckpoint` then writes ``last.ckpt``.

    Before the first step of an experience, while images are generated, there is nothing to save that is not saved: then
    the signal ends the run at once. Place it before all other callbacks. It takes over SIGTERM from Lightning, which
    saves nothing, and SIGUSR1 where Lightning handles it (Slurm), which it does in the middle of a step.
    """

    def __init__(self) -> None:
        self.asked = False
        """Whether the fit was told to stop, and did."""
        self._stepping = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """End with the first process, where Lightning has started this one: it looks after the others only."""
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if trainer.local_rank > 0 and isinstance(environment, LightningEnvironment) and sys.platform == "linux":
            ctypes.CDLL(None).prctl(DEATH_OF_PARENT, signal.SIGKILL)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals over; Lightning restores the handlers of before at the end."""
        self._stepping = False
        if threading.current_thread() is not threading.main_thread():
            return

        def handle(number: int, frame: Any) -> None:
            launcher = trainer.strategy.launcher
            if isinstance(launcher, _SubprocessScriptLauncher):
                launcher.kill(signal.SIGTERM)  # the processes started by this one, which no public name gives
            if not self._stepping:
                raise Terminated
            self.asked = True

        signal.signal(signal.SIGTERM, handle)
        if hasattr(signal, "SIGUSR1") and callable(signal.getsignal(signal.SIGUSR1)):
            signal.signal(signal.SIGUSR1, handle)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Samples may be generated now."""
        self._stepping = False

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Steps begin, or go on."""
        self._stepping = True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop if any process was told to; `StreamCheckpoint` comes after this."""
        steps = batch_idx + 1
        if steps % trainer.accumulate_grad_batches == 0 and (trainer.world_size == 1 or steps % EVERY == 0):
            self._stop(trainer)
            if trainer.should_stop and steps < trainer.num_training_batches:
                trainer.limit_val_batches = 0  # of half an experience: there is no time for it, and no use

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The same between two experiences."""
        self._stop(trainer)

    def _stop(self, trainer: Trainer) -> None:
        asked = self.asked
        if trainer.world_size > 1:
            count = torch.tensor(int(asked), device=trainer.strategy.root_device)
            asked = bool(trainer.strategy.reduce(count, reduce_op="sum"))
        if asked:
            self.asked = trainer.should_stop = True
