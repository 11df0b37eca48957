"""Where auxiliary images come from: a folder, a data set of torchvision, two photographs."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.scenarios.auxiliary import AuxiliaryImages
from exml_lightning.scenarios.image_files import FORMATS, find_images, image_pixels, open_image, warn_of_others
from exml_lightning.scenarios.torchvision_class import TorchvisionClass


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
        from sklearn.datasets import load_sample_images  # as in `datasets`

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
        self._class = TorchvisionClass("data.auxiliary", self.name, self.options)

    def __len__(self) -> int:
        return len(self._images)

    def _find(self, root: Path) -> None:
        self._images = self._class.open(root)

    def _load(self, index: int) -> Tensor:
        item = self._images[index]
        return self._class.pixels(item[0] if isinstance(item, tuple) else item)

    def _name(self, index: int) -> str:
        files = getattr(self._images, "samples", None)  # ImageFolder and what inherits from it
        return str(files[index][0]) if files else super()._name(index)

    def describe(self) -> str:
        """Name the data set and its options; see `AuxiliaryImages.describe`."""
        return f"TorchvisionImages({self._class}), crops from {self.min_crop}"

    def download(self, root: Path) -> None:
        """Fetch the data set's files by torchvision, where it can; see `AuxiliaryImages.download`."""
        self._class.download(root)
