"""How an expert is trained: the recipe, group ``experts`` of a configuration, and the module that Lightning fits."""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from lightning import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.broken_images import break_images
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.one_cycle import one_cycle
from exml_lightning.core.rng import derive_seed, keyed_generator, seed_layers
from exml_lightning.experts.architecture import ArchitectureConfig
from exml_lightning.experts.manifest import ExpertEntry

Schedule = Literal["constant", "one_cycle"]
ADVICE = "give --data.experts DIR another folder, or delete this one to train it anew"
_DEFAULTS = [f", {key.name}={key.default!r}" for key in fields(ExpertEntry) if key.default is not MISSING]


@dataclass(frozen=True)
class ExpertRecipe:
    """How experts are trained: SGD, cross-entropy over all classes of the scenario.

    Args:
        architecture: The network, as `class_path` and `init_args`; ``num_classes`` is filled in from the scenario. Null
            is LeNet5 for grey images of 32x32, else a slim ResNet18.
        epochs: Passes over the expert's training images.
        batch_size: Images a step.
        lr: Learning rate; of `one_cycle` its peak.
        schedule: `constant`, as in the paper, or `one_cycle` (Smith and Topin 2019), which needs few epochs: the rate
            rises for a quarter of the steps and falls to 0 in the rest, both linearly, with Nesterov's momentum.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        augmentation: Random changes of the training images.
        unknown: Whether an expert is taught what is none of its classes: half of each batch once more, broken
            (`break_images`), for which "none of these", of logit 0, is right. What independent experts say can then be
            compared (docs/scenarios.md).
        statistics: Whether to publish beside each expert what one of its layers saw of each class: what is learned from
            it is far better, and images like the average of a class can be made from it (docs/statistics.md).
        workers: Experts trained at a time, each in a process with its share of the cores. Null is one a core on a CPU
            (of OMP_NUM_THREADS, if that is set), and one after the other on a GPU, or where an expert has several
            devices.
    """

    architecture: ArchitectureConfig | None = None
    epochs: int = 20
    batch_size: int = 32
    lr: float = 0.01
    schedule: Schedule = "constant"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    augmentation: Augmentation = field(default_factory=Augmentation)
    unknown: bool = False
    statistics: bool = False
    workers: int | None = None

    def __post_init__(self) -> None:
        for name, least in {"epochs": 1, "batch_size": 1, "lr": 0, "momentum": 0, "weight_decay": 0}.items():
            if getattr(self, name) < least:
                raise ExmlError(f"experts.{name} is {getattr(self, name)}: give {least} or more")
        if self.workers is not None and self.workers < 1:
            raise ExmlError(
                f"experts.workers is {self.workers}: give 1 or more, or null for as many as there are cores"
            )
        if self.schedule == "one_cycle" and not 0 < self.momentum < 1:
            raise ExmlError(f"experts.momentum is {self.momentum}: one_cycle needs some, less than 1, for instance 0.9")


class ExpertModule(LightningModule):
    """Supervised training of one expert on images it brings; `key` keys all draws.

    Checkpoints say `description`, an `ExpertEntry` in words.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: ExpertRecipe,
        images: LabelledImages,
        image_format: ImageFormat,
        key: tuple[int | str, ...],
        description: str,
    ) -> None:
        super().__init__()
        self.network, self.recipe, self.images, self.image_format = network, recipe, images, image_format
        self.key, self.description = key, description

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which expert this is."""
        checkpoint["expert"] = self.description

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with another expert, or by another recipe."""
        if _without_defaults(checkpoint["expert"]) != _without_defaults(self.description):
            half = f"an expert is half trained as {checkpoint['expert']}, but {self.description} is asked for"
            raise ExmlError(f"{half}: {ADVICE}")

    def train_dataloader(self) -> Any:
        """Return the mini-batches of an epoch."""
        return _Epoch(self)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed torch for layers that draw from the global state (dropout), by this step's key alone."""
        seed_layers(derive_seed("step", *self.key, self.global_step), self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the cross-entropy of a mini-batch."""
        loss = self.loss(*batch)
        self.log("loss", loss, prog_bar=True)
        return loss

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute the cross-entropy of normalised images; beside "none of these", if the recipe says so."""
        if not self.recipe.unknown:
            return F.cross_entropy(self.network(images), labels)
        draws = keyed_generator("broken", *self.key, self.global_step)
        broken = break_images(images[: -(-len(images) // 2)], draws)
        logits = F.pad(self.network(torch.cat([images, broken])), (0, 1))
        none = torch.full((len(broken),), logits.shape[1] - 1, device=labels.device)
        return F.cross_entropy(logits, torch.cat([labels, none]))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimiser and the schedule of the recipe."""
        return self.scheduled(self.make_optimizer())

    def make_optimizer(self) -> torch.optim.Optimizer:
        """Make the optimiser of the recipe."""
        settings = {name: getattr(self.recipe, name) for name in ("lr", "momentum", "weight_decay")}
        return torch.optim.SGD(self.network.parameters(), nesterov=self.recipe.schedule == "one_cycle", **settings)

    def scheduled(self, optimizer: torch.optim.Optimizer) -> OptimizerLRScheduler:
        """Give an optimiser the schedule of the recipe, over all its steps."""
        steps = self.recipe.epochs * len(self.train_dataloader())
        schedule = one_cycle(optimizer, steps) if self.recipe.schedule == "one_cycle" else None
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _without_defaults(description: str) -> str:
    """Leave out the keys that an expert does not need, so that checkpoints of before one was added still fit."""
    for default in _DEFAULTS:
        description = description.replace(default, "")
    return description


class _Epoch:
    """The training images of an expert, on its device, in an order drawn anew for each epoch from the key."""

    def __init__(self, module: ExpertModule) -> None:
        self._module = module

    def __len__(self) -> int:
        return -(-len(self._module.images) // self._module.recipe.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        module = self._module
        images, labels = module.images.images.to(module.device), module.images.labels.to(module.device)
        order = torch.randperm(len(labels), generator=keyed_generator("order", *module.key, module.current_epoch))
        augmentation = module.recipe.augmentation
        changes = keyed_generator("augmentation", *module.key, module.current_epoch)
        for rows in order.to(module.device).split(module.recipe.batch_size):
            yield augmentation(module.image_format.normalize(images[rows]), changes), labels[rows]
