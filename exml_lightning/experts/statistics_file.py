"""The file beside an expert's weights that holds what its owner has published of its classes (docs/statistics.md)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from exml_lightning.core.class_statistics import RANK, ClassStatistics
from exml_lightning.core.errors import ExmlError, foreign_code, shown
from exml_lightning.core.expert import Expert
from exml_lightning.core.features import MOST_VALUES, Features, thumbnail_size
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.measure_statistics import LEAST_UNIT, NUM_DRAWINGS, check_counts, measure
from exml_lightning.core.private_moments import GaussianMechanism
from exml_lightning.experts.manifest import ExpertEntry, Manifest, PublishedStatistics, write_manifest
from exml_lightning.experts.privacy import StatisticsNoise, statistics_noise
from exml_lightning.files import check_regular, reason, sha256, write_whole
from exml_lightning.terminal import Bar

SUFFIX = ".statistics.safetensors"
REMEDY = "write it anew with `exml statistics`, or take `statistics` out of the manifest"
NAMES = ("units", "means", "directions", "variances", "rest", "distance", "images")


def publish(
    expert: Expert,
    entry: ExpertEntry,
    folder: Path,
    images: Tensor,
    columns: Tensor,
    noise: StatisticsNoise | None = None,
) -> ExpertEntry:
    """Measure the statistics of an expert and write them beside its weights, with `noise` if they are to be private.

    Returns the entry that names them; see `core.measure_statistics.measure` for images and errors. What
    was published before has spent, too.
    """
    mechanism = None if noise is None else GaussianMechanism(noise.multiplier)
    with Bar(f"measuring {entry.file}", len(images) + NUM_DRAWINGS) as bar:
        found = measure(expert, images, columns, mechanism, lambda count, _=None: bar.advance(count))
    task = f".task{entry.task}" if entry.task else ""  # one file may be listed once a task
    name = f"{entry.file.removesuffix('.safetensors')}{task}{SUFFIX}"
    path = entry.path(folder).with_name(name)
    tensors = {name: tensor.contiguous() for name, tensor in found.tensors().items()}
    write_whole(path, lambda part: save_file(tensors, part))
    before = None if entry.statistics is None else entry.statistics.privacy
    spent = None if noise is None else noise.spent.plus(before)
    published = PublishedStatistics(name, sha256(path), found.layer, int(found.images.sum()), spent)
    return replace(entry, statistics=published)


def is_published(entry: ExpertEntry, folder: Path) -> bool:
    """Whether the statistics of an expert are there, as its manifest says."""
    if entry.statistics is None:
        return False
    path = entry.path(folder).with_name(entry.statistics.file)
    return path.is_file() and sha256(path) == entry.statistics.sha256


def publish_all(
    folder: Path,
    manifest: Manifest,
    images: LabelledImages,
    load: Callable[[Path, Manifest, int], Expert],
    epsilon: float | None = None,
    delta: float | None = None,
) -> Manifest:
    """Publish the statistics of each expert of which all classes have images; the manifest is written after each.

    `load` reads an expert, and labels of `images` are places in the manifest's class names. With `epsilon` and `delta`
    (default 1 / (10 n) for n images) they are private; what they spend is added to what a private expert has spent.
    Returns the manifest.

    Raises:
        ExmlError: If no expert has images of all its classes, one has too few of a class, it is private and there is no
            `epsilon`, or there is one and statistics without noise are published.
    """
    there = set(images.labels.unique().tolist())
    able = [k for k in range(len(manifest.experts)) if set(manifest.classes_of(k)) <= there]
    for k in able:
        check_noise(manifest.experts[k], f"expert {k}", epsilon is not None)
    if not able:
        lacking = [manifest.class_names[c] for c in manifest.classes_of(0) if c not in there]
        raise ExmlError(f"images: no expert has images of all its classes; expert 0 lacks [{shown(lacking)}]")
    noises = {}
    for k in able:  # all of them before any is published, which spends
        name, (rows, columns) = f"expert {k}", rows_of(images, manifest.classes_of(k))
        check_counts(name, columns, manifest.experts[k].classes)
        noises[k] = None if epsilon is None else statistics_noise(epsilon, delta, len(rows), name)
    bare = replace(manifest, experts=tuple(replace(entry, statistics=None) for entry in manifest.experts))
    for k, noise in noises.items():
        expert, entries = load(folder, bare, k), list(manifest.experts)  # what is there may be broken
        rows, columns = rows_of(images, expert.classes.tolist())
        if noise is not None and entries[k].privacy is not None:
            entries[k] = replace(entries[k], privacy=noise.spent.plus(entries[k].privacy))
        entries[k] = publish(expert, entries[k], folder, images.read(rows), columns, noise)
        manifest = replace(manifest, experts=tuple(entries))
        write_manifest(manifest, folder)
    return manifest


def check_noise(entry: ExpertEntry, name: str, noise: bool) -> None:
    """Refuse statistics without noise where some with it, or a private expert, are published, and the other way."""
    before = entry.statistics
    if not noise and (entry.privacy is not None or (before is not None and before.privacy is not None)):
        raise ExmlError(
            f"{name} or its statistics are protected by differential privacy, which statistics without noise would "
            "undo: give exml statistics --epsilon, which adds up with what was spent"
        )
    if noise and before is not None and before.privacy is None:
        raise ExmlError(
            f"{name} has published statistics without noise, which no noise takes back: if nobody has them, delete "
            "their file and take `statistics` out of the manifest"
        )


def rows_of(images: LabelledImages, classes: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Find the images of classes: their rows, and the place of each one's class among `classes`, int64 ``(n,)``."""
    places = torch.full((max([*classes, int(images.labels.max())]) + 1,), -1)
    places[list(classes)] = torch.arange(len(classes))
    columns = places[images.labels]
    rows = (columns >= 0).nonzero().flatten()
    return rows, columns[rows]


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
    if wrong := _wrong(tensors, len(expert.classes), math.prod(thumbnail_size(expert.own_format.shape))):
        raise ExmlError(f"{path}: {wrong}: {REMEDY}")
    if published.layer not in dict(expert.model.named_modules()):
        raise ExmlError(f"{path}: the manifest says layer {published.layer!r}, which the expert lacks: {REMEDY}")
    found = ClassStatistics(published.layer, **{name: tensors[name] for name in NAMES})
    black = torch.zeros(1, *expert.image_format.shape)
    doing = expert.name, "a black image", "give a network that takes it"
    with foreign_code(*doing), torch.no_grad(), Features(expert, published.layer)() as look:
        expert(black)
        seen = look.pop(black)
    if seen.shape[1] != len(found.units):
        raise ExmlError(f"{path}: it is of {len(found.units)} values, the expert has {seen.shape[1]}: {REMEDY}")
    if not found.log_distance(torch.cat([seen, found.means * found.units])).isfinite().all():
        raise ExmlError(f"{path}: its numbers are too large or too small to be those of images: {REMEDY}")
    return found


def _wrong(tensors: dict[str, Tensor], classes: int, thumbnail: int) -> str:
    """Say what of a stranger's file is not as `ClassStatistics` has it; "" for nothing."""
    if set(tensors) != set(NAMES):
        return f"it must hold {', '.join(NAMES)}"
    means, directions = tensors["means"], tensors["directions"]
    if means.ndim != 2 or directions.ndim != 3:
        return "means must be of two dimensions, directions of three"
    values, rank = means.shape[1], directions.shape[1]
    most = thumbnail + MOST_VALUES
    if not thumbnail < values <= most or not 0 < rank <= RANK:
        return f"it has {values} values and {rank} directions: give {thumbnail + 1} to {most} and at most {RANK}"
    shapes = {
        "units": (values,),
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
    if float(tensors["directions"].abs().max()) > 1.01 or float(tensors["units"].min()) < LEAST_UNIT / 2:
        return f"directions must be of length 1, units {LEAST_UNIT} or more"
    positive = ("units", "variances", "rest")
    if min(float(tensors["distance"][1]), *(float(tensors[name].min()) for name in positive)) <= 0:
        return "units, variances and the deviation of distances must be more than 0"
    return ""
