"""Networks, and how to name one."""

from exml_lightning.models.architecture import Architecture, ArchitectureConfig, probe
from exml_lightning.models.lenet import LeNet5
from exml_lightning.models.resnet import SlimResNet18

__all__ = ["Architecture", "ArchitectureConfig", "LeNet5", "SlimResNet18", "probe"]
