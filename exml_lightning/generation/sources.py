"""Gives generators the data they need and do not read themselves: auxiliary, original and precomputed images."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from exml_lightning.core.buffer import Buffer, share
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.data import ExpertStream
from exml_lightning.experts import Manifest
from exml_lightning.generation.buffer_file import read_buffer
from exml_lightning.scenarios import AuxiliaryImages


class StreamSources:
    """What generators may ask a stream for, with N samples in the buffer; see `core.generators.generator.Sources`."""

    def __init__(self, stream: ExpertStream, size: int) -> None:
        self._stream, self._size = stream, size

    def other_images(self) -> AuxiliaryImages:
        """Open the scenario's auxiliary images, or ``data.auxiliary`` in place of them; see `given_images`.

        `ExmlError` if there are none.
        """
        found = self._opened(self._stream.other_images)
        if found is None:
            raise ExmlError(
                "there are no images to draw from: set data.auxiliary (docs/auxiliary.md), for "
                "instance --data.auxiliary FolderImages --data.auxiliary.folder DIR"
            )
        return found

    def given_images(self) -> AuxiliaryImages | None:
        """Open ``data.auxiliary``; None if there is none, `ExmlError` if no image can be read."""
        return self._opened(self._stream.auxiliary)

    def _opened(self, images: AuxiliaryImages | None) -> AuxiliaryImages | None:
        if images is not None:
            images.open(self._stream.root, self._stream.manifest.input.shape)
        return images

    def original_images(self) -> Callable[[int], LabelledImages]:
        """Open the original training images; see `ExpertStream.original_images`."""
        return self._stream.original_images()

    def samples(self, folder: str | None) -> Callable[[Expert], Buffer]:
        """Return what reads and checks an expert's buffer file in a folder; None for `generated_folder`."""
        manifest, size = self._stream.manifest, self._size
        place = Path(folder) if folder else generated_folder(manifest)
        return lambda expert: _read(generated_file(place, expert.experience), manifest, size, expert)


def generated_folder(manifest: Manifest) -> Path:
    """Where `exml generate` writes unless it is told otherwise."""
    return Path("generated") / manifest.scenario / f"run{0 if manifest.run is None else manifest.run}"


def generated_file(folder: Path, experience: int) -> Path:
    """Name the buffer file of an expert in a folder of them."""
    return folder / f"expert_{experience}.safetensors"


def _read(path: Path, manifest: Manifest, size: int, expert: Expert) -> Buffer:
    if not path.is_file():
        raise ExmlError(
            f"{path} is missing: write it with `exml generate` and the same -c files, or name another folder with "
            "--buffer.generator.folder DIR"
        )
    content = read_buffer(path)
    if content.image_format != manifest.input:
        raise ExmlError(f"{path} has {content.image_format}, but the experts take {manifest.input}")
    wanted = share(size, expert.experience)
    if len(content.samples) < wanted:
        raise ExmlError(
            f"{path} has {len(content.samples)} samples, but {wanted} are asked for: delete it and "
            f"generate more with --generate.num_samples {wanted}, or make buffer.size smaller"
        )
    labels = _match_classes(path, content.samples.labels, content.class_names, manifest, expert)
    tasks, experiences = torch.full_like(labels, expert.task), torch.full_like(labels, expert.experience)
    return Buffer(content.samples.images, labels, tasks, experiences)


def _match_classes(path: Path, labels: Tensor, names: tuple[str, ...], manifest: Manifest, expert: Expert) -> Tensor:
    """Turn places in a file's class names into class indices of the stream."""
    own = {manifest.class_names[c]: c for c in expert.classes.tolist()}
    present = labels.unique().tolist()
    foreign = [names[label] for label in present if names[label] not in own]
    if foreign:
        raise ExmlError(
            f"{path} has samples of {foreign}, which expert {expert.experience} does not know; it knows {sorted(own)}"
        )
    table = torch.full((len(names),), -1)
    for label in present:
        table[label] = own[names[label]]
    return table[labels]
