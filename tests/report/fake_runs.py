"""Run folders as `exml fit` and `exml test` write them, without the work: a real configuration, given figures."""

import csv
import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from exml_lightning.report.samples import save_samples

CONFIG = yaml.safe_load((Path(__file__).parent / "config.yaml").read_text())  # of split_mnist, by --print_config
RECIPE = {"epochs": 20, "batch_size": 32, "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0005}
SEEDS = (1234, 2345, 3456, 5678, 6789)
GENERATORS = ("model_inversion", "data_impression", "noise", "replay")
"""Strategies that learn; others are baselines."""


def write_run(
    root: Path,
    scenario: str,
    strategy: str,
    run_id: int,
    accuracy: float,
    folder: str | None = None,
    experts: int | None = None,
    matrix: Sequence[Sequence[float]] | None = None,
    results: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """Write the run folder `<scenario>/<strategy>/run<k>`.

    Args:
        root: Where it goes.
        scenario: Name.
        strategy: Name.
        run_id: Which run.
        accuracy: Stream accuracy, a fraction.
        folder: Name of the folder in place of `run<k>`.
        experts: How many; by default as many as the scenario has in the paper, else 5.
        matrix: Accuracy on each part after each experience; by default all parts have `accuracy` at the end.
        results: What is to be otherwise in summary.json or test.json.
        changes: What is to be otherwise in config.yaml: `buffer__size=10`, `buffer__generator__init_args__steps=5`.
    """
    if experts is None:
        experts = 1 if scenario.startswith("joint") else {"core50_nc": 9, "core50_ni": 8}.get(scenario, 5)
    path = root / scenario / strategy / (folder or f"run{run_id}")
    path.mkdir(parents=True)
    config = deepcopy(CONFIG)
    config["data"]["scenario"]["name"] = scenario
    config["data"]["run_id"] = run_id
    config["trainer"]["default_root_dir"] = str(path)
    name = "".join(word.capitalize() for word in strategy.split("_"))
    if strategy in GENERATORS:
        init_args = config["buffer"]["generator"]["init_args"] if strategy in GENERATORS[:2] else {}
        class_path = f"exml_lightning.core.generators.{name}"
        config["buffer"]["generator"] = {"class_path": class_path, "init_args": init_args}
    else:
        config["baseline"] = {"class_path": f"exml_lightning.baselines.{name}"}
    for key, value in changes.items():
        *groups, last = key.split("__")
        place = config
        for group in groups:
            place = place[group]
        place[last] = value
    (path / "config.yaml").write_text(yaml.dump(config, Dumper=yaml.CSafeDumper, sort_keys=False))
    verb, file = ("fit", "summary.json") if strategy in GENERATORS else ("test", "test.json")
    figures = {
        "stream_accuracy": accuracy,
        "peak_memory_mb": 900.0,
        "experts": experts,
        "expert_training": RECIPE,
        "expert_architecture": {"class_path": "exml_lightning.models.LeNet5", "init_args": {}},
        "experts_digest": "0123abcd",
        "processes": 1,
        "device": "cpu, 1 thread",
        "command": f"exml {verb} -c configs/{scenario}.yaml --data.run_id {run_id}",
        "seed": SEEDS[run_id],
    }
    learned = {
        "average_accuracy": (1 + accuracy) / 2,
        "forgetting": 0.25,
        "seconds_generating": 100.0 + run_id,
        "seconds_distilling": 50.0,
        "experiences_learned": experts,
    }
    figures |= learned if verb == "fit" else {"seconds_testing": 2.5, "baseline": strategy}
    (path / file).write_text(json.dumps({**figures, **(results or {})}))
    if verb == "test":
        return path
    rows = matrix or [[accuracy if j <= k else 0.0 for j in range(experts)] for k in range(experts)]
    with (path / "accuracy_matrix.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["after_experience", *range(experts), "stream"])
        for k, row in enumerate(rows):
            last = accuracy if k == len(rows) - 1 else sum(row) / len(row)
            writer.writerow([k, *row, last])
    return path


def write_agreement_run(root: Path) -> Path:
    """Write the run folder of a stream of two experts without a data set."""
    figures = {"stream_accuracy": None, "agreement": 0.8125}
    path = write_run(root, "from_folder", "noise", 0, 0.5, experts=2, results=figures, data__scenario=None)
    (path / "agreement_matrix.csv").write_text("after_experience,0,1,mean\n0,1.0,,1.0\n1,0.625,1.0,0.8125\n")
    return path


def write_samples(
    run: Path,
    classes: Sequence[Sequence[int]],
    names: Sequence[str],
    size: int = 8,
    confidence: float | None = None,
) -> None:
    """Write samples of a run, by the classes of each expert: an image is as bright as its class is high."""
    for k, known in enumerate(classes):
        labels = torch.tensor(sorted(known)).repeat_interleave(5)
        grey = (255 * (labels + 1) / (len(names) + 1)).round().to(torch.uint8)
        images = grey.view(-1, 1, 1, 1).expand(-1, 1, size, size)
        told = None if confidence is None else [confidence] * len(labels)
        save_samples(run / "samples" / f"experience={k}.png", images, labels, names, told)


def brightness(label: int, num_classes: int) -> int:
    """Return the pixel value of the images of a class that `write_samples` writes."""
    return int(np.round(255 * (label + 1) / (num_classes + 1)))
