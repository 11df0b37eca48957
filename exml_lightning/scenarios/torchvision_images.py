"""`Torchvision`: any classification set of torchvision, by its name."""

import hashlib
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError, foreign_code, shown
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.scenarios.datasets import without_groups
from exml_lightning.scenarios.decoded import decode_once, fingerprint
from exml_lightning.scenarios.image_files import fit_image
from exml_lightning.scenarios.sized import KEY, SizedDataset, set_aside
from exml_lightning.scenarios.torchvision_class import TorchvisionClass
from exml_lightning.terminal import say

TEST = ("test", "val", "valid")
"""What sets call the split that is tested on: the first that a set knows."""
LOOKED_AT = 16
"""Items whose pixels say whether decoded images are those of a set."""


@dataclass(kw_only=True)
class Torchvision(SizedDataset):
    """A classification set of torchvision: SVHN, KMNIST, EMNIST, USPS, CIFAR100, STL10, GTSRB, Flowers102, EuroSAT, ...

    Its splits are those of its argument ``train`` or ``split`` (test, else val). Of a set that has neither, or whose
    `options` say which to take, a fifth of the images of each class is the test split, the same on every machine. Items
    are decoded once into ``decoded/`` in ``data.root``.

    Args:
        name: Its class in ``torchvision.datasets``.
        options: Keyword arguments of that class, for instance ``{split: letters}`` of EMNIST; ``root`` is ``data.root``
            unless it is given here.
        class_names: Names of the classes, by label; default the set's own, else the labels, of those that have test
            images.
        size: Height and width of the images that networks see: one number for both, or two.
        channels: 3 for RGB, 1 for grey.
        mean: Mean of each channel, of pixel values in ``[0, 1]``; default ImageNet's.
        std: Standard deviation of each channel, of pixel values in ``[0, 1]``; default ImageNet's.
    """

    name: str
    options: dict[str, Any] | None = None
    class_names: tuple[str, ...] = ()
    size: int | list[int] = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set = TorchvisionClass(KEY, self.name, self.options)
        if len(set(self.class_names)) < len(self.class_names):
            raise ExmlError(f"{KEY}.class_names names a class twice: give each label a name of its own")
        self._labels = list(range(len(self.class_names)))
        """The label, as the set has it, of each class."""

    def open(self, root: Path, download: bool = False) -> None:
        """Take the class names of the set, of the labels that test images have; see `ImageDataset.open`."""
        if self._labels:
            return
        if download:
            self.download(root)
        items, _, labels = self._decoded(root, train=False)
        own: Any = getattr(items, "classes", None) or ()
        self._labels = labels.unique().tolist()
        names = tuple(own[label] for label in self._labels) if self._labels[-1] < len(own) else ()
        plain = all(isinstance(name, str) for name in names) and len(set(names)) == len(self._labels)
        self.class_names = names if plain else tuple(map(str, self._labels))

    def load(self, root: Path, train: bool) -> LabelledImages:
        """Read one split; see `ImageDataset.load`."""
        self.open(root)
        _, images, labels = self._decoded(root, train)
        if unknown := sorted(set(labels.unique().tolist()) - set(self._labels)):
            raise ExmlError(
                f"{KEY}: {self._set} has labels {shown(unknown)}, of no class: give class_names, a name for each label "
                "from 0 on"
            )
        split = without_groups(images, torch.searchsorted(torch.tensor(self._labels), labels))
        if self._splits(train) is not None:
            return split
        test = set_aside(labels, [f"image {index}" for index in range(len(labels))])
        if not train:
            say(f"{self._set} has no test split: its {int(test.sum())} test images are a fifth of each class")
        return split[(test != train).nonzero().flatten()]

    def download(self, root: Path) -> None:
        """Fetch the files of both splits by torchvision, where it can."""
        for train in (True, False):
            self._set.download(root, self._splits(train) or [{}])

    def _splits(self, train: bool) -> list[dict[str, Any]] | None:
        """Return the arguments that may choose a split, the best first; None if none does."""
        given = self.options or {}
        if self._set.takes("train") and "train" not in given:
            return [{"train": train}]
        if self._set.takes("split") and "split" not in given:
            default = self._set.default("split")
            first = default if str(default).startswith("train") else "train"
            return [{"split": value} for value in ((first,) if train else TEST)]
        return None

    def _decoded(self, root: Path, train: bool) -> tuple[Any, Tensor, Tensor]:
        """Return the set as torchvision has it, and all its images and labels, decoded."""
        items, lock = self._set.open(root, self._splits(train) or [{}]), threading.Lock()

        def item(index: int) -> tuple[Tensor, int]:
            # The lock: some sets draw from torch's global state (FakeData), or seek in one file.
            with lock, foreign_code(f"{KEY}: image {index} of {self._set}", "reading it", "fetch it again"):
                found = items[index]
            image, label = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
            if isinstance(label, Tensor | np.ndarray) and label.ndim == 0:
                label = label.item()
            if not isinstance(label, int | np.integer) or isinstance(label, bool) or label < 0:
                raise ExmlError(f"{KEY}: {self._set} has no single label an image: name a set for classification")
            return self._set.pixels(image), int(label)

        def fitted(index: int) -> tuple[Tensor, int]:
            pixels, label = item(index)
            return fit_image(pixels, self.image_format.shape), label

        count = len(items)
        if not count:
            raise ExmlError(f"{KEY}: {self._set} has no images")
        split = "all" if self._splits(train) is None else "train" if train else "test"
        arguments = repr(sorted((self.options or {}).items()))
        digest = hashlib.sha256(f"{items!r} {self.image_format.shape}".encode())
        for index in sorted({count * k // LOOKED_AT for k in range(LOOKED_AT)}):
            pixels, label = item(index)
            digest.update(f"{list(pixels.shape)} {label}".encode() + pixels.numpy().tobytes())
        files = [Path(file) for file, _ in getattr(items, "samples", None) or ()]  # ImageFolder and its heirs
        apart = f"_{hashlib.sha256(arguments.encode()).hexdigest()[:8]}" if self.options else ""
        cache = self._cache(root, self.name.lower() + apart, split)
        key = fingerprint(files, digest.hexdigest())
        return items, *decode_once(fitted, count, self.image_format.shape, key, cache)
