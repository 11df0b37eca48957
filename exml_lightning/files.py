"""Files and folders that are written: whole or not at all, and by one process at a time."""

import os
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from exml_lightning.core.errors import ExmlError, one_line


class NotWrittenError(ExmlError):
    """A file cannot be written, for instance to a full disk.

    Args:
        path: The file.
        reason: Why.

    Attributes:
        what: The same without advice, for work that goes on without the file.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.what = f"{path} cannot be written ({reason})"
        super().__init__(
            f"{self.what}: make room there or allow it, then give the same command again; "
            "files written before are whole"
        )


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name in the same folder, flush it to disk, then give it its name.

    Args:
        path: The file; its folder is made where it is missing. An existing file is replaced in one step; a link stays,
            and what it leads to is replaced.
        write: Writes the file it is given.

    Raises:
        NotWrittenError: If it cannot be, or a pipe or a device is in its place; an existing file stays as it was.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        raise NotWrittenError(path, "it is no regular file")
    part = path.with_name(f".{secrets.token_hex(4)}.part.{path.name}")  # another host may have a process of our number
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.chmod(0o644)  # some writers make files that only their owner can read
            part.replace(path)
            _flush_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise NotWrittenError(path, reason) from error


def _flush_folder(folder: Path) -> None:
    """Make sure that a new name in a folder outlives a power failure."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole; see `write_whole`."""
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def natural_order(name: str) -> list[str | int]:
    """Key that sorts ``expert_2`` before ``expert_10``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def remove_parts(folder: Path, older_than: float = 0.0) -> None:
    """Remove what killed processes had begun to write.

    Args:
        folder: The folder.
        older_than: Seconds that a file must not have changed for, where others may be writing.
    """
    for part in folder.glob(".*.part.*"):
        try:
            if time.time() - part.stat().st_mtime >= older_than:
                part.unlink()
        except OSError:  # another process was faster, or nothing can be removed here: it does no harm
            continue


def lock_folder(folder: Path) -> int | None:
    """Keep a folder to this process until it ends, however it ends, or until `os.close` of what is returned.

    Args:
        folder: The folder.

    Returns:
        A file descriptor; None where folders cannot be locked (Windows, some network file systems).

    Raises:
        ExmlError: If another process has it.
    """
    try:
        import fcntl
    except ImportError:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise ExmlError(
            f"another process is writing {folder}: wait until it has ended, or name another folder"
        ) from error
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


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
