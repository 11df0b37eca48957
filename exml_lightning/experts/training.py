"""Training the stream of experts of a scenario on its original data (Section 5)."""

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from lightning import Trainer
from torch import nn

from exml_lightning.callbacks.progress import ExpertProgressBar
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.layout import fast_layout
from exml_lightning.experts.architecture import Architecture, last_linear, probe
from exml_lightning.experts.manifest import FILE_NAME, ExpertEntry, Manifest, read_manifest, write_manifest
from exml_lightning.experts.privacy import NoisePlan, PrivacySettings, check_installed, plan_noise
from exml_lightning.experts.private_training import PoissonLoader, PrivateExpertModule, check_network, check_trainer
from exml_lightning.experts.recipe import ADVICE, EpochCheckpoint, EpochLoader, ExpertModule, ExpertRecipe
from exml_lightning.experts.selection import is_selection
from exml_lightning.experts.weights import load_weights, save_weights, sha256
from exml_lightning.terminal import say

if TYPE_CHECKING:
    from exml_lightning.data import ExpertStream

MakeTrainer = Callable[..., Trainer]
INITIAL = "initial.safetensors"


def train_experts(
    stream: "ExpertStream",
    recipe: ExpertRecipe,
    make_trainer: MakeTrainer,
    limit: int | None = None,
    privacy: PrivacySettings | None = None,
) -> Manifest:
    """Train the experts of a scenario that are not there yet, from one saved initial model.

    Writes ``initial.safetensors``, ``expert_<k>.safetensors`` and, after each expert, ``manifest.yaml``. A run that was
    stopped goes on with the epoch it was in.

    Args:
        stream: Names the scenario, the run and the folder.
        recipe: How to train.
        make_trainer: Makes a Lightning trainer from keyword arguments.
        limit: Train the first experts of the stream only, so many; None for all.
        privacy: Train by DP-SGD, if it has an epsilon.

    Returns:
        The manifest of all experts that are there.

    Raises:
        ExmlError: If data are missing, the folder holds experts of another scenario or recipe, the network does not
            suit the scenario or cannot be trained so, or the scenario learns the experts of another.
    """
    if stream.scenario.experts_of is not None:
        raise ExmlError(
            f"{stream.scenario.name} learns the experts of {stream.scenario.experts_of}: "
            f"train those, with `{stream.experts_command()}`"
        )
    if is_selection(stream.experts):
        raise ExmlError(f"data.experts {stream.experts} is a selection: experts are trained into a folder, name that")
    dataset, folder = stream.scenario.dataset, stream.experts
    empty = Manifest(stream.scenario.name, stream.run_id, dataset.class_names, dataset.image_format)
    names = dataset.class_names
    architecture = Architecture.from_config(recipe.architecture).with_classes(len(names))
    blank = architecture.skeleton().build()
    _check_network(blank, architecture, stream)
    if privacy is not None and privacy.epsilon is None:
        privacy = None
    if privacy is not None:
        check_installed()
        check_trainer(make_trainer(callbacks=[], logger=False))
        check_network(architecture.skeleton().build(), dataset.image_format.shape, _network_name(architecture))
    wanted = [
        _entry(k, recipe, privacy, architecture, last_linear(blank), stream, experience.classes, experience.task)
        for k, experience in enumerate(stream.experiences)
    ]
    listed = dict(enumerate(read_manifest(folder).experts)) if (folder / FILE_NAME).is_file() else {}
    done = _finished(folder, empty, wanted)
    asked = range(len(wanted))[:limit]
    pending = [k for k in asked if k not in done]
    for k in asked:
        if k in done:
            say(f"expert {k + 1}/{len(wanted)} is done: {folder / wanted[k].file}")
        elif k in listed and privacy is not None:
            say(f"{folder / wanted[k].file} is lost; if it was given away, its epsilon counts beside the new one's")
    if not pending:
        return replace(empty, experts=tuple(done[k] for k in sorted(done)))

    initial = folder / INITIAL
    if not done or not initial.is_file():
        network = architecture.build(stream.seed, "expert")  # before data are read: pretrained weights may be missing
        if initial.is_file():
            load_weights(blank, initial)
            if not all(torch.equal(a, b) for a, b in zip(blank.parameters(), network.parameters(), strict=True)):
                raise ExmlError(f"{initial} is the initial model of another run: {ADVICE}")
    stream.prepare_data()
    originals = stream.scenario.train_images(stream.root, stream.experiences)
    plans: dict[int, NoisePlan] = {}
    for k in pending:
        images = originals[k]  # raises for an expert without images
        if privacy is not None:
            plans[k] = plan_noise(privacy, recipe, len(images), f"expert {k}")
    test = dataset.load(stream.root, train=False)
    if not initial.is_file():
        save_weights(network, initial)
    for k in pending:
        network = architecture.skeleton().build()
        load_weights(network, initial)
        if privacy is None:  # Opacus' gradients of single samples are wrong in another memory format
            fast_layout(network, dataset.image_format.shape)
        checkpoint = folder / "training" / f"expert_{k}.ckpt"
        title = f"expert {k + 1}/{len(wanted)} training ({_short(wanted[k].classes)})"
        trainer = make_trainer(
            default_root_dir=str(checkpoint.parent),
            max_epochs=recipe.epochs,
            callbacks=[EpochCheckpoint(checkpoint), ExpertProgressBar(title)],
            logger=False,
        )
        key, description = (stream.seed, "expert", k), str(wanted[k])
        module, loader = _training(network, recipe, key, description, originals[k], dataset.image_format, plans.get(k))
        trainer.fit(module, train_dataloaders=loader, ckpt_path=str(checkpoint) if checkpoint.is_file() else None)
        accuracy = _accuracy(network.to(trainer.strategy.root_device), test, wanted[k], dataset.image_format)
        known = "has no test images of its classes: accuracy null"
        if accuracy is not None:
            known = f"knows its own classes with {100 * accuracy:.2f} % accuracy"
        spent = plans[k].spent(trainer.global_step) if k in plans else None
        cost = f"; epsilon {spent.epsilon:.2f}, delta {spent.delta:.1e}" if spent else ""
        say(f"expert {k + 1}/{len(wanted)} {known}{cost}")
        digest = save_weights(network, folder / wanted[k].file)
        done[k] = replace(wanted[k], sha256=digest, accuracy=accuracy, privacy=spent)
        listed = {**listed, **done}
        together = [listed[j] for j in range(len(listed)) if all(i in listed for i in range(j + 1))]
        write_manifest(replace(empty, experts=tuple(together)), folder)
        checkpoint.unlink(missing_ok=True)
    shutil.rmtree(folder / "training", ignore_errors=True)
    return replace(empty, experts=tuple(done[k] for k in sorted(done)))


