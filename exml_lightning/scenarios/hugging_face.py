"""`HuggingFace`: images and labels in the files of Hugging Face's library `datasets`, read from disk by pyarrow."""

import json
import logging
import re
import threading
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from exml_lightning.core.errors import ExmlError, foreign_code, one_line, printable, shown
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.files import check_regular
from exml_lightning.scenarios.datasets import without_groups
from exml_lightning.scenarios.decoded import decode_once, fingerprint
from exml_lightning.scenarios.image_files import FORMATS, MAX_PIXELS, fit_image, image_pixels
from exml_lightning.scenarios.sized import KEY, TEST, TRAIN, SizedDataset, set_aside
from exml_lightning.terminal import say

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class HuggingFace(SizedDataset):
    """A folder of Hugging Face's `datasets`: written by ``save_to_disk``, or parquet files, as the Hub has them.

    Read by pyarrow (``pip install exml-lightning[datasets]``): nothing is fetched, no code of others is run. Files must
    say what their columns are, as those of `datasets` do. The splits are train and test, else validation; where
    there is one alone, a fifth of the images of each class is the test split. Images are decoded once, into
    ``decoded/`` in ``data.root``.

    Args:
        path: The folder, in ``data.root``.
        image: Its column of images; default the only one.
        label: Its column of class labels; default the only one.
        size: Height and width of the images that networks see: one number for both, or two.
        channels: 3 for RGB, 1 for grey.
        mean: Mean of each channel, of pixel values in ``[0, 1]``; default ImageNet's.
        std: Standard deviation of each channel, of pixel values in ``[0, 1]``; default ImageNet's.
    """

    path: str
    image: str | None = None
    label: str | None = None

    def open(self, root: Path, download: bool = False) -> None:
        """Take the class names that the files of the test split say; see `ImageDataset.open`."""
        _, _, self.class_names = self._columns(self._files(root)[1][0])

    def load(self, root: Path, train: bool) -> LabelledImages:
        """Read one split; see `ImageDataset.load`."""
        both = self._files(root)
        files, divided = both[0] if train else both[1], both[0] == both[1]
        if not files:
            raise ExmlError(f"{KEY}: {root / self.path} has no files of a split train: put them there")
        self.open(root)
        image, label, names = self._columns(files[0])
        if names != self.class_names:
            raise ExmlError(f"{KEY}: {files[0]} has other classes ({shown(names)}) than the test split")
        shape, count = self.image_format.shape, sum(map(_rows, files))
        table, lock = cache(lambda: _table(files, [image, label])), threading.Lock()

        def read(index: int) -> tuple[Tensor, int]:
            where = f"{KEY}: row {index} of {files[0].parent}"
            with foreign_code(where, "reading it", "write or fetch the data set again"):
                with lock:  # the first opens the files
                    row = table().slice(index, 1).to_pylist()[0]
                if row[label] is None or not 0 <= row[label] < len(names):
                    raise ExmlError(f"{where} has no label: take the files of its split away, to test on another")
                return fit_image(_pixels(row[image]["bytes"]), shape), row[label]

        split = "all" if divided else TRAIN[0] if train else TEST[0]
        key = fingerprint(files, f"{image} {label} {shape}")
        images, labels = decode_once(read, count, shape, key, self._cache(root, self.path, split))
        if not divided:
            return without_groups(images, labels)
        test = set_aside(labels, [f"row {index}" for index in range(len(labels))])
        if not train:
            say(f"{root / self.path} has one split: its {int(test.sum())} test images are a fifth of each class")
        return without_groups(images, labels)[(test != train).nonzero().flatten()]

    def _columns(self, file: Path) -> tuple[str, str, tuple[str, ...]]:
        """Find the columns of images and of labels, and the names of these, in what a file says of itself."""
        features = _features(file)
        found = []
        for key, kind, given in (("image", "Image", self.image), ("label", "ClassLabel", self.label)):
            fit = [name for name, what in features.items() if isinstance(what, dict) and what.get("_type") == kind]
            if given not in fit if given else len(fit) != 1:
                said = "none" if not fit else f"{shown(fit)}: choose one by {KEY}.{key}"
                raise ExmlError(f"{KEY}: {file} must have a column of the type {kind}; it has {said}")
            found.append(given or fit[0])
        names = features[found[1]].get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ExmlError(f"{KEY}: {file} does not name the classes of its column {printable(found[1], 60)}")
        return found[0], found[1], tuple(names)

    def _files(self, root: Path) -> tuple[list[Path], list[Path]]:
        """Find the files of the training and of the test split, the same where it is to be divided."""
        folder = root / Path(self.path).expanduser()
        splits = _saved(folder) or _parquet(folder)
        if not splits:
            raise ExmlError(
                f"{KEY}: {folder} is no folder that save_to_disk wrote, and has no parquet files: put them there, or "
                "name another with --data.root DIR"
            )
        train, test = (next((splits[name] for name in names if name in splits), []) for names in (TRAIN, TEST))
        if not train and not test and len(splits) > 1:
            raise ExmlError(f"{KEY}: {folder} has the splits {shown(splits)}: call them train and test")
        train = train or ([] if test else next(iter(splits.values())))
        return train, test or train


