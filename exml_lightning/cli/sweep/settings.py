"""Settings as a sweep sees them: keys with dots, from configuration files and from the command line."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from exml_lightning.core.errors import ExmlError, one_line


def find_config(name: str, folders: Sequence[str], what: str) -> Path:
    """Find a configuration by its name, or by its path.

    Args:
        name: ``split_mnist``, or the path of a YAML file.
        folders: Where names are looked up, in the working directory.
        what: What to call it in an error.

    Raises:
        ExmlError: If there is none.
    """
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise ExmlError(f"{what} {name}: there is no such file")
        return Path(name)
    for folder in folders:
        if (path := Path(folder) / f"{name}.yaml").is_file():
            return path
    known = [path.stem for folder in folders for path in sorted(Path(folder).glob("*.yaml"))]
    close = difflib.get_close_matches(name, known, n=1)
    places = " and ".join(folders)
    if close:
        raise ExmlError(f"no {what} {name!r} in {places}: did you mean {close[0]}?")
    raise ExmlError(f"no {what} {name!r} in {places} of {Path.cwd()}: there are {', '.join(known) or 'none'}")


def read_settings(path: Path) -> dict[str, Any]:
    """Read a configuration file; see `flatten`.

    Raises:
        ExmlError: If it is no YAML mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ExmlError(f"{path} cannot be read: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise ExmlError(f"{path} must hold a mapping of settings")
    return flatten(values)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write nested settings with dots, without ``init_args``, which the command line can do without, too.

    >>> flatten({"buffer": {"generator": {"class_path": "Noise", "init_args": {"std": 2}}}})
    {'buffer.generator.class_path': 'Noise', 'buffer.generator.std': 2}
    """
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = prefix + str(key).replace(".init_args.", ".")
        if isinstance(value, dict) and value:
            flat |= flatten(value, prefix if key == "init_args" else f"{name}.")
        else:
            flat[name] = value
    return flat


def option(key: str, value: object) -> list[str]:
    """Return the words that give a setting on the command line."""
    return [f"--{key}", value if isinstance(value, str) else json.dumps(value)]


def said(value: object) -> str:
    """Return a value as it is said in names and messages."""
    return value if isinstance(value, str) else json.dumps(value)
