"""The weights that an ex-model starts an experience with."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from exml_lightning.core.averaging import running_mean
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.experts import Manifest
from exml_lightning.models import Architecture

Start = Literal["scratch", "expert", "average"]


def starting_weights(
    start: Start, network: nn.Module, expert: Expert, initial_model: Callable[[], nn.Module]
) -> dict[str, Tensor]:
    """Return the weights to start with.

    Args:
        start: ``scratch``: those of the initial model; ``expert``: a copy of the expert's; ``average``: the mean of the
            ex-model's, which stands for the experts before, and of the expert's.
        network: The ex-model as it is.
        expert: The expert of the experience.
        initial_model: Makes the one initial model of a run.

    Returns:
        A state dict for `network`.
    """
    if start == "scratch":
        return initial_model().state_dict()
    if start == "expert":
        return expert.model.state_dict()
    return running_mean(network.state_dict(), expert.model.state_dict(), expert.experience)


def check_start(start: Start, manifest: Manifest, architecture: Architecture, every_expert: bool) -> None:
    """Refuse to start with the weights of experts that are not built as the ex-model is.

    Args:
        start: ``expert`` or ``average``.
        manifest: The experts.
        architecture: The ex-model's.
        every_expert: Whether all experts' weights are used even with ``expert``, else the first one's.

    Raises:
        ExmlError: If an expert has another architecture, or another unit for one of its classes.
    """
    asked = manifest.experts if start == "average" or every_expert else manifest.experts[:1]
    for k, entry in enumerate(asked):
        if entry.architecture != architecture:
            raise ExmlError(
                f"model.start is {start}, but expert {k} is {entry.architecture} and the ex-model {architecture}: "
                "they must be the same, or set model.start to scratch"
            )
        if tuple(manifest.classes_of(k)) != entry.outputs:
            raise ExmlError(
                f"model.start is {start}, but expert {k} has units {list(entry.outputs)} for the classes of the stream "
                f"{manifest.classes_of(k)}: they must be the same, or set model.start to scratch"
            )
