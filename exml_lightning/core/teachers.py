"""The two that the ex-model learns from at each experience: the expert and the previous ex-model (Section 3)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from exml_lightning.core import distributed
from exml_lightning.core.errors import BrokenExpertError
from exml_lightning.core.expert import Expert
from exml_lightning.core.finite import check_logits, sane
from exml_lightning.core.generators.generator import batches

CHUNK = 128
"""Images that are asked about together, where all are: on a CPU more of them are slower (docs/performance.md)."""

Ask = Callable[[Tensor], Tensor]


class Teachers:
    """Asks both for logits, without gradients.

    Args:
        expert: The expert.
        previous: The ex-model as it was before this experience, in eval mode.
        previous_known: The classes that it knows, bool ``(num_classes,)``. Where it knows none it is not asked.
        ready: Makes of a network what mini-batches are given to, for instance by compiling it.
    """

    def __init__(
        self, expert: Expert, previous: nn.Module, previous_known: Tensor, ready: Callable[[nn.Module], Ask]
    ) -> None:
        self.expert = expert
        self._num_classes = len(previous_known)
        self._previous = previous if bool(previous_known.any()) else None
        self._ask_expert = partial(expert.ask, ready(expert.model))
        self._ask_previous = None if self._previous is None else ready(self._previous)
        self._answers: tuple[Tensor, Tensor] | None = None

    def ask(self, images: Tensor, rows: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Ask both about a mini-batch, unless they were asked about all samples before.

        Args:
            images: Normalised images, ``(n, channels, height, width)``.
            rows: Their places in the buffer, int64 ``(n,)``.

        Returns:
            The expert's logits ``(n, classes of the expert)`` and those of the previous ex-model ``(n, num_classes)``,
            0 where it knows nothing; float32.
        """
        if self._answers is None or rows is None:
            return self._both(images, self._ask_expert, self._ask_previous)
        from_expert, from_previous = self._answers
        return from_expert[rows], from_previous[rows]

    def ask_all(self, images: Tensor) -> None:
        """Ask both about all samples once, where the images never change.

        Args:
            images: Those of the buffer.

        Raises:
            BrokenExpertError: If the expert answers NaN, infinity or absurdly large numbers.
        """
        parts = [self._both(images[rows], self.expert, self._previous) for rows in batches(len(images), CHUNK)]
        from_expert, from_previous = (torch.cat(column) for column in zip(*parts, strict=True))
        broken = None
        try:
            check_logits(sane(from_expert), self.expert, "images of the buffer")
        except BrokenExpertError as error:
            broken = error
        distributed.raise_together(broken)
        self._answers = from_expert, from_previous

    @torch.no_grad()
    def _both(self, images: Tensor, expert: Ask, previous: Ask | None) -> tuple[Tensor, Tensor]:
        from_expert = expert(images).float()
        if previous is None:
            return from_expert, from_expert.new_zeros(len(images), self._num_classes)
        return from_expert, previous(images).float()
