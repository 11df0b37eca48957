"""Nested settings as flat ones."""

from collections.abc import Mapping
from typing import Any


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
