"""`ExModelModule`: target merging and the Ex-Model Distillation loss (Section 3)."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

import torch
from lightning import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, LRSchedulerTypeUnion, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy

from exml_lightning.checkpoints import check_same_weights
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.losses import distillation_kl, distillation_mse, known_cross_entropy
from exml_lightning.core.rng import derive_seed
from exml_lightning.core.targets import Merge, Normalize, Unknown, merge_targets
from exml_lightning.data import ExpertStream
from exml_lightning.loaders import Batch
from exml_lightning.models import Architecture, ArchitectureConfig, probe
from exml_lightning.starts import Start, check_start, starting_weights


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
            `center_batch` or `none`.
        merge: How they are merged (Eq. 9): class by class (`unit`) or by each sample's label (`sample`).
        unknown: What is asked of classes that nobody knows yet: nothing (`skip`) or 0 (`zero`).
        loss: What compares the ex-model with the merged target: `mse` of the logits (Eq. 10), or `kl`, the divergence
            of their softened probabilities.
        temperature: Softens the probabilities of `kl`.
        start: Weights that the ex-model starts with: `scratch`, one initial model a run; `expert`, those of the first
            expert; `average`, at each experience the running mean of the ex-model and the new expert.
        reset_each_experience: Start anew at each experience, from the initial model (`scratch`) or from that
            experience's expert (`expert`), instead of going on with the ex-model.
        optimizer: Makes the optimiser, anew for each expert.
        lr_scheduler: The learning-rate schedule, anew for each expert, one step an optimiser step: `cosine` falls to 0
            over the steps of the expert; or what makes a schedule of torch; or null for none.
    """

    known: Tensor
    previous_known: Tensor

    def __init__(
        self,
        architecture: ArchitectureConfig | None = None,
        lambda_ce: float = 1.0,
        normalize: Normalize = "center",
        merge: Merge = "unit",
        unknown: Unknown = "skip",
        loss: Literal["mse", "kl"] = "mse",
        temperature: float = 2.0,
        start: Start = "scratch",
        reset_each_experience: bool = False,
        optimizer: OptimizerCallable = default_optimizer,
        lr_scheduler: LRSchedulerCallable | Literal["cosine"] | None = "cosine",
    ) -> None:
        super().__init__()
        if not lambda_ce >= 0:
            raise ExmlError(f"model.lambda_ce is {lambda_ce}: give 0 or more")
        if not temperature > 0:
            raise ExmlError(f"model.temperature is {temperature}: give more than 0")
        if loss == "kl" and unknown == "zero":
            raise ExmlError(
                "model.unknown zero has no meaning with loss kl, where a logit of 0 is a guess: set it to skip"
            )
        if reset_each_experience and start == "average":
            raise ExmlError("model.reset_each_experience has no meaning with start average: set it to false")
        self.architecture = None if architecture is None else Architecture.from_config(architecture)
        self.lambda_ce = lambda_ce
        self.normalize: Normalize = normalize
        self.merge: Merge = merge
        self.unknown: Unknown = unknown
        self.loss = loss
        self.temperature = temperature
        self.start: Start = start
        self.reset_each_experience = reset_each_experience
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.accuracy: list[float] = []
        """Accuracy on each part of the test stream, a fraction, when it was last measured."""
        self._expert: tuple[Expert, ...] = ()  # a tuple, so that the expert is no sub-module

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
        manifest = self.stream.manifest
        num_classes = len(manifest.class_names)
        architecture = self.architecture or manifest.experts[0].architecture
        self.architecture = architecture.with_classes(num_classes)
        self.network = self._initial_model()
        self.previous = self._initial_model().requires_grad_(False).eval()
        self.register_buffer("known", torch.zeros(num_classes, dtype=torch.bool))
        self.register_buffer("previous_known", torch.zeros(num_classes, dtype=torch.bool))
        self._metrics = nn.ModuleList(MulticlassAccuracy(num_classes, average="micro") for _ in self.stream.test_parts)
        units = probe(self.network, manifest.input.shape, f"model.architecture {self.architecture.class_path}")
        if units != num_classes:
            raise ExmlError(
                f"model.architecture {self.architecture.class_path} has {units} output units: "
                f"it must have {num_classes}, one a class of the stream"
            )
        if self.start != "scratch" and self.trainer.state.fn == TrainerFn.FITTING:
            learned = replace(manifest, experts=manifest.experts[: self.trainer.max_epochs])
            check_start(self.start, learned, self.architecture, every_expert=self.reset_each_experience)

    def _initial_model(self) -> nn.Module:
        assert self.architecture is not None
        return self.architecture.build(self.stream.seed, "ex-model")

    def train(self, mode: bool = True) -> "ExModelModule":
        """Set train or eval mode; the previous ex-model stays in eval mode."""
        super().train(mode)
        if hasattr(self, "previous"):
            self.previous.eval()
        return self

    def begin_experience(self, expert: Expert) -> None:
        """Start on a new expert: the ex-model becomes the previous one, optimiser and schedule start anew.

        Args:
            expert: The expert, on the device of the ex-model.
        """
        if expert.experience > 0:
            self.previous.load_state_dict(self.network.state_dict())
            self.previous_known.copy_(self.known)
        self.known[expert.classes] = True
        if expert.experience == 0 or self.reset_each_experience or self.start == "average":
            self.network.load_state_dict(starting_weights(self.start, self.network, expert, self._initial_model))
        self.trainer.strategy.setup_optimizers(self.trainer)

    def attach(self, expert: Expert) -> None:
        """Take `expert` as the teacher of the next steps."""
        self._expert = (expert,)

    def detach(self) -> None:
        """Let go of the expert, so that the next one is alone in memory."""
        self._expert = ()

    @property
    def attached(self) -> int | None:
        """The experience of the expert at hand, None without one."""
        return self._expert[0].experience if self._expert else None

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits; those of classes not yet learned are minus infinity.

        Args:
            images: Normalised images, ``(n, channels, height, width)``.

        Returns:
            Logits ``(n, num_classes)``.
        """
        logits: Tensor = self.network(images)
        return logits.masked_fill(~self.known, -torch.inf)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed torch for layers that draw from the global state (dropout), by this step's key alone."""
        stream = self.stream
        torch.manual_seed(derive_seed("step", stream.seed, stream.experience, self.global_rank, batch_idx))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the loss of Eq. 11 on a mini-batch.

        Args:
            batch: Augmented samples of the buffer.
            batch_idx: Place in the experience.

        Returns:
            The loss, a scalar.
        """
        (expert,) = self._expert
        with torch.no_grad():
            target = merge_targets(
                expert(batch.images).float(),
                expert.classes,
                self.previous(batch.images).float(),
                self.previous_known,
                batch.labels,
                normalize=self.normalize,
                merge=self.merge,
                unknown=self.unknown,
            )
        logits = self.network(batch.images).float()
        if self.loss == "mse":
            distillation = distillation_mse(logits, target)
        else:
            distillation = distillation_kl(logits, target, self.temperature)
        loss = distillation
        if self.lambda_ce:
            cross_entropy = known_cross_entropy(logits, batch.labels, self.known)
            loss = distillation + self.lambda_ce * cross_entropy
            self.log("train/cross_entropy", cross_entropy)
        self.log(f"train/{self.loss}", distillation)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def check_finite(self) -> None:
        """Stop a run that has diverged, before a checkpoint is written.

        Raises:
            ExmlError: If a weight is NaN or infinite.
        """
        if not all(parameter.isfinite().all() for parameter in self.network.parameters()):
            raise ExmlError(
                f"the ex-model diverged while it learned expert {self.stream.experience}: its weights are NaN or "
                "infinite; start another run with a smaller learning rate (model.optimizer)"
            )

    def on_validation_start(self) -> None:
        """Stop a run that has diverged before its accuracy is measured."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.check_finite()

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count right answers on one part of the test stream."""
        self._metrics[dataloader_idx].update(self(batch.images), batch.labels)  # type: ignore[operator]

    def on_validation_epoch_end(self) -> None:
        """Read the accuracies off, over all processes."""
        self.accuracy = []
        for metric, part in zip(self._metrics, self.stream.test_parts, strict=True):
            assert isinstance(metric, MulticlassAccuracy)
            right = round(float(metric.compute()) * len(part.images))  # a whole number again, not a rounded fraction
            self.accuracy.append(right / len(part.images))
            metric.reset()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Count right answers on one part of the test stream."""
        self.validation_step(batch, batch_idx, dataloader_idx)

    def on_test_epoch_end(self) -> None:
        """Read the accuracies off, over all processes."""
        self.on_validation_epoch_end()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimiser and the schedule. Lightning calls this at the start, and each experience does."""
        optimizer, schedule = self._make_optimizer()
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _make_optimizer(self) -> tuple[torch.optim.Optimizer, LRSchedulerTypeUnion | None]:
        try:
            optimizer = self.optimizer(self.network.parameters())
            if self.lr_scheduler == "cosine":
                return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.stream.n_iter)
            return optimizer, None if self.lr_scheduler is None else self.lr_scheduler(optimizer)
        except (ValueError, TypeError) as error:
            raise ExmlError(f"model.optimizer or model.lr_scheduler: {error}") from error

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another ex-model before Lightning loads it.

        Raises:
            ExmlError: If names or shapes of the weights differ.
        """
        check_same_weights(self.state_dict(), checkpoint["state_dict"])

    def settings(self) -> dict[str, Any]:
        """Return what must stay the same for a run to continue, as plain values."""
        optimizer, schedule = self._make_optimizer()
        return {
            "architecture": repr(self.architecture),
            "lambda_ce": self.lambda_ce,
            "normalize": self.normalize,
            "merge": self.merge,
            "unknown": self.unknown,
            "loss": self.loss,
            "temperature": self.temperature if self.loss == "kl" else None,
            "start": self.start,
            "reset_each_experience": self.reset_each_experience,
            "optimizer": f"{type(optimizer).__name__} {optimizer.defaults}",
            "lr_scheduler": self.lr_scheduler
            if schedule is None or self.lr_scheduler == "cosine"
            else f"{type(schedule).__name__} {schedule.state_dict()}",
        }
