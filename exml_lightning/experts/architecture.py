"""An architecture by name: what a manifest or a configuration says of a network."""

import difflib
import importlib
import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict, get_type_hints
from unittest import mock

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.experts.schema import Arguments, DottedPath

if TYPE_CHECKING:  # torch takes seconds to import, and manifests are listed without it
    from torch import Tensor, nn

PRETRAINED = {"weights": None, "pretrained": False}
"""The arguments that ask for pretrained weights (torchvision, timm), and what asks for none."""


class ArchitectureConfig(TypedDict):
    """An architecture as a configuration names it."""

    class_path: str
    init_args: NotRequired[dict[str, Any]]
    returns: NotRequired[Literal["logits", "probabilities", "sigmoid"]]
    binary: NotRequired[bool]


@dataclass(frozen=True, repr=False)
class Architecture:
    """A network class and the keyword arguments to make one; ``num_classes`` is filled in from the stream if left out.

    `class_path` is the dotted path of an `nn.Module` class, for instance ``exml_lightning.models.LeNet5``, or of a
    function annotated to return one, for instance ``torchvision.models.resnet18``. `returns` is what its `forward`
    returns: logits, probabilities that add up to 1, or a sigmoid of each class; None for logits that nobody has said
    it returns. It is `binary` if its one output unit
    tells two classes apart, the second by high values (see `answer_in_logits`).
    """

    class_path: DottedPath
    init_args: Arguments = field(default_factory=dict)
    returns: Literal["logits", "probabilities", "sigmoid"] | None = None
    binary: bool = False

    def __repr__(self) -> str:
        """Name what is not the default alone: runs are told from others by it."""
        said = [f"class_path={self.class_path!r}", f"init_args={self.init_args!r}"]
        said += [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self)[2:] if getattr(self, f.name) != f.default]
        return f"Architecture({', '.join(said)})"

    @classmethod
    def from_config(cls, config: ArchitectureConfig) -> "Architecture":
        """Return the architecture that a configuration names."""
        returns, binary = config.get("returns"), config.get("binary", False)
        return cls(config["class_path"], dict(config.get("init_args", {})), returns, binary)

    def with_classes(self, num_classes: int) -> "Architecture":
        """Return the same architecture for another number of classes, a unit for each."""
        return replace(self, init_args={**self.init_args, "num_classes": num_classes}, binary=False)

    def asks_for_weights(self) -> list[str]:
        """Name the arguments that ask for pretrained weights."""
        return [name for name in PRETRAINED if self.init_args.get(name)]

    def skeleton(self) -> "Architecture":
        """Return the same network without pretrained weights, to be filled with weights from a file.

        What else a factory of torchvision does where it is asked for weights becomes arguments of its own
        (``transform_input`` of GoogLeNet); of other factories that is not known.
        """
        nothing = {name: value for name, value in PRETRAINED.items() if name in self.init_args}
        if not self.asks_for_weights() or not self.class_path.startswith("torchvision."):
            return replace(self, init_args={**self.init_args, **nothing})
        return replace(
            self,
            init_args={**_changed_by_weights(self.class_path, json.dumps(self.init_args)), **self.init_args, **nothing},
        )

    def empty(self, shape: tuple[int, int, int], *seed: int | str) -> "nn.Module":
        """Make the network without pretrained weights; see `skeleton` and `build`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torchvision's, of initial weights that a file replaces
            return self.skeleton().build(*seed, shape=shape)

    def build(self, *seed: int | str, shape: tuple[int, int, int] | None = None) -> "nn.Module":
        """Make the network, on the CPU, in train mode; files that it reads by `torch.load` run no code.

        It answers in logits and leaves images as they are (`answer_in_logits`). `seed` is the key of the initial
        weights, all that they depend on; the global random state stays. A network whose layers take their sizes from
        the first image is shown a black one of a `shape`: channels, height and width.

        Raises `ExmlError` if it cannot be imported, makes no `nn.Module` (a function must say so before it is called),
        refuses its arguments or that image, or cannot fetch its pretrained weights.
        """
        import torch
        from torch import nn
        from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

        from exml_lightning.core.logits import answer_in_logits
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
            answer_in_logits(network, self.returns, self.binary)
            lazy = UninitializedBuffer, UninitializedParameter
            if shape is not None and any(isinstance(value, lazy) for value in network.state_dict().values()):
                show(network, torch.zeros(1, *shape), f"architecture {self.class_path}")
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


@lru_cache(maxsize=64)
def _changed_by_weights(class_path: str, written: str) -> dict[str, Any]:
    """Find what a factory of torchvision changes in a network where it is asked for weights, as arguments for it.

    Both networks are made, without values and without fetching. What differs in them by the name of an argument is what
    the weights change: images are scaled otherwise, auxiliary classifiers taken away. `written` are the ``init_args``,
    as JSON. Raises `ExmlError` if the networks still differ with these arguments.
    """
    import torch
    from torch import nn
    from torchvision.models import WeightsEnum

    architecture = Architecture(class_path, json.loads(written))
    nothing = {name: value for name, value in PRETRAINED.items() if name in architecture.init_args}
    # the number of classes must be that of the weights while these are asked for
    asked = {name: value for name, value in architecture.init_args.items() if name != "num_classes"}
    make, empty = architecture._import(), {**asked, **nothing}

    def made(arguments: dict[str, Any]) -> nn.Module:
        with torch.device("meta"):
            return make(**arguments)

    def unlike(one: nn.Module, other: nn.Module) -> dict[str, Any]:
        return {k: v for k, v in _plain_attributes(one).items() if v != _plain_attributes(other).get(k, v)}

    try:
        # no public way makes a network as it is with weights, but without fetching them
        with mock.patch.object(WeightsEnum, "get_state_dict"), mock.patch.object(nn.Module, "load_state_dict"):
            pretrained = made(asked)
        plain = made(empty)
        own = inspect.signature(type(plain).__init__).parameters
        changes = {name: value for name, value in unlike(pretrained, plain).items() if name in own}
        rest = unlike(pretrained, made({**empty, **changes}))
    except Exception as error:  # anyone's arguments
        raise ExmlError(
            f"architecture {architecture.class_path} refuses init_args {architecture.init_args}: {one_line(error)}"
        ) from error
    if rest:
        raise ExmlError(
            f"architecture {architecture.class_path}: init_args {architecture.init_args} change more than weights "
            f"({', '.join(rest)}): leave the weights out and give the arguments that make the same network"
        )
    return changes


def _plain_attributes(network: "nn.Module") -> dict[str, Any]:
    """What a network's `forward` may look at beside its layers, and the names of these."""
    kinds = bool, int, float, str
    plain = {name: value for name, value in vars(network).items() if isinstance(value, kinds) and name[0] != "_"}
    return {**plain, "layers": [name for name, _ in network.named_modules()]}


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

    return units_of(show(network, torch.zeros(1, *shape), name), 1, name)


