"""The interface of everything that fills the buffer (Section 4)."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.finite import check_logits
from exml_lightning.core.settings import Configured

FEW = 8
"""Samples of an expert that each process makes before any work; of so few it does not matter if one makes them all."""


class Progress(Protocol):
    """Takes reports of work."""

    def __call__(self, images: float, confidence: Callable[[], Tensor] | None = None) -> None:
        """Take a report of the work done since the last one, in images (fractions too).

        `confidence` computes the expert's mean probability of the labels of the images under way, a scalar in [0, 1];
        only called at once, and only where it is shown, since a GPU has to be waited for.
        """


def no_progress(images: float, confidence: Callable[[], Tensor] | None = None) -> None:
    """Report progress to nobody; see `Progress`."""


def in_two_steps(progress: Progress) -> Progress:
    """Return what takes reports of images drawn and of images that an expert was asked about, each half of the work."""

    def report(images: float, confidence: Callable[[], Tensor] | None = None) -> None:
        progress(images / 2)

    return report


class FinishedRows(Protocol):
    """Keeps parts of the samples of an expert until all are made, so that a run that was stopped need not make them."""

    def find(self, rows: slice) -> Tensor | None:
        """Return the images in `rows` as they were kept, ``(n, channels, height, width)``; None if they are not there.

        Any device.
        """

    def keep(self, rows: slice, images: Tensor) -> None:
        """Keep the finished images in `rows`."""


class OriginalImages(Protocol):
    """Original training images of one experience, read when they are asked for."""

    @property
    def labels(self) -> Tensor:
        """Their class indices in the stream, int64 ``(n,)``."""

    def read(self, rows: Tensor) -> Tensor:
        """Return those in `rows`, int64 ``(k,)``: uint8 ``(k, channels, height, width)``."""


class OtherImages(Protocol):
    """Images of another data set."""

    def draw(self, num_images: int, generator: torch.Generator, progress: Progress = no_progress) -> Tensor:
        """Draw pixels: uint8 ``(n, channels, height, width)``; report the images drawn."""

    def describe(self) -> str:
        """Say in a few words which images these are."""


class Sources(Protocol):
    """Data that generators may ask for beside experts. Each method raises `ExmlError` where there are none."""

    def other_images(self) -> OtherImages:
        """Return the auxiliary images, those of the scenario where none were given."""

    def given_images(self) -> OtherImages | None:
        """Return the auxiliary images that were given, also beside a scenario; None where there are none."""

    def original_images(self) -> Callable[[int], OriginalImages]:
        """Return what finds the original images of an experience, one at least."""

    def samples(self, folder: str | None) -> Callable[[Expert], Buffer]:
        """Return what reads the samples of an expert from a folder of files; None for where `exml generate` writes."""


class Generator(Configured, ABC):
    """A way to get samples that stand in for the data an expert was trained on; subclasses are dataclasses.

    Attributes:
        slow: Whether samples take so long that they are worth keeping on disk, and that several processes share the
            work; only if they depend on nothing but the expert, the settings and the draws.
        cheap: Whether samples take so little that a budget of time may choose how many there are.
        once: Whether the samples of the first expert, as many as the buffer holds, stay for the whole stream: they are
            not made from it. Every expert is asked about all of them, and what it said is kept.
    """

    slow: ClassVar[bool] = False
    needs_gradient: ClassVar[bool] = False
    cheap: ClassVar[bool] = False
    once: ClassVar[bool] = False

    @abstractmethod
    def generate(
        self, expert: Expert, num_samples: int, generator: torch.Generator, progress: Progress = no_progress
    ) -> Buffer:
        """Make samples from one expert.

        A `slow` one is called by all processes at once and returns all samples in each; any other is called by one.

        Args:
            expert: The frozen expert; samples are made on its device.
            num_samples: How many, at least 1.
            generator: CPU generator of every random draw: the same state gives the same samples.
            progress: Called with the work done since the last call.

        Returns:
            `num_samples` samples, labelled with class indices of the stream that the expert knows.

        Raises:
            ExmlError: If the expert will not do; says why. A few samples of each expert are made before any work.
        """

    def connect(self, sources: Sources) -> None:
        """Take what the generator needs beside experts; called once, before any work.

        Raises:
            ExmlError: If it is not there; says what to set.
        """

    def trial(self) -> tuple["Generator", float]:
        """Return what makes samples in a part of the time, before any work, and how many times as long this one takes.

        Of each expert a few are made by it, and it is timed for a budget.
        """
        return self, 1.0

    def keeping(self, finished: FinishedRows) -> "Generator":
        """Return what makes the samples of one expert, keeps finished parts of them and takes those that are there.

        The samples are the same. Here, none are kept.
        """
        return self

    def describe(self) -> dict[str, Any]:
        """Return what samples depend on beside the expert, their number and the draws, as plain values."""
        return {"generator": self.settings()}


def to_buffer(images: Tensor, columns: Tensor, expert: Expert) -> Buffer:
    """Label images made from an expert, with class indices of the stream and its task and experience.

    Images are as a buffer holds them, ``(n, channels, height, width)``; `columns` are the places of the labels among
    the expert's classes, int64 ``(n,)``.
    """
    labels = expert.classes[columns.to(expert.classes.device)]
    return Buffer(
        images.detach(),
        labels,
        torch.full_like(labels, expert.task),
        torch.full_like(labels, expert.experience),
    )


def balanced_columns(num_samples: int, num_classes: int, generator: torch.Generator) -> Tensor:
    """Draw class columns, each class as often as the others (differing by at most one).

    Returns int64 ``(num_samples,)`` in ``[0, num_classes)``; any run of `num_classes` holds each class once. The CPU
    generator decides which classes come once more, and the order.
    """
    order = torch.randperm(num_classes, generator=generator)
    return order.repeat(-(-num_samples // num_classes))[:num_samples]


def require(condition: bool, message: str) -> None:
    """Raise `ExmlError` with `message`, if `condition` does not hold."""
    if not condition:
        raise ExmlError(message)


def answers_of(images: Tensor, expert: Expert, progress: Progress = no_progress) -> Tensor:
    """Ask an expert which of its classes it finds likeliest: y_syn = argmax f(x).

    Images are as a buffer holds them, on its device, ``(n, channels, height, width)``; reports those done. Returns the
    place of each answer among the expert's classes, int64 ``(n,)``; raises `BrokenExpertError` if answers are NaN or
    infinite.
    """
    columns = []
    with torch.no_grad():
        for part in images.split(expert.chunk):
            logits = expert(expert.image_format.to_input(part))
            check_logits(logits, expert, "images that it is to label")
            columns.append(logits.argmax(dim=1))
            progress(float(len(columns[-1])))
    return torch.cat(columns)


def label_by_expert(images: Tensor, expert: Expert, progress: Progress = no_progress) -> Buffer:
    """Label images with the classes that the expert finds likeliest; see `answers_of`."""
    return to_buffer(images, answers_of(images, expert, progress), expert)
