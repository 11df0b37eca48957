import numpy as np
import pytest
import torch
from torch import nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators.unrelated import DRAWINGS
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.measure_statistics import NUM_DRAWINGS, measure
from exml_lightning.core.private_moments import GaussianMechanism
from exml_lightning.core.rng import keyed_generator
from tests.core.test_class_statistics import covariances

FORMAT = ImageFormat((1, 2, 2), (0.25,), (0.5,))


class Flat(nn.Module):
    """Its middle layer of three is given four pixels, as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.first.weight.data, self.first.bias.data = torch.eye(4), torch.zeros(4)

    def forward(self, images):
        return self.third(self.second(self.first(images.flatten(1))))


def test_moments_are_those_of_the_images():
    expert = Expert(Flat(), [3, 7], [0, 1], FORMAT)
    pixels = torch.randint(256, (4000, 1, 2, 2), generator=keyed_generator("pixels")).byte()
    columns = torch.arange(4000) % 2
    pixels[columns == 1] //= 2
    shown: list[float] = []
    found = measure(expert, pixels, columns, progress=shown.append)
    assert sum(shown) == len(pixels) + NUM_DRAWINGS
    values = FORMAT.to_input(pixels).flatten(1).repeat(1, 2)  # the thumbnail, and what the layer is given
    assert (found.layer, found.images.tolist()) == ("second", [2000, 2000])
    for column in range(2):
        own = values[columns == column]
        torch.testing.assert_close(found.means[column] * found.units, own.mean(dim=0), rtol=0, atol=0.03)
        whole = list(covariances(found))[column] * found.units * found.units[:, None]
        torch.testing.assert_close(whole, own.T.cov(correction=0), rtol=0, atol=0.03)
    strange = found.strangeness(values)
    assert abs(float(strange.mean())) < 0.1
    assert 0.9 < float(strange.std()) < 1.1
    assert float(found.strangeness(values + 20).min()) > 3


def test_too_few_images_of_a_class_are_refused():
    expert = Expert(Flat(), [3, 7], [0, 1], FORMAT)
    with pytest.raises(ExmlError, match="expert 0: 1 images of its class 7: give 20 or more"):
        measure(expert, torch.zeros(30, 1, 2, 2).byte(), torch.tensor([1] + [0] * 29))


def test_units_are_the_spread_of_drawings_which_images_do_not_change():
    expert, pixels = Expert(Flat(), [3, 7], [0, 1], FORMAT), torch.randint(256, (60, 1, 2, 2)).byte()
    found = measure(expert, pixels, torch.arange(60) % 2)
    drawn = DRAWINGS.draw(1000, (1, 2, 2), keyed_generator("units"), torch.device("cpu"))
    spread = FORMAT.to_input(drawn).flatten(1).var(dim=0).sum().sqrt()
    torch.testing.assert_close(found.units, spread.expand(8))
    assert torch.equal(measure(expert, pixels // 3, torch.arange(60) % 2).units, found.units)


def test_a_private_release_with_little_noise_is_near_the_moments():
    expert = Expert(Flat(), [3, 7], [0, 1], FORMAT)
    pixels = torch.randint(90, 166, (40_000, 1, 2, 2), generator=keyed_generator("pixels")).byte()
    columns = torch.arange(40_000) % 2
    pixels[columns == 1] += 80
    plain = measure(expert, pixels, columns)
    found = measure(expert, pixels, columns, GaussianMechanism(0.5, np.random.default_rng(3)))
    assert not torch.equal(found.means, plain.means)
    torch.testing.assert_close(found.means, plain.means, rtol=0, atol=0.02)
    for private, exact in zip(covariances(found), covariances(plain), strict=True):
        torch.testing.assert_close(private, exact, rtol=0, atol=0.02)
    torch.testing.assert_close(found.distance, plain.distance, rtol=0.1, atol=0.05)
    noisy = measure(expert, pixels, columns, GaussianMechanism(1e4, np.random.default_rng(3)))
    assert all(tensor.isfinite().all() for tensor in noisy.tensors().values())  # hidden, and still to be read
    assert (noisy.means - plain.means).abs().max() > 0.2
    assert min(float(noisy.variances.min()), float(noisy.rest.min()), float(noisy.distance[1])) > 0


class Broken(Flat):
    """Its middle layer is given NaN for black images."""

    def forward(self, images):
        return self.third(self.second(self.first(images.flatten(1)).log()))


def test_features_that_are_no_numbers_are_refused():
    expert = Expert(Broken(), [3, 7], [0, 1], FORMAT)
    with pytest.raises(ExmlError, match="expert 0: what its layer second is given is NaN or infinite"):
        measure(expert, torch.zeros(60, 1, 2, 2).byte(), torch.arange(60) % 2)
