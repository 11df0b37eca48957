"""`ExModelModule`: the ex-model in training: teachers, student, loss (Section 3); it adapts `core` to Lightning."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, LRSchedulerTypeUnion, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from exml_lightning.core.confusion import Confusion
from exml_lightning.core.distillation import Distillation
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.familiarity import Ask
from exml_lightning.core.finite import FiniteWatch, check_step, check_weights, sane
from exml_lightning.core.loaders import Batch
from exml_lightning.core.merging import Merge
from exml_lightning.core.one_cycle import one_cycle
from exml_lightning.core.rng import derive_seed, seed_layers
from exml_lightning.core.targets import Answers
from exml_lightning.core.teachers import Teachers
from exml_lightning.data import ExpertStream
from exml_lightning.ex_model.growth import grow_checkpoint
from exml_lightning.ex_model.networks import build_networks, check_compiled, compile_network
from exml_lightning.ex_model.starts import Start, Starts
from exml_lightning.experts.architecture import Architecture, ArchitectureConfig
from exml_lightning.terminal import Bar, say

Schedule = Literal["cosine", "one_cycle"] | LRSchedulerCallable | None  # else jsonargparse takes the names for code


def default_optimizer(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """Make the default optimiser: Adam with learning rate 0.003."""
    return torch.optim.Adam(parameters, lr=3e-3)


class ExModelModule(LightningModule):
    """The ex-model, distilled from the expert and the previous ex-model.

    Args:
        architecture: Network of the ex-model, as `class_path` and `init_args`; default that of the first expert.
            ``num_classes`` is filled in.
        start: What the ex-model starts with: `scratch`, one initial model a run; `expert`, the first expert's weights;
            `average`, at each experience the running mean of the ex-model and the new expert; `merged`, at each
            experience all experts so far, put together layer by layer by what training changed of each.
        optimizer: Makes the optimiser, anew for each expert.
        lr_scheduler: The learning-rate schedule, anew for each expert, one step an optimiser step: `cosine` falls to 0
            over the steps of the expert, `one_cycle` rises for a quarter of them first; or what makes a schedule of
            torch; or null for none.
        compile: Compile the three networks by `torch.compile`, which pays in long runs; see docs/performance.md.
        distillation: The settings of `Distillation`: `lambda_ce`, `normalize`, `merge`, `loss` and `temperature`.

    Example:
        >>> import tempfile
        >>> from lightning import Trainer
        >>> from exml_lightning import (
        ...     Augmentation, ExModelModule, ExpertStream, Noise, SyntheticBufferCallback)
        >>> experts = "checkpoints/split_digits/run0"
        >>> stream = ExpertStream(experts=experts, n_iter=2, augmentation=Augmentation(shift=0.1))
        >>> module = ExModelModule(lambda_ce=0.1)
        >>> buffer = SyntheticBufferCallback(size=8, generator=Noise(), cache=None)
        >>> quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     trainer = Trainer(accelerator="cpu", max_epochs=2, default_root_dir=folder, callbacks=[buffer],
        ...                             enable_checkpointing=False, num_sanity_val_steps=0, **quiet)
        ...     trainer.fit(module, datamodule=stream)
        >>> module.known.nonzero().flatten().tolist()  # the classes of the first two experts: 5 4 and 8 2
        [2, 4, 5, 8]
    """

    known: Tensor
    previous_known: Tensor
    heads: Tensor | None
    _student: Callable[[Tensor], Tensor]
    _terms: dict[str, Tensor]

    def __init__(
        self,
        architecture: ArchitectureConfig | None = None,
        start: Start = "expert",
        optimizer: OptimizerCallable = default_optimizer,
        lr_scheduler: Schedule = "cosine",
        compile: bool = False,
        **distillation: Any,
    ) -> None:
        super().__init__()
        self.architecture = None if architecture is None else Architecture.from_config(architecture)
        self.distillation = Distillation(**distillation)
        self.starts = Starts(start)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self._compile = compile
        self.confusion: Tensor | None = None
        """What test images were taken for when that was last measured; see `Confusion.counts`."""
        self._teachers: Teachers | None = None
        self._watch = FiniteWatch()
        self._left_out = ""

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
        self.network, self.previous = build_networks(self.architecture, manifest, self.stream.seed)
        if self.trainer.state.fn == TrainerFn.FITTING:
            scale, self._left_out = self.distillation.normalize.fitted(
                len(manifest.experts), heads, self.stream.statistics
            )
            self.distillation = replace(self.distillation, normalize=scale)
        for name in ("known", "previous_known"):
            self.register_buffer(name, torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("heads", None if heads is None else torch.tensor(heads), persistent=False)
        self._tasks = sorted(set(heads or []))
        self._counts = Confusion(num_classes)

    def prepare_start(self) -> None:
        """Make sure that the weights to start with can be had, once a checkpoint is restored, and compile if asked to.

        Raises:
            ExmlError: If experts are not built as `start` needs, weights cannot be fetched, or networks not compiled.
        """
        assert self.architecture is not None
        stream = self.stream
        self.starts.check(stream, self.architecture)
        if (self.starts.start == "scratch" or self.starts.left_out) and not stream.completed:
            self._initial_model()
        left_out = "; ".join(filter(None, [self._left_out, self.starts.left_out, stream.left_out]))
        if left_out and self.trainer.is_global_zero:
            say(f"left out, since it does not apply here: {left_out}")
        if self._compile:
            check_compiled(self.previous, stream.manifest.input.shape, stream.batch_size, self.trainer)

    def _initial_model(self) -> nn.Module:
        assert self.architecture is not None
        return self.architecture.build(self.stream.seed, "ex-model", shape=self.stream.manifest.input.shape)

    def train(self, mode: bool = True) -> "ExModelModule":
        """Set train or eval mode; the previous ex-model stays in eval mode."""
        super().train(mode)
        if hasattr(self, "previous"):
            self.previous.eval()
        return self

    def learn(self, expert: Expert, begin: bool) -> None:
        """Take `expert` as the teacher of the next steps, beside the previous ex-model.

        It is on the ex-model's device, as is the buffer of the stream. If its experience begins (`begin`), the ex-model
        becomes the previous one, optimiser and schedule start anew; else a checkpoint of its middle was restored.

        Raises:
            BrokenExpertError: If the expert's answers turn out to be broken.
        """
        if begin:
            self._begin(expert)
        buffer = self.stream.shown
        images_stay = self.stream.images_stay(asked_anyway=self.distillation.normalize.asks_both)
        learned = buffer.targets if images_stay else None
        shown = self.trainer.is_global_zero and self.trainer.progress_bar_callback is not None
        title = f"expert {expert.experience + 1}/{self.trainer.max_epochs} answering"
        with Bar(title, len(buffer.images), shown, leave=False) as bar:
            given = expert, self.previous_known, buffer.images, images_stay, self._ready, learned
            self._teachers = self.teachers_of(*given, bar.advance if images_stay else None)
        self._student = self._ready(self.network)

    def teachers_of(
        self,
        expert: Expert,
        known: Tensor,
        images: Tensor,
        images_stay: bool,
        ready: Callable[[nn.Module], Ask],
        learned: Tensor | None = None,
        progress: Callable[[float], object] | None = None,
    ) -> Teachers:
        """Make teachers of an expert and of the previous ex-model, which knows the classes `known`; see `Teachers`."""
        scale = self.distillation.normalize
        with self.trainer.precision_plugin.forward_context():
            return Teachers(
                expert,
                self.previous,
                known,
                images,
                images_stay,
                learned,
                weights=scale.score_weights(),
                reference=scale.reference_images(expert.image_format, self.stream.seed, self.device),
                ready=ready,
                progress=progress or (lambda images: None),
            )

    def _begin(self, expert: Expert) -> None:
        learned = expert.experience
        if learned:
            self.previous.load_state_dict(self.network.state_dict())
            self.previous_known.copy_(self.known)
        self.known[expert.classes] = True
        weights = self.starts.weights(self.network, expert, self._initial_model)
        if weights is not None:
            self.network.load_state_dict(weights)
        self.trainer.strategy.setup_optimizers(self.trainer)

    def _ready(self, network: nn.Module) -> Callable[[Tensor], Tensor]:
        """A network as mini-batches are given to it."""
        return compile_network(network, self.device) if self._compile else network.__call__

    @torch.no_grad()
    def answer(self, images: Tensor) -> Tensor:
        """Ask the ex-model about images, as a buffer holds them: float32 ``(n, num_classes)``, 0 if not known."""
        training = self.training
        self.eval()
        image_format = self.stream.manifest.input
        device = self.known.device  # the CPU once a fit has ended, wherever the images are
        parts = [self.network(image_format.to_input(x.to(device))).float() for x in images.split(image_format.chunk)]
        self.train(training)
        return torch.cat(parts) * self.known

    def targets(self, labels: Tensor) -> Tensor | None:
        """Merge what both teachers say of all images of the buffer, of which y_syn is `labels`.

        Float32 ``(n, num_classes)``; None where images do not stay.
        """
        answers = None if self._teachers is None else self._teachers.all_answers
        return None if answers is None else self.distillation.target(answers, labels, self.heads).logits

    def release(self) -> None:
        """Let go of the expert, so that the next one is alone in memory."""
        self._teachers = None
        self._watch.clear()

    @property
    def learning(self) -> int | None:
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
        return logits.masked_fill(~self._possible(self.known, tasks), -torch.inf)

    def _possible(self, known: Tensor, tasks: Tensor | None) -> Tensor:
        """The classes that are an answer: those known; with heads, for each sample those known of its task's head."""
        return known if self.heads is None or tasks is None else known & (self.heads == tasks[:, None])

    def on_train_epoch_start(self) -> None:
        """Forget what was measured after the experience before."""
        self.confusion = None

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Look at the steps before, and seed torch for layers that draw from the global state (dropout) by this one."""
        self.check_numbers(wait=False)
        key = "step", self.stream.seed, self.stream.experience, self.global_rank, batch_idx
        seed_layers(derive_seed(*key), self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of Eq. 11, a scalar, on a mini-batch of augmented samples of the buffer."""
        assert self._teachers is not None
        answers = self._teachers.ask(batch.images, batch.rows)
        logits = self._student(batch.images).float()
        terms = self.loss_terms(logits, answers, batch, self.known)
        self._watch.add(
            batch_idx, sane(answers.expert), torch.cat([logits, terms["loss"].detach().expand(len(logits), 1)], dim=1)
        )
        self._terms = {name: value.detach() for name, value in terms.items()}
        return terms["loss"]

    def loss_terms(self, logits: Tensor, answers: Answers, batch: Batch, known: Tensor) -> dict[str, Tensor]:
        """Compute the loss of Eq. 11 and its terms; `known` are the classes of all experts up to this one."""
        with torch.autocast(self.device.type, enabled=False):  # logits of hundreds, and their squares, need float32
            possible = self._possible(known, batch.tasks)
            return self.distillation(logits, answers, batch.labels, possible, self.heads, self._tasks)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log the losses where Lightning is about to write a row: elsewhere it would take longer than the step."""
        if self.trainer._logger_connector.should_update_logs:  # Lightning says it nowhere else
            for name, value in self._terms.items():
                self.log(f"train/{name}", value, on_step=True, on_epoch=False, prog_bar=name == "loss")
        if batch_idx + 1 == self.trainer.num_training_batches:
            self.check_numbers(wait=True)

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
        """Count answers on one part of the test stream; none, for a task not yet learned, is a wrong one."""
        self._counts.update(self(batch.images, batch.tasks), batch.labels)

    def on_validation_epoch_end(self) -> None:
        """Read the counts off, over all processes."""
        self.confusion = self._counts.read()

    test_step = validation_step
    on_test_epoch_end = on_validation_epoch_end

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimiser and the schedule. Lightning calls this at the start, and each experience does."""
        optimizer, schedule = make_optimizer(self.network, self.optimizer, self.lr_scheduler, self._steps)
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    @property
    def _steps(self) -> int:
        """Optimiser steps an expert."""
        return -(-self.stream.n_iter // self.trainer.accumulate_grad_batches)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the sums over the experts so far, which `merged` starts with."""
        checkpoint["merge"] = dict(vars(self.starts.merge))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Give the weights of a checkpoint with fewer classes the rows it lacks, before Lightning loads them.

        Raises:
            ExmlError: If the checkpoint is of another ex-model.
        """
        grow_checkpoint(checkpoint, self, self.network, self.stream.manifest.class_names)
        self.starts.merge = Merge(**checkpoint.get("merge", {}))

    def settings(self) -> dict[str, Any]:
        """Return what must stay the same for a run to continue, as plain values.

        Not `compile`, not the number of classes, which grows, nor `start`, which is needed at beginnings alone.
        """
        assert self.architecture is not None
        return {
            "network": repr(self.architecture.skeleton().with_classes(0)),
            **self.distillation.settings(),
            **describe_optimizer(self.network, self.optimizer, self.lr_scheduler, self._steps),
        }


def make_optimizer(
    network: nn.Module, optimizer: OptimizerCallable, schedule: Schedule, steps: int
) -> tuple[torch.optim.Optimizer, LRSchedulerTypeUnion | None]:
    """Make the optimiser of an expert, and its schedule if there is one; `ExmlError` if one refuses its arguments.

    A `schedule` of ``cosine`` falls to 0 over the optimiser `steps` of an expert, ``one_cycle`` rises first; or it is
    what makes one; or None.
    """
    try:
        made = optimizer(network.parameters())
        if schedule == "cosine":
            return made, torch.optim.lr_scheduler.CosineAnnealingLR(made, steps)
        if schedule == "one_cycle":
            return made, one_cycle(made, steps)
        return made, None if schedule is None else schedule(made)
    except (ValueError, TypeError) as error:
        raise ExmlError(f"model.optimizer or model.lr_scheduler: {error}") from error


def describe_optimizer(
    network: nn.Module, optimizer: OptimizerCallable, schedule: Schedule, steps: int
) -> dict[str, Any]:
    """Return what must stay the same of both for a run to continue, as plain values; see `make_optimizer`."""
    made, scheduled = make_optimizer(network, optimizer, schedule, steps)
    numbers = {key: float(value) if type(value) is int else value for key, value in made.defaults.items()}
    return {
        "optimizer": f"{type(made).__name__} {numbers}",  # 0 of Python is 0.0 of a configuration
        "lr_scheduler": schedule
        if scheduled is None or isinstance(schedule, str)
        else f"{type(scheduled).__name__} {scheduled.state_dict()}",
    }
