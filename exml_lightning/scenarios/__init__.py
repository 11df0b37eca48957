"""Scenarios: data sets, how they become a stream, and where auxiliary images come from."""

from exml_lightning.scenarios.auxiliary import AuxiliaryImages, DatasetImages, Photographs
from exml_lightning.scenarios.datasets import MNIST, Digits, FashionMNIST, ImageDataset, LabelledImages
from exml_lightning.scenarios.scenario import RUN_SEEDS, Experience, Scenario, TestPart

__all__ = [
    "MNIST",
    "RUN_SEEDS",
    "AuxiliaryImages",
    "DatasetImages",
    "Digits",
    "Experience",
    "FashionMNIST",
    "ImageDataset",
    "LabelledImages",
    "Photographs",
    "Scenario",
    "TestPart",
]
