"""Files: written whole or not at all, and by one process at a time; those of strangers read within bounds."""

import argparse
import errno
import hashlib
import os
import re
import secrets
import stat
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import yaml
from safetensors import SafetensorError

from exml_lightning.core.errors import UNPRINTABLE, ExmlError, one_line, printable

MAX_LENGTH = 256
"""Characters of a name."""


class NotWrittenError(ExmlError):
    """A file cannot be written, for instance to a full disk.

    `what` says so without advice, for work that goes on without the file.
    """

    def __init__(self, path: Path, reason: str) -> None:
        self.what = f"{path} cannot be written ({reason})"
        super().__init__(
            f"{self.what}: make room there or allow it, then give the same command again; "
            "files written before are whole"
        )


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name in the same folder, flush it to disk, then give it its name.

    The folder is made where it is missing. An existing file is replaced in one step; a link stays, and what it leads to
    is replaced.

    Raises:
        NotWrittenError: If it cannot be, or a pipe or a device is in its place; an existing file stays as it was.
    """
    path = path.resolve() if path.is_symlink() else path
    if path.exists() and not path.is_file():
        raise NotWrittenError(path, "it is no regular file")
    part = path.with_name(f".{secrets.token_hex(4)}.part.{path.name}")  # another host may have a process of our number
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            write(part)
            with part.open("rb") as file:
                os.fsync(file.fileno())
            part.chmod(0o644)  # some writers make files that only their owner can read
            part.replace(path)
            _flush_folder(path.parent)
        finally:
            part.unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise NotWrittenError(path, reason) from error


def _flush_folder(folder: Path) -> None:
    """Make sure that a new name in a folder outlives a power failure."""
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole; see `write_whole`."""
    write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))


def sha256(path: Path) -> str:
    """Hash a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def natural_order(name: str) -> list[str | int]:
    """Key that sorts ``expert_2`` before ``expert_10``."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def remove_parts(folder: Path, older_than: float = 0.0) -> None:
    """Remove what killed processes had begun to write.

    Where others may be writing, a file must not have changed for `older_than` seconds.
    """
    for part in folder.glob(".*.part.*"):
        try:
            if time.time() - part.stat().st_mtime >= older_than:
                part.unlink()
        except OSError:  # another process was faster, or nothing can be removed here: it does no harm
            continue


def check_folder(path: Path, key: str) -> None:
    """Raise `ExmlError`, naming its key, if a folder cannot be made or written to, before any work; makes nothing."""
    if why := _why_not_written(path):
        raise ExmlError(f"{path} cannot be written: {why}; name another folder with --{key} DIR")


def check_file(path: Path, key: str) -> None:
    """Raise `ExmlError`, naming its key, if a file cannot be written or replaced, before any work; makes nothing."""
    if os.path.isdir(path):  # noqa: PTH112 - as below
        raise ExmlError(f"{path} is a folder: name a file with --{key} FILE")
    is_other = os.path.exists(path) and not os.path.isfile(path)  # noqa: PTH110, PTH113 - as below
    if why := "it is no regular file" if is_other else _why_not_written(path.parent):
        raise ExmlError(f"{path} cannot be written: {why}; name another file with --{key} FILE")


def _why_not_written(folder: Path) -> str | None:
    place = folder
    while not os.path.exists(place) and place != place.parent:  # noqa: PTH110 - pathlib raises within a locked folder
        place = place.parent
    is_folder = os.path.isdir(place)  # noqa: PTH112 - as above
    if is_folder and os.access(place, os.W_OK | os.X_OK):
        return None
    return f"{place} {'may not be written to' if is_folder else 'is a file'}"


def check_regular(path: Path) -> None:
    """Raise `OSError` unless a path leads to a regular file; to be asked before it is opened.

    Links are followed. `FileNotFoundError` if there is nothing, else a pipe, a device, a folder, or a link to itself.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "it is no regular file", str(path))


ZIP = b"PK\x03\x04"
"""How torch tells its zip files from its older pickles."""


def load_torch_file(path: Path) -> object:
    """Read a file of `torch.save` with ``weights_only=True``: tensors, numbers, text and containers, on the CPU.

    Tensors of a zip file are mapped: those that are not looked at take no memory, and none reaches beyond the file,
    whatever sizes it claims.

    Raises:
        ExmlError: If its parts claim more bytes than the file has.
        Exception: Whatever torch raises for another file, or one that holds code.
    """
    import torch  # takes seconds, and manifests are listed without it

    check_regular(path)
    with path.open("rb") as file:
        mapped = file.read(len(ZIP)) == ZIP
    if mapped:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
        if any("/code/" in part.filename for part in parts):
            raise ExmlError(
                f"{path} is a program (TorchScript), which is not run: write its weights alone, by "
                f"torch.save(torch.jit.load({path.name!r}).state_dict(), 'weights.pt')"
            )
        packed = [part.filename for part in parts if part.compress_type != zipfile.ZIP_STORED]
        if packed or sum(part.file_size for part in parts) > path.stat().st_size:
            raise ExmlError(f"{path} claims to hold more than it does, as no file of torch.save does: it is not read")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old protocols and of sparse tensors, which are refused anyway
        with torch.serialization.safe_globals([argparse.Namespace]):  # plain attributes: the options of a training
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)


def reason(error: Exception) -> str:
    """Say in one line why a file cannot be read, without torch's advice how to run the code in it."""
    if isinstance(error, UnpicklingError):
        return "it is damaged, or holds code, which is not run"
    return printable(one_line(error), 200)


