"""Where auxiliary images come from: a folder, a data set of torchvision, two photographs."""

import difflib
import inspect
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision import datasets
from torchvision.transforms.v2 import functional as transforms

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.scenarios.auxiliary import AuxiliaryImages
from exml_lightning.scenarios.datasets import fetch
from exml_lightning.scenarios.image_files import FORMATS, find_images, image_pixels, open_image, warn_of_others


@dataclass
class Photographs(AuxiliaryImages):
    """The two photographs that scikit-learn bundles (a temple, a flower; 640x427).

    Args:
        min_crop: Side of the smallest crop, as a fraction of the image's short side: more than 0, at most 1.

    Example:
        >>> from pathlib import Path
        >>> import torch
        >>> from exml_lightning import Photographs
        >>> photographs = Photographs(min_crop=0.2)
        >>> photographs.open(Path("data"), (3, 32, 32))
        >>> photographs.draw(6, torch.Generator().manual_seed(0)).shape
        torch.Size([6, 3, 32, 32])
    """

    min_crop: float = 0.1

    def __len__(self) -> int:
        return len(self._photographs)

    def _find(self, root: Path) -> None:
        self._photographs = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in load_sample_images().images]

    def _load(self, index: int) -> Tensor:
        return self._photographs[index]


@dataclass
class FolderImages(AuxiliaryImages):
    """All images below a folder, at any depth, in the order of their paths.

    Args:
        folder: The folder; a relative one is looked for in ``data.root`` first, then in the working directory.
        min_crop: Side of the smallest crop, as a fraction of the image's short side: more than 0, at most 1.

    Example:
        >>> from exml_lightning import FolderImages
        >>> FolderImages("photographs", min_crop=0.3)
        FolderImages(folder='photographs', min_crop=0.3)
    """

    folder: str
    min_crop: float = 0.5

    def __len__(self) -> int:
        return len(self._files)

    def _find(self, root: Path) -> None:
        folder = Path(self.folder).expanduser()
        places = list(dict.fromkeys([root / folder, folder]))  # one where the folder is absolute
        found = ((place, *find_images(place)) for place in places)
        place, files, others = next((each for each in found if each[1]), (places[0], [], []))
        if files and files != getattr(self, "_files", None):  # a run opens it several times
            warn_of_others(place, others)
        self._files = files
        if files:
            return
        said = ", ".join(f"{place} {'has no images' if place.is_dir() else 'is not a folder'}" for place in places)
        raise ExmlError(
            f"data.auxiliary: {said}: put images there ({', '.join(FORMATS)}), or name another folder with "
            "--data.auxiliary.folder DIR"
        )

    def _load(self, index: int) -> Tensor:
        with open_image(self._files[index]) as image:
            # A JPEG may be decoded at half its size and less, many times faster: the smallest crop stays large enough.
            needed = 2 * math.ceil(max(self._shape[1:]) / self.min_crop)
            image.draft(None, (needed, needed))
            return image_pixels(image)

    def _name(self, index: int) -> str:
        return self._files[index]

    def describe(self) -> str:
        """Name the folder; see `AuxiliaryImages.describe`."""
        return f"FolderImages({self.folder}), crops from {self.min_crop}"


@dataclass
class TorchvisionImages(AuxiliaryImages):
    """The images of a data set of torchvision.

    Args:
        name: Its class in ``torchvision.datasets``, for instance ``FashionMNIST``, ``SVHN``, ``CIFAR100``.
        options: Keyword arguments of that class, for instance ``{split: extra}``; ``root`` is ``data.root`` unless
            it is given here. One that it does not take, or an unknown `name`, is an `ExmlError`.
        min_crop: Side of the smallest crop, as a fraction of the image's short side: more than 0, at most 1.
    """

    name: str
    options: dict[str, Any] | None = None
    min_crop: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        names = {name.lower(): name for name in datasets.__all__ if inspect.isclass(getattr(datasets, name))}
        if self.name not in names.values():
            close = difflib.get_close_matches(self.name.lower(), names, n=1)
            hint = f"did you mean {names[close[0]]}?" if close else "see its documentation"
            raise ExmlError(f"data.auxiliary: torchvision has no data set {self.name}; {hint}")
        self._class = getattr(datasets, self.name)
        if "download" in (self.options or {}):
            raise ExmlError("data.auxiliary: leave download out of the options, and give --data.download true")
        try:
            inspect.signature(self._class).bind(**self._arguments(Path()))
        except TypeError as error:
            raise ExmlError(f"data.auxiliary: options of {self.name}: {error}") from error

    def _takes(self, argument: str) -> bool:
        """Whether the class or, by ``**kwargs``, one it inherits from has this argument."""
        for kind in self._class.__mro__:
            parameters = inspect.signature(kind.__init__).parameters
            if argument in parameters or not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
                return argument in parameters
        return False

    def _arguments(self, root: Path) -> dict[str, Any]:
        given = {"root": str(root)} if self._takes("root") else {}
        return given | (self.options or {})

    def __len__(self) -> int:
        return len(self._images)

    def _find(self, root: Path) -> None:
        arguments = self._arguments(root)
        remedy = "name another folder with --data.root DIR"
        if self._takes("download"):
            arguments["download"] = False  # SEMEION does unless told not to
            remedy = "fetch them with --data.download true"
        try:
            self._images = self._class(**arguments)
        except Exception as error:  # each data set has its own
            raise ExmlError(
                f"data.auxiliary: {self.describe()} cannot be opened in {arguments.get('root')} "
                f"({one_line(error)}): put its files there, or {remedy}"
            ) from error

    def _load(self, index: int) -> Tensor:
        item = self._images[index]
        image = item[0] if isinstance(item, tuple) else item
        if isinstance(image, Image.Image):
            return image_pixels(image)
        if not isinstance(image, Tensor):
            raise ExmlError(f"data.auxiliary: {self.name} has no images: its items are {type(image).__name__}")
        image = image[None] if image.ndim == 2 else image  # uint8 in [0, 255] or float in [0, 1]
        if image.ndim != 3 or len(image) not in (1, 3) or not (image.dtype == torch.uint8 or image.is_floating_point()):
            raise ExmlError(f"data.auxiliary: {image.dtype} tensors of shape {list(image.shape)} are no images")
        pixels: Tensor = transforms.to_dtype(image, torch.uint8, scale=True)
        return pixels

    def _name(self, index: int) -> str:
        files = getattr(self._images, "samples", None)  # ImageFolder and what inherits from it
        return str(files[index][0]) if files else super()._name(index)

    def describe(self) -> str:
        """Name the data set and its options; see `AuxiliaryImages.describe`."""
        options = "".join(f", {key}={value}" for key, value in sorted((self.options or {}).items()))
        return f"TorchvisionImages({self.name}{options}), crops from {self.min_crop}"

    def download(self, root: Path) -> None:
        """Fetch the data set's files by torchvision, where it can; see `AuxiliaryImages.download`."""
        if self._takes("download"):
            fetch(f"data.auxiliary: {self.name}", self._class, **self._arguments(root))
