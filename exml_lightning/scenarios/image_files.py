"""Image files: finding them below a folder, opening them, and making their pixels fit a network."""

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path

import torch
from PIL import ExifTags, Image, features
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from exml_lightning.core.errors import ExmlError, one_line, printable, shown
from exml_lightning.files import check_regular
from exml_lightning.terminal import Bar

log = logging.getLogger(__name__)

HAS_AVIF = "avif" in features.modules and bool(features.check_module("avif"))
"""Whether PIL is of 2025 or later, and was built with it."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF", *(["AVIF"] if HAS_AVIF else []))
"""What PIL may read, whatever a file is called: some of its other readers start programs (EPS)."""
NOT_READ = (".heic", ".heif", ".avif", ".jxl", ".svg", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2")
"""Suffixes of images that PIL does not know, or not always."""
JUNK = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini")
"""What archives, file servers and desktops put beside images: folders of copies, and files for themselves."""
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is made upright, by the orientation in its EXIF data."""
MAX_PIXELS = 89_000_000
"""Of one image: 267 MB in RGB. PIL itself warns of a little more, and refuses twice as many."""
LONGEST = 16
"""How many times too long an image may be to be resized whole."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `open_image` refuses it
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")  # of damaged EXIF data, which turn nothing


def image_files(folder: Path) -> list[str]:
    """List the image files below a folder, sorted, and warn of other files in one line; see `find_images`."""
    images, others = find_images(folder)
    warn_of_others(folder, others)
    return images


def find_images(folder: Path) -> tuple[list[str], list[str]]:
    """List the image files below a folder, and all other files there, both sorted; none where there is no folder.

    An image has a suffix that PIL gives one of `FORMATS`, in upper or lower case, or has none and begins like one.
    Links to folders are followed. What is hidden, and `JUNK`, is in neither list.
    """
    images: list[str] = []
    others: list[str] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_junk(name))
        real = os.path.realpath(parent)
        if real in seen:  # a link back
            folders.clear()
            continue
        seen.add(real)
        for name in names:
            if not is_junk(name):
                path = str(Path(parent) / name)
                (images if _is_image(path) else others).append(path)
    return sorted(images), sorted(others)


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is hidden (``.ipynb_checkpoints``, ``._a.jpg``), or `JUNK`."""
    return name.startswith(".") or name in JUNK


def warn_of_others(folder: Path, others: Sequence[str]) -> None:
    """Say in one line which files are not taken for images, if there are any; see `find_images`."""
    kinds: dict[bool, list[str]] = {False: [], True: []}
    for file in others:
        kinds[_suffix(file) in _suffixes()].append(Path(file).relative_to(folder).as_posix())
    said = {
        "not named like images": kinds[False],
        "images of a kind that is not read, to be converted to JPEG or PNG": kinds[True],
    }
    words = [f"{what}: {len(files)} ({shown(files)})" for what, files in said.items() if files]
    if words:
        log.warning("%s: files left out: %s", printable(str(folder), 300), "; ".join(words))


@cache
def _suffixes() -> dict[str, bool]:
    """Return the suffixes of images, in lower case, and whether they are read."""
    found = dict.fromkeys(NOT_READ, False)
    for suffix, kind in Image.registered_extensions().items():
        if Image.MIME.get(kind, "").startswith("image/"):
            found[suffix] = kind in (*FORMATS, "MPO")  # MPO: several JPEGs in one, which that reader knows
    return found


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122 - pathlib's depends on Python's version for "a."


def _is_image(path: str) -> bool:
    suffix = _suffix(path)
    if suffix not in ("", "."):
        return _suffixes().get(suffix, False)
    try:
        with open_image(path):
            return True
    except OSError:
        return False
    except Exception:  # it begins like an image, but is broken or too large: whoever reads it says so
        return True


@contextmanager
def open_image(path: str | Path) -> Iterator[Image.Image]:
    """Open an image file that a stranger may have made; its pixels are not decoded yet. The first frame is seen.

    Raises `OSError` if it is no regular file or no image of a known format, `ValueError` if its header says that it is
    too large, and whatever PIL raises for a broken file.
    """
    check_regular(Path(path))
    try:
        image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(f"it is too large: {error}") from error
    image.filename = ""  # else PIL maps plain files into memory: TIFF by its turned size, which garbles it
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it is too large: {image.width}x{image.height} pixels; {MAX_PIXELS} at most are decoded")
        yield image


