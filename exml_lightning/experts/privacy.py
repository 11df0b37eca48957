"""Differential privacy of an expert: the settings, the noise they ask for, what was spent (docs/privacy.md)."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.expert_module import ExpertRecipe
from exml_lightning.experts.manifest import PrivacySpent

MECHANISM = "rdp"
"""Opacus's accountant by Renyi divergences (Mironov et al. 2019): a proven bound that holds for any amount of noise."""
STATISTICS_SHARE = 0.5
"""What the statistics of an expert would spend alone, of the epsilon of an expert that publishes them."""


@dataclass(frozen=True)
class PrivacySettings:
    """Differential privacy of the experts that `exml experts` trains, by DP-SGD (Abadi et al. 2016).

    What is published of an expert, its statistics included (``experts.statistics``), spends no more than this together.

    Two training sets that differ in one image give the same expert but for a factor exp(epsilon) in probability and an
    exception of probability delta.

    Args:
        epsilon: What each expert may spend; None trains without privacy. Needs the extra ``privacy``.
        delta: What each expert may spend, below 1 / n for n training images; None for 1 / (10 n).
        max_grad_norm: Norm to which the gradient of each image is clipped.
    """

    epsilon: float | None = None
    delta: float | None = None
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        for name in ("epsilon", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ExmlError(f"privacy.{name} is {value}: give a number greater than 0")
        if self.delta is not None and not 0 < self.delta < 1:
            raise ExmlError(f"privacy.delta is {self.delta}: give a probability, far below 1 / number of images")
        if self.epsilon is None and (self.delta is not None or self.max_grad_norm != 1):
            raise ExmlError("privacy.epsilon is null, so experts would not be private: give it, or no privacy.* at all")


@dataclass(frozen=True)
class NoisePlan:
    """How the steps of one expert are made private; `delta` is what `spent` is for.

    An image takes part in a step with a probability of at most `sample_rate`, whatever the others do (Poisson
    sampling); `noise_multiplier` is the standard deviation of the noise on the sum of gradients, divided by
    `max_grad_norm`, the norm to which that of each image is clipped. `statistics` is that of the noise on the sums that
    are published beside the weights (`core.private_moments.GaussianMechanism`), None for no such.
    """

    sample_rate: float
    noise_multiplier: float
    max_grad_norm: float
    delta: float
    statistics: float | None = None

    def spent(self, steps: int) -> PrivacySpent:
        """Ask the accountant what so many steps have spent, and the statistics with them."""
        own = (self.noise_multiplier, self.sample_rate, steps)
        history = (own,) if self.statistics is None else (own, (self.statistics, 1.0, 1))
        return _spent(history, self.delta)


@dataclass(frozen=True)
class StatisticsNoise:
    """Noise on the sums of an expert's statistics: its standard deviation, and what it spends."""

    multiplier: float
    spent: PrivacySpent


@cache  # experts of as many images ask the same, and an answer takes tens of milliseconds
def _spent(history: tuple[tuple[float, float, int], ...], delta: float) -> PrivacySpent:
    """Ask the accountant about noise multipliers, sample rates and numbers of steps."""
    from opacus.accountants import create_accountant

    accountant = create_accountant(MECHANISM)
    accountant.history = [*history]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that more orders could give a lower bound
        return PrivacySpent(float(accountant.get_epsilon(delta)), delta)


def check_installed(option: str = "privacy.epsilon") -> None:
    """Refuse what needs Opacus where it is missing; `option` asked for it."""
    if find_spec("opacus") is None:
        install = "pip install 'exml-lightning[privacy]' (in a clone: pip install -e '.[privacy]')"
        raise ExmlError(f"{option} needs Opacus, which is not installed: {install}")


def _delta(delta: float | None, images: int, name: str) -> float:
    if delta is not None and delta >= 1 / images:
        what = f"delta is {delta}, but {name} has {images} training images: give less than 1/{images}"
        raise ExmlError(f"{what}, or publishing one of them outright would be allowed")
    return 1 / (10 * images) if delta is None else delta


def statistics_noise(epsilon: float, delta: float | None, images: int, name: str) -> StatisticsNoise:
    """Find the noise on statistics of so many images that spends `epsilon` and no more; see `plan_noise`."""
    delta = _delta(delta, images, name)
    multiplier = _least(lambda noise: _spent(((noise, 1.0, 1),), delta).epsilon <= epsilon)
    if multiplier is None:
        raise ExmlError(f"epsilon {epsilon} is too low for any noise on {name}: give more")
    return StatisticsNoise(multiplier, _spent(((multiplier, 1.0, 1),), delta))


def noise_beside_weights(settings: PrivacySettings, images: int, name: str) -> StatisticsNoise | None:
    """Find the noise on statistics that would spend `STATISTICS_SHARE` of an expert's epsilon alone; None without."""
    if settings.epsilon is None:
        return None
    return statistics_noise(settings.epsilon * STATISTICS_SHARE, settings.delta, images, name)


def _least(enough: Callable[[float], bool]) -> float | None:
    """Find the least noise that is enough, to 1 part in 1,000; None if no noise is."""
    low, high = 1e-2, 1e-2
    while not enough(high):
        low, high = high, 2 * high
        if high > 1e6:
            return None
    while high > 1.001 * low:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def plan_noise(
    settings: PrivacySettings, recipe: ExpertRecipe, images: int, name: str, statistics: bool = False
) -> NoisePlan:
    """Find the noise that spends `settings.epsilon`, and no more, in all ``epochs * ceil(images / batch_size)`` steps.

    With `statistics`, these get the noise that would spend `STATISTICS_SHARE` of it alone, and the steps what is left.
    The number of training images is taken as public. Raises `ExmlError`, which calls the expert `name`, if delta is so
    large that it protects no one, or no noise is enough.
    """
    assert settings.epsilon is not None
    epsilon, delta = settings.epsilon, _delta(settings.delta, images, name)
    steps = math.ceil(images / recipe.batch_size)  # an epoch; Opacus may round to one less, which spends less
    rate = min(1.0, 1 / steps + 2**-23)  # Opacus draws by numbers of 24 bits, so 1 / steps may be exceeded by that much
    found = noise_beside_weights(settings, images, name) if statistics else None
    beside = None if found is None else found.multiplier

    def plan(noise: float) -> NoisePlan:
        return NoisePlan(rate, noise, settings.max_grad_norm, delta, beside)

    noise = _least(lambda noise: plan(noise).spent(recipe.epochs * steps).epsilon <= epsilon)
    if noise is None:
        raise ExmlError(f"privacy.epsilon {epsilon} is too low for any noise on {name}: give more")
    return plan(noise)
