"""Training the stream of experts of a scenario on its original data (Section 5)."""

import shutil
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, Trainer
from torch import nn

from exml_lightning.core.errors import ExmlError, printable
from exml_lightning.core.expert import Expert
from exml_lightning.core.features import middle_layer
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.core.layout import fast_layout
from exml_lightning.core.measure_statistics import check_counts
from exml_lightning.experts.architecture import Architecture, default_architecture, last_linear, probe
from exml_lightning.experts.expert_module import ADVICE, ExpertModule, ExpertRecipe
from exml_lightning.experts.manifest import FILE_NAME, ExpertEntry, Manifest, read_manifest, write_manifest
from exml_lightning.experts.matching import experts_command
from exml_lightning.experts.privacy import (
    NoisePlan,
    PrivacySettings,
    check_installed,
    noise_beside_weights,
    plan_noise,
)
from exml_lightning.experts.private_training import PrivateExpertModule, check_network, check_trainer
from exml_lightning.experts.selection import is_selection
from exml_lightning.experts.side_by_side import TrainExpert, packed, processes_for, side_by_side
from exml_lightning.experts.statistics_file import check_noise, is_published, publish, rows_of
from exml_lightning.experts.weights import load_expert, load_weights, save_weights
from exml_lightning.files import sha256
from exml_lightning.scenarios import Scenario
from exml_lightning.scenarios.scenario import TrainImages
from exml_lightning.terminal import say

INITIAL = "initial.safetensors"
NOT_TRAINING = ("architecture", "statistics", "workers")
"""Settings of a recipe that its experts do not depend on, or that are said elsewhere."""
NEWER = ("schedule", "augmentation", "unknown")
"""Settings that manifests of experts trained without them do not have."""
LONGEST = 300
"""Characters of a setting that an error shows: there may be a thousand classes."""
MakeTrainer = Callable[[str, Path, int], Trainer]
"""Makes the trainer of one expert from the title of its bar, its checkpoint and the number of epochs."""


@dataclass(frozen=True)
class ExpertTraining:
    """Which experts to train, how, and where: `folder` is theirs, `root` that of all data sets, `run_id` 0 to 4."""

    scenario: Scenario
    folder: Path
    seed: int
    run_id: int = 0
    root: Path = Path("data")
    recipe: ExpertRecipe = field(default_factory=ExpertRecipe)
    privacy: PrivacySettings = field(default_factory=PrivacySettings)

    @cached_property
    def architecture(self) -> Architecture:
        """That of all experts, with a unit for each class of the data set."""
        dataset, given = self.scenario.dataset, self.recipe.architecture
        chosen = Architecture.from_config(given) if given else default_architecture(dataset.image_format.shape)
        return chosen.with_classes(len(dataset.class_names))

    def checkpoint(self, k: int) -> Path:
        """Return where the newest epoch of an expert is kept while it is trained."""
        return self.folder / "training" / f"expert_{k}.ckpt"


