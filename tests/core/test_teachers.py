import pytest
import torch
from torch import nn

from exml_lightning.core.errors import BrokenExpertError
from exml_lightning.core.expert import Expert
from exml_lightning.core.familiarity import LayerShares
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.scales import ScoreWeights
from exml_lightning.core.score_table import ScoreTable
from exml_lightning.core.teachers import Teachers

FORMAT = ImageFormat((1, 8, 8), (0.3,), (0.5,))
CHUNK = FORMAT.chunk
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
    """Makes teachers of 5 classes with an expert of two, and what they consist of."""

    def make(known=KNOWN, broken=None, **options):
        previous = Counting(make_expert(classes=range(5), seed=1).model)
        expert = make_expert(classes=(1, 3))
        if broken is not None:
            expert.model[-1].bias.data[3] = broken
        return Teachers(expert, previous, known, IMAGES, **options), expert, previous

    return make


def test_both_are_asked(teachers):
    asked, expert, previous = teachers()
    answers = asked.ask(IMAGES)
    torch.testing.assert_close(answers.expert, expert.model(IMAGES)[:, [1, 3]])
    torch.testing.assert_close(answers.previous, previous.network(IMAGES))
    assert answers.classes.tolist() == [1, 3]
    assert torch.equal(answers.known, KNOWN)
    assert not answers.previous.requires_grad


def test_who_knows_nothing_is_not_asked(teachers):
    asked, expert, previous = teachers(torch.zeros(5, dtype=torch.bool))
    answers = asked.ask(IMAGES)
    assert previous.images == 0
    torch.testing.assert_close(answers.expert, expert(IMAGES))
    assert torch.equal(answers.previous, torch.zeros(len(IMAGES), 5))


def test_answers_about_images_that_stay_are_remembered(teachers):
    asked, expert, previous = teachers(images_stay=True)
    assert previous.images == len(IMAGES)
    rows = torch.tensor([CHUNK + 2, 0, 7, 7])
    answers = asked.ask(torch.full((4, 1, 8, 8), torch.nan), rows)
    assert previous.images == len(IMAGES)
    torch.testing.assert_close(answers.expert, expert(IMAGES[rows]))
    torch.testing.assert_close(answers.previous, previous.network(IMAGES[rows]))


def test_pixels_are_normalised(make_expert):
    pixels = torch.randint(0, 256, (CHUNK + 3, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    expert, previous, weights = make_expert(classes=(1, 3)), make_expert(classes=range(5), seed=1).model, ScoreWeights()
    asked = Teachers(expert, previous, KNOWN, pixels, images_stay=True, weights=weights, reference=pixels[:200])
    answers, images = asked.ask(pixels[:2], torch.tensor([CHUNK + 2, 0])), (pixels / 255 - 0.3) / 0.5
    torch.testing.assert_close(answers.expert, ScoreTable(expert(images[:200]))(expert(images[[CHUNK + 2, 0]])))
    torch.testing.assert_close(answers.previous, previous(images[[CHUNK + 2, 0]]))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e30])
@pytest.mark.parametrize("options", [{"images_stay": True}, {"weights": ScoreWeights()}])
def test_answers_that_cannot_be_are_found_when_all_are_asked(teachers, options, value):
    with pytest.raises(BrokenExpertError, match=rf"{len(IMAGES)} of {len(IMAGES)} images asked about before"):
        teachers(broken=value, **options)


def test_normal_scores_are_those_among_the_answers_for_the_buffer(teachers):
    asked, expert, previous = teachers(weights=ScoreWeights())
    images = IMAGES[:5] + 0.3
    answers = asked.ask(images)
    torch.testing.assert_close(answers.expert, ScoreTable(expert(IMAGES))(expert(images)))
    torch.testing.assert_close(answers.previous, previous.network(images))


@pytest.mark.parametrize("reference", [None, 2 * IMAGES])
def test_remembered_answers_are_put_on_the_scale(make_expert, reference):
    expert, previous = make_expert(classes=(1, 3)), make_expert(classes=range(5), seed=1).model
    counted = []
    expert.model.register_forward_hook(lambda module, inputs, outputs: counted.append(len(outputs)))
    weights = ScoreWeights(raw_logits=0.5)
    asked = Teachers(expert, previous, KNOWN, IMAGES, images_stay=True, weights=weights, reference=reference)
    assert sum(counted) == len(IMAGES) * (1 if reference is None else 2)  # the expert has said all there is to say
    rows = expert(IMAGES[[4, 1]])
    expected = ScoreTable(expert(IMAGES if reference is None else reference))(rows) + 0.5 * rows
    torch.testing.assert_close(asked.ask(IMAGES[:5], torch.tensor([4, 1])).expert, expected)


