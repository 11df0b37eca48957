"""Finished parts of the samples of an expert, kept in the cache until all are made, for a run that is stopped."""

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from exml_lightning.core.errors import one_line, printable
from exml_lightning.files import NotWrittenError, check_regular, write_whole

log = logging.getLogger(__name__)


class FinishedRows:
    """Finished parts in files of a folder; see `core.generators.generator.FinishedRows`.

    Each of several processes keeps and finds those that it has made, so they need no folder in common.

    Args:
        folder: The folder of the cache.
        key: All that the samples depend on; see `cache.describe_samples`.
        num_samples: How many there are to make.
        found: Called with the number of images of a part that was there.
    """

    def __init__(self, folder: Path, key: dict[str, Any], num_samples: int, found: Callable[[int], None]) -> None:
        self._folder, self._key, self._num_samples, self._found = folder, key, num_samples, found
        self._files: list[Path] = []
        self._writable = True

    def find(self, rows: slice) -> Tensor | None:
        """Read a part that was kept; None if it is not there, or broken, which a warning says."""
        path = self._path(rows)
        if not path.is_file():
            return None
        try:
            check_regular(path)
            with safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                images: Tensor = file.get_tensor("images")
            if about != self._about(rows, images):
                raise ValueError("it holds other images")
        except Exception as error:  # the library raises almost anything for a broken file
            log.warning("%s cannot be read (%s); making its images anew", path, printable(one_line(error), 200))
            return None
        self._files.append(path)
        self._found(len(images))
        return images

    def keep(self, rows: slice, images: Tensor) -> None:
        """Write a part; not if it is all there is, which is stored next. On a full disk, a warning says so once."""
        if len(images) == self._num_samples or not self._writable:
            return
        path, images = self._path(rows), images.detach().cpu().contiguous()
        about = self._about(rows, images)
        try:
            write_whole(path, lambda part: save_file({"images": images}, part, about))
            self._files.append(path)
        except NotWrittenError as error:
            log.warning("a run that is stopped now makes its images anew: %s", error.what)
            self._writable = False

    def delete(self) -> None:
        """Delete what was kept or found: all samples are made."""
        for path in self._files:
            path.unlink(missing_ok=True)

    def _about(self, rows: slice, images: Tensor) -> dict[str, str]:
        """Say which images these are, and what their bytes are: they must be the same to the last bit."""
        return {"key": self._named(rows), "sha256": hashlib.sha256(images.numpy().tobytes()).hexdigest()}

    def _named(self, rows: slice) -> str:
        return json.dumps([self._key, rows.start, rows.stop], sort_keys=True)

    def _path(self, rows: slice) -> Path:
        name = hashlib.sha256(self._named(rows).encode()).hexdigest()[:32]
        return self._folder / f"{name}.rows_{rows.start}_{rows.stop}.safetensors"
