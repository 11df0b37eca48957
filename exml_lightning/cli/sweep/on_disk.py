"""What is on disk of a sweep: the figures of its cells, and experts. It keeps no state of its own."""

import itertools
from collections.abc import Mapping
from typing import Any

from exml_lightning.cli.flatten import flatten
from exml_lightning.cli.sweep.grid import Job
from exml_lightning.experts.manifest import FILE_NAME
from exml_lightning.files import read_yaml
from exml_lightning.report.runs import read_json
from exml_lightning.shipped import found_experts


def is_finished(cell: Job) -> bool:
    """Whether the run folder holds the figures of the whole stream, and the ex-model, if there is to be one.

    Where its ``config.yaml`` says otherwise than the cell it is not: `exml fit` tells whether that matters, and learns
    nothing where it does not.
    """
    figures, config = figures_of(cell), cell.folder / "config.yaml"
    if not figures or not config.is_file():
        return False
    if cell.words[0] == "fit":
        limit, experts = cell.settings.get("trainer.max_epochs", -1), figures.get("experts", 0)
        asked = experts if limit in (None, -1) else min(limit, experts)
        if figures.get("experiences_learned", -1) < asked or not (cell.folder / "ex_model" / FILE_NAME).is_file():
            return False
    values = read_yaml(config)
    before = flatten(values) if isinstance(values, dict) else {}
    return all(_says(before, key, value) for key, value in cell.settings.items())


def _says(before: Mapping[str, Any], key: str, value: object) -> bool:
    """Whether a ``config.yaml``, which has every default and whole paths of classes, agrees with a setting."""
    if isinstance(value, str):
        written = before.get(key, before.get(f"{key}.class_path"))
        if isinstance(written, str):
            return f".{written}".endswith(f".{value}")
    if isinstance(value, list) and isinstance(before.get(key), list):
        pairs = [(_keyed(old), _keyed(new)) for old, new in zip(before[key], value, strict=False)]
        return len(before[key]) == len(value) and all(_says(old, *one) for old, new in pairs for one in new.items())
    if key in before:
        return bool(before[key] == value)
    places = itertools.accumulate(key.split(".")[:-1], "{}.{}".format)
    return any(f"{place}.class_path" in before for place in places)  # of another class, which a later file has replaced


def _keyed(value: object) -> dict[str, Any]:
    return flatten(value if isinstance(value, dict) else {"": value})


def figures_of(cell: Job) -> dict[str, Any]:
    """Return what a cell has written into ``summary.json`` or ``test.json`` so far.

    Raises:
        ExmlError: If the file is broken.
    """
    path = cell.folder / ("test.json" if cell.words[0] == "test" else "summary.json")
    return read_json(path) if path.is_file() else {}


def accuracy_of(cell: Job) -> float | None:
    """Return the stream accuracy in per cent; None without labelled images, or as long as there is none."""
    value = figures_of(cell).get("stream_accuracy")
    return 100 * value if isinstance(value, float) else None


def has_experts(training: Job) -> bool:
    """Whether experts are trained, and it is not asked how: else `exml experts` goes on with them, or refuses them.

    It keeps ``training/`` until it is done.
    """
    if any(key.startswith("experts.") for key in training.settings):
        return False
    folder = found_experts(training.folder)
    return (folder / FILE_NAME).is_file() and not (folder / "training").exists()