@pytest.mark.parametrize("stay", [False, True])
def test_in_a_straight_line_the_previous_ex_model_is_put_on_the_scale_anew(teachers, stay):
    asked, expert, previous = teachers(images_stay=stay, weights=ScoreWeights(straight=True))
    answers = asked.ask(IMAGES, torch.arange(len(IMAGES)))
    for said, logits in ((answers.expert, expert(IMAGES)), (answers.previous, previous.network(IMAGES))):
        torch.testing.assert_close(said, (logits - logits.mean(dim=0)) / logits.std(dim=0, correction=0))
    assert previous.images == (1 if stay else 2) * len(IMAGES)
    learned = torch.rand(len(IMAGES), 5)
    kept, _, previous = teachers(images_stay=True, learned=learned, weights=ScoreWeights(straight=True))
    assert torch.equal(kept.ask(IMAGES, torch.arange(len(IMAGES))).previous, learned)
    assert not previous.images
    compared = teachers(images_stay=stay, weights=ScoreWeights(straight=True), reference=IMAGES[:9])[0]
    logits = teachers()[2].network(IMAGES)
    expected = (logits - logits[:9].mean(dim=0)) / logits[:9].std(dim=0, correction=0)
    torch.testing.assert_close(compared.ask(IMAGES, torch.arange(len(IMAGES))).previous, expected)


def test_the_previous_ex_model_itself_is_asked_about_all_images_and_the_compiled_one_in_steps(teachers):
    compiled = []

    def ready(network):
        compiled.append(Counting(network))
        return compiled[-1]

    asked, _, previous = teachers(weights=ScoreWeights(straight=True), ready=ready)
    assert not any(network.images for network in compiled)
    asked.ask(IMAGES[:4])
    assert [network.images for network in compiled] == [4, 4]
    assert previous.images == len(IMAGES) + 4


@pytest.mark.parametrize("stay", [False, True])
def test_familiarity_is_added_to_the_classes_the_expert_knows(make_expert, stay):
    expert, previous = make_expert(classes=(1, 3)), make_expert(classes=range(5), seed=1).model
    compiled = []
    weights = ScoreWeights(raw_logits=0.3, familiarity=0.5)
    asked = Teachers(
        expert,
        previous,
        KNOWN,
        IMAGES,
        stay,
        weights=weights,
        ready=lambda network: compiled.append(network) or network,
    )
    assert compiled == [previous]  # shares are looked at by hooks, which a compiled network may not have
    images = IMAGES[:4]
    found = asked.ask(images, torch.arange(4) if stay else None).expert

    shares = LayerShares(expert)
    reference, here = shares(expert, IMAGES), shares(expert, images)
    counts = shares.weights / shares.weights.sum()
    scores = ScoreTable(reference[0], 0.3)(here[0])
    familiar = sum(count * ScoreTable(reference[1][:, [i]])(here[1][:, [i]]) for i, count in enumerate(counts))
    assert familiar.abs().min() > 0.01
    torch.testing.assert_close(found, scores + 0.5 * familiar, rtol=1e-4, atol=1e-4)


def test_what_was_learned_is_not_asked_for_again(make_expert):
    """The previous ex-model is not asked, and what the buffer has kept stands for it."""
    expert, previous = make_expert(classes=(1, 3)), Counting(make_expert(classes=range(5), seed=1).model)
    learned, weights = torch.randn(len(IMAGES), 5), ScoreWeights(raw_logits=0.5)
    asked = Teachers(expert, previous, KNOWN, IMAGES, images_stay=True, learned=learned, weights=weights)
    answers, rows = asked.ask(IMAGES[:2], torch.tensor([4, 1])), torch.tensor([4, 1])
    assert torch.equal(answers.previous, learned[rows])
    torch.testing.assert_close(answers.expert, ScoreTable(expert(IMAGES), 0.5)(expert(IMAGES[rows])))
    every = asked.all_answers
    assert torch.equal(every.previous, learned)
    torch.testing.assert_close(every.expert, ScoreTable(expert(IMAGES), 0.5)(expert(IMAGES)))
    assert previous.images == 0
    assert Teachers(expert, previous, KNOWN, IMAGES).all_answers is None


def test_an_expert_with_no_layer_that_tells_is_scored_without_familiarity():
    expert = Expert(nn.Sequential(nn.Flatten(), nn.Linear(64, 64)), (1, 3), (1, 3), FORMAT)
    compiled = []
    weights = ScoreWeights(raw_logits=0.3, familiarity=2)
    asked = Teachers(
        expert,
        expert,
        torch.zeros(5, dtype=torch.bool),
        IMAGES,
        weights=weights,
        ready=lambda network: compiled.append(network) or network,
    )
    torch.testing.assert_close(asked.ask(IMAGES[:9]).expert, ScoreTable(expert(IMAGES), 0.3)(expert(IMAGES[:9])))
    assert compiled == [expert.model]


def test_a_layer_whose_shares_differ_by_rounding_alone_does_not_count():
    """Grey images in three equal channels, of which a 1x1 convolution takes in the same share of each."""
    grey = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(-1, 3, -1, -1)
    layers = nn.Sequential(nn.Conv2d(3, 1, 1), nn.Flatten(), nn.Linear(64, 2))
    expert = Expert(layers, (0, 1), (0, 1), ImageFormat((3, 8, 8), (0.5,) * 3, (0.5,) * 3))
    asked = Teachers(expert, layers, torch.zeros(2, dtype=torch.bool), grey, weights=ScoreWeights(familiarity=1))
    _, shares = LayerShares(expert)(expert.model, grey)
    assert shares[:, 0].std() < 1e-6
    expected = ScoreTable(expert(grey))(expert(grey)) + ScoreTable(shares[:, 1:])(shares[:, 1:])
    torch.testing.assert_close(asked.ask(grey).expert, expected, rtol=1e-3, atol=1e-3)
