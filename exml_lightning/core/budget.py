"""A budget of minutes, and how many steps and images fit into it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from exml_lightning.core.buffer import made_places, share

Budget = Literal["small", "medium", "full"]
MINUTES: dict[Budget, int] = {"small": 2, "medium": 15, "full": 60}
"""Of generating and distilling, for the whole stream."""
LADDER = [100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000]
"""Steps and images to choose from: few, so that machines that are alike choose the same."""
TIMES_SEEN = 8
"""How often an image is seen at least, where the number of images follows that of steps."""
MOST_BYTES = 2**30
"""Of the images in a buffer whose size is chosen."""
OVERHEAD = 1e-3
"""Seconds of a step that are no arithmetic (docs/performance.md)."""


@dataclass(frozen=True)
class Costs:
    """What was measured: seconds.

    Args:
        step: A step of the ex-model on a mini-batch.
        asking: Asking each expert about an image.
        previous: Asking the previous ex-model about an image.
        generating: Making an image of each expert.
        inverting: Making an image from what each expert has published; 0 where it is not done.
    """

    step: float
    asking: Sequence[float]
    previous: float
    generating: Sequence[float]
    inverting: Sequence[float] = ()


@dataclass(frozen=True)
class Work:
    """What is to be done in the time.

    Args:
        batch_size: Samples of a step.
        size: N, as the configuration has it.
        resizable: Whether the number of images may follow that of steps: they cost next to nothing to draw.
        image_bytes: Bytes of an image.
        unchanged: Whether steps see the images of the buffer as they are, so that both teachers are asked once.
        once: Whether the images stay for the whole stream, with what was said of them: made once, and the previous
            ex-model is never asked.
        copies: Of each image of the buffer, which are what is asked about.
        scored: Whether each expert is asked about all images before its first step, for the scale of its logits.
        both: Whether the previous ex-model is, too.
        drawn: Images that are drawn for that; 0 if they are those of the buffer.
    """

    batch_size: int
    size: int
    resizable: bool
    image_bytes: int
    unchanged: bool
    once: bool = False
    copies: int = 1
    scored: bool = False
    both: bool = False
    drawn: int = 0

    def seconds(self, costs: Costs, n_iter: int, size: int) -> float:
        """Add up what `n_iter` steps an expert and `size` images take for the whole stream."""
        asked = size * self.copies
        pays = (self.both and not self.drawn) or n_iter * self.batch_size >= asked
        total, stay = 0.0, self.once or (self.unchanged and pays)
        compared = 0 if not self.scored else self.drawn or (0 if stay else asked)
        for k, (asking, generating) in enumerate(zip(costs.asking, costs.generating, strict=True)):
            teachers, step = asking + (costs.previous if k and not self.once else 0.0), costs.step + OVERHEAD
            made = share(size, k) if not (self.once and k) else 0
            total += made * generating + compared * (teachers if self.both else asking)
            total += share(made_places(size), k) * (costs.inverting[k] if costs.inverting else 0.0)
            if stay:
                total += asked * teachers + n_iter * step
            else:
                total += n_iter * (step + self.batch_size * teachers)
        return total


class Plan(NamedTuple):
    """How many steps an expert, how many images, and the seconds that all of it takes."""

    n_iter: int
    size: int
    seconds: float


def plan(seconds: float, costs: Costs, work: Work) -> Plan:
    """Choose the most steps an expert that fit into some seconds, and the images.

    Of images that cost next to nothing, as many as are seen `TIMES_SEEN` times or more and fit into `MOST_BYTES`. Of
    others as many as the configuration has, or fewer, if making those would take more than half of the time. At least
    100 steps, even if they take longer.
    """
    least = len(costs.asking)

    def of(n_iter: int) -> Plan:
        if work.resizable:
            most = min(n_iter * work.batch_size // TIMES_SEEN, MOST_BYTES // work.image_bytes)
            size = _most(most)
        else:
            image = sum(share(1000, k) / 1000 * each for k, each in enumerate(costs.generating))
            image += sum(share(made_places(1000), k) / 1000 * each for k, each in enumerate(costs.inverting))
            size = work.size if work.size * image <= seconds / 2 else min(work.size, _most(seconds / 2 / image))
        size = max(size, least)
        return Plan(n_iter, size, work.seconds(costs, n_iter, size))

    fitting = [found for found in map(of, LADDER) if found.seconds <= seconds]
    return fitting[-1] if fitting else of(LADDER[0])


def _most(limit: float) -> int:
    return max((rung for rung in LADDER if rung <= limit), default=LADDER[0])
