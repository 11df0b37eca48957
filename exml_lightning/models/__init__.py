"""Networks, and how to name one."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from exml_lightning.models.architecture import Architecture, ArchitectureConfig, last_linear, probe

if TYPE_CHECKING:
    from exml_lightning.models.layout import fast_layout
    from exml_lightning.models.lenet import LeNet5
    from exml_lightning.models.mobilenet import MobileNetV2
    from exml_lightning.models.resnet import SlimResNet18

NEED_TORCH = {"fast_layout": "layout", "LeNet5": "lenet", "MobileNetV2": "mobilenet", "SlimResNet18": "resnet"}
"""Imported when they are asked for: torch takes seconds, and manifests are listed without it."""

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


def __getattr__(name: str) -> Any:
    if name not in NEED_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{NEED_TORCH[name]}"), name)
