"""The weights that an ex-model starts an experience with."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from exml_lightning.core.averaging import running_mean
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.merging import Merge
from exml_lightning.data import ExpertStream
from exml_lightning.experts import ExpertEntry, Manifest
from exml_lightning.experts.architecture import Architecture

Start = Literal["scratch", "expert", "average", "merged"]


class Starts:
    """Gives an ex-model the weights that it starts its experiences with.

    ``scratch``: those of the one initial model of a run; ``expert``: those of the first expert, or from scratch where
    that is not built as the ex-model is; where its classifier alone is another one, the rows of its classes, the others
    from scratch; ``average``: at each experience the mean of the ex-model's, which stands for the experts before, and
    of the expert's; ``merged``: at each experience those of all experts so far, put together by `Merge`.
    """

    def __init__(self, start: Start) -> None:
        self.start: Start = start
        self.merge = Merge()
        """Of the experts so far, if it is they that are started with."""
        self.left_out = ""
        """What of ``expert`` does not apply, in words; "" for nothing."""

    def check(self, stream: ExpertStream, architecture: Architecture) -> None:
        """Refuse what cannot be started with, once a checkpoint is restored; `architecture` is the ex-model's.

        Raises:
            ExmlError: If an expert is not built as `check_start` says, or the checkpoint had another start.
        """
        if self.start == "expert":
            reason = difference("expert", stream.manifest, architecture, 0)
            self.left_out = f"the start from expert 0, which {reason}" if reason else ""
        check_start(self.start, stream.manifest, architecture, range(stream.completed, stream.num_experts))
        if self.start == "merged" and self.merge.count <= stream.experience:
            raise ExmlError(
                "model.start is merged, but the checkpoint had another start, so the experts before cannot be merged: "
                "set model.start to what it was started with, or start anew"
            )

    def weights(
        self, network: nn.Module, expert: Expert, initial_model: Callable[[], nn.Module]
    ) -> dict[str, Tensor] | None:
        """Return the weights to start with, a state dict for `network`, the ex-model as it is; None to leave those."""
        if self.start == "merged":
            self.merge.add(expert.model, expert.began_with())
            return self.merge.weights()
        if self.start == "average":
            return running_mean(network.state_dict(), expert.model.state_dict(), expert.experience)
        if expert.experience:
            return None
        initial = initial_model().state_dict()
        return initial if self.start == "scratch" or self.left_out else _copied(initial, expert)


def _copied(own: dict[str, Tensor], expert: Expert) -> dict[str, Tensor]:
    theirs: dict[str, Tensor] = expert.model.state_dict()
    if expert.aligned and all(own[name].shape == tensor.shape for name, tensor in theirs.items()):
        return theirs
    for name, tensor in theirs.items():
        if name.rpartition(".")[0] == expert.classifier:
            theirs[name] = own[name].index_copy(0, expert.classes, tensor[expert.outputs])
    return theirs


def check_start(start: Start, manifest: Manifest, architecture: Architecture, experiences: range) -> None:
    """Refuse to start with the weights of experts that are not built as the ex-model is.

    `architecture` is the ex-model's; `experiences` are those still to be learned.

    Raises:
        ExmlError: If an expert whose weights are needed has another architecture, another input, or another unit for
            one of its classes.
    """
    for k in experiences if start in ("average", "merged") else ():
        if reason := difference(start, manifest, architecture, k):
            raise ExmlError(
                f"model.start is {start}, but expert {k} {reason}: they must be the same, or set model.start to scratch"
            )


def difference(start: Start, manifest: Manifest, architecture: Architecture, index: int) -> str:
    """Say why an ex-model of an architecture cannot start with the weights of an expert; "" if it can.

    For ``expert`` the classifier, if the manifest names it, may have other units.
    """
    entry = manifest.experts[index]
    if entry.input not in (None, manifest.input):
        return f"takes {entry.input} and the ex-model {manifest.input}"
    if start == "expert" and _same_but_classifier(entry, architecture, manifest.input.shape):
        return ""
    if entry.architecture.skeleton() != architecture.skeleton():
        return f"is {entry.architecture} and the ex-model {architecture}"
    if tuple(manifest.classes_of(index)) != entry.outputs:
        return f"has units {list(entry.outputs)} for the classes of the stream {manifest.classes_of(index)}"
    return ""


def _same_but_classifier(entry: ExpertEntry, architecture: Architecture, image_shape: tuple[int, int, int]) -> bool:
    """Whether an expert's layers are the ex-model's, if the classifier has as many units."""
    theirs, ours = entry.architecture.skeleton(), architecture.skeleton()
    if entry.classifier is None or theirs.with_classes(0) != ours.with_classes(0):
        return False
    networks = (a.empty(image_shape) for a in (theirs, ours))
    shapes = [{name: tensor.shape for name, tensor in network.state_dict().items()} for network in networks]
    return shapes[0].keys() == shapes[1].keys() and all(
        shapes[0][name] == shape or (name.rpartition(".")[0] == entry.classifier and shapes[0][name][1:] == shape[1:])
        for name, shape in shapes[1].items()
    )
