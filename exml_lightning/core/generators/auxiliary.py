"""Auxiliary data: images of another data set (Section 4, Auxiliary Data)."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.expert import Expert
from exml_lightning.core.finite import check_logits
from exml_lightning.core.generators.generator import (
    Generator,
    Progress,
    batches,
    no_progress,
    require,
    to_buffer,
)


def label_by_expert(images: Tensor, expert: Expert, progress: Progress = no_progress, batch_size: int = 1024) -> Buffer:
    """Label images with the class that the expert finds likeliest: y_syn = argmax f(x) over its own classes.

    Args:
        images: Normalised images on the expert's device, ``(n, channels, height, width)``.
        expert: The expert.
        progress: Called with the number of images done.
        batch_size: Images shown to the expert together.

    Returns:
        The labelled samples.

    Raises:
        BrokenExpertError: If its answers are NaN or infinite.
    """
    columns = []
    with torch.no_grad():
        for rows in batches(len(images), batch_size):
            logits = expert(images[rows])
            check_logits(logits, expert, "images that it is to label")
            columns.append(logits.argmax(dim=1))
            progress(float(len(columns[-1])))
    return to_buffer(images, torch.cat(columns), expert)


@dataclass
class Auxiliary(Generator):
    """Images of another data set, drawn once for each expert and labelled by it.

    Which data set is set by ``data.auxiliary``, since it depends on the scenario.

    Args:
        whole_set: Take every image of the data set once, however many are asked for, as Section 4 has it; the buffer
            is then these images, labelled by the newest expert.

    Attributes:
        draw: Draws pixel values: called with a number of images (None for all) and a CPU generator, returns uint8 or
            float ``(n, channels, height, width)`` as `ImageFormat.normalize` takes them. Whoever owns the data sets it.

    Example:
        >>> from pathlib import Path
        >>> import torch
        >>> from exml_lightning import Auxiliary, ExpertStream, Photographs
        >>> expert = ExpertStream(experts="checkpoints/split_digits/run0").load_expert(0, torch.device("cpu"))
        >>> photographs, auxiliary = Photographs(), Auxiliary()
        >>> photographs.open(Path("data"), expert.image_format.shape)
        >>> auxiliary.draw = photographs.draw
        >>> auxiliary.generate(expert, 6, torch.Generator().manual_seed(0)).images.shape
        torch.Size([6, 1, 32, 32])
    """

    whole_set: bool = False
    draw: Callable[[int | None, torch.Generator], Tensor] | None = field(default=None, init=False)

    def generate(
        self, expert: Expert, num_samples: int, generator: torch.Generator, progress: Progress = no_progress
    ) -> Buffer:
        """Draw samples and have the expert label them; see `Generator.generate`.

        Raises:
            ExmlError: If there is nothing to draw from.
        """
        require(self.draw is not None, "the auxiliary generator has no images to draw from: set data.auxiliary")
        assert self.draw is not None
        pixels = self.draw(None if self.whole_set else num_samples, generator).to(expert.classes.device)
        return label_by_expert(expert.image_format.normalize(pixels), expert, progress)
