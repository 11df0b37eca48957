"""Scenarios: data sets, how they become a stream, and where auxiliary images come from."""

from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.scenarios.auxiliary import AuxiliaryImages
from exml_lightning.scenarios.auxiliary_sources import FolderImages, Photographs, TorchvisionImages
from exml_lightning.scenarios.cifar10 import CIFAR10
from exml_lightning.scenarios.core50 import CORe50
from exml_lightning.scenarios.datasets import MNIST, Digits, FashionMNIST, ImageDataset
from exml_lightning.scenarios.hugging_face import HuggingFace
from exml_lightning.scenarios.image_folders import Folder
from exml_lightning.scenarios.runs import RUN_SEEDS
from exml_lightning.scenarios.scenario import Experience, Scenario, TestPart, TrainImages
from exml_lightning.scenarios.torchvision_images import Torchvision

__all__ = [
    "CIFAR10",
    "MNIST",
    "RUN_SEEDS",
    "AuxiliaryImages",
    "CORe50",
    "Digits",
    "Experience",
    "FashionMNIST",
    "Folder",
    "FolderImages",
    "HuggingFace",
    "ImageDataset",
    "LabelledImages",
    "Photographs",
    "Scenario",
    "TestPart",
    "Torchvision",
    "TorchvisionImages",
    "TrainImages",
]
