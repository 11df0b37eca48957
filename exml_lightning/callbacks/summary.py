"""What writes `summary.json` and `test.json`: figures, what they cost, and where they come from."""

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from exml_lightning.callbacks.measured import Measured
from exml_lightning.core import distributed
from exml_lightning.data import ExpertStream
from exml_lightning.experts import ExpertEntry
from exml_lightning.files import write_text


def write_test(path: Path, measured: Measured, device: torch.device, seconds: float, command: str, **more: str) -> None:
    """Write ``test.json``, and the confusion matrix beside it.

    `seconds` is how long measuring took; `more` is ``baseline``, its name, if one was measured.
    """
    costs = {"peak_memory_mb": peak_memory_mb(device), "seconds_testing": seconds}
    write_summary(path, {**measured.figures(), **costs}, measured.stream, device, command, **more)
    measured.write_confusion(path.parent, "test_confusion_matrix")


def write_summary(
    path: Path, figures: Mapping[str, Any], stream: ExpertStream, device: torch.device, command: str, **more: Any
) -> None:
    """Write ``summary.json`` or ``test.json``: figures, what they cost and where they come from; `more` comes last."""
    content = {**figures, **origin(stream, device, command), **more}
    write_text(path, json.dumps(content, indent=2) + "\n")


def origin(stream: ExpertStream, device: torch.device, command: str) -> dict[str, Any]:
    """Return the command, the seed, the device and the experts of a run.

    By ``command``, ``seed``, ``device``, ``processes``, ``experts`` (how many are asked for), ``expert_training`` and
    ``expert_architecture`` (as their manifest says; None where that is not known of all, or not the same),
    ``expert_classes`` (their names, by expert), and ``experts_digest``, which tells their weights from others'.
    """
    entries = stream.manifest.experts[: stream.num_experts]
    hashes = "".join(entry.identity for entry in entries)
    return {
        "command": command,
        "seed": stream.seed,
        "device": _name(device),
        "processes": distributed.world_size(),
        "experts": len(entries),
        "expert_training": _common([_without(entry.training, "seed", "initial") for entry in entries]),
        "expert_architecture": _common([_architecture(entry) for entry in entries]),
        "expert_classes": [list(entry.classes) for entry in entries],
        "experts_digest": hashlib.sha256(hashes.encode()).hexdigest()[:8],
    }


def statistics_used(entries: Sequence[ExpertEntry]) -> dict[str, Any]:
    """Return how many of the experts publish statistics, and the largest epsilon of these where all are private."""
    published = [entry.statistics for entry in entries if entry.statistics is not None]
    private = [each.privacy.epsilon for each in published if each.privacy is not None]
    found: dict[str, Any] = {"experts_with_statistics": len(published)}
    return found | ({"statistics_epsilon": max(private)} if len(private) == len(published) else {})


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
