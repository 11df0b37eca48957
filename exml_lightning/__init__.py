"""Ex-Model Continual Learning: one ex-model from a stream of trained experts, without their data."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exml_lightning.callbacks.synthetic_buffer import SyntheticBufferCallback
    from exml_lightning.core.augmentation import Augmentation
    from exml_lightning.core.errors import ExmlError
    from exml_lightning.core.generators import Auxiliary, DataImpression, ModelInversion, Noise, Unrelated
    from exml_lightning.data import ExpertStream
    from exml_lightning.ex_model.export.folder import export_ex_model
    from exml_lightning.ex_model.model import ExModel, load_ex_model, save_ex_model
    from exml_lightning.experts.describe import NewExperts, add_experts
    from exml_lightning.experts.manifest import Manifest, read_manifest
    from exml_lightning.fitting import distil
    from exml_lightning.module import ExModelModule
    from exml_lightning.scenarios.auxiliary_sources import FolderImages, Photographs

__all__ = [
    "Augmentation",
    "Auxiliary",
    "DataImpression",
    "ExModel",
    "ExModelModule",
    "ExmlError",
    "ExpertStream",
    "FolderImages",
    "Manifest",
    "ModelInversion",
    "NewExperts",
    "Noise",
    "Photographs",
    "SyntheticBufferCallback",
    "Unrelated",
    "add_experts",
    "distil",
    "export_ex_model",
    "load_ex_model",
    "read_manifest",
    "save_ex_model",
]

_MODULES = {
    "Augmentation": "core.augmentation",
    "Auxiliary": "core.generators.auxiliary",
    "DataImpression": "core.generators.data_impression",
    "ExModel": "ex_model.model",
    "ExModelModule": "module",
    "ExmlError": "core.errors",
    "ExpertStream": "data",
    "FolderImages": "scenarios.auxiliary_sources",
    "Manifest": "experts.manifest",
    "ModelInversion": "core.generators.model_inversion",
    "NewExperts": "experts.describe",
    "Noise": "core.generators.noise",
    "Photographs": "scenarios.auxiliary_sources",
    "SyntheticBufferCallback": "callbacks.synthetic_buffer",
    "Unrelated": "core.generators.unrelated",
    "add_experts": "experts.describe",
    "distil": "fitting",
    "export_ex_model": "ex_model.export.folder",
    "load_ex_model": "ex_model.model",
    "read_manifest": "experts.manifest",
    "save_ex_model": "ex_model.model",
}
"""Where each name is, so that it is imported when it is first asked for: torch takes seconds."""


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
