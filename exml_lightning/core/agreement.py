"""How far an ex-model agrees with its experts, on the samples made from them: no data set is needed."""

from collections.abc import Callable

import torch
from torch import Tensor

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.images import ImageFormat


def agreement(predict: Callable[[Tensor, Tensor], Tensor], buffer: Buffer, image_format: ImageFormat) -> list[float]:
    """Compare an ex-model with each expert on that expert's part of the buffer.

    `predict`, called with normalised images and task labels, returns the ex-model's logits ``(n, num_classes)``, minus
    infinity for classes that are no answer; `buffer`, on its device, has the experts' `answers`. Returns, for each
    experience in the buffer, in order, the fraction of its samples to which the ex-model gives the class that the
    expert gave.
    """
    assert buffer.answers is not None
    with torch.no_grad():
        pairs = zip(*(column.split(image_format.chunk) for column in (buffer.images, buffer.tasks)), strict=True)
        answers = [predict(image_format.to_input(images), tasks).argmax(dim=1) for images, tasks in pairs]
    right = (torch.cat(answers) == buffer.answers).double()
    return [float(right[buffer.experiences == k].mean()) for k in buffer.experiences.unique().tolist()]
