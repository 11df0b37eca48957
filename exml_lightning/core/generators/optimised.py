"""What model inversion and data impression share: images optimised against an expert, with priors (Section 4.1)."""

import logging
from collections.abc import Callable
from contextlib import nullcontext
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from exml_lightning.core import distributed, priors
from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.buffer import batches
from exml_lightning.core.errors import BrokenExpertError
from exml_lightning.core.expert import Expert, confidence_in
from exml_lightning.core.finite import Counts, FiniteWatch
from exml_lightning.core.generators.generator import FEW, FinishedRows, Generator, Progress, require
from exml_lightning.core.generators.image_batch import ImageBatch
from exml_lightning.core.procedural import ProceduralImages
from exml_lightning.core.rng import keyed_generator

log = logging.getLogger(__name__)
OutputLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""What the expert's answers lack: called with logits divided by the temperature, the rows they belong to, int64, and
the images that it was asked about; returns the sum over these rows."""
LOOK_EVERY = 5
"""Steps between two looks at who may leave: a GPU has to wait for each."""


@dataclass
class OptimisedImages(Generator):
    """Images optimised by Adam from noise or procedural images; values stay in the range that real pixels have.

    Args:
        steps: Adam steps an image.
        lr: Learning rate of Adam.
        temperature: Softmax temperature tau; higher asks for larger logits.
        confidence: Leave an image alone once the expert has given its class more than this probability, at temperature
            1 (Section 5.2: 0.99), as it was changed for a step; looked at every 5 steps. Null for `steps` steps with
            every image. With `batch_norm`, the statistics are those of the images that are left.
        batch_size: Images optimised together; the share of work that one of several processes takes at a time.
        l2: Weight of the squared L2 norm of the image.
        blur: Weight of the squared distance to the blurred image.
        total_variation: Weight of the squared differences of neighbouring pixels.
        batch_norm: Weight of the distance to the batch-norm statistics of the expert, over all its layers.
        augmentation: Random changes of each image at each step.
        precision: Of the expert's forward and backward passes: ``32-true``, or ``bf16-mixed``, which is faster on GPUs
            and CPUs that have it. It does not follow ``trainer.precision``.
        initial: Images to start from, of which 5 to 20 `steps` make samples of a class; null for N(0, 1) noise.

    Attributes:
        finished: Where batches that are done are kept; None for nowhere. `keeping` sets it.
    """

    steps: int = 500
    lr: float = 0.1
    temperature: float = 2.0
    confidence: float | None = None
    batch_size: int = 1024
    l2: float = 1e-4
    blur: float = 0.01
    total_variation: float = 0.0
    batch_norm: float = 0.0
    augmentation: Augmentation = field(default_factory=Augmentation)
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    initial: ProceduralImages | None = None
    finished: FinishedRows | None = field(default=None, init=False, repr=False, compare=False)

    slow: ClassVar[bool] = True
    needs_gradient: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self.steps >= 1, f"generator steps is {self.steps}: give 1 or more")
        require(self.lr > 0, f"generator lr is {self.lr}: give more than 0")
        require(self.temperature > 0, f"generator temperature is {self.temperature}: give more than 0")
        require(
            self.confidence is None or 0 < self.confidence < 1,
            f"generator confidence is {self.confidence}: give a probability between 0 and 1, or null",
        )
        require(self.batch_size >= 1, f"generator batch_size is {self.batch_size}: give 1 or more")
        for name in ("l2", "blur", "total_variation", "batch_norm"):
            require(getattr(self, name) >= 0, f"generator {name} is {getattr(self, name)}: give 0 or more")

    def settings(self) -> dict[str, Any]:
        """Return the class path and the settings; without `confidence` and `initial` those of before they existed."""
        settings = super().settings()
        return {k: v for k, v in settings.items() if v is not None or k not in ("confidence", "initial")}

    def trial(self) -> tuple[Generator, float]:
        """Return one of two steps; see `Generator.trial`."""
        short = replace(self, steps=min(2, self.steps), confidence=None)
        return short, self.steps / short.steps

    def keeping(self, finished: FinishedRows) -> Generator:
        """Return one that keeps each batch when it is done; see `Generator.keeping`."""
        generator = copy(self)
        generator.finished = finished
        return generator

    def optimise(
        self,
        expert: Expert,
        num_samples: int,
        columns: Tensor,
        output_loss: OutputLoss,
        generator: torch.Generator,
        progress: Progress,
        start: Tensor | None = None,
    ) -> Tensor:
        """Make images for which a loss on the expert's answers and the priors are small.

        Several processes take batches in turn, and all end with all images. The draws of an image depend on its place
        alone: neither the number of processes nor the size of a batch changes them. The CPU generator draws the images
        to start from, unless `start` gives normalised ones, and the augmentation; `columns` is the place of the class
        each is meant for among the expert's, int64 ``(num_samples,)``.

        Returns normalised images on the expert's device, ``(num_samples, channels, height, width)``; raises
        `BrokenExpertError` if the expert's answers are NaN or infinite, and `ExmlError` if `batch_norm` has a weight
        and it has no such layer.
        """
        require(
            not self.batch_norm or len(priors.BatchNormStatistics(expert.model)) > 0,
            f"buffer.generator.batch_norm is {self.batch_norm}, but {expert.name} has no batch-norm layer: "
            "set it to 0, or in place of --strategy refined take best",
        )
        parts = list(batches(num_samples, self.batch_size))
        idle = len(parts) < distributed.world_size() and num_samples > FEW * distributed.world_size()
        if idle and not distributed.rank():
            log.warning(
                "expert %d gives some processes no work: make buffer.generator.batch_size %d or less",
                expert.experience + 1,
                max(num_samples // distributed.world_size(), 1),
            )
        images = self._start(expert, num_samples, generator) if start is None else start
        seed, broken = generator.initial_seed(), None

        def changes(step: int, rows: Tensor) -> Tensor:
            draws = self.augmentation.draw(num_samples, keyed_generator("change images", seed, step))
            return self.augmentation.matrices(draws[rows], *images.shape[-2:])

        for i, rows in enumerate(parts):
            if self.initial is None and start is None:
                images[rows] = torch.randn(images[rows].shape, generator=generator).to(images.device)
            if i % distributed.world_size() != distributed.rank():
                continue
            found = None if self.finished is None else self.finished.find(rows)
            if found is not None:
                images[rows] = found.to(images.device)
                continue
            try:
                low, high = expert.image_format.limits(images.device)
                begun = images[rows].clamp(low, high)
                batch = ImageBatch(begun, torch.arange(rows.start, rows.stop), self.lr)
                images[rows] = self._optimise(expert, batch, columns, output_loss, changes, progress)
            except BrokenExpertError as error:
                broken = error
                break
            if self.finished is not None:
                self.finished.keep(rows, images[rows])
        distributed.raise_together(broken)
        for i, rows in enumerate(parts):
            distributed.broadcast(images[rows], i % distributed.world_size())
        return images

    def _start(self, expert: Expert, num_samples: int, generator: torch.Generator) -> Tensor:
        """Draw all images to start from: procedural ones come in groups of another size than `batch_size`."""
        shape, device = expert.image_format.shape, expert.classes.device
        if self.initial is None:
            return torch.empty(num_samples, *shape, device=device)
        return expert.image_format.normalize(self.initial.draw(num_samples, shape, generator, device))

    def _optimise(
        self,
        expert: Expert,
        batch: ImageBatch,
        columns: Tensor,
        output_loss: OutputLoss,
        changes: Callable[[int, Tensor], Tensor],
        progress: Progress,
    ) -> Tensor:
        statistics = priors.BatchNormStatistics(expert.model) if self.batch_norm else None
        low, high = expert.image_format.limits(batch.images.device)
        count, gone = len(batch), torch.zeros((), device=batch.images.device)

        def confidence() -> Tensor:
            return (gone + confidence_in(logits.detach().float(), columns[batch.places]).sum()) / count

        watch = FiniteWatch(shared=False)
        kind = low.device.type
        with torch.enable_grad(), torch.autocast(kind, enabled=False), statistics or nullcontext():
            for step in range(self.steps):
                changed = self.augmentation.apply(batch.images, changes(step, batch.rows))
                with torch.autocast(kind, torch.bfloat16, enabled=self.precision == "bf16-mixed"):
                    logits = expert(changed)
                watch.add(step, logits)
                self._check(watch.look(), expert)
                # A sum, not a mean: the gradient of an image must not depend on how many are optimised beside it.
                loss = output_loss(logits.float() / self.temperature, batch.places, changed)
                loss = loss + self._image_loss(batch.images)
                if statistics is not None:
                    loss = loss + self.batch_norm * len(batch) * statistics.pop()
                (gradient,) = torch.autograd.grad(loss, [batch.images])
                batch.step(gradient, low, high)
                progress(len(batch) / self.steps, confidence)
                if self.confidence is not None and (step + 1) % LOOK_EVERY == 0:
                    certain = confidence_in(logits.detach().float(), columns[batch.places])
                    done = certain > self.confidence
                    gone = gone + certain[done].sum()
                    progress(int(done.sum()) * (1 - (step + 1) / self.steps))
                    batch.finish(done)
                    if not len(batch):
                        break
        self._check(watch.look(wait=True), expert)
        return batch.finish_all()

    def _check(self, counts: Counts | None, expert: Expert) -> None:
        if counts is not None:
            raise BrokenExpertError(
                f"{expert.name} answers NaN or infinity for {counts.broken[0]} of {counts.samples} images in step "
                f"{counts.step} of making them"
            )

    def _image_loss(self, images: Tensor) -> Tensor:
        weighted = [
            weight * prior(images).sum()
            for weight, prior in (
                (self.l2, priors.l2_norm),
                (self.blur, priors.blur),
                (self.total_variation, priors.total_variation),
            )
            if weight
        ]
        return torch.stack(weighted).sum() if weighted else images.new_zeros(())
