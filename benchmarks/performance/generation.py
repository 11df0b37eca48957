"""Generation: model inversion as it is shipped, against bare passes to the input, in turn in one process."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.performance.overhead import LAYOUTS
from benchmarks.performance.timing import Job, interleave, ratio, synchronize
from benchmarks.performance.workload import SHIPPED, Workload, shipped_settings
from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import ModelInversion
from exml_lightning.core.rng import keyed_generator

GOAL = 0.85


def shipped_generator(network: str) -> ModelInversion:
    """Make the generator of a network's scenario.

    Args:
        network: A name of `SHIPPED`.
    """
    settings = dict(shipped_settings(network)["buffer"]["generator"]["init_args"])
    return ModelInversion(**{**settings, "augmentation": Augmentation(**settings["augmentation"])})


def variants(generator: ModelInversion) -> dict[str, ModelInversion]:
    """Return the generator as it is shipped, without augmentation, and both without the batch-norm prior."""
    still = replace(generator, augmentation=Augmentation())
    found = {"as shipped": generator, "no augmentation": still}
    if generator.batch_norm:
        found["no batch norm prior"] = replace(generator, batch_norm=0.0)
        found["neither"] = replace(still, batch_norm=0.0)
    return found


def bare_passes(
    workload: Workload, device: torch.device, batch_size: int, layout: torch.memory_format, steps: int
) -> Job:
    """Return forward passes, cross entropy and backward passes to the same images, nothing else.

    Args:
        workload: The experts; the first is asked.
        device: Where.
        batch_size: Images of the batch.
        layout: Memory format of network and images.
        steps: Passes of a call.
    """
    model = workload.expert(0).model.to(device).to(memory_format=layout)
    images = workload.images(batch_size).to(device, memory_format=layout).requires_grad_()
    labels = workload.labels(batch_size).to(device) % workload.classes_per_expert

    def passes() -> None:
        for _ in range(steps):
            loss = F.cross_entropy(model(images)[:, : workload.classes_per_expert], labels)
            torch.autograd.grad(loss, [images])

    return passes


def run(device: torch.device, folder: Path, quick: bool) -> dict[str, Any]:
    """Measure LeNet5 and slim ResNet18, with augmentation and without.

    Args:
        device: Where.
        folder: A folder to work in.
        quick: Do a handful of steps.
    """
    rows = [row for network in SHIPPED for row in _measure(network, device, folder / network, quick)]
    return {"tables": {"Thousand image-steps a second; speed as a part of the bare speed": rows}}


def _measure(network: str, device: torch.device, folder: Path, quick: bool) -> list[dict[str, Any]]:
    workload, shipped = Workload(network, classes_per_expert=2), shipped_generator(network)
    batch_size = 8 if quick else shipped.batch_size
    slow = device.type == "cpu" and network == "SlimResNet18"
    rounds, steps = (2, 2) if quick else (5, 2) if slow else (7, 100 if device.type == "cuda" else 40)
    expert = workload.read_expert(folder, 0).to(device)
    generators = {
        name: replace(generator, steps=steps, batch_size=batch_size) for name, generator in variants(shipped).items()
    }
    jobs: dict[str, Job] = {
        name: partial(_generate, generator, expert, batch_size) for name, generator in generators.items()
    }
    jobs |= {name: bare_passes(workload, device, batch_size, layout, steps) for name, layout in LAYOUTS.items()}
    seconds = interleave(jobs, rounds, 1, partial(synchronize, device))
    speeds = {name: 1e-3 * steps * batch_size / median(each) for name, each in seconds.items()}
    rows = []
    for name in generators:
        ratios = {layout: ratio(seconds[layout], seconds[name]) for layout in LAYOUTS}
        rows.append(
            {
                "network": network,
                "batch size": batch_size,
                "generator": name,
                "generate": speeds[name],
                **{f"bare, {layout}": speeds[layout] for layout in LAYOUTS},
                **{f"speed, {layout}": ratios[layout] for layout in LAYOUTS},
                "goal": f">= {GOAL}",
                "met": min(each["median"] for each in ratios.values()) >= GOAL,
            }
        )
    return rows


def _generate(generator: ModelInversion, expert: Expert, count: int) -> None:
    generator.generate(expert, count, keyed_generator("benchmark"))
