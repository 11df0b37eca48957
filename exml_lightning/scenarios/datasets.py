"""Labelled image data sets, as uint8 tensors of the size that a scenario's networks expect."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
import torchvision
from torch import Tensor
from torchvision.datasets.mnist import read_image_file, read_label_file
from torchvision.transforms.v2 import functional as transforms

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages

Groups = tuple[tuple[int, ...], ...]
"""Recording sessions of each of some classes."""


class ImageDataset(ABC):
    """A labelled image data set with a training and a test split.

    Attributes:
        class_names: Names of the classes, by label; where files say them, there once it is open.
        image_format: What its images are for a network.
    """

    class_names: tuple[str, ...]
    image_format: ImageFormat

    def open(self, root: Path, download: bool = False) -> None:  # noqa: B027 - most data sets know their classes
        """Find `class_names` where files in `root` say them, which are fetched first if `download`.

        Files of the training split are not opened. Raises `ExmlError` if there are none; it names the remedy.
        """

    @abstractmethod
    def load(self, root: Path, train: bool) -> LabelledImages:
        """Read the training or the test split out of `root` (``data.root``), resized to `image_format`.

        Files of the other, where they are others, are not opened; the data set need not be open. Raises `ExmlError` if
        files are missing or broken; it names them and the remedy.
        """

    def protocol(self, name: str, run_id: int, root: Path) -> list[tuple[tuple[int, ...], Groups]]:
        """Make the experiences of a protocol of the data set's own; `ExmlError` if there is no such: most have none.

        Returns, of each experience, the class indices, and of each of these the recording sessions.
        """
        raise ExmlError(
            f"data.scenario.protocol is {name}, but {type(self).__name__} has no protocols of its own: "
            "give classes_per_experience, classes or groups"
        )

    def download(self, root: Path) -> None:  # noqa: B027 - most data sets have nothing to fetch
        """Fetch the files into `root` where they are missing; raises `ExmlError` where they cannot be."""


def fetch(what: str, kind: Callable[..., object], **options: Any) -> None:
    """Let a torchvision class fetch missing files, whose md5 it checks; raises `ExmlError` where it cannot."""
    try:
        kind(download=True, **options)
    except Exception as error:  # each data set has its own
        raise ExmlError(
            f"{what} could not be fetched into {options.get('root')} ({one_line(error)}): put its files there by hand"
        ) from error


class Digits(ImageDataset):
    """The 1,797 handwritten digits that scikit-learn bundles, 8x8 grey, resized to 32x32.

    They come without a split: every fourth image, from the first, is a test image (450; 1,347 train).
    """

    class_names = tuple("0123456789")
    image_format = ImageFormat((1, 32, 32), (0.3054,), (0.3235,))

    def load(self, root: Path, train: bool) -> LabelledImages:
        """Read one split; see `ImageDataset.load`. `root` is not used."""
        from sklearn.datasets import load_digits  # a quarter of a second, which most streams do not need

        bunch = load_digits()
        pixels = torch.from_numpy(bunch.images).mul(255 / 16).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(bunch.target).long()
        chosen = (torch.arange(len(labels)) % 4 != 0) == train
        return _resized(pixels[chosen], labels[chosen], self.image_format)


class MNIST(ImageDataset):
    """MNIST, 28x28 grey, resized to 32x32; files as torchvision keeps them (``MNIST/raw``)."""

    class_names = tuple("0123456789")
    image_format = ImageFormat((1, 32, 32), (0.1307,), (0.3081,))
    source: ClassVar[str] = "MNIST"
    """torchvision's class for the same files, and their folder."""

    def load(self, root: Path, train: bool) -> LabelledImages:
        """Read one split; see `ImageDataset.load`. torchvision's class refuses to when the other is missing."""
        prefix = root / self.source / "raw" / ("train" if train else "t10k")
        images = self._read(Path(f"{prefix}-images-idx3-ubyte"), read_image_file)
        labels = self._read(Path(f"{prefix}-labels-idx1-ubyte"), read_label_file)
        if images.ndim != 3 or labels.shape != images.shape[:1] or not 0 <= int(labels.max()) <= 9:
            raise ExmlError(
                f"{prefix}-labels-idx1-ubyte has {len(labels)} labels for {len(images)} images, or some that are no "
                "class: fetch it again"
            )
        return _resized(images[:, None], labels.long(), self.image_format)

    def _read(self, path: Path, reader: Callable[[str], Tensor]) -> Tensor:
        if not path.is_file():
            raise ExmlError(
                f"{path} is missing: put the {self.source} files there, name another folder with "
                "--data.root DIR, or fetch them with --data.download true"
            )
        try:
            return reader(str(path))
        except (ValueError, AssertionError, KeyError, RuntimeError, TypeError) as error:
            raise ExmlError(f"{path} is not a whole idx file ({error or 'wrong header'}): fetch it again") from error

    def download(self, root: Path) -> None:
        """Fetch all four files by torchvision."""
        fetch(self.source, getattr(torchvision.datasets, self.source), root=str(root))


class FashionMNIST(MNIST):
    """Fashion-MNIST, 28x28 grey pictures of clothes, resized to 32x32; files as torchvision keeps them."""

    class_names = (
        "T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    )  # fmt: skip
    image_format = ImageFormat((1, 32, 32), (0.2860,), (0.3530,))
    source = "FashionMNIST"


def _resized(images: Tensor, labels: Tensor, image_format: ImageFormat) -> LabelledImages:
    return without_groups(transforms.resize(images, list(image_format.shape[1:]), antialias=True), labels)


def without_groups(images: Tensor, labels: Tensor) -> LabelledImages:
    """Return images of one recording session, 0."""
    return LabelledImages(images, labels, torch.zeros_like(labels))
