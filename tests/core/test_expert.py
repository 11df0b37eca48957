"""What an expert says of the classes of the stream, by wide and by narrow heads."""

import pytest
import torch
from torch import nn

from exml_lightning.core.expert import Expert
from exml_lightning.core.images import ImageFormat

INFINITY = float("inf")
IMAGES = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_all_units_of_a_wide_head_speak(make_expert):
    expert = make_expert(classes=(3, 1))  # five units
    assert torch.equal(expert.stream_logits(IMAGES, 5), expert.model(IMAGES))


def test_a_wide_head_answers_for_its_own_classes_alone(make_expert):
    expert = make_expert(classes=(3, 1))
    logits, units = expert.own_logits(IMAGES, 5), expert.model(IMAGES)
    for row in range(3):
        expected = [-INFINITY, units[row, 1].item(), -INFINITY, units[row, 3].item(), -INFINITY]
        assert logits[row].tolist() == expected


def test_a_narrow_head_speaks_of_its_own_classes():
    expert = Expert(nn.Flatten(), (4, 0), (1, 0), ImageFormat((1, 1, 2), (0.0,), (1.0,)))
    images = torch.tensor([[[[7.0, 8.0]]]])
    for logits in (expert.stream_logits(images, 5), expert.own_logits(images, 5)):
        assert logits.tolist() == [[7.0, -INFINITY, -INFINITY, -INFINITY, 8.0]]


def test_as_many_units_as_classes_in_another_order_are_no_wide_head(make_expert):
    expert = make_expert(classes=(1, 3), outputs=(3, 1))
    logits, units = expert.stream_logits(IMAGES, 5), expert.model(IMAGES)
    for row in range(3):
        expected = [-INFINITY, units[row, 3].item(), -INFINITY, units[row, 1].item(), -INFINITY]
        assert logits[row].tolist() == expected


def test_more_units_than_classes_are_no_wide_head(make_expert):
    logits = make_expert(classes=(1, 3)).stream_logits(IMAGES, 4)
    assert logits.isfinite().sum(dim=0).tolist() == [0, 3, 0, 3]


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
