"""`ExModelWriter`: writes the finished ex-model as a folder of experts with one expert in it."""

from pathlib import Path

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks.results import ResultsCallback, find_callback
from exml_lightning.core import metrics
from exml_lightning.core.errors import ExmlError
from exml_lightning.experts import ExpertEntry, Manifest, save_weights, write_manifest
from exml_lightning.module import ExModelModule

FILE = "expert_0.safetensors"


class ExModelWriter(Callback):
    """Writes ``ex_model/`` (weights and manifest) into the run folder, so that an ex-model can be an expert.

    Args:
        strategy: Name of the strategy, for the manifest.
    """

    def __init__(self, strategy: str) -> None:
        self.strategy = strategy

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the folder when the last expert is learned; again if the run was finished before."""
        assert isinstance(pl_module, ExModelModule)
        if not trainer.is_global_zero or pl_module.stream.completed != trainer.max_epochs:
            return
        folder = Path(trainer.default_root_dir) / "ex_model"
        stream, architecture = pl_module.stream, pl_module.architecture
        if architecture is None:
            raise ExmlError("the ex-model was never built")
        first = stream.manifest.experts[0]
        names = stream.manifest.class_names
        known = pl_module.known.nonzero().flatten().tolist()
        entry = ExpertEntry(
            file=FILE,
            sha256=save_weights(pl_module.network, folder / FILE),
            architecture=architecture,
            classes=tuple(names[c] for c in known),
            outputs=tuple(known),
            classifier=first.classifier if architecture.class_path == first.architecture.class_path else None,
            accuracy=_final_accuracy(trainer, pl_module),
            training={
                "strategy": self.strategy,
                "scenario": stream.scenario.name,
                "experts": trainer.max_epochs,
            },
        )
        write_manifest(
            Manifest(stream.manifest.scenario, stream.run_id, names, stream.manifest.input, (entry,)), folder
        )
        print(f"ex-model: {folder}")


def _final_accuracy(trainer: Trainer, module: ExModelModule) -> float | None:
    """Accuracy on the parts of the test stream whose classes the ex-model knows."""
    results, parts = find_callback(trainer, ResultsCallback), module.stream.test_parts
    if results is None or not results.matrix:
        return None
    last = max(results.matrix)
    return metrics.seen_accuracy(
        results.matrix[last], [len(part.images) for part in parts], [part.first_seen for part in parts], last
    )
