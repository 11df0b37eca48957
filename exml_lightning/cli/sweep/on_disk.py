"""What is on disk of a sweep: the figures of its cells, their settings, experts. It keeps no state of its own."""

import json
from typing import Any

from exml_lightning.cli.sweep.grid import Job, flatten, said
from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.manifest import FILE_NAME, read_manifest
from exml_lightning.files import read_yaml

COUNT = ("data.", "model.", "buffer.", "baseline.", "trainer.precision", "trainer.max_", "trainer.limit_")
"""Settings that can change the figures of a cell, but for `PLACES`."""
PLACES = (
    "data.root",
    "data.experts",
    "data.download",
    "data.eval_batch_size",
    "buffer.cache",
    "buffer.name",
    "model.compile",
)


def is_finished(cell: Job) -> bool:
    """Whether the run folder holds the figures of the whole stream, and the ex-model, if there is to be one.

    Raises:
        ExmlError: If it does, but its ``config.yaml`` says other settings than the cell.
    """
    figures = figures_of(cell)
    if cell.words[0] == "fit":
        if not (cell.folder / "ex_model" / FILE_NAME).is_file():
            return False
        asked, experts = cell.settings.get("trainer.max_epochs", -1), figures.get("experts", 0)
        if figures.get("experiences_learned", -1) < (experts if asked in (None, -1) else min(asked, experts)):
            return False
    if figures and (cell.folder / "config.yaml").is_file():
        _check_settings(cell)
    return bool(figures)


def _check_settings(cell: Job) -> None:
    """Compare what the cell's files and options say with the whole configuration that it was finished with."""
    config = read_yaml(cell.folder / "config.yaml")
    before = flatten(config) if isinstance(config, dict) else {}
    differing = [
        f"{key} was {said(before[key])}, now {said(value)}"
        for key, value in sorted(cell.settings.items())
        if key in before and key.startswith(COUNT) and key not in PLACES and _plain(value) != _plain(before[key])
    ]
    if differing:
        raise ExmlError(
            f"{cell.folder} was finished with other settings: {'; '.join(differing)}; delete it, or name another "
            "folder with --output"
        )


def _plain(value: object) -> object:
    """Write the same alike: 10 as 10.0 or as text, a class by its own name as by its whole path."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return value.rpartition(".")[2] if isinstance(value, str) else value


def figures_of(cell: Job) -> dict[str, Any]:
    """Return what a cell has written into ``summary.json`` or ``test.json`` so far; nothing if it is not whole."""
    name = "test.json" if cell.words[0] == "test" else "summary.json"
    try:
        values = json.loads((cell.folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def accuracy_of(cell: Job) -> float | None:
    """Return the stream accuracy, or without a data set the agreement with the experts; in per cent."""
    figures = figures_of(cell)
    value = figures.get("stream_accuracy", figures.get("agreement"))
    return 100 * value if isinstance(value, float) else None


def has_experts(training: Job) -> bool:
    """Whether experts are trained; `exml experts` keeps ``training/`` until it is done.

    Raises:
        ExmlError: If they are, but otherwise than ``--set`` asks for.
    """
    folder = training.folder
    if not (folder / FILE_NAME).is_file() or (folder / "training").exists():
        return False
    asked = {key: value for key, value in training.settings.items() if key.startswith("experts.")}
    for expert in read_manifest(folder).experts if asked else ():
        for key, value in asked.items():
            before = expert.training.get(key.removeprefix("experts."), value)
            if before != value:
                raise ExmlError(
                    f"{folder}: the experts were trained with {key} {said(before)}, but {said(value)} is asked for: "
                    f"delete {folder}, or copy the scenario's YAML under another data.scenario.name"
                )
    return True
