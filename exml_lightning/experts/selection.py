"""A selection: experts of several folders, in an order that the user chose (docs/catalog.md)."""

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import yaml
from pydantic import AfterValidator, ConfigDict, TypeAdapter

from exml_lightning.core.errors import UNPRINTABLE, ExmlError, printable
from exml_lightning.experts.manifest import FILE_NAME, ExpertEntry, Manifest, check_experts, read_manifest
from exml_lightning.experts.origin import check_origin
from exml_lightning.experts.schema import FORMAT, STRICT, Digest, FileName, Whole, parse_document
from exml_lightning.files import folder_name, read_yaml, write_text

SUFFIXES = (".yaml", ".yml")
LONGEST_PATH = 4096
HEAD = """\
# The order of this list is the order of the stream: move lines, or delete them. Folders are relative to this file.
#   exml fit -c configs/from_folder.yaml --data.experts {name}
format: {version}
experts:
"""


def _path(value: str) -> str:
    if not 0 < len(value) <= LONGEST_PATH or UNPRINTABLE.search(value):
        raise ExmlError(f"{printable(value)!r} must be a path of 1 to {LONGEST_PATH} characters, no control characters")
    return value


@dataclass(frozen=True)
class _Line:
    """An expert by its folder and its number or file in it; without a hash, whatever weights the folder lists."""

    folder: Annotated[str, AfterValidator(_path)]
    expert: Whole | None = None
    file: FileName | None = None
    sha256: Digest | None = None

    def __post_init__(self) -> None:
        if (self.expert is None) == (self.file is None):
            raise ExmlError("give `expert`, its number in the folder, or `file`, and not both")


@dataclass(frozen=True)
class _Selection:
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    experts: tuple[_Line, ...]


ADAPTER = TypeAdapter(_Selection)


@dataclass(frozen=True)
class Choice(ExpertEntry):
    """An expert that was chosen: it knows its own folder, its place there, from 0, and its input."""

    folder: Path = Path()
    index: int = 0

    @property
    def where(self) -> str:
        """What to call it in an error."""
        return str(self.folder / self.file)

    def path(self, folder: Path) -> Path:
        """Return where its weights are, whatever list it is in."""
        return self.folder / self.file


def choose(folder: Path, manifest: Manifest, index: int) -> Choice:
    """Choose an expert of a folder."""
    entry = manifest.experts[index]
    return Choice(**{**vars(entry), "input": entry.input or manifest.input}, folder=folder, index=index)


def is_selection(experts: Path) -> bool:
    """Whether a path is that of a selection, not of a folder of experts; a file need not be there."""
    return experts.is_file() or (experts.suffix in SUFFIXES and not experts.is_dir())


def list_file(experts: Path) -> Path:
    """Return the file that lists the experts: a selection itself, the manifest of a folder."""
    return experts if is_selection(experts) else experts / FILE_NAME


def read_experts(experts: Path) -> Manifest:
    """Read a folder of experts, or a selection; see `read_manifest` and `read_selection`."""
    return read_selection(experts) if is_selection(experts) else read_manifest(experts)


def read_selection(path: Path) -> Manifest:
    """Read a selection, and the manifests of the folders that it names; weights are not looked at.

    The stream is named after the file; see `unite`. Raises `ExmlError`, which names file and key, if it is missing or
    broken, an expert is not where it says or has other weights than it says, or they cannot be one stream.
    """
    if not path.exists():
        raise ExmlError(f"{path} is missing: write a selection with `exml catalog DIR... --output {path}`")
    try:
        raw = read_yaml(path)
    except ExmlError as error:
        raise ExmlError(f"{error}; give a folder of experts, or a selection of some, which is YAML") from error
    try:
        if isinstance(raw, dict) and "class_names" in raw:
            raise ExmlError(f"this is the manifest of a folder of experts: give the folder, {path.parent}")
        lines = parse_document(ADAPTER, raw).experts
        manifests: dict[Path, Manifest] = {}
        chosen = [_look_up(line, f"experts[{i}]", path.parent, manifests) for i, line in enumerate(lines)]
        return unite(folder_name(path.stem, "the name of the file"), chosen)
    except ExmlError as error:
        raise ExmlError(f"{path}: {error}") from error


