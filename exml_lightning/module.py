"""`ExModelModule`: target merging and the Ex-Model Distillation loss (Section 3)."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, LRSchedulerTypeUnion, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.aggregation import MeanMetric

from exml_lightning.core.distillation import Distillation, Loss
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.finite import FiniteWatch, check_step, check_weights, sane
from exml_lightning.core.loaders import Batch
from exml_lightning.core.procedural import ProceduralImages
from exml_lightning.core.rng import derive_seed, keyed_generator, seed_layers
from exml_lightning.core.targets import Merge, Normalize, Unknown
from exml_lightning.core.teachers import Teachers
from exml_lightning.data import ExpertStream
from exml_lightning.ex_model.growth import grow_checkpoint
from exml_lightning.ex_model.networks import build_networks, check_compiled, compile_network
from exml_lightning.ex_model.starts import Start, check_start, starting_weights
from exml_lightning.experts.architecture import Architecture, ArchitectureConfig

Schedule = LRSchedulerCallable | Literal["cosine"] | None


def default_optimizer(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """Make the default optimiser: Adam with learning rate 0.001."""
    return torch.optim.Adam(parameters, lr=1e-3)


class ExModelModule(LightningModule):
    """The ex-model, distilled from the expert and the previous ex-model.

    Args:
        architecture: Network of the ex-model, as `class_path` and `init_args`; default that of the first expert.
            ``num_classes`` is filled in.
        lambda_ce: Weight of the cross-entropy with the buffer's labels (Eq. 11).
        normalize: How the logits of both teachers are put on one scale (Eq. 6, 7): `center`, `standardize`,
            `center_batch`, `quantile` (normal scores among the logits of the buffer's images, or of `reference`) or
            `none`.
        merge: How they are merged (Eq. 9): class by class (`unit`) or by each sample's label (`sample`).
        unknown: What is asked of classes that nobody knows yet: nothing (`skip`) or 0 (`zero`).
        loss: What compares the ex-model with the merged target: `mse` of the logits (Eq. 10), or `kl`, the divergence
            of their softened probabilities.
        temperature: Softens the probabilities of `kl`.
        others: With `quantile`, weight of what an expert says of the classes it does not know; see `add_targets`.
        raw_logits: With `quantile`, weight of the logits themselves, which are added to their normal scores.
        familiarity: With `quantile`, weight of how familiar an image is to the layers of the expert, which is added to
            the scores of its classes; with task labels it does nothing.
        reference: With `quantile`, procedural images to compare logits with in place of the buffer's, as many as the
            buffer has, the same for all experts: for a buffer of images that were made from the experts.
        start: What the ex-model starts with: `scratch`, one initial model a run; `expert`, the first expert's weights;
            `average`, at each experience the running mean of the ex-model and the new expert.
        reset_each_experience: Start anew at each experience, from the initial model (`scratch`) or from its expert
            (`expert`), instead of going on with the ex-model.
        optimizer: Makes the optimiser, anew for each expert.
        lr_scheduler: The learning-rate schedule, anew for each expert, one step an optimiser step: `cosine` falls to 0
            over the steps of the expert; or what makes a schedule of torch; or null for none.
        compile: Compile the three networks by `torch.compile`, which pays in long runs; see docs/performance.md.

    Example:
        >>> from exml_lightning import ExModelModule
        >>> ExModelModule(lambda_ce=0.1, normalize="standardize").distillation.normalize
        'standardize'
    """

    known: Tensor
    previous_known: Tensor
    heads: Tensor | None
    _student: Callable[[Tensor], Tensor]
    _terms: dict[str, Tensor]

    def __init__(
        self,
        architecture: ArchitectureConfig | None = None,
        lambda_ce: float = 1.0,
        normalize: Normalize = "center",
        merge: Merge = "unit",
        unknown: Unknown = "skip",
        loss: Loss = "mse",
        temperature: float = 2.0,
        others: float = 0.0,
        raw_logits: float = 0.0,
        familiarity: float = 0.0,
        reference: ProceduralImages | None = None,
        start: Start = "scratch",
        reset_each_experience: bool = False,
        optimizer: OptimizerCallable = default_optimizer,
        lr_scheduler: LRSchedulerCallable | Literal["cosine"] | None = "cosine",
        compile: bool = False,
    ) -> None:
        super().__init__()
        if reset_each_experience and start == "average":
            raise ExmlError("model.reset_each_experience has no meaning with start average: set it to false")
        if reference is not None and normalize != "quantile":
            raise ExmlError("model.reference has a meaning only with normalize quantile: set it to null")
        self.architecture = None if architecture is None else Architecture.from_config(architecture)
        self.reference = reference
        self.distillation = Distillation(
            lambda_ce, normalize, merge, unknown, loss, temperature, others, raw_logits, familiarity
        )
        self.start: Start = start
        self.reset_each_experience = reset_each_experience
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self._compile = compile
        self.accuracy: list[float] = []
        """Accuracy on each part of the test stream, a fraction, when it was last measured."""
        self._teachers: Teachers | None = None
        self._watch = FiniteWatch()

    @property
    def stream(self) -> ExpertStream:
        """The data module of the fit."""
        stream = getattr(self.trainer, "datamodule", None)
        assert isinstance(stream, ExpertStream)
        return stream

    def configure_model(self) -> None:
        """Build the ex-model once the classes of the stream are known. Lightning calls this before every run."""
        if hasattr(self, "network"):
            return
        manifest, heads = self.stream.manifest, self.stream.heads
        num_classes = len(manifest.class_names)
        architecture = self.architecture or manifest.experts[0].architecture
        self.architecture = architecture.with_classes(num_classes)
        self.network, self.previous = build_networks(self.architecture, self.stream)
        for name in ("known", "previous_known"):
            self.register_buffer(name, torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("heads", None if heads is None else torch.tensor(heads), persistent=False)
        self._tasks = sorted(set(heads or []))
        self._right = PartAccuracy([len(part.images) for part in self.stream.test_parts])

    def check_start(self) -> None:
        """Make sure that the weights to start with can be had, once a checkpoint is restored, and compile.

        Raises:
            ExmlError: If experts are not built as `start` needs, weights cannot be fetched, or networks not compiled.
        """
        assert self.architecture is not None
        stream, experts = self.stream, range(self.stream.completed, self.trainer.max_epochs or 0)
        any_may_be_first = self.reset_each_experience or stream.skip_broken
        check_start(self.start, stream.manifest, self.architecture, experts, any_may_be_first)
        if self.start == "scratch" and (stream.completed == 0 or self.reset_each_experience):
            self._initial_model()
        if self._compile:
            check_compiled(self.previous, stream.manifest.input.shape, stream.batch_size, self.trainer)

    def _initial_model(self) -> nn.Module:
        assert self.architecture is not None
        return self.architecture.build(self.stream.seed, "ex-model")

    def train(self, mode: bool = True) -> "ExModelModule":
        """Set train or eval mode; the previous ex-model stays in eval mode."""
        super().train(mode)
        if hasattr(self, "previous"):
            self.previous.eval()
        return self

    def begin_experience(self, expert: Expert, learned: int) -> None:
        """Start on a new expert: the ex-model becomes the previous one, optimiser and schedule start anew.

        Args:
            expert: The expert, on the device of the ex-model.
            learned: Number of experts learned before.
        """
        if learned:
            self.previous.load_state_dict(self.network.state_dict())
            self.previous_known.copy_(self.known)
        self.known[expert.classes] = True
        if not learned or self.reset_each_experience or self.start == "average":
            start = starting_weights(self.start, self.network, expert, learned, self._initial_model)
            self.network.load_state_dict(start)
        self.trainer.strategy.setup_optimizers(self.trainer)

    def abandon_experience(self) -> None:
        """Go back to the ex-model of before the experience under way."""
        self.network.load_state_dict(self.previous.state_dict())
        self.known.copy_(self.previous_known)
        self.detach()

    def attach(self, expert: Expert) -> None:
        """Take `expert` as the teacher of the next steps, beside the previous ex-model.

        Both are asked about the whole buffer here, once, where its images stay.

        Raises:
            BrokenExpertError: If the expert's answers turn out to be broken.
        """
        stream, all_units = self.stream, self.distillation.asks_all_units(self.heads)
        familiarity = self.distillation.familiarity_for(self.heads)
        teachers = Teachers(expert, self.previous, self.previous_known, self._ready, all_units, familiarity)
        assert stream.buffer is not None
        images, distillation = stream.buffer.images, self.distillation
        with self.trainer.precision_plugin.forward_context():
            if stream.images_stay:
                teachers.ask_all(images)
            if distillation.normalize == "quantile":
                teachers.put_on_scale(self._reference_images(images), distillation.raw_logits)
        self._teachers = teachers
        self._student = self._ready(self.network)

    def _reference_images(self, images: Tensor) -> Tensor:
        """What logits are compared with: the same drawings for all experts, or the buffer's `images`."""
        if self.reference is None:
            return images
        image_format, generator = self.stream.manifest.input, keyed_generator("reference", self.stream.seed)
        return image_format.normalize(self.reference.draw(len(images), image_format.shape, generator, images.device))

    def _ready(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """A network as mini-batches are given to it."""
        return compile_network(network, self.device) if self._compile else network.__call__

    def detach(self) -> None:
        """Let go of the expert, so that the next one is alone in memory."""
        self._teachers = None
        self._watch.clear()

    @property
    def attached(self) -> int | None:
        """The experience of the expert at hand, None without one."""
        return None if self._teachers is None else self._teachers.expert.experience

    def forward(self, images: Tensor, tasks: Tensor | None = None) -> Tensor:
        """Compute logits.

        Args:
            images: Normalised images, ``(n, channels, height, width)``.
            tasks: Task labels, int64 ``(n,)``, which a multi-head ex-model chooses heads by; without them all classes
                compete.

        Returns:
            Logits ``(n, num_classes)``; minus infinity for classes not yet learned and of other tasks' heads.
        """
        logits: Tensor = self.network(images)
        return logits.masked_fill(~self._answers(tasks), -torch.inf)

    def _answers(self, tasks: Tensor | None) -> Tensor:
        """The classes that are an answer: those known; with heads, for each sample those known of its task's head."""
        return self.known if self.heads is None or tasks is None else self.known & (self.heads == tasks[:, None])

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> int | None:
        """Seed torch for layers that draw from the global state (dropout), by this step's key alone.

        Returns:
            -1, which ends the epoch, where the expert was broken and let go.
        """
        if self._teachers is None:
            return -1
        key = "step", self.stream.seed, self.stream.experience, self.global_rank, batch_idx
        seed_layers(derive_seed(*key), self.device)
        return None

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of Eq. 11 on a mini-batch.

        Args:
            batch: Augmented samples of the buffer.
            batch_idx: Place in the experience.

        Returns:
            The loss, a scalar.
        """
        teachers = self._teachers
        assert teachers is not None
        from_expert, from_previous = teachers.ask(batch.images, batch.rows)
        logits = self._student(batch.images).float()
        expert, previous = (from_expert, teachers.expert.classes), (from_previous, self.previous_known)
        answers = self._answers(batch.tasks)
        with torch.autocast(self.device.type, enabled=False):  # logits of hundreds, and their squares, need float32
            terms = self.distillation(logits, expert, previous, batch.labels, answers, self.heads, self._tasks)
        loss = terms["loss"].detach().expand(len(logits), 1)  # an infinite one spoils every sample
        self._watch.add(batch_idx, sane(from_expert), torch.cat([logits, loss], dim=1))
        self._terms = {name: value.detach() for name, value in terms.items()}
        return terms["loss"]

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the losses where Lightning is about to write a row: elsewhere it would take longer than the step."""
        if self.trainer._logger_connector.should_update_logs:
            for name, value in self._terms.items():
                self.log(f"train/{name}", value, on_step=True, on_epoch=False, prog_bar=name == "loss")

    def check_numbers(self, wait: bool) -> None:
        """Look whether numbers have gone wrong: on a GPU a step or two late; at once, and at the weights, if `wait`.

        Raises:
            BrokenExpertError: If the expert's answers are NaN or infinite.
            ExmlError: If the ex-model's answers or weights are: it has diverged.
        """
        assert self._teachers is not None
        expert = self._teachers.expert
        check_step(self._watch.look(wait), expert)
        if wait:
            check_weights(self.network, expert)

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count right answers on one part of the test stream; no answer, for a task not yet learned, is a wrong one."""
        self._right.update(dataloader_idx, self(batch.images, batch.tasks), batch.labels)

    def on_validation_epoch_end(self) -> None:
        """Read the accuracies off, over all processes."""
        self.accuracy = self._right.read()

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimiser and the schedule. Lightning calls this at the start, and each experience does."""
        optimizer, schedule = make_optimizer(self.network, self.optimizer, self.lr_scheduler, self.stream.n_iter)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the weights of a checkpoint with fewer classes the rows it lacks, before Lightning loads them.

        Raises:
            ExmlError: If the checkpoint is of another ex-model.
        """
        blank = self.distillation.asks_all_units(self.heads)  # nobody has said anything of the new classes yet
        grow_checkpoint(checkpoint, self, self.network, self.stream.manifest.class_names, blank)

    def settings(self) -> dict[str, Any]:
        """Return what must stay the same for a run to continue, as plain values.

        Not `compile`, not the number of classes, which grows, nor `start`, which is needed at beginnings alone.
        """
        assert self.architecture is not None
        return {
            "network": repr(self.architecture.skeleton().with_classes(0)),
            **asdict(self.distillation),
            "reference": None if self.reference is None else self.reference.settings(),
            "temperature": self.distillation.temperature if self.distillation.loss == "kl" else None,
            "reset_each_experience": self.reset_each_experience,
            **describe_optimizer(self.network, self.optimizer, self.lr_scheduler, self.stream.n_iter),
        }


def make_optimizer(
    network: nn.Module, optimizer: OptimizerCallable, schedule: Schedule, steps: int
) -> tuple[torch.optim.Optimizer, LRSchedulerTypeUnion | None]:
    """Make both for an expert.

    Args:
        network: The ex-model.
        optimizer: Makes the optimiser.
        schedule: ``cosine`` falls to 0 over `steps`; or what makes a schedule; or None.
        steps: Optimiser steps of an expert.

    Returns:
        The optimiser, and the schedule if there is one.

    Raises:
        ExmlError: If one of them refuses its arguments.
    """
    try:
        made = optimizer(network.parameters())
        if schedule == "cosine":
            return made, torch.optim.lr_scheduler.CosineAnnealingLR(made, steps)
        return made, None if schedule is None else schedule(made)
    except (ValueError, TypeError) as error:
        raise ExmlError(f"model.optimizer or model.lr_scheduler: {error}") from error


def describe_optimizer(
    network: nn.Module, optimizer: OptimizerCallable, schedule: Schedule, steps: int
) -> dict[str, Any]:
    """Return what must stay the same of both for a run to continue, as plain values; see `make_optimizer`."""
    made, scheduled = make_optimizer(network, optimizer, schedule, steps)
    return {
        "optimizer": f"{type(made).__name__} {made.defaults}",
        "lr_scheduler": schedule
        if scheduled is None or schedule == "cosine"
        else f"{type(scheduled).__name__} {scheduled.state_dict()}",
    }


class PartAccuracy(nn.Module):
    """Counts right answers, part by part.

    Args:
        sizes: Samples of each part.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        super().__init__()
        self._sizes = list(sizes)
        self._means = nn.ModuleList(MeanMetric() for _ in sizes)

    def update(self, part: int, logits: Tensor, labels: Tensor) -> None:
        """Count those of a batch; no answer, for a task not yet learned, is a wrong one.

        Args:
            part: Place of the part.
            logits: Float ``(n, num_classes)``; minus infinity for what is no answer.
            labels: Class indices, int64 ``(n,)``.
        """
        best, guesses = logits.max(dim=1)
        self._means[part].update(((guesses == labels) & best.isfinite()).float())  # type: ignore[operator]

    def read(self) -> list[float]:
        """Return the accuracies, fractions, over all processes, and start anew."""
        accuracies = []
        for metric, size in zip(self._means, self._sizes, strict=True):
            assert isinstance(metric, MeanMetric)
            right = round(float(metric.compute()) * size)  # a whole number again, not a rounded fraction
            accuracies.append(right / size)
            metric.reset()
        return accuracies
