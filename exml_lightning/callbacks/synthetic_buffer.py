"""`SyntheticBufferCallback`: regenerates and subsamples the buffer at each new expert (Section 3, Algorithm 1)."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks.broken import check_experts, pass_over
from exml_lightning.callbacks.loggers import log_picture
from exml_lightning.callbacks.resume import go_back
from exml_lightning.callbacks.stream_clock import StreamClock
from exml_lightning.core.buffer import Buffer, update_buffer
from exml_lightning.core.errors import BrokenExpertError, ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.familiarity import layers_that_tell
from exml_lightning.core.finite import check_answers
from exml_lightning.core.generators import Auxiliary, Generator, ModelInversion, Precomputed, Procedural
from exml_lightning.core.generators.auxiliary import label_by_expert
from exml_lightning.core.rng import keyed_generator
from exml_lightning.core.strategy_name import STRATEGY_NAME
from exml_lightning.data import ExpertStream
from exml_lightning.generation.samples import generate_samples
from exml_lightning.generation.sources import connect
from exml_lightning.module import ExModelModule
from exml_lightning.report.grid import save_grid
from exml_lightning.report.samples import rows_shown, save_samples


class SyntheticBufferCallback(Callback):
    """Fills the buffer of an `ExpertStream` from each new expert and hands the expert to the ex-model.

    Writes a grid of the new images to ``buffer/experience=<k>.png`` in the run folder, and the plain pixels of some of
    them to ``samples/experience=<k>.png``, with how probable the expert finds their labels.

    Args:
        size: N, the samples that the buffer holds; at least one for each expert.
        generator: How samples are made; default `ModelInversion`.
        cache: Folder that keeps generated samples for other runs; null for none. Delete it whenever you like.
        name: What the strategy is called in run folders and reports, of a-z, 0-9 and _; default the generator's name.

    Example:
        >>> from exml_lightning import Noise, SyntheticBufferCallback
        >>> SyntheticBufferCallback(size=500, generator=Noise()).generator
        Noise()
    """

    def __init__(
        self,
        size: int = 5000,
        generator: Generator | None = None,
        cache: str | None = "runs/cache",
        name: str | None = None,
    ) -> None:
        if size < 1:
            raise ExmlError(f"buffer.size is {size}: give 1 or more")
        if name is not None and not STRATEGY_NAME.fullmatch(name):
            raise ExmlError(f"buffer.name is {name!r}: give a short one of a-z, 0-9 and _")
        self.size = size
        self.generator = generator or ModelInversion()
        self.cache = None if cache is None else Path(cache)
        self.clock = StreamClock((), 0)
        """How long the stream has taken, and will take."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Check what can be checked before any work, and set the number of epochs: one for each expert.

        Raises:
            ExmlError: If there are too few experts, if the buffer is too small, or if the images that a generator draws
                from are missing or do not fit.
        """
        if stage != "fit":
            return
        stream = _stream(trainer)
        _check_trainer(trainer)
        assert isinstance(pl_module, ExModelModule)
        if pl_module.distillation.lambda_ce or pl_module.distillation.merge == "sample":
            if self._whole_set:
                raise ExmlError(
                    "with whole_set all labels are those of the newest expert, which would make the ex-model forget "
                    "the others: set model.lambda_ce to 0 and model.merge to unit"
                )
            if isinstance(self.generator, Procedural) and self.generator.fresh:
                raise ExmlError("fresh images have no labels: set model.lambda_ce to 0 and model.merge to unit")
        if self._whole_set and not stream.test_parts:
            raise ExmlError(
                "with whole_set the buffer keeps no images of the experts before, so agreement with them cannot be "
                "measured: set whole_set to false, or give data.scenario"
            )
        connect(self.generator, stream, self.size)
        trainer.fit_loop.max_epochs = stream.num_experts
        if self.size < trainer.fit_loop.max_epochs:
            raise ExmlError(
                f"buffer.size is {self.size}, but the stream has {trainer.fit_loop.max_epochs} experts: "
                f"each needs a place in the buffer, so give {trainer.fit_loop.max_epochs} or more"
            )

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the experts. Lightning calls this after it has restored a checkpoint.

        Raises:
            ExmlError: If an expert that is still to be learned is missing or broken, or neither the ex-model nor the
                generator can work with it.
        """
        assert isinstance(pl_module, ExModelModule)
        pl_module.check_start()

        all_units, manifest = pl_module.distillation.asks_all_units(pl_module.heads), _stream(trainer).manifest
        taught = [name for entry in manifest.experts[: _stream(trainer).num_experts] for name in entry.classes]
        if all_units and len(set(taught)) < len(taught):
            raise ExmlError(
                "model.others is for experts that share no classes: learn these in a run with model.others 0"
            )

        def check(expert: Expert) -> None:
            self.generator.check(expert)
            if all_units:
                expert.check_every_unit(len(pl_module.known))
            if pl_module.distillation.familiarity_for(pl_module.heads):
                layers_that_tell(expert)

        check_experts(_stream(trainer), check)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an experience: a run that is resumed in the middle of one gets no `on_train_epoch_start`."""
        shares = [self.size // (k + 1) for k in range(trainer.max_epochs or 0)]
        made = sum(shares[: _stream(trainer).experience + 1])
        self.clock = StreamClock(shares, int(trainer.num_training_batches), made, self.clock.seconds_generating)
        self._begin(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an experience."""
        self._begin(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Look whether numbers have gone wrong in the steps before."""
        self.look(trainer, pl_module, wait=False)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """The same at the end of an experience."""
        if batch_idx + 1 == trainer.num_training_batches:
            self.look(trainer, pl_module, wait=True)

    def _begin(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ExModelModule)
        stream, experience = _stream(trainer), trainer.current_epoch
        if pl_module.attached == experience or experience in stream.skipped:
            return
        pl_module.detach()
        try:
            expert = stream.load_expert(experience, pl_module.device)
            if stream.experience != experience:
                check_answers(expert)
                self._begin_new(trainer, pl_module, expert)
            assert stream.buffer is not None
            stream.buffer = stream.buffer.to(pl_module.device)  # a checkpoint brings it back on the CPU
            pl_module.attach(expert)
        except BrokenExpertError as error:
            self._skip(trainer, pl_module, error)

    def _begin_new(self, trainer: Trainer, pl_module: ExModelModule, expert: Expert) -> None:
        stream, experience = _stream(trainer), expert.experience
        learned = experience - len(stream.skipped)
        share = self.size // (learned + 1)
        if isinstance(self.generator, Precomputed):  # a file has what its place in the stream asks for, skipped or not
            share = min(share, self.generator.count(expert))
        new = self._generate(trainer, expert, share)
        if not stream.test_parts:
            new = replace(new, answers=label_by_expert(new.images, expert).labels)
        if trainer.is_global_zero:
            folder, file = Path(trainer.default_root_dir), f"experience={experience}.png"
            pixels, names = expert.image_format.denormalize(new.images), stream.manifest.class_names
            save_grid(folder / "buffer" / file, pixels, new.labels, names)
            rows = rows_shown(new.labels)
            with torch.no_grad():
                confidence = expert.probability(new.images[rows], new.labels[rows]).tolist()
            save_samples(folder / "samples" / file, pixels[rows], new.labels[rows], names, confidence)
            for logger in trainer.loggers:
                log_picture(logger, "generated", folder / "buffer" / file, trainer.global_step)
        old = None if stream.buffer is None or self._whole_set else stream.buffer.to(pl_module.device)
        stream.buffer = update_buffer(old, new, self.size, keyed_generator("subsample", stream.seed, experience))
        stream.experience = experience
        pl_module.begin_experience(expert, learned)

    def look(self, trainer: Trainer, pl_module: LightningModule, wait: bool) -> None:
        """Skip the expert if its answers have gone wrong.

        Args:
            trainer: The trainer.
            pl_module: The ex-model.
            wait: See `ExModelModule.check_numbers`.

        Raises:
            ExmlError: If it may not be skipped, or the ex-model has diverged.
        """
        assert isinstance(pl_module, ExModelModule)
        if pl_module.attached is None:
            return
        try:
            pl_module.check_numbers(wait)
        except BrokenExpertError as error:
            self._skip(trainer, pl_module, error)

    def _skip(self, trainer: Trainer, pl_module: ExModelModule, error: BrokenExpertError) -> None:
        """Take back what a broken expert has done so far, if it may be skipped: the next one finds its place free."""
        stream, experience = _stream(trainer), trainer.current_epoch
        if not stream.skip_broken and stream.experience == experience and trainer.is_global_zero:
            go_back(Path(trainer.default_root_dir), experience)  # so that a sound one can take its place
        pass_over(stream, error)
        if stream.experience == experience:
            pl_module.abandon_experience()
            assert stream.buffer is not None
            others = (stream.buffer.experiences != experience).nonzero().flatten()
            stream.buffer = stream.buffer[others] if len(others) else None
        stream.experience = experience
        stream.skipped.append(experience)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the experience as learned, unless Lightning was told to stop in its middle (``trainer.max_time``)."""
        stream, done = _stream(trainer), trainer.fit_loop.epoch_loop.batch_progress.current.ready
        if done >= trainer.num_training_batches or trainer.current_epoch in stream.skipped:
            stream.completed = trainer.current_epoch + 1

    @property
    def _whole_set(self) -> bool:
        """Whether each experience brings all images there are, so that none of the earlier ones stay."""
        return isinstance(self.generator, Auxiliary) and self.generator.whole_set

    def _generate(self, trainer: Trainer, expert: Expert, num_samples: int) -> Buffer:
        start = time.monotonic()
        shown = trainer.progress_bar_callback is not None and trainer.is_global_zero
        assert trainer.max_epochs is not None

        def left(images: float, seconds: float) -> float | None:
            return self.clock.while_generating(expert.experience, images, seconds)

        new = generate_samples(
            self.generator, _stream(trainer), expert, num_samples, trainer.max_epochs, self.cache, shown, left
        )
        self.clock.images += num_samples
        self.clock.newest_generating = time.monotonic() - start
        self.clock.seconds_generating += self.clock.newest_generating
        return new

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds spent."""
        return {"seconds_generating": self.clock.seconds_generating}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.clock.seconds_generating = state["seconds_generating"]


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


def _stream(trainer: Trainer) -> ExpertStream:
    stream = getattr(trainer, "datamodule", None)
    assert isinstance(stream, ExpertStream)
    return stream
