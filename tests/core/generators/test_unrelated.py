import pytest
import torch
from torch import nn

from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import Unrelated
from exml_lightning.core.generators.unrelated import KINDS, most_familiar
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.procedural import ColouredNoise, DeadLeaves, Mixture, Strokes
from exml_lightning.core.rng import keyed_generator
from exml_lightning.data import ExpertStream

CPU = torch.device("cpu")


class Photos:
    """Thirty grey images, of which it draws those with the numbers that the generator says."""

    def draw(self, num_images, generator):
        numbers = torch.randint(30, (num_images,), generator=generator).byte()
        return numbers[:, None, None, None].expand(-1, 1, 8, 8)

    def describe(self):
        return "thirty images"


class Sources:
    """Has images that were given, or none."""

    def __init__(self, given):
        self.given = given

    def given_images(self):
        return self.given


def test_drawings_are_labelled_by_the_expert(make_expert):
    expert, done = make_expert(classes=(4, 0), outputs=(1, 2)), []
    images = Strokes(curves=(2, 4))
    buffer = Unrelated(images).generate(expert, 30, keyed_generator("draw"), done.append)
    pixels = images.draw(30, (1, 8, 8), keyed_generator("draw"), CPU)
    assert torch.equal(buffer.images, pixels)
    units = expert.model((pixels / 255 - 0.3) / 0.5)[:, [1, 2]]
    assert buffer.labels.tolist() == [4 if a >= b else 0 for a, b in units.tolist()]
    assert sum(done) == 30


def test_images_that_were_given_come_before_drawings_unless_these_are_named(make_expert):
    unrelated, named = Unrelated(), Unrelated(Strokes())
    for each in (unrelated, named):
        each.connect(Sources(Photos()))
    drawn = Photos().draw(9, keyed_generator("draw"))
    assert torch.equal(unrelated.generate(make_expert(), 9, keyed_generator("draw")).images, drawn)
    assert unrelated.describe()["auxiliary"] == "thirty images"
    strokes = Strokes().draw(9, (1, 8, 8), keyed_generator("draw"), CPU)
    assert torch.equal(named.generate(make_expert(), 9, keyed_generator("draw")).images, strokes)
    unrelated.connect(Sources(None))
    assert unrelated.describe() == {"generator": unrelated.settings()}


def test_half_of_the_drawings_are_of_the_kind_that_the_expert_takes_in_most(digit_experts):
    """The shipped experts have seen digits."""
    expert = ExpertStream(experts=str(digit_experts)).load_expert(0, CPU)
    assert most_familiar(expert) == Strokes()
    buffer = Unrelated().generate(expert, 40, keyed_generator("draw"))
    kinds = Mixture([Strokes(), Mixture([Strokes(), DeadLeaves(), ColouredNoise()])])
    assert torch.equal(buffer.images, kinds.draw(40, (1, 32, 32), keyed_generator("draw"), CPU))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_the_kind_that_an_expert_was_made_of_is_found(kind):
    """A linear layer whose rows are the principal directions of some drawings takes in most of such."""
    image_format = ImageFormat((1, 16, 16), (0.5,), (0.25,))
    pixels = kind.draw(400, (1, 16, 16), keyed_generator("made of"), CPU)
    directions = torch.linalg.svd(image_format.to_input(pixels).flatten(1), full_matrices=False).Vh[:24]
    layer = nn.Linear(256, 24)
    layer.weight.data = directions
    expert = Expert(nn.Sequential(nn.Flatten(), layer), (0, 1), (0, 1), image_format)
    assert most_familiar(expert) == kind


def test_an_expert_that_tells_nothing_is_shown_the_first_kind():
    expert = Expert(nn.Sequential(nn.Flatten(), nn.Linear(64, 64)), (0,), (0,), ImageFormat((1, 8, 8), (0.5,), (0.5,)))
    assert most_familiar(expert) == KINDS[0]
