"""Start-up: what a command takes before its work begins, each time in a fresh process."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from time import monotonic
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from benchmarks.performance.workload import ROOT
from exml_lightning.callbacks import SyntheticBufferCallback

EXML = (sys.executable, "-m", "exml_lightning")
COMMANDS = {
    "`import torch, lightning`, and no more": (sys.executable, "-c", "import os, torch, lightning; os._exit(0)"),
    "`exml --help`": (*EXML, "--help"),
    "`exml fit --help`": (*EXML, "fit", "--help"),
}
IMPORTS = next(iter(COMMANDS))
FIT = "`exml fit -c configs/split_digits.yaml --strategy model_inversion` to its first step, less generating"
GOALS = {"`exml --help`": 3.0}


class FirstStep(Callback):
    """Ends the process after the first optimiser step and notes when that was.

    Args:
        path: The JSON file to write: ``now`` (seconds of the system's monotonic clock) and ``generating`` (seconds).
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """End."""
        buffer = next(each for each in trainer.callbacks if isinstance(each, SyntheticBufferCallback))
        noted = {"now": monotonic(), "generating": buffer.clock.seconds_generating}
        self._path.write_text(json.dumps(noted), encoding="utf-8")
        os._exit(0)


def run(device: torch.device, folder: Path, quick: bool) -> dict[str, Any]:
    """Measure all commands in turn, five times.

    Args:
        device: Where the fit runs.
        folder: A folder to work in.
        quick: Do it once.
    """
    seconds: dict[str, list[float]] = {name: [] for name in (*COMMANDS, FIT)}
    for turn in range(1 if quick else 5):
        for name, command in COMMANDS.items():
            start = monotonic()
            _run(command)
            seconds[name].append(monotonic() - start)
        seconds[FIT].append(_first_step(device, folder / f"run{turn}", quick))
    rows = [
        {
            "command": name,
            "seconds": {"median": median(each), "min": min(each), "max": max(each)},
            "of the imports": median(each) / median(seconds[IMPORTS]),
            "goal": f"<= {GOALS[name]}" if name in GOALS else None,
            "met": median(each) <= GOALS[name] if name in GOALS else None,
        }
        for name, each in seconds.items()
    ]
    return {"tables": {"Seconds from the start of the process": rows}}


def _first_step(device: torch.device, run_folder: Path, quick: bool) -> float:
    path = run_folder.with_suffix(".json")
    probe = {"class_path": "benchmarks.performance.startup.FirstStep", "init_args": {"path": str(path)}}
    accelerator = "gpu" if device.type == "cuda" else "cpu"
    options = [
        *("-c", str(ROOT / "configs" / "split_digits.yaml"), "--strategy", "model_inversion"),
        *("--trainer.accelerator", accelerator, "--trainer.default_root_dir", str(run_folder)),
        *("--buffer.cache", "null", "--trainer.callbacks", json.dumps([probe])),
        *(("--buffer.generator.steps", "1") if quick else ()),
    ]
    start = monotonic()
    _run((*EXML, "fit", *options))
    noted = json.loads(path.read_text(encoding="utf-8"))
    return float(noted["now"] - start - noted["generating"])


def _run(command: tuple[str, ...]) -> None:
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ended.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {ended.returncode}: {ended.stdout[-2000:]}")
