"""The first reading of weights: which network they fit, and what it turns out to do that nobody has said."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError, shown
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.logits import looks_like, other_in_company, where_answer_is
from exml_lightning.core.rng import keyed_generator
from exml_lightning.experts.architecture import Architecture, last_linear, show, units_of
from exml_lightning.experts.new_experts import NAME_ALL, NO_CLASS, NewExperts
from exml_lightning.experts.state_dict import FoundWeights, OtherShapesError
from exml_lightning.experts.weights import load_weights

CONTRASTS = (0.1, 0.3, 1.0, 3.0) * 2
"""Of the noise that networks are shown, times that of the images they know."""


class FirstReading(NamedTuple):
    """What was found out of a file.

    Args:
        architecture: The network, and what it returns.
        images: Those that it takes.
        classifier: Its last linear layer, if that has a row for each output unit.
        weights: Which weights of the file are its; None where there is no choice.
        notes: Lines for people, of what they may have meant otherwise.
    """

    architecture: Architecture
    images: ImageFormat
    classifier: str | None
    weights: str | None
    notes: list[str]


def read_first(path: Path, new: NewExperts, names: tuple[str, ...], before: ImageFormat | None) -> FirstReading:
    """Read an expert whose output units have `names`, and show it noise.

    `before` are the images of other experts, which may be its. Raises `ExmlError` if it is not as `new` says.
    """
    architecture, network, images, found = _loaded(path, new, names, before)
    returned, answers = _asked(network, images)
    layer, units = last_linear(network), answers.shape[1]
    binary = units == 1
    if layer is not None and (binary or getattr(network.get_submodule(layer), "out_features", None) != units):
        layer = None
    returns = new.outputs or looks_like(answers)
    if new.outputs is None and returns != "logits":
        louder = _asked(_louder(network), images)[1]
        returns = looks_like(louder) if bool(torch.isfinite(louder).all()) else returns
    notes = _notes(new, architecture, network, found)
    if part := where_answer_is(returned):
        notes.append(f"{type(network).__name__} returns several things: {part} is taken")
    if new.outputs is None and returns != "logits":
        words = {"probabilities": "probabilities (a softmax)", "sigmoid": "a sigmoid of each class"}[returns]
        notes.append(f"it returns {words}: logits are made of it (--outputs logits if it returns these)")
    if other_in_company(answers, show(network, _noise(images)[:1], type(network).__name__)):
        notes.append("! it answers an image otherwise in other company: has its batch norm no running statistics?")
    key = found.key if found.others or new.weights is not None else None
    told = None if new.outputs is None and returns == "logits" else returns
    return FirstReading(replace(architecture, returns=told, binary=binary), images, layer, key, notes)


def _loaded(
    path: Path, new: NewExperts, names: tuple[str, ...], before: ImageFormat | None
) -> tuple[Architecture, nn.Module, ImageFormat, FoundWeights]:
    """Read an expert, with ``num_classes`` filled in where the network takes one and none is given.

    It is the number of names, or 1 where one unit tells two classes apart, whichever the weights fit.
    """
    given = Architecture(str(new.architecture), dict(new.init_args)).skeleton()
    filled = [given.with_classes(count) for count in (len(names), 1) if count == len(names) or len(names) == 2]
    furthest: tuple[int, ExmlError] | None = None
    for architecture in [given] if "num_classes" in new.init_args else [*filled, given]:
        came = 0
        try:
            network = architecture.build()
            came = 1
            convolution = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
            guessed = (convolution.in_channels if convolution else 0) or (before.shape[0] if before else 3)
            images = new.images(before, new.channels or guessed)
            units = _asked(network, images)[1].shape[1]
            if units != len(names) and (units, len(names)) != (1, 2):
                what = f"{type(network).__name__} has {units} output units, but {len(names)} names are given"
                raise ExmlError(f"{what}: {NAME_ALL}")
            if units == len(names) == 1:
                raise ExmlError(
                    f"{type(network).__name__} has one output unit, which tells two classes apart: name both, the one "
                    f"of low values first ({NO_CLASS!r} for one that is no class)"
                )
            came = 2
            return architecture, network, images, _with_weights(network, path, new, architecture)
        except ExmlError as error:
            furthest = (came, error) if furthest is None or came > furthest[0] else furthest
    assert furthest is not None
    raise furthest[1]


def _with_weights(network: nn.Module, path: Path, new: NewExperts, architecture: Architecture) -> FoundWeights:
    try:
        return load_weights(network, path, new.weights)
    except OtherShapesError as error:
        count = architecture.init_args.get("num_classes")
        if count is None or "num_classes" in new.init_args:
            raise
        raise ExmlError(f"{error}; num_classes is {count}, the number of names given: {NAME_ALL}") from error


def _asked(network: nn.Module, images: ImageFormat) -> tuple[Any, Tensor]:
    """Show a network noise; return what it returns, and its answers as float ``(n, units)``."""
    noise, name, returned = _noise(images), type(network).__name__, []
    watch = network.register_forward_hook(lambda _, inputs, output: returned.append(output), prepend=True)
    answers = show(network, noise, name)
    watch.remove()
    if isinstance(answers, Tensor) and answers.ndim == 1:  # of one unit
        answers = answers[:, None]
    units_of(answers, len(noise), name)
    return returned[0], answers.float()


def _louder(network: nn.Module) -> nn.Module:
    """Copy a network, with far greater weights in its last layer: logits grow with them, probabilities do not."""
    copy = deepcopy(network)
    layers = [name.rpartition(".")[0] for name, weights in copy.named_parameters() if weights.ndim > 1]
    for weights in copy.get_submodule(layers[-1]).parameters() if layers else []:
        weights.data *= 1e4
    return copy


def _noise(images: ImageFormat) -> Tensor:
    """Draw normalised images that a network answers differently: of little contrast, and of much."""
    noise = torch.randn(len(CONTRASTS), *images.shape, generator=keyed_generator("what does it return"))
    return noise * torch.tensor(CONTRASTS)[:, None, None, None]


def _notes(new: NewExperts, architecture: Architecture, network: nn.Module, found: FoundWeights) -> list[str]:
    """Say which weights were taken, and what was left out."""
    name, lines = type(network).__name__, []
    if found.averaged or found.others or new.weights is not None:
        average = ", an average of others by their name" if found.averaged else ""
        others = f"; it also has {', '.join(found.others)} (--weights KEY)" if found.others else ""
        lines.append(f"its weights {found.key} are taken{average}{others}")
    if found.left_out:
        lines.append(f"left out, as no part of {name}: {shown(found.left_out)}")
    asked = Architecture(architecture.class_path, new.init_args).asks_for_weights()
    if asked and not architecture.class_path.startswith("torchvision."):
        lines.append(f"{asked[0]} is left out, since the file has the weights: give what else it changes in {name}")
    return lines
