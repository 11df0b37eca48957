"""How an expert is trained: the recipe, group ``experts`` of a configuration, and the module that Lightning fits."""

from collections.abc import Iterator
from dataclasses import MISSING, dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.rng import derive_seed, keyed_generator, seed_layers
from exml_lightning.experts.architecture import ArchitectureConfig
from exml_lightning.experts.manifest import ExpertEntry

ADVICE = "give --data.experts DIR another folder, or delete this one to train it anew"
_DEFAULTS = [f", {key.name}={key.default!r}" for key in fields(ExpertEntry) if key.default is not MISSING]


@dataclass(frozen=True)
class ExpertRecipe:
    """How experts are trained: SGD at a constant learning rate, cross-entropy over all classes of the scenario.

    Args:
        architecture: The network, as `class_path` and `init_args`; ``num_classes`` is filled in from the scenario. Null
            is LeNet5 for grey images of 32x32, else a slim ResNet18.
        epochs: Passes over the expert's training images.
        batch_size: Images a step.
        lr: Learning rate.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
        statistics: Whether to publish beside each expert what one of its layers saw of each class: what is learned from
            it is far better, and images like the average of a class can be made from it (docs/statistics.md).
    """

    architecture: ArchitectureConfig | None = None
    epochs: int = 20
    batch_size: int = 32
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    statistics: bool = False

    def __post_init__(self) -> None:
        for name, least in {"epochs": 1, "batch_size": 1, "lr": 0, "momentum": 0, "weight_decay": 0}.items():
            if getattr(self, name) < least:
                raise ExmlError(f"experts.{name} is {getattr(self, name)}: give {least} or more")


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
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimiser of the recipe."""
        settings = {name: getattr(self.recipe, name) for name in ("lr", "momentum", "weight_decay")}
        return torch.optim.SGD(self.network.parameters(), **settings)


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
        for rows in order.to(module.device).split(module.recipe.batch_size):
            yield module.image_format.normalize(images[rows]), labels[rows]
