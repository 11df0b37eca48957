"""Writing the manifest of a folder from weight files and a few words about them; `exml manifest`."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts import manifest as manifests
from exml_lightning.experts.first_reading import read_first
from exml_lightning.experts.manifest import FILE_NAME, ExpertEntry, Manifest
from exml_lightning.experts.new_experts import NAME_ALL, NO_CLASS, SUFFIXES, NewExperts
from exml_lightning.experts.origin import check_origin
from exml_lightning.experts.saved_models import CONFIG, read_saved_model
from exml_lightning.experts.state_dict import INDEX, file_hash, indexed_files
from exml_lightning.experts.statistics_file import SUFFIX as STATISTICS
from exml_lightning.experts.weights import load_expert
from exml_lightning.files import natural_order

__all__ = ["Described", "NewExperts", "add_experts"]

ANEW = f"take its entry out of {FILE_NAME} to list it anew"


class Described(NamedTuple):
    """What `add_experts` did: the manifest now, how many experts are new, and the files that were listed already.

    `notes` are lines about what was found out of the new ones, for people.
    """

    manifest: Manifest
    added: int
    skipped: tuple[str, ...]
    notes: tuple[str, ...] = ()


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
    new, architecture, guessed = _with_saved(folder, new)
    check_origin(architecture, folder)
    old = manifests.read_manifest(folder) if (folder / FILE_NAME).is_file() else None
    if old is not None and new.scenario not in (None, old.scenario):
        raise ExmlError(f"{folder / FILE_NAME} is of scenario {old.scenario}: leave out --scenario {new.scenario}")
    entries, stream, skipped = list(old.experts) if old else [], old.input if old else None, []
    before, notes = len(entries), guessed
    for file in _weight_files(folder, new, entries):
        path = folder / file
        digest = file_hash(path)
        listed = [entry for entry in entries if entry.file == file]
        if any(entry.sha256 != digest for entry in listed):
            what = f"{path} was changed since {FILE_NAME} listed it (sha256)"
            raise ExmlError(f"{what}: bring it back and give the new weights another file name, or {ANEW}")
        if same := [entry for entry in listed if new.files is None or entry.task == new.task]:
            _check_said(path, new, same, stream)
            skipped.append(file)
            continue
        try:
            entry, own = _describe(path, digest, new, _images_before(new, entries, stream), notes)
        except ExmlError as error:
            raise error if str(error).startswith(str(path)) else ExmlError(f"{path}: {error}") from error
        stream = stream or own
        entries.append(replace(entry, input=None if own == stream else own))
    if stream is None:
        raise ExmlError(f"{folder} has no weight files ({' '.join(SUFFIXES)}): put them there, or name them by --files")
    names = dict.fromkeys([*(old.class_names if old else ()), *(name for entry in entries for name in entry.classes)])
    scenario = old.scenario if old else new.scenario or folder.resolve().name
    manifest = Manifest(scenario, old.run if old else None, tuple(names), stream, tuple(entries))
    manifests.check_manifest(manifest)
    for index in range(before, len(entries)):
        load_expert(folder, manifest, index)
    if len(entries) > before:
        manifests.write_manifest(manifest, folder)
    return Described(manifest, len(entries) - before, tuple(skipped), tuple(notes))


def _with_saved(folder: Path, new: NewExperts) -> tuple[NewExperts, str, list[str]]:
    """Add what transformers or timm has written into a folder, where no network is named.

    Returns the name of the network, too, and lines about what was guessed.
    """
    if new.architecture is not None:
        return new, new.architecture, []
    saved = read_saved_model(folder)
    if saved is None:
        raise ExmlError(f"which network? Give --architecture, a dotted path ({folder} has no {CONFIG} that says it)")
    if new.classes is None and saved.classes is None:
        raise ExmlError(f"{folder / CONFIG} does not name the classes: give --classes; {NAME_ALL}")
    mean, std = (saved.mean, saved.std) if new.mean is None else (new.mean, new.std)
    said = replace(
        new,
        architecture=saved.architecture,
        init_args={**saved.init_args, **new.init_args},
        classes=new.classes or saved.classes,
        size=new.size or saved.size,
        channels=new.channels or saved.channels,
        files=new.files or (saved.file,),
        mean=mean,
        std=std,
    )
    guess = f"{folder} does not say by which mean and std images were normalised: ImageNet's are taken (--mean, --std)"
    return said, saved.architecture, [guess] if mean is None else []


def _images_before(new: NewExperts, entries: list[ExpertEntry], stream: ImageFormat | None) -> ImageFormat | None:
    """The images of the newest expert listed with the same network; of another one the size has to be given."""
    alike = [entry.input or stream for entry in entries if entry.architecture.class_path == new.architecture]
    if stream is not None and not alike and new.size is None:
        size = "x".join(map(str, stream.shape[1:]))
        raise ExmlError(f"which images does this network take? Give --size (the stream's are {size})")
    return alike[-1] if alike else stream


def _weight_files(folder: Path, new: NewExperts, listed: list[ExpertEntry]) -> list[str]:
    if new.files is None:
        initial = {entry.training.get("initial") for entry in listed}  # `exml experts` leaves it; it is no expert
        found = [path for path in folder.iterdir() if path.name.endswith(SUFFIXES) and path.is_file()]
        parts = {part.name for path in found if path.name.endswith(INDEX) for part in indexed_files(path)}
        names = [path.name for path in found if path.name[0] != "." and path.name not in {*initial, *parts}]
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
        if own and new.images(own, new.channels or own.shape[0]) != own:
            raise ExmlError(f"{path} is listed already, with {own}: correct its input in {FILE_NAME} if that is wrong")
        if new.weights not in (None, entry.weights):
            raise ExmlError(f"{path} is listed already, with the weights {entry.weights}: {ANEW}")
        if new.outputs not in (None, entry.architecture.returns or "logits"):
            raise ExmlError(f"{path} is listed already, as one that returns {entry.architecture.returns}: {ANEW}")
        if new.classes is not None and {*new.unit_names(path)} - {NO_CLASS} != {*entry.classes}:
            what = f"{path} is listed already, with the classes {list(entry.classes)}"
            raise ExmlError(f"{what}: give another --task if it is another head of a multi-task model, or {ANEW}")


def _describe(
    path: Path, digest: str, new: NewExperts, before: ImageFormat | None, notes: list[str]
) -> tuple[ExpertEntry, ImageFormat]:
    """Describe an expert and its images, where `before` are images that it may share; add lines to `notes`."""
    names = new.unit_names(path)
    found = read_first(path, new, names, before)
    notes += [f"{path.name}: {line}" for line in found.notes]
    known = tuple(unit for unit, name in enumerate(names) if name != NO_CLASS)
    entry = ExpertEntry(
        path.name,
        digest,
        found.architecture,
        tuple(names[unit] for unit in known),
        known,
        new.task,
        classifier=new.classifier or found.classifier,
        accuracy=new.accuracy,
        license=new.license,
        weights=found.weights,
    )
    return entry, found.images
