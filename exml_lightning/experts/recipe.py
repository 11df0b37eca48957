"""Plain supervised training of one expert by a recipe."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

from exml_lightning.callbacks.stream_checkpoint import save_checkpoint
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.rng import derive_seed, keyed_generator, seed_layers
from exml_lightning.experts.architecture import ArchitectureConfig

ADVICE = "give --data.experts DIR another folder, or delete this one to train it anew"


def _default_architecture() -> ArchitectureConfig:
    return {"class_path": "exml_lightning.models.LeNet5"}


@dataclass(frozen=True)
class ExpertRecipe:
    """How experts are trained: SGD at a constant learning rate, cross-entropy over all classes of the scenario.

    Args:
        architecture: The network, as `class_path` and `init_args`; ``num_classes`` is filled in with the number of
            classes of the scenario.
        epochs: Passes over the expert's training images.
        batch_size: Images a step.
        lr: Learning rate.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
    """

    architecture: ArchitectureConfig = field(default_factory=_default_architecture)
    epochs: int = 20
    batch_size: int = 32
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ExmlError(f"experts.{name} is {getattr(self, name)}: give 1 or more")
        for name in ("lr", "momentum", "weight_decay"):
            if getattr(self, name) < 0:
                raise ExmlError(f"experts.{name} is {getattr(self, name)}: give 0 or more")


class EpochLoader:
    """The training images of an expert, in an order drawn anew for each epoch from the key.

    Args:
        module: Knows the recipe, the key and the epoch.
        images: The images.
        image_format: How to normalise.
    """

    def __init__(self, module: "ExpertModule", images: LabelledImages, image_format: ImageFormat) -> None:
        self._module, self._images, self._format = module, images, image_format

    def __len__(self) -> int:
        return -(-len(self._images) // self._module.recipe.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        module = self._module
        generator = keyed_generator("order", *module.key, module.current_epoch)
        images, labels = self._images.images.to(module.device), self._images.labels.to(module.device)
        order = torch.randperm(len(labels), generator=generator).to(module.device)
        for rows in order.split(module.recipe.batch_size):
            yield self._format.normalize(images[rows]), labels[rows]


class ExpertModule(LightningModule):
    """Plain supervised training of one expert.

    Args:
        network: The network.
        recipe: How to train.
        key: Key of all draws.
        description: Says which expert this is, in checkpoints.
    """

    def __init__(self, network: nn.Module, recipe: ExpertRecipe, key: tuple[int | str, ...], description: str) -> None:
        super().__init__()
        self.network, self.recipe, self.key, self.description = network, recipe, key, description

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which expert this is."""
        checkpoint["expert"] = self.description

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with another expert, or by another recipe."""
        if checkpoint["expert"] != self.description:
            raise ExmlError(
                f"an expert is half trained as {checkpoint['expert']}, but {self.description} is asked for: {ADVICE}"
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed torch for layers that draw from the global state (dropout), by this step's key alone."""
        seed_layers(derive_seed("step", *self.key, self.global_step), self.device)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the cross-entropy of a mini-batch."""
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimiser of the recipe."""
        recipe = self.recipe
        return torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )


class EpochCheckpoint(Checkpoint):
    """Keeps the newest epoch in one file, so that training can go on.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        save_checkpoint(trainer, self.path)
