"""`StoredExperts`: what the experts of a stream answer together, which an ex-model has to be compared with."""

from typing import Any

import torch

from exml_lightning.baselines import EnsembleAverage, MinEntropy, ask, confusion_of
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.running_scores import RunningScores
from exml_lightning.data import ExpertStream
from exml_lightning.terminal import Bar

WAYS = {"ensemble_average": EnsembleAverage(), "min_entropy": MinEntropy()}
"""The baselines that are measured, by the names of their files in ``configs/baselines``."""


class StoredExperts:
    """The better of two baselines on the test stream, after each expert.

    Each expert is asked once, when it is in memory anyway; scores are kept, experts are not. All processes ask, and
    have the same.
    """

    def __init__(self) -> None:
        self._scores = {name: RunningScores(way.combine) for name, way in WAYS.items()}
        self.found: dict[int, tuple[str, float]] = {}
        """After each experience, the better one and its accuracy on the whole test stream, a fraction."""

    def meet(self, expert: Expert, stream: ExpertStream, show_progress: bool) -> None:
        """Ask the next expert about the test stream."""
        num_classes = len(stream.manifest.class_names)
        try:
            WAYS["min_entropy"].check_expert(expert, num_classes)
        except ExmlError:  # always sure of its one class
            self._scores.pop("min_entropy", None)
        total = sum(len(part.images) for part in stream.test_parts)
        answers = []
        with Bar(f"asking expert {expert.experience + 1}", total, show_progress, leave=False) as bar:
            for said in ask(stream, expert, lambda images, _: expert.stream_logits(images, num_classes)):
                answers.append(said)
                bar.advance(len(said))
        logits = torch.cat(answers)
        right = {}
        for name, scores in self._scores.items():
            scores.add(WAYS[name].score(logits, expert.classes))
            counts = confusion_of(stream, scores.scores())
            right[name] = int(counts.diag().sum()) / int(counts.sum())
        best = max(right, key=right.__getitem__)
        self.found[expert.experience] = best, right[best]

    def state_dict(self) -> dict[str, Any]:
        """Return what the experts so far have said."""
        return {"found": self.found, "scores": {name: scores.state_dict() for name, scores in self._scores.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to what was said."""
        self.found = dict(state["found"])
        self._scores = {name: self._scores[name] for name in state["scores"]}
        for name, scores in self._scores.items():
            scores.load_state_dict(state["scores"][name])
