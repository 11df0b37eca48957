"""What an expert says of the classes of the stream, by wide and by narrow heads."""

import pytest
import torch
from torch import nn

from exml_lightning.core.expert import Expert
from exml_lightning.core.images import ImageFormat

INFINITY = float("inf")
IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("classes", "outputs", "ask", "unit_of"),
    [
        ((3, 1), (3, 1), "stream_logits", [0, 1, 2, 3, 4]),  # a wide head: all units speak
        ((3, 1), (3, 1), "own_logits", [None, 1, None, 3, None]),
        ((1, 3), (3, 1), "stream_logits", [None, 3, None, 1, None]),  # as many units, but in another order
        ((1, 3), (1, 3), "stream_logits", [None, 1, None, 3]),  # more units than classes
    ],
)
def test_which_unit_speaks_of_each_class_of_the_stream(make_expert, classes, outputs, ask, unit_of):
    expert = make_expert(classes=classes, outputs=outputs)  # five units
    units, silent = expert.model(IMAGES), torch.full((3,), -INFINITY)
    expected = torch.stack([silent if unit is None else units[:, unit] for unit in unit_of], dim=1)
    assert torch.equal(getattr(expert, ask)(IMAGES, len(unit_of)), expected)


def test_a_narrow_head_speaks_of_its_own_classes():
    expert = Expert(nn.Flatten(), (4, 0), (1, 0), ImageFormat((1, 1, 2), (0.0,), (1.0,)))
    images = torch.tensor([[[[7.0, 8.0]]]])
    for logits in (expert.stream_logits(images, 5), expert.own_logits(images, 5)):
        assert logits.tolist() == [[7.0, -INFINITY, -INFINITY, -INFINITY, 8.0]]


def test_how_probable_an_expert_finds_labels(make_expert):
    expert = make_expert(classes=(3, 1))
    units = expert.model(IMAGES).double()
    expected = [
        (units[row, label].exp() / (units[row, 1].exp() + units[row, 3].exp())).item()
        for row, label in enumerate((1, 3, 3))
    ]
    found = expert.probability(IMAGES, torch.tensor([1, 3, 3])).tolist()
    assert found == pytest.approx(expected, rel=1e-5)
    lone = make_expert(classes=(3,))
    expected = [1 / (1 + (-unit).exp().item()) for unit in lone.model(IMAGES).double()[:, 3]]
    assert lone.probability(IMAGES, torch.tensor([3, 3, 3])).tolist() == pytest.approx(expected, rel=1e-5)