def train_experts(
    job: ExpertTraining, make_trainer: MakeTrainer, limit: int | None = None, download: bool = False
) -> Manifest:
    """Train the experts that are not there yet, of the first `limit` of the stream, from one saved initial model.

    Writes ``initial.safetensors``, ``expert_<k>.safetensors`` and, after each expert, ``manifest.yaml``, which is
    returned. It lists the stream from its first expert on: one that is finished before an earlier one waits for that. A
    run that was stopped goes on with the epochs it was in; `download` fetches a missing data set first. Raises
    `ExmlError` if data are missing, the folder holds experts of another scenario or recipe, the network does not suit
    the scenario or cannot be trained so, or the scenario learns the experts of another.
    """
    job.scenario.dataset.open(job.root, download)
    _check(job, make_trainer)
    wanted = _wanted(job)
    listed = _listed(job.folder, wanted)
    done = {k for k, entry in enumerate(listed) if entry.path(job.folder).is_file()}
    pending = [k for k in range(len(wanted.experts))[:limit] if k not in done]
    silent = [k for k in sorted(done) if not is_published(listed[k], job.folder)] if job.recipe.statistics else []
    for k, entry in enumerate(wanted.experts[:limit]):
        if k in done:
            say(f"{_which(k, wanted)} is done: {job.folder / entry.file}")
        elif k < len(listed) and listed[k].privacy is not None:
            say(f"{job.folder / entry.file} is lost; if it was given away, its epsilon counts beside the new one's")
    if not pending and not silent:
        return replace(wanted, experts=tuple(listed))

    some_trainer = partial(make_trainer, "", job.checkpoint(0), job.recipe.epochs)
    processes, shown = processes_for(len(pending), job.recipe.workers, some_trainer)
    # Before data are read, since pretrained weights may be missing; what no expert has started from is made anew.
    begun, shape = done and (job.folder / INITIAL).is_file(), wanted.input.shape
    initial = None if begun else job.architecture.build(job.seed, "expert", shape=shape)
    if download:
        job.scenario.dataset.download(job.root)
    originals = job.scenario.train_images(job.root, job.scenario.experiences(job.run_id, job.root))
    private = pending if job.privacy.epsilon is not None else []
    if job.recipe.statistics:
        for k in sorted({*pending, *silent}):
            entry = wanted.experts[k]
            check_counts(f"expert {k}", rows_of(originals[k], entry.outputs)[1], entry.classes)
            if k in silent:
                check_noise(listed[k], f"expert {k}", job.privacy.epsilon is not None)
    plans = {
        k: plan_noise(job.privacy, job.recipe, len(originals[k]), f"expert {k}", job.recipe.statistics) for k in private
    }
    if initial is not None:
        save_weights(initial, job.folder / INITIAL)

    def publish_statistics(k: int) -> None:
        bare = [replace(entry, statistics=None) for entry in listed]  # what is there may be broken
        expert = load_expert(job.folder, replace(wanted, experts=tuple(bare)), k)
        rows, columns = rows_of(originals[k], expert.classes.tolist())
        noise = noise_beside_weights(job.privacy, len(rows), f"expert {k}")
        if noise is not None and (lost := listed[k].statistics) is not None:
            say(f"{job.folder / lost.file} is lost: the epsilon of new statistics counts beside it")
            listed[k] = replace(listed[k], privacy=noise.spent.plus(listed[k].privacy))
        listed[k] = publish(expert, listed[k], job.folder, originals[k].read(rows), columns, noise)
        write_manifest(replace(wanted, experts=tuple(listed)), job.folder)
        say(f"{_which(k, wanted)} publishes statistics of its classes")

    for k in silent:
        publish_statistics(k)
    finished: dict[int, ExpertEntry] = {}
    work = partial(_training, job, wanted, plans, make_trainer)
    packed_work = packed(work) if processes > 1 else None
    results: Generator[tuple[int, ExpertEntry], None, None]
    if packed_work is not None:
        results = side_by_side(packed_work, pending, processes, job.recipe.epochs, shown)
    else:
        train = work((originals, job.scenario.dataset.load(job.root, train=False) if pending else None))
        results = ((k, train(k)) for k in pending)
    with closing(results):
        for k, entry in results:
            _say_known(k, wanted, entry)
            finished[k] = entry
            for j in sorted(finished):
                if j > len(listed):
                    break  # its checkpoint stays, of all epochs, until those before it are there
                listed[j : j + 1] = [finished.pop(j)]
                write_manifest(replace(wanted, experts=tuple(listed)), job.folder)
                job.checkpoint(j).unlink(missing_ok=True)
                if job.recipe.statistics:
                    publish_statistics(j)
    left = {*range(len(wanted.experts))} - done - {*pending}
    if not any(job.checkpoint(k).is_file() for k in left):
        shutil.rmtree(job.folder / "training", ignore_errors=True)
    return replace(wanted, experts=tuple(listed))


