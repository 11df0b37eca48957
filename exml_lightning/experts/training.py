"""Training the stream of experts of a scenario on its original data (Section 5)."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor, nn

from exml_lightning.callbacks.progress import StageProgressBar
from exml_lightning.callbacks.stream_checkpoint import save_checkpoint
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.rng import derive_seed, keyed_generator
from exml_lightning.experts.manifest import FILE_NAME, ExpertEntry, Manifest, read_manifest, write_manifest
from exml_lightning.experts.weights import load_weights, save_weights, sha256
from exml_lightning.models import Architecture, ArchitectureConfig
from exml_lightning.scenarios import LabelledImages

if TYPE_CHECKING:
    from exml_lightning.data import ExpertStream

MakeTrainer = Callable[..., Trainer]
INITIAL = "initial.safetensors"
ADVICE = "give --data.experts DIR another folder, or delete this one to train it anew"


def _default_architecture() -> ArchitectureConfig:
    return {"class_path": "exml_lightning.models.LeNet5"}


@dataclass(frozen=True)
class ExpertRecipe:
    """How experts are trained: SGD at a constant learning rate, cross-entropy over all classes of the scenario.

    Args:
        architecture: The network, as `class_path` and `init_args`; ``num_classes`` is filled in with the number of
            classes of the scenario.
        epochs: Passes over the expert's training images.
        batch_size: Images a step.
        lr: Learning rate.
        momentum: Momentum of SGD.
        weight_decay: Weight decay of SGD.
    """

    architecture: ArchitectureConfig = field(default_factory=_default_architecture)
    epochs: int = 20
    batch_size: int = 32
    lr: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ExmlError(f"experts.{name} is {getattr(self, name)}: give 1 or more")
        for name in ("lr", "momentum", "weight_decay"):
            if getattr(self, name) < 0:
                raise ExmlError(f"experts.{name} is {getattr(self, name)}: give 0 or more")


class _EpochLoader:
    """The training images of an expert, in an order drawn anew for each epoch from the key."""

    def __init__(self, module: "_ExpertModule", images: LabelledImages, image_format: ImageFormat) -> None:
        self._module, self._images, self._format = module, images, image_format

    def __len__(self) -> int:
        return -(-len(self._images) // self._module.recipe.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        module = self._module
        generator = keyed_generator("order", *module.key, module.current_epoch)
        images, labels = self._images.images.to(module.device), self._images.labels.to(module.device)
        order = torch.randperm(len(labels), generator=generator).to(module.device)
        for rows in order.split(module.recipe.batch_size):
            yield self._format.normalize(images[rows]), labels[rows]


class _ExpertModule(LightningModule):
    """Plain supervised training of one expert."""

    def __init__(self, network: nn.Module, recipe: ExpertRecipe, key: tuple[int | str, ...], description: str) -> None:
        super().__init__()
        self.network, self.recipe, self.key, self.description = network, recipe, key, description

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say which expert this is."""
        checkpoint["expert"] = self.description

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with another expert, or by another recipe."""
        if checkpoint["expert"] != self.description:
            raise ExmlError(
                f"an expert is half trained as {checkpoint['expert']}, but {self.description} is asked for: {ADVICE}"
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Seed torch for layers that draw from the global state (dropout), by this step's key alone."""
        torch.manual_seed(derive_seed("step", *self.key, self.global_step))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Compute the cross-entropy of a mini-batch."""
        images, labels = batch
        loss = F.cross_entropy(self.network(images), labels)
        self.log("loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimiser of the recipe."""
        recipe = self.recipe
        return torch.optim.SGD(
            self.network.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            weight_decay=recipe.weight_decay,
        )


