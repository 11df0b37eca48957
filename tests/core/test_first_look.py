import math

import pytest
import torch
from torch import nn

from exml_lightning.core.errors import BrokenExpertError, ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.first_look import DRAWINGS, draw_everything, far_from_others, first_look
from exml_lightning.core.images import ImageFormat

FORMAT = ImageFormat((1, 2, 2), (0.5,), (0.25,))


class Told(nn.Module):
    """Answers what it was told to."""

    def __init__(self, *rows: list[float]) -> None:
        super().__init__()
        self.rows = rows

    def forward(self, images):
        return torch.tensor(self.rows)


def look(classes, *rows):
    expert = Expert(Told(*rows), classes, classes, FORMAT, 3, file="zoo/a.pt")
    return first_look(expert, torch.zeros(len(rows), 1, 2, 2))


def test_confidence_and_spread_by_hand():
    found = look([0, 2], [1.0, 50.0, 3.0], [4.0, -50.0, 0.0])  # of the unit that is not its own nothing counts
    assert found.confidence == pytest.approx((1 / (1 + math.exp(-2)) + 1 / (1 + math.exp(-4))) / 2)
    assert found.spread == pytest.approx(math.sqrt((1 + 9 + 16 + 0) / 4 - 4))
    alone = look([1], [9.0, 1.0], [9.0, -3.0])
    assert alone.confidence == pytest.approx((1 / (1 + math.exp(-1)) + 1 / (1 + math.exp(3))) / 2)
    assert alone.spread == pytest.approx(2.0)


def test_what_an_expert_may_not_answer():
    for rows, said in [
        ([[1.0], [math.nan]], "answers NaN or infinity for 1 of 2 drawings"),
        ([[1.0], [2e6]], "answers drawings with logits up to 2.0e"),
        ([[1.0], [1.0]], "gives 2 drawings one and the same answer"),
    ]:
        with pytest.raises(BrokenExpertError, match=rf"^expert 3 \(zoo/a.pt\) {said}"):
            look([0], *rows)
    with pytest.raises(
        ExmlError, match=r"^expert 3 \(zoo/a.pt\): its answers to 2 drawings ended in IndexError \(.*: co"
    ):
        look([5], [1.0], [2.0])


def test_the_odd_ones_are_those_beyond_four_times_the_median():
    assert far_from_others([1.0, 2.0, 8.1, 1.9, 0.4]) == {2: 8.1 / 1.9, 4: 0.4 / 1.9}
    assert far_from_others([1.0, 4.0, 0.25]) == {}  # exactly so many times
    assert far_from_others([1.0, 10.0]) == {}


def test_all_experts_of_a_run_are_shown_the_same_drawings():
    drawn = [draw_everything(FORMAT, seed, torch.device("cpu")) for seed in (1, 1, 2)]
    assert drawn[0].shape == (DRAWINGS, 1, 2, 2)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert drawn[0].min() >= -2
    assert drawn[0].max() <= 2
