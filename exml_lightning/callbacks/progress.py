"""`StageProgressBar`: a progress bar that says which expert is being learned or trained."""

from collections.abc import Callable
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm.auto import tqdm


class StageProgressBar(TQDMProgressBar):
    """Lightning's progress bar of an epoch, with words of ours in place of its number.

    Args:
        describe: Says what the current epoch of a trainer does.
        refresh_rate: Steps between two updates.
        leave: Give each epoch a line of its own, and keep it.
    """

    def __init__(self, describe: Callable[[Trainer], str], refresh_rate: int = 10, leave: bool = True) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=leave)
        self._describe = describe

    @property
    def train_description(self) -> str:
        """What the current epoch does."""
        return self._describe(self.trainer)

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        """Begin a bar only where an epoch goes on in its middle: `on_train_epoch_start` begins the others."""
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if 0 < done < trainer.num_training_batches:
            self.train_progress_bar = self.init_train_tqdm()
            self._restart(done)
        else:
            self.train_progress_bar = tqdm(disable=True)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Begin the bar of an epoch."""
        if self._leave or self.train_progress_bar.disable:
            self.train_progress_bar = self.init_train_tqdm()
        self._restart(0)

    def _restart(self, done: int) -> None:
        bar = self.train_progress_bar
        bar.reset(total=self.total_train_batches)
        bar.n = done
        bar.set_description(self.train_description)

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Leave out the version number of a logger, which a run folder has none of."""
        return {key: value for key, value in super().get_metrics(trainer, pl_module).items() if key != "v_num"}
