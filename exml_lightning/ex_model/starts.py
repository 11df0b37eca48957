"""The weights that an ex-model starts an experience with."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from exml_lightning.core.averaging import running_mean
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.experts import Manifest
from exml_lightning.experts.architecture import Architecture

Start = Literal["scratch", "expert", "average"]


def starting_weights(
    start: Start, network: nn.Module, expert: Expert, learned: int, initial_model: Callable[[], nn.Module]
) -> dict[str, Tensor]:
    """Return the weights to start with, a state dict for `network`, the ex-model as it is.

    ``scratch``: those of the one initial model of a run; ``expert``: a copy of the expert's; ``average``: the mean of
    the ex-model's, which stands for the `learned` experts before, and of the expert's.
    """
    if start == "scratch":
        return initial_model().state_dict()
    if start == "expert":
        return expert.model.state_dict()
    return running_mean(network.state_dict(), expert.model.state_dict(), learned)


def check_start(start: Start, manifest: Manifest, architecture: Architecture, experiences: range) -> None:
    """Refuse to start with the weights of experts that are not built as the ex-model is.

    `architecture` is the ex-model's; `experiences` are those still to be learned.

    Raises:
        ExmlError: If an expert whose weights are needed has another architecture, another input, or another unit for
            one of its classes.
    """
    if start == "scratch":
        return
    for k in experiences if start == "average" else [k for k in experiences if k == 0]:
        entry = manifest.experts[k]
        if entry.architecture.skeleton() != architecture.skeleton():
            reason = f"is {entry.architecture} and the ex-model {architecture}"
        elif entry.input not in (None, manifest.input):
            reason = f"takes {entry.input} and the ex-model {manifest.input}"
        elif tuple(manifest.classes_of(k)) != entry.outputs:
            reason = f"has units {list(entry.outputs)} for the classes of the stream {manifest.classes_of(k)}"
        else:
            continue
        raise ExmlError(
            f"model.start is {start}, but expert {k} {reason}: they must be the same, or set model.start to scratch"
        )
