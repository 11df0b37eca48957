"""The straightforward implementation in benchmarks/performance computes what the package computes."""

import copy
import json
import math
import os

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback

from benchmarks.performance.race import compare, read_curve, run, run_accuracy
from benchmarks.performance.straightforward import Change, Distillation, Inversion, Settings, blurred, change_images
from benchmarks.performance.straightforward_stream import StraightforwardStream
from benchmarks.performance.workload import run_fit
from exml_lightning.core import priors
from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.distillation import Distillation as PackageLoss
from exml_lightning.core.generators import ModelInversion
from exml_lightning.core.generators.generator import balanced_columns
from exml_lightning.core.rng import keyed_generator
from exml_lightning.experts import load_expert, read_manifest

AUGMENTATION = Augmentation(shift=0.06, rotation=10, flip=True)
SETTINGS = Settings(flip=True, generator_batch_size=3, workers=0)


def changes_of(draws: torch.Tensor, size: int) -> list[Change]:
    """Write the package's changes as torchvision's.

    The package fetches the pixel at ``R x + t`` from what was mirrored before; torchvision moves the pixel at ``x``,
    turned by ``-R``, by ``-R^-1 t``.
    """
    changes = []
    for angle, mirror, right, down in draws.double().tolist():
        a = math.radians((2 * angle - 1) * AUGMENTATION.rotation)
        x, y = (2 * right - 1) * AUGMENTATION.shift * size, (2 * down - 1) * AUGMENTATION.shift * size
        back = -math.cos(a) * x - math.sin(a) * y, math.sin(a) * x - math.cos(a) * y
        changes.append(Change(-math.degrees(a), *back, mirror < 0.5))
    return changes


@pytest.fixture
def expert(digit_experts):
    return load_expert(digit_experts, read_manifest(digit_experts), 1)


def test_images_are_changed_alike():
    images = torch.randn(20, 3, 16, 16)
    draws = AUGMENTATION.draw(20, keyed_generator("test"))
    changed = change_images(images, changes_of(draws, 16), SETTINGS.reach(16, 16))
    torch.testing.assert_close(
        changed, AUGMENTATION.apply(images, AUGMENTATION.matrices(draws, *images.shape[-2:])), rtol=0, atol=1e-4
    )