def show(network: "nn.Module", images: "Tensor", name: str) -> Any:
    """Show a network, on the CPU, in eval mode, images; return what it returns.

    Raises `ExmlError`, which calls it `name`, if it refuses them. No random state changes.
    """
    import torch

    mode = network.training
    network.eval()
    try:
        with torch.device("cpu"), torch.no_grad(), torch.random.fork_rng(devices=[]):
            return network(images)
    except Exception as error:  # anyone's code
        what = f"{name} refuses images of shape {list(images.shape[1:])} ({one_line(error)[:200]})"
        raise ExmlError(what) from error
    finally:
        network.train(mode)


def units_of(logits: object, count: int, name: str) -> int:
    """Return the output units of a network that was shown `count` images; `ExmlError` if it returns no logits."""
    import torch

    if not isinstance(logits, torch.Tensor) or logits.ndim != 2 or len(logits) != count:
        shape = list(logits.shape) if isinstance(logits, torch.Tensor) else ""
        keys = f" of {', '.join(map(str, logits))}" if isinstance(logits, Mapping) else ""
        raise ExmlError(
            f"{name} returns {shape or type(logits).__name__}{keys} for images [{count}, ...]: it must return "
            f"[{count}, units], or a mapping that has them as logits, or a tuple that begins with them"
        )
    return logits.shape[1]
