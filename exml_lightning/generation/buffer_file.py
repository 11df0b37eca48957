"""A file of samples: what `exml generate` writes, the cache keeps and the precomputed strategy reads."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import ConfigDict, Json, TypeAdapter
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from exml_lightning.core.buffer import NOBODY, Buffer
from exml_lightning.core.errors import ExmlError, one_line, printable, shown
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts.schema import MAX_WHOLE, STRICT, Free, Images, Names, parse
from exml_lightning.files import check_regular, write_whole

FORMAT = "exml buffer 1"
DTYPES = {"images": (torch.uint8, torch.float32), **dict.fromkeys(("labels", "tasks", "experiences"), (torch.int64,))}


@dataclass(frozen=True)
class BufferFile:
    """Samples and what their numbers mean.

    Args:
        samples: The samples, on the CPU; images as a buffer holds them, labels indices into `class_names`.
        class_names: Names of the classes.
        image_format: Shape, mean and standard deviation of the images.
        about: How they were made, for people and to tell files apart; anything that JSON holds.
    """

    samples: Buffer
    class_names: tuple[str, ...]
    image_format: ImageFormat
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Metadata:
    """What the header says of the tensors, beside the format."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    class_names: Json[Names]
    input: Json[Images]
    about: Json[Free] = field(default_factory=dict)


METADATA = TypeAdapter(_Metadata)


def write_buffer(path: Path, content: BufferFile) -> None:
    """Write a safetensors file whole, replacing the one there in one step; its folder is made where it is missing."""
    metadata = {
        "format": FORMAT,
        "class_names": json.dumps(content.class_names),
        "input": json.dumps(asdict(content.image_format)),
        "about": json.dumps(content.about, sort_keys=True),
    }
    tensors = {name: tensor.contiguous() for name, tensor in content.samples.state_dict().items()}
    write_whole(path, lambda part: save_file(tensors, part, metadata))


def read_buffer(path: Path) -> BufferFile:
    """Read and check a buffer file, onto the CPU.

    Raises:
        ExmlError: If the file is missing, cut off, or not a buffer file; names it and what is wrong.
    """
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise ExmlError(f"{path} is missing") from error
    except Exception as error:  # the library raises almost anything for a broken file
        raise ExmlError(f"{path} cannot be read as a buffer file: {printable(one_line(error), 200)}") from error
    try:
        if metadata.get("format") != FORMAT:
            raise ExmlError(f"its metadata must have format {FORMAT!r}")
        known = parse(METADATA, {f.name: metadata[f.name] for f in fields(_Metadata) if f.name in metadata})
        content = BufferFile(_samples(tensors), known.class_names, known.input, known.about)
        _check(content)
    except ExmlError as error:
        raise ExmlError(f"{path} is not a buffer file as docs/buffer_file.md describes it: {error}") from error
    return content


def _samples(tensors: dict[str, Tensor]) -> Buffer:
    if tensors.keys() != DTYPES.keys():
        raise ExmlError(f"it holds [{shown(sorted(tensors))}], and must hold {sorted(DTYPES)}")
    for name, dtypes in DTYPES.items():
        dims = 4 if name == "images" else 1
        if tensors[name].dtype not in dtypes or tensors[name].ndim != dims:
            raise ExmlError(f"{name} must be {' or '.join(map(str, dtypes))} with {dims} dimensions")
    if len({len(tensor) for tensor in tensors.values()}) != 1 or not len(tensors["images"]):
        raise ExmlError("its tensors must have the same length, 1 or more")
    return Buffer(**tensors)


def _check(content: BufferFile) -> None:
    images, shape = content.samples.images, content.image_format.shape
    if tuple(images.shape[1:]) != shape:
        raise ExmlError(f"its images have shape {list(images.shape[1:])}, its metadata says {list(shape)}")
    if not images.isfinite().all():
        raise ExmlError("its images hold NaN or infinity")
    low, high = content.image_format.limits(images.device)
    if images.is_floating_point() and ((images < low - 1e-2).any() or (images > high + 1e-2).any()):
        raise ExmlError(
            f"its images hold values from {float(images.min()):.3g} to {float(images.max()):.3g}: floats must be "
            "normalised pixels, (pixel - mean) / std of pixels in [0, 1]"
        )
    limits = {"labels": len(content.class_names) - 1, "tasks": MAX_WHOLE, "experiences": MAX_WHOLE}
    for name, limit in limits.items():
        column = getattr(content.samples, name)
        least = NOBODY if name == "experiences" else 0
        if int(column.min()) < least or int(column.max()) > limit:
            why = ", places in its class_names" if name == "labels" else ""
            raise ExmlError(f"its {name} must be {least} to {limit}{why}")