def _saved(folder: Path) -> dict[str, list[Path]]:
    """Find the files that ``save_to_disk`` wrote, by split; one that is no part of several is called train."""
    try:
        several = folder / "dataset_dict.json"
        if several.is_file():
            parts = {name: folder / Path(name).name for name in json.loads(several.read_text())["splits"]}
        else:
            parts = {TRAIN[0]: folder} if (folder / "state.json").is_file() else {}
        states = {name: json.loads((part / "state.json").read_text()) for name, part in parts.items()}
        files = {
            name: [parts[name] / Path(file["filename"]).name for file in state["_data_files"]]
            for name, state in states.items()
        }
        return {name: own for name, own in files.items() if own}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExmlError(f"{KEY}: {folder} is not whole ({one_line(error)}): write it by save_to_disk again") from error


def _parquet(folder: Path) -> dict[str, list[Path]]:
    """Find parquet files, by the split that their name or their folder says; by none, where no file says one, train."""
    splits: dict[str, list[Path]] = {}
    for file in sorted(folder.rglob("*.parquet")):
        words = [re.split(r"[^a-z]", word.lower())[0] for word in (file.name, file.parent.name)]
        splits.setdefault(next((word for word in words if word in (*TRAIN, *TEST)), ""), []).append(file)
    unnamed = splits.pop("", [])
    if unnamed and not splits:
        splits = {TRAIN[0]: unnamed}
    elif unnamed:
        log.warning("%s: %s: neither training nor test images by their names: left out", KEY, shown(map(str, unnamed)))
    for name, files in splits.items():
        if len({file.parent for file in files}) > 1:
            raise ExmlError(f"{KEY}: {folder} has {name} files in several folders: name one of these as its path")
    return splits


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise ExmlError(f"{KEY} HuggingFace needs pyarrow: pip install exml-lightning[datasets]") from error
    return pyarrow


def _open(file: Path) -> Any:
    """Open a file: a parquet file, or a reader of a mapped arrow stream."""
    arrow = _arrow()
    try:
        check_regular(file)
        if file.suffix == ".parquet":
            return arrow.parquet.ParquetFile(file)
        return arrow.ipc.open_stream(arrow.memory_map(str(file)))
    except (OSError, arrow.ArrowException) as error:
        raise ExmlError(f"{KEY}: {file} cannot be read ({one_line(error)}): fetch it again") from error


def _features(file: Path) -> dict[str, Any]:
    """Return what a file says of its columns; empty if it does not."""
    opened = _open(file)
    schema = opened.schema_arrow if file.suffix == ".parquet" else opened.schema
    try:
        found = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _rows(file: Path) -> int:
    opened = _open(file)
    return int(opened.metadata.num_rows) if file.suffix == ".parquet" else sum(len(batch) for batch in opened)


def _table(files: list[Path], columns: list[str]) -> Any:
    """Read columns: those of arrow files are mapped, those of parquet files read into memory."""
    parts = [
        _open(file).read(columns=columns) if file.suffix == ".parquet" else _open(file).read_all().select(columns)
        for file in files
    ]
    return _arrow().concat_tables(parts)


def _pixels(data: bytes) -> Tensor:
    """Decode the bytes of an image file; raises what PIL does, `ValueError` if it is too large."""
    with Image.open(BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it is too large: {image.width}x{image.height} pixels")
        return image_pixels(image)
