"""Checks of what a YAML or JSON document says: each returns the value as its type, or names the field that is wrong."""

import math
import re
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from exml_lightning.core.errors import UNPRINTABLE, ExmlError, shown
from exml_lightning.core.images import ImageFormat
from exml_lightning.files import text

MAX_NAMES = 100_000
"""Classes of a stream."""
MAX_DEPTH = 32
"""Containers within containers."""
MAX_WHOLE = 2**31 - 1
MAX_VALUES = 100_000_000
"""Values of one image."""


def mapping(value: object, where: str) -> dict[str, Any]:
    """Return a copy of a mapping whose keys are all text."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ExmlError(f"{where} must be a mapping")
    return dict(value)


def items(value: object, where: str) -> list[Any]:
    """Return a list."""
    if not isinstance(value, list):
        raise ExmlError(f"{where} must be a list")
    return value


def need(values: dict[str, Any], key: str, where: str = "") -> Any:
    """Return the value of a key that must be there."""
    if key not in values:
        raise ExmlError(f"{where + '.' if where else ''}{key} is missing")
    return values[key]


def only(values: dict[str, Any], keys: Sequence[str], where: str) -> None:
    """Refuse other keys than these."""
    unknown = [key for key in values if key not in keys]
    if unknown:
        raise ExmlError(f"{where} has unknown keys [{shown(unknown)}]; it takes {list(keys)}")


def digest(value: object, where: str) -> str:
    """Return a SHA-256 in lower case."""
    if not isinstance(value, str) or not re.fullmatch("[0-9a-fA-F]{64}", value):
        raise ExmlError(f"{where} must be 64 hexadecimal digits, in quotes, as `sha256sum FILE` prints them")
    return value.lower()


def file_name(value: object, where: str) -> str:
    """Return the name of a file of the same folder."""
    name = text(value, where)
    if name in (".", "..") or "/" in name or "\\" in name or len(name.encode()) > 255:
        raise ExmlError(f"{where} {name!r} must be a file of the same folder, without a path")
    return name


def whole(value: object, where: str, low: int = 0, high: int = MAX_WHOLE) -> int:
    """Return a whole number within limits."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise ExmlError(f"{where} must be a whole number, not {type(value).__name__}")
    if not low <= value <= high:
        raise ExmlError(f"{where} must be a whole number from {low} to {high}")
    return value


def number(value: object, where: str, low: float, high: float) -> float:
    """Return a number within limits; NaN is in none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ExmlError(f"{where} must be a number, not {type(value).__name__}")
    if not low <= value <= high:
        raise ExmlError(f"{where} must be a number from {low:g} to {high:g}")
    return float(value)


def names(value: object, where: str) -> tuple[str, ...]:
    """Return different names of classes; whole numbers are taken for the names they are written as."""
    found = items(value, where)
    if len(found) > MAX_NAMES:
        raise ExmlError(f"{where} has {len(found)} names: give {MAX_NAMES} at most")
    several = tuple(
        str(whole(name, f"{where}[{i}]", -MAX_WHOLE))
        if isinstance(name, int) and not isinstance(name, bool)
        else text(name, f"{where}[{i}]")
        for i, name in enumerate(found)
    )
    if len(set(several)) != len(several):
        raise ExmlError(f"{where} names a class twice")
    return several


def plain(value: object, where: str, depth: int = 0) -> Any:
    """Return a value made of mappings, lists, text, numbers, true, false and null, as it is.

    Args:
        value: The value.
        where: What to call it in an error.
        depth: Containers around it.

    Raises:
        ExmlError: If there is anything else in it, or it is nested too deep.
    """
    if depth > MAX_DEPTH:
        raise ExmlError(f"{where[:80]} is nested too deep")
    if isinstance(value, dict):
        for key, item in mapping(value, where).items():
            plain(item, f"{where}.{text(key, f'a key of {where}')}", depth + 1)
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            plain(item, f"{where}[{i}]", depth + 1)
    elif isinstance(value, str):
        if UNPRINTABLE.search(value.replace("\n", "").replace("\t", "")):
            raise ExmlError(f"{where} has control characters in it")
    elif isinstance(value, int) and abs(value) >= 2**64:
        raise ExmlError(f"{where} is a number of more than 64 bits")
    elif value is not None and not isinstance(value, int | float):
        raise ExmlError(f"{where} must be text, a number, true, false or null, not {type(value).__name__}")
    return value


def image_format(value: object, where: str) -> ImageFormat:
    """Return the images that a mapping of ``shape``, ``mean`` and ``std`` describes.

    Raises:
        ExmlError: If sizes or numbers are not those that images can have.
    """
    values = mapping(value, where)
    only(values, [field.name for field in fields(ImageFormat)], where)
    sizes = [whole(size, f"{where}.shape", 1) for size in items(need(values, "shape", where), f"{where}.shape")]
    if len(sizes) != 3:
        raise ExmlError(f"{where}.shape must be [channels, height, width]")
    if math.prod(sizes) > MAX_VALUES:
        raise ExmlError(f"{where}.shape {sizes} is too large: an image may have {MAX_VALUES} values")
    mean, std = (
        [number(x, f"{where}.{key}", low, 1e6) for x in items(need(values, key, where), f"{where}.{key}")]
        for key, low in (("mean", -1e6), ("std", 1e-6))
    )
    return ImageFormat((sizes[0], sizes[1], sizes[2]), tuple(mean), tuple(std))
