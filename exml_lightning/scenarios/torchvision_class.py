"""A data set of torchvision, by the name of its class and anyone's arguments."""

import difflib
import inspect
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2 import functional as transforms

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.scenarios.datasets import fetch
from exml_lightning.scenarios.image_files import image_pixels


class TorchvisionClass:
    """A class of ``torchvision.datasets`` and some of its keyword arguments.

    `key` is what errors call it. Raises `ExmlError` if there is no such class, or it does not take the arguments.
    """

    def __init__(self, key: str, name: str, options: dict[str, Any] | None) -> None:
        self.key, self.name, self.options = key, name, options or {}
        names = {name.lower(): name for name in datasets.__all__ if inspect.isclass(getattr(datasets, name))}
        if name not in names.values():
            close = difflib.get_close_matches(name.lower(), names, n=1)
            hint = f"did you mean {names[close[0]]}?" if close else "see its documentation"
            raise ExmlError(f"{key}: torchvision has no data set {name}; {hint}")
        self.kind = getattr(datasets, name)
        if "download" in self.options:
            raise ExmlError(f"{key}: leave download out of the options, and give --data.download true")
        try:
            inspect.signature(self.kind).bind(**self._arguments(Path()))
        except TypeError as error:
            raise ExmlError(f"{key}: options of {name}: {error}") from error

    def __str__(self) -> str:
        return "".join([self.name, *(f", {key}={value}" for key, value in sorted(self.options.items()))])

    def takes(self, argument: str) -> bool:
        """Whether the class or, by ``**kwargs``, one it inherits from has this argument."""
        for kind in self.kind.__mro__:
            parameters = inspect.signature(kind.__init__).parameters
            if argument in parameters or not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                return argument in parameters
        return False

    def default(self, argument: str) -> Any:
        """Return the default of an argument of the class; None if it is not its own."""
        return getattr(inspect.signature(self.kind).parameters.get(argument), "default", None)

    def _arguments(self, root: Path) -> dict[str, Any]:
        return ({"root": str(root)} if self.takes("root") else {}) | self.options

    def open(self, root: Path, choices: Sequence[dict[str, Any]] = ({},)) -> Any:
        """Open it in ``data.root``; raises `ExmlError` where it cannot be.

        `choices` are more arguments: where it does not know a value, for instance of ``split``, the next are taken.
        """
        arguments = self._arguments(root)
        remedy = "name another folder with --data.root DIR"
        if self.takes("download"):
            arguments["download"] = False  # SEMEION does unless told not to
            remedy = "fetch them with --data.download true"
        try:
            return self._make(choices, **arguments)
        except Exception as error:  # each data set has its own
            raise ExmlError(
                f"{self.key}: {self} cannot be opened in {arguments.get('root')} ({one_line(error)}): put its files "
                f"there, or {remedy}"
            ) from error

    def download(self, root: Path, choices: Sequence[dict[str, Any]] = ({},)) -> None:
        """Fetch its files by torchvision, where it can; raises `ExmlError` where they cannot be fetched."""
        if self.takes("download"):
            fetch(f"{self.key}: {self.name}", partial(self._make, choices), **self._arguments(root))

    def _make(self, choices: Sequence[dict[str, Any]], **arguments: Any) -> Any:
        for more in choices[:-1]:
            try:
                return self.kind(**arguments, **more)
            except ValueError as error:
                if "Unknown value" not in str(error):
                    raise
        return self.kind(**arguments, **choices[-1])

    def pixels(self, image: object) -> Tensor:
        """Turn the image of an item into uint8 ``(1 or 3, height, width)``; `ExmlError` if it is none."""
        if isinstance(image, Image.Image):
            return image_pixels(image)
        if not isinstance(image, Tensor):
            raise ExmlError(f"{self.key}: {self.name} has no images: its items are {type(image).__name__}")
        image = image[None] if image.ndim == 2 else image  # uint8 in [0, 255] or float in [0, 1]
        if image.ndim != 3 or len(image) not in (1, 3) or not (image.dtype == torch.uint8 or image.is_floating_point()):
            raise ExmlError(f"{self.key}: {image.dtype} tensors of shape {list(image.shape)} are no images")
        pixels: Tensor = transforms.to_dtype(image, torch.uint8, scale=True)
        return pixels
