"""Files of strangers must be files: a pipe would wait for ever, a device may have no end."""

import errno
import stat
from pathlib import Path


def check_regular(path: Path) -> None:
    """Make sure that a path leads to a regular file, before it is opened.

    Args:
        path: The path; links are followed.

    Raises:
        FileNotFoundError: If there is nothing.
        OSError: If there is a pipe, a device, a folder, or a link to itself.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
