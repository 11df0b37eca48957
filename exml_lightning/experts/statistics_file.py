"""The file beside an expert's weights that holds what its owner has published of its classes (docs/statistics.md)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from exml_lightning.core.class_statistics import MOST_VALUES, RANK, ClassStatistics, measure
from exml_lightning.core.errors import ExmlError, shown
from exml_lightning.core.expert import Expert
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.experts.manifest import ExpertEntry, Manifest, PublishedStatistics, write_manifest
from exml_lightning.files import check_regular, reason, sha256, write_whole

SUFFIX = ".statistics.safetensors"
REMEDY = "write it anew with `exml statistics`, or take `statistics` out of the manifest"
NAMES = ("means", "directions", "variances", "rest", "distance", "images")


def publish(
    expert: Expert, entry: ExpertEntry, folder: Path, images: Tensor, columns: Tensor
) -> tuple[ExpertEntry, str]:
    """Measure the statistics of an expert and write them beside its weights.

    Returns the entry that names them, and the layer; see `core.class_statistics.measure` for images and errors.
    """
    found = measure(expert, images, columns)
    task = f".task{entry.task}" if entry.task else ""  # one file may be listed once a task
    name = f"{entry.file.removesuffix('.safetensors')}{task}{SUFFIX}"
    path = entry.path(folder).with_name(name)
    tensors = {name: tensor.contiguous() for name, tensor in found.tensors().items()}
    write_whole(path, lambda part: save_file(tensors, part))
    published = PublishedStatistics(name, sha256(path), found.layer, int(found.images.sum()))
    return replace(entry, statistics=published), found.layer


def is_published(entry: ExpertEntry, folder: Path) -> bool:
    """Whether the statistics of an expert are there, as its manifest says."""
    if entry.statistics is None:
        return False
    path = entry.path(folder).with_name(entry.statistics.file)
    return path.is_file() and sha256(path) == entry.statistics.sha256


def publish_all(
    folder: Path, manifest: Manifest, images: LabelledImages, load: Callable[[Path, Manifest, int], Expert]
) -> Manifest:
    """Publish the statistics of each expert of which all classes have images; the manifest is written after each.

    `load` reads an expert, and labels of `images` are places in the manifest's class names. Returns the manifest.

    Raises:
        ExmlError: If no expert has images of all its classes, one has too few of a class, or is a private one.
    """
    there = set(images.labels.unique().tolist())
    able = [k for k in range(len(manifest.experts)) if set(manifest.classes_of(k)) <= there]
    for k in able:
        if manifest.experts[k].privacy is not None:
            raise ExmlError(
                f"expert {k} was trained with differential privacy, which statistics of its images would undo: "
                "take the images of its classes away"
            )
    if not able:
        lacking = [manifest.class_names[c] for c in manifest.classes_of(0) if c not in there]
        raise ExmlError(f"images: no expert has images of all its classes; expert 0 lacks [{shown(lacking)}]")
    bare = replace(manifest, experts=tuple(replace(entry, statistics=None) for entry in manifest.experts))
    for k in able:
        expert, entries = load(folder, bare, k), list(manifest.experts)  # what is there may be broken
        entries[k], _ = publish(expert, entries[k], folder, *of_classes(images, expert.classes.tolist()))
        manifest = replace(manifest, experts=tuple(entries))
        write_manifest(manifest, folder)
    return manifest


def of_classes(images: LabelledImages, classes: list[int]) -> tuple[Tensor, Tensor]:
    """Read the images of classes: uint8 ``(n, channels, height, width)``, and the place of each among `classes`."""
    places = torch.full((max([*classes, int(images.labels.max())]) + 1,), -1)
    places[classes] = torch.arange(len(classes))
    columns = places[images.labels]
    rows = (columns >= 0).nonzero().flatten()
    return images.read(rows), columns[rows]


def read_statistics(path: Path, published: PublishedStatistics, expert: Expert) -> ClassStatistics:
    """Read and check the statistics of an expert.

    Raises:
        ExmlError: If the file is missing, broken, another one than the manifest says, or not of this expert.
    """
    try:
        check_regular(path)
        if sha256(path) != published.sha256:
            raise ExmlError(f"it has another hash (sha256) than the manifest says: {REMEDY}")
        tensors = load_file(path)
    except FileNotFoundError as error:
        raise ExmlError(f"{path} is missing, though the manifest beside it names it: {REMEDY}") from error
    except ExmlError as error:
        raise ExmlError(f"{path}: {error}") from error
    except Exception as error:  # readers of broken files raise almost anything
        raise ExmlError(f"{path} cannot be read ({reason(error)}): {REMEDY}") from error
    if wrong := _wrong(tensors, len(expert.classes)):
        raise ExmlError(f"{path}: {wrong}: {REMEDY}")
    layers = dict(expert.model.named_modules())
    if published.layer not in layers:
        raise ExmlError(f"{path}: the manifest says layer {published.layer!r}, which the expert lacks: {REMEDY}")
    return ClassStatistics(published.layer, **{name: tensors[name] for name in NAMES})


def _wrong(tensors: dict[str, Tensor], classes: int) -> str:
    """Say what of a stranger's file is not as `ClassStatistics` has it; "" for nothing."""
    if set(tensors) != set(NAMES):
        return f"it must hold {', '.join(NAMES)}"
    means, directions = tensors["means"], tensors["directions"]
    if means.ndim != 2 or directions.ndim != 3:
        return "means must be of two dimensions, directions of three"
    values, rank = means.shape[1], directions.shape[1]
    if not 0 < values <= MOST_VALUES or not 0 < rank <= RANK:
        return f"it has {values} values and {rank} directions: at most {MOST_VALUES} and {RANK}"
    shapes = {
        "means": (classes, values),
        "directions": (classes, rank, values),
        "variances": (classes, rank),
        "rest": (classes,),
        "distance": (2,),
        "images": (classes,),
    }
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != shape or tensor.dtype != (torch.int64 if name == "images" else torch.float32):
            return f"{name} is {tensor.dtype} {list(tensor.shape)} where {list(shape)} is needed"
        if not tensor.isfinite().all():
            return f"{name} holds NaN or infinity"
    if min(float(tensors["variances"].min()), float(tensors["rest"].min()), float(tensors["distance"][1])) <= 0:
        return "variances and the deviation of distances must be more than 0"
    return ""
