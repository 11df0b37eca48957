"""`TimeBudget`: steps and images by the minutes they may take, measured before work begins."""

import time
from collections.abc import Callable
from copy import deepcopy
from math import prod
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
from exml_lightning.core import distributed
from exml_lightning.core.budget import MINUTES, Budget, Costs, Plan, Work, plan
from exml_lightning.core.buffer import share
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import Generator
from exml_lightning.core.rng import keyed_generator
from exml_lightning.core.teachers import Teachers
from exml_lightning.data import ExpertStream
from exml_lightning.module import ExModelModule, make_optimizer
from exml_lightning.terminal import clock, say

LEAST_SECONDS = 0.5
"""How long a kind of work is timed."""


class TimeBudget(Callback):
    """Sets ``data.n_iter``, and ``buffer.size`` where images are cheap or too dear, so that the stream fits a budget.

    What it has found is in the checkpoints: a run that goes on keeps it, whatever the clock says. Place it after
    `CheckExperts`, since it asks them.
    """

    def __init__(self, budget: Budget | None, buffer: SyntheticBufferCallback) -> None:
        self.budget = budget
        self._buffer = buffer
        self._stream: ExpertStream | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Know the stream before a checkpoint is read."""
        assert isinstance(pl_module, ExModelModule)
        self._stream = pl_module.stream

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure, choose and say what was chosen, unless the run goes on."""
        assert isinstance(pl_module, ExModelModule)
        stream, buffer = pl_module.stream, self._buffer
        if self.budget is None or stream.has_buffer:
            return
        work = work_of(pl_module, buffer)
        devices = range(torch.cuda.device_count())
        with torch.random.fork_rng(devices), trainer.precision_plugin.forward_context():
            costs = measure(pl_module, buffer)
        found = distributed.from_first(plan(60.0 * MINUTES[self.budget], costs, work))
        stream.n_iter, buffer.size = found.n_iter, found.size
        if trainer.is_global_zero:
            say(words(self.budget, found, stream.num_experts, stream.batch_size))

    def state_dict(self) -> dict[str, Any]:
        """Return what was chosen."""
        assert self._stream is not None
        return {} if self.budget is None else {"n_iter": self._stream.n_iter, "size": self._buffer.size}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take what was chosen when the run began."""
        assert self._stream is not None
        if self.budget is not None:
            self._stream.n_iter, self._buffer.size = state["n_iter"], state["size"]


def words(budget: Budget, found: Plan, num_experts: int, batch_size: int) -> str:
    """Say what was chosen in a line."""
    minutes, needed = MINUTES[budget], clock(found.seconds)
    fits = f"about {needed}" if found.seconds <= 60 * minutes else f"the least there is, which takes about {needed}"
    experts = f"{num_experts} expert{'' if num_experts == 1 else 's'}"
    return (
        f"budget {budget} ({minutes} minutes): {experts} x {found.n_iter:,} steps of {batch_size}, "
        f"{found.size:,} images, {fits}; the same again: --data.n_iter {found.n_iter} --buffer.size {found.size}"
    )


def work_of(module: ExModelModule, buffer: SyntheticBufferCallback) -> Work:
    """Say what is to be done."""
    stream, scale, generator = module.stream, module.distillation.normalize, buffer.generator
    unchanged, once = not stream.step_changes.changes, generator.once
    shape = stream.manifest.input.shape
    reference = scale.reference_images(stream.manifest.input, stream.seed, module.device)
    weights, drawn = scale.score_weights(), 0 if reference is None else len(reference)
    both = weights is not None and weights.straight
    resizable = generator.cheap and not stream.augmentation.changes and not stream.statistics
    of_images = buffer.size, resizable, prod(shape), unchanged, once, max(stream.copies, 1)
    return Work(stream.batch_size, *of_images, weights is not None, both, drawn)


def measure(module: ExModelModule, buffer: SyntheticBufferCallback) -> Costs:
    """Time a step of the ex-model, and what experts and generator need for an image: an architecture once."""
    stream, found = module.stream, {}
    asking, generating, inverting = [], [], []
    for k, entry in enumerate(stream.manifest.experts[: stream.num_experts]):
        kind = repr((entry.architecture.skeleton(), entry.input, entry.statistics is None))
        if kind not in found:
            expert = stream.load_expert(k, module.device)
            found[kind] = _time_expert(module, buffer, expert)
            del expert  # else it would stay in memory while the next one is read
        asking.append(found[kind][0])
        generating.append(found[kind][1])
        inverting.append(found[kind][2])
    count = stream.manifest.input.chunk
    images = _noise(module, count)
    with torch.no_grad():
        previous = _seconds(lambda: module.previous(images), module.device) / count
    return Costs(_time_step(module), asking, previous, generating, inverting)


def _time_expert(module: ExModelModule, buffer: SyntheticBufferCallback, expert: Expert) -> tuple[float, float, float]:
    """Time asking an expert about an image, making one of it, and making one from what it has published."""
    images, known = _noise(module, expert.chunk), torch.zeros_like(module.known)
    weights = module.distillation.normalize.score_weights()
    teachers = Teachers(expert, module.previous, known, images, weights=weights)
    asking = _seconds(lambda: teachers.ask(images), module.device) / len(images)
    count = min(expert.chunk, share(buffer.size, expert.experience))

    def making(of: Generator) -> float:
        short, times = of.trial()
        seconds = _seconds(lambda: short.generate(expert, count, keyed_generator("budget")), module.device)
        return times * seconds / count

    published = buffer.makes_from_statistics(expert)
    return asking, making(buffer.generator), making(buffer.statistics) if published else 0.0


def _time_step(module: ExModelModule) -> float:
    """Time a step of a copy of the ex-model, augmentation included."""
    stream = module.stream
    network = deepcopy(module.network).train()
    optimizer, _ = make_optimizer(network, module.optimizer, None, 1)
    images, draws = _noise(module, stream.batch_size), keyed_generator("budget")

    def step() -> None:
        optimizer.zero_grad()
        with torch.enable_grad():
            network(stream.step_changes(images, draws)).float().square().mean().backward()
        optimizer.step()

    return _seconds(step, module.device)


def _noise(module: ExModelModule, count: int) -> Tensor:
    return torch.randn(count, *module.stream.manifest.input.shape, generator=keyed_generator("budget")).to(
        module.device
    )


def _seconds(job: Callable[[], Any], device: torch.device) -> float:
    """Return the seconds a job takes, done once to warm up, then as often as `LEAST_SECONDS` allow."""
    job()
    _wait(device)
    start, count, spent = time.monotonic(), 0, 0.0
    while spent < LEAST_SECONDS:
        job()
        _wait(device)
        count, spent = count + 1, time.monotonic() - start
    return spent / count


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
