import pytest
import torch
from torch import nn

from exml_lightning.core.errors import BrokenExpertError
from exml_lightning.core.expert import Expert
from exml_lightning.core.familiarity import LayerShares
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.normal_scores import NormalScores
from exml_lightning.core.teachers import CHUNK, Teachers

IMAGES = torch.linspace(-1, 1, (CHUNK + 3) * 64).view(-1, 1, 8, 8)
KNOWN = torch.tensor([True, False, True, False, False])


class Counting(nn.Module):
    """Counts the images it is asked about."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.images = network, 0

    def forward(self, images):
        self.images += len(images)
        return self.network(images)


@pytest.fixture
def teachers(make_expert):
    def make(known=KNOWN):
        previous = Counting(make_expert(classes=range(5), seed=1).model)
        expert = make_expert(classes=(1, 3))
        return Teachers(expert, previous, known, lambda network: network.__call__), expert, previous

    return make


def test_both_are_asked(teachers):
    asked, expert, previous = teachers()
    from_expert, from_previous = asked.ask(IMAGES)
    torch.testing.assert_close(from_expert, expert.model(IMAGES)[:, [1, 3]])
    torch.testing.assert_close(from_previous, previous.network(IMAGES))
    assert not from_previous.requires_grad


def test_who_knows_nothing_is_not_asked(teachers):
    asked, expert, previous = teachers(torch.zeros(5, dtype=torch.bool))
    from_expert, from_previous = asked.ask(IMAGES)
    assert previous.images == 0
    torch.testing.assert_close(from_expert, expert(IMAGES))
    assert torch.equal(from_previous, torch.zeros(len(IMAGES), 5))


def test_answers_are_remembered(teachers):
    asked, expert, previous = teachers()
    asked.ask_all(IMAGES)
    assert previous.images == len(IMAGES)
    rows = torch.tensor([CHUNK + 2, 0, 7, 7])
    from_expert, from_previous = asked.ask(torch.full((4, 1, 8, 8), torch.nan), rows)
    assert previous.images == len(IMAGES)
    torch.testing.assert_close(from_expert, expert(IMAGES[rows]))
    torch.testing.assert_close(from_previous, previous.network(IMAGES[rows]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize("ask", [Teachers.ask_all, Teachers.put_on_scale])
def test_answers_that_cannot_be_are_found_when_all_are_asked(teachers, ask, value):
    asked, expert, _ = teachers()
    expert.model[-1].bias.data[3] = value
    with pytest.raises(BrokenExpertError, match=rf"{len(IMAGES)} of {len(IMAGES)} images asked about before"):
        ask(asked, IMAGES)


def test_normal_scores_are_those_among_the_answers_for_the_reference(teachers):
    asked, expert, previous = teachers()
    images = IMAGES[:5] + 0.3
    asked.put_on_scale(IMAGES)
    from_expert, from_previous = asked.ask(images)
    torch.testing.assert_close(from_expert, NormalScores(expert(IMAGES))(expert(images)))
    torch.testing.assert_close(from_previous, previous.network(images))


@pytest.mark.parametrize("same", [True, False])
def test_remembered_answers_are_put_on_the_scale(teachers, same):
    asked, expert, previous = teachers()
    images, reference = IMAGES[:5], IMAGES if same else 2 * IMAGES
    asked.ask_all(IMAGES)
    counted = []
    expert.model.register_forward_hook(lambda module, inputs, outputs: counted.append(len(outputs)))
    asked.put_on_scale(reference, raw_logits=0.5)
    assert sum(counted) == (0 if same else len(IMAGES))  # the expert has said all there is to say
    assert previous.images == len(IMAGES)
    rows = expert(IMAGES[[4, 1]])
    expected = NormalScores(expert(reference))(rows) + 0.5 * rows
    torch.testing.assert_close(asked.ask(images, torch.tensor([4, 1]))[0], expected)


def test_all_units_are_asked_for(make_expert):
    expert, previous = make_expert(classes=(1, 3)), make_expert(classes=range(5), seed=1).model
    asked = Teachers(expert, previous, KNOWN, lambda network: network.__call__, all_units=True)
    torch.testing.assert_close(asked.ask(IMAGES)[0], expert.model(IMAGES))
    asked.put_on_scale(IMAGES)  # before all are asked, as after, in the test above
    asked.ask_all(IMAGES)
    expected = NormalScores(expert.model(IMAGES))(expert.model(IMAGES[:2]))
    torch.testing.assert_close(asked.ask(IMAGES[:2], torch.tensor([0, 1]))[0], expected)


@pytest.mark.parametrize("all_units", [False, True])
@pytest.mark.parametrize("remembered", [False, True])
def test_familiarity_is_added_to_the_classes_the_expert_knows(make_expert, all_units, remembered):
    expert, previous = make_expert(classes=(1, 3)), make_expert(classes=range(5), seed=1).model
    compiled = []
    asked = Teachers(expert, previous, KNOWN, lambda network: compiled.append(network) or network, all_units, 0.5)
    assert compiled == [previous]  # shares are looked at by hooks, which a compiled network may not have
    images, rows = IMAGES[:4], torch.arange(4)
    if remembered:
        asked.ask_all(IMAGES)
    asked.put_on_scale(IMAGES, raw_logits=0.3)
    found = asked.ask(images, rows)[0] if remembered else asked.ask(images)[0]

    shares = LayerShares(expert)
    reference, here = shares(expert.model, IMAGES), shares(expert.model, images)
    scores = NormalScores(reference[0], 0.3)(here[0])
    familiar = sum(NormalScores(reference[1][:, [i]])(here[1][:, [i]]) for i in range(len(shares))) / len(shares)
    assert familiar.abs().min() > 0.01
    expected = scores.clone()
    expected[:, [1, 3]] += 0.5 * familiar
    torch.testing.assert_close(found, expected if all_units else expected[:, [1, 3]], rtol=1e-4, atol=1e-4)


def test_a_layer_whose_shares_differ_by_rounding_alone_does_not_count(make_expert):
    """Grey images in three equal channels, of which a 1x1 convolution takes in the same share of each."""
    grey = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    layers = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten(), nn.Linear(64, 2))
    expert = Expert(layers, (0, 1), (0, 1), ImageFormat((3, 8, 8), (0.5,) * 3, (0.5,) * 3))
    asked = Teachers(expert, layers, torch.zeros(2, dtype=torch.bool), lambda network: network, familiarity=1)
    asked.put_on_scale(grey)
    _, shares = LayerShares(expert)(expert.model, grey)
    assert shares[:, 0].std() < 1e-6
    expected = NormalScores(expert(grey))(expert(grey)) + NormalScores(shares[:, 1:])(shares[:, 1:])
    torch.testing.assert_close(asked.ask(grey)[0], expected, rtol=1e-3, atol=1e-3)
