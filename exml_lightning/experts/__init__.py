"""Folders of experts: their manifest, their weights, and how to train them."""

from exml_lightning.experts.manifest import ExpertEntry, Manifest, read_manifest, write_manifest
from exml_lightning.experts.weights import load_expert, load_weights, save_weights

__all__ = [
    "ExpertEntry",
    "Manifest",
    "load_expert",
    "load_weights",
    "read_manifest",
    "save_weights",
    "write_manifest",
]
