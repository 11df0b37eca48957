"""An architecture by name: what a manifest or a configuration says of a network."""

import difflib
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, get_type_hints

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.experts.schema import Arguments, DottedPath

if TYPE_CHECKING:  # torch takes seconds to import, and manifests are listed without it
    from torch import nn


PRETRAINED = {"weights": None, "pretrained": False}
"""The arguments that ask for pretrained weights (torchvision, timm), and what asks for none."""


class ArchitectureConfig(TypedDict):
    """An architecture as a configuration names it."""

    class_path: str
    init_args: NotRequired[dict[str, Any]]


@dataclass(frozen=True)
class Architecture:
    """A network class and the keyword arguments to make one; ``num_classes`` is filled in from the stream if left out.

    `class_path` is the dotted path of an `nn.Module` class, for instance ``exml_lightning.models.LeNet5``, or of a
    function annotated to return one, for instance ``torchvision.models.resnet18``.
    """

    class_path: DottedPath
    init_args: Arguments = field(default_factory=dict)

    @classmethod
    def from_config(cls, config: ArchitectureConfig) -> "Architecture":
        """Return the architecture that a configuration names."""
        return cls(config["class_path"], dict(config.get("init_args", {})))

    def with_classes(self, num_classes: int) -> "Architecture":
        """Return the same architecture for another number of classes."""
        return replace(self, init_args={**self.init_args, "num_classes": num_classes})

    def skeleton(self) -> "Architecture":
        """Return the same network without pretrained weights, to be filled with weights from a file."""
        nothing = {name: value for name, value in PRETRAINED.items() if name in self.init_args}
        return replace(self, init_args={**self.init_args, **nothing})

    def build(self, *seed: int | str) -> "nn.Module":
        """Make the network, on the CPU, in train mode; files that it reads by `torch.load` run no code.

        `seed` is the key of the initial weights, all that they depend on; the global random state stays. Raises
        `ExmlError` if it cannot be imported, makes no `nn.Module` (a function must say so before it is called), refuses
        its arguments, or cannot fetch its pretrained weights.
        """
        import torch
        from torch import nn

        from exml_lightning.core.rng import derive_seed
        from exml_lightning.files import reason

        make = self._import()
        # On the CPU even where Lightning builds on another device: its generator would draw other weights.
        with torch.device("cpu"), torch.random.fork_rng(devices=[]), _weights_only():
            torch.manual_seed(derive_seed("weights", *seed))
            try:
                network = make(**self.init_args)
            except ExmlError:
                raise
            except Exception as error:  # anyone's code
                what = f"refuses init_args {self.init_args}"
                if isinstance(error, OSError) and self != self.skeleton():
                    without = ", ".join(f"{k}: {v or 'null'}" for k, v in PRETRAINED.items() if k in self.init_args)
                    what = f"cannot fetch its pretrained weights (without them: {without})"
                raise ExmlError(f"architecture {self.class_path} {what}: {reason(error)}") from error
        if not isinstance(network, nn.Module):
            raise ExmlError(f"architecture {self.class_path} makes {type(network).__name__}, which is no nn.Module")
        return network.train()

    def _import(self) -> "Callable[..., nn.Module]":
        module_name, _, name = self.class_path.rpartition(".")
        try:
            found = getattr(importlib.import_module(module_name), name)
        except Exception as error:  # anyone's module
            close = difflib.get_close_matches(name, dir(sys.modules.get(module_name)), n=1)
            advice = (
                f"did you mean {module_name}.{close[0]}?" if close else "give the dotted path of an nn.Module class"
            )
            words = f"architecture class_path {self.class_path!r} cannot be imported ({one_line(error)}): {advice}"
            raise ExmlError(words) from error
        if not _makes_networks(found):
            raise ExmlError(
                f"architecture class_path {self.class_path!r} is neither an nn.Module class nor a function annotated "
                "to return one: name such a class or function"
            )
        make: Callable[..., nn.Module] = found
        return make


@contextmanager
def _weights_only() -> Iterator[None]:
    """Let every `torch.load` refuse code: init_args may name files (`checkpoint_path` of timm)."""
    names = "TORCH_FORCE_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    os.environ[names[0]] = "1"
    try:
        yield
    finally:
        del os.environ[names[0]]
        os.environ.update(before)


def _makes_networks(found: object) -> bool:
    """Whether it may be called: any other function may do anything."""
    from torch import nn

    made = found
    if inspect.isfunction(found):
        try:
            made = get_type_hints(found).get("return")
        except Exception:  # annotations are code
            return False
    return isinstance(made, type) and issubclass(made, nn.Module)


def default_architecture(shape: tuple[int, int, int]) -> Architecture:
    """Return the network for images of a shape, channels, height and width, where none is named."""
    if shape == (1, 32, 32):
        return Architecture("exml_lightning.models.LeNet5")
    channels = {} if shape[0] == 3 else {"in_channels": shape[0]}
    return Architecture("exml_lightning.models.SlimResNet18", channels)


def last_linear(network: "nn.Module") -> str | None:
    """Name the last linear layer of a network, which is its classifier; None if it has none."""
    from torch import nn

    names = [name for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    return names[-1] if names else None


def probe(network: "nn.Module", shape: tuple[int, int, int], name: str) -> int:
    """Show a network, on the CPU, in eval mode, a black image ``(channels, height, width)``; return its output units.

    Raises `ExmlError`, which calls it `name`, if it refuses the image or returns anything but logits ``(n, units)``.
    """
    import torch

    mode = network.training
    network.eval()
    try:
        with torch.device("cpu"), torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = network(torch.zeros(1, *shape))
    except Exception as error:  # anyone's code
        raise ExmlError(f"{name} refuses images of shape {list(shape)} ({one_line(error)[:200]})") from error
    finally:
        network.train(mode)
    return units_of(logits, 1, name)


def units_of(logits: object, count: int, name: str, hint: str = "") -> int:
    """Return the output units of a network that was shown `count` images; `ExmlError` if it returns no logits."""
    import torch

    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != count:
        what = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise ExmlError(f"{name} returns {what} for images [{count}, ...]: it must return [{count}, units]{hint}")
    return logits.shape[1]
