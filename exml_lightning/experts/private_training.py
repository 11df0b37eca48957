"""Training one expert by DP-SGD: Opacus's gradients, clipping and noise in a Lightning fit (docs/privacy.md)."""

import secrets
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.experts.privacy import NoisePlan
from exml_lightning.experts.recipe import EpochLoader, ExpertModule, ExpertRecipe

PRECISIONS = ("32-true", "bf16-mixed")
REMEDY = "take LeNet5, or SlimResNet18 with norm: group (docs/privacy.md)"


def secret_seed() -> int:
    """Draw a seed from the operating system's entropy."""
    return secrets.randbits(64)


class PrivateExpertModule(ExpertModule):
    """DP-SGD training of one expert (Abadi et al. 2016, Algorithm 1).

    Noise, sampling and dropout are not keyed as everything else in this package: whoever can repeat them has no need to
    guess, and the guarantee is void. Each step is seeded anew, because torch's CPU generator reads 32 bits of a seed,
    few enough to try them all.

    Args:
        network: The network.
        recipe: How to train.
        key: Key of the expert.
        description: Says which expert this is, in checkpoints.
        plan: How the steps are made private.
        draw_seed: Draws seeds of 64 bits; any other than the default is for tests and gives no privacy.
    """

    def __init__(
        self,
        network: nn.Module,
        recipe: ExpertRecipe,
        key: tuple[int | str, ...],
        description: str,
        plan: NoisePlan,
        draw_seed: Callable[[], int] = secret_seed,
    ) -> None:
        super().__init__(network, recipe, key, description)
        self.plan, self.draw_seed = plan, draw_seed

    def setup(self, stage: str) -> None:
        """Let the network compute the gradient of each image; its weights keep their names."""
        warnings.filterwarnings("ignore", "Full backward hook is firing")  # the images need no gradient
        self.hooks = _hook(self.network)

    def teardown(self, stage: str) -> None:
        """Leave the network as it was."""
        self.hooks.cleanup()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed what this step draws: dropout, and the noise."""
        torch.manual_seed(self.draw_seed())

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the cross-entropy of a sample of the images, summed; there may be none in it."""
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels, reduction="sum")
        self.log("loss", loss.detach() / max(len(labels), 1), prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimiser of the recipe, with clipping and noise before each step of it."""
        from opacus.optimizers import DPOptimizer

        plan = self.plan
        optimizer: torch.optim.Optimizer = DPOptimizer(
            super().configure_optimizers(),
            noise_multiplier=plan.noise_multiplier,
            max_grad_norm=plan.max_grad_norm,
            expected_batch_size=plan.batch_size,
            secure_mode=True,  # noise whose rounding tells nothing (Mironov 2012; Holohan and Braghin 2021)
        )
        return optimizer


class PoissonLoader(EpochLoader):
    """Samples of the training images of an expert, each image in each of them with the same probability.

    Args:
        module: Knows the plan, and draws the seeds.
        images: The images.
        image_format: How to normalise.
    """

    def __init__(self, module: PrivateExpertModule, images: LabelledImages, image_format: ImageFormat) -> None:
        super().__init__(module, images, image_format)
        self._rate, self._draw_seed = module.plan.sample_rate, module.draw_seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = self._module.device
        images, labels = self._images.images.to(device), self._images.labels.to(device)
        for _ in range(len(self)):
            generator = torch.Generator().manual_seed(self._draw_seed())
            drawn = torch.rand(len(labels), dtype=torch.float64, generator=generator) < self._rate
            rows = drawn.nonzero().flatten().to(device)
            yield self._format.normalize(images[rows]), labels[rows]


def check_trainer(trainer: Trainer) -> None:
    """Refuse what would void the accounting.

    Args:
        trainer: The trainer.

    Raises:
        ExmlError: Names the key of the trainer.
    """
    if not isinstance(trainer.strategy, SingleDeviceStrategy):
        raise ExmlError("private experts are trained on one device: --trainer.devices 1 --trainer.strategy auto")
    if trainer.precision not in PRECISIONS:
        allowed = " or ".join(PRECISIONS)
        raise ExmlError(f"trainer.precision is {trainer.precision}: give {allowed} with privacy.epsilon")
    if trainer.gradient_clip_val:
        raise ExmlError("trainer.gradient_clip_val has no effect with privacy.epsilon: give privacy.max_grad_norm")
    if trainer.accumulate_grad_batches != 1:
        raise ExmlError("trainer.accumulate_grad_batches must be 1 with privacy.epsilon: give experts.batch_size")


def check_network(network: nn.Module, shape: tuple[int, int, int], name: str) -> None:
    """Refuse a network for which the gradient of one image is not its own, or cannot be computed.

    Args:
        network: A network that is not needed any more, on the CPU.
        shape: Channels, height and width of the images.
        name: What to call the network in an error.

    Raises:
        ExmlError: Names the layer, if it is known, and the remedy.
    """
    from opacus.validators import ModuleValidator

    network.train()
    for path, layer in network.named_modules():
        # Opacus overlooks layers without trainable weights, whose running statistics are no less a leak.
        own = isinstance(layer, nn.modules.batchnorm._BatchNorm) or any(True for _ in layer.buffers(recurse=False))
        validator = ModuleValidator.VALIDATORS.get(type(layer))
        if own or (validator is not None and validator(layer)):
            raise ExmlError(
                f"{name}: layer {path} ({type(layer).__name__}) cannot be trained with privacy.epsilon, since it keeps "
                f"statistics of the images or mixes those of a step: {REMEDY}"
            )
    try:
        images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
        mixed = bool(torch.autograd.grad(network(images)[0].sum(), images)[0][1].any())
        hooks = _hook(network)
        weights: dict[str, Any] = {path: p for path, p in network.named_parameters() if p.requires_grad}
        for count in (2, 0):
            hooks.set_grad_sample_to_none()
            network(images[:count]).sum().backward()
            for path, weight in weights.items():
                if weight.grad_sample is None or len(weight.grad_sample) != count:
                    raise ValueError(f"{path} gets none")
    except Exception as error:  # anyone's code
        raise ExmlError(f"{name}: the gradients of single images fail ({one_line(error)[:200]}): {REMEDY}") from error
    if mixed:
        raise ExmlError(f"{name} mixes the images of a step, so none of them could be kept private: {REMEDY}")


def _hook(network: nn.Module) -> Any:
    from opacus.grad_sample import GradSampleHooks

    layers: list[Any] = [*network.modules()]
    for layer in layers:
        if getattr(layer, "inplace", False):
            layer.inplace = False  # autograd forbids it on what a hook returns
    return GradSampleHooks(network, loss_reduction="sum")
