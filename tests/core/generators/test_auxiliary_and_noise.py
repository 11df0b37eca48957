import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.generators import Auxiliary, Noise
from exml_lightning.core.rng import keyed_generator


def test_auxiliary_images_are_labelled_by_the_expert(make_expert):
    expert = make_expert(classes=(4, 0), outputs=(1, 2))
    pixels = torch.randint(0, 256, (30, 1, 8, 8), generator=keyed_generator("p"), dtype=torch.uint8)
    auxiliary = Auxiliary()
    auxiliary.draw = lambda n, generator: pixels[torch.randperm(30, generator=generator)[:n]]
    buffer = auxiliary.generate(expert, 12, keyed_generator("draw"))
    drawn = pixels[torch.randperm(30, generator=keyed_generator("draw"))[:12]]
    expected = (drawn / 255 - 0.3) / 0.5
    torch.testing.assert_close(buffer.images, expected)
    units = expert.model(expected)[:, [1, 2]]
    assert buffer.labels.tolist() == [4 if a >= b else 0 for a, b in units.tolist()]


def test_the_whole_set_is_taken_however_many_are_asked_for(make_expert):
    expert = make_expert(classes=(4, 0), outputs=(1, 2))
    pixels = torch.randint(0, 256, (30, 1, 8, 8), generator=keyed_generator("p"), dtype=torch.uint8)
    asked = []
    auxiliary = Auxiliary(whole_set=True)
    auxiliary.draw = lambda n, generator: asked.append(n) or pixels
    for num_samples in (1, 12, 100):
        buffer = auxiliary.generate(expert, num_samples, keyed_generator("draw"))
        torch.testing.assert_close(buffer.images, (pixels / 255 - 0.3) / 0.5)
        assert torch.equal(buffer.labels, expert.classes[expert(buffer.images).argmax(dim=1)])
    assert asked == [None] * 3


def test_settings_of_auxiliary_name_the_whole_set():
    auxiliary = Auxiliary(whole_set=True)
    auxiliary.draw = lambda n, generator: torch.zeros(1)
    class_path = "exml_lightning.core.generators.auxiliary.Auxiliary"
    assert auxiliary.settings() == {"class": class_path, "whole_set": True}
    assert Auxiliary().settings() == {"class": class_path, "whole_set": False}


def test_auxiliary_without_images_is_refused(make_expert):
    with pytest.raises(ExmlError, match=r"data\.auxiliary"):
        Auxiliary().generate(make_expert(), 3, keyed_generator())


def test_noise_is_gaussian_within_the_range_of_pixels(make_expert):
    expert = make_expert()
    buffer = Noise().generate(expert, 200, keyed_generator("noise"))
    expected = torch.randn(200, 1, 8, 8, generator=keyed_generator("noise")).clamp(-0.6, 1.4)
    torch.testing.assert_close(buffer.images, expected)
    assert torch.equal(buffer.labels, expert.classes[expert(buffer.images).argmax(dim=1)])
