"""Levers: what each of them brings, with it and without it, in turn in one process."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.performance import levers_tried
from benchmarks.performance.generation import shipped_generator
from benchmarks.performance.overhead import Effort, bare_step, time_fit
from benchmarks.performance.timing import Job, interleave, ratio, synchronize
from benchmarks.performance.workload import ROOT, SHIPPED, Workload
from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import ModelInversion
from exml_lightning.core.priors import BatchNormStatistics
from exml_lightning.core.rng import keyed_generator, seed_layers
from exml_lightning.core.teachers import Teachers
from exml_lightning.ex_model.networks import compile_network
from exml_lightning.experts import load_expert, read_manifest

BATCH = 128
Pair = tuple[str, str, Job, Job, int]
"""Lever, what was measured, the job without it and with it, steps of a turn."""


def run(device: torch.device, folder: Path, quick: bool) -> dict[str, Any]:
    """Measure the levers that were kept, then those that were not.

    Args:
        device: Where.
        folder: A folder to work in.
        quick: Do a handful of steps.
    """
    setting = Setting(device, folder, quick)
    return {
        "tables": {
            "Kept (milliseconds a step)": [measure(setting, pair) for pair in kept(setting)]
            + [_logging(setting), _early(setting)],
            "Tried and not kept (milliseconds a step)": [
                measure(setting, pair) for pair in levers_tried.pairs(setting)
            ],
            "Generating by batch size (thousand image-steps a second)": levers_tried.batch_sizes(setting),
        }
    }


@dataclass(frozen=True)
class Setting:
    """Where and how long to measure.

    Args:
        device: Where.
        folder: A folder to work in.
        quick: Do a handful of steps.
    """

    device: torch.device
    folder: Path
    quick: bool

    def steps(self, network: str) -> int:
        """Return how many steps a turn has."""
        slow = self.device.type == "cpu" and network == "SlimResNet18"
        return 1 if self.quick else 2 if slow else 20

    def images(self, workload: Workload, count: int = BATCH) -> Tensor:
        """Make a batch on the device."""
        return workload.images(8 if self.quick else count).to(self.device)


def measure(setting: Setting, pair: Pair) -> dict[str, Any]:
    """Time a lever's two jobs in turn.

    Args:
        setting: Where and how long.
        pair: The lever.
    """
    lever, what, without, with_it, steps = pair
    jobs = {"without": without, "with": with_it}
    seconds = interleave(jobs, 2 if setting.quick else 7, steps, partial(synchronize, setting.device))
    return {
        "lever": lever,
        "measured on": what,
        **{name: 1e3 * median(each) for name, each in seconds.items()},
        "times faster": ratio(seconds["without"], seconds["with"]),
    }


def kept(setting: Setting) -> Iterator[Pair]:
    """Make the levers that the package pulls."""
    for network in SHIPPED:
        yield from _of_network(setting, network)
    workload = Workload("LeNet5")
    yield (
        "one product for all augmentations",
        "shift and rotation of a batch, against `affine_grid`",
        *_augmentations(setting, workload),
        setting.steps("LeNet5"),
    )
    yield (
        "seeding the device at hand alone",
        "a step's seed, against `torch.manual_seed`",
        lambda: void(torch.manual_seed(1)),
        lambda: seed_layers(1, setting.device),
        200,
    )
    yield (
        "batch-norm prior by hand",
        "slim ResNet18: the prior on its first layer, both passes, against autograd",
        *_priors(setting),
        setting.steps("SlimResNet18"),
    )


def _of_network(setting: Setting, network: str) -> Iterator[Pair]:
    workload, device, steps = Workload(network), setting.device, setting.steps(network)
    size = 8 if setting.quick else BATCH
    layouts: dict[str, Callable[[torch.memory_format], Job]] = {
        "a step of distillation": lambda layout: bare_step(workload, device, size, layout),
        "a pass to the input": lambda layout: pass_to_input(setting, workload, layout),
    }
    for what, make in layouts.items():
        jobs = [make(layout) for layout in (torch.contiguous_format, torch.channels_last)]
        yield ("channels_last", f"{network}: {what}", jobs[0], jobs[1], steps)
    yield (
        "expert without weight gradients",
        f"{network}: a pass to the input",
        pass_to_input(setting, workload, torch.channels_last, frozen=False),
        pass_to_input(setting, workload, torch.channels_last),
        steps,
    )
    both = step_with(setting, workload, [True, True])
    yield (
        "previous ex-model not asked where it knows nothing",
        f"{network}: a step of the first experience",
        both,
        step_with(setting, workload, [True, False]),
        steps,
    )
    yield (
        "teachers remembered where images never change",
        f"{network}: a step without augmentation",
        both,
        step_with(setting, workload, [False, False]),
        steps,
    )
    yield (
        "`model.compile`",
        f"{network}: a step of distillation",
        both,
        step_with(setting, workload, [True, True], partial(compile_network, device=device)),
        steps,
    )


def void(_: object) -> None:
    """Drop a value."""


def pass_to_input(setting: Setting, workload: Workload, layout: torch.memory_format, frozen: bool = True) -> Job:
    """Return a forward pass, cross-entropy and a backward pass to the images.

    Args:
        setting: Where.
        workload: The networks.
        layout: Memory format of the network.
        frozen: Compute no gradients of its weights.
    """
    model = workload.expert(0).model.to(setting.device).to(memory_format=layout)
    images = setting.images(workload).requires_grad_()
    labels = workload.labels(len(images)).to(setting.device)
    wanted = [images] if frozen else [images, *model.requires_grad_(True).parameters()]
    return lambda: void(torch.autograd.grad(F.cross_entropy(model(images), labels), wanted))


def step_with(
    setting: Setting,
    workload: Workload,
    asked: list[bool],
    ready: Callable[[nn.Module], Callable[[Tensor], Tensor]] = lambda network: network.__call__,
) -> Job:
    """Return a step of distillation, in the package's memory format.

    Args:
        setting: Where.
        workload: The networks.
        asked: Whether the expert and the previous ex-model are asked.
        ready: Makes of a network what is called.
    """
    device = setting.device
    student, previous, model = (
        workload.model(key).to(device).to(memory_format=torch.channels_last) for key in ("student", 0, 1)
    )
    own = workload.classes_of(1)
    expert = Expert(model, own, own, workload.image_format, 1).to(device)
    known = torch.full((workload.num_classes,), asked[1], device=device)
    teachers = Teachers(expert, previous.requires_grad_(False).eval(), known, ready)
    images = setting.images(workload)
    if not any(asked):
        teachers.ask_all(images)
    rows = torch.arange(len(images), device=device)
    labels = workload.labels(len(images)).to(device)
    optimizer, call = torch.optim.Adam(student.parameters(), lr=1e-4), ready(student)

    def step() -> None:
        first, second = teachers.ask(images, rows)
        logits = call(images)
        loss = F.mse_loss(logits, second + first.mean()) + F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def _augmentations(setting: Setting, workload: Workload) -> tuple[Job, Job]:
    images, augmentation = setting.images(workload), Augmentation(0.06, 10)
    draws = augmentation.draw(len(images), keyed_generator("lever"))
    matrices = augmentation.matrices(draws, *images.shape[-2:]).to(images)

    def by_affine_grid() -> None:
        grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
        F.grid_sample(images, grid, padding_mode="border", align_corners=False)

    return by_affine_grid, lambda: void(augmentation.apply(images, matrices))


def _priors(setting: Setting) -> tuple[Job, Job]:
    values = torch.randn(8 if setting.quick else BATCH, 20, 32, 32, generator=keyed_generator("lever"))
    values = values.to(setting.device, memory_format=torch.channels_last).requires_grad_()
    layer = nn.BatchNorm2d(20).eval().requires_grad_(False).to(setting.device)
    statistics = BatchNormStatistics(nn.Sequential(layer))
    statistics.__enter__()
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean, variance = layer.running_mean, layer.running_var

    def by_autograd() -> None:
        columns = values.transpose(0, 1).flatten(1)
        distance = (columns.mean(dim=1) - mean).square().sum()
        distance = distance + (columns.var(dim=1, correction=0) - variance).square().sum()
        torch.autograd.grad(distance, [values])

    def by_hand() -> None:
        layer(values)
        torch.autograd.grad(statistics.pop(), [values])

    return by_autograd, by_hand


def _logging(setting: Setting) -> dict[str, Any]:
    """Two fits in one process, each against bare steps in between its own."""
    workload, size = Workload("LeNet5"), 8
    effort = Effort(2, 2) if setting.quick else Effort(7, 60)
    seconds: dict[str, list[float]] = {}
    for name, every in (("without", 1), ("with", 50)):
        changes: Mapping[str, Any] = {"data.batch_size": size, "trainer.log_every_n_steps": every, "buffer.size": 500}
        bare = {"bare": bare_step(workload, setting.device, size, torch.channels_last)}
        found = time_fit(workload, setting.folder / "logging", setting.device, bare, effort, changes)
        seconds[name] = [fit - least for fit, least in zip(found["fit"], found["bare"], strict=True)]
    return {
        "lever": "losses logged every 50 steps, not each",
        "measured on": f"LeNet5: what a step of the fit takes beside the arithmetic, batch {size}",
        **{name: 1e3 * median(each) for name, each in seconds.items()},
        "times faster": ratio(seconds["without"], seconds["with"]),
    }


def _early(setting: Setting) -> dict[str, Any]:
    """Of a trained expert: one that is not is never sure."""
    folder = ROOT / "checkpoints" / "split_digits" / "run0"
    expert = load_expert(folder, read_manifest(folder), 0).to(setting.device)
    shipped, count = shipped_generator("LeNet5"), 16 if setting.quick else 256
    steps = 10 if setting.quick else shipped.steps

    def make(generator: ModelInversion) -> None:
        generator.generate(expert, count, keyed_generator("lever"))

    every, sure = (partial(make, replace(shipped, steps=steps, confidence=each)) for each in (None, 0.99))
    what = f"LeNet5, a shipped expert of two digits: {steps} steps of generating {count} images"
    return measure(setting, ("`buffer.generator.confidence` 0.99 (other images)", what, every, sure, 1))
