"""Where auxiliary images come from: images of anything but the experts' own data (Section 4, Auxiliary Data)."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from sklearn.datasets import load_sample_images
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from exml_lightning.core.errors import ExmlError
from exml_lightning.scenarios.datasets import ImageDataset


class AuxiliaryImages(ABC):
    """A source of images that have nothing to do with the experts' classes."""

    @abstractmethod
    def open(self, root: Path, shape: tuple[int, int, int], num_images: int) -> None:
        """Read what is needed before training starts.

        Args:
            root: Folder of all data sets (``data.root``).
            shape: Channels, height and width of the images to draw.
            num_images: The most that `draw` will be asked for.

        Raises:
            ExmlError: If files are missing, or there are too few images.
        """

    @abstractmethod
    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw images.

        Args:
            num_images: How many.
            generator: CPU generator of the draws.

        Returns:
            uint8 ``(num_images, channels, height, width)``.
        """

    def describe(self) -> str:
        """Say in a few words where the images come from; another source must say something else."""
        return type(self).__name__

    def download(self, root: Path) -> None:  # noqa: B027 - most sources have nothing to fetch
        """Fetch the files into `root` where they are missing."""


class Photographs(AuxiliaryImages):
    """Random square crops of the two photographs that scikit-learn bundles (a temple, a flower; 640x427).

    A crop is a tenth to the whole of the short side wide, anywhere, then resized; grey where one channel is asked for.
    """

    def open(self, root: Path, shape: tuple[int, int, int], num_images: int) -> None:
        """Read the photographs; see `AuxiliaryImages.open`. `root` is not used."""
        photographs = torch.stack([torch.from_numpy(image.copy()) for image in load_sample_images().images])
        photographs = photographs.permute(0, 3, 1, 2)  # (2, 3, 427, 640)
        self._photographs = transforms.rgb_to_grayscale(photographs) if shape[0] == 1 else photographs
        self._size = list(shape[1:])

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw crops; see `AuxiliaryImages.draw`."""
        height, width = self._photographs.shape[-2:]
        draws = torch.rand(num_images, 4, generator=generator).tolist()
        crops = []
        for which, scale, down, right in draws:
            side = round((0.1 + 0.9 * scale) * min(height, width))
            crops.append(
                transforms.resized_crop(
                    self._photographs[int(which * len(self._photographs))],
                    top=int(down * (height - side + 1)),
                    left=int(right * (width - side + 1)),
                    height=side,
                    width=side,
                    size=self._size,
                    antialias=True,
                )
            )
        return torch.stack(crops)


@dataclass
class DatasetImages(AuxiliaryImages):
    """Images of the training split of another data set, drawn without replacement.

    Args:
        dataset: The data set.
    """

    dataset: ImageDataset

    def open(self, root: Path, shape: tuple[int, int, int], num_images: int) -> None:
        """Read the data set; see `AuxiliaryImages.open`."""
        if self.dataset.image_format.shape != shape:
            raise ExmlError(
                f"data.auxiliary: {type(self.dataset).__name__} has images of shape "
                f"{list(self.dataset.image_format.shape)}, but the experts take {list(shape)}"
            )
        self._images = self.dataset.load(root, train=True).images
        if num_images > len(self._images):
            raise ExmlError(
                f"data.auxiliary: {num_images} images are asked for, but {type(self.dataset).__name__} has "
                f"{len(self._images)}: make buffer.size smaller"
            )

    def draw(self, num_images: int, generator: torch.Generator) -> Tensor:
        """Draw images; see `AuxiliaryImages.draw`."""
        return self._images[torch.randperm(len(self._images), generator=generator)[:num_images]]

    def describe(self) -> str:
        """Name the data set."""
        return type(self.dataset).__name__

    def download(self, root: Path) -> None:
        """Fetch the data set's files; see `ImageDataset.download`."""
        self.dataset.download(root)
