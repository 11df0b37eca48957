"""A scenario: how one data set becomes a stream of experiences and a test stream (Section 5)."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError, shown
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.files import folder_name
from exml_lightning.scenarios.auxiliary import AuxiliaryImages
from exml_lightning.scenarios.datasets import Groups, ImageDataset
from exml_lightning.scenarios.runs import RUN_SEEDS, class_order


@dataclass(frozen=True)
class Experience:
    """What an expert is trained on: classes by index, as dealt, a task label, and each class's sessions (None: all)."""

    classes: tuple[int, ...]
    task: int
    groups: Groups | None


@dataclass(frozen=True)
class TestPart:
    """A part of the test stream: the test images of the classes that an experience was the first to bring, its task."""

    __test__ = False  # not a pytest class

    images: LabelledImages
    first_seen: int
    task: int


@dataclass(frozen=True)
class TrainImages:
    """The original training images of a scenario, by name, one experience at a time, out of the training split."""

    scenario: str
    split: LabelledImages
    experiences: list[Experience]
    class_names: tuple[str, ...]

    def __getitem__(self, index: int) -> LabelledImages:
        """Read the images of one experience; `ExmlError` if there are none, with the experience and its classes."""
        if index >= len(self.experiences):
            raise ExmlError(f"{self.scenario} has {len(self.experiences)} experiences: none for expert {index}")
        experience = self.experiences[index]
        part = self.split[_rows(self.split, experience.classes, experience.groups)]
        if not len(part):
            sessions = sorted({group for groups in experience.groups or () for group in groups})
            where = f" in session {_listed(map(str, sessions))}" if sessions else ""
            raise ExmlError(
                f"{self.scenario} has no training images for expert {index}, of "
                f"{_listed(self.class_names[c] for c in experience.classes)}{where}: put them into data.root, or take "
                "fewer experts (trainer.max_epochs) or another run (data.run_id)"
            )
        return part