def _check(job: ExpertTraining, make_trainer: MakeTrainer) -> None:
    """Refuse what can be known to fail before anything is read."""
    scenario, skeleton = job.scenario, job.architecture.skeleton()
    name = f"experts.architecture {skeleton.class_path}"
    if scenario.experts_of is not None:
        command = experts_command(scenario, job.run_id, job.root, job.folder)
        raise ExmlError(f"{scenario.name} learns the experts of {scenario.experts_of}: train those, with `{command}`")
    if is_selection(job.folder):
        raise ExmlError(f"data.experts {job.folder} is a selection: experts are trained into a folder, name that")
    shape, classes = scenario.dataset.image_format.shape, len(scenario.dataset.class_names)
    units = probe(skeleton.empty(shape), shape, name)
    if units != classes:
        raise ExmlError(f"{name} has {units} output units: {scenario.name} needs {classes}, one a class")
    if job.recipe.statistics:
        unit, shown = (0,), scenario.dataset.image_format
        middle_layer(Expert(skeleton.empty(shape), unit, unit, shown, file=name))
    if job.privacy.epsilon is not None:
        if job.recipe.unknown:
            raise ExmlError("experts.unknown shows images twice, which privacy.epsilon does not count: leave one out")
        check_installed()
        check_trainer(make_trainer("", job.checkpoint(0), job.recipe.epochs))
        check_network(skeleton.empty(shape), shape, name)


def _wanted(job: ExpertTraining) -> Manifest:
    """Describe all experts as they will be, but for hashes and accuracies."""
    dataset, skeleton = job.scenario.dataset, job.architecture.skeleton()
    plain = asdict(ExpertRecipe())
    training: dict[str, Any] = {
        key: value
        for key, value in asdict(job.recipe).items()
        if key not in NOT_TRAINING and not (key in NEWER and value == plain[key])
    }
    given = job.architecture.init_args
    training |= {key: value for key, value in given.items() if skeleton.init_args[key] != value}  # pretrained weights
    if job.privacy.epsilon is not None:
        both = {"statistics": True} if job.recipe.statistics else {}  # they share epsilon, so weights are others
        training |= {"privacy": asdict(job.privacy) | both, "noise": "secret, so not reproducible"}
    classifier = last_linear(skeleton.empty(dataset.image_format.shape))
    entries = [
        ExpertEntry(
            file=f"expert_{k}.safetensors",
            sha256="",
            architecture=skeleton,
            classes=tuple(dataset.class_names[c] for c in experience.classes),
            outputs=tuple(experience.classes),
            task=experience.task,
            classifier=classifier,
            training={**training, "seed": job.seed, "initial": INITIAL},
        )
        for k, experience in enumerate(job.scenario.experiences(job.run_id, job.root))
    ]
    return Manifest(job.scenario.name, job.run_id, dataset.class_names, dataset.image_format, tuple(entries))


def _listed(folder: Path, wanted: Manifest) -> list[ExpertEntry]:
    """Return what the manifest of a folder lists, if there is one; refuse experts that are others, or damaged."""
    path = folder / FILE_NAME
    if not path.is_file():
        return []
    manifest = read_manifest(folder)
    stream, same = ("scenario", "run", "class_names", "input"), ("file", "classes", "outputs", "task", "training")
    pairs = [(f"{name} is", getattr(manifest, name), getattr(wanted, name)) for name in stream]
    for k, (entry, want) in enumerate(zip(manifest.experts, wanted.experts, strict=False)):
        pairs.append((f"expert {k}: architecture is", entry.architecture.skeleton(), want.architecture))
        pairs += [(f"expert {k}: {name} is", getattr(entry, name), getattr(want, name)) for name in same]
    for what, had, asked in pairs:
        if had != asked:
            had, asked = (
                printable(words, LONGEST) + (" ..." if len(words) > LONGEST else "") for words in map(str, (had, asked))
            )
            raise ExmlError(f"{path}: {what} {had}, but {asked} is asked for: {ADVICE}")
    for entry in manifest.experts:
        weights = entry.path(folder)
        if weights.is_file() and sha256(weights) != entry.sha256:
            raise ExmlError(f"{weights} has another hash (sha256) than the manifest says: delete it to train it again")
    return [*manifest.experts]


