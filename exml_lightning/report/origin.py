"""Where figures come from: what `summary.json` and `test.json` say about the run that made them."""

from typing import Any

import torch

from exml_lightning.data import ExpertStream

PER_EXPERT = ("seed", "initial")


def origin(stream: ExpertStream, device: torch.device, command: str) -> dict[str, Any]:
    """Return the command, the seed, the device and the experts of a run.

    Args:
        stream: The stream, set up.
        device: Where the work was done.
        command: The command line.

    Returns:
        ``command``, ``seed``, ``device``, ``experts`` (how many are asked for) and ``expert_training`` (how they were
        trained, as their manifest says; None where that is not known of all, or not the same).
    """
    return {
        "command": command,
        "seed": stream.seed,
        "device": _name(device),
        "experts": stream.num_experts,
        "expert_training": _training(stream),
    }


def _training(stream: ExpertStream) -> dict[str, Any] | None:
    first, *others = [
        {key: value for key, value in entry.training.items() if key not in PER_EXPERT}
        for entry in stream.manifest.experts[: stream.num_experts]
    ]
    return first if first and all(other == first for other in others) else None


def _name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{device.type}, {threads} thread{'' if threads == 1 else 's'}"
