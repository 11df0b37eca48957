"""`SyntheticBufferCallback`: the loop of Algorithm 1 over the experts, which fills the buffer for each (Section 3)."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks.loggers import log_picture
from exml_lightning.callbacks.stream_clock import StreamClock
from exml_lightning.core.buffer import Buffer, made_places, share, update_buffer
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import Generator, StatisticsInversion, Unrelated
from exml_lightning.core.rng import keyed_generator
from exml_lightning.core.strategy_name import STRATEGY_NAME, strategy_name
from exml_lightning.data import ExpertStream
from exml_lightning.generation.pictures import save_pictures
from exml_lightning.generation.samples import Sampler
from exml_lightning.generation.sources import StreamSources
from exml_lightning.module import ExModelModule


class SyntheticBufferCallback(Callback):
    """Fills the buffer of an `ExpertStream` from each new expert and hands the expert to the ex-model.

    Pictures of the new images go into the run folder (`save_pictures`).

    Args:
        size: N, the samples that the buffer holds; at least one for each expert.
        generator: How samples are made; default `Unrelated`.
        statistics: How most of them are made of an expert that has published statistics, if `generator` is `Unrelated`;
            not looked at by other generators. Default `StatisticsInversion`.
        cache: Folder that keeps generated samples for other runs; null for none. Delete it whenever you like.
        name: What the strategy is called in run folders and reports, of a-z, 0-9 and _; default the generator's name.

    Example:
        >>> from exml_lightning import Noise, SyntheticBufferCallback
        >>> SyntheticBufferCallback(size=500, generator=Noise()).generator
        Noise()
    """

    def __init__(
        self,
        size: int = 6000,
        generator: Generator | None = None,
        statistics: StatisticsInversion | None = None,
        cache: str | None = "runs/cache",
        name: str | None = None,
    ) -> None:
        if size < 1:
            raise ExmlError(f"buffer.size is {size}: give 1 or more")
        if name is not None and not STRATEGY_NAME.fullmatch(name):
            raise ExmlError(f"buffer.name is {name!r}: give a short one of a-z, 0-9 and _")
        self.size = size
        self.generator = generator or Unrelated()
        self.statistics = statistics or StatisticsInversion()
        self.cache = None if cache is None else Path(cache)
        self.strategy = name or strategy_name(type(self.generator).__name__)
        """What run folders and reports call it."""
        self.clock = StreamClock()
        """How long the stream has taken, and will take."""
        self.visitors: list[Callable[[ExModelModule, Expert], None]] = []
        """Called with each new expert while it is in memory."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Connect the generator to its data, and set the number of epochs: one for each expert.

        `ExmlError` for too few experts, too small a buffer, or images to draw from that are missing or do not fit.
        """
        if stage != "fit":
            return
        assert isinstance(pl_module, ExModelModule)
        stream = pl_module.stream
        weight = pl_module.distillation.lambda_ce
        if self.generator.once and (pl_module.distillation.merge == "sample" or (weight and not stream.statistics)):
            raise ExmlError("unrelated images have no labels: set model.lambda_ce to 0 and model.merge to unit")
        if self.generator.once and stream.augmentation.changes:
            raise ExmlError(
                "unrelated images are asked about once, before the first step, so no step may change them: set shift "
                "and rotation of data.augmentation to 0, and flip to false"
            )
        if weight is None:  # what is made for a class is of it, also from its statistics
            labelled = stream.statistics if self.generator.once else self.generator.needs_gradient
            pl_module.distillation = replace(pl_module.distillation, lambda_ce=float(labelled))
        self.generator.connect(StreamSources(stream, self.size))
        stream.keep_images(self.generator.once)
        trainer.fit_loop.max_epochs = stream.num_experts
        if self.size < stream.num_experts:
            raise ExmlError(
                f"buffer.size is {self.size}, but the stream has {stream.num_experts} experts: "
                f"each needs a place in the buffer, so give {stream.num_experts} or more"
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an experience: a run that is resumed in the middle of one gets no `on_train_epoch_start`."""
        assert isinstance(pl_module, ExModelModule)
        stream, clock, batches = pl_module.stream, self.clock, int(trainer.num_training_batches)
        entries = stream.manifest.experts[: trainer.max_epochs]
        clock.shares = [self._images_of(k, entry.statistics is not None) for k, entry in enumerate(entries)]
        clock.steps = batches
        clock.images = sum(clock.shares[: stream.experience + 1])
        clock.distilled = trainer.current_epoch * batches + trainer.fit_loop.epoch_loop.batch_progress.current.ready
        self._begin(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an experience."""
        assert isinstance(pl_module, ExModelModule)
        self._begin(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step."""
        self.clock.distilled += 1

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop the clock."""
        self.clock.stop()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count the experience as learned, unless Lightning was told to stop in its middle (``trainer.max_time``)."""
        assert isinstance(pl_module, ExModelModule)
        self.clock.stop()
        if trainer.fit_loop.epoch_loop.batch_progress.current.ready >= trainer.num_training_batches:
            pl_module.stream.complete()
            if self.generator.once:
                pl_module.stream.remember(pl_module.targets(pl_module.stream.buffer.labels))

    def _begin(self, trainer: Trainer, module: ExModelModule) -> None:
        """Take the turn of Algorithm 1 that the epoch is, up to its steps; a checkpoint may bring a part of it."""
        stream, experience = module.stream, trainer.current_epoch
        if module.learning == experience:
            return
        module.release()
        expert = stream.load_expert(experience, module.device)
        begins = stream.experience != experience
        if begins:
            stream.begin(experience, self._fill(trainer, module, expert))
            for visit in self.visitors:
                visit(module, expert)
        self.clock.start()  # asking teachers is a part of distilling
        stream.move_buffer(module.device)
        module.learn(expert, begins)
        self.clock.newest_asking = self.clock.under_way

    def makes_from_statistics(self, expert: Expert) -> bool:
        """Whether images are made from what an expert has published."""
        return self.generator.once and expert.statistics is not None

    def uses_statistics(self, module: ExModelModule) -> bool:
        """Whether what experts have published changes what is learned: images, or scores."""
        return module.stream.statistics and (self.generator.once or module.distillation.normalize.none_of_these)

    def _images_of(self, experience: int, statistics: bool) -> int:
        """Return how many images are made when an expert comes, those of its statistics included."""
        if not self.generator.once:
            return share(self.size, experience)
        return (0 if experience else self.size) + (share(made_places(self.size), experience) if statistics else 0)

    def _fill(self, trainer: Trainer, module: ExModelModule, expert: Expert) -> Buffer:
        """Return the buffer for the experience of an expert."""
        self.clock.newest_generating = 0.0
        stream, experience, size = module.stream, expert.experience, self.size
        buffer = stream.move_buffer(module.device) if stream.has_buffer else None
        todo = [(self.generator, share(size, experience))] if buffer is None or not self.generator.once else []
        if self.makes_from_statistics(expert):
            todo.append((self.statistics, share(made_places(size), experience)))
        for generator, count in todo:
            new = self._new_samples(trainer, stream, expert, generator, count)
            if buffer is not None and buffer.targets is not None:
                new = replace(new, targets=module.answer(new.images))
            draws = keyed_generator("subsample", stream.seed, experience)
            buffer = update_buffer(buffer, new, size, draws, expert.image_format)
        assert buffer is not None
        return buffer

    def _new_samples(
        self, trainer: Trainer, stream: ExpertStream, expert: Expert, generator: Generator, count: int
    ) -> Buffer:
        """Generate the samples of a new expert, against the clock, and draw pictures of them."""
        start = time.monotonic()
        shown = trainer.progress_bar_callback is not None and trainer.is_global_zero
        assert trainer.max_epochs is not None
        sampler = Sampler(generator, stream, self.cache, shown)
        new = sampler(expert, count, trainer.max_epochs, self.clock.while_generating)
        self.clock.images += count
        seconds = time.monotonic() - start
        self.clock.newest_generating += seconds
        self.clock.seconds_generating += seconds
        if trainer.is_global_zero:
            picture = save_pictures(Path(trainer.default_root_dir), new, expert, stream.manifest.class_names)
            for logger in trainer.loggers:
                log_picture(logger, "generated", picture, trainer.global_step)
        return new

    def state_dict(self) -> dict[str, Any]:
        """Return the seconds spent, those under way included."""
        clock = self.clock
        return {"seconds_generating": clock.seconds_generating, "seconds_distilling": clock.all_distilling}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on counting."""
        self.clock.seconds_generating = state["seconds_generating"]
        self.clock.seconds_distilling = state["seconds_distilling"]
