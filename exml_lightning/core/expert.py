"""A frozen classifier and what is known about it."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from exml_lightning.core.class_statistics import ClassStatistics
from exml_lightning.core.conversion import InputConversion
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.rng import keyed_generator

LARGEST = 1e6
"""Logits of trained networks are tens, or hundreds: those beyond stand for minus infinity, or are broken."""


class Expert(nn.Module):
    """A trained classifier, frozen, that answers for the classes it knows.

    Args:
        model: The network; maps ``(n, channels, height, width)`` to ``(n, units)`` logits. It is put in eval mode and
            its parameters stop asking for gradients.
        classes: Class indices in the stream that the expert knows, in the order of `outputs`.
        outputs: The unit of the network that stands for each of `classes`.
        image_format: The images it is shown: those that the ex-model takes.
        experience: Place in the stream, from 0.
        task: Task label.
        classifier: Dotted name of the last linear layer within `model`; None if unknown.
        own_format: The input the network expects, to which images are converted; None for `image_format`.
        file: Where it comes from, for messages.
        initial: The weights that its training began with, by their names in `model`; None where nobody knows.
        statistics: What its owner has published of what a layer saw; None for nothing.

    Raises:
        ExmlError: If images cannot be converted to what the network expects.
    """

    classes: Tensor
    outputs: Tensor

    def __init__(
        self,
        model: nn.Module,
        classes: Sequence[int],
        outputs: Sequence[int],
        image_format: ImageFormat,
        experience: int = 0,
        task: int = 0,
        classifier: str | None = None,
        own_format: ImageFormat | None = None,
        file: str = "",
        initial: Mapping[str, Tensor] | None = None,
        statistics: ClassStatistics | None = None,
    ) -> None:
        super().__init__()
        self.name = f"expert {experience} ({file})" if file else f"expert {experience}"
        self.model = model
        self.own_format = own_format or image_format
        self.convert = (
            nn.Identity() if self.own_format == image_format else InputConversion(image_format, self.own_format)
        )
        self.image_format = image_format
        self.experience = experience
        self.task = task
        self.classifier = classifier
        self.initial = initial
        self.statistics = statistics
        self.guess_initial: Callable[[Expert], Mapping[str, Tensor] | None] | None = None
        """Says what stands for `initial` where that is None; asked when it is needed, since it may read files."""
        self.aligned = list(classes) == list(outputs)
        """Whether the unit of each class is at its place in the stream."""
        self.register_buffer("classes", torch.tensor(classes, dtype=torch.long))
        self.register_buffer("outputs", torch.tensor(outputs, dtype=torch.long))
        self.requires_grad_(False).eval()

    def began_with(self) -> Mapping[str, Tensor] | None:
        """Return the weights that its training began with, or what stands for them; None where there is nothing."""
        if self.initial is None and self.guess_initial is not None:
            self.initial = self.guess_initial(self)
        return self.initial

    @property
    def chunk(self) -> int:
        """How many images it is asked about together where there are many; see `ImageFormat.chunk`."""
        return min(self.image_format.chunk, self.own_format.chunk)

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of the classes the expert knows, ``(n, len(classes))``, in the order of `classes`.

        Images ``(n, channels, height, width)`` are normalised by `image_format`, here and below. Gradients flow to
        them.
        """
        return self.ask(self.model, images)

    def ask(self, model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Compute the same by what stands for the network, for instance a compiled one; see `forward`."""
        return model(self.convert(images))[:, self.outputs]

    def probability(self, images: Tensor, labels: Tensor) -> Tensor:
        """Compute how probable the expert finds the label of each image, ``(n,)``, as generating reports it.

        Labels are classes of the stream that it knows, int64 ``(n,)``; only these compete. See `confidence_in`.
        """
        columns = (labels[:, None] == self.classes).int().argmax(dim=1)
        return confidence_in(self.ask(self.model, images), columns)

    def gives_gradient(self) -> bool:
        """Return whether its answers change smoothly with images: an image can be optimised against it only then.

        Not those of a network that detaches, rounds or quantises on the way, or forbids gradients.
        """
        noise = torch.randn(2, *self.image_format.shape, generator=keyed_generator("gradient")).to(self.classes.device)
        with torch.enable_grad():
            logits = self(noise.requires_grad_()).float()
            return logits.requires_grad and bool(torch.autograd.grad(logits.square().sum(), noise)[0].any())

    def own_logits(self, images: Tensor, num_classes: int) -> Tensor:
        """Compute logits ``(n, num_classes)``, each in its class's column; minus infinity for unknown classes."""
        return self._in_columns(self(images), num_classes)

    def stream_logits(self, images: Tensor, num_classes: int) -> Tensor:
        """Compute what the expert says of every class of the stream: logits ``(n, num_classes)``.

        A wide head has a unit for each class of the stream, in their order, as the experts of `exml experts` have: then
        all units speak, those of classes the expert does not know too. Any other head says minus infinity of these.
        """
        logits: Tensor = self.model(self.convert(images))
        if self.aligned and logits.shape[1] == num_classes:
            return logits
        return self._in_columns(logits[:, self.outputs], num_classes)

    def _in_columns(self, logits: Tensor, num_classes: int) -> Tensor:
        return logits.new_full((len(logits), num_classes), -torch.inf).index_copy(1, self.classes, logits)

    def class_weights(self) -> Tensor:
        """Return the classifier's row for each of `classes`, in their order: float ``(len(classes), features)``.

        Raises `ExmlError` if the manifest names no classifier layer, or one that is not linear.
        """
        if self.classifier is None:
            raise ExmlError(
                f"expert {self.experience} has no `classifier` in its manifest: "
                "name its last linear layer there (docs/manifest.md)"
            )
        layer = dict(self.model.named_modules()).get(self.classifier)
        if not isinstance(layer, nn.Linear):
            raise ExmlError(
                f"expert {self.experience}: its classifier {self.classifier!r} is {type(layer).__name__}, not Linear: "
                "correct `classifier` in its manifest"
            )
        return layer.weight[self.outputs]


def confidence_in(logits: Tensor, columns: Tensor) -> Tensor:
    """Return the probability that an expert gives to a class of each image, ``(n,)``.

    `logits` are of its own classes, float ``(n, classes)``; where it is one, against a logit of 0. `columns` are the
    places of the classes asked for, int64 ``(n,)``.
    """
    if logits.shape[1] == 1:
        return logits[:, 0].sigmoid()
    return logits.softmax(dim=1).gather(1, columns[:, None])[:, 0]
