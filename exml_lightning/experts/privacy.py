"""Differential privacy of an expert: the settings, the noise they ask for, what was spent (docs/privacy.md)."""

import math
import warnings
from dataclasses import dataclass
from importlib.util import find_spec

from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.expert_module import ExpertRecipe
from exml_lightning.experts.manifest import PrivacySpent

MECHANISM = "rdp"
"""Opacus's accountant by Renyi divergences (Mironov et al. 2019): a proven bound that holds for any amount of noise."""


@dataclass(frozen=True)
class PrivacySettings:
    """Differential privacy of the experts that `exml experts` trains, by DP-SGD (Abadi et al. 2016).

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
    `max_grad_norm`, the norm to which that of each image is clipped.
    """

    sample_rate: float
    noise_multiplier: float
    max_grad_norm: float
    delta: float

    def spent(self, steps: int) -> PrivacySpent:
        """Ask the accountant what so many steps have spent."""
        from opacus.accountants import create_accountant

        accountant = create_accountant(MECHANISM)
        accountant.history = [(self.noise_multiplier, self.sample_rate, steps)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that more orders could give a lower bound
            return PrivacySpent(float(accountant.get_epsilon(self.delta)), self.delta)


def check_installed() -> None:
    """Refuse to train privately without Opacus."""
    if find_spec("opacus") is None:
        install = "pip install 'exml-lightning[privacy]' (in a clone: pip install -e '.[privacy]')"
        raise ExmlError(f"privacy.epsilon needs Opacus, which is not installed: {install}")


def plan_noise(settings: PrivacySettings, recipe: ExpertRecipe, images: int, name: str) -> NoisePlan:
    """Find the noise that spends `settings.epsilon`, and no more, in all ``epochs * ceil(images / batch_size)`` steps.

    The number of training images is taken as public. Raises `ExmlError`, which calls the expert `name`, if delta is so
    large that it protects no one, or no noise is enough.
    """
    from opacus.accountants.utils import get_noise_multiplier

    delta = 1 / (10 * images) if settings.delta is None else settings.delta
    if delta >= 1 / images:
        what = f"privacy.delta is {delta}, but {name} has {images} training images: give less than 1/{images}"
        raise ExmlError(f"{what}, or publishing one of them outright would be allowed")
    steps = math.ceil(images / recipe.batch_size)  # an epoch; Opacus may round to one less, which spends less
    rate = min(1.0, 1 / steps + 2**-23)  # Opacus draws by numbers of 24 bits, so 1 / steps may be exceeded by that much
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            target = {"target_epsilon": settings.epsilon, "target_delta": delta, "accountant": MECHANISM}
            noise = get_noise_multiplier(**target, sample_rate=rate, steps=recipe.epochs * steps)
    except ValueError as error:
        what = f"privacy.epsilon {settings.epsilon} is too low for any noise on {name}"
        raise ExmlError(f"{what} ({error}): give more") from error
    return NoisePlan(rate, float(noise), settings.max_grad_norm, delta)
