"""`manifest.yaml`: what a folder of experts says about each of them (docs/manifest.md)."""

import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from exml_lightning.core.errors import ExmlError, shown
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts import fields as check
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.consistency import check_experts
from exml_lightning.experts.origin import check_origin
from exml_lightning.files import folder_name, read_yaml, text, write_text

FILE_NAME = "manifest.yaml"
FORMAT = 1


@dataclass(frozen=True)
class PrivacySpent:
    """The differential privacy of an expert towards each of its training images (docs/privacy.md).

    Args:
        epsilon: 0 or more.
        delta: 0 to 1.
    """

    epsilon: float
    delta: float


@dataclass(frozen=True)
class ExpertEntry:
    """One expert of a folder.

    Args:
        file: Its weights, a file of the same folder: safetensors or a ``weights_only`` state dict.
        sha256: Hash of that file, in hexadecimal.
        architecture: How to build the network.
        classes: Names of the classes it knows.
        outputs: The output unit of each of `classes`.
        task: Task label.
        input: The images it expects, where they are not those of the stream.
        classifier: Dotted name of its last linear layer within the network; None if unknown.
        accuracy: On its own classes, a fraction; None if unknown.
        training: How it was trained, for people and to tell whether to train it again.
        privacy: What training it has spent; None if nothing is known of its privacy.
        license: What may be done with it: an SPDX identifier, or a few words; None if it is not stated.
    """

    file: str
    sha256: str
    architecture: Architecture
    classes: tuple[str, ...]
    outputs: tuple[int, ...]
    task: int = 0
    input: ImageFormat | None = None
    classifier: str | None = None
    accuracy: float | None = None
    training: dict[str, Any] = field(default_factory=dict)
    privacy: PrivacySpent | None = None
    license: str | None = None

    @property
    def where(self) -> str:
        """What to call it in an error."""
        return self.file

    def path(self, folder: Path) -> Path:
        """Return where its weights are.

        Args:
            folder: That of the manifest.
        """
        return folder / self.file


@dataclass(frozen=True)
class Manifest:
    """What is known about a stream of experts.

    Args:
        scenario: Name of the scenario.
        run: The run, 0 to 4; None where it has no meaning.
        class_names: All classes of the stream; the place of a name is its class index.
        input: The images of the stream: those that the ex-model takes, and every expert that names no others.
        experts: The experts, in the order of the stream.

    Example:
        >>> from exml_lightning import Manifest, read_manifest
        >>> manifest: Manifest = read_manifest("checkpoints/split_digits/run0")
        >>> manifest.scenario, manifest.run, manifest.classes_of(0)
        ('split_digits', 0, [5, 4])
    """

    scenario: str
    run: int | None
    class_names: tuple[str, ...]
    input: ImageFormat
    experts: tuple[ExpertEntry, ...] = ()

    def classes_of(self, index: int) -> list[int]:
        """Return the class indices that an expert knows, in the order of its outputs."""
        places = {name: place for place, name in enumerate(self.class_names)}
        return [places[name] for name in self.experts[index].classes]


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest.yaml`` into a folder, replacing the one there in one step."""
    text = yaml.safe_dump(
        {"format": FORMAT, **_plain(asdict(manifest))}, sort_keys=False, width=110, default_flow_style=None
    )
    write_text(folder / FILE_NAME, text)


def check_manifest(manifest: Manifest) -> None:
    """Refuse what `read_manifest` would refuse to read back.

    Args:
        manifest: What is to be written.

    Raises:
        ExmlError: Names the key.
    """
    _parse({"format": FORMAT, **_plain(asdict(manifest))})


def read_manifest(folder: str | Path) -> Manifest:
    """Read and check ``manifest.yaml``. The weights are not looked at, and nothing that it names is imported.

    Args:
        folder: A folder of experts.

    Returns:
        The manifest.

    Raises:
        ExmlError: If the file is missing or anything in it is not as it should be; names the file and the key.

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
    raw = read_yaml(path)
    try:
        manifest = _parse(raw)
        for class_path in sorted({expert.architecture.class_path for expert in manifest.experts}):
            check_origin(class_path, folder)
    except ExmlError as error:
        raise ExmlError(f"{path}: {error}") from error
    return manifest


