"""The two that the ex-model learns from at each experience: the expert and the previous ex-model (Section 3)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from exml_lightning.core import distributed
from exml_lightning.core.class_statistics import StatisticsLook
from exml_lightning.core.errors import BrokenExpertError
from exml_lightning.core.expert import Expert
from exml_lightning.core.familiarity import Ask, LayerShares
from exml_lightning.core.finite import check_logits, sane
from exml_lightning.core.scales import ExpertScores, ScoreWeights, StatisticsScores
from exml_lightning.core.score_table import StandardTable
from exml_lightning.core.targets import Answers


class Teachers:
    """Asks both for logits, without gradients.

    Raises `BrokenExpertError` if the expert answers NaN, infinity or absurdly large numbers. Where familiarity is asked
    for and the expert has no layer that tells, it is scored without.

    Args:
        expert: The expert.
        previous: The ex-model as it was before this experience, in eval mode.
        known: The classes that it knows, bool ``(num_classes,)``. Where it knows none it is not asked.
        images: Those of the buffer, as it holds them, ``(n, channels, height, width)``.
        images_stay: Whether mini-batches hold these images alone, unchanged: both are asked about each of them now,
            once, and answer from memory.
        learned: Of images that stay, the targets of the experience before, float ``(n, num_classes)``, where the buffer
            has kept them: then `previous` need not be asked, and says without an error what it has learned.
        weights: What is scored of the expert (`Scale.score_weights`), by `images` or by `reference`; None for nothing.
        reference: What logits are compared with in place of `images`, also as a buffer holds them.
        ready: Makes of a network what mini-batches are given to, for instance by compiling it.
        progress: Called with the number of images that were asked about before the first step.
    """

    def __init__(
        self,
        expert: Expert,
        previous: nn.Module,
        known: Tensor,
        images: Tensor,
        images_stay: bool = False,
        learned: Tensor | None = None,
        weights: ScoreWeights | None = None,
        reference: Tensor | None = None,
        ready: Callable[[nn.Module], Ask] = lambda network: network,
        progress: Callable[[float], object] = lambda images: None,
    ) -> None:
        self.expert, self._known, self._progress = expert, known, progress
        published = weights is not None and expert.statistics is not None
        looking = LayerShares(expert) if weights is not None and weights.familiarity and not published else None
        shares = looking if looking is not None and bool(looking.weights.any()) else None
        self._look = StatisticsLook(expert) if published else shares
        self.looks_into_layers = shares is not None
        """Whether familiarity is measured."""
        self.familiarity_of_none = looking is not None and shares is None
        """Whether it is asked for, and no layer tells."""
        # What looks into layers cannot look into a compiled network.
        self._expert = expert.model if self._look is not None else ready(expert.model)
        self._bare_previous = previous if bool(known.any()) and learned is None else None
        self._previous = None if self._bare_previous is None else ready(previous)
        self._scores: ExpertScores | StatisticsScores | None = None
        self._previous_scores: StandardTable | None = None
        asked = self._ask_about(images) if images_stay else None
        if weights is not None and published:
            self._scores = StatisticsScores(weights)
        elif weights is not None:
            anew = weights.straight and self._previous is not None
            compared = images if reference is None else reference
            logits, measured, of_previous = (
                asked if asked is not None and reference is None else self._ask_about(compared, expert_alone=not anew)
            )
            layers = measured[0] if shares is None else shares.weights
            self._scores = ExpertScores(weights, logits, measured, layers)
            self._previous_scores = StandardTable(of_previous) if anew else None
        self._remembered: tuple[Tensor, Tensor] | None = None
        if asked is not None:
            scores, said = self._scored(*asked)
            self._remembered = scores, said if learned is None else learned

    def ask(self, images: Tensor, rows: Tensor | None = None) -> Answers:
        """Ask both about a mini-batch of normalised images, unless they were asked about all samples before.

        `rows` are their places in the buffer, int64 ``(n,)``. Answers are float32, the expert's as scores where the
        scale makes them; by `StandardScores` the previous ex-model's as well, unless they are targets that were kept.
        """
        if self._remembered is None or rows is None:
            expert, previous = self._scored(*self._both(images, self._expert, self._previous))
        else:
            expert, previous = (answers[rows] for answers in self._remembered)
        return Answers(expert, self.expert.classes, previous, self._known)

    @property
    def all_answers(self) -> Answers | None:
        """What both say of all images of the buffer, in their order; None where images do not stay."""
        if self._remembered is None:
            return None
        expert, previous = self._remembered
        return Answers(expert, self.expert.classes, previous, self._known)

    def _ask_about(self, images: Tensor, expert_alone: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Ask about many images once: the networks themselves, which compiled ones would be made anew for.

        Answers are kept as they are: in half precision they would take some MB less, of what images take hundreds of.
        """
        previous, to_input = None if expert_alone else self._bare_previous, self.expert.image_format.to_input
        chunks = images.split(self.expert.chunk)
        parts = []
        for chunk in chunks:
            parts.append(self._both(to_input(chunk), self.expert.model, previous))
            self._progress(len(chunk))
        logits, shares, from_previous = (torch.cat(column) for column in zip(*parts, strict=True))
        broken = None
        try:
            check_logits(sane(logits), self.expert, "images asked about before the first step")
        except BrokenExpertError as error:
            broken = error
        distributed.raise_together(broken)
        return logits, shares, from_previous

    def _scored(self, logits: Tensor, shares: Tensor, previous: Tensor) -> tuple[Tensor, Tensor]:
        scores = logits if self._scores is None else self._scores(logits, shares)
        return scores, previous if self._previous_scores is None else self._previous_scores(previous)

    @torch.no_grad()
    def _both(self, images: Tensor, model: Ask, previous: Ask | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the expert's logits, what was measured in its layers and the logits of the previous ex-model."""

        def ask(images: Tensor) -> Tensor:
            return self.expert.ask(model, images)

        if self._look is None:
            logits, shares = ask(images), torch.empty(len(images), 0, device=images.device)
        else:
            logits, shares = self._look(ask, images)
        if previous is None:
            return logits.float(), shares, torch.zeros(len(images), len(self._known), device=images.device)
        return logits.float(), shares, previous(images).float()
