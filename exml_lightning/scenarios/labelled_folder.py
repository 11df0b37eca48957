"""Labelled images of a person's own: a folder with a sub-folder for each class, ``data.labelled``."""

import difflib
import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from exml_lightning.core.errors import ExmlError, printable
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.scenarios.datasets import without_groups
from exml_lightning.scenarios.image_files import find_images, is_junk, read_images, warn_of_others

log = logging.getLogger(__name__)
READ_TOGETHER = 256
"""Images that are read before they are put in their place."""


def read_labelled(
    folder: Path, class_names: Sequence[str], shape: tuple[int, int, int], key: str = "data.labelled"
) -> LabelledImages:
    """Read all images of the sub-folders that bear class names, once: uint8 of a shape, in memory.

    Labels are places in `class_names`; some of these may have no sub-folder. Each image is made to fit as `exml
    predict` does it; those that cannot be read are left out with a warning each. Raises `ExmlError`, before any image
    is read, if there is no folder, no sub-folder, one that is no class, or one without images; and if no image of a
    class can be read. `key` is what these errors call the folder.
    """
    if shape[0] not in (1, 3):
        raise ExmlError(f"{key}: the experts take images with {shape[0]} channels: files have 1 or 3")
    found = {name: find_images(folder / name)[0] for name in class_folders(folder)}
    _check(folder, list(found), class_names, key)
    empty = [name for name, files in found.items() if not files]
    if empty:
        raise ExmlError(f"{key}: {folder} has no images in {_listed(empty)}: put some there, or delete it")
    everywhere, others = find_images(folder)
    warn_of_others(folder, others)
    loose = len(everywhere) - sum(map(len, found.values()))
    if loose > 0:
        log.warning("%s: %d images of %s lie in no folder of a class: left out", key, loose, folder)
    images = torch.empty(sum(map(len, found.values())), *shape, dtype=torch.uint8)
    labels: list[int] = []
    for name, files in found.items():
        try:
            for good, pixels in read_images(files, shape, READ_TOGETHER, f"reading {name}"):
                images[len(labels) : len(labels) + len(good)] = pixels
                labels += [class_names.index(name)] * len(good)
        except ExmlError as error:
            raise ExmlError(f"{key}: {folder / name}: {error}") from error
    return without_groups(images[: len(labels)], torch.tensor(labels))


def class_folders(folder: Path) -> list[str]:
    """Name the sub-folders, sorted, but for hidden ones and junk; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_junk(path.name))


def _check(folder: Path, names: Sequence[str], class_names: Sequence[str], key: str) -> None:
    if not names:
        what = "has no sub-folders" if folder.is_dir() else "is no folder"
        raise ExmlError(f"{key}: {folder} {what}: name a folder with a sub-folder for each class")
    unknown = [name for name in names if name not in class_names]
    if not unknown:
        return
    which = "none of the folders is a class" if len(unknown) == len(names) else "some folders are no classes"
    lower = {name.lower(): name for name in class_names}
    close = {name: difflib.get_close_matches(name.lower(), lower, n=1) for name in unknown}
    said = [f"{name} (did you mean {lower[near[0]]}?)" if near else name for name, near in close.items()]
    raise ExmlError(
        f"{key}: {folder}: {which}: {_listed(said)}. The experts know {_listed(class_names)}: rename the "
        "folders, or take them away"
    )


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(printable(name, 60) for name in names[:most]) + more
