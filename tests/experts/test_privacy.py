import math
from dataclasses import replace

import pytest

from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.expert_module import ExpertRecipe
from exml_lightning.experts.privacy import NoisePlan, PrivacySettings, plan_noise, statistics_noise

RECIPE = ExpertRecipe(epochs=50, batch_size=32)


def normal_cdf(x: float) -> float:
    return math.erfc(-x / math.sqrt(2)) / 2


def test_epsilon_of_steps_on_all_images_is_that_of_one_gaussian():
    noise, steps, delta = 20.0, 100, 1e-3
    epsilon = NoisePlan(1.0, noise, 1.0, delta).spent(steps).epsilon
    # so many Gaussian mechanisms are one with mean sqrt(steps) / noise (Balle and Wang 2018, Theorem 8, is exact)
    mean = math.sqrt(steps) / noise

    def exact_delta(e: float) -> float:
        return normal_cdf(mean / 2 - e / mean) - math.exp(e) * normal_cdf(-mean / 2 - e / mean)

    assert exact_delta(epsilon) < delta < exact_delta(0.8 * epsilon)
    # and its Renyi divergence is order * mean^2 / 2, from which epsilon follows (Canonne et al. 2020, Proposition 12)
    orders = [1 + x / 10 for x in range(1, 500)]
    bounds = [a * mean**2 / 2 + math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1) for a in orders]
    assert epsilon == pytest.approx(min(bounds), rel=1e-3)


@pytest.mark.parametrize("epsilon", [0.5, 1.0, 3.0])
def test_epsilon_of_sampled_steps_is_the_closed_form_of_whole_orders(epsilon):
    plan = plan_noise(PrivacySettings(epsilon), RECIPE, 290, "expert 0")
    assert (plan.sample_rate, plan.delta) == (1 / 10 + 2**-23, 1 / 2900)  # ten steps of up to 32 for 290 images
    steps, q, s = 50 * 10, plan.sample_rate, plan.noise_multiplier

    def closed_form(a: int) -> float:  # Mironov, Talwar and Zhang 2019, Section 3.3
        terms = [
            math.comb(a, k) * (1 - q) ** (a - k) * q**k * math.exp((k * k - k) / (2 * s * s)) for k in range(a + 1)
        ]
        return steps * math.log(sum(terms)) / (a - 1)

    bound = min(
        closed_form(a) + math.log1p(-1 / a) - (math.log(plan.delta) + math.log(a)) / (a - 1) for a in range(2, 40)
    )
    spent = plan.spent(steps)
    assert spent.delta == 1 / 2900
    assert spent.epsilon <= bound + 1e-9  # orders between the whole ones can only lower it
    assert spent.epsilon == pytest.approx(bound, rel=0.02)
    # the noise is no more than it takes
    assert epsilon - 0.011 < spent.epsilon <= epsilon
    assert replace(plan, noise_multiplier=0.98 * s).spent(steps).epsilon > epsilon
    assert plan.spent(steps // 2).epsilon < spent.epsilon < plan.spent(steps + 10).epsilon


def test_another_accountant_finds_no_more_spent():
    from opacus.accountants import create_accountant

    plan = plan_noise(PrivacySettings(3.0), RECIPE, 290, "expert 0")
    tight = create_accountant("prv")  # numerical, by Fourier transforms of the privacy loss (Gopi et al. 2021)
    tight.history = [(plan.noise_multiplier, plan.sample_rate, 500)]
    spent = plan.spent(500).epsilon
    assert 0.8 * spent < tight.get_epsilon(plan.delta) < spent


def test_noise_on_statistics_is_that_of_one_gaussian_mechanism():
    """Renyi divergence of order a: a / (2 s^2) (Mironov 2017, corollary 3)."""
    found = statistics_noise(2.0, 1e-5, 1000, "expert 0")
    s, delta = found.multiplier, 1e-5
    bound = min(
        a / (2 * s * s) + math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1)
        for a in (1 + x / 10 for x in range(1, 400))
    )
    assert found.spent.epsilon == pytest.approx(bound, rel=0.01)
    assert 1.98 < found.spent.epsilon <= 2
    assert statistics_noise(2.0, None, 1000, "expert 0").spent.delta == 1e-4
    with pytest.raises(ExmlError, match=r"epsilon 1e-05 is too low for any noise on expert 3"):
        statistics_noise(1e-5, None, 1000, "expert 3")


def test_weights_and_statistics_spend_no_more_than_both_may():
    """Together less than the sum of both: divergences add up, not epsilons."""
    alone = plan_noise(PrivacySettings(4.0), RECIPE, 290, "expert 0")
    both = plan_noise(PrivacySettings(4.0), RECIPE, 290, "expert 0", statistics=True)
    assert both.noise_multiplier > alone.noise_multiplier
    steps = RECIPE.epochs * math.ceil(290 / RECIPE.batch_size)
    assert 3.96 < both.spent(steps).epsilon <= 4
    beside = statistics_noise(2.0, None, 290, "expert 0")
    assert both.statistics == beside.multiplier
    weights = replace(both, statistics=None).spent(steps).epsilon
    assert weights < 4 < weights + beside.spent.epsilon


def test_a_batch_larger_than_the_set_is_the_whole_set():
    plan = plan_noise(PrivacySettings(8.0), RECIPE, 20, "expert 0")
    assert plan.sample_rate == 1
    assert 7.98 < plan.spent(50).epsilon <= 8  # one step an epoch


def test_a_delta_that_protects_no_one_and_an_epsilon_that_no_noise_gives_are_refused():
    assert plan_noise(PrivacySettings(1.0, delta=1e-5), RECIPE, 290, "expert 2").delta == 1e-5
    with pytest.raises(ExmlError, match=r"delta is 0\.01, but expert 2 has 100 training images"):
        plan_noise(PrivacySettings(8.0, delta=0.01), RECIPE, 100, "expert 2")
    with pytest.raises(ExmlError, match=r"privacy\.epsilon 0\.001 is too low for any noise on expert 2"):
        plan_noise(PrivacySettings(0.001), RECIPE, 290, "expert 2")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon": 0.0}, r"privacy\.epsilon is 0\.0"),
        ({"epsilon": math.nan}, r"privacy\.epsilon is nan"),
        ({"epsilon": 1.0, "delta": 1.0}, r"privacy\.delta is 1\.0"),
        ({"epsilon": 1.0, "max_grad_norm": 0.0}, r"privacy\.max_grad_norm is 0\.0"),
        ({"max_grad_norm": 0.5}, r"privacy\.epsilon is null"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ExmlError, match=message):
        PrivacySettings(**wrong)
