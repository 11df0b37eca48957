"""Image files decoded once: a uint8 tensor in one file, mapped into memory."""

import hashlib
import json
import logging
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.files import NotWrittenError, write_whole
from exml_lightning.scenarios.image_files import image_pixels, open_image
from exml_lightning.terminal import Bar

log = logging.getLogger(__name__)
VERSION = 2
"""Raise it when a change of the code changes pixels: 2 turns images as their EXIF data say, and scales 16-bit ones."""
CHUNK = 256
"""Images that are decoded before they are written."""


def decode_images(files: Sequence[Path], shape: tuple[int, int, int], cache: Path) -> Tensor:
    """Decode image files to RGB, uint8 ``(len(files), 3, height, width)``, or, if none has changed, take their cache.

    They are upright (`image_pixels`). They are mapped from the cache: only what is used takes memory. One of other
    files is replaced; where none can be written, a warning says so, and the images are decoded into memory. Raises
    `ExmlError`, which names the file, if one is missing, broken, or not of `shape`, channels (3), height and width.
    """
    key = _fingerprint(files, shape)
    found = _find(cache, key, (len(files), *shape))
    if found is not None:
        return found
    try:
        write_whole(cache, lambda part: _write(part, files, shape, key, cache.stem))
    except NotWrittenError as error:  # a folder that may only be read, or a full disk, must not cost the run
        log.warning("%s: images are decoded again each time", error.what)
    else:
        found = _find(cache, key, (len(files), *shape))
    return torch.cat(list(_decoded(files, shape, cache.stem))) if found is None else found


def _write(path: Path, files: Sequence[Path], shape: tuple[int, int, int], key: str, title: str) -> None:
    """Write a safetensors file piece by piece: the library's writer wants all images in memory."""
    images = {"dtype": "U8", "shape": [len(files), *shape], "data_offsets": [0, len(files) * math.prod(shape)]}
    header = json.dumps({"__metadata__": {"key": key}, "images": images}).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for chunk in _decoded(files, shape, title):
            file.write(chunk.numpy().tobytes())


def _decoded(files: Sequence[Path], shape: tuple[int, int, int], title: str) -> Iterator[Tensor]:
    with Bar(f"decoding {title}", len(files)) as bar, ThreadPoolExecutor() as threads:
        for start in range(0, len(files), CHUNK):
            chunk = files[start : start + CHUNK]
            yield torch.stack(list(threads.map(lambda file: _decode(file, shape), chunk)))
            bar.advance(len(chunk))


def _fingerprint(files: Sequence[Path], shape: tuple[int, int, int]) -> str:
    """Hash names, sizes and times of the files."""
    digest = hashlib.sha256(repr((VERSION, shape)).encode())
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise ExmlError(f"{file} cannot be read ({error.strerror}): fetch it again") from error
        digest.update(f"{file.parent.name}/{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _find(cache: Path, key: str, shape: tuple[int, ...]) -> Tensor | None:
    if not cache.is_file():
        return None
    try:
        with safe_open(cache, framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            images: Tensor = file.get_tensor("images")
    except (SafetensorError, OSError) as error:
        log.warning("%s is broken (%s): decoding the images again", cache, error)
        return None
    return images if images.shape == shape and images.dtype == torch.uint8 else None


def _decode(file: Path, shape: tuple[int, int, int]) -> Tensor:
    try:
        with open_image(file) as image:
            pixels = image_pixels(image).expand(3, -1, -1)
    except Exception as error:  # decoders of broken files raise almost anything
        raise ExmlError(f"{file} is no whole image ({one_line(error)}): fetch it again") from error
    if pixels.shape != shape:
        raise ExmlError(f"{file} has {pixels.shape[2]}x{pixels.shape[1]} pixels: it must have {shape[2]}x{shape[1]}")
    return pixels
