import torch

from exml_lightning.core.generators import Unrelated, UnrelatedPhotographs
from exml_lightning.core.procedural import DeadLeaves, Mixture, Strokes
from exml_lightning.core.rng import keyed_generator

CPU = torch.device("cpu")


class Photos:
    """Thirty grey images, of which it draws those with the numbers that the generator says."""

    def draw(self, num_images, generator, progress=None):
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

    def other_images(self):
        return Photos()


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


def test_where_nothing_is_given_drawings_are_of_two_kinds(make_expert):
    unrelated = Unrelated()
    unrelated.connect(Sources(None))
    assert unrelated.describe() == {"generator": unrelated.settings()}
    kinds = Mixture([Strokes(), DeadLeaves()])
    drawn = kinds.draw(40, (1, 8, 8), keyed_generator("draw"), CPU)
    assert torch.equal(unrelated.generate(make_expert(), 40, keyed_generator("draw")).images, drawn)


def test_photographs_alone_are_the_scenarios_where_none_are_given(make_expert):
    photographs = UnrelatedPhotographs()
    photographs.connect(Sources(None))
    drawn = Photos().draw(9, keyed_generator("draw"))
    assert torch.equal(photographs.generate(make_expert(), 9, keyed_generator("draw")).images, drawn)
    assert photographs.describe()["auxiliary"] == "thirty images"