def image_pixels(image: Image.Image) -> Tensor:
    """Turn an image of PIL into uint8 ``(1 or 3, height, width)``: upright, grey or RGB; transparency is dropped.

    Raises `ValueError` if the range of its values is not known, that or `OSError` if its file is broken.
    """
    image = _upright(image)
    if image.mode.startswith("I;16"):  # PIL would clip these at 255
        pixels: Tensor = (transforms.pil_to_tensor(image.convert("I")) >> 8).to(torch.uint8)
    elif image.mode in ("I", "F"):
        raise ValueError(f"the range of its values is not known, PIL mode {image.mode}")
    else:
        pixels = transforms.pil_to_tensor(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    return pixels


def _upright(image: Image.Image) -> Image.Image:
    """Turn an image as its EXIF data say that it was taken; damaged data, or none, turn nothing."""
    image.load()  # of a broken file it raises; TIFF files are turned by PIL here, and have no orientation afterwards
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # its reader raises almost anything for damaged data
        return image
    return image if turn is None else image.transpose(turn)


def read_images(
    files: Sequence[str], shape: tuple[int, int, int], batch_size: int, title: str, show_progress: bool = True
) -> Iterator[tuple[list[str], Tensor]]:
    """Read image files, so many at a time, by `read_image`; those that cannot be read are left out with a warning each.

    Yields the files of a batch and their pixels, uint8 ``(n, *shape)``. Raises `ExmlError` if none can be read.
    """
    # Threads: PIL and torchvision let others run. Processes would need room in /dev/shm and, where they are spawned, a
    # script that can be imported.
    threads, failures = ThreadPoolExecutor(min(8, os.cpu_count() or 1)), []
    with Bar(title, len(files), show_progress) as bar, threads:
        for start in range(0, len(files), batch_size):
            batch = files[start : start + batch_size]
            found = list(zip(batch, threads.map(partial(read_image, shape=shape), batch), strict=True))
            good = {file: pixels for file, pixels in found if isinstance(pixels, Tensor)}
            for file, wrong in found:
                if file not in good:
                    failures.append(f"{printable(file, 300)} cannot be read ({wrong})")
                    log.warning("%s: left out", failures[-1])
            if good:
                yield list(good), torch.stack(list(good.values()))
            bar.advance(len(batch))
    if len(failures) == len(files) > 0:
        raise ExmlError(f"none of {len(files)} images can be read; the first: {failures[0]}")


def read_image(file: str, shape: tuple[int, int, int]) -> Tensor | str:
    """Read an image file as uint8 of a shape (1 or 3 channels), by `fit_image`; or say what is wrong with it."""
    try:
        with open_image(file) as image:
            return fit_image(image_pixels(image), shape)
    except Exception as error:  # decoders of broken files raise almost anything
        return one_line(error)


def fit_image(pixels: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Resize an image until it just covers a shape (antialiased), crop its middle, make it grey or RGB.

    From uint8 ``(1 or 3, any height, any width)`` to uint8 of the shape: channels (1 or 3), height and width.
    """
    channels, height, width = shape
    high, wide = pixels.shape[1:]
    # All but the middle of a long strip is cropped away in any case: made as high as the shape, it would be too long.
    pixels = transforms.center_crop(
        pixels, [min(high, LONGEST * -(-wide * height // width)), min(wide, LONGEST * -(-high * width // height))]
    )
    high, wide = pixels.shape[1:]
    if height * wide >= width * high:  # it is the wider one: heights are made equal
        size = [height, max(width, wide * height // high)]
    else:
        size = [max(height, high * width // wide), width]
    pixels = transforms.center_crop(transforms.resize(pixels, size, antialias=True), [height, width])
    if len(pixels) == channels:
        return pixels
    fitted: Tensor = transforms.rgb_to_grayscale(pixels) if channels == 1 else pixels.expand(3, -1, -1)
    return fitted
