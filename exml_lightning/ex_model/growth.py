"""Weights of an ex-model that gets more classes: a checkpoint, an optimiser, with rows for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from exml_lightning.core.errors import ExmlError

OTHER_OPTIMIZER = "the checkpoint is of another ex-model: its optimiser's tensors do not fit; give its configuration"


def grow_checkpoint(
    checkpoint: dict[str, Any],
    module: nn.Module,
    network: nn.Module,
    class_names: Sequence[str],
) -> None:
    """Fit a checkpoint, as Lightning has read it, to a module that may have more classes, in place.

    `network` is the part of `module` that was optimised, `class_names` are the stream's now. `ExmlError` if the
    checkpoint is of another ex-model.
    """
    learned = checkpoint["ExpertStream"]["class_names"]
    checkpoint["state_dict"] = grow_weights(module.state_dict(), checkpoint["state_dict"], learned, class_names)
    for state in checkpoint.get("optimizer_states", []):
        grow_optimizer_state(state["state"], list(network.parameters()))


def grow_weights(
    ours: Mapping[str, Tensor],
    theirs: Mapping[str, Tensor],
    learned: Sequence[str],
    class_names: Sequence[str],
) -> dict[str, Tensor]:
    """Return the weights of a checkpoint (`theirs`), fitted to an ex-model that may have more classes.

    Tensors with a row a class get the rows that they lack from `ours`. `learned` are the classes of the stream when the
    checkpoint was written, `class_names` those of now.

    Raises:
        ExmlError: If the classes of then are not the first ones of now, or names or shapes of other weights differ.
    """
    before, now = len(learned), len(class_names)
    if list(class_names[:before]) != list(learned):
        raise ExmlError(
            f"the checkpoint knows the classes {list(learned)}, but class_names of the experts' manifest begins with "
            f"{list(class_names[:before])}: classes keep their places, new ones come after them"
        )
    differing = []
    grown = {}
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        own, saved = ours.get(name), theirs.get(name)
        if own is None or saved is None:
            differing.append(name)
        elif own.shape == saved.shape:
            grown[name] = saved
        elif own.shape[1:] == saved.shape[1:] and (len(saved), len(own)) == (before, now):
            grown[name] = torch.cat([saved, own[before:].to(saved.device)])
        else:
            differing.append(name)
    if differing:
        raise ExmlError(
            f"the checkpoint is of another ex-model: {differing[:3]} differ; "
            "give the configuration that it was trained with"
        )
    return grown


def grow_optimizer_state(state: dict[int, dict[str, Any]], parameters: Sequence[Tensor]) -> None:
    """Give an optimiser's tensors zeros for the rows that `grow_weights` gave its parameters, in place.

    `state` has the tensors of each parameter, by its place; `ExmlError` if they are not those of such parameters.
    """
    for index, tensors in state.items():
        if index >= len(parameters):
            raise ExmlError(OTHER_OPTIMIZER)
        shape = parameters[index].shape
        for name, tensor in tensors.items():
            if isinstance(tensor, Tensor) and tensor.ndim == len(shape) > 0 and tensor.shape != shape:
                if tensor.shape[1:] != shape[1:] or len(tensor) > shape[0]:
                    raise ExmlError(OTHER_OPTIMIZER)
                tensors[name] = torch.cat([tensor, tensor.new_zeros(shape[0] - len(tensor), *shape[1:])])
