"""Samples of an expert: from the cache where they are there, else made with a progress bar."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exml_lightning.core import distributed
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import BrokenExpertError, ExmlError, foreign_code
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import Generator
from exml_lightning.core.generators.generator import FEW
from exml_lightning.core.rng import keyed_generator
from exml_lightning.data import ExpertStream
from exml_lightning.files import NotWrittenError
from exml_lightning.generation import cache as samples_cache
from exml_lightning.generation.finished_rows import FinishedRows
from exml_lightning.terminal import Bar, clock, draws_bars, say

log = logging.getLogger(__name__)
TimeLeft = Callable[[float, float], float | None]
"""Guesses the seconds that the stream still takes, from the images made of an expert and the seconds they took."""


@dataclass(frozen=True)
class Sampler:
    """Makes the samples of the experts of a stream; all processes call it and get the same.

    Args:
        generator: How; connected to its data (`Generator.connect`).
        stream: The stream; its seed and an expert's place key the draws.
        cache: Folder that keeps generated samples for other runs; None for none.
        show_progress: Show progress bars, or that the cache had the samples.
    """

    generator: Generator
    stream: ExpertStream
    cache: Path | None
    show_progress: bool

    def __call__(
        self, expert: Expert, num_samples: int, num_experts: int, time_left: TimeLeft = lambda images, seconds: None
    ) -> Buffer:
        """Make samples, at least 1, from an expert, or take them from the cache; they are on its device.

        The number of experts in turn and `time_left` are for the progress bar.
        """
        title = f"expert {expert.experience + 1}/{num_experts} generating"
        key, names = self.describe(expert, num_samples), self.stream.manifest.class_names
        cache = self.cache if self.generator.slow and not distributed.rank() else None
        found = distributed.from_first(None if cache is None else samples_cache.find(cache, key, names))
        if found is None:
            progress, finished = _Progress(title, num_samples, self.show_progress, time_left), None
            if self.cache is not None and self.generator.slow:
                finished = FinishedRows(self.cache, key, num_samples, progress.found)
            found = self._make(expert, num_samples, progress, finished)
            if cache is not None:
                try:
                    samples_cache.store(cache, key, names, found, expert)
                except NotWrittenError as error:  # a full disk must not cost the run
                    log.warning("going on without the cache: %s", error.what)
            if finished is not None:
                distributed.from_first(None)  # waits until that has stored all
                finished.delete()
        elif self.show_progress and draws_bars():
            say(f"{title}: {num_samples} images from the cache {self.cache}")
        return found.to(expert.classes.device)

    def describe(self, expert: Expert, num_samples: int) -> dict[str, Any]:
        """Return all that samples of an expert depend on, as plain values; see `cache.describe_samples`."""
        entry = self.stream.manifest.experts[expert.experience]
        return samples_cache.describe_samples(self.generator, expert, entry, num_samples, self.stream.seed)

    def rehearse(self, expert: Expert, num_samples: int = FEW) -> Buffer:
        """Make a few samples as `__call__` would, with as few steps as can be, before any work; the cache is not asked.

        At most `num_samples`, and at most `FEW` for each process. Raises `ExmlError` if the generator cannot work with
        the expert, whatever either of them raises.
        """
        name, count = type(self.generator).__name__, min(num_samples, FEW * distributed.world_size())
        draws = keyed_generator("rehearse generating", self.stream.seed, expert.experience)
        remedy = "make images otherwise (buffer.generator), or leave this expert out of the manifest"
        with foreign_code(expert.name, f"making {count} images from it by {name}", remedy):
            if self.generator.needs_gradient and not expert.gives_gradient():
                raise ExmlError(
                    f"{expert.name} gives images no gradient (no_grad, detach or rounding in its forward), and {name} "
                    "makes them by it: take a strategy that does without, --strategy best, auxiliary or noise"
                )
            return self.generator.trial()[0].generate(expert, count, draws)

    def _make(self, expert: Expert, num_samples: int, progress: "_Progress", finished: FinishedRows | None) -> Buffer:
        """Generate: by all processes if it is slow, else by the first for all."""
        samples, broken, slow = None, None, self.generator.slow
        generator = self.generator if finished is None else self.generator.keeping(finished)
        progress.together = distributed.world_size() if slow else 1
        with progress.bar:
            if slow or not distributed.rank():
                try:
                    draws = keyed_generator("generate", self.stream.seed, expert.experience)
                    samples = generator.generate(expert, num_samples, draws, progress)
                except BrokenExpertError as error:
                    broken = error
            distributed.raise_together(broken)
            progress.end()
        if not slow and distributed.together():
            samples = distributed.from_first(None if samples is None else samples.to(torch.device("cpu")))
        assert samples is not None
        return samples


class _Progress:
    """Draws what a generator reports: the bar, the confidence reached and the time left for the stream."""

    def __init__(self, title: str, num_samples: int, shown: bool, time_left: TimeLeft) -> None:
        self.bar = Bar(title, num_samples, shown, self._words)
        self.together = 1
        """Processes at work."""
        self._time_left, self._said = time_left, ""
        self._ask: Callable[[], Tensor] | None = None

    def __call__(self, images: float, confidence: Callable[[], Tensor] | None = None) -> None:
        """Take a report; see `core.generators.generator.Progress`."""
        self._ask = confidence
        # Fractions need not add up.
        self.bar.advance(min(self.together * images, self.bar.total - self.bar.done))

    def found(self, images: int) -> None:
        """Count images that were made before a run was stopped."""
        self.bar.skip(min(self.together * images, self.bar.total - self.bar.done))

    def end(self) -> None:
        """All are made."""
        self._ask = None
        self.bar.advance(self.bar.total - self.bar.done)

    def _words(self) -> str:
        if self._ask is not None:
            self._said = f"confidence {self._ask().item():.2f}"
        left = self._time_left(self.bar.done, self.bar.seconds)
        return self._said if left is None else f"{self._said}  stream {clock(left)} left".strip()