@dataclass(frozen=True)
class Scenario:
    """A stream of experiences over one data set.

    Joint has one experience with all classes; NC (new classes) deals the classes out; NI (new instances) deals out the
    recording sessions of all classes; NIC does both; MT (multi-task) is NC with task labels.

    Args:
        name: Name of the scenario, for folders and tables; it, like `experts_of`, must suit a folder, else `ExmlError`.
        dataset: The data set.
        classes_per_experience: Classes dealt to each experience: one number for all, or one each; None for all classes.
            Where one number does not divide them, the first experiences get one more.
        classes: Class names of each experience, instead of `classes_per_experience`; they may overlap.
        groups: Recording sessions of each experience; None gives every experience all.
        shuffle_classes: Deal the classes in an order drawn from the run's seed, else in the data set's order.
        task_labels: Give each experience its own task label, else 0.
        protocol: The data set's own way to make experiences, in place of `classes_per_experience`, `classes` and
            `groups`: CORe50 has nc, ni and nic.
        experts_of: Name of the scenario whose experts are learned; default its own.
        auxiliary: Images for the auxiliary generator, where ``data.auxiliary`` gives no others.
    """

    name: str
    dataset: ImageDataset
    classes_per_experience: int | list[int] | None = None
    classes: list[list[str]] | None = None
    groups: list[list[int]] | None = None
    shuffle_classes: bool = True
    task_labels: bool = False
    protocol: str | None = None
    experts_of: str | None = None
    auxiliary: AuxiliaryImages | None = None

    def __post_init__(self) -> None:
        for key in ("name", "experts_of"):
            if getattr(self, key) is not None:
                folder_name(getattr(self, key), f"data.scenario.{key}")

    def experiences(self, run_id: int, root: Path) -> list[Experience]:
        """Deal out classes and sessions of a run, 0 to 4; `root` may say which; `ExmlError` names a wrong key."""
        if not 0 <= run_id < len(RUN_SEEDS):
            raise ExmlError(f"data.run_id is {run_id}: give 0 to {len(RUN_SEEDS) - 1}")
        self.dataset.open(root)
        parts: list[tuple[tuple[int, ...], Groups | None]]
        if self.protocol is None:
            parts = self._dealt(run_id)
        else:
            for name in ("classes_per_experience", "classes", "groups", "shuffle_classes"):
                if getattr(self, name) != getattr(Scenario, name):  # its default
                    raise ExmlError(f"data.scenario.protocol {self.protocol} deals everything itself: leave out {name}")
            parts = [*self.dataset.protocol(self.protocol, run_id, root)]
        classes = [c for part, _ in parts for c in part]
        if self.task_labels and len(set(classes)) < len(classes):
            raise ExmlError("data.scenario.task_labels: a class belongs to one task, so no two experiences share one")
        return [Experience(c, i if self.task_labels else 0, g) for i, (c, g) in enumerate(parts)]

    def _dealt(self, run_id: int) -> list[tuple[tuple[int, ...], Groups | None]]:
        classes = self._named_classes(self.classes) if self.classes is not None else self._split_classes(run_id)
        groups = [None] * len(classes) if self.groups is None else [tuple(g) for g in self.groups]
        if len(classes) == 1 and groups:  # NI: all classes in every experience
            classes = classes * len(groups)
        if len(classes) != len(groups):
            raise ExmlError(f"data.scenario.groups: give {len(classes)}, one an experience, not {len(groups)}")
        return [(c, None if g is None else (g,) * len(c)) for c, g in zip(classes, groups, strict=True)]

    def _named_classes(self, parts: list[list[str]]) -> list[tuple[int, ...]]:
        names = self.dataset.class_names
        if self.classes_per_experience is not None:
            raise ExmlError("data.scenario has both classes and classes_per_experience: give one of them")
        unknown = [name for part in parts for name in part if name not in names]
        if unknown or not parts or not all(part and len(set(part)) == len(part) for part in parts):
            raise ExmlError(
                "data.scenario.classes: each experience needs one class or more, each of them once, of "
                f"{shown(names)}{f'; not {shown(unknown)}' if unknown else ''}"
            )
        return [tuple(names.index(name) for name in part) for part in parts]

    def _split_classes(self, run_id: int) -> list[tuple[int, ...]]:
        count, sizes = len(self.dataset.class_names), self.classes_per_experience
        order = class_order(count, run_id) if self.shuffle_classes else list(range(count))
        if sizes is None:
            return [tuple(order)]
        if isinstance(sizes, int):
            parts = count // max(sizes, 1)
            sizes = [count // parts + (i < count % parts) for i in range(parts)]
        if not sizes or min(sizes) < 1 or sum(sizes) != count:
            raise ExmlError(
                f"data.scenario.classes_per_experience is {self.classes_per_experience}: "
                f"give 1 to {count}, the classes of {type(self.dataset).__name__}, or parts that add up to them"
            )
        rest = iter(order)
        return [tuple(islice(rest, size)) for size in sizes]

    def train_images(self, root: Path, experiences: list[Experience]) -> TrainImages:
        """Open the original training images, by experiences. Fitting an ex-model never calls this."""
        split = self.dataset.load(root, train=True)
        return TrainImages(self.name, split, experiences, self.dataset.class_names)

    def test_stream(self, root: Path, experiences: list[Experience]) -> list[TestPart]:
        """Open the test stream: each test image once, in the part of the experience that first brought its class.

        The parts are in the order of the stream; an experience without new classes, or test images of them, has none.
        Raises `ExmlError` if the first has no test images: nothing could be measured after it.
        """
        parts = parts_of(self.dataset.load(root, train=False), experiences)
        if not parts or parts[0].first_seen != 0:
            names = (self.dataset.class_names[c] for c in experiences[0].classes)
            raise ExmlError(
                f"{self.name} has no test images of its first experience, {_listed(names)}: put them into data.root"
            )
        return parts


def parts_of(images: LabelledImages, experiences: Iterable[Experience]) -> list[TestPart]:
    """Deal test images out to the experiences that first brought their classes; one without images has no part."""
    parts: list[TestPart] = []
    seen: set[int] = set()
    for i, experience in enumerate(experiences):
        new = set(experience.classes) - seen
        seen |= new
        own = images[_rows(images, tuple(new), None)]
        if len(own):
            parts.append(TestPart(own, i, experience.task))
    return parts


def _rows(split: LabelledImages, classes: tuple[int, ...], groups: Groups | None) -> Tensor:
    """Find the rows of images of some classes, each in some sessions (None: all)."""
    chosen = torch.isin(split.labels, torch.tensor(classes, dtype=torch.long))
    if groups is not None:
        for c, sessions in zip(classes, groups, strict=True):
            chosen &= (split.labels != c) | torch.isin(split.groups, torch.tensor(sessions))
    return chosen.nonzero().flatten()


def _listed(names: Iterable[str]) -> str:
    several = list(names)
    return ", ".join(several[:5]) + (f" and {len(several) - 5} more" if len(several) > 5 else "")
