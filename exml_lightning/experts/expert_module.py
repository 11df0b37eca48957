"""`ExpertModule`: plain supervised training of one expert, as Lightning fits it."""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.rng import derive_seed, keyed_generator, seed_layers
from exml_lightning.experts.recipe import ExpertRecipe

ADVICE = "give --data.experts DIR another folder, or delete this one to train it anew"


class ExpertModule(LightningModule):
    """Plain supervised training of one expert; it brings its images, so `Trainer.fit` needs nothing else.

    Args:
        network: The network.
        recipe: How to train.
        images: The training images.
        image_format: How to normalise them.
        key: Key of all draws.
        description: Says which expert this is, in checkpoints.
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
        if checkpoint["expert"] != self.description:
            raise ExmlError(
                f"an expert is half trained as {checkpoint['expert']}, but {self.description} is asked for: {ADVICE}"
            )

    def train_dataloader(self) -> Any:
        """Return the mini-batches of an epoch."""
        return EpochLoader(self)

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
            self.network.parameters(), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )


class EpochLoader:
    """The training images of an expert, on its device, in an order drawn anew for each epoch from the key.

    Args:
        module: Has the images, and knows the recipe, the key and the epoch.
    """

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
