"""Progress of fits: `StageProgressBar` of Ex-Model Distillation, `ExpertProgressBar` of one expert's training."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar

from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
from exml_lightning.terminal import Bar, clock, draws_bars, say


class _OneBar(ProgressBar):
    """At most one bar at a time, which ends with whatever ends the trainer."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Bar | None = None
        self._enabled = True

    def disable(self) -> None:
        """Show nothing; Lightning calls this in all processes but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Show something again."""
        self._enabled = True

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        self._end(finished=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The same."""
        self._end(finished=False)

    def _begin(self, bar: Bar) -> None:
        self._end(finished=False)
        self._bar = bar
        bar.start()

    def _end(self, finished: bool = True) -> None:
        if self._bar is not None:
            self._bar.stop(finished)
        self._bar = None

    def _count(self) -> None:
        if self._bar is not None:
            self._bar.advance()


def _loss(trainer: Trainer) -> str:
    """Say the loss that was logged last; asked at drawings only, since a GPU has to be waited for."""
    losses = [value for name, value in trainer.progress_bar_metrics.items() if name.endswith("loss")]
    return f"loss {float(losses[0]):.3g}" if losses else ""


class StageProgressBar(_OneBar):
    """A bar for each expert's distillation, and the time left for the stream; without a terminal, a line an expert."""

    def __init__(self, buffer: SyntheticBufferCallback) -> None:
        super().__init__()
        self._buffer = buffer
        self._distilling: tuple[Bar, int] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a bar where an experience goes on in its middle: `on_train_epoch_start` begins the others."""
        done = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if 0 < done < trainer.num_training_batches:
            self._distil(trainer, done)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the bar of an experience."""
        self._distil(trainer, 0)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step."""
        self._count()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar of an experience."""
        self._distilled(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show how far measuring accuracy is, which comes at the end of an experience."""
        self._distilled(trainer)
        self._measure(trainer.num_val_batches)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show how far measuring accuracy is."""
        self._measure(trainer.num_test_batches)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Count a batch."""
        self._count()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End its bar."""
        self._end()

    on_test_batch_end = on_validation_batch_end
    on_test_end = on_validation_end

    def _measure(self, batches: Any) -> None:
        total = sum(int(count) for count in batches)
        self._begin(Bar("measuring accuracy", total, self._enabled, leave=False))

    def _distil(self, trainer: Trainer, before: int) -> None:
        def words() -> str:
            left = self._buffer.clock.while_distilling()
            return "  ".join(filter(None, [_loss(trainer), "" if left is None else f"stream {clock(left)} left"]))

        title = f"expert {trainer.current_epoch + 1}/{trainer.max_epochs} distilling"
        bar = Bar(title, trainer.num_training_batches, self._enabled, words, before)
        self._distilling = bar, before
        self._begin(bar)

    def _distilled(self, trainer: Trainer) -> None:
        """End its bar, once; where there is none, say how long it took."""
        if self._distilling is None:
            return
        bar, before = self._distilling
        self._distilling, seconds, steps = None, bar.seconds, int(bar.done) - before
        self._end()
        if self._enabled and not draws_bars():
            of = f"expert {trainer.current_epoch + 1}/{trainer.max_epochs}"
            clock, more = self._buffer.clock, " more" if before else ""
            made = f"generated in {clock.newest_generating:.1f} s, " if clock.newest_generating else ""
            say(f"{of}: {made}asked in {clock.newest_asking:.1f} s, {steps}{more} steps distilled in {seconds:.1f} s")


class ExpertProgressBar(_OneBar):
    """One bar for all epochs of an expert; its title says which is trained."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the bar, with the epochs of before a resume."""
        epochs = trainer.max_epochs or 1

        def words() -> str:
            return "  ".join(filter(None, [f"epoch {min(trainer.current_epoch + 1, epochs)}/{epochs}", _loss(trainer)]))

        batches = int(trainer.num_training_batches)
        done = trainer.current_epoch * batches
        self._begin(Bar(self._title, epochs * batches, self._enabled, words, done))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step."""
        self._count()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the bar."""
        self._end()
