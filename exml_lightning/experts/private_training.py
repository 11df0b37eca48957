"""`PrivateExpertModule`: training one expert by DP-SGD, which Opacus's privacy engine does (docs/privacy.md)."""

import secrets
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from lightning import Trainer
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.experts.expert_module import ExpertModule
from exml_lightning.experts.privacy import NoisePlan

PRECISIONS = ("32-true", "bf16-mixed")
REMEDY = "take LeNet5, or SlimResNet18 with norm: group (docs/privacy.md)"


def secret_seed() -> int:
    """Draw a seed from the operating system's entropy."""
    return secrets.randbits(64)


class PrivateExpertModule(ExpertModule):
    """DP-SGD training of one expert (Abadi et al. 2016, Algorithm 1); takes a `plan` besides what `ExpertModule` does.

    Noise, sampling and dropout are not keyed: whoever can repeat them has no need to guess, and the guarantee is void.
    """

    def __init__(self, *args: Any, plan: NoisePlan) -> None:
        super().__init__(*args)
        self.plan = plan

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Let the engine put clipping and noise before each step of the recipe's optimiser, and make the loader."""
        self.pixels, self.labels = self.images.images.to(self.device), self.images.labels.to(self.device)
        self.sampling = torch.Generator().manual_seed(secret_seed())
        rows = TensorDataset(torch.arange(len(self.labels)))
        loader = DataLoader(rows, batch_size=self.recipe.batch_size, generator=self.sampling)
        self.hooks, optimizer, self.loader = _make_private(
            self.network, self.make_optimizer(), loader, self.plan.noise_multiplier, self.plan.max_grad_norm
        )
        return self.scheduled(optimizer)

    def train_dataloader(self) -> Any:
        """Return Poisson samples: each image is in each of them with the same probability, whatever the others do."""
        return self.loader

    def on_after_batch_transfer(self, batch: list[Tensor], dataloader_idx: int) -> tuple[Tensor, Tensor]:
        """Look the images of a sample up, which are on the device; there may be none in it."""
        images = self.image_format.normalize(self.pixels[batch[0]])
        return self.recipe.augmentation(images, self.sampling), self.labels[batch[0]]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed a step's noise and dropout and the next sample: torch reads 32 bits of a seed, few enough to try all."""
        torch.manual_seed(secret_seed())
        self.sampling.manual_seed(secret_seed())

    def teardown(self, stage: str) -> None:
        """Leave the network as it was."""
        self.hooks.cleanup()


def _make_private(
    network: nn.Module, optimizer: torch.optim.Optimizer, loader: DataLoader[Any], noise: float, norm: float
) -> tuple[Any, torch.optim.Optimizer, DataLoader[Any]]:
    """Return the hooks that compute gradients of single images, the optimiser and the loader of DP-SGD."""
    from opacus import PrivacyEngine

    for layer in network.modules():
        if getattr(layer, "inplace", False):
            layer.inplace = False  # type: ignore[assignment]  # autograd forbids it on what a hook returns
    warnings.filterwarnings("ignore", "Full backward hook is firing")  # the images need no gradient
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the engine does not seed the generators: we do
        engine = PrivacyEngine()
    given = {"module": network, "optimizer": optimizer, "data_loader": loader, "noise_multiplier": noise}
    hooks, private, samples = engine.make_private(**given, max_grad_norm=norm, wrap_model=False)  # names stay
    # Noise whose rounding tells nothing (Mironov 2012; Holohan and Braghin 2021). The engine's own switch for it asks
    # for the package torchcsprng besides.
    private.secure_mode = True
    return hooks, private, samples


def check_trainer(trainer: Trainer) -> None:
    """Refuse what would void the accounting."""
    if not isinstance(trainer.strategy, SingleDeviceStrategy):
        raise ExmlError("private experts are trained on one device: --trainer.devices 1 --trainer.strategy auto")
    if trainer.precision not in PRECISIONS:
        raise ExmlError(
            f"trainer.precision is {trainer.precision}, but must be one of {PRECISIONS} with privacy.epsilon"
        )
    if trainer.gradient_clip_val:
        raise ExmlError("trainer.gradient_clip_val has no effect with privacy.epsilon: give privacy.max_grad_norm")
    if trainer.accumulate_grad_batches != 1:
        raise ExmlError("trainer.accumulate_grad_batches must be 1 with privacy.epsilon: give experts.batch_size")


def check_network(network: nn.Module, shape: tuple[int, int, int], name: str) -> None:
    """Refuse a network whose gradient of one image ``(channels, height, width)`` is not its own, or cannot be found.

    It must be on the CPU, and is of no use afterwards; `name` is what errors call it.
    """
    network.train()
    for path, layer in network.named_modules():
        # Opacus overlooks layers without trainable weights, whose running statistics are no less a leak.
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) or [*layer.buffers(recurse=False)]:
            what = f"{name}: layer {path} ({type(layer).__name__}) cannot be trained with privacy.epsilon"
            raise ExmlError(f"{what}, since it keeps statistics of the images or mixes those of a step: {REMEDY}")
    images = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)).requires_grad_()
    labels = torch.zeros(2, dtype=torch.long)
    try:
        mixed = bool(torch.autograd.grad(network(images)[0].sum(), images)[0][1].any())
        loader = DataLoader(TensorDataset(labels))
        _, optimizer, _ = _make_private(network, torch.optim.SGD(network.parameters()), loader, 0.0, 1.0)
        weights: list[tuple[str, Any]] = [(path, p) for path, p in network.named_parameters() if p.requires_grad]
        for count in (2, 0):  # a sample may be empty
            optimizer.zero_grad()
            F.cross_entropy(network(images[:count]), labels[:count]).backward()
            for path, weight in weights:
                if weight.grad_sample is None or len(weight.grad_sample) != count:
                    raise ValueError(f"{path} gets none")
    except Exception as error:  # anyone's code
        raise ExmlError(f"{name}: the gradients of single images fail ({one_line(error)[:200]}): {REMEDY}") from error
    if mixed:
        raise ExmlError(f"{name} mixes the images of a step, so none of them could be kept private: {REMEDY}")
