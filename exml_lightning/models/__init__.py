"""Networks, and how to name one."""

from exml_lightning.models.architecture import Architecture, ArchitectureConfig, last_linear, probe
from exml_lightning.models.layout import fast_layout
from exml_lightning.models.lenet import LeNet5
from exml_lightning.models.mobilenet import MobileNetV2
from exml_lightning.models.resnet import SlimResNet18

__all__ = [
    "Architecture",
    "ArchitectureConfig",
    "LeNet5",
    "MobileNetV2",
    "SlimResNet18",
    "fast_layout",
    "last_linear",
    "probe",
]
