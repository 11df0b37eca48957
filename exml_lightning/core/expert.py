"""A frozen classifier and what is known about it."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from exml_lightning.core.images import ImageFormat


class Expert(nn.Module):
    """A trained classifier, frozen, that answers for the classes it knows.

    Args:
        model: The network; maps ``(n, channels, height, width)`` to ``(n, units)`` logits. It is put in eval mode and
            its parameters stop asking for gradients.
        classes: Class indices in the stream that the expert knows, in the order of `outputs`.
        outputs: The unit of the network that stands for each of `classes`.
        image_format: The input the network expects.
        experience: Place in the stream, from 0.
        task: Task label.
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
    ) -> None:
        super().__init__()
        self.model = model
        self.image_format = image_format
        self.experience = experience
        self.task = task
        self.register_buffer("classes", torch.tensor(classes, dtype=torch.long))
        self.register_buffer("outputs", torch.tensor(outputs, dtype=torch.long))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Compute the logits of the classes the expert knows.

        Args:
            images: Normalised images, ``(n, channels, height, width)``.

        Returns:
            Logits ``(n, len(classes))``, in the order of `classes`.
        """
        logits: Tensor = self.model(images)
        return logits[:, self.outputs]
