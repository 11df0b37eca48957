"""What the ex-model is asked for on a mini-batch: targets and losses put together (Section 3, Eq. 6-11)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.losses import distillation_kl, distillation_mse, known_cross_entropy
from exml_lightning.core.scales import NormalScores, Scale
from exml_lightning.core.targets import Answers, Merge, Target, merge_targets

Loss = Literal["mse", "kl"]


@dataclass(frozen=True)
class Distillation:
    """The loss of Eq. 11.

    Args:
        lambda_ce: Weight of the cross-entropy with the buffer's labels (Eq. 11), 0 or more. Null for 1 where images are
            made for a class, by inversion, impression or from published statistics, else 0.
        normalize: How the logits of both teachers are put on one scale (Eq. 6, 7): `Center`, `Standardize`,
            `CenterBatch`, `NoScale`, `NormalScores` or `StandardScores` (docs/distillation.md).
        merge: How they are merged (Eq. 9): class by class (`unit`) or by each sample's label (`sample`).
        loss: What compares the ex-model with the merged target: `mse` of the logits (Eq. 10), or `kl`, the divergence
            of their softened probabilities.
        temperature: Softens the probabilities of `kl`, more than 0. Null for 1 where a class "none of these" competes,
            else 2.

    Raises:
        ExmlError: If a setting has no meaning.
    """

    lambda_ce: float | None = None
    normalize: Scale = field(default_factory=NormalScores)
    merge: Merge = "unit"
    loss: Loss = "kl"
    temperature: float | None = None

    def __post_init__(self) -> None:
        if self.lambda_ce is not None and not self.lambda_ce >= 0:
            raise ExmlError(f"model.lambda_ce is {self.lambda_ce}: give 0 or more")
        if self.temperature is not None and not self.temperature > 0:
            raise ExmlError(f"model.temperature is {self.temperature}: give more than 0")

    @property
    def softness(self) -> float:
        """The temperature."""
        return self.temperature or (1.0 if self.normalize.none_of_these else 2.0)

    def target(self, answers: Answers, labels: Tensor, heads: Tensor | None = None) -> Target:
        """Merge what both teachers say; see `merge_targets`."""
        return merge_targets(answers, labels, self.normalize, self.merge, heads)

    def __call__(
        self,
        logits: Tensor,
        answers: Answers,
        labels: Tensor,
        possible: Tensor,
        heads: Tensor | None = None,
        tasks: Sequence[int] = (),
    ) -> dict[str, Tensor]:
        """Compute the loss and its terms for the ex-model's logits and y_syn, `labels`, int64 ``(n,)``, -1 for none.

        Logits are float ``(n, num_classes)``; `possible` are the classes that the cross-entropy is over, see
        `known_cross_entropy`. For a multi-head ex-model `heads` is the task of each class, int64 ``(num_classes,)``,
        and `tasks` are those among them. Returns scalars by name: ``mse`` or ``kl``, ``cross_entropy`` unless its
        weight is 0, and their sum ``loss``.
        """
        target = self.target(answers, labels, heads)
        if self.loss == "mse":
            distilled = distillation_mse(logits, target)
        else:
            masks = [] if heads is None else [heads.eq(task) for task in tasks]
            distilled = distillation_kl(logits, target, self.softness, masks, self.normalize.none_of_these)
        if not self.lambda_ce:
            return {self.loss: distilled, "loss": distilled}
        cross_entropy = known_cross_entropy(logits, labels, possible)
        loss = distilled + self.lambda_ce * cross_entropy
        return {self.loss: distilled, "cross_entropy": cross_entropy, "loss": loss}

    def settings(self) -> dict[str, Any]:
        """Return the settings, as plain values; the temperature only where it has a meaning."""
        temperature = self.softness if self.loss == "kl" else None
        return {**asdict(self), "normalize": self.normalize.settings(), "temperature": temperature}
