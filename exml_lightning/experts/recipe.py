"""`ExpertRecipe`: how experts are trained, the group ``experts`` of a configuration."""

from dataclasses import dataclass, field

from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.architecture import ArchitectureConfig


def _default_architecture() -> ArchitectureConfig:
    return {"class_path": "exml_lightning.models.LeNet5"}


@dataclass(frozen=True)
class ExpertRecipe:
    """How experts are trained: SGD at a constant learning rate, cross-entropy over all classes of the scenario.

    Args:
        architecture: The network, as `class_path` and `init_args`; ``num_classes`` is filled in with the number of
            classes of the scenario.
        epochs: Passes over the expert's training images.
        batch_size: Images a step.
        lr: Learning rate.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
    """

    architecture: ArchitectureConfig = field(default_factory=_default_architecture)
    epochs: int = 20
    batch_size: int = 32
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        for name, least in {"epochs": 1, "batch_size": 1, "lr": 0, "momentum": 0, "weight_decay": 0}.items():
            if getattr(self, name) < least:
                raise ExmlError(f"experts.{name} is {getattr(self, name)}: give {least} or more")
