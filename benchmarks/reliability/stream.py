"""Learns a stream of 200 experts in one run and measures memory, checkpoints and time per experience."""

import itertools
import json
import os
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import yaml
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.reliability.jobs import ROOT, SCENARIO, command, environment

EXPERTS = 200
PICTURE = ROOT / "docs" / "long_stream.png"
QUANTITIES = {
    "memory_mb": "resident memory, MB",
    "checkpoint_kb": "checkpoint, kB",
    "seconds": "processor time, s",
}
FLAT = 1.25
"""What is flat grows by less than this factor from the second quarter of the stream to the last."""
KINDS = {"test stream": "with a scenario: accuracy", "folder": "experts alone: agreement"}


class Probe(Callback):
    """Notes resident memory and processor time at the start of each experience and at the end of the fit.

    Args:
        path: JSON file to write at the end of each experience.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._rows: list[tuple[float, float]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what the experiences before have left."""
        self._note()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note what the last experience has left."""
        self._note()
        self._path.write_text(json.dumps(self._rows), encoding="utf-8")

    def _note(self) -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        self._rows.append((time.process_time(), pages * os.sysconf("SC_PAGE_SIZE") / 2**20))


def run(folder: Path, experts: int = EXPERTS, picture: Path = PICTURE) -> dict[str, Any]:
    """Train the experts, learn them twice, with a test stream and from the folder alone, and plot.

    Args:
        folder: A folder to work in.
        experts: How many, at least 8.
        picture: The PNG file to write.

    Returns:
        For each way, means over each quarter of the stream.
    """
    scenario = _write_scenario(folder, experts)
    small = _write(
        folder / "small.yaml",
        {
            "trainer": {"accelerator": "cpu", "enable_progress_bar": False},
            "data": {"n_iter": 10, "batch_size": 16, "experts": str(folder / "experts")},
            "buffer": {
                "size": 2 * experts,
                "generator": {"class_path": "ModelInversion", "init_args": {"steps": 5}},
                "cache": str(folder / "cache"),
            },
            "experts": {"epochs": 1},
        },
    )
    print(f"training {experts} experts", flush=True)
    _run(["experts", "-c", str(scenario), "-c", str(small)], folder)
    measured: dict[str, dict[str, list[float]]] = {}
    for kind, config in {"test stream": scenario, "folder": ROOT / "configs" / "from_folder.yaml"}.items():
        run_folder = folder / kind.replace(" ", "_")
        shutil.rmtree(run_folder, ignore_errors=True)
        print(f"learning {experts} experts, {KINDS[kind]}", flush=True)
        probe = {"class_path": "benchmarks.reliability.stream.Probe", "init_args": {"path": str(folder / "probe.json")}}
        options = ["--trainer.default_root_dir", str(run_folder), "--trainer.callbacks", json.dumps([probe])]
        _run(["fit", "-c", str(config), "-c", str(small), *options], folder)
        measured[kind] = _measured(run_folder, json.loads((folder / "probe.json").read_text(encoding="utf-8")))
    _plot(measured, picture)
    means = {kind: {name: quarters(values) for name, values in columns.items()} for kind, columns in measured.items()}
    growing = [
        f"{KINDS[kind]}: {QUANTITIES[name]} grows from {second:.1f} in the second quarter to {last:.1f} in the last"
        for kind, columns in means.items()
        for name, (_, second, _, last) in columns.items()
        if last > FLAT * second
    ]
    return {"experts": experts, "failures": growing, **means}


def quarters(values: list[float]) -> list[float]:
    """Return the means of the four quarters of a stream."""
    quarter = len(values) // 4
    return [sum(values[i * quarter : (i + 1) * quarter]) / quarter for i in range(4)]


def _write_scenario(folder: Path, experts: int) -> Path:
    """Deal each expert 2 of the 10 digits; they overlap, and the first five bring all of them."""
    digits = [str(digit) for digit in range(10)]
    pairs = [list(pair) for pair in itertools.combinations(digits, 2)]
    dealt = [digits[i : i + 2] for i in range(0, 10, 2)] + random.Random(0).choices(pairs, k=experts - 5)
    content = yaml.safe_load(SCENARIO.read_text(encoding="utf-8"))
    dataset = content["data"]["scenario"]["dataset"]
    content["data"]["scenario"] = {"name": "long_stream", "dataset": dataset, "classes": dealt}
    return _write(folder / "scenario.yaml", content)


def _write(path: Path, content: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def _run(arguments: list[str], folder: Path) -> None:
    with (folder / "output.txt").open("w", encoding="utf-8") as output:
        subprocess.run(
            command(arguments), env=environment(folder), cwd=ROOT, check=True, stdout=output, stderr=subprocess.STDOUT
        )


def _measured(run_folder: Path, rows: list[tuple[float, float]]) -> dict[str, list[float]]:
    times = [row[0] for row in rows]
    checkpoints = [run_folder / "checkpoints" / f"experience={k}.ckpt" for k in range(len(rows) - 1)]
    return {
        "memory_mb": [row[1] for row in rows[1:]],
        "checkpoint_kb": [path.stat().st_size / 1000 for path in checkpoints],
        "seconds": [after - before for before, after in itertools.pairwise(times)],
    }


def _plot(measured: dict[str, dict[str, list[float]]], path: Path) -> None:
    figure = Figure(figsize=(11, 3.4), dpi=110, layout="constrained")
    for axis, (name, label) in zip(figure.subplots(1, len(QUANTITIES)), QUANTITIES.items(), strict=True):
        for kind, columns in measured.items():
            axis.plot(range(1, len(columns[name]) + 1), columns[name], label=KINDS[kind], linewidth=1.2)
        axis.set_ylim(bottom=0, top=1.25 * max(max(columns[name]) for columns in measured.values()))
        axis.set_xlabel("experts learned")
        axis.set_title(label, fontsize="medium")
        axis.grid(alpha=0.3)
    axis.legend(loc="upper right", fontsize="small")
    FigureCanvasAgg(figure)
    figure.savefig(path)