def _training(
    job: ExpertTraining,
    wanted: Manifest,
    plans: dict[int, NoisePlan],
    make_trainer: MakeTrainer,
    data: tuple[TrainImages, LabelledImages | None] | None = None,
) -> TrainExpert:
    """Return what trains each expert, on data that another process has to read anew."""
    if data is None:
        images = job.scenario.train_images(job.root, job.scenario.experiences(job.run_id, job.root))
        data = images, job.scenario.dataset.load(job.root, train=False)
    originals, test = data

    def train(k: int, *callbacks: Callback) -> ExpertEntry:
        assert test is not None
        return _train(job, k, wanted, originals[k], plans.get(k), test, make_trainer, callbacks)

    return train


def _train(
    job: ExpertTraining,
    k: int,
    wanted: Manifest,
    images: LabelledImages,
    plan: NoisePlan | None,
    test: LabelledImages,
    make_trainer: MakeTrainer,
    callbacks: tuple[Callback, ...],
) -> ExpertEntry:
    """Train one expert, from the epoch it was in, and write its weights."""
    entry, which, checkpoint = wanted.experts[k], _which(k, wanted), job.checkpoint(k)
    network = entry.architecture.empty(wanted.input.shape)
    load_weights(network, job.folder / INITIAL)
    same = network, job.recipe, images, wanted.input, (job.seed, "expert", k), str(entry)
    if plan is None:
        fast_layout(network, wanted.input.shape)  # Opacus' gradients of single samples are wrong in another layout
    module = ExpertModule(*same) if plan is None else PrivateExpertModule(*same, plan=plan)
    classes = " ".join(entry.classes[:3]) + (" ..." if len(entry.classes) > 3 else "")
    trainer = make_trainer(f"{which} training ({classes})", checkpoint, job.recipe.epochs)
    trainer.callbacks += callbacks  # type: ignore[attr-defined]  # Lightning sets it from outside
    trainer.fit(module, ckpt_path=str(checkpoint) if checkpoint.is_file() else None, weights_only=True)

    accuracy = _accuracy(network.to(trainer.strategy.root_device), test, entry, wanted.input)
    spent = None if plan is None else plan.spent(trainer.global_step)
    return replace(entry, sha256=save_weights(network, entry.path(job.folder)), accuracy=accuracy, privacy=spent)


def _say_known(k: int, wanted: Manifest, entry: ExpertEntry) -> None:
    known, spent = "has no test images of its classes: accuracy null", entry.privacy
    if entry.accuracy is not None:
        known = f"knows its own classes with {100 * entry.accuracy:.2f} % accuracy"
    budget = f"; epsilon {spent.epsilon:.2f}, delta {spent.delta:.1e}" if spent else ""
    say(f"{_which(k, wanted)} {known}{budget}")


def _which(k: int, wanted: Manifest) -> str:
    return f"expert {k + 1}/{len(wanted.experts)}"


def _accuracy(network: nn.Module, test: LabelledImages, entry: ExpertEntry, image_format: ImageFormat) -> float | None:
    """Accuracy on the test images of the expert's own classes, among these classes; None if there are none."""
    device, outputs = next(network.parameters()).device, torch.tensor(entry.outputs)
    own = torch.isin(test.labels, outputs).nonzero().flatten()
    network.eval()
    right = 0
    with torch.no_grad():
        for rows in own.split(250):
            logits = network(image_format.normalize(test.read(rows).to(device))).cpu()
            right += int((outputs[logits[:, outputs].argmax(dim=1)] == test.labels[rows]).sum())
    return right / len(own) if len(own) else None
