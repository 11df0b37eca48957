"""`manifest.yaml`: what a folder of experts says about each of them (docs/manifest.md)."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

import yaml
from pydantic import AllowInfNan, ConfigDict, Field, TypeAdapter

from exml_lightning.core.errors import SHOWN, ExmlError, shown
from exml_lightning.experts import schema
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.origin import check_origin
from exml_lightning.files import read_yaml, write_text

FILE_NAME = "manifest.yaml"


@dataclass(frozen=True)
class PrivacySpent:
    """The differential privacy of an expert towards each of its training images (docs/privacy.md)."""

    epsilon: Annotated[float, AllowInfNan(True), Field(ge=0)]
    delta: schema.Fraction

    def plus(self, other: "PrivacySpent | None") -> "PrivacySpent":
        """Return what both have spent together, at most (basic composition)."""
        if other is None:
            return self
        return PrivacySpent(self.epsilon + other.epsilon, min(self.delta + other.delta, 1.0))


@dataclass(frozen=True)
class PublishedStatistics:
    """What the owner of an expert has published of what it saw of its classes (docs/statistics.md).

    `file`, beside the weights, holds it, and `sha256` its hash; `layer` is the dotted name of the layer that was looked
    at; `images` how many images were measured; `privacy` what this alone has spent, None if it is not private.
    """

    file: schema.FileName
    sha256: schema.Digest
    layer: schema.Text
    images: schema.Whole
    privacy: PrivacySpent | None = None


@dataclass(frozen=True)
class ExpertEntry:
    """One expert of a folder; None stands for what is not known or stated.

    `file`, in the same folder, has its weights, safetensors or a ``weights_only`` state dict, and `sha256` its hash in
    hexadecimal. `outputs` has the output unit of each of `classes`; `input` the images it expects, where they are not
    those of the stream; `classifier` the dotted name of its last linear layer; `accuracy` that on its own classes, a
    fraction; `training` how it was trained, for people and to tell whether to train it again; `privacy` what that has
    spent; `statistics` what its owner has published beside it; `license` what may be done with it, an SPDX identifier
    or a few words; `weights` which of the weights in the file are its, where there are several (`find_weights`).
    """

    file: schema.FileName
    sha256: schema.Digest
    architecture: Architecture
    classes: schema.Names
    outputs: schema.Units
    task: schema.Whole = 0
    input: schema.Images | None = None
    classifier: schema.Text | None = None
    accuracy: schema.Fraction | None = None
    training: schema.Free = field(default_factory=dict)
    privacy: PrivacySpent | None = None
    license: schema.Text | None = None
    statistics: PublishedStatistics | None = None
    weights: schema.Text | None = None

    @property
    def where(self) -> str:
        """What to call it in an error."""
        return self.file

    @property
    def identity(self) -> str:
        """What tells its weights from others': the hash of the file, and which weights in it where it has several."""
        return self.sha256 if self.weights is None else f"{self.sha256}:{self.weights}"

    def path(self, folder: Path) -> Path:
        """Return where its weights are, given the folder of the manifest."""
        return folder / self.file


@dataclass(frozen=True)
class Manifest:
    """What is known about a stream of experts, which are in its order.

    `run` is 0 to 4, None where it has no meaning; the place of a name in `class_names`, all classes of the stream, is
    its class index; `input` are the images that the ex-model takes, and every expert that names no others.

    Example:
        >>> from exml_lightning import Manifest, read_manifest
        >>> manifest: Manifest = read_manifest("checkpoints/split_digits/run0")
        >>> manifest.scenario, manifest.run, manifest.classes_of(0)
        ('split_digits', 0, [5, 4])
    """

    __pydantic_config__: ClassVar[ConfigDict] = schema.STRICT

    scenario: schema.StreamName
    run: Annotated[schema.Whole | None, Field(default=None)]
    class_names: schema.Names
    input: schema.Images
    experts: tuple[ExpertEntry, ...] = ()

    def classes_of(self, index: int) -> list[int]:
        """Return the class indices that an expert knows, in the order of its outputs."""
        places = {name: place for place, name in enumerate(self.class_names)}
        return [places[name] for name in self.experts[index].classes]


