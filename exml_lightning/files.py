"""Writing files so that a half-written one is never taken for a whole one."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from exml_lightning.core.errors import ExmlError


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name in the same folder, flush it to disk, then give it its name.

    Args:
        path: The file; its folder is made where it is missing. An existing file is replaced in one step.
        write: Writes the file it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{secrets.token_hex(4)}.part.{path.name}")  # another host may have a process of our number
    try:
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.chmod(0o644)  # some writers make files that only their owner can read
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole; see `write_whole`."""
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def check_folder(path: Path, key: str) -> None:
    """Make sure that a folder can be written to, before the work that will be; makes nothing.

    Args:
        path: The folder, which need not exist yet.
        key: The setting that names it.

    Raises:
        ExmlError: If it cannot be made or written to.
    """
    place = path
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK):
        why = "may not be written to" if place.is_dir() else "is a file"
        raise ExmlError(f"{path} cannot be written: {place} {why}; name another folder with --{key} DIR")
