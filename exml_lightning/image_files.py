"""Image files: finding them below a folder, and what their pixels are."""

import os
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS
from torchvision.transforms.v2 import functional as transforms


def image_files(folder: Path) -> list[str]:
    """List the image files below a folder.

    Args:
        folder: The folder; links to folders are followed.

    Returns:
        Paths that begin with `folder`, sorted; none where there is no such folder.
    """
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


def image_pixels(image: Image.Image) -> Tensor:
    """Turn an image of PIL into pixel values: one channel where it is grey, else RGB.

    Args:
        image: The image; transparency is dropped, 16 bits become 8.

    Returns:
        uint8 ``(1 or 3, height, width)``.

    Raises:
        ValueError: If the range of its values is not known, or its file is broken.
        OSError: If its file is broken.
    """
    if image.mode.startswith("I;16"):  # PIL would clip these at 255
        pixels: Tensor = (transforms.pil_to_tensor(image.convert("I")) >> 8).to(torch.uint8)
    elif image.mode in ("I", "F"):
        raise ValueError(f"the range of its values is not known, PIL mode {image.mode}")
    else:
        pixels = transforms.pil_to_tensor(image.convert("L" if image.mode in ("1", "L", "LA") else "RGB"))
    return pixels
