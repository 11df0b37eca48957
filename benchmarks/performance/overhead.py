"""Overhead: distillation as `exml fit` runs it, against its bare arithmetic, in turn in one process."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from benchmarks.performance.timing import Job, ratio, synchronize, time_steps
from benchmarks.performance.workload import SHIPPED, Workload, run_fit, write_fit
from exml_lightning.callbacks import StreamCheckpoint
from exml_lightning.core.loaders import AHEAD

LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}
GOALS = {
    "cpu": {"LeNet5": 0.8, "SlimResNet18": 0.9},
    "cuda": {"LeNet5": 0.8, "SlimResNet18": 0.8},
}
WARM = 3
"""Steps of the second experience before the first round."""


@dataclass(frozen=True)
class Effort:
    """How long to measure.

    Args:
        rounds: Rounds that count.
        steps: Steps of each turn.
    """

    rounds: int
    steps: int


class Interleaved(Callback):
    """Stops the clock of a fit every so many steps and lets other jobs have their turn; in the second experience.

    In the first there is no previous ex-model. Pass it to `run_fit` and read `seconds` afterwards.

    Args:
        jobs: One step of each, by name.
        effort: How long.
        device: Where the fit and the jobs run.
    """

    def __init__(self, jobs: Mapping[str, Job], effort: Effort, device: torch.device) -> None:
        self._jobs = jobs
        self._effort = effort
        self._synchronize = partial(synchronize, device)
        self._since = 0.0
        self.seconds: dict[str, list[float]] = {name: [] for name in ("fit", *jobs)}
        """Seconds a step, a figure a round. The fit's have their share of a checkpoint."""

    @property
    def n_iter(self) -> int:
        """Steps of an experience that this needs."""
        return WARM + self._effort.rounds * self._effort.steps + 1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Take turns."""
        turn, rest = divmod(batch_idx + 1 - WARM, self._effort.steps)
        if trainer.current_epoch != 1 or rest or not 0 <= turn <= self._effort.rounds:
            return
        self._synchronize()
        if turn:
            self.seconds["fit"].append((perf_counter() - self._since) / self._effort.steps)
        for name, job in self._jobs.items():
            elapsed = time_steps(job, self._effort.steps, self._synchronize)
            if turn:
                self.seconds[name].append(elapsed)
        if turn == self._effort.rounds:
            share = self._checkpoint(trainer, pl_module)
            self.seconds["fit"] = [seconds + share for seconds in self.seconds["fit"]]
        self._since = perf_counter()

    def _checkpoint(self, trainer: Trainer, pl_module: LightningModule) -> float:
        """Return the seconds that the checkpoints within an experience add to a step."""
        callback = next(each for each in trainer.callbacks if isinstance(each, StreamCheckpoint))
        every = callback.every_n_steps
        if self.n_iter >= every:
            raise ValueError(f"{self.n_iter} steps would hold a checkpoint, which is counted apart: less than {every}")
        write = partial(callback.on_train_batch_end, trainer, pl_module, None, None, every - 1)
        return median(time_steps(write, 1, self._synchronize) for _ in range(3)) / every


def bare_step(
    workload: Workload, device: torch.device, batch_size: int, layout: torch.memory_format, half: bool = False
) -> Job:
    """Return a step of distillation that is arithmetic alone.

    The student's forward and backward passes, two frozen teachers' forward passes and a step of Adam, on one batch that
    stays on the device.

    Args:
        workload: The networks.
        device: Where.
        batch_size: Images of the batch.
        layout: Memory format of networks and images.
        half: In mixed precision (float16), as Lightning's ``16-mixed``.
    """
    student, *teachers = (workload.model(k).to(device).to(memory_format=layout) for k in ("student", 0, 1))
    for teacher in teachers:
        teacher.requires_grad_(False).eval()
    images = workload.images(batch_size).to(device, memory_format=layout)
    labels = workload.labels(batch_size).to(device)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=half)

    def step() -> None:
        with torch.autocast(device.type, torch.float16, enabled=half):
            with torch.no_grad():
                first, second = (teacher(images).float() for teacher in teachers)
            logits = student(images).float()
        loss = F.mse_loss(logits, (first + second) / 2) + F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


def time_fit(
    workload: Workload,
    folder: Path,
    device: torch.device,
    jobs: Mapping[str, Job],
    effort: Effort,
    changes: Mapping[str, Any],
) -> dict[str, list[float]]:
    """Run `exml fit` with other jobs in between its steps.

    Args:
        workload: The experts; two are enough.
        folder: A folder of the workload's own; images that are generated stay in it for the next time.
        device: Where.
        jobs: One step of each, by name.
        effort: How long.
        changes: Settings by their dotted keys; one step of generating is enough, and is what there is.

    Returns:
        Seconds a step of ``fit`` and of each job, a figure a round.
    """
    watch = Interleaved(jobs, effort, device)
    run = f"run{sum(1 for _ in folder.glob('run*.yaml'))}"
    settings = {"data.n_iter": watch.n_iter, "buffer.generator.init_args.steps": 1, **changes}
    run_fit(write_fit(workload, folder, device, settings, run), watch)
    return watch.seconds


def run(device: torch.device, folder: Path, quick: bool) -> dict[str, Any]:
    """Measure LeNet5 and slim ResNet18, with augmentation and without, and one image at a time.

    Args:
        device: Where.
        folder: A folder to work in.
        quick: Do a handful of steps.
    """
    speeds, hosts = [], []
    for network in SHIPPED:
        workload = Workload(network)
        for precision in ("32-true", "16-mixed") if device.type == "cuda" else ("32-true",):
            case = _Case(workload, folder / network, device, precision, quick)
            shipped = replace(case, augmentation="shipped")
            once = replace(case, augmentation="drawn once")
            speeds += [each.speed() for each in (shipped, replace(shipped, compiled=True), once, case)]
            hosts.append(replace(shipped, batch_size=1).host())
            if device.type == "cpu" and _computes_in_bfloat16():
                speeds.append(replace(once, precision="bf16-mixed").speed())
    return {
        "tables": {
            "Batches of 128 (milliseconds a step; speed of the fit as a part of the bare speed)": speeds,
            "Batches of one image (microseconds a step that are not arithmetic)": hosts,
        }
    }


def _computes_in_bfloat16() -> bool:
    """Whether the CPU does, as far as this torch can tell; older ones cannot."""
    known = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


@dataclass(frozen=True)
class _Case:
    workload: Workload
    folder: Path
    device: torch.device
    precision: str
    quick: bool
    augmentation: str = "none"
    compiled: bool = False
    batch_size: int = 128

    def speed(self) -> dict[str, Any]:
        seconds = self._seconds()
        ratios = {name: ratio(seconds[name], seconds["fit"]) for name in LAYOUTS}
        goal = GOALS[self.device.type][self.workload.network]
        # Without augmentation, or with copies drawn once, the fit asks no teachers, and on a CPU compiled code would
        # make up for overhead.
        fair = self.augmentation == "shipped" and (not self.compiled or self.device.type == "cuda")
        return {
            **self._about(),
            "fit": 1e3 * median(seconds["fit"]),
            **{f"bare, {name}": 1e3 * median(seconds[name]) for name in LAYOUTS},
            **{f"speed, {name}": ratios[name] for name in LAYOUTS},
            "goal": f">= {goal}" if fair else "",
            "met": min(each["median"] for each in ratios.values()) >= goal if fair else None,
        }

    def host(self) -> dict[str, Any]:
        seconds = self._seconds()
        bare = min((seconds[name] for name in LAYOUTS), key=median)
        more = [1e6 * (fit - least) for fit, least in zip(seconds["fit"], bare, strict=True)]
        return {
            **self._about(),
            "fit": 1e6 * median(seconds["fit"]),
            "bare": 1e6 * median(bare),
            "fit less bare": {"median": median(more), "min": min(more), "max": max(more)},
        }

    def _about(self) -> dict[str, Any]:
        return {
            "network": self.workload.network,
            "precision": self.precision,
            "augmentation": self.augmentation,
            "model.compile": self.compiled,
        }

    def _seconds(self) -> dict[str, list[float]]:
        half = self.precision == "16-mixed"
        size = min(self.batch_size, 8) if self.quick else self.batch_size
        jobs = {name: bare_step(self.workload, self.device, size, layout, half) for name, layout in LAYOUTS.items()}
        changes: dict[str, Any] = {"trainer.precision": self.precision, "data.batch_size": size}
        changes["model.compile"] = self.compiled
        if self.augmentation == "none":
            changes["data.augmentation"] = None
        if self.augmentation == "drawn once":
            changes["data.copies"] = 1
        if self.quick:
            changes["buffer.size"] = 16
        return time_fit(self.workload, self.folder, self.device, jobs, self._effort(), changes)

    def _effort(self) -> Effort:
        if self.quick:
            return Effort(2, 2)
        slow = self.device.type == "cpu" and self.workload.network == "SlimResNet18"
        # The package draws for 64 steps at a time: each round has one of these bursts, where that is affordable.
        return Effort(7, 6 if slow and self.batch_size > 1 else AHEAD)
