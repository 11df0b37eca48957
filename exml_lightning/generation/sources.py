"""Gives generators the data they need and do not read themselves: auxiliary, original and precomputed images."""

from pathlib import Path

import torch
from torch import Tensor

from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import Auxiliary, Generator, Precomputed, Procedural, Replay
from exml_lightning.data import ExpertStream
from exml_lightning.experts import Manifest
from exml_lightning.generation.buffer_file import read_buffer


def connect(generator: Generator, stream: ExpertStream, size: int) -> None:
    """Connect a generator to what the stream knows, and the stream to fresh images; most need nothing.

    Args:
        generator: The generator.
        stream: The stream.
        size: N, the samples of the buffer.

    Raises:
        ExmlError: If there is nothing to draw from.
    """
    stream.fresh = generator.images if isinstance(generator, Procedural) and generator.fresh else None
    if isinstance(generator, Auxiliary):
        if stream.auxiliary is None:
            raise ExmlError(
                "the auxiliary generator has no images to draw from: set data.auxiliary (docs/auxiliary.md), for "
                "instance --data.auxiliary FolderImages --data.auxiliary.folder DIR"
            )
        stream.auxiliary.open(stream.root, stream.manifest.input.shape)
        generator.draw = stream.auxiliary.draw
    elif isinstance(generator, Replay):
        generator.originals = stream.original_images()
    elif isinstance(generator, Precomputed):
        folder = Path(generator.folder) if generator.folder else generated_folder(stream.manifest)
        generator.read = _Files(folder, stream.manifest, size)


def generated_folder(manifest: Manifest) -> Path:
    """Where `exml generate` writes unless it is told otherwise."""
    return Path("generated") / manifest.scenario / f"run{0 if manifest.run is None else manifest.run}"


def generated_file(folder: Path, experience: int) -> Path:
    """Name the buffer file of an expert in a folder of them."""
    return folder / f"expert_{experience}.safetensors"


class _Files:
    """Reads the buffer file of an expert and checks that it fits."""

    def __init__(self, folder: Path, manifest: Manifest, size: int) -> None:
        self._folder, self._manifest, self._size = folder, manifest, size

    def __call__(self, expert: Expert) -> Buffer:
        path = generated_file(self._folder, expert.experience)
        if not path.is_file():
            raise ExmlError(
                f"{path} is missing: write it with `exml generate` and the same -c files, or name another folder with "
                "--buffer.generator.folder DIR"
            )
        content = read_buffer(path)
        if content.image_format != self._manifest.input:
            raise ExmlError(f"{path} has {content.image_format}, but the experts take {self._manifest.input}")
        wanted = self._size // (expert.experience + 1)
        if len(content.samples) < wanted:
            raise ExmlError(
                f"{path} has {len(content.samples)} samples, but {wanted} are asked for: delete it and "
                f"generate more with --generate.num_samples {wanted}, or make buffer.size smaller"
            )
        labels = _match_classes(path, content.samples.labels, content.class_names, self._manifest, expert)
        return Buffer(
            content.samples.images,
            labels,
            torch.full_like(labels, expert.task),
            torch.full_like(labels, expert.experience),
        )


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
