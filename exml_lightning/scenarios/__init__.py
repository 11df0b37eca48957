"""Scenarios: data sets, how they become a stream, and where auxiliary images come from."""

from exml_lightning.scenarios.auxiliary import AuxiliaryImages
from exml_lightning.scenarios.auxiliary_sources import FolderImages, Photographs, TorchvisionImages
from exml_lightning.scenarios.cifar10 import CIFAR10
from exml_lightning.scenarios.datasets import MNIST, Digits, ImageDataset, LabelledImages
from exml_lightning.scenarios.scenario import RUN_SEEDS, Experience, Scenario, TestPart

__all__ = [
    "CIFAR10",
    "MNIST",
    "RUN_SEEDS",
    "AuxiliaryImages",
    "Digits",
    "Experience",
    "FolderImages",
    "ImageDataset",
    "LabelledImages",
    "Photographs",
    "Scenario",
    "TestPart",
    "TorchvisionImages",
]
