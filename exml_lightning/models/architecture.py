"""An architecture by name: what a manifest or a configuration says of a network."""

import importlib
from dataclasses import dataclass, field, replace
from typing import Any, NotRequired, TypedDict

import torch
from torch import nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.rng import derive_seed


class ArchitectureConfig(TypedDict):
    """An architecture as a configuration names it."""

    class_path: str
    init_args: NotRequired[dict[str, Any]]


@dataclass(frozen=True)
class Architecture:
    """A network class and the arguments to make one.

    Args:
        class_path: Dotted path of an `nn.Module` class, for instance ``exml_lightning.models.LeNet5``.
        init_args: Its keyword arguments; ``num_classes`` is filled in from the stream where it is left out.
    """

    class_path: str
    init_args: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: ArchitectureConfig) -> "Architecture":
        """Return the architecture that a configuration names."""
        return cls(config["class_path"], dict(config.get("init_args", {})))

    def with_classes(self, num_classes: int) -> "Architecture":
        """Return the same architecture for another number of classes."""
        return replace(self, init_args={**self.init_args, "num_classes": num_classes})

    def build(self, *seed: int | str) -> nn.Module:
        """Make the network.

        Args:
            seed: Key of the initial weights: the same key always gives the same ones. The global random state stays
                as it was.

        Returns:
            The network, on the CPU, in train mode.

        Raises:
            ExmlError: If the class cannot be imported, is no `nn.Module`, or refuses its arguments.
        """
        network_class = self._import()
        # On the CPU even where Lightning builds on another device: its generator would draw other weights.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed("weights", *seed))
            try:
                return network_class(**self.init_args)
            except (TypeError, ValueError, RuntimeError) as error:
                raise ExmlError(
                    f"architecture {self.class_path} refuses init_args {self.init_args}: {error}"
                ) from error

    def _import(self) -> type[nn.Module]:
        module_name, _, class_name = self.class_path.rpartition(".")
        try:
            network_class = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise ExmlError(
                f"architecture class_path {self.class_path!r} cannot be imported ({error}): "
                "give the dotted path of an nn.Module class"
            ) from error
        if not (isinstance(network_class, type) and issubclass(network_class, nn.Module)):
            raise ExmlError(f"architecture class_path {self.class_path!r} is not an nn.Module class")
        return network_class


def probe(network: nn.Module, shape: tuple[int, int, int], name: str) -> int:
    """Show a network one black image, to see whether it takes it and what it returns.

    Args:
        network: The network, on the CPU; left in the mode it was in.
        shape: Channels, height and width of the image.
        name: What to call the network in an error.

    Returns:
        Its number of output units.

    Raises:
        ExmlError: If it refuses the image or returns anything but logits ``(1, units)``.
    """
    mode = network.training
    network.eval()
    try:
        with torch.device("cpu"), torch.no_grad():
            logits = network(torch.zeros(1, *shape))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ExmlError(
            f"{name} refuses images of shape {list(shape)} ({' '.join(str(error).split())[:200]})"
        ) from error
    finally:
        network.train(mode)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        what = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ExmlError(f"{name} returns {what} for one image: it must return logits of shape [1, units]")
    return logits.shape[1]
