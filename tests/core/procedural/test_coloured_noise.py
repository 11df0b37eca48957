import numpy as np
import pytest
import torch

from exml_lightning.core.procedural import ColouredNoise
from exml_lightning.core.rng import keyed_generator


def draw(noise, n=64, shape=(3, 64, 64)):
    return noise.draw(n, shape, keyed_generator("noise"), torch.device("cpu")) / 255


def plain(**settings):
    """Noise too faint to be clipped."""
    return ColouredNoise(**{"brightness": (0.5, 0.5), "contrast": (0.05, 0.05), **settings})


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_the_amplitude_falls_by_the_exponent(exponent, size):
    images = draw(plain(exponent=(exponent, exponent)), 40, (1, *size)).double().numpy()[:, 0]
    power = (np.abs(np.fft.fft2(images)) ** 2).mean(axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size[0]), np.fft.fftfreq(size[1]), indexing="ij"))
    rings = np.geomspace(0.04, 0.5, 10)
    where = np.digitize(frequency, rings)
    amplitude = [np.sqrt(power[where == k].mean()) for k in range(1, 10)]
    middle = [np.exp(np.log(frequency[where == k]).mean()) for k in range(1, 10)]
    assert np.polyfit(np.log(middle), np.log(amplitude), 1)[0] == pytest.approx(-exponent, abs=0.07)


def test_brightness_and_contrast_are_drawn():
    drawn = draw(ColouredNoise(brightness=(0.4, 0.6), contrast=(0.02, 0.06)), 300, (3, 16, 16))
    means = drawn.mean(dim=(2, 3))
    assert means.min() > 0.4 - 1e-3
    assert means.max() < 0.6 + 1e-3
    assert means.std() == pytest.approx(0.2 / 12**0.5, rel=0.1)
    spread = (drawn - means[:, :, None, None]).square().mean(dim=(1, 2, 3)).sqrt()
    assert spread.min() > 0.02 - 1e-3
    assert spread.max() < 0.06 + 1e-3
    assert spread.std() == pytest.approx(0.04 / 12**0.5, rel=0.15)


def test_channels_are_related_differently_in_each_image():
    red, green, _ = draw(plain(exponent=(0, 0)), 300, (3, 16, 16)).transpose(0, 1).flatten(2)
    red, green = (each - each.mean(dim=1, keepdim=True) for each in (red, green))
    related = (red * green).sum(dim=1) / (red.norm(dim=1) * green.norm(dim=1))
    # the cosine of two random vectors in space is uniform in [-1, 1]
    assert related.abs().mean() == pytest.approx(0.5, abs=0.06)
    assert related.mean().abs() < 0.1
