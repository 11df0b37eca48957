from types import SimpleNamespace

import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.generators import Auxiliary, Noise
from exml_lightning.core.rng import keyed_generator


class Images:
    def __init__(self, pixels):
        self.pixels = pixels

    def draw(self, num_images, generator, progress=None):
        return self.pixels[torch.randperm(30, generator=generator)[:num_images]]

    def describe(self):
        return "thirty images"


def test_auxiliary_images_are_labelled_by_the_expert(make_expert):
    expert = make_expert(classes=(4, 0), outputs=(1, 2))
    pixels = torch.randint(0, 256, (30, 1, 8, 8), generator=keyed_generator("p"), dtype=torch.uint8)
    auxiliary = Auxiliary()
    auxiliary.connect(SimpleNamespace(other_images=lambda: Images(pixels)))
    assert auxiliary.describe()["auxiliary"] == "thirty images"
    buffer = auxiliary.generate(expert, 12, keyed_generator("draw"))
    drawn = pixels[torch.randperm(30, generator=keyed_generator("draw"))[:12]]
    assert torch.equal(buffer.images, drawn)
    units = expert.model((drawn / 255 - 0.3) / 0.5)[:, [1, 2]]
    assert buffer.labels.tolist() == [4 if a >= b else 0 for a, b in units.tolist()]


def test_auxiliary_without_images_is_refused(make_expert):
    with pytest.raises(ExmlError, match=r"data\.auxiliary"):
        Auxiliary().generate(make_expert(), 3, keyed_generator())


def test_noise_is_gaussian_within_the_range_of_pixels(make_expert):
    expert = make_expert()
    buffer = Noise().generate(expert, 200, keyed_generator("noise"))
    expected = torch.randn(200, 1, 8, 8, generator=keyed_generator("noise")).clamp(-0.6, 1.4)
    torch.testing.assert_close(buffer.images, expected)
    assert torch.equal(buffer.labels, expert.classes[expert(buffer.images).argmax(dim=1)])