def is_dense(value: object) -> bool:
    """Whether it is a tensor with values in memory, one after the other: not sparse, quantised, nested or on meta."""
    import torch

    return (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and isinstance(value, torch.Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and not value.is_nested
    )


MAX_BYTES = 16 * 2**20
MAX_NODES = 1_000_000
"""Values of a document, those that aliases repeat counted each time."""
MAX_DEPTH = 64
MAX_NUMBER = 100
"""Characters of a number."""
PLAIN = {f"tag:yaml.org,2002:{kind}" for kind in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


_Safe: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there


class _Loader(_Safe):  # type: ignore[misc]
    """Reads dates as text, and whole numbers that are not written as people and JSON write them: 007, 1_000, 12:30."""

    yaml_implicit_resolvers = {
        first: [
            (tag, re.compile(r"[-+]?(0|[1-9][0-9]*)$") if tag.endswith(":int") else pattern)
            for tag, pattern in resolvers
            if not tag.endswith(":timestamp")
        ]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_yaml(path: Path) -> object:
    """Read a YAML file's one document: mappings, lists, text, numbers, true, false, null; dates as text.

    Anchors, aliases and merges are read; other tags than those of plain values are not.

    Raises:
        ExmlError: If it is missing, no regular file, or no such document, or if it is too large: its bytes, its values
            where aliases are written out, its nesting, its numbers. Names the file.
    """
    data = read_bytes(path)
    try:
        document = data.decode("utf-8")
        depth = 0
        for event in yaml.parse(document, Loader=_Safe):  # libyaml itself would nest without end
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH + 1:
                raise ExmlError(f"it is nested more than {MAX_DEPTH} deep: write it flat")
        loader = _Loader(document)
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except ExmlError as error:
        raise ExmlError(f"{path}: {error}") from error
    except Exception as error:  # the constructors raise almost anything
        raise ExmlError(f"{path} is not YAML: {one_line(error)[:300]}") from error


def read_bytes(path: Path) -> bytes:
    """Read a regular file; `ExmlError`, which names it, if it is missing, no regular file, or larger than 16 MB."""
    try:
        check_regular(path)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ExmlError(f"{path} is missing") from error
    except OSError as error:
        raise ExmlError(f"{path} cannot be read ({error.strerror})") from error
    if len(data) > MAX_BYTES:
        raise ExmlError(f"{path} has more than {MAX_BYTES // 2**20} MB: no such file needs as many")
    return data


def _measure(node: yaml.Node, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """Count the values of a node and the depth of them, aliases written out; refuse what is too much."""
    if id(node) in known:
        size = known[id(node)]
        if size is None:
            raise ExmlError("an alias stands within what it repeats: write the values out")
        return size
    known[id(node)] = None
    if node.tag not in PLAIN:
        raise ExmlError(f"line {node.start_mark.line + 1}: the tag {node.tag[:60]!r} is not read: write a plain value")
    count, depth = 1, 0
    if isinstance(node, yaml.ScalarNode):
        if not node.tag.endswith(":str") and len(node.value) > MAX_NUMBER:
            raise ExmlError(f"line {node.start_mark.line + 1}: a number of {len(node.value)} characters")
    else:
        children = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        for child in children:
            more, deeper = _measure(child, known)
            count, depth = count + more, max(depth, deeper + 1)
    if count > MAX_NODES:
        raise ExmlError(f"it has more than {MAX_NODES} values where aliases are written out")
    if depth > MAX_DEPTH:
        raise ExmlError(f"it is nested more than {MAX_DEPTH} deep: write it flat")
    known[id(node)] = count, depth
    return count, depth


def text(value: str, where: str) -> str:
    """Return text that is not empty, fits a line and has no control characters."""
    if not 0 < len(value) <= MAX_LENGTH or UNPRINTABLE.search(value):
        raise ExmlError(
            f"{where} is {value[:40]!r}: give 1 to {MAX_LENGTH} characters, none of them a control character"
        )
    return value


def folder_name(value: str, where: str) -> str:
    """Return the name of a stream, which names folders: it may have parts, but leads to no other place."""
    name = text(value, where)
    if "\\" in name or any(part in ("", ".", "..") or len(part.encode()) > 255 for part in name.split("/")):
        raise ExmlError(f"{where} {name!r} names folders of runs: give a name without '..' that begins with no '/'")
    return name
