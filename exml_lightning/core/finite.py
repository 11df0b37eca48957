"""NaN and infinity, noticed while they are young and without making the device wait."""

from collections import deque
from typing import NamedTuple

import torch
from torch import Tensor, nn

from exml_lightning.core import distributed
from exml_lightning.core.errors import BrokenExpertError, ExmlError
from exml_lightning.core.expert import LARGEST, Expert

DELAY = 2
"""Steps that a GPU may be ahead of the look at its counts."""

SMALLER = (
    "start another run with a smaller learning rate (model.optimizer); the checkpoints of the experiences before it "
    "are whole"
)


class Counts(NamedTuple):
    """Samples of one step whose numbers are NaN or infinite.

    Args:
        step: The step.
        broken: How many, for each of the tensors that `FiniteWatch.add` was given.
        samples: Of how many.
    """

    step: int
    broken: list[int]
    samples: int


class FiniteWatch:
    """Counts the samples with NaN or infinity in them, step by step.

    On a GPU a count is looked at `DELAY` steps later, when it has long been there; on a CPU at once. If `shared`,
    counts of all processes are added up, which must all call `add`.
    """

    def __init__(self, shared: bool = True) -> None:
        self._shared = shared
        self._pending: deque[tuple[int, Tensor, torch.cuda.Event | None, int]] = deque()

    def add(self, step: int, *values: Tensor) -> None:
        """Count those of a step in float tensors, each ``(n, ...)`` with a row a sample, of the same ``n``."""
        rows = [~value.detach().flatten(1).isfinite().all(dim=1) for value in values]
        counts, samples = torch.stack(rows).sum(dim=1), len(values[0])
        if self._shared:
            counts, samples = distributed.add_up(counts), samples * distributed.world_size()
        event = None
        if counts.is_cuda:
            event, stream = torch.cuda.Event(), torch.cuda.current_stream(counts.device)
            counts = counts.to("cpu", non_blocking=True)
            event.record(stream)
        self._pending.append((step, counts, event, samples))

    def look(self, wait: bool = False) -> Counts | None:
        """Return the first counts that are not all 0, of the newest steps too if `wait`; None if there are none."""
        while self._pending and (wait or self._pending[0][2] is None or len(self._pending) > DELAY):
            step, counts, event, samples = self._pending.popleft()
            if event is not None:
                event.synchronize()
            broken = counts.tolist()
            if any(broken):
                self._pending.clear()
                return Counts(step, broken, samples)
        return None

    def clear(self) -> None:
        """Forget what was not looked at."""
        self._pending.clear()


def sane(logits: Tensor) -> Tensor:
    """Return logits with infinity for those that are beyond all measure."""
    return torch.where(logits.abs() <= LARGEST, logits, torch.inf)


def check_logits(logits: Tensor, expert: Expert, images: str) -> None:
    """Refuse an expert's logits, ``(n, classes)``, with NaN or infinity in them.

    Raises `BrokenExpertError`, which names the expert and says for how many of the `images`, words for what it saw.
    """
    broken = int((~logits.isfinite().all(dim=1)).sum())
    if broken:
        raise BrokenExpertError(f"{expert.name} answers NaN or infinity for {broken} of {len(logits)} {images}")


def check_step(counts: Counts | None, expert: Expert) -> None:
    """Say what went wrong in a step of distillation.

    `counts` are of samples with broken answers of the expert and of the ex-model; None if there are none. Raises
    `BrokenExpertError` if the expert answers NaN or infinity, or the loss is in the first step; `ExmlError` if only the
    ex-model does, or its loss is, later: it has diverged.
    """
    if counts is None:
        return
    from_expert, from_ex_model = counts.broken
    where = f"of {counts.samples} samples in step {counts.step} of experience {expert.experience}"
    if from_expert:
        raise BrokenExpertError(
            f"{expert.name} answers NaN, infinity or more than {LARGEST:.0e} for {from_expert} {where}"
        )
    if counts.step == 0:
        raise BrokenExpertError(
            f"{expert.name} is too much for the loss, which is NaN or infinite for {from_ex_model} {where}, before the "
            "ex-model has moved"
        )
    raise ExmlError(
        f"the ex-model diverged while it learned {expert.name}: its answers or its loss are NaN or infinite for "
        f"{from_ex_model} {where}; {SMALLER}"
    )


def check_weights(network: nn.Module, expert: Expert) -> None:
    """Raise `ExmlError` if weights of the ex-model, or its statistics of batch norm, are NaN or infinite."""
    broken = sum(int((~tensor.isfinite()).sum()) for tensor in network.state_dict().values())
    if broken:
        raise ExmlError(
            f"the ex-model diverged while it learned {expert.name}: {broken} of its weights are NaN or infinite in "
            f"experience {expert.experience}; {SMALLER}"
        )
