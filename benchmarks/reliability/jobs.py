"""The small jobs that are killed, starved of disk and repeated: a fit, a training of experts, a generating."""

import csv
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file

ROOT = Path(__file__).parent.parent.parent
EXPERTS = ROOT / "checkpoints" / "split_digits" / "run0"
SCENARIO = ROOT / "configs" / "split_digits.yaml"

Outcome = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """A command that works below one folder.

    Args:
        verb: The verb of the command.
        settings: The configuration, for a folder to work below.
        outcome: What must not depend on interruptions, for that folder.
    """

    verb: str
    settings: Callable[[Path], dict[str, Any]]
    outcome: Callable[[Path], Outcome]

    def arguments(self, folder: Path) -> list[str]:
        """Return the words after ``exml``; writes their configuration into the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "job.yaml"
        path.write_text(yaml.safe_dump(self.settings(folder)), encoding="utf-8")
        return [self.verb, "-c", str(SCENARIO), "-c", str(path)]


def fit(n_iter: int = 6, generator_steps: int = 3, **changes: dict[str, Any]) -> Job:
    """Learn two of the shipped experts, with a checkpoint every second step.

    Args:
        n_iter: Optimiser steps an expert.
        generator_steps: Steps of model inversion.
        changes: More settings, by group.
    """

    def settings(folder: Path) -> dict[str, Any]:
        groups: dict[str, dict[str, Any]] = {
            "trainer": {
                "accelerator": "cpu",
                "max_epochs": 2,
                "default_root_dir": str(folder / "run"),
                "enable_progress_bar": False,
                "log_every_n_steps": 2,
            },
            "data": {"n_iter": n_iter, "batch_size": 8, "experts": str(EXPERTS)},
            "buffer": {
                "size": 12,
                "generator": {"class_path": "ModelInversion", "init_args": {"steps": generator_steps}},
                "cache": str(folder / "cache"),
            },
            "checkpoint": {"every_n_steps": 2},
        }
        return {name: {**groups.get(name, {}), **changes.get(name, {})} for name in {**groups, **changes}}

    return Job("fit", settings, lambda folder: fit_outcome(folder / "run"))


def fit_outcome(run: Path) -> Outcome:
    """Return a run's ex-model, its accuracy matrix and the measured part of its summary."""
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return {
        "weights": (run / "ex_model" / "expert_0.safetensors").read_bytes(),
        "manifest": (run / "ex_model" / "manifest.yaml").read_text(encoding="utf-8"),
        "accuracy matrix": (run / "accuracy_matrix.csv").read_text(encoding="utf-8"),
        "summary": {key: value for key, value in summary.items() if not key.startswith(("seconds", "peak", "command"))},
    }


def metric_rows(run: Path) -> list[str]:
    """Return the rows of ``metrics.csv``, whatever the order of its columns."""
    with (run / "metrics.csv").open(newline="", encoding="utf-8") as file:
        return [str(sorted((k, v) for k, v in row.items() if v)) for row in csv.DictReader(file)]


def _files(folder: Path) -> Outcome:
    """Return the content of files; of safetensors their tensors, since their metadata are in no order."""
    content: Outcome = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".safetensors":
            content[path.name] = {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}
        elif path.is_file():
            content[path.name] = path.read_bytes()
    return content


def train_experts() -> Job:
    """Train two experts for two epochs."""

    def settings(folder: Path) -> dict[str, Any]:
        return {
            "trainer": {"accelerator": "cpu", "max_epochs": 2, "enable_progress_bar": False},
            "data": {"experts": str(folder / "experts")},
            "experts": {"epochs": 2},
        }

    return Job("experts", settings, lambda folder: _files(folder / "experts"))


def generate() -> Job:
    """Generate a few images from two experts."""

    def settings(folder: Path) -> dict[str, Any]:
        return {
            "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
            "data": {"experts": str(EXPERTS)},
            "buffer": {
                "size": 12,
                "generator": {"class_path": "ModelInversion", "init_args": {"steps": 3}},
                "cache": str(folder / "cache"),
            },
            "generate": {"folder": str(folder / "generated")},
        }

    return Job("generate", settings, lambda folder: _files(folder / "generated"))


def command(arguments: list[str]) -> list[str]:
    """Return the real command."""
    return [sys.executable, "-m", "exml_lightning", *arguments]


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of a real command: one thread, temporary files below a folder."""
    (folder / "tmp").mkdir(parents=True, exist_ok=True)
    return {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder / "tmp")}
