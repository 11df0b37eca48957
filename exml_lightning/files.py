"""Writing files so that a half-written one is never taken for a whole one."""

import os
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name in the same folder, flush it to disk, then give it its name.

    Args:
        path: The file; its folder is made where it is missing. An existing file is replaced in one step.
        write: Writes the file it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{os.getpid()}.part.{path.name}")
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
