"""Folders of experts: their manifest, their weights, and how to train them."""

from typing import TYPE_CHECKING, Any

from exml_lightning.experts.manifest import ExpertEntry, Manifest, read_manifest, write_manifest

if TYPE_CHECKING:
    from exml_lightning.experts.weights import initial_weights, load_expert, load_weights, save_weights

__all__ = [
    "ExpertEntry",
    "Manifest",
    "initial_weights",
    "load_expert",
    "load_weights",
    "read_manifest",
    "save_weights",
    "write_manifest",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from exml_lightning.experts import weights  # torch takes seconds, and manifests are listed without it

    return getattr(weights, name)
