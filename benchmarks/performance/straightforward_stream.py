"""The whole stream by the straightforward implementation, the paper's way; goes on where it was stopped."""

import copy
import json
import random
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.performance.straightforward import Distillation, Inversion, Settings, make_loader
from exml_lightning.core.expert import Expert

EVALUATE_EVERY = 1000
"""Steps of distillation between two evaluations on the whole test stream."""
SAVE_EVERY = 60.0
"""Seconds."""


class OutOfTimeError(Exception):
    """The time of this call is over; everything is saved."""


class StraightforwardStream:
    """Experts one after the other: images from each, then distillation, from one student from scratch that goes on.

    Args:
        load_expert: Reads an expert, on the CPU. Its classes are its output units.
        num_experts: How many.
        student: The ex-model, a unit a class, with its initial weights.
        test: Normalised test images and their labels.
        settings: The settings.
        buffer_size: Samples in the buffer.
        n_iter: Distillation steps an expert.
        device: Where to work.
        folder: Where ``curve.json`` and the state are saved; a run that was stopped goes on from there.
        seed: Of the global random states.
    """

    def __init__(
        self,
        load_expert: Callable[[int], Expert],
        num_experts: int,
        student: nn.Module,
        test: tuple[Tensor, Tensor],
        settings: Settings,
        buffer_size: int,
        n_iter: int,
        device: torch.device,
        folder: Path,
        seed: int = 0,
    ) -> None:
        self._load_expert, self._num_experts = load_expert, num_experts
        self._settings, self._buffer_size, self._n_iter = settings, buffer_size, n_iter
        self._device, self._folder = device, folder
        self._test = DataLoader(TensorDataset(*test), batch_size=512)
        self._student = student.to(device)
        self._previous: nn.Module | None = None
        self._seen: list[int] = []
        self._parts: list[tuple[Tensor, Tensor]] = []
        self._expert, self._step = 0, 0
        self._images: Tensor | None = None
        self._optimizer: dict[str, Any] | None = None
        self._seconds, self._evaluating = 0.0, 0.0
        self.curve: list[dict[str, float]] = []
        """Accuracy over time, a point an evaluation."""
        random.seed(seed)
        torch.manual_seed(seed)
        if (folder / "state.pt").is_file():
            self._restore()

    def run(self, limit: float | None = None) -> bool:
        """Learn the stream, or what is left of it.

        Args:
            limit: Seconds after which to stop; None for no limit.

        Returns:
            Whether the stream is learned; if not, call it again, in this process or another.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._since = self._saved = time.perf_counter()
        self._end = None if limit is None else self._since + limit
        try:
            while self._expert < self._num_experts:
                expert = self._load_expert(self._expert).to(self._device)
                if len(self._parts) == self._expert:
                    self._generate(expert)
                self._distil(expert)
        except OutOfTimeError:
            return False
        return True

    def _generate(self, expert: Expert) -> None:
        share, own = self._buffer_size // (self._expert + 1), expert.classes.tolist()
        columns = torch.arange(share, device=self._device) % len(own)
        limits = expert.image_format.limits(self._device)
        noise = torch.randn(share, *expert.image_format.shape, device=self._device)
        start = noise if self._images is None else self._images
        inversion = Inversion(expert.model, own, start, columns, limits, self._settings)
        if self._optimizer is not None:
            inversion.optimizer.load_state_dict(self._optimizer)
        while self._step < self._settings.generator_steps:
            inversion.step()
            self._step += 1
            self._images, self._optimizer = inversion.images.detach(), inversion.optimizer.state_dict()
            self._pause()
        kept = [_subsample(part, share) for part in self._parts]
        assert self._images is not None
        self._parts = [*kept, (self._images.cpu(), expert.classes[columns].cpu())]
        self._previous = copy.deepcopy(self._student).eval() if self._expert else None
        self._step, self._images, self._optimizer = 0, None, None

    def _distil(self, expert: Expert) -> None:
        own = expert.classes.tolist()
        distillation = Distillation(self._student, expert.model, own, self._previous, self._seen, self._settings)
        if self._optimizer is not None:
            distillation.optimizer.load_state_dict(self._optimizer)
        images, labels = (torch.cat(columns) for columns in zip(*self._parts, strict=True))
        known = sorted({*self._seen, *own})
        for batch in make_loader(images, labels, self._settings, self._n_iter - self._step, self._device):
            distillation.step(*batch)
            self._step += 1
            self._optimizer = distillation.optimizer.state_dict()
            if self._step % EVALUATE_EVERY == 0 or self._step == self._n_iter:
                self._evaluate(known)
            if self._step < self._n_iter:
                self._pause()
        self._expert, self._seen = self._expert + 1, known
        self._step, self._optimizer = 0, None
        self._save()

    def _evaluate(self, known: list[int]) -> None:
        self._count()
        accuracy = stream_accuracy(self._student, self._test, known, self._device)
        self._evaluating += time.perf_counter() - self._since
        self._since = time.perf_counter()
        self.curve.append(
            {
                "expert": self._expert + 1,
                "step": self._step,
                "seconds": self._seconds,
                "seconds_with_evaluation": self._seconds + self._evaluating,
                "accuracy": accuracy,
            }
        )
        print(f"  expert {self._expert + 1}, step {self._step}: {accuracy:.4f} after {self._seconds:.0f} s", flush=True)

    def _count(self) -> None:
        """Count the seconds since the clock was last read."""
        self._seconds += time.perf_counter() - self._since
        self._since = time.perf_counter()

    def _pause(self) -> None:
        """Save, if it is time; stop, if time is over."""
        now = time.perf_counter()
        late = self._end is not None and now > self._end
        if late or now - self._saved > SAVE_EVERY:
            self._save()
        if late:
            raise OutOfTimeError

    def _save(self) -> None:
        self._count()
        state = {
            "student": self._student.state_dict(),
            "previous": None if self._previous is None else self._previous.state_dict(),
            **{name: getattr(self, f"_{name}") for name in _PLAIN},
            "settings": self._about(),
            "curve": self.curve,
        }
        part = self._folder / "state.pt.part"
        torch.save(state, part)
        part.replace(self._folder / "state.pt")
        content = {"settings": self._about(), "curve": self.curve}
        (self._folder / "curve.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        self._since = self._saved = time.perf_counter()  # saving is not the straightforward way: not counted

    def _about(self) -> dict[str, Any]:
        return {**asdict(self._settings), "buffer_size": self._buffer_size, "n_iter": self._n_iter}

    def _restore(self) -> None:
        state = torch.load(self._folder / "state.pt", map_location="cpu")
        if state["settings"] != self._about():
            raise ValueError(f"{self._folder} holds a run with other settings: delete it")
        self._student.load_state_dict(state["student"])
        if state["previous"] is not None:
            self._previous = copy.deepcopy(self._student).eval()
            self._previous.load_state_dict(state["previous"])
        for name in _PLAIN:
            setattr(self, f"_{name}", state[name])
        if self._images is not None:
            self._images = self._images.to(self._device)
        self.curve = state["curve"]


_PLAIN = ("seen", "parts", "expert", "step", "images", "optimizer", "seconds", "evaluating")
"""What is saved as it is."""


def _subsample(part: tuple[Tensor, Tensor], size: int) -> tuple[Tensor, Tensor]:
    images, labels = part
    rows = torch.randperm(len(images))[:size]
    return images[rows], labels[rows]


@torch.no_grad()
def stream_accuracy(
    student: nn.Module, test: DataLoader[tuple[Tensor, ...]], known: list[int], device: torch.device
) -> float:
    """Measure accuracy on the whole test stream, among the classes known so far."""
    student.eval()
    right, count = 0, 0
    for images, labels in test:
        logits = student(images.to(device))
        masked = torch.full_like(logits, -torch.inf)
        masked[:, known] = logits[:, known]
        right += (masked.argmax(dim=1) == labels.to(device)).sum().item()
        count += len(labels)
    student.train()
    return right / count