def _parse(raw: object) -> Manifest:
    values = check.mapping(raw, "the file")
    if values.pop("format", None) != FORMAT:
        raise ExmlError(f"format must be {FORMAT}")
    check.only(values, [f.name for f in fields(Manifest)], "the file")
    manifest = Manifest(
        scenario=folder_name(check.need(values, "scenario"), "scenario"),
        run=None if values.get("run") is None else check.whole(values["run"], "run"),
        class_names=check.names(check.need(values, "class_names"), "class_names"),
        input=check.image_format(check.need(values, "input"), "input"),
        experts=tuple(
            _parse_expert(entry, f"experts[{i}]")
            for i, entry in enumerate(check.items(check.need(values, "experts"), "experts"))
        ),
    )
    if not manifest.experts:
        raise ExmlError("experts is empty")
    known = set(manifest.class_names)
    for i, expert in enumerate(manifest.experts):
        unknown = [name for name in expert.classes if name not in known]
        if unknown:
            raise ExmlError(
                f"experts[{i}].classes: [{shown(unknown)}] is not in class_names [{shown(manifest.class_names)}]"
            )
    check_experts(manifest.experts)
    return manifest


def _parse_expert(raw: object, where: str) -> ExpertEntry:
    values = check.mapping(raw, where)
    check.only(values, [f.name for f in fields(ExpertEntry)], where)
    classes = check.names(check.need(values, "classes", where), f"{where}.classes")
    units = check.items(check.need(values, "outputs", where), f"{where}.outputs")
    outputs = tuple(check.whole(unit, f"{where}.outputs") for unit in units)
    if not classes:
        raise ExmlError(f"{where}.classes is empty: an expert must know a class")
    if len(outputs) != len(classes) or len(set(outputs)) != len(outputs):
        raise ExmlError(f"{where}.outputs must name one output unit of its own for each of its {len(classes)} classes")
    classifier, accuracy, licence = (values.get(key) for key in ("classifier", "accuracy", "license"))
    return ExpertEntry(
        file=check.file_name(check.need(values, "file", where), f"{where}.file"),
        sha256=check.digest(check.need(values, "sha256", where), f"{where}.sha256"),
        architecture=_architecture(check.need(values, "architecture", where), f"{where}.architecture"),
        classes=classes,
        outputs=outputs,
        task=check.whole(values.get("task", 0), f"{where}.task", -check.MAX_WHOLE),
        input=None if values.get("input") is None else check.image_format(values["input"], f"{where}.input"),
        classifier=None if classifier is None else text(classifier, f"{where}.classifier"),
        accuracy=None if accuracy is None else check.number(accuracy, f"{where}.accuracy", 0, 1),
        training=_arguments(values.get("training"), f"{where}.training"),
        privacy=None if values.get("privacy") is None else _privacy(values["privacy"], f"{where}.privacy"),
        license=None if licence is None else text(licence, f"{where}.license"),
    )


def _privacy(raw: object, where: str) -> PrivacySpent:
    values = check.mapping(raw, where)
    check.only(values, [f.name for f in fields(PrivacySpent)], where)
    return PrivacySpent(
        check.number(check.need(values, "epsilon", where), f"{where}.epsilon", 0, math.inf),
        check.number(check.need(values, "delta", where), f"{where}.delta", 0, 1),
    )


def _architecture(raw: object, where: str) -> Architecture:
    values = check.mapping(raw, where)
    check.only(values, ["class_path", "init_args"], where)
    class_path = text(check.need(values, "class_path", where), f"{where}.class_path")
    if not all(part.isidentifier() for part in class_path.split(".")):
        raise ExmlError(f"{where}.class_path is {class_path!r}: give the dotted path of an nn.Module class")
    init_args = _arguments(values.get("init_args"), f"{where}.init_args")
    if "trust_remote_code" in repr(init_args):
        raise ExmlError(f"{where}.init_args: trust_remote_code would run code that comes with weights: leave it out")
    return Architecture(class_path, init_args)


def _arguments(raw: object, where: str) -> dict[str, Any]:
    return {} if raw is None else check.mapping(check.plain(raw, where), where)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
