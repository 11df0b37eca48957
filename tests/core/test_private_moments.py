import math

import numpy as np
import pytest
import torch

from exml_lightning.core.private_moments import CLIP, GaussianMechanism, without_noise
from exml_lightning.core.rng import keyed_generator


class Silent(GaussianMechanism):
    """Adds nothing, so that what one image changes can be seen."""

    def noise(self, *shape):
        return torch.zeros(*shape, dtype=torch.float64)


def mechanism(multiplier=1.0, kind=GaussianMechanism):
    return kind(multiplier, np.random.default_rng(1))


def sums(mean, covariance, images):
    """What noise was added to, as one vector: sums in units of the clipping, the upper half of the matrix."""
    outer = (covariance + torch.outer(mean, mean)) * images / CLIP**2
    return torch.cat([mean * images / CLIP, outer[*torch.triu_indices(len(mean), len(mean))]]) / math.sqrt(2)


@pytest.mark.parametrize("length", [0.3, 2.0, 50.0])
def test_one_image_changes_what_noise_is_added_to_by_1_at_most(length):
    values = torch.randn(20, 6, generator=keyed_generator("values"))
    more = torch.nn.functional.normalize(torch.randn(1, 6, generator=keyed_generator("more"))) * length
    silent = mechanism(1e-9, Silent)
    before, after = (silent.moments(each, 20)[:2] for each in (values, torch.cat([values, more])))
    change = float((sums(*after, 20) - sums(*before, 20)).norm())
    assert 0 < change <= 1 + 1e-9
    wide = torch.linspace(-9, 9, 7)
    for extra in (-50.0, 0.0, 1.3, 50.0):
        pair = []
        for numbers in (wide, torch.cat([wide, torch.tensor([extra])])):
            mean, deviation = silent.mean_and_deviation(numbers, -2, 3, 8)
            u = (mean - 0.5) / 2.5  # in its units; the mechanism below adds nothing, so no deviation is hidden
            pair.append(torch.tensor([u, (deviation / 2.5) ** 2 + u**2]) * 8 / math.sqrt(2))
        assert float((pair[1] - pair[0]).norm()) <= 1 + 1e-6


def test_noise_has_the_deviation_that_privacy_asks_for():
    """On the sums: the multiplier; so on a mean, times sqrt(2) CLIP / n, on a matrix CLIP more."""
    values, plain = torch.zeros(100, 60), mechanism(1e-9, Silent)
    mean, covariance, edge = mechanism(3.0).moments(values, 100)
    none, nothing, _ = plain.moments(values, 100)
    own = (3 * math.sqrt(2) * CLIP / 100) ** 2  # what the noise of the mean takes away, and is given back
    covariance = covariance - own * torch.eye(60, dtype=torch.float64)
    assert float((mean - none).std()) == pytest.approx(3 * math.sqrt(2) * CLIP / 100, rel=0.3)
    noise = (covariance + torch.outer(mean, mean) - nothing)[*torch.triu_indices(60, 60)]
    assert float(noise.std()) == pytest.approx(3 * math.sqrt(2) * CLIP**2 / 100, rel=0.06)
    assert torch.equal(covariance, covariance.T)
    assert float(torch.linalg.eigvalsh(covariance).max()) == pytest.approx(edge, rel=0.2)


def test_what_is_no_number_is_bounded_like_the_rest():
    values = torch.randn(20, 6, generator=keyed_generator("values"))
    wild = torch.tensor([[math.nan, math.inf, -math.inf, 0.1, 3e38, 1.0]])
    silent = mechanism(1e-9, Silent)
    before, after = (silent.moments(each, 20)[:2] for each in (values, torch.cat([values, wild])))
    assert 0 < float((sums(*after, 20) - sums(*before, 20)).norm()) <= 1 + 1e-6
    assert silent.mean_and_deviation(torch.tensor([math.nan, 0.4, 0.6]), -2, 3, 3)[0] == pytest.approx(0.5)


def test_a_deviation_is_no_less_than_what_noise_hides():
    """Of few images noise would often make it 0, and every image strange."""
    found = [GaussianMechanism(1.0, np.random.default_rng(s)).mean_and_deviation(torch.full((70,), 3.0), 2, 5, 70)[1]
             for s in range(50)]  # fmt: skip
    assert min(found) >= 1.5 * math.sqrt(math.sqrt(2) / 70) - 1e-9


def test_eigenvalues_are_what_they_were_before_noise():
    draws, size, largest = keyed_generator("matrix"), 400, 3.0
    direction = torch.nn.functional.normalize(torch.randn(size, generator=draws, dtype=torch.float64), dim=0)
    noise = torch.randn(size, size, generator=draws, dtype=torch.float64).triu() * 0.05
    noisy = largest * torch.outer(direction, direction) + noise + noise.triu(1).T
    edge = 2 * math.sqrt(size) * 0.05
    found = without_noise(torch.linalg.eigvalsh(noisy).flip(0), edge)
    assert float(found[0]) == pytest.approx(largest, rel=0.03)
    assert found[2:].max() < 0.7 * largest
    assert torch.equal(without_noise(torch.tensor([edge - 0.01, 0.0]), edge), torch.zeros(2))
    assert torch.equal(without_noise(torch.tensor([2.0, 1.0]), 0.0), torch.tensor([2.0, 1.0]))


def test_who_is_held_back_does_not_depend_on_others():
    first, more = (mechanism().held_back(n, 0.2) for n in (500, 600))
    assert torch.equal(first, more[:500])
    assert not torch.equal(GaussianMechanism(1.0).held_back(500, 0.2), GaussianMechanism(1.0).held_back(500, 0.2))
    assert 60 < int(first.sum()) < 140