def test_images_are_blurred_alike():
    images = torch.randn(4, 3, 9, 7)
    ours = (images - blurred(images)).square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(ours, priors.blur(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("augmented", [True, False])
def test_the_same_images_are_generated(expert, augmented):
    count, steps, seed = 7, 6, "images"
    augmentation = AUGMENTATION if augmented else Augmentation()
    generator = keyed_generator(seed)
    columns = balanced_columns(count, 2, generator)
    noise = torch.randn(count, 1, 32, 32, generator=generator)
    settings = SETTINGS if augmented else Settings(shift=0, rotation=0, generator_batch_size=3)
    limits = expert.image_format.limits(torch.device("cpu"))
    network = copy.deepcopy(expert.model)
    inversion = Inversion(network, expert.classes.tolist(), noise, columns, limits, settings)
    images = noise.clamp(*limits)
    for step in range(steps):
        draws = augmentation.draw(count, keyed_generator("change images", generator.initial_seed(), step))
        logits = (
            expert(augmentation.apply(images, augmentation.matrices(draws, *images.shape[-2:]))) / settings.temperature
        )
        expected = F.cross_entropy(logits, columns, reduction="sum")
        expected += settings.l2 * priors.l2_norm(images).sum() + settings.blur * priors.blur(images).sum()
        loss = inversion.step(changes_of(draws, 32) if augmented else None)
        assert loss == pytest.approx(float(expected), rel=1e-4)
        package = ModelInversion(steps=step + 1, batch_size=4, augmentation=augmentation)
        images = package.generate(expert, count, keyed_generator(seed)).images
        torch.testing.assert_close(inversion.images.detach(), images, rtol=0, atol=1e-4)
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert (images - noise).abs().max() > 0.3


class Recorder(Callback):
    """Keeps where the second experience starts, its mini-batches, losses and the weights it ends with."""

    def __init__(self):
        self.batches, self.losses = [], []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        if trainer.current_epoch == 1 and batch_idx == 0:
            self.student, self.previous = copy.deepcopy(module.network), copy.deepcopy(module.previous)
            self.seen = module.previous_known.nonzero().flatten().tolist()

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.current_epoch == 1:
            self.batches.append((batch.images, batch.labels))
            self.losses.append(float(outputs["loss"]))
            self.end = copy.deepcopy(module.network.state_dict())


def test_the_same_is_distilled(small_run, expert):
    recorder = Recorder()
    options = ["--model.lr_scheduler", "null", "--model.lambda_ce", "0.7", "--trainer.accelerator", "cpu"]
    run_fit([*small_run(data__n_iter=10), *options], recorder)
    settings = Settings(lr=1e-4, lambda_ce=0.7)
    own, seen = expert.classes.tolist(), recorder.seen
    ours = Distillation(recorder.student, expert.model, own, recorder.previous, seen, settings)
    losses = [ours.step(*batch) for batch in recorder.batches]
    assert len(losses) == 10
    assert losses == pytest.approx(recorder.losses, rel=1e-4)
    for name, weight in recorder.student.state_dict().items():
        torch.testing.assert_close(weight, recorder.end[name], rtol=0, atol=1e-5)


def test_a_class_that_both_teachers_know_takes_the_mean():
    networks = [torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(9, 5)) for _ in range(3)]
    student, expert, previous = networks
    images, labels = torch.randn(8, 1, 3, 3), torch.tensor([0, 1, 3, 0, 1, 3, 1, 1])
    own, seen, known = [3, 1], [0, 1], torch.tensor([True, True, False, True, False])
    before = torch.tensor([True, True, False, False, False])
    theirs = (expert(images)[:, own], torch.tensor(own)), (previous(images), before)
    expected = PackageLoss(lambda_ce=0.7)(student(images), *theirs, labels, known)["loss"]
    ours = Distillation(student, expert, own, previous, seen, Settings(lambda_ce=0.7))
    assert ours.step(images, labels) == pytest.approx(float(expected), rel=1e-5)


def test_a_stopped_run_goes_on(tmp_path, digit_experts):
    manifest = read_manifest(digit_experts)

    def make() -> StraightforwardStream:
        student = manifest.experts[0].architecture.build("test")
        test = torch.randn(4, 1, 32, 32), torch.arange(4)
        return StraightforwardStream(
            lambda k: load_expert(digit_experts, manifest, k),
            2,
            student,
            test,
            Settings(generator_steps=2, batch_size=4, workers=0),
            buffer_size=6,
            n_iter=3,
            device=torch.device("cpu"),
            folder=tmp_path,
        )

    calls = 1
    while not make().run(limit=0):
        calls += 1
    assert calls == 2 * (2 + 3 - 1) + 1  # after each step but an expert's last
    curve = json.loads((tmp_path / "curve.json").read_text())["curve"]
    assert [(point["expert"], point["step"]) for point in curve] == [(1, 3), (2, 3)]
    assert 0 < curve[0]["seconds"] < curve[1]["seconds"] < curve[1]["seconds_with_evaluation"]


def test_times_are_compared_at_the_accuracy_that_the_straightforward_run_ends_with():
    curve = [
        {"accuracy": 0.2, "seconds": 10.0, "seconds_with_evaluation": 11.0},
        {"accuracy": 0.5, "seconds": 90.0, "seconds_with_evaluation": 99.0},
        {"accuracy": 0.4, "seconds": 130.0, "seconds_with_evaluation": 150.0},
    ]
    fits = {
        "good": [
            {"seconds": 4.0, "accuracy": 0.3},
            {"seconds": 9.0, "accuracy": 0.45},
            {"seconds": 20.0, "accuracy": 0.4},
        ],
        "slow": [{"seconds": 10.0, "accuracy": 0.4}],
        "worse": [{"seconds": 1.0, "accuracy": 0.39}],
    }
    first, *rows = compare(curve, fits, 5)["tables"]["Time to the straightforward run's accuracy"]
    assert (first["seconds to that accuracy"], first["evaluations left out"]) == (99.0, 90.0)
    assert [(row["times faster"], row["met"]) for row in rows] == [(10.0, True), (9.0, False), (None, False)]


def test_the_curve_of_a_fit_is_read_from_its_run_folder(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "accuracy_matrix.csv").write_text("after_experience,0,1,stream\n0,1.0,0.0,0.5\n1,0.8,0.4,0.6\n")
    for k, end in enumerate((1010, 1030)):
        path = tmp_path / "checkpoints" / f"experience={k}.ckpt"
        path.touch()
        os.utime(path, (end, end))
    assert read_curve(tmp_path, 1000.0) == [{"seconds": 10, "accuracy": 0.5}, {"seconds": 30, "accuracy": 0.6}]


@pytest.mark.slow
@pytest.mark.parametrize("part", [run, run_accuracy])
def test_parts_run(tmp_path, part):
    result = part(torch.device("cpu"), tmp_path, True)
    assert all("met" in row for row in list(result["tables"].values())[-1][-2:])