class _EpochCheckpoint(Checkpoint):
    """Keeps the newest epoch in one file, so that training can go on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        save_checkpoint(trainer, self.path)


def train_experts(stream: "ExpertStream", recipe: ExpertRecipe, make_trainer: MakeTrainer) -> Manifest:
    """Train the experts of a scenario that are not there yet, from one saved initial model.

    Writes ``initial.safetensors``, ``expert_<k>.safetensors`` and, after each expert, ``manifest.yaml``. A run that was
    stopped goes on with the epoch it was in.

    Args:
        stream: Names the scenario, the run and the folder.
        recipe: How to train.
        make_trainer: Makes a Lightning trainer from keyword arguments.

    Returns:
        The manifest of the whole stream.

    Raises:
        ExmlError: If data are missing, or the folder holds experts of another scenario or recipe.
    """
    dataset, folder = stream.scenario.dataset, stream.experts
    empty = Manifest(stream.scenario.name, stream.run_id, dataset.class_names, dataset.image_format)
    wanted = [
        _entry(k, recipe, stream, experience.classes, experience.task)
        for k, experience in enumerate(stream.experiences)
    ]
    listed = dict(enumerate(read_manifest(folder).experts)) if (folder / FILE_NAME).is_file() else {}
    done = _finished(folder, empty, wanted)
    pending = [k for k in range(len(wanted)) if k not in done]
    for k in sorted(done):
        print(f"expert {k + 1}/{len(wanted)} is done: {folder / wanted[k].file}")
    if not pending:
        return replace(empty, experts=tuple(done[k] for k in sorted(done)))

    stream.prepare_data()
    parts = stream.scenario.train_images(stream.root, stream.experiences)
    test = dataset.load(stream.root, train=False)
    architecture = wanted[0].architecture
    initial = folder / INITIAL
    network = architecture.build(stream.seed, "expert")
    if not initial.is_file():
        save_weights(network, initial)
    elif not done:
        saved = architecture.build()
        load_weights(saved, initial)
        if not all(torch.equal(a, b) for a, b in zip(saved.parameters(), network.parameters(), strict=True)):
            raise ExmlError(f"{initial} is the initial model of another run: {ADVICE}")
    for k in pending:
        network = architecture.build()
        load_weights(network, initial)
        checkpoint = folder / "training" / f"expert_{k}.ckpt"
        title = f"Training expert {k + 1}/{len(wanted)} ({' '.join(wanted[k].classes[:10])})"
        trainer = make_trainer(
            default_root_dir=str(checkpoint.parent),
            max_epochs=recipe.epochs,
            callbacks=[
                _EpochCheckpoint(checkpoint),
                StageProgressBar(partial(_what_is_trained, title), 20, leave=False),
            ],
            logger=False,
        )
        module = _ExpertModule(network, recipe, (stream.seed, "expert", k), str(wanted[k]))
        loader = _EpochLoader(module, parts[k], dataset.image_format)
        trainer.fit(module, train_dataloaders=loader, ckpt_path=str(checkpoint) if checkpoint.is_file() else None)
        accuracy = _accuracy(network, test, wanted[k], dataset.image_format)
        print(f"expert {k + 1}/{len(wanted)} knows its own classes with {100 * accuracy:.2f} % accuracy")
        digest = save_weights(network, folder / wanted[k].file)
        done[k] = replace(wanted[k], sha256=digest, accuracy=accuracy)
        listed = {**listed, **done}
        together = [listed[j] for j in range(len(listed)) if all(i in listed for i in range(j + 1))]
        write_manifest(replace(empty, experts=tuple(together)), folder)
        checkpoint.unlink(missing_ok=True)
    shutil.rmtree(folder / "training", ignore_errors=True)
    return replace(empty, experts=tuple(done[k] for k in sorted(done)))


def _what_is_trained(title: str, trainer: Trainer) -> str:
    return f"{title}, epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"


def _entry(k: int, recipe: ExpertRecipe, stream: "ExpertStream", classes: tuple[int, ...], task: int) -> ExpertEntry:
    names = stream.scenario.dataset.class_names
    settings = {key: value for key, value in asdict(recipe).items() if key != "architecture"}
    return ExpertEntry(
        file=f"expert_{k}.safetensors",
        sha256="",
        architecture=Architecture.from_config(recipe.architecture).with_classes(len(names)),
        classes=tuple(names[c] for c in classes),
        outputs=tuple(classes),
        task=task,
        classifier="classifier",
        training={**settings, "seed": stream.seed, "initial": INITIAL},
    )


def _finished(folder: Path, empty: Manifest, wanted: list[ExpertEntry]) -> dict[int, ExpertEntry]:
    """Return the experts that are there as wanted; refuse a folder that holds others."""
    if not (folder / FILE_NAME).is_file():
        return {}
    manifest = read_manifest(folder)
    for name in ("scenario", "run", "class_names", "input"):
        if getattr(manifest, name) != getattr(empty, name):
            raise ExmlError(
                f"{folder / FILE_NAME}: {name} is {getattr(manifest, name)}, "
                f"but {getattr(empty, name)} is asked for: {ADVICE}"
            )
    done = {}
    for k, (entry, want) in enumerate(zip(manifest.experts, wanted, strict=False)):
        for name in ("file", "architecture", "classes", "outputs", "task", "training"):
            if getattr(entry, name) != getattr(want, name):
                raise ExmlError(
                    f"{folder / FILE_NAME}: expert {k} has {name} {getattr(entry, name)}, "
                    f"but {getattr(want, name)} is asked for: {ADVICE}"
                )
        path = folder / entry.file
        if path.is_file() and sha256(path) != entry.sha256:
            raise ExmlError(f"{path} has another hash (sha256) than the manifest says: delete it to train it again")
        if path.is_file():
            done[k] = entry
    return done


def _accuracy(network: nn.Module, test: LabelledImages, entry: ExpertEntry, image_format: ImageFormat) -> float:
    """Accuracy on the test images of the expert's own classes, among these classes."""
    outputs = torch.tensor(entry.outputs)
    own = test[torch.isin(test.labels, outputs).nonzero().flatten()]
    network.eval().cpu()
    right = 0
    with torch.no_grad():
        for images, labels in zip(own.images.split(1000), own.labels.split(1000), strict=True):
            guesses = outputs[network(image_format.normalize(images))[:, outputs].argmax(dim=1)]
            right += int((guesses == labels).sum())
    return right / len(own)
