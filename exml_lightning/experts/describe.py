"""Writing the manifest of a folder from weight files and a few words about them; `exml manifest`."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts import manifest as manifests
from exml_lightning.experts.architecture import Architecture, last_linear, probe
from exml_lightning.experts.manifest import FILE_NAME, ExpertEntry, Manifest
from exml_lightning.experts.origin import check_origin
from exml_lightning.experts.statistics_file import SUFFIX as STATISTICS
from exml_lightning.experts.weights import load_expert
from exml_lightning.files import natural_order, sha256

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")
"""Of the files that are taken for weights where none are named."""
NO_CLASS = "-"
"""Stands for an output unit that is no class."""
NAME_ALL = f"name each output unit, in their order, {NO_CLASS!r} for one that is no class"
ANEW = f"take its entry out of {FILE_NAME} to list it anew"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of ImageNet's pixels, which most RGB networks are trained with."""


@dataclass(frozen=True)
class NewExperts:
    """What files do not say of the experts in them; the same for all experts of one call.

    Args:
        architecture: Dotted path of an `nn.Module` class, or of a function annotated to return one.
        init_args: Its keyword arguments; ``num_classes`` is filled in where it takes one.
        classes: A name for each output unit, ``-`` for a unit that is no class; None to read ``<stem>.txt`` beside each
            file, one name a line.
        size: Height and width of the images, or one number for both; None for those of the stream.
        channels: Of the images; None for those of the network's first convolution.
        mean: Of each channel, or one value for all; with `std`. None for the stream's where the stream has as many
            channels, else ImageNet's for three channels and 0.5 for others.
        std: See `mean`.
        files: Files of the folder; None for all weight files that the manifest does not list, in natural order.
        classifier: Dotted name of the last linear layer; None to look for it.
        task: Task label.
        accuracy: On its own classes, 0 to 1; None if unknown.
        license: An SPDX identifier, or a few words; None if it is not stated.
        scenario: Name of a new stream; None for that of the folder.

    Example:
        >>> from exml_lightning import NewExperts
        >>> NewExperts("torchvision.models.resnet18", classes=("cat", "dog"), size=(32,)).classes
        ('cat', 'dog')
    """

    architecture: str
    init_args: dict[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    size: tuple[int, ...] | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    files: tuple[str, ...] | None = None
    classifier: str | None = None
    task: int = 0
    accuracy: float | None = None
    license: str | None = None
    scenario: str | None = None

    def __post_init__(self) -> None:
        if self.size is not None and len(self.size) not in (1, 2):
            raise ExmlError(f"--size {' '.join(map(str, self.size))}: give one number, or height and width")
        if (self.mean is None) != (self.std is None):
            raise ExmlError("give --mean and --std, or neither")
        if self.mean is not None and not all(0 <= value <= 1 for value in self.mean):
            raise ExmlError(f"--mean {' '.join(map(str, self.mean))}: give that of pixels in [0, 1] (divide by 255)")


class Described(NamedTuple):
    """What `add_experts` did: the manifest now, how many experts are new, and the files that were listed already."""

    manifest: Manifest
    added: int
    skipped: tuple[str, ...]


def add_experts(folder: str | Path, new: NewExperts) -> Described:
    """Write or extend ``manifest.yaml``: experts and classes that are listed keep their places, new ones come after.

    Every new expert is loaded and asked for its logits before anything is written. Raises `ExmlError`, and leaves the
    manifest as it was, if there is nothing to add to an empty folder, a file is missing, changed or not in the folder,
    an expert is not as described, or a class would have two names.

    Example:
        >>> from exml_lightning import NewExperts, add_experts
        >>> add_experts("checkpoints/split_digits/run0", NewExperts("exml_lightning.models.LeNet5")).added  # all listed
        0
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ExmlError(f"{folder} is not a folder: make it and put the weight files there")
    check_origin(new.architecture, folder)
    old = manifests.read_manifest(folder) if (folder / FILE_NAME).is_file() else None
    if old is not None and new.scenario not in (None, old.scenario):
        raise ExmlError(f"{folder / FILE_NAME} is of scenario {old.scenario}: leave out --scenario {new.scenario}")
    entries, stream, skipped = list(old.experts) if old else [], old.input if old else None, []
    before = len(entries)
    for file in _weight_files(folder, new, entries):
        path = folder / file
        digest = sha256(path)
        listed = [entry for entry in entries if entry.file == file]
        if any(entry.sha256 != digest for entry in listed):
            what = f"{path} was changed since {FILE_NAME} listed it (sha256)"
            raise ExmlError(f"{what}: bring it back and give the new weights another file name, or {ANEW}")
        if same := [entry for entry in listed if new.files is None or entry.task == new.task]:
            _check_said(path, new, same, stream)
            skipped.append(file)
            continue
        try:
            entry, own = _describe(path, digest, new, stream)
        except ExmlError as error:
            raise ExmlError(f"{path}: {error}") from error
        stream = stream or own
        entries.append(replace(entry, input=None if own == stream else own))
    if stream is None:
        raise ExmlError(f"{folder} has no weight files ({' '.join(SUFFIXES)}): put them there, or name them by --files")
    names = dict.fromkeys([*(old.class_names if old else ()), *(name for entry in entries for name in entry.classes)])
    scenario = old.scenario if old else new.scenario or folder.resolve().name
    manifest = Manifest(scenario, old.run if old else None, tuple(names), stream, tuple(entries))
    manifests.check_manifest(manifest)
    for index in range(before, len(entries)):
        try:
            load_expert(folder, manifest, index)
        except ExmlError as error:
            count = entries[index].architecture.init_args.get("num_classes")
            if count is None or "num_classes" in new.init_args:
                raise
            raise ExmlError(f"{error}; num_classes is {count}, the number of names given: {NAME_ALL}") from error
    if len(entries) > before:
        manifests.write_manifest(manifest, folder)
    return Described(manifest, len(entries) - before, tuple(skipped))


def _weight_files(folder: Path, new: NewExperts, listed: list[ExpertEntry]) -> list[str]:
    if new.files is None:
        initial = {entry.training.get("initial") for entry in listed}  # `exml experts` leaves it; it is no expert
        found = [path for path in folder.iterdir() if path.suffix in SUFFIXES and path.is_file()]
        names = [path.name for path in found if path.name[0] != "." and path.name not in initial]
        names = [name for name in names if not name.endswith(STATISTICS)]  # what `exml statistics` leaves is none
        return sorted(names, key=natural_order)
    for file in new.files:
        path = Path(file)
        if path.name != file and path.parent.resolve() != folder.resolve():
            raise ExmlError(f"{file} is not in {folder}: put it there (a manifest names files of its own folder)")
        if not (folder / path.name).is_file():
            raise ExmlError(f"{folder / path.name} is missing, though --files names it")
    return list(dict.fromkeys(Path(file).name for file in new.files))


def _check_said(path: Path, new: NewExperts, listed: list[ExpertEntry], stream: ImageFormat | None) -> None:
    """Refuse to skip a file that is named once more, with other classes or another input."""
    for entry in listed if new.files is not None else []:
        own = entry.input or stream
        if own and _images(new, own, new.channels or own.shape[0]) != own:
            raise ExmlError(f"{path} is listed already, with {own}: correct its input in {FILE_NAME} if that is wrong")
        if new.classes is not None and {*new.classes} - {NO_CLASS} != {*entry.classes}:
            what = f"{path} is listed already, with the classes {list(entry.classes)}"
            raise ExmlError(f"{what}: give another --task if it is another head of a multi-task model, or {ANEW}")


def _describe(path: Path, digest: str, new: NewExperts, stream: ImageFormat | None) -> tuple[ExpertEntry, ImageFormat]:
    names = _unit_names(path, new)
    architecture, network = _network(new, len(names))
    convolution = next((layer for layer in network.modules() if isinstance(layer, nn.Conv2d)), None)
    guessed = convolution.in_channels if convolution else stream.shape[0] if stream else 3
    own = _images(new, stream, new.channels or guessed)
    units = probe(network, own.shape, type(network).__name__)
    if units != len(names):
        what = f"{type(network).__name__} has {units} output units, but {len(names)} names are given"
        raise ExmlError(f"{what}: {NAME_ALL}")
    layer = last_linear(network)
    if layer is not None and getattr(network.get_submodule(layer), "out_features", None) != units:
        layer = None
    known = tuple(unit for unit, name in enumerate(names) if name != NO_CLASS)
    entry = ExpertEntry(path.name, digest, architecture, tuple(names[unit] for unit in known), known, new.task)
    return replace(entry, classifier=new.classifier or layer, accuracy=new.accuracy, license=new.license), own


def _unit_names(path: Path, new: NewExperts) -> tuple[str, ...]:
    beside = path.with_suffix(".txt")
    where, names = "--classes", new.classes
    if names is None:
        if not beside.is_file():
            given = f"Give --classes, or {beside.name} beside it with one name a line"
            raise ExmlError(f"which classes does it know? {given}; {NAME_ALL}")
        try:
            where, names = str(beside), tuple(beside.read_text(encoding="utf-8-sig").rstrip().splitlines())
        except UnicodeDecodeError as error:
            raise ExmlError(f"{beside}, its class names, is not UTF-8 text ({error})") from error
    names = tuple(name.strip() for name in names)
    known = [name for name in names if name != NO_CLASS]
    if not known or not all(known):
        raise ExmlError(f"{where} leaves a name empty: {NO_CLASS!r} stands for a unit that is no class")
    if twice := sorted({name for name in known if known.count(name) > 1}):
        raise ExmlError(f"{where} names {', '.join(twice)} twice: a class is one output unit")
    return names


def _network(new: NewExperts, num_classes: int) -> tuple[Architecture, nn.Module]:
    """Build the network, with ``num_classes`` filled in where it takes one and none is given."""
    given = Architecture(new.architecture, dict(new.init_args)).skeleton()
    if "num_classes" in new.init_args:
        return given, given.build()
    filled = given.with_classes(num_classes)
    try:
        return filled, filled.build()
    except ExmlError as error:
        try:
            return given, given.build()  # it takes none
        except ExmlError:
            raise error from None


def _images(new: NewExperts, stream: ImageFormat | None, channels: int) -> ImageFormat:
    """What is said of the images, and the stream's where nothing is."""
    size = new.size or (stream.shape[1:] if stream else None)
    if size is None:
        raise ExmlError("which images does it take? Give --size, their height and width, for instance --size 32")
    if new.mean is not None and new.std is not None:
        mean, std = (values * channels if len(values) == 1 else values for values in (new.mean, new.std))
    elif stream is not None and stream.shape[0] == channels:
        mean, std = stream.mean, stream.std
    else:
        mean, std = IMAGENET if channels == 3 else ((0.5,) * channels, (0.5,) * channels)
    return ImageFormat((channels, size[0], size[-1]), mean, std)
