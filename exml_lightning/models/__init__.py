"""Networks, and how to name one."""

from exml_lightning.models.architecture import Architecture, ArchitectureConfig, probe
from exml_lightning.models.lenet import LeNet5

__all__ = ["Architecture", "ArchitectureConfig", "LeNet5", "probe"]
