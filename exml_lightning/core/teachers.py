"""The two that the ex-model learns from at each experience: the expert and the previous ex-model (Section 3)."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from exml_lightning.core import distributed
from exml_lightning.core.errors import BrokenExpertError
from exml_lightning.core.expert import Expert
from exml_lightning.core.familiarity import Ask, LayerShares
from exml_lightning.core.finite import check_logits, sane
from exml_lightning.core.generators.generator import batches
from exml_lightning.core.normal_scores import NormalScores

CHUNK = 128
"""Images that are asked about together, where all are: on a CPU more of them are slower (docs/performance.md)."""

SPREAD = 1e-5
"""Standard deviation of a layer's share among reference images, below which it says nothing of an image."""

Answers = tuple[Tensor, Tensor]


class Teachers:
    """Asks both for logits, without gradients.

    Args:
        expert: The expert.
        previous: The ex-model as it was before this experience, in eval mode.
        previous_known: The classes that it knows, bool ``(num_classes,)``. Where it knows none it is not asked.
        ready: Makes of a network what mini-batches are given to, for instance by compiling it.
        all_units: Ask the expert for all of its units, one for each class of the stream in order, not just for those
            of the classes it knows.
        familiarity: Weight of how familiar an image is to the expert, by its `LayerShares`: the mean of their normal
            scores, over those layers whose shares differ, is added to the scores of the classes that it knows. With it
            `put_on_scale` comes before `ask`, and the expert's network is asked as it is.

    Raises:
        ExmlError: With `familiarity`, if the expert has no layer that tells.
    """

    def __init__(
        self,
        expert: Expert,
        previous: nn.Module,
        previous_known: Tensor,
        ready: Callable[[nn.Module], Ask],
        all_units: bool = False,
        familiarity: float = 0.0,
    ) -> None:
        self.expert = expert
        self._num_classes = len(previous_known)
        self._previous = previous if bool(previous_known.any()) else None
        ask = expert.ask_every_unit if all_units else expert.ask
        self._ask_expert_once: Ask = partial(ask, expert.model) if all_units else expert
        self._ask_expert = self._ask_expert_once if familiarity else partial(ask, ready(expert.model))
        self._own = expert.classes if all_units else torch.arange(len(expert.classes), device=expert.classes.device)
        self._familiarity = familiarity
        self._shares = LayerShares(expert) if familiarity else None
        self._ask_previous = None if self._previous is None else ready(self._previous)
        self._asked: Tensor | None = None
        self._answers: Answers | None = None
        self._scores: NormalScores | None = None
        self._share_scores: NormalScores | None = None
        self._weights = torch.zeros(0)

    def ask(self, images: Tensor, rows: Tensor | None = None) -> Answers:
        """Ask both about a mini-batch, unless they were asked about all samples before.

        Args:
            images: Normalised images, ``(n, channels, height, width)``.
            rows: Their places in the buffer, int64 ``(n,)``.

        Returns:
            The expert's logits ``(n, classes of the expert)``, or ``(n, num_classes)`` with `all_units`, in normal
            scores after `put_on_scale`; and those of the previous ex-model ``(n, num_classes)``, 0 where it knows
            nothing. Float32.
        """
        if self._answers is None or rows is None:
            return self._scored(self._both(images, self._ask_expert, self._ask_previous))
        from_expert, from_previous = self._answers
        return from_expert[rows], from_previous[rows]

    def put_on_scale(self, images: Tensor, raw_logits: float = 0.0) -> None:
        """From now on, give the expert's logits as `NormalScores` among those of reference images; to be called once.

        The previous ex-model has learned such scores.

        Args:
            images: The reference, normalised; images that `ask_all` was called with are not asked about again.
            raw_logits: What is added to the scores: this times the logits themselves.

        Raises:
            BrokenExpertError: If the expert answers NaN, infinity or absurdly large numbers.
        """
        known = self._answers if images is self._asked else None
        from_expert, _ = known or self._ask_about(images, None)
        logits, shares = self._split(from_expert)
        self._scores = NormalScores(logits, raw_logits)
        if self._shares is not None:
            self._share_scores = NormalScores(shares)
            telling = (shares.std(dim=0, correction=0) > SPREAD).float()  # else rounding alone
            self._weights = self._familiarity * telling / telling.sum().clamp_min(1)
        if self._answers is not None:
            self._answers = self._scored(self._answers)

    def ask_all(self, images: Tensor) -> None:
        """Ask both about all samples of the buffer, which never change; from now on, answer from memory.

        Args:
            images: Those of the buffer.

        Raises:
            BrokenExpertError: If the expert answers NaN, infinity or absurdly large numbers.
        """
        self._asked, self._answers = images, self._scored(self._ask_about(images, self._previous))

    def _ask_about(self, images: Tensor, previous: Ask | None) -> Answers:
        parts = [self._both(images[rows], self._ask_expert_once, previous) for rows in batches(len(images), CHUNK)]
        from_expert, from_previous = (torch.cat(column) for column in zip(*parts, strict=True))
        broken = None
        try:
            check_logits(sane(from_expert), self.expert, "images asked about before the first step")
        except BrokenExpertError as error:
            broken = error
        distributed.raise_together(broken)
        return from_expert, from_previous

    def _scored(self, answers: Answers) -> Answers:
        if self._scores is None:
            return answers
        logits, shares = self._split(answers[0])
        scores = self._scores(logits)
        if self._share_scores is not None:
            familiar = self._share_scores(shares) @ self._weights
            scores = scores.index_add(1, self._own, familiar[:, None].expand(-1, len(self._own)))
        return scores, answers[1]

    def _split(self, from_expert: Tensor) -> tuple[Tensor, Tensor]:
        """Part logits from the shares of layers, which follow them."""
        layers = 0 if self._shares is None else len(self._shares)
        return from_expert[:, : from_expert.shape[1] - layers], from_expert[:, from_expert.shape[1] - layers :]

    @torch.no_grad()
    def _both(self, images: Tensor, expert: Ask, previous: Ask | None) -> Answers:
        if self._shares is None:
            from_expert = expert(images).float()
        else:
            logits, shares = self._shares(expert, images)
            from_expert = torch.cat([logits.float(), shares], dim=1)
        if previous is None:
            return from_expert, from_expert.new_zeros(len(images), self._num_classes)
        return from_expert, previous(images).float()
