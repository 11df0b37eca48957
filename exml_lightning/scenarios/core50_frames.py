"""Which frames CORe50 has: by the official file lists, by a list of one's own, or rebuilt from the bounding boxes."""

import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from exml_lightning.core.errors import ExmlError, one_line

NUM_OBJECTS = 50
MAX_BOXES = 2**20
"""Bytes of the list of one video's boxes; the official ones have a hundredth of it."""
LINE = re.compile(r"s(\d{1,2})/o(\d{1,2})/C_0?\1_0?\2_(\d{1,6})\.png\s+(\d{1,6})")
"""A frame and its label; session and object stand in it twice."""
LISTS = ("NC_inc", "NI_inc", "NIC_inc")
"""Folders of official file lists; the first run of any of them lists all frames."""


class Frame(NamedTuple):
    """A frame of a video: its session, 1 to 11, its object, 1 to 50, and its place in the video."""

    session: int
    object: int
    number: int

    @property
    def path(self) -> str:
        """Its file, within ``core50_128x128``."""
        s, o, number = self
        return f"s{s}/o{o}/C_{s:02d}_{o:02d}_{number:03d}.png"


def list_frames(folder: Path) -> list[Frame]:
    """List the frames that should be in a folder of CORe50, in order of session, object and number.

    They are those of the first run of official lists, else of ``core50_128x128/filelist.txt``, else of
    ``meta/bbox.zip``. Raises `ExmlError` if there is no list, or one is broken.
    """
    for name in LISTS:
        run = folder / "batches_filelists" / name / "run0"
        if run.is_dir():
            lists = [*sorted(run.glob("train_batch_*_filelist.txt")), run / "test_filelist.txt"]
            return sorted(set(read_lists(lists)))
    own = folder / "core50_128x128" / "filelist.txt"
    if own.is_file():
        return sorted(set(read_lists([own], label_is_object=True)))
    boxes = folder / "meta" / "bbox.zip"
    if boxes.is_file():
        return _frames_with_boxes(boxes)
    raise ExmlError(
        f"{folder} lists no frames of CORe50: put the official batches_filelists there, or bbox.zip into "
        f"{boxes.parent} (both from vlomonaco.github.io/core50), or name another folder with --data.root DIR"
    )


def read_lists(paths: Iterable[Path], label_is_object: bool = False) -> list[Frame]:
    """Read the file lists of one run, with a line ``s11/o1/C_11_01_000.png 0`` for each frame.

    The class of a frame is its object. The label is checked only: official lists of NC and NIC number the objects in
    the order in which a run brings them, so each object must have one label, and each label one object; by
    `label_is_object` that is its number less 1. Raises `ExmlError`, which names the list, if one is missing, empty or
    has a wrong line.
    """
    frames = []
    label_of: dict[int, int] = {o: o - 1 for o in range(1, NUM_OBJECTS + 1)} if label_is_object else {}
    object_of = {label: o for o, label in label_of.items()}
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ExmlError(f"{path} cannot be read ({error}): fetch CORe50's file lists again") from error
        for number, line in enumerate(map(str.strip, lines), start=1):
            if not line:
                continue
            match = LINE.fullmatch(line)
            session, object_, place, label = map(int, match.groups()) if match else (0, 0, 0, 0)
            if not 1 <= session <= 11 or not 1 <= object_ <= NUM_OBJECTS:
                raise ExmlError(f"{path}, line {number}: {line!r} must be like 's11/o1/C_11_01_000.png 0'")
            if label_of.setdefault(object_, label) != label or object_of.setdefault(label, object_) != object_:
                raise ExmlError(
                    f"{path}, line {number}: label {label} contradicts object {object_}, which has label "
                    f"{label_of[object_]}; fetch CORe50's file lists again"
                )
            frames.append(Frame(session, object_, place))
    if not frames:
        raise ExmlError(f"{', '.join(map(str, paths))}: no frames are listed; fetch CORe50's file lists again")
    return frames


def _frames_with_boxes(path: Path) -> list[Frame]:
    """List the frames that have a bounding box: those, and no others, are in the 128x128 set."""
    frames = []
    try:
        with zipfile.ZipFile(path) as archive:
            for part in archive.infolist():
                match = re.fullmatch(r"bbox/s(\d{1,3})/CropC_o(\d{1,3})\.txt", part.filename)
                if match is None:
                    continue
                if part.file_size > MAX_BOXES:
                    raise ValueError(f"{part.filename} claims {part.file_size} bytes")
                session, object_ = map(int, match.groups())
                boxes = re.findall(r"^Color(\d{1,6}):(.*)$", archive.read(part).decode(), flags=re.MULTILINE)
                frames += [Frame(session, object_, int(number)) for number, box in boxes if "-1" not in box.split()]
    except Exception as error:  # zipfile raises almost anything for a broken file
        raise ExmlError(f"{path} cannot be read ({one_line(error)}): fetch CORe50's bbox.zip again") from error
    if not frames:
        raise ExmlError(f"{path} has no files bbox/s<S>/CropC_o<O>.txt: fetch CORe50's bbox.zip again")
    return sorted(frames)
