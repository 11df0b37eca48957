"""`Folder`: a data set of one's own, a folder of images for each class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError, printable, shown
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.files import natural_order
from exml_lightning.scenarios.datasets import without_groups
from exml_lightning.scenarios.decoded import fit_images
from exml_lightning.scenarios.image_files import image_files
from exml_lightning.scenarios.labelled_folder import class_folders
from exml_lightning.scenarios.sized import SizedDataset, decoded_folder, set_aside
from exml_lightning.terminal import say

TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
"""What people call the folders of the two splits, in lower case; the first that is there is taken."""
KEY = "data.scenario.dataset"


@dataclass(kw_only=True)
class Folder(SizedDataset):
    """Images of one's own, of any size: ``train/<class>/`` and ``test/<class>/``, or ``<class>/`` alone.

    The test split may also be called ``val``, ``valid`` or ``validation``. Where classes lie directly in the folder, a
    fifth of the images of each is the test split, by a hash of their names. The classes are the sub-folders, sorted as
    people sort (2 before 10). The images are decoded once into ``decoded/`` in ``data.root``.

    Args:
        path: The folder, in ``data.root``.
        size: Height and width of the images that networks see: one number for both, or two.
        channels: 3 for RGB, 1 for grey.
        mean: Mean of each channel, of pixel values in ``[0, 1]``; default ImageNet's.
        std: Standard deviation of each channel, of pixel values in ``[0, 1]``; default ImageNet's.
    """

    path: str = "."

    def open(self, root: Path, download: bool = False) -> None:
        """Name the classes after the sub-folders of the splits; see `ImageDataset.open`. No file is opened."""
        train, test = self._splits(root)
        names = [_classes(split, root) for split in (train, test) if split is not None]
        if differ := set(names[0]) ^ set(names[-1]):
            name = sorted(differ, key=natural_order)[0]
            has, lacks = (train, test) if name in names[0] else (test, train)
            raise ExmlError(
                f"{KEY}: {has} has a folder {printable(name, 60)}, {lacks} has none: both need the same classes; make "
                "an empty one where there are no test images of a class"
            )
        self.class_names = tuple(names[0])

    def load(self, root: Path, train: bool) -> LabelledImages:
        """Read one split; see `ImageDataset.load`."""
        self.open(root)
        splits = self._splits(root)
        folder = splits[0] if train else splits[1]
        if folder is None:
            raise ExmlError(f"{KEY}: {self._folder(root)} has no training images: put them into {TRAIN[0]}/<class>/")
        divided = splits[0] == splits[1]
        folders = [folder / name for name in self.class_names]
        files, labels = files_of_classes(folders, empty=not train and not divided)
        if divided:
            files, labels = _divided(folder, files, labels, train)
        if not train and (divided or folder.name.lower() != TEST[0]):
            what = "a fifth of the images of each class" if divided else f"those of {folder.name}/"
            say(f"{self._folder(root)} has no folder {TEST[0]}: test images are {what} ({len(files)})")
        name = self._folder(root).resolve().name if self.path == "." else self.path
        images, places = fit_images(files, self.image_format.shape, self._cache(root, name, "train" if train else "test"))
        split = without_groups(images, labels[places])
        lost = [name for label, name in enumerate(self.class_names) if not (split.labels == label).any()]
        if lost and train:
            raise ExmlError(f"{KEY}: no image of {shown(lost)} in {folder} can be read: put others there")
        return split

    def _folder(self, root: Path) -> Path:
        return root / Path(self.path).expanduser()

    def _splits(self, root: Path) -> tuple[Path | None, Path]:
        """Return the folders of the training and the test split: the same where all images lie in one."""
        folder = self._folder(root)
        layout = f"{TRAIN[0]}/<class>/ and {TEST[0]}/<class>/, or <class>/ alone, with images in them"
        if not folder.is_dir():
            raise ExmlError(f"{KEY}: {folder} is no folder: name one with {layout}, by --data.root DIR or its path")
        called = {name.lower(): folder / name for name in reversed(_classes(folder, root))}
        train, test = (
            next((called[name] for name in names if name in called and class_folders(called[name])), None)
            for names in (TRAIN, TEST)
        )
        if test is not None:
            return train, test
        if train is not None:
            raise ExmlError(
                f"{KEY}: {folder} has {train.name}/ but no {TEST[0]}/ or {TEST[2]}/: put test images of each class "
                f"there, or move the classes out of {train.name}/, for a fifth of their images to be the test split"
            )
        if not set(called) - {*TRAIN, *TEST}:
            raise ExmlError(f"{KEY}: {folder} has no folders of classes: it needs {layout}")
        return folder, folder


def files_of_classes(folders: Sequence[Path], empty: bool = False) -> tuple[list[Path], Tensor]:
    """List the images below a folder for each class, and their labels, int64.

    Raises `ExmlError` if there are none of a class, unless it may be `empty`, or none at all.
    """
    found = [[Path(file) for file in image_files(folder)] for folder in folders]
    without = [folder for folder, files in zip(folders, found, strict=True) if not files]
    if without and not (empty and any(found)):
        raise ExmlError(f"{without[0]} has no images: put those of the class there, or take the folder away")
    labels = [label for label, files in enumerate(found) for _ in files]
    return [file for files in found for file in files], torch.tensor(labels)


def _classes(folder: Path, root: Path) -> list[str]:
    """Name the folders of classes, but not that of the cache, which lies in ``data.root`` as they may."""
    return sorted((n for n in class_folders(folder) if folder / n != decoded_folder(root)), key=natural_order)


def _divided(folder: Path, files: list[Path], labels: Tensor, train: bool) -> tuple[list[Path], Tensor]:
    """Take the training or the test images of classes that have no split; `ExmlError` if one has too few."""
    rows: list[int] = []
    for label in range(int(labels.max()) + 1):
        own = {files[i].relative_to(folder).as_posix(): i for i in (labels == label).nonzero().flatten().tolist()}
        if len(own) < 2:
            only = next(iter(own))
            raise ExmlError(f"{KEY}: {folder / only} is the only image of its class: one is needed to train, one to test")
        test = set_aside(own)
        rows += [i for name, i in own.items() if (name in test) != train]
    return [files[i] for i in rows], labels[rows]
