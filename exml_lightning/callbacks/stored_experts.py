"""`StoredExperts`: what the experts of a stream answer together, which an ex-model has to be compared with."""

from collections.abc import Callable
from typing import Any

import torch

from exml_lightning.baselines import (
    Baseline,
    EnsembleAverage,
    MinEntropy,
    OfWholeHeads,
    PublishedStatistics,
    ask,
    confusion_of,
)
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.running_scores import RunningScores
from exml_lightning.data import ExpertStream
from exml_lightning.terminal import Bar

PUBLISHED = "published_statistics"
WAYS: dict[str, Baseline] = {
    "ensemble_average": EnsembleAverage(),
    "min_entropy": MinEntropy(),
    PUBLISHED: PublishedStatistics(),
}
"""The baselines that are measured, by the names of their files in ``configs/baselines``."""


class StoredExperts:
    """The best of some baselines on the test stream, after each expert.

    Each expert is asked once, when it is in memory anyway; scores are kept, experts are not. All processes ask, and
    have the same.
    """

    def __init__(self) -> None:
        self._scores = {name: RunningScores(way.combine) for name, way in WAYS.items()}
        self.found: dict[int, tuple[str, float]] = {}
        """After each experience, the best one and its accuracy on the whole test stream, a fraction."""

    def meet(self, expert: Expert, stream: ExpertStream, show_progress: bool) -> None:
        """Ask the next expert about the test stream."""
        num_classes = len(stream.manifest.class_names)
        try:
            WAYS["min_entropy"].check_expert(expert, num_classes)
        except ExmlError:  # always sure of its one class
            self._scores.pop("min_entropy", None)
        if expert.statistics is None or stream.heads is not None:
            self._scores.pop(PUBLISHED, None)
        total = sum(len(part.images) for part in stream.test_parts)
        kinds: list[Callable[[torch.Tensor], torch.Tensor]] = [lambda x: expert.stream_logits(x, num_classes)]
        if PUBLISHED in self._scores:
            kinds.append(lambda x: WAYS[PUBLISHED].answer(expert, x, 0, num_classes))
        answers = []
        with Bar(f"asking expert {expert.experience + 1}", total, show_progress, leave=False) as bar:
            for said in ask(stream, expert, lambda x, _: torch.stack([kind(x) for kind in kinds], dim=1)):
                answers.append(said)
                bar.advance(len(said))
        logits = torch.cat(answers)
        right = {}
        for name, scores in self._scores.items():
            way = WAYS[name]
            scores.add(way.score(logits[:, 0], expert.classes) if isinstance(way, OfWholeHeads) else logits[:, 1])
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
