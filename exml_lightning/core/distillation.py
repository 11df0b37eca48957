"""What the ex-model is asked for on a mini-batch: targets and losses put together (Section 3, Eq. 6-11)."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from torch import Tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.familiarity import layers_that_tell
from exml_lightning.core.losses import distillation_kl, distillation_mse, known_cross_entropy
from exml_lightning.core.scales import Center, Scale
from exml_lightning.core.targets import Answers, Merge, Target, add_targets, merge_targets

Loss = Literal["mse", "kl"]


@dataclass(frozen=True)
class Distillation:
    """The loss of Eq. 11.

    Args:
        lambda_ce: Weight of the cross-entropy with the buffer's labels (Eq. 11), 0 or more.
        normalize: How the logits of both teachers are put on one scale (Eq. 6, 7): `Center`, `Standardize`,
            `CenterBatch`, `NoScale`, or `NormalScores` (docs/distillation.md).
        merge: How they are merged (Eq. 9): class by class (`unit`) or by each sample's label (`sample`).
        loss: What compares the ex-model with the merged target: `mse` of the logits (Eq. 10), or `kl`, the divergence
            of their softened probabilities.
        temperature: Softens the probabilities of `kl`, more than 0.

    Raises:
        ExmlError: If a setting has no meaning.
    """

    lambda_ce: float = 1.0
    normalize: Scale = field(default_factory=Center)
    merge: Merge = "unit"
    loss: Loss = "mse"
    temperature: float = 2.0

    def __post_init__(self) -> None:
        if not self.lambda_ce >= 0:
            raise ExmlError(f"model.lambda_ce is {self.lambda_ce}: give 0 or more")
        if not self.temperature > 0:
            raise ExmlError(f"model.temperature is {self.temperature}: give more than 0")
        if self._others(None) and (self.merge, self.loss) != ("unit", "mse"):
            raise ExmlError("model.normalize.others has a meaning only with merge unit and loss mse: set it to 0")

    def _others(self, heads: Tensor | None) -> float:
        weights = self.normalize.score_weights(heads)
        return 0.0 if weights is None else weights.others

    def asks_all_units(self, heads: Tensor | None) -> bool:
        """Whether all units of the expert are asked for: with `others`, but for several heads, which never compete."""
        return self._others(heads) > 0

    def check_expert(self, expert: Expert, num_classes: int, heads: Tensor | None) -> None:
        """Raise `ExmlError` if an expert lacks a unit for each class, or a layer that tells how familiar an image is.

        Only what the settings ask for is looked at; `heads` is the task of each class of a multi-head ex-model.
        """
        weights = self.normalize.score_weights(heads)
        if weights is not None and weights.others:
            expert.check_every_unit(num_classes)
        if weights is not None and weights.familiarity:
            layers_that_tell(expert)

    @property
    def needs_labels(self) -> bool:
        """Whether the labels of samples are read."""
        return self.lambda_ce > 0 or self.merge == "sample"

    def target(self, answers: Answers, labels: Tensor, heads: Tensor | None = None) -> Target:
        """Merge what both teachers say; see `merge_targets` and `add_targets`."""
        if others := self._others(heads):
            return add_targets(answers, others)
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
        """Compute the loss and its terms for the ex-model's logits and y_syn, `labels`, int64 ``(n,)``.

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
            distilled = distillation_kl(logits, target, self.temperature, masks)
        if not self.lambda_ce:
            return {self.loss: distilled, "loss": distilled}
        cross_entropy = known_cross_entropy(logits, labels, possible)
        loss = distilled + self.lambda_ce * cross_entropy
        return {self.loss: distilled, "cross_entropy": cross_entropy, "loss": loss}

    def settings(self) -> dict[str, Any]:
        """Return the settings, as plain values; the temperature only where it has a meaning."""
        temperature = self.temperature if self.loss == "kl" else None
        return {**asdict(self), "normalize": self.normalize.settings(), "temperature": temperature}
