"""The networks of an ex-model: built and checked, and compiled if that is asked for."""

from collections.abc import Callable

import torch
from lightning import Trainer
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.core.layout import fast_layout
from exml_lightning.experts import Manifest
from exml_lightning.experts.architecture import Architecture, probe
from exml_lightning.terminal import say


def build_networks(architecture: Architecture, manifest: Manifest, seed: int) -> tuple[nn.Module, nn.Module]:
    """Build the ex-model and the previous ex-model, which is frozen and in eval mode, on the CPU.

    Weights come at the first experience or from a checkpoint: none are downloaded for nothing. `manifest` has the
    images and the classes of the stream, `seed` is that of the weights.

    Raises:
        ExmlError: If the network cannot be built, refuses the images, or has another number of units than classes.
    """
    shape, num_classes = manifest.input.shape, len(manifest.class_names)
    name = f"model.architecture {architecture.class_path}"
    try:
        network, previous = (architecture.empty(shape, seed, "ex-model") for _ in range(2))
    except ExmlError as error:
        raise ExmlError(
            "the ex-model, built as the first expert unless model.architecture names another network, cannot be "
            f"built: {error}; that network must take num_classes"
        ) from error
    try:
        units = probe(network, shape, name)
    except ExmlError as error:
        raise ExmlError(f"{error}; the ex-model can be another network: --model.architecture.class_path") from error
    if units != num_classes:
        raise ExmlError(f"{name} has {units} output units: it must have {num_classes}, one a class of the stream")
    return fast_layout(network, shape), fast_layout(previous, shape).requires_grad_(False).eval()


def compile_network(network: nn.Module, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Compile a network at its first call, for mini-batches of one size; the network itself stays as it is.

    On a GPU its kernels are recorded as a CUDA graph, which is started as one: small networks spend most of their time
    on starting kernels. Returns a function of images; no module, so that checkpoints do not change.
    """
    # Each architecture and each number of classes takes one, and what is beyond the limit would not be compiled. The
    # limit has no public name (torch.compiler).
    torch._dynamo.config.cache_size_limit = 64
    compiled = torch.compile(network, dynamic=False, mode="reduce-overhead" if device.type == "cuda" else None)
    # Clones, since the next call of any compiled network writes over what a CUDA graph returned.
    return lambda images: compiled(images).clone()


def check_compiled(network: nn.Module, shape: tuple[int, int, int], batch_size: int, trainer: Trainer) -> None:
    """Compile a frozen network in eval mode for mini-batches of `batch_size` images of a shape, before any work.

    `ExmlError` if it cannot be compiled here, or what is compiled cannot do what the trainer asks for (device,
    precision).
    """
    device = trainer.strategy.root_device
    if device.type == "cuda" and trainer.accumulate_grad_batches > 1:  # the next graph would write over gradients
        raise ExmlError(
            "model.compile does not go with trainer.accumulate_grad_batches on a GPU: leave one of them out"
        )
    if trainer.is_global_zero:
        say(f"compiling {type(network).__name__}, which can take a minute the first time (model.compile)")
    try:
        with torch.no_grad(), trainer.precision_plugin.forward_context():
            compile_network(network, device)(torch.zeros(batch_size, *shape, device=device))
    except Exception as error:  # compilers raise anything
        raise ExmlError(
            f"model.compile is true, but {type(network).__name__} cannot be compiled here "
            f"({one_line(error)[:300]}): set it to false, or install what is missing (a C++ compiler, on a CPU)"
        ) from error
