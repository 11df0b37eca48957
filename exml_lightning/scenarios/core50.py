"""CORe50 in its official layout (Lomonaco and Maltoni 2017)."""

from pathlib import Path

import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import IMAGENET, ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.scenarios.core50_frames import list_frames
from exml_lightning.scenarios.core50_protocol import TEST_SESSIONS, TRAIN_SESSIONS, Part, protocol_parts
from exml_lightning.scenarios.datasets import ImageDataset
from exml_lightning.scenarios.decoded import decode_images

CATEGORIES = (
    *("plug_adapter", "mobile_phone", "scissor", "light_bulb", "can"),
    *("glass", "ball", "marker", "cup", "remote_control"),
)


class CORe50(ImageDataset):
    """CORe50, frames of videos of 50 objects, 128x128 RGB: ``core50/core50_128x128/s<S>/o<O>/C_SS_OO_FFF.png``.

    Each object is a class. Sessions 3, 7 and 10 are the test split, the other eight the training split; `groups` are
    sessions. Which frames there should be says a list (`list_frames`). The frames are decoded once into
    ``decoded/core50_{train,test}.safetensors`` in ``data.root`` (5.9 and 2.2 GB), which is mapped into memory.
    """

    class_names = tuple(f"{category}{i}" for category in CATEGORIES for i in range(1, 6))
    image_format = ImageFormat((3, 128, 128), *IMAGENET)

    def load(self, root: Path, train: bool) -> LabelledImages:
        """Read one split; see `ImageDataset.load`."""
        folder = root / "core50"
        if not folder.is_dir():
            raise ExmlError(
                f"CORe50 is missing: {folder} is not there. Put the official files there (vlomonaco.github.io/core50: "
                "core50_128x128, batches_filelists), or name another folder with --data.root DIR"
            )
        split, sessions = ("train", TRAIN_SESSIONS) if train else ("test", TEST_SESSIONS)
        frames = [frame for frame in list_frames(folder) if frame.session in sessions]
        files = [folder / "core50_128x128" / frame.path for frame in frames]
        missing = [str(file) for file in files if not file.is_file()]
        if missing or not files:
            raise ExmlError(
                f"{len(missing)} of {len(files)} frames of CORe50's {split} sessions are missing ("
                f"{', '.join(missing[:3])}): fetch core50_128x128.zip again, or without batches_filelists list what is "
                f"there in {folder}/core50_128x128/filelist.txt"
            )
        images = decode_images(files, self.image_format.shape, root / "decoded" / f"core50_{split}.safetensors")
        labels = torch.tensor([frame.object - 1 for frame in frames])
        return LabelledImages(images, labels, torch.tensor([frame.session for frame in frames]))

    def protocol(self, name: str, run_id: int, root: Path) -> list[Part]:
        """Make the experiences of ``nc``, ``ni`` or ``nic``; see `protocol_parts` and `ImageDataset.protocol`."""
        return protocol_parts(name, run_id, root / "core50")
