"""CIFAR10, as torchvision keeps it or as folders of images."""

from pathlib import Path

import torch
import torchvision
from torchvision.datasets.utils import check_integrity

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.scenarios.datasets import ImageDataset, fetch, without_groups
from exml_lightning.scenarios.decoded import decode_images
from exml_lightning.scenarios.image_folders import files_of_classes


class CIFAR10(ImageDataset):
    """CIFAR10, 32x32 RGB: torchvision's files (``cifar-10-batches-py``), else ``cifar10/{train,test}/<class>/``.

    Folders of images are decoded once into ``decoded/cifar10_{train,test}.safetensors``, in ``data.root`` too.
    """

    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    image_format = ImageFormat((3, 32, 32), (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))

    def load(self, root: Path, train: bool) -> LabelledImages:
        """Read one split; see `ImageDataset.load`."""
        if (root / _Split.base_folder).is_dir():
            return self._load_batches(root, train)
        folder = root / "cifar10" / ("train" if train else "test")
        if not folder.is_dir():
            raise ExmlError(
                f"CIFAR10 is missing: neither {root / _Split.base_folder} nor {folder} is there. Put it there, name "
                "another folder with --data.root DIR, or fetch it with --data.download true"
            )
        return self._load_folders(folder, root / "decoded" / f"cifar10_{folder.name}.safetensors")

    def _load_batches(self, root: Path, train: bool) -> LabelledImages:
        try:
            split = _Split(str(root), train=train)
        except RuntimeError as error:  # a missing or changed file: its pickle is not opened
            raise ExmlError(
                f"{root / _Split.base_folder} lacks files of CIFAR10's {'train' if train else 'test'} split, or they "
                "were changed (md5): delete the folder and fetch it again with --data.download true"
            ) from error
        return without_groups(torch.from_numpy(split.data).permute(0, 3, 1, 2), torch.tensor(split.targets))

    def _load_folders(self, folder: Path, cache: Path) -> LabelledImages:
        files, labels = files_of_classes([folder / name for name in self.class_names])
        return without_groups(decode_images(files, self.image_format.shape, cache), labels)

    def download(self, root: Path) -> None:
        """Fetch torchvision's files where neither they nor folders of images are there."""
        if not (root / "cifar10").is_dir():
            fetch("CIFAR10", torchvision.datasets.CIFAR10, root=str(root))


class _Split(torchvision.datasets.CIFAR10):  # type: ignore[misc]  # torchvision has no types
    """Checks and opens the files of one split only: a fit must not depend on training images."""

    def _check_integrity(self) -> bool:
        files = self.train_list if self.train else self.test_list
        folder = Path(self.root) / self.base_folder
        meta = (self.meta["filename"], self.meta["md5"])
        return all(check_integrity(str(folder / name), md5) for name, md5 in [*files, meta])
