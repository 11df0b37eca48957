"""`ExModelWriter`: writes the finished ex-model as a folder of experts with one expert in it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks.accuracy import AccuracyCallback
from exml_lightning.callbacks.results import ResultsCallback
from exml_lightning.core.rejection import rejection_threshold
from exml_lightning.ex_model.model import WEIGHTS
from exml_lightning.experts import ExpertEntry, Manifest, save_weights, write_manifest
from exml_lightning.module import ExModelModule
from exml_lightning.terminal import say

MOST_IMAGES = 1000
"""Of the buffer, that say when an image is of no class."""


class ExModelWriter(Callback):
    """Writes ``ex_model/`` (weights and manifest) into the run folder, so that an ex-model can be an expert.

    It says where, unless the run folder is not kept.
    """

    def __init__(self, strategy: str, results: ResultsCallback, is_kept: bool = True) -> None:
        self._strategy, self._results, self._is_kept = strategy, results, is_kept

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder when the last expert is learned; again if the run was finished before."""
        assert isinstance(pl_module, ExModelModule)
        if not trainer.is_global_zero or pl_module.stream.completed != trainer.max_epochs:
            return
        folder = Path(trainer.default_root_dir) / "ex_model"
        stream, architecture = pl_module.stream, pl_module.architecture
        assert architecture is not None
        first, names = stream.manifest.experts[0], stream.manifest.class_names
        known = pl_module.known.nonzero().flatten().tolist()
        whole = ExpertEntry(
            file=WEIGHTS,
            sha256=save_weights(pl_module.network, folder / WEIGHTS),
            architecture=architecture.skeleton(),
            classes=tuple(names[c] for c in known),
            outputs=tuple(known),
            classifier=first.classifier if architecture.class_path == first.architecture.class_path else None,
            accuracy=self._accuracy(pl_module),
            training={
                "strategy": self._strategy,
                "scenario": stream.scenario_name or stream.manifest.scenario,
                "experts": trainer.max_epochs,
                **_rejection(pl_module),
                "learned": [_noted(entry) for entry in stream.manifest.experts[: trainer.max_epochs]],
            },
        )
        entries = [whole] if pl_module.heads is None else _heads(whole, pl_module.heads.tolist())
        write_manifest(
            Manifest(stream.manifest.scenario, stream.run_id, names, stream.manifest.input, tuple(entries)), folder
        )
        if self._is_kept:
            say(f"ex-model: {folder}")

    def _accuracy(self, module: ExModelModule) -> float | None:
        """Accuracy on the parts of the test stream whose classes the ex-model knows."""
        if not isinstance(self._results, AccuracyCallback) or not self._results.matrix:
            return None
        seen = self._results.over_time(module)[1][-1]
        return None if math.isnan(seen) else seen


def _rejection(module: ExModelModule) -> dict[str, float]:
    """Say from which probability on an image is taken for none of the classes, where the ex-model was taught that.

    Not where an expert has no statistics: of its classes there are no images that could say it.
    """
    stream = module.stream
    if not module.distillation.normalize.none_of_these or not all(
        entry.statistics is not None for entry in stream.manifest.experts[: stream.completed]
    ):
        return {}
    own = stream.buffer.images[stream.buffer.certain_labels >= 0]
    own = own[:: -(-len(own) // MOST_IMAGES) or 1]
    return {"none_of_these": rejection_threshold(module.answer(own)[:, module.known])}


def _noted(entry: ExpertEntry) -> dict[str, Any]:
    """Say which expert was learned, so that it can be told when its file is gone."""
    return {"sha256": entry.sha256, "architecture": entry.architecture.class_path, "classes": list(entry.classes)}


def _heads(whole: ExpertEntry, heads: list[int]) -> list[ExpertEntry]:
    """Describe a multi-head ex-model: one entry a task, all with the same weights."""
    entries = []
    for task in sorted({heads[unit] for unit in whole.outputs}):
        own = [i for i, unit in enumerate(whole.outputs) if heads[unit] == task]
        classes, outputs = tuple(whole.classes[i] for i in own), tuple(whole.outputs[i] for i in own)
        entries.append(replace(whole, classes=classes, outputs=outputs, task=task, accuracy=None))
    return entries
