"""What is on disk already: finished cells, their settings, experts."""

import hashlib
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from exml_lightning.cli.sweep.grid import Job, matters
from exml_lightning.cli.sweep.settings import said
from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.selection import list_file
from exml_lightning.files import write_text
from exml_lightning.report.settings import IGNORED, TRAINER

MARK = "sweep.json"
FINISHED, BY_HAND, UNFINISHED, MISSING = "finished", "finished by hand", "unfinished", "missing"
CHECKED = ("data.skip_broken", "trainer.max_epochs", "trainer.max_steps", *(f"trainer.{key}" for key in TRAINER))
"""Settings that count, though `report.settings` says that their group changes no figure of a run."""


def state_of(cell: Job) -> str:
    """Say how far a cell is.

    Returns:
        ``finished`` under the same settings and of the same experts; ``finished by hand``: the command itself can tell
        whether it has anything to do; ``unfinished``; ``missing``.

    Raises:
        ExmlError: If it is finished under other settings.
    """
    if not is_finished(cell):
        return UNFINISHED if (cell.folder / "checkpoints").is_dir() else MISSING
    mark = _read_json(cell.folder / MARK)
    if mark is None:
        return BY_HAND
    then, now = _checked(cell, mark.get("settings", {})), _checked(cell, cell.settings)
    differing = []
    for key in sorted({*then, *now}):
        if then.get(key) != now.get(key):
            before, after = (said(values[key]) if key in values else "not given" for values in (then, now))
            differing.append(f"{key} was {before}, now {after}")
    if differing:
        raise ExmlError(
            f"{cell.folder} was finished with other settings: {'; '.join(differing)}; delete it, or name another "
            "folder with --output"
        )
    experts = _digest(cell.experts)
    return FINISHED if experts in (None, mark.get("experts")) else BY_HAND


def is_finished(cell: Job) -> bool:
    """Whether the run folder holds the figures of the whole stream, and the ex-model, if there is to be one."""
    if cell.verb == "test":
        return _read_json(cell.folder / "test.json") is not None
    summary = _read_json(cell.folder / "summary.json")
    if summary is None or not (cell.folder / "ex_model" / "manifest.yaml").is_file():
        return False
    asked = cell.settings.get("trainer.max_epochs", -1)
    experts = summary.get("experts", 0)
    learned = summary.get("experiences_learned", 0) + len(summary.get("experiences_skipped", []))
    return bool(experts) and learned >= (experts if asked in (None, -1) else min(asked, experts))


def mark_finished(cell: Job) -> None:
    """Note down what a cell was finished with, so that the next sweep need not ask."""
    mark = {
        "command": shlex.join(["exml", *cell.words]),
        "settings": _checked(cell, cell.settings),
        "experts": _digest(cell.experts),
    }
    write_text(cell.folder / MARK, json.dumps(mark, indent=2) + "\n")


def experts_are_there(folder: Path) -> bool:
    """Whether the experts of a folder are trained; `exml experts` keeps ``training/`` until it is done."""
    return (folder / "manifest.yaml").is_file() and not (folder / "training").exists()


def check_experts(training: Job) -> None:
    """Compare experts that are there with what ``--set`` asks for.

    Args:
        training: The job that would train them.

    Raises:
        ExmlError: If they were trained otherwise.
    """
    asked = {
        key.removeprefix("experts."): value for key, value in training.settings.items() if key.startswith("experts.")
    }
    path = training.folder / "manifest.yaml"
    try:
        experts = yaml.safe_load(path.read_text(encoding="utf-8"))["experts"]
        recipes = [expert.get("training") or {} for expert in experts]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return  # the command will say what is wrong with it
    for key, value in asked.items():
        for recipe in recipes:
            if key in recipe and recipe[key] != value:
                raise ExmlError(
                    f"{path}: the experts were trained with {key} {recipe[key]}, but experts.{key} {said(value)} is "
                    f"asked for: delete {training.folder}, or copy the scenario's YAML under another data.scenario.name"
                )


def figures_of(cell: Job) -> dict[str, Any] | None:
    """Return what a cell has written into ``summary.json`` or ``test.json`` so far."""
    return _read_json(cell.folder / ("test.json" if cell.verb == "test" else "summary.json"))


def accuracy_of(figures: dict[str, Any]) -> float | None:
    """Return the stream accuracy, or without a data set the agreement with the experts; a fraction."""
    value = figures.get("stream_accuracy", figures.get("agreement"))
    return value if isinstance(value, float) else None


def _checked(cell: Job, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return those settings that can change a figure of a cell."""
    baseline = cell.verb == "test"
    return {
        key: value
        for key, value in sorted(settings.items())
        if not _is_ignored(key) and (not baseline or matters(key, cell.strategy))
    }


def _is_ignored(key: str) -> bool:
    parts = key.split(".")
    names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
    return any(name in IGNORED for name in names) and not any(name in CHECKED for name in names)


def _digest(experts: Path) -> str | None:
    try:
        return hashlib.sha256(list_file(experts).read_bytes()).hexdigest()
    except OSError:
        return None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None
