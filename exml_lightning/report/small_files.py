"""Reading the small files of a run folder, which a stranger may have written: bounded, and of plain values only."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.files import check_regular
from exml_lightning.report.text import printable

MAX_BYTES = 16 * 2**20
MAX_YAML_BYTES = 2**20
MAX_DEPTH = 32
MAX_WHOLE = 10**15
"""The largest whole number: all below are floats, too."""
MAX_SCALAR = 100
"""Characters of a number in YAML: it reads some in quadratic time."""
REMEDY = "make the run again, or leave its folder out"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there


def broken(path: Path, why: str) -> ExmlError:
    """Return the error for a file of a run that cannot be used."""
    return ExmlError(f"{path} is broken ({printable(why)[:300]}): {REMEDY}")


def has_file(path: Path) -> bool:
    """Whether there is a regular file, and its folder may be read."""
    try:
        return path.is_file()
    except OSError:
        return False


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """Read a file of UTF-8.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        ExmlError: If it is missing, no regular file, too large, or no such text.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise broken(path, f"it has more than {most // 2**20} MB")
        return data.decode("utf-8")
    except FileNotFoundError as error:
        older = ": it is of an older version" if path.name == "config.yaml" else ""
        raise ExmlError(f"{path.parent} has no {path.name}{older}; {REMEDY}") from error
    except OSError as error:
        raise broken(path, error.strerror or one_line(error)) from error
    except UnicodeDecodeError as error:
        raise broken(path, one_line(error)) from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a mapping of plain values from JSON.

    Raises:
        ExmlError: As `read_text`, or if there is none, or it is nested too deep or has too large a whole number.
    """
    text = read_text(path)
    try:
        return _mapping(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise broken(path, one_line(error)) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a mapping of plain values from YAML as the package writes it: without tags and aliases.

    Raises:
        ExmlError: As `read_json`.
    """
    text = read_text(path, MAX_YAML_BYTES)
    try:
        _check_events(text)
        return _mapping(yaml.load(text, Loader=_LOADER))  # a safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise broken(path, one_line(error)) from error


def _check_events(text: str) -> None:
    """Look at what YAML says before anything is made of it: an alias can stand for any number of values."""
    events: Iterable[Any] = yaml.parse(text, Loader=_LOADER)
    depth = 0
    for event in events:
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            raise ValueError(f"line {event.start_mark.line + 1} has an alias or a tag")
        is_plain = isinstance(event, yaml.ScalarEvent) and event.implicit[0]
        if is_plain and event.value[:1] in set("+-.0123456789") and len(event.value) > MAX_SCALAR:
            raise ValueError(f"line {event.start_mark.line + 1} has a number of {len(event.value)} characters")


def _mapping(content: Any) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise ValueError("it holds no names and values")
    _check(content, 0)
    return content


def _check(value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
    if isinstance(value, dict):
        odd = next((key for key in value if not isinstance(key, str)), "")
        if odd != "":
            raise ValueError(f"its key {odd} is no text")
    elif isinstance(value, int) and abs(value) > MAX_WHOLE:
        raise ValueError(f"a whole number is larger than {MAX_WHOLE:.0e}")
    for entry in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check(entry, depth + 1)


def is_whole(value: Any, least: int = 0) -> TypeGuard[int]:
    """Whether a value is a whole number, and not below another."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def is_fraction(value: Any) -> TypeGuard[float]:
    """Whether a value is a number from 0 to 1."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
