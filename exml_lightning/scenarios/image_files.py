"""Image files: finding them below a folder, opening them, and what their pixels are."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as transforms

from exml_lightning.files import check_regular

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM", "GIF")
"""What PIL may read, whatever a file is called: some of its other readers start programs (EPS)."""
MAX_PIXELS = 89_000_000
"""Of one image: 267 MB in RGB. PIL itself warns of a little more, and refuses twice as many."""
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # `open_image` refuses it


def image_files(folder: Path) -> list[str]:
    """List the image files below a folder, sorted; links to folders are followed. None where there is no folder."""
    found: list[str] = []
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders.sort()
        real = os.path.realpath(parent)
        if real in seen:  # a link back
            folders.clear()
            continue
        seen.add(real)
        found += [str(Path(parent) / name) for name in names if Path(name).suffix.lower() in IMG_EXTENSIONS]
    return sorted(found)


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
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"it is too large: {image.width}x{image.height} pixels; {MAX_PIXELS} at most are decoded")
        yield image


def image_pixels(image: Image.Image) -> Tensor:
    """Turn an image of PIL into uint8 ``(1 or 3, height, width)``: grey or RGB; transparency is dropped.

    Raises `ValueError` if the range of its values is not known, that or `OSError` if its file is broken.
    """
    if image.mode.startswith("I;16"):  # PIL would clip these at 255
        pixels: Tensor = (transforms.pil_to_tensor(image.convert("I")) >> 8).to(torch.uint8)
    elif image.mode in ("I", "F"):
        raise ValueError(f"the range of its values is not known, PIL mode {image.mode}")
    else:
        pixels = transforms.pil_to_tensor(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    return pixels
