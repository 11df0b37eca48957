"""How auxiliary images are drawn: images of anything but the experts' own data (Section 4, Auxiliary Data)."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator
from itertools import islice, takewhile
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.core.generators.generator import Progress, no_progress

log = logging.getLogger(__name__)


class AuxiliaryImages(ABC):
    """A source of images that have nothing to do with the experts' classes.

    Subclasses are dataclasses: they find and read images, this class draws from them.

    Attributes:
        min_crop: Side of the smallest crop, as a fraction of the image's short side: more than 0, at most 1.
    """

    min_crop: float

    def __post_init__(self) -> None:
        if not 0 < self.min_crop <= 1:
            raise ExmlError(f"data.auxiliary: min_crop is {self.min_crop}: give more than 0 and at most 1")

    def open(self, root: Path, shape: tuple[int, int, int]) -> None:
        """Read what is needed of ``data.root`` before training starts, and make sure that an image can be read.

        `shape` is channels, height and width of the images to draw. Raises `ExmlError` if none can be read, or the
        experts take neither grey nor RGB images.
        """
        if shape[0] not in (1, 3):
            raise ExmlError(f"data.auxiliary: the experts take {shape[0]} channels, images have 1 (grey) or 3 (RGB)")
        self._shape = shape
        self._broken: set[int] = set()
        self._find(root)
        read = (self._read(index) for index in range(len(self)))
        failures = list(takewhile(lambda image: isinstance(image, str), read))
        if len(failures) == len(self):
            raise ExmlError(
                f"data.auxiliary: no image of {self.describe()} can be read; the first: "
                f"{failures[0] if failures else 'none'}. Replace them, or name other images"
            )

    @abstractmethod
    def __len__(self) -> int:
        """Count the images, broken ones too; they must be open."""

    @abstractmethod
    def _find(self, root: Path) -> None:
        """Find the images; raises `ExmlError` for what is missing."""

    @abstractmethod
    def _load(self, index: int) -> Tensor:
        """Read an image of any size, uint8 ``(1 or 3, height, width)``; of a broken one raises no `ExmlError`."""

    def _name(self, index: int) -> str:
        return f"image {index} of {self.describe()}"

    def describe(self) -> str:
        """Say in a few words what is drawn; a source that draws something else must say something else."""
        return f"{type(self).__name__}, crops from {self.min_crop}"

    def download(self, root: Path) -> None:  # noqa: B027 - most sources have nothing to fetch
        """Fetch the files into `root` where they are missing; raises `ExmlError` where they cannot be."""

    def draw(self, num_images: int, generator: torch.Generator, progress: Progress = no_progress) -> Tensor:
        """Draw a random square crop of each of many, at least 1: uint8 ``(num_images, channels, height, width)``.

        Walks through the images in random order, each once; when more are asked for than there are, again in another
        order, with other crops. A crop is `min_crop` to the whole of the short side wide, anywhere, then resized; grey
        where one channel is asked for, else RGB. `generator` is one of the CPU. Instead of a broken image the next one
        is taken, with a warning; raises `ExmlError` if no image can be read any more. `progress` takes reports.
        """
        crops = []
        for image in islice(self._readable(generator), num_images):
            crops.append(self._crop(image, generator))
            progress(1.0)
        return torch.stack(crops)

    def _readable(self, generator: torch.Generator) -> Iterator[Tensor]:
        """Read images without end, each order anew."""
        while True:
            for index in torch.randperm(len(self), generator=generator).tolist():
                if index in self._broken:
                    continue
                image = self._read(index)
                if isinstance(image, Tensor):
                    yield image
                    continue
                log.warning("%s: the next image is taken instead", image)
                self._broken.add(index)
                if len(self._broken) == len(self):
                    raise ExmlError(f"data.auxiliary: {self.describe()} has no image left that can be read. {image}")

    def _read(self, index: int) -> Tensor | str:
        """Return an image, or what is wrong with it."""
        try:
            return self._load(index)
        except ExmlError:
            raise
        except Exception as error:  # decoders of broken files raise almost anything
            return f"{self._name(index)} cannot be read ({one_line(error)})"

    def _crop(self, image: Tensor, generator: torch.Generator) -> Tensor:
        channels, *size = self._shape
        height, width = image.shape[1:]
        scale, down, right = torch.rand(3, generator=generator).tolist()
        side = max(1, round((self.min_crop + (1 - self.min_crop) * scale) * min(height, width)))
        top, left = int(down * (height - side + 1)), int(right * (width - side + 1))
        image = image[:, top : top + side, left : left + side]
        if len(image) != channels:
            image = transforms.rgb_to_grayscale(image) if channels == 1 else image.expand(3, -1, -1)
        resized: Tensor = transforms.resize(image, size, antialias=True)
        return resized
