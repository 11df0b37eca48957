"""Accuracy of a baseline on the test stream, one expert in memory at a time."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from exml_lightning.baselines import Baseline, ExpertSource
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.finite import check_answers
from exml_lightning.core.generators import Auxiliary, Generator
from exml_lightning.core.loaders import ImageLoader
from exml_lightning.data import ExpertStream
from exml_lightning.experts import Manifest
from exml_lightning.generation.samples import generate_samples
from exml_lightning.generation.sources import connect
from exml_lightning.terminal import Bar


@dataclass(frozen=True)
class BufferSettings:
    """How samples are made for a baseline that needs them.

    Args:
        generator: How.
        size: N, the samples from all experts together.
        cache: Folder of the cache; None for none.
    """

    generator: Generator
    size: int
    cache: Path | None


def measure(
    baseline: Baseline, stream: ExpertStream, device: torch.device, buffer: BufferSettings, show_progress: bool = False
) -> list[float]:
    """Measure the accuracy of a baseline.

    Args:
        baseline: The baseline.
        stream: The stream, set up, with a trainer; of its experts the first ``trainer.max_epochs`` are asked.
        device: Where to work.
        buffer: The samples for `ParameterAverageBatchNorm`.
        show_progress: Show a progress bar.

    Returns:
        Accuracy on each part of the test stream, fractions. A sample that no expert answers for counts as wrong.

    Raises:
        ExmlError: If the baseline is not defined for these experts, or an expert is missing or broken; before any
            expert is asked.
    """
    manifest = _experts_asked(stream)
    num_experts, num_classes = len(manifest.experts), len(manifest.class_names)
    _check(baseline, stream, manifest, buffer)
    heads = None if stream.heads is None else torch.tensor(stream.heads)
    parts = [
        _Part(loader, part.first_seen, baseline.combine, None if heads is None else heads == part.task)
        for loader, part in zip(stream.test_dataloader(), stream.test_parts, strict=True)
    ]
    # Generating has bars of its own.
    shown = show_progress and not baseline.needs_samples
    bar = Bar(f"expert 1/{num_experts} asking", num_experts, shown)

    def load(index: int) -> Expert:
        bar.title = f"expert {index + 1}/{num_experts} asking"
        bar.advance(index - bar.done)
        return stream.load_expert(index, device)

    def generate(expert: Expert) -> Tensor:
        share = buffer.size // num_experts
        cache = buffer.cache
        return generate_samples(buffer.generator, stream, expert, share, num_experts, cache, show_progress).images

    with bar:
        for model in baseline.models(ExpertSource(manifest, load, generate, stream.seed)):
            for part in parts:
                part.ask(baseline, model, num_classes)
            del model  # else it would stay in memory while the next one is read
        bar.advance(num_experts - bar.done)
    return [part.accuracy() for part in parts]


def _experts_asked(stream: ExpertStream) -> Manifest:
    """Cut the manifest to as many experts as a fit would learn."""
    manifest, trainer = stream.manifest, stream.trainer
    limit = None if trainer is None else trainer.max_epochs
    if limit == 0:
        raise ExmlError("trainer.max_epochs is 0: give the number of experts to ask, or -1 for all")
    return manifest if limit is None or limit < 0 else replace(manifest, experts=manifest.experts[:limit])


def _check(baseline: Baseline, stream: ExpertStream, manifest: Manifest, buffer: BufferSettings) -> None:
    """Refuse what is not possible before any work."""
    baseline.check(manifest)
    num_experts, num_classes = len(manifest.experts), len(manifest.class_names)
    if baseline.needs_samples:
        if buffer.size < num_experts:
            raise ExmlError(f"buffer.size is {buffer.size}: give 1 or more for each of the {num_experts} experts")
        if isinstance(buffer.generator, Auxiliary) and buffer.generator.whole_set:
            raise ExmlError("this baseline takes the same number of samples of each expert: set whole_set to false")
        connect(buffer.generator, stream, buffer.size)
    for index in range(stream.num_experts):
        expert = stream.load_expert(index, torch.device("cpu"))
        check_answers(expert)
        baseline.check_expert(expert, num_classes)
        if baseline.needs_samples:
            buffer.generator.check(expert)
        del expert  # else it would stay in memory while the next one is read


class _Part:
    """A part of the test stream and the running scores of its samples."""

    def __init__(
        self, loader: ImageLoader, first_seen: int, combine: Literal["mean", "max"], head: Tensor | None
    ) -> None:
        self._loader = loader
        self._head = head
        self._first_seen = first_seen
        self._combine = combine
        self._scores: Tensor | None = None
        self._answers: Tensor | None = None
        self._labels = torch.empty(0)

    @torch.no_grad()
    def ask(self, baseline: Baseline, expert: Expert, num_classes: int) -> None:
        """Ask an expert about every sample."""
        device = expert.classes.device
        answers, labels = [], []
        for batch in self._loader:
            images = batch.images.to(device, non_blocking=True)
            answers.append(baseline.answer(expert, images, self._first_seen, num_classes))
            labels.append(batch.labels)
        new, self._labels = torch.cat(answers).float(), torch.cat(labels)
        if self._scores is None or self._answers is None:
            start = 0.0 if self._combine == "mean" else -torch.inf
            self._scores, self._answers = torch.full_like(new, start), torch.zeros_like(new)
        answered = new > -torch.inf
        self._answers += answered
        if self._combine == "mean":
            self._scores += new.masked_fill(~answered, 0.0)
        else:
            self._scores = torch.maximum(self._scores, new)

    def accuracy(self) -> float:
        """Return the fraction of samples whose highest score is that of their class."""
        assert self._scores is not None
        assert self._answers is not None
        scores = self._scores / self._answers.clamp_min(1) if self._combine == "mean" else self._scores
        scores = scores.masked_fill(self._answers == 0, -torch.inf)
        if self._head is not None:  # a task label: only the classes of its head are answers
            scores = scores.masked_fill(~self._head.to(scores.device), -torch.inf)
        best, guesses = scores.max(dim=1)
        right = (guesses == self._labels.to(guesses.device)) & (best > -torch.inf)
        return int(right.sum()) / len(right)
