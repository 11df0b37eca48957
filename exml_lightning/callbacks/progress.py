"""`StreamProgressBar`: says which expert is being learned."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class StreamProgressBar(TQDMProgressBar):
    """Lightning's progress bar with the expert in place of the epoch, on a line of its own for each.

    Args:
        refresh_rate: Steps between two updates.
        leave: Keep the bar of a finished experience.
    """

    def __init__(self, refresh_rate: int = 10, leave: bool = True) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=leave)

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Begin the bar of an experience."""
        super().on_train_epoch_start(trainer, *args)
        self._describe(trainer)

    def on_train_start(self, trainer: Trainer, *args: Any) -> None:
        """Begin the bar of an experience that goes on in its middle."""
        super().on_train_start(trainer, *args)
        self._describe(trainer)

    def _describe(self, trainer: Trainer) -> None:
        self.train_progress_bar.set_description(f"Distilling expert {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Leave out the version number of the logger, which a run folder has none of."""
        return {key: value for key, value in super().get_metrics(trainer, pl_module).items() if key != "v_num"}
