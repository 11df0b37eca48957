"""Images decoded once: a uint8 tensor in one file, mapped into memory."""

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from exml_lightning.core.errors import ExmlError, one_line, printable
from exml_lightning.files import NotWrittenError, write_whole
from exml_lightning.scenarios.image_files import image_pixels, open_image, read_image
from exml_lightning.terminal import Bar

log = logging.getLogger(__name__)
VERSION = 2
"""Raise it when a change of the code changes pixels: 2 turns images as their EXIF data say, and scales 16-bit ones."""
CHUNK = 256
"""Images that are decoded before they are written."""
HEADER = 512
"""Bytes that the header of a cache is padded to: how many images there are is known at the end."""
Read = Callable[[int], tuple[Tensor, int] | None]
"""Decodes the image of an index, uint8 of the shape, and gives it a number; None leaves it out. Threads call it."""
Shape = tuple[int, int, int]


def decode_images(files: Sequence[Path], shape: Shape, cache: Path) -> Tensor:
    """Decode image files of a size, uint8 ``(len(files), *shape)``; see `decode_once`.

    Raises `ExmlError`, which names the file, if one is missing, broken, or not of `shape`, channels (1 or 3), height
    and width.
    """
    key = fingerprint(files, repr(shape))
    return decode_once(lambda index: (_decode(files[index], shape), index), len(files), shape, key, cache)[0]


def fit_images(files: Sequence[Path], shape: Shape, cache: Path) -> tuple[Tensor, Tensor]:
    """Decode image files of any size, made to fit `shape` (`fit_image`); see `decode_once`.

    Returns the images, uint8 ``(n, *shape)``, and which of the files each is, int64 ``(n,)``: those that cannot be read
    are left out with a warning each when they are decoded. Raises `ExmlError` if a file is missing or none can be read.
    """

    def read(index: int) -> tuple[Tensor, int] | None:
        image = read_image(str(files[index]), shape)
        if isinstance(image, Tensor):
            return image, index
        log.warning("%s cannot be read (%s): left out", printable(str(files[index]), 300), image)
        return None

    return decode_once(read, len(files), shape, fingerprint(files, f"fit {shape}"), cache)


def decode_once(read: Read, count: int, shape: Shape, key: str, cache: Path) -> tuple[Tensor, Tensor]:
    """Decode `count` images, or take their cache, if it was written with the same `key`.

    Returns the images, uint8 ``(n, *shape)``, and their numbers, int64 ``(n,)``: all that were not left out, in order.
    They are mapped from the cache: only what is used takes memory. One of another key is replaced; where none can be
    written, a warning says so, and the images are decoded into memory. Raises `ExmlError` if none is left.
    """
    found = _find(cache, key, shape)
    if found is not None:
        return found
    try:
        write_whole(cache, lambda part: _write(part, _decoded(read, count, cache), count, shape, key))
    except NotWrittenError as error:  # a folder that may only be read, or a full disk, must not cost the run
        log.warning("%s: images are decoded again each time", error.what)
    else:
        found = _find(cache, key, shape)
    if found is not None:
        return found
    images, numbers = zip(*_decoded(read, count, cache), strict=True)
    return torch.cat(images), torch.tensor([number for some in numbers for number in some])


def fingerprint(files: Sequence[Path], *more: str) -> str:
    """Hash what else matters, and names, sizes and times of files; `ExmlError` if one is missing."""
    digest = hashlib.sha256(repr((VERSION, *more)).encode())
    for file in files:
        try:
            status = file.stat()
        except OSError as error:
            raise ExmlError(f"{file} cannot be read ({error.strerror}): fetch it again") from error
        digest.update(f"{file.parent.name}/{file.name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _write(path: Path, chunks: Iterator[tuple[Tensor, list[int]]], count: int, shape: Shape, key: str) -> None:
    """Write a safetensors file piece by piece: the library's writer wants all images in memory."""
    numbers: list[int] = []
    with path.open("wb") as file:
        file.write(_header(count, shape, key))
        for images, some in chunks:
            file.write(images.numpy().tobytes())
            numbers += some
        file.write(torch.tensor(numbers).numpy().tobytes())
        file.seek(0)
        file.write(_header(len(numbers), shape, key))


def _header(count: int, shape: Shape, key: str) -> bytes:
    """Say what is in a cache; numbers are written as bytes, since those of images may leave them at an odd place."""
    size = count * math.prod(shape)
    images = {"dtype": "U8", "shape": [count, *shape], "data_offsets": [0, size]}
    numbers = {"dtype": "U8", "shape": [count, 8], "data_offsets": [size, size + 8 * count]}
    header = json.dumps({"__metadata__": {"key": key}, "images": images, "numbers": numbers}).encode()
    return HEADER.to_bytes(8, "little") + header.ljust(HEADER)


def _decoded(read: Read, count: int, cache: Path) -> Iterator[tuple[Tensor, list[int]]]:
    """Decode images, so many at a time; `ExmlError` if none can be read."""
    there = 0
    with Bar(f"decoding {cache.stem}", count) as bar, ThreadPoolExecutor() as threads:
        for start in range(0, count, CHUNK):
            chunk = range(start, min(start + CHUNK, count))
            good = [found for found in threads.map(read, chunk) if found is not None]
            if good:
                yield torch.stack([image for image, _ in good]), [number for _, number in good]
            there += len(good)
            bar.advance(len(chunk))
    if not there:
        raise ExmlError(f"none of the {count} images of {cache.stem} can be read: put others there")


def _find(cache: Path, key: str, shape: Shape) -> tuple[Tensor, Tensor] | None:
    if not cache.is_file():
        return None
    try:
        with safe_open(cache, framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            images: Tensor = file.get_tensor("images")
            numbers: Tensor = file.get_tensor("numbers").clone().view(torch.int64).flatten()
    except (SafetensorError, OSError) as error:
        log.warning("%s is broken (%s): decoding the images again", cache, error)
        return None
    return (images, numbers) if images.shape == (len(numbers), *shape) and images.dtype == torch.uint8 else None


def _decode(file: Path, shape: Shape) -> Tensor:
    try:
        with open_image(file) as image:
            pixels = image_pixels(image)
    except Exception as error:  # decoders of broken files raise almost anything
        raise ExmlError(f"{file} is no whole image ({one_line(error)}): fetch it again") from error
    if pixels.shape[1:] != shape[1:]:
        raise ExmlError(f"{file} has {pixels.shape[2]}x{pixels.shape[1]} pixels: it must have {shape[2]}x{shape[1]}")
    return pixels.expand(shape)