def _look_up(line: _Line, where: str, base: Path, manifests: dict[Path, Manifest]) -> Choice:
    folder = base / line.folder
    if not folder.is_dir():
        what = f"{where}.folder: {folder} is not there (paths are relative to the selection)"
        raise ExmlError(f"{what}: correct it, or delete the line")
    try:
        manifest = manifests[folder] if folder in manifests else manifests.setdefault(folder, read_manifest(folder))
    except ExmlError as error:
        raise ExmlError(f"{where}: {error}") from error
    found = [i for i, entry in enumerate(manifest.experts) if line.expert == i or line.file == entry.file]
    if not found and line.file is None:
        last = len(manifest.experts) - 1
        raise ExmlError(f"{where}.expert is {line.expert}, but {folder / FILE_NAME} has experts 0 to {last}")
    if len(found) != 1:
        what = "several experts have it, one a task" if found else "no expert of the folder has it"
        raise ExmlError(f"{where}.file {line.file!r}: {what}: give `expert`, the number, as `exml catalog` shows it")
    chosen = choose(folder, manifest, found[0])
    if line.sha256 not in (None, chosen.sha256):
        what = f"{where}: expert {chosen.index} of {folder} has other weights (sha256) than when it was selected"
        raise ExmlError(f"{what}: bring them back, or delete the line and select the expert anew (`exml catalog`)")
    return chosen


def unite(name: str, chosen: Sequence[Choice]) -> Manifest:
    """Make one manifest, called `name`, of experts of several folders, in the order of the stream.

    Classes are matched by their names, in the order in which experts bring them; the images are those of the first
    expert. Raises `ExmlError` if there is none, one is there twice, or they cannot be one stream.
    """
    if not chosen:
        raise ExmlError("experts is empty: an ex-model learns from one or more")
    places: dict[tuple[str, int], str] = {}
    for i, choice in enumerate(chosen):
        here = f"experts[{i}] ({choice.folder}, expert {choice.index})"
        first = places.setdefault((choice.identity, choice.task), here)
        if first != here:
            raise ExmlError(f"{first} and {here} are the same expert (sha256): leave one of them out")
    for class_path in {choice.architecture.class_path for choice in chosen}:
        for folder in {choice.folder for choice in chosen}:
            check_origin(class_path, folder)
    check_experts(chosen)
    names = tuple(dict.fromkeys(name for choice in chosen for name in choice.classes))
    stream = chosen[0].input
    assert stream is not None  # `choose` gives each its own
    experts = [replace(choice, input=None if choice.input == stream else choice.input) for choice in chosen]
    return Manifest(name, None, names, stream, tuple(experts))


def write_selection(path: Path, chosen: Sequence[Choice]) -> None:
    """Write a selection, a line an expert in the order of the stream, with paths relative to it."""
    lines = []
    for choice in chosen:
        try:  # links are followed first: `..` behind one leads elsewhere
            folder = os.path.relpath(choice.folder.resolve(), path.parent.resolve())
        except ValueError:  # another drive (Windows)
            folder = str(choice.folder.resolve())
        line = {"folder": _path(Path(folder).as_posix()), "expert": choice.index, "sha256": choice.sha256}
        words = yaml.safe_dump(line, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True)
        known = " ".join(choice.classes[:5]) + (" ..." if len(choice.classes) > 5 else "")
        lines.append(f"- {words.strip()}  # {_comment(known[:60])}\n")
    write_text(path, HEAD.format(name=_comment(shlex.quote(path.name)), version=FORMAT) + "".join(lines))


def _comment(words: str) -> str:
    """Leave out what YAML does not read, not even in a comment."""
    return "".join(letter if letter.isprintable() else "?" for letter in words)
