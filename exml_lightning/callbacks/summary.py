"""What writes `summary.json` and `test.json`: accuracy on the parts of the test stream, costs, and their origin."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from exml_lightning.core import distributed, metrics
from exml_lightning.data import ExpertStream
from exml_lightning.experts import ExpertEntry
from exml_lightning.files import write_text
from exml_lightning.terminal import print_values

LONGEST = 20
"""Characters of a column's name that a table or a picture still has room for."""


def parts_of(stream: ExpertStream) -> tuple[list[int], list[int]]:
    """Return the size of each part of the test stream and the experience that brought it."""
    parts = stream.test_parts
    return [len(part.images) for part in parts], [part.first_seen for part in parts]


def part_names(stream: ExpertStream) -> list[str]:
    """Name the parts of the test stream by their classes; of many, by the first ones."""
    names = stream.scenario.dataset.class_names
    return [shortened([names[c] for c in part.images.labels.unique().tolist()]) for part in stream.test_parts]


def shortened(names: Sequence[str]) -> str:
    """Join names; of a line that would be too long, take the first ones and ``...``."""
    line = " ".join(names)
    cut = line[: LONGEST - 4]
    return line if len(line) <= LONGEST else f"{cut.rpartition(' ')[0] or cut} ..."


def accuracies(stream: ExpertStream, row: Sequence[float]) -> dict[str, Any]:
    """Return stream accuracy and accuracy per experience, as ``summary.json`` and ``test.json`` name them.

    `row` is the accuracy on each part of the test stream, fractions.
    """
    return {
        "stream_accuracy": metrics.stream_accuracy(row, parts_of(stream)[0]),
        "accuracy_per_experience": list(row),
    }


def write_test(
    path: Path,
    stream: ExpertStream,
    row: Sequence[float],
    device: torch.device,
    seconds: float,
    command: str,
    **more: str,
) -> None:
    """Write ``test.json``, of the accuracy on each part of the test stream, fractions.

    `seconds` is how long that took; `more` is ``baseline``, its name, if one was measured.
    """
    costs = {"peak_memory_mb": peak_memory_mb(device), "seconds_testing": seconds}
    write_summary(path, {**accuracies(stream, row), **costs}, stream, device, command, **more)


def print_accuracies(stream: ExpertStream, row: Sequence[float], title: str, always: bool = False) -> None:
    """Print accuracies, given as fractions, in per cent: on each part of the test stream and on the whole.

    `always`: also under `--quiet`.
    """
    values = {name: f"{100 * a:.2f} %" for name, a in zip(part_names(stream), row, strict=True)}
    whole = metrics.stream_accuracy(row, parts_of(stream)[0])
    print_values(title, {**values, "stream accuracy": f"{100 * whole:.2f} %"}, always)


def write_summary(
    path: Path, figures: Mapping[str, Any], stream: ExpertStream, device: torch.device, command: str, **more: Any
) -> None:
    """Write ``summary.json`` or ``test.json``: figures, what they cost and where they come from; `more` comes last."""
    content = {**figures, **origin(stream, device, command), **more}
    write_text(path, json.dumps(content, indent=2) + "\n")


def origin(stream: ExpertStream, device: torch.device, command: str) -> dict[str, Any]:
    """Return the command, the seed, the device and the experts of a run.

    By ``command``, ``seed``, ``device``, ``processes``, ``experts`` (how many are asked for), ``expert_training`` and
    ``expert_architecture`` (as their manifest says; None where that is not known of all, or not the same), and
    ``experts_digest``, which tells their weights from others'.
    """
    entries = stream.manifest.experts[: stream.num_experts]
    hashes = "".join(entry.sha256 for entry in entries)
    return {
        "command": command,
        "seed": stream.seed,
        "device": _name(device),
        "processes": distributed.world_size(),
        "experts": len(entries),
        "expert_training": _common([_without(entry.training, "seed", "initial") for entry in entries]),
        "expert_architecture": _common([_architecture(entry) for entry in entries]),
        "experts_digest": hashlib.sha256(hashes.encode()).hexdigest()[:8],
    }


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory of this process so far, in MB: allocated on a GPU, else resident (0 on Windows, which tells none)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    if sys.platform == "win32":
        return 0.0
    status = Path("/proc/self/status")
    # Linux counts the peak of the process that started this one into `ru_maxrss`.
    for line in status.read_text(encoding="utf-8").splitlines() if status.is_file() else []:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 2**10
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def _architecture(entry: ExpertEntry) -> dict[str, Any]:
    architecture = entry.architecture
    return {"class_path": architecture.class_path, "init_args": _without(architecture.init_args, "num_classes")}


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


def _common(found: list[dict[str, Any]]) -> dict[str, Any] | None:
    first, *others = found
    return first if first and all(other == first for other in others) else None


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'' if threads == 1 else 's'}"
