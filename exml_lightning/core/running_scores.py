"""What several experts say of the same images, one after the other: scores are kept, no expert is."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Combine = Literal["mean", "max"]


class RunningScores:
    """Combines answers to the same images, class by class, over the experts that answered: their mean or the greatest.

    They are kept on the CPU. The stream of experts may grow by classes.
    """

    def __init__(self, combine: Combine) -> None:
        self._combine: Combine = combine
        self._scores: Tensor | None = None
        self._answers: Tensor | None = None

    def add(self, answers: Tensor) -> None:
        """Add the answers of one more expert, float ``(n, num_classes)``; minus infinity where it gives none."""
        new, start = answers.float().cpu(), 0.0 if self._combine == "mean" else -torch.inf
        if self._scores is None or self._answers is None:
            self._scores, self._answers = torch.full_like(new, start), torch.zeros(new.shape, dtype=torch.int16)
        grown = (0, new.shape[1] - self._scores.shape[1])
        self._scores, self._answers = F.pad(self._scores, grown, value=start), F.pad(self._answers, grown)
        answered = new > -torch.inf
        self._answers += answered
        if self._combine == "mean":
            self._scores += new.masked_fill(~answered, 0.0)
        else:
            self._scores = torch.maximum(self._scores, new)

    def scores(self) -> Tensor:
        """Return the scores of all images, float32 ``(n, num_classes)``; minus infinity where no expert answered."""
        assert self._scores is not None, "nobody was asked"
        assert self._answers is not None
        scores = self._scores / self._answers.clamp_min(1) if self._combine == "mean" else self._scores
        return scores.masked_fill(self._answers == 0, -torch.inf)

    def state_dict(self) -> dict[str, Any]:
        """Return what the experts so far have said."""
        return {"scores": self._scores, "answers": self._answers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what was said."""
        self._scores, self._answers = state["scores"], state["answers"]