ADAPTER = TypeAdapter(Manifest)


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check ``manifest.yaml``. The weights are not looked at, and nothing that it names is imported.

    Raises `ExmlError`, which names file and key, if the file is missing or anything in it is not as it should be.

    Example:
        >>> from exml_lightning import read_manifest
        >>> manifest = read_manifest("checkpoints/split_digits/run0")
        >>> len(manifest.experts), manifest.experts[0].classes, manifest.input.shape
        (5, ('5', '4'), (1, 32, 32))
    """
    folder = Path(folder)
    path = folder / FILE_NAME
    if not path.exists():
        raise ExmlError(f"{path} is missing: there are no experts in this folder")
    raw = read_yaml(path)  # its errors name the file
    try:
        manifest = _parse(raw)
        for class_path in sorted({expert.architecture.class_path for expert in manifest.experts}):
            check_origin(class_path, folder)
    except ExmlError as error:
        raise ExmlError(f"{path}: {error}") from error
    return manifest


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest.yaml`` into a folder, replacing the one there in one step."""
    document = _document(manifest)
    write_text(folder / FILE_NAME, yaml.safe_dump(document, sort_keys=False, width=110, default_flow_style=None))


def check_manifest(manifest: Manifest) -> None:
    """Refuse what `read_manifest` would refuse to read back."""
    _parse(_document(manifest))


def _document(manifest: Manifest) -> Any:
    document = json.loads(json.dumps({"format": schema.FORMAT, **asdict(manifest)}))  # lists in place of tuples
    for expert in document["experts"]:
        expert["architecture"] = {k: v for k, v in expert["architecture"].items() if v not in (None, False)}
    return document


def _parse(raw: object) -> Manifest:
    manifest = schema.parse_document(ADAPTER, raw)
    if not manifest.experts:
        raise ExmlError("experts is empty")
    known = dict.fromkeys(manifest.class_names)
    for i, expert in enumerate(manifest.experts):
        if len(expert.outputs) != len(expert.classes):
            raise ExmlError(f"experts[{i}].outputs must name one output unit for each of its classes")
        if unknown := [name for name in expert.classes if name not in known]:
            raise ExmlError(f"experts[{i}].classes: [{shown(unknown)}] is not in class_names [{shown(known)}]")
    check_experts(manifest.experts)
    return manifest


def check_experts(experts: Sequence[ExpertEntry]) -> None:
    """Refuse experts that give one class two names or two tasks, or that say two things of the same weights.

    Names that differ only in case, spaces, ``-`` or ``_`` are one class, unless an expert knows both of them.
    """
    tasks_of(experts)
    known: dict[str, str] = {}
    for name in dict.fromkeys(name for expert in experts for name in expert.classes):
        other = known.setdefault(_bare(name), name)
        if other != name and not any({name, other} <= set(expert.classes) for expert in experts):
            files = {n: ", ".join([e.where for e in experts if n in e.classes][:SHOWN]) for n in (other, name)}
            raise ExmlError(
                f"one class has two names: {other!r} in {files[other]}, {name!r} in {files[name]}; "
                "give it one name (or, if they are two classes, names that differ in more than case, spaces, - and _)"
            )
    heads: dict[tuple[str, int], ExpertEntry] = {}
    for expert in experts:
        first = heads.setdefault((expert.identity, expert.task), expert)
        if {*zip(first.outputs, first.classes, strict=True)} != {*zip(expert.outputs, expert.classes, strict=True)}:
            raise ExmlError(
                f"{first.where} and {expert.where} hold the same weights (sha256) but are said to know "
                f"[{shown(first.classes)}] and [{shown(expert.classes)}]: correct one of them, or give "
                "them different tasks if each is a head of a multi-task model"
            )


def tasks_of(experts: Sequence[ExpertEntry]) -> dict[str, int]:
    """Return the task of each class, by its name; refuse a class that belongs to two."""
    tasks: dict[str, ExpertEntry] = {}
    for expert in experts:
        for name in expert.classes:
            first = tasks.setdefault(name, expert)
            if first.task != expert.task:
                what = f"class {name!r} is of task {first.task} in {first.where}, but of task {expert.task} in"
                raise ExmlError(f"{what} {expert.where}: give one of them another name, or both the same task")
    return {name: expert.task for name, expert in tasks.items()}


def _bare(name: str) -> str:
    """What is left of a class name without case and separators; between digits, and before a number, they count."""
    name = re.sub(r"(?<=[^\W\d_])[\s_-]+|(?<![\s_-])[\s_-]+(?=[^\W\d_])", "", name.strip().casefold())
    return re.sub(r"(?<=\d)[\s_-]+(?=\d)", " ", name)
