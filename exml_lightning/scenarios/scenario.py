"""A scenario: how one data set becomes a stream of experiences and a test stream (Section 5)."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.scenarios.datasets import ImageDataset, LabelledImages

RUN_SEEDS = (1234, 2345, 3456, 5678, 6789)
"""Seed of each run: decides the class order, and every other draw where no seed is given."""


@dataclass(frozen=True)
class Experience:
    """What one expert is trained on.

    Args:
        classes: Indices into the data set's class names, in the order they were dealt.
        task: Task label.
        groups: Recording sessions its training images come from; None for all.
    """

    classes: tuple[int, ...]
    task: int
    groups: tuple[int, ...] | None


@dataclass(frozen=True)
class TestPart:
    """A part of the test stream: the test images of the classes that one experience was the first to bring.

    Args:
        images: The images.
        first_seen: That experience.
        task: Its task label.
    """

    __test__ = False  # not a pytest class

    images: LabelledImages
    first_seen: int
    task: int


@dataclass(frozen=True)
class Scenario:
    """A stream of experiences over one data set.

    Joint has one experience with all classes; NC (new classes) deals the classes out; NI (new instances) deals out the
    recording sessions of all classes; NIC does both; MT (multi-task) is NC with task labels.

    Args:
        name: Name of the scenario, for folders and tables.
        dataset: The data set.
        classes_per_experience: Classes dealt to each experience: one number for all, or one each. None gives every
            experience all classes.
        classes: Class names of each experience, instead of `classes_per_experience`; they may overlap.
        groups: Recording sessions of each experience; None gives every experience all.
        shuffle_classes: Deal the classes in an order drawn from the run's seed, else in the data set's order.
        task_labels: Give each experience its own task label, else 0.
    """

    name: str
    dataset: ImageDataset
    classes_per_experience: int | list[int] | None = None
    classes: list[list[str]] | None = None
    groups: list[list[int]] | None = None
    shuffle_classes: bool = True
    task_labels: bool = False

    def experiences(self, run_id: int) -> list[Experience]:
        """Deal classes and sessions out.

        Args:
            run_id: The run, 0 to 4.

        Returns:
            The experiences, in order.

        Raises:
            ExmlError: If the run or the partition is not possible; names the key.
        """
        classes = self._deal(run_id)
        groups = [None] * len(classes) if self.groups is None else [tuple(g) for g in self.groups]
        if len(classes) == 1 and len(groups) > 1:  # NI: all classes in every experience
            classes = classes * len(groups)
        if len(classes) != len(groups):
            raise ExmlError(
                f"data.scenario has classes for {len(classes)} experiences but groups for {len(groups)}: "
                "give as many of each"
            )
        return [
            Experience(c, i if self.task_labels else 0, g) for i, (c, g) in enumerate(zip(classes, groups, strict=True))
        ]

    def _deal(self, run_id: int) -> list[tuple[int, ...]]:
        if not 0 <= run_id < len(RUN_SEEDS):
            raise ExmlError(f"data.run_id is {run_id}: give 0 to {len(RUN_SEEDS) - 1}")
        names = self.dataset.class_names
        if self.classes is not None:
            if self.classes_per_experience is not None:
                raise ExmlError("data.scenario has both classes and classes_per_experience: give one of them")
            unknown = [name for part in self.classes for name in part if name not in names]
            if unknown:
                raise ExmlError(
                    f"data.scenario.classes: {unknown} are not classes of {type(self.dataset).__name__}, "
                    f"which has {list(names)}"
                )
            if not self.classes or not all(part and len(set(part)) == len(part) for part in self.classes):
                raise ExmlError("data.scenario.classes: each experience needs one class or more, each of them once")
            return [tuple(names.index(name) for name in part) for part in self.classes]
        order = list(range(len(names)))
        if self.shuffle_classes:
            # The class order of Avalanche's benchmarks with the same seed.
            order = torch.randperm(len(names), generator=torch.Generator().manual_seed(RUN_SEEDS[run_id])).tolist()
        if self.classes_per_experience is None:
            return [tuple(order)]
        sizes = self.classes_per_experience
        if isinstance(sizes, int):
            sizes = [sizes] * (len(order) // max(sizes, 1))
        if not sizes or min(sizes) < 1 or sum(sizes) != len(order):
            raise ExmlError(
                f"data.scenario.classes_per_experience is {self.classes_per_experience}: "
                f"the parts must be 1 or more and add up to the {len(order)} classes of {type(self.dataset).__name__}"
            )
        ends = torch.tensor(sizes).cumsum(0).tolist()
        return [tuple(order[end - size : end]) for size, end in zip(sizes, ends, strict=True)]

    def train_images(self, root: Path, experiences: list[Experience]) -> list[LabelledImages]:
        """Read the original training images of some experiences. Fitting an ex-model never calls this.

        Args:
            root: Folder of all data sets.
            experiences: Which.

        Returns:
            The images of each; labels are indices into the data set's class names.
        """
        split = self.dataset.load(root, train=True)
        parts = []
        for experience in experiences:
            chosen = torch.isin(split.labels, torch.tensor(experience.classes))
            if experience.groups is not None:
                chosen &= torch.isin(split.groups, torch.tensor(experience.groups))
            parts.append(split[_rows(chosen)])
        return parts

    def test_stream(self, root: Path, run_id: int) -> list[TestPart]:
        """Read the test stream: each test image once, in the part of the experience that first brought its class.

        Args:
            root: Folder of all data sets.
            run_id: The run, 0 to 4.

        Returns:
            The parts, in the order of the stream; experiences without new classes have none.
        """
        split = self.dataset.load(root, train=False)
        parts: list[TestPart] = []
        seen: set[int] = set()
        for i, experience in enumerate(self.experiences(run_id)):
            new = set(experience.classes) - seen
            seen |= new
            if new:
                chosen = torch.isin(split.labels, torch.tensor(sorted(new)))
                parts.append(TestPart(split[_rows(chosen)], i, experience.task))
        return parts


def _rows(chosen: Tensor) -> Tensor:
    return chosen.nonzero().flatten()
