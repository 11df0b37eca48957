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
from exml_lightning.scenarios.sized import KEY, TEST, TRAIN, SizedDataset, decoded_folder, set_aside
from exml_lightning.terminal import say


@dataclass(kw_only=True)
class Folder(SizedDataset):
    """Images of one's own, of any size: ``train/<class>/`` and ``test/<class>/``, or ``<class>/`` alone.

    The test split may also be called ``val``, ``valid`` or ``validation``. Where there is none, it is a fifth of the
    images of each class, by a hash of their names. The classes are the sub-folders, sorted, 2 before 10; those of
    both splits must be the same. Images are decoded once, into ``decoded/`` in ``data.root``; those that
    cannot be read are left out with a warning each.

    Args:
        path: The folder, in ``data.root``.
        size: Height and width of the images that networks see: one number for both, or two.
        channels: 3 for RGB, 1 for grey.
        mean: Mean of each channel, of pixel values in ``[0, 1]``; default ImageNet's.
        std: Standard deviation of each channel, of pixel values in ``[0, 1]``; default ImageNet's.
    """

    path: str = "."

    def open(self, root: Path, download: bool = False) -> None:
        """Name the classes after the sub-folders of the splits; see `ImageDataset.open`. No image is opened."""
        train, test = self._splits(root)
        names = [_classes(split, root) for split in (train, test) if split is not None]
        if differ := set(names[0]) ^ set(names[-1]):
            name = sorted(differ, key=natural_order)[0]
            has, lacks = (train, test) if name in names[0] else (test, train)
            raise ExmlError(
                f"{KEY}: {has} has a folder {printable(name, 60)}, but {lacks} has none: both need the same classes; "
                "make an empty one where a class has no test images"
            )
        self.class_names = tuple(names[0])

    def load(self, root: Path, train: bool) -> LabelledImages:
        """Read one split; see `ImageDataset.load`."""
        self.open(root)
        both = self._splits(root)
        folder, divided = both[0] if train else both[1], both[0] == both[1]
        if folder is None:
            raise ExmlError(f"{KEY}: {self._folder(root)} has no training images: put them into {TRAIN[0]}/<class>/")
        files, labels = files_of_classes([folder / name for name in self.class_names], not train and not divided)
        if divided:
            test = set_aside(labels, [file.relative_to(folder).as_posix() for file in files])
            chosen = (test != train).nonzero().flatten()
            files, labels = [files[i] for i in chosen.tolist()], labels[chosen]
        if not train and (divided or folder.name.lower() != TEST[0]):
            where = f"a fifth of each class in {folder}" if divided else f"those in {folder}"
            say(f"{self._folder(root) / TEST[0]} is not there: the {len(files)} test images are {where}")
        name = self._folder(root).resolve().name if self.path == "." else self.path
        cache = self._cache(root, name, TRAIN[0] if train else TEST[0])
        images, places = fit_images(files, self.image_format.shape, cache)
        labels = labels[places]
        if train and (lost := set(range(len(self.class_names))) - set(labels.unique().tolist())):
            raise ExmlError(f"{KEY}: no image in {folder / self.class_names[min(lost)]} can be read: put others there")
        return without_groups(images, labels)

    def _folder(self, root: Path) -> Path:
        return root / Path(self.path).expanduser()

    def _splits(self, root: Path) -> tuple[Path | None, Path]:
        """Return the folders of the training and the test split: one and the same where it is to be divided."""
        folder = self._folder(root)
        layout = f"{TRAIN[0]}/<class>/ and {TEST[0]}/<class>/, or <class>/ alone, with images in them"
        if not folder.is_dir():
            raise ExmlError(f"{KEY}: {folder} is no folder: name one with {layout}, by --data.root DIR")
        called = {name.lower(): folder / name for name in reversed(_classes(folder, root))}
        train, test = (
            next((called[name] for name in names if name in called and class_folders(called[name])), None)
            for names in (TRAIN, TEST)
        )
        like = {*called} & {*TRAIN, *TEST}
        if train is None and test is None and like & {*TRAIN} and like & {*TEST} and set(called) - like:
            raise ExmlError(f"{KEY}: {folder} has splits without classes ({shown(sorted(like))}): it needs {layout}")
        if train is None and test is None and not set(called) - {*TRAIN, *TEST}:
            raise ExmlError(f"{KEY}: {folder} has no folders of classes: it needs {layout}")
        return (train, test) if test is not None else (train or folder, train or folder)


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
