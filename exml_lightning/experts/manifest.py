"""`manifest.yaml`: what a folder of experts says about each of them (docs/manifest.md)."""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import yaml

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.core.images import ImageFormat
from exml_lightning.files import write_text
from exml_lightning.models.architecture import Architecture

T = TypeVar("T")
FILE_NAME = "manifest.yaml"
FORMAT = 1


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


@dataclass(frozen=True)
class Manifest:
    """What is known about a stream of experts.

    Args:
        scenario: Name of the scenario.
        run: The run, 0 to 4; None where it has no meaning.
        class_names: All classes of the stream; the place of a name is its class index.
        input: The images of the stream: those that the ex-model takes, and every expert that names no others.
        experts: The experts, in the order of the stream.
    """

    scenario: str
    run: int | None
    class_names: tuple[str, ...]
    input: ImageFormat
    experts: tuple[ExpertEntry, ...] = ()

    def classes_of(self, index: int) -> list[int]:
        """Return the class indices that an expert knows, in the order of its outputs."""
        return [self.class_names.index(name) for name in self.experts[index].classes]


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Write ``manifest.yaml`` into a folder, replacing the one there in one step."""
    text = yaml.safe_dump(
        {"format": FORMAT, **_plain(asdict(manifest))}, sort_keys=False, width=110, default_flow_style=None
    )
    write_text(folder / FILE_NAME, text)


def read_manifest(folder: Path) -> Manifest:
    """Read and check ``manifest.yaml``. The weights are not looked at.

    Args:
        folder: A folder of experts.

    Returns:
        The manifest.

    Raises:
        ExmlError: If the file is missing or anything in it is not as it should be; names the file and the key.
    """
    path = folder / FILE_NAME
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ExmlError(f"{path} is missing: there are no experts in this folder") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ExmlError(f"{path} is not YAML: {one_line(error)}") from error
    try:
        return _parse(raw)
    except (ExmlError, TypeError, ValueError) as error:
        raise ExmlError(f"{path}: {error}") from error


def _parse(raw: object) -> Manifest:
    values = _mapping(raw, "the file")
    if values.pop("format", None) != FORMAT:
        raise ExmlError(f"format must be {FORMAT}")
    _only(values, [f.name for f in fields(Manifest)], "the file")
    manifest = Manifest(
        scenario=str(_need(values, "scenario")),
        run=_optional(values, "run", int, "the file"),
        class_names=_names(_need(values, "class_names"), "class_names"),
        input=_image_format(_need(values, "input"), "input"),
        experts=tuple(
            _parse_expert(entry, f"experts[{i}]") for i, entry in enumerate(_list(_need(values, "experts"), "experts"))
        ),
    )
    if not manifest.experts:
        raise ExmlError("experts is empty")
    for i, expert in enumerate(manifest.experts):
        unknown = [name for name in expert.classes if name not in manifest.class_names]
        if unknown:
            raise ExmlError(f"experts[{i}].classes: {unknown} is not in class_names {list(manifest.class_names)}")
    check_experts(manifest.experts)
    return manifest


def check_experts(experts: Sequence[ExpertEntry]) -> None:
    """Refuse experts that give one class two names or two tasks, or that say two things of the same weights.

    Names that differ only in case, spaces, ``-`` or ``_`` are one class, unless an expert knows both of them.

    Args:
        experts: The experts of a stream.

    Raises:
        ExmlError: Names the classes, the files and the remedy.
    """
    tasks_of(experts)
    known: dict[str, str] = {}
    for name in dict.fromkeys(name for expert in experts for name in expert.classes):
        other = known.setdefault(_bare(name), name)
        if other != name and not any({name, other} <= set(expert.classes) for expert in experts):
            raise ExmlError(
                f"one class has two names: {other!r} in {_files(experts, other)}, {name!r} in {_files(experts, name)}; "
                "give it one name (or, if they are two classes, names that differ in more than case, spaces, - and _)"
            )
    for i, expert in enumerate(experts):
        for other_expert in experts[:i]:
            if (expert.sha256, expert.task) != (other_expert.sha256, other_expert.task):
                continue
            if dict(zip(expert.outputs, expert.classes, strict=True)) != dict(
                zip(other_expert.outputs, other_expert.classes, strict=True)
            ):
                raise ExmlError(
                    f"{other_expert.file} and {expert.file} hold the same weights (sha256) but are said to know "
                    f"{list(other_expert.classes)} and {list(expert.classes)}: correct one of them, or give them "
                    "different tasks if each is a head of a multi-task model"
                )


def tasks_of(experts: Sequence[ExpertEntry]) -> dict[str, int]:
    """Return the task of each class.

    Args:
        experts: The experts of a stream.

    Returns:
        Tasks by class name.

    Raises:
        ExmlError: If a class belongs to two tasks, or a task is less than 0.
    """
    tasks: dict[str, ExpertEntry] = {}
    for expert in experts:
        if expert.task < 0:
            raise ExmlError(f"{expert.file} has task {expert.task}: give 0 or more")
        for name in expert.classes:
            first = tasks.setdefault(name, expert)
            if first.task != expert.task:
                raise ExmlError(
                    f"class {name!r} is of task {first.task} in {first.file}, but of task {expert.task} in "
                    f"{expert.file}: give one of them another name, or both the same task"
                )
    return {name: expert.task for name, expert in tasks.items()}


def _bare(name: str) -> str:
    """What is left of a class name without case and separators; between digits, and before a number, they count."""
    name = re.sub(r"(?<=[^\W\d_])[\s_-]+|[\s_-]+(?=[^\W\d_])", "", name.strip().casefold())
    return re.sub(r"(?<=\d)[\s_-]+(?=\d)", " ", name)


def _files(experts: Sequence[ExpertEntry], name: str) -> str:
    return ", ".join(dict.fromkeys(expert.file for expert in experts if name in expert.classes))


def _parse_expert(raw: object, where: str) -> ExpertEntry:
    values = _mapping(raw, where)
    _only(values, [f.name for f in fields(ExpertEntry)], where)
    architecture = _mapping(_need(values, "architecture", where), f"{where}.architecture")
    _only(architecture, ["class_path", "init_args"], f"{where}.architecture")
    classes = _names(_need(values, "classes", where), f"{where}.classes")
    outputs = tuple(int(unit) for unit in _list(_need(values, "outputs", where), f"{where}.outputs"))
    if not classes:
        raise ExmlError(f"{where}.classes is empty: an expert must know a class")
    if len(outputs) != len(classes) or len(set(outputs)) != len(outputs) or min(outputs) < 0:
        raise ExmlError(f"{where}.outputs must name one output unit of its own for each of its {len(classes)} classes")
    file = str(_need(values, "file", where))
    if Path(file).name != file:
        raise ExmlError(f"{where}.file {file!r} must be a file of the same folder, without a path")
    return ExpertEntry(
        file=file,
        sha256=str(_need(values, "sha256", where)),
        architecture=Architecture(
            str(_need(architecture, "class_path", f"{where}.architecture")),
            _mapping(architecture.get("init_args") or {}, f"{where}.architecture.init_args"),
        ),
        classes=classes,
        outputs=outputs,
        task=int(values.get("task", 0)),
        input=None if values.get("input") is None else _image_format(values["input"], f"{where}.input"),
        classifier=_optional(values, "classifier", str, where),
        accuracy=_optional(values, "accuracy", float, where),
        training=_mapping(values.get("training") or {}, f"{where}.training"),
    )


def _need(values: dict[str, Any], key: str, where: str = "") -> Any:
    if key not in values:
        raise ExmlError(f"{where + '.' if where else ''}{key} is missing")
    return values[key]


def _only(values: dict[str, Any], keys: Sequence[str], where: str) -> None:
    unknown = [key for key in values if key not in keys]
    if unknown:
        raise ExmlError(f"{where} has unknown keys {unknown}; it takes {list(keys)}")


def _optional(values: dict[str, Any], key: str, kind: type[T], where: str) -> T | None:
    value = values.get(key)
    if value is not None and not isinstance(value, kind):
        raise ExmlError(f"{where}: {key} must be of type {kind.__name__}, or null")
    return value


def _mapping(value: object, where: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ExmlError(f"{where} must be a mapping")
    return dict(value)


def _list(value: object, where: str) -> list[Any]:
    if not isinstance(value, list):
        raise ExmlError(f"{where} must be a list")
    return value


def _names(value: object, where: str) -> tuple[str, ...]:
    names = tuple(str(name) for name in _list(value, where))
    if len(set(names)) != len(names):
        raise ExmlError(f"{where} names a class twice")
    return names


def _numbers(value: object, where: str) -> tuple[float, ...]:
    return tuple(float(number) for number in _list(value, where))


def _image_format(value: object, where: str) -> ImageFormat:
    values = _mapping(value, where)
    _only(values, [f.name for f in fields(ImageFormat)], where)
    sizes = [int(size) for size in _list(_need(values, "shape", where), f"{where}.shape")]
    if len(sizes) != 3:
        raise ExmlError(f"{where}.shape must be [channels, height, width]")
    return ImageFormat(
        (sizes[0], sizes[1], sizes[2]),
        _numbers(_need(values, "mean", where), f"{where}.mean"),
        _numbers(_need(values, "std", where), f"{where}.std"),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
