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

    ``scratch``: those of the one initial model of a run; ``expert``: those of the first expert; where its classifier is
    another one, the rows of its classes, the others as they are; ``average``: at each experience the mean of the
    ex-model's, which stands for the experts before, and of the expert's; ``merged``: at each experience those of all
    experts so far, put together by `Merge`.
    """

    def __init__(self, start: Start) -> None:
        self.start: Start = start
        self.merge = Merge()
        """Of the experts so far, if it is they that are started with."""

    def check(self, stream: ExpertStream, architecture: Architecture) -> None:
        """Refuse what cannot be started with, once a checkpoint is restored; `architecture` is the ex-model's.

        Raises:
            ExmlError: If an expert is not built as `check_start` says, what its training began with is broken, or the
                checkpoint had another start.
        """
        pending = range(stream.completed, stream.num_experts)
        check_start(self.start, stream.manifest, architecture, pending)
        if self.start != "merged":
            return
        if self.merge.count <= stream.experience:
            raise ExmlError(
                "model.start is merged, but the checkpoint had another start, so the experts before cannot be merged: "
                "set model.start to what it was started with, or start anew"
            )
        for index in pending:
            stream.initial_weights(index)

    def weights(
        self, network: nn.Module, expert: Expert, stream: ExpertStream, initial_model: Callable[[], nn.Module]
    ) -> dict[str, Tensor] | None:
        """Return the weights to start with, a state dict for `network`, the ex-model as it is; None to leave those."""
        learned = expert.experience
        if self.start == "merged":
            self.merge.add(expert.model, stream.initial_weights(learned))
            return self.merge.weights()
        if self.start == "average":
            return running_mean(network.state_dict(), expert.model.state_dict(), learned)
        if learned:
            return None
        return initial_model().state_dict() if self.start == "scratch" else _copied(network.state_dict(), expert)


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
            one of its classes; but for `expert` its classifier, if the manifest names it, may have other units.
    """
    if start == "scratch":
        return
    for k in experiences if start in ("average", "merged") else [k for k in experiences if k == 0]:
        entry = manifest.experts[k]
        same = entry.architecture.skeleton() == architecture.skeleton()
        if entry.input not in (None, manifest.input):
            reason = f"takes {entry.input} and the ex-model {manifest.input}"
        elif start == "expert" and _same_but_classifier(entry, architecture):
            continue
        elif not same:
            reason = f"is {entry.architecture} and the ex-model {architecture}"
        elif tuple(manifest.classes_of(k)) != entry.outputs:
            reason = f"has units {list(entry.outputs)} for the classes of the stream {manifest.classes_of(k)}"
        else:
            continue
        but = " but for the classifier, which its manifest must name," if start == "expert" else ""
        raise ExmlError(
            f"model.start is {start}, but expert {k} {reason}: they must be the same{but} or set model.start to scratch"
        )


def _same_but_classifier(entry: ExpertEntry, architecture: Architecture) -> bool:
    """Whether an expert's layers are the ex-model's, if the classifier has as many units."""
    theirs, ours = entry.architecture.skeleton(), architecture.skeleton()
    if entry.classifier is None or theirs.with_classes(0) != ours.with_classes(0):
        return False
    shapes = [{name: tensor.shape for name, tensor in a.build().state_dict().items()} for a in (theirs, ours)]
    return shapes[0].keys() == shapes[1].keys() and all(
        shapes[0][name] == shape or (name.rpartition(".")[0] == entry.classifier and shapes[0][name][1:] == shape[1:])
        for name, shape in shapes[1].items()
    )