def _short(classes: tuple[str, ...]) -> str:
    return " ".join(classes[:3]) + (" ..." if len(classes) > 3 else "")


def _training(
    network: nn.Module,
    recipe: ExpertRecipe,
    key: tuple[int | str, ...],
    description: str,
    images: LabelledImages,
    image_format: ImageFormat,
    plan: NoisePlan | None,
) -> tuple[ExpertModule, EpochLoader]:
    """Make what a trainer fits: by DP-SGD if there is a plan."""
    if plan is None:
        module = ExpertModule(network, recipe, key, description)
        return module, EpochLoader(module, images, image_format)
    private = PrivateExpertModule(network, recipe, key, description, plan)
    return private, PoissonLoader(private, images, image_format)


def _network_name(architecture: Architecture) -> str:
    return f"experts.architecture {architecture.class_path}"


def _check_network(network: nn.Module, architecture: Architecture, stream: "ExpertStream") -> None:
    """Refuse a network that does not take the images of the scenario, or has not one unit for each class."""
    dataset, name = stream.scenario.dataset, _network_name(architecture)
    units = probe(network, dataset.image_format.shape, name)
    if units != len(dataset.class_names):
        raise ExmlError(
            f"{name} has {units} output units: {stream.scenario.name} needs {len(dataset.class_names)}, one a class"
        )


def _entry(
    k: int,
    recipe: ExpertRecipe,
    privacy: PrivacySettings | None,
    architecture: Architecture,
    classifier: str | None,
    stream: "ExpertStream",
    classes: tuple[int, ...],
    task: int,
) -> ExpertEntry:
    names = stream.scenario.dataset.class_names
    settings = {key: value for key, value in asdict(recipe).items() if key != "architecture"}
    secret = {} if privacy is None else {"privacy": asdict(privacy), "noise": "secret, so not reproducible"}
    skeleton = architecture.skeleton()
    pretrained = {key: value for key, value in architecture.init_args.items() if skeleton.init_args[key] != value}
    return ExpertEntry(
        file=f"expert_{k}.safetensors",
        sha256="",
        architecture=skeleton,
        classes=tuple(names[c] for c in classes),
        outputs=tuple(classes),
        task=task,
        classifier=classifier,
        training={**settings, **pretrained, **secret, "seed": stream.seed, "initial": INITIAL},
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
            theirs = entry.architecture.skeleton() if name == "architecture" else getattr(entry, name)
            if theirs != getattr(want, name):
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


def _accuracy(network: nn.Module, test: LabelledImages, entry: ExpertEntry, image_format: ImageFormat) -> float | None:
    """Accuracy on the test images of the expert's own classes, among these classes; None if there are none."""
    device = next(network.parameters()).device
    outputs = torch.tensor(entry.outputs)
    own = torch.isin(test.labels, outputs).nonzero().flatten()
    network.eval()
    right = 0
    with torch.no_grad():
        for rows in own.split(250):
            logits = network(image_format.normalize(test.read(rows).to(device))).cpu()
            guesses = outputs[logits[:, outputs].argmax(dim=1)]
            right += int((guesses == test.labels[rows]).sum())
    return right / len(own) if len(own) else None
