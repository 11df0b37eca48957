"""split_cifar10 at the paper's scale on a GPU, in pieces that resume."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import yaml

from benchmarks.performance.workload import ROOT, Workload, shipped_settings, write_fit

FOLDER = ROOT / "runs" / "paper_scale"
"""Where the run is kept between pieces; delete it to start anew."""
LIMIT = 540.0
GOAL = 600
STOPPED = (143, -signal.SIGTERM)
"""Exit statuses of a fit that was told to stop; the second is that of one that had not begun."""
PAPER = {
    "data.n_iter": 50_000,
    "buffer.size": 5000,
    "buffer.generator.init_args.steps": 500,
    "buffer.generator.init_args.precision": "bf16-mixed",
    "model.compile": True,
}
QUICK = {"data.n_iter": 2, "data.batch_size": 8, "buffer.size": 10, "buffer.generator.init_args.steps": 1}


def run(
    device: torch.device, folder: Path, quick: bool, limit: float = LIMIT, kept: Path | None = None
) -> dict[str, Any]:
    """Begin the run, or go on with it; stop it by SIGTERM when the time is over.

    Args:
        device: A GPU; the CPU for `quick` alone.
        folder: Where a quick run is kept.
        quick: Do a handful of steps.
        limit: Seconds.
        kept: Where the run is kept between pieces; default `FOLDER`.

    Returns:
        ``finished``, and a table with the seconds of all pieces.
    """
    place = kept or (folder if quick else FOLDER)
    place.mkdir(parents=True, exist_ok=True)
    note = place / "pieces.json"
    pieces: list[float] = json.loads(note.read_text(encoding="utf-8")) if note.is_file() else []
    data, arguments = _arguments(device, place, quick)
    last = place / "run" / "ex_model" / "manifest.yaml"  # that a fit writes
    if not last.is_file():
        start = perf_counter()
        _stop_in_time(arguments, place / "output.txt", limit)
        pieces.append(perf_counter() - start)
        note.write_text(json.dumps(pieces), encoding="utf-8")
    row: dict[str, Any] = {"experts": data, "pieces": len(pieces), "seconds": sum(pieces)}
    finished = last.is_file()
    if finished:
        costs = json.loads((place / "run" / "summary.json").read_text(encoding="utf-8"))
        row |= {name: costs[f"seconds_{name}"] for name in ("generating", "distilling")}
        row |= {"stream accuracy": costs.get("stream_accuracy")}
        row |= {"goal": f"<= {GOAL} s", "met": row["seconds"] <= GOAL}
    return {"finished": finished, "tables": {"5 experts: 5,000 images, 500 steps each; 50,000 steps an expert": [row]}}


def _arguments(device: torch.device, place: Path, quick: bool) -> tuple[str, list[str]]:
    """Take the real experts and test stream where they are, else experts of the same shape and no test stream."""
    arguments = write_fit(Workload("SlimResNet18", 5, 2), place, device, QUICK if quick else PAPER)
    if device.type == "cuda":
        arguments += ["-c", str(ROOT / "configs" / "trainer" / "gpu.yaml")]
    real = (ROOT / "checkpoints" / "split_cifar10" / "run0" / "manifest.yaml").is_file()
    images = any((ROOT / "data" / name).is_dir() for name in ("cifar10", "cifar-10-batches-py"))
    if quick or not real or not images:
        return "synthetic, no test stream", arguments
    path = Path(arguments[2])
    settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    del settings["data"]["experts"]
    settings["model"]["optimizer"] = shipped_settings("SlimResNet18")["model"]["optimizer"]
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return "those of split_cifar10", ["fit", "-c", str(ROOT / "configs" / "split_cifar10.yaml"), *arguments[1:]]


def _stop_in_time(arguments: list[str], output: Path, limit: float) -> None:
    """Run `exml` until it is done, or until the time is over."""
    command = [sys.executable, "-m", "exml_lightning", *arguments]
    with output.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            status = process.wait()
        except BaseException:
            process.send_signal(signal.SIGTERM)
            process.wait()
            raise
    if status not in (0, *STOPPED):
        raise RuntimeError(f"exml ended with {status}: {output.read_text(encoding='utf-8')[-2000:]}")
