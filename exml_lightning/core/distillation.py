"""What the ex-model is asked for on a mini-batch: targets and losses put together (Section 3, Eq. 6-11)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.losses import distillation_kl, distillation_mse, known_cross_entropy
from exml_lightning.core.targets import Merge, Normalize, Unknown, add_targets, merge_targets

Loss = Literal["mse", "kl"]


@dataclass(frozen=True)
class Distillation:
    """The loss of Eq. 11.

    Args:
        lambda_ce: Weight of the cross-entropy, 0 or more.
        normalize: How the logits of both teachers are put on one scale; see `normalize_logits`.
        merge: How they are merged; see `merge_targets`.
        unknown: What is asked of classes that nobody knows yet; see `merge_targets`.
        loss: ``mse`` (Eq. 10) or ``kl``.
        temperature: Of ``kl``, more than 0.
        others: Weight of what the expert says of classes it does not know; see `add_targets`. 0: nothing.
        raw_logits: With ``quantile``, weight of the logits that are added to their normal scores; see `NormalScores`.
        familiarity: With ``quantile``, weight of how familiar images are to the expert; see `Teachers`. 0: nothing.

    Raises:
        ExmlError: If a setting has no meaning.
    """

    lambda_ce: float = 1.0
    normalize: Normalize = "center"
    merge: Merge = "unit"
    unknown: Unknown = "skip"
    loss: Loss = "mse"
    temperature: float = 2.0
    others: float = 0.0
    raw_logits: float = 0.0
    familiarity: float = 0.0

    def __post_init__(self) -> None:
        if not self.lambda_ce >= 0:
            raise ExmlError(f"model.lambda_ce is {self.lambda_ce}: give 0 or more")
        if not self.temperature > 0:
            raise ExmlError(f"model.temperature is {self.temperature}: give more than 0")
        for name in ("others", "raw_logits", "familiarity"):
            if not getattr(self, name) >= 0:
                raise ExmlError(f"model.{name} is {getattr(self, name)}: give 0 or more")
        given = [f"model.{name}" for name in ("others", "raw_logits", "familiarity") if getattr(self, name)]
        if given and self.normalize != "quantile":
            raise ExmlError(f"only with normalize quantile is there a meaning to {' and '.join(given)}: set each to 0")
        if self.others and (self.merge, self.loss) != ("unit", "mse"):
            raise ExmlError("model.others has a meaning only with merge unit and loss mse: set it to 0")
        if self.loss == "kl" and self.unknown == "zero":
            raise ExmlError(
                "model.unknown zero has no meaning with loss kl, where a logit of 0 is a guess: set it to skip"
            )

    def asks_all_units(self, heads: Tensor | None) -> bool:
        """Whether all units of the expert are asked for: with `others`, but for several heads, which never compete."""
        return self.others > 0 and heads is None

    def familiarity_for(self, heads: Tensor | None) -> float:
        """Weight of familiarity: 0 for several heads, which never compete."""
        return self.familiarity if heads is None else 0.0

    def __call__(
        self,
        logits: Tensor,
        expert: tuple[Tensor, Tensor],
        previous: tuple[Tensor, Tensor],
        labels: Tensor,
        answers: Tensor,
        heads: Tensor | None = None,
        tasks: Sequence[int] = (),
    ) -> dict[str, Tensor]:
        """Compute the loss and its terms.

        Args:
            logits: The ex-model's, float ``(n, num_classes)``.
            expert: The expert's logits ``(n, classes of the expert)`` and its classes, int64; ``(n, num_classes)`` with
                `others` and a single head.
            previous: The previous ex-model's logits ``(n, num_classes)`` and the classes it knows, bool.
            labels: y_syn, int64 ``(n,)``.
            answers: The classes that the cross-entropy is over; see `known_cross_entropy`.
            heads: The task of each class, int64 ``(num_classes,)``, for a multi-head ex-model.
            tasks: The tasks among `heads`.

        Returns:
            Scalars by name: ``mse`` or ``kl``, ``cross_entropy`` unless its weight is 0, and their sum ``loss``.
        """
        if self.asks_all_units(heads):
            target = add_targets(*expert, previous[0], self.others)
        else:
            target = merge_targets(
                *expert,
                *previous,
                labels,
                normalize=self.normalize,
                merge=self.merge,
                unknown=self.unknown,
                heads=heads,
            )
        if self.loss == "mse":
            distilled = distillation_mse(logits, target)
        else:
            masks = [] if heads is None else [heads.eq(task) for task in tasks]
            distilled = distillation_kl(logits, target, self.temperature, masks)
        if not self.lambda_ce:
            return {self.loss: distilled, "loss": distilled}
        cross_entropy = known_cross_entropy(logits, labels, answers)
        loss = distilled + self.lambda_ce * cross_entropy
        return {self.loss: distilled, "cross_entropy": cross_entropy, "loss": loss}
