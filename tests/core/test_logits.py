"""Logits of networks that return something else, and images that stay as they were."""

import math

import pytest
import torch
from torch import nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.logits import answer_in_logits, looks_like, other_in_company, where_answer_is


class Returning(nn.Module):
    """Returns what `make` makes of logits."""

    def __init__(self, make, units=3):
        super().__init__()
        self.make, self.head = make, nn.Linear(4, units)

    def forward(self, images):
        return self.make(self.head(images.flatten(1)))


@pytest.fixture
def images():
    return torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(0))


def logits_and_answers(images, make, units=3, **options):
    torch.manual_seed(1)
    network = Returning(make, units)
    plain = network.head(images.flatten(1)).detach()
    return plain, answer_in_logits(network, **options)(images)


def test_probabilities_become_logarithms(images):
    logits, answers = logits_and_answers(images, lambda z: z.softmax(1), returns="probabilities")
    torch.testing.assert_close(answers, logits - logits.logsumexp(1, keepdim=True))
    _, answers = logits_and_answers(images * 1e4, lambda z: z.softmax(1), returns="probabilities")
    assert torch.isfinite(answers).all()  # probabilities of 0
    assert float(answers.min()) == pytest.approx(math.log(1e-30), rel=1e-4)


@pytest.mark.parametrize(("returns", "make"), [
    ("logits", lambda z: z), ("sigmoid", torch.sigmoid), ("probabilities", torch.sigmoid),
    ("logits", lambda z: z[:, 0]), ("sigmoid", lambda z: z.squeeze().sigmoid()),
])  # fmt: skip
def test_one_unit_tells_two_classes_apart(images, returns, make):
    logits, answers = logits_and_answers(images, make, 1, returns=returns, binary=True)
    probabilities = answers.softmax(1)
    torch.testing.assert_close(probabilities[:, 1:], logits.sigmoid())
    torch.testing.assert_close(probabilities.sum(1), torch.ones(6))


def test_sigmoids_become_logits_of_each_class(images):
    logits, answers = logits_and_answers(images, torch.sigmoid, returns="sigmoid")
    torch.testing.assert_close(answers, logits, atol=1e-4, rtol=1e-4)


def test_a_network_of_several_units_is_not_binary(images):
    with pytest.raises(ExmlError, match=r"binary, but returns \[6, 3\]"):
        logits_and_answers(images, lambda z: z, binary=True)


@pytest.mark.parametrize(("make", "part"), [
    (lambda z: {"loss": None, "logits": z}, "its `logits`"),
    (lambda z: (z, z * 0), "the first of the 2 that it returns"),
    (lambda z: z, ""),
])  # fmt: skip
def test_logits_are_found_in_mappings_and_tuples(images, make, part):
    logits, answers = logits_and_answers(images, make)
    torch.testing.assert_close(answers, logits)
    assert where_answer_is(make(logits)) == part


@pytest.mark.parametrize("first", [nn.ReLU(inplace=True), nn.Hardtanh(inplace=True), nn.Dropout(inplace=True)])
def test_a_first_layer_may_write_on_what_it_is_given(images, first):
    network = answer_in_logits(nn.Sequential(first, nn.Flatten(), nn.Linear(4, 3)))
    before = images.clone()
    leaf = images.clone().requires_grad_()
    network(images)
    assert torch.equal(images, before)
    network(leaf).sum().backward()  # without a copy: a leaf that requires grad is written on
    assert bool(leaf.grad.any())


def test_what_answers_look_like():
    z = torch.randn(8, 3, generator=torch.Generator().manual_seed(2))
    assert looks_like(z) == "logits"
    assert looks_like(z.softmax(1)) == "probabilities"
    assert looks_like(z.sigmoid()) == "sigmoid"
    assert looks_like(z[:, :1].sigmoid()) == "sigmoid"
    assert looks_like(z.log_softmax(1)) == "logits"


@pytest.mark.parametrize(("track", "expected"), [(True, False), (False, True)])
def test_answers_that_depend_on_the_batch(images, track, expected):
    torch.manual_seed(3)
    norm = nn.BatchNorm2d(1, track_running_stats=track)
    network = nn.Sequential(norm, nn.Flatten(), nn.Linear(4, 3)).eval()
    with torch.no_grad():
        assert other_in_company(network(images), network(images[:1])) == expected
