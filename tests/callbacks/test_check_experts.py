"""Experts and learning rates whose numbers go wrong, met by the real command."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from exml_lightning.callbacks.check_experts import print_looks
from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.first_look import FirstLook
from exml_lightning.core.generators import ModelInversion
from exml_lightning.experts import load_expert, read_manifest, save_weights, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.fitting import distil
from exml_lightning.models import LeNet5
from exml_lightning.scenarios import Digits
from tests.conftest import EXPERTS, refused


class Sometimes(LeNet5):
    """Answers `value` for images whose mean absolute value is not between two limits.

    Only where it is asked about `size` images at once, and has been `after` times before.
    """

    times = 0

    def __init__(
        self,
        num_classes: int,
        low: float = 0.0,
        high: float = 1e9,
        value: float = torch.nan,
        size: int | None = None,
        after: int = 0,
    ) -> None:
        super().__init__(num_classes)
        self.low, self.high, self.value, self.size, self.after = low, high, value, size, after

    def forward(self, images: Tensor) -> Tensor:
        strength = images.flatten(1).abs().mean(dim=1)
        wrong = (strength < self.low) | (strength > self.high)
        asked = self.size in (None, len(images))
        self.times += asked
        return super().forward(images).masked_fill(wrong[:, None] & (asked and self.times > self.after), self.value)


@pytest.fixture
def spoil(tmp_path):
    """Copies the shipped experts and spoils one: by another architecture, or by a change of its weights."""

    def spoilt(index: int, change=None, kind=None, **limits) -> Path:
        folder = tmp_path / "experts"
        shutil.copytree(EXPERTS, folder)
        manifest = read_manifest(folder)
        network = load_expert(folder, manifest, index).model
        if change is not None:
            change(network)
        path = folder / manifest.experts[index].file
        args = {"num_classes": 10, **limits}
        kind = kind or (Architecture(SOMETIMES, args) if limits else manifest.experts[index].architecture)
        entry = replace(manifest.experts[index], sha256=save_weights(network, path), architecture=kind)
        experts = [entry if k == index else other for k, other in enumerate(manifest.experts)]
        write_manifest(replace(manifest, experts=tuple(experts)), folder)
        return folder

    return spoilt


def huge_weights(network):
    for parameter in network.parameters():
        parameter.data.mul_(1e12)


def no_weights(network):
    for parameter in network.parameters():
        parameter.data.zero_()


def infinite_weight(network):
    next(network.parameters()).data[0] = torch.inf


SOMETIMES = "tests.callbacks.test_check_experts.Sometimes"
SCRATCH = ["--model.start", "scratch"]  # experts of another class cannot be averaged


class Fussy(LeNet5):
    """Cannot be asked in one of the ways that a strategy asks."""

    def __init__(self, num_classes: int, way: str) -> None:
        super().__init__(num_classes)
        self.way = way

    def forward(self, images: Tensor) -> Tensor:
        now = {"learning": self.training, "generating": images.requires_grad, "teaching": len(images) == 7}
        if now[self.way]:
            raise ZeroDivisionError(f"no way\nof {self.way}")
        return super().forward(images)


@pytest.mark.parametrize(
    ("way", "said"),
    [
        (
            "generating",
            "): making 8 images from it by ModelInversion ended in ZeroDivisionError (no way of generating): make",
        ),
        (
            "teaching",
            "): asking it as a teacher, by NormalScores, ended in ZeroDivisionError (no way of teaching): give",
        ),
        (
            "learning",
            "model.architecture tests.callbacks.test_check_experts.Fussy: a step of its training ended in ZeroD",
        ),
    ],
)
def test_whatever_a_network_raises_is_one_line_before_work(spoil, tmp_path, way, said):
    kind = {"class_path": "tests.callbacks.test_check_experts.Fussy", "init_args": {"way": way}}
    folder = spoil(1, kind=Architecture(kind["class_path"], {"num_classes": 10, "way": way}))
    network = {"architecture": kind} if way == "learning" else {"generator": ModelInversion(steps=1)}
    small = {"buffer_size": 60, "batch_size": 7, "cache": None, "accelerator": "cpu", "progress": False}
    with pytest.raises(ExmlError) as error:
        distil(folder, tmp_path / "run", **small, **network)
    assert said in str(error.value)
    assert way == "learning" or str(error.value).startswith(f"expert 1 ({folder / 'expert_1.safetensors'})")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_of_a_long_stream_the_first_experts_and_those_on_another_scale_are_listed(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    manifest = read_manifest(EXPERTS)
    many = replace(manifest, experts=manifest.experts * 6)
    looks = {k: FirstLook(0.9, 2.0) for k in range(2, 30)} | {25: FirstLook(0.52, 20.0), 27: FirstLook(0.5, 0.1)}
    print_looks(looks, many, 32)
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [int(row[0]) for row in rows] == [*range(3, 23), 26, 28]
    assert "experts before the work (all LeNet5, 1x32x32): mean confidence" in out
    assert " ".join(rows[20]) == "26 expert_0.safetensors 5 4 52 % 20 !"
    other = replace(many.experts[25], architecture=Architecture("torchvision.models.resnet18"))
    print_looks(looks, replace(many, experts=(*many.experts[:25], other, *many.experts[26:])), 32)
    out = " ".join(capsys.readouterr().out.split())
    assert "experts before the work (all 1x32x32): mean" in out
    assert "26 expert_0.safetensors resnet18 5 4 52 % 20 !" in out
    assert ", 22 of 28 are listed" in out
    assert "than the median expert's: expert_0.safetensors 10 times, expert_2.safetensors 0.05 times. Where" in out
    print_looks(dict(list(looks.items())[:2]), many, 32)
    assert "!" not in capsys.readouterr().out


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "checkpoints").glob("*"))


@pytest.mark.parametrize(
    ("index", "spoilt", "said"),
    [
        (1, {"low": 1e9}, " answers NaN or infinity for 32 of 32 drawings"),
        (1, {"low": 1e9, "value": -torch.inf}, " answers NaN or infinity for 32 of 32 drawings"),
        (0, {"change": no_weights}, " gives 32 drawings one and the same answer"),
        (1, {"change": huge_weights}, " answers drawings with logits up to "),
        (1, {"change": infinite_weight}, ": features.0.weight holds NaN or infinity"),
    ],
)
def test_what_an_expert_may_not_answer_is_found_before_work(spoil, tmp_path, index, spoilt, said):
    folder = spoil(index, **spoilt)
    with pytest.raises(ExmlError) as error:
        distil(folder, tmp_path / "run", buffer_size=12, cache=None, accelerator="cpu", progress=False)
    path = folder / f"expert_{index}.safetensors"
    assert (f"{path}{said}" if said[0] == ":" else f"expert {index} ({path}){said}") in str(error.value)
    assert "put a sound expert in its place, in manifest.yaml too" in str(error.value)
    assert not list((tmp_path / "run").rglob("*.ckpt"))


def test_absurd_answers_while_distilling_are_the_experts_fault(spoil, small_run, capsys):
    args = [*small_run(data__experts=str(spoil(1, low=1e9, value=1e30, size=8, after=3))), *SCRATCH]
    error = refused([*args, "--buffer.generator", "Replay"], capsys)
    assert "expert 1 (" in error
    assert "more than 1e+06 for 8 of 8 samples in step 3 of experience 1" in error


def test_nan_while_images_are_made_is_found_in_that_step(spoil, small_run, tmp_path, capsys):
    # the norm's weight pulls images to 0, a tenth a step
    low, high = (float(limit) for limit in read_manifest(EXPERTS).input.limits(torch.device("cpu")))
    noise = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).clamp(low, high).abs()
    step = next(k for k in range(8) if (noise - 0.1 * k).clamp(min=0).mean() < 0.4)
    still = [f"--buffer.generator.augmentation.{change}=0" for change in ("shift", "rotation")]
    pulled = [*SCRATCH, *still, "--buffer.generator.l2", "100", "--buffer.generator.steps", "8"]
    error = refused([*small_run(data__experts=str(spoil(1, low=0.4, size=6))), *pulled], capsys)
    assert "expert 1 (" in error
    assert f"answers NaN or infinity for 6 of 6 images in step {step} of making them" in error
    assert checkpoints(tmp_path / "run") == ["experience=0.ckpt", "last.ckpt"]


def strong(expert: int, high: float) -> tuple[Tensor, Tensor]:
    """The digits of an expert of the shipped run, normalised, and which of them are stronger than a limit."""
    digits, manifest = Digits().load(Path(), train=True), read_manifest(EXPERTS)
    own = torch.isin(digits.labels, torch.tensor(manifest.classes_of(expert)))
    images = manifest.input.normalize(digits.images[own])
    return images, images.flatten(1).abs().mean(dim=1) > high


def test_nan_while_distilling_is_found_at_once_and_counted(spoil, small_run, tmp_path, capsys):
    replay = [*SCRATCH, "--buffer.generator", "Replay"]
    error = refused([*small_run(data__experts=str(spoil(1, high=0.9, size=8, after=1))), *replay], capsys)
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["ExpertStream"]["experience"] == 0
    assert "expert 1 (" in error
    found = int(error.split("1e+06 for ")[1].split(" of 8 samples in step ")[0])
    assert 1 <= found <= 8
    assert error.split("in step ")[1].split(" of experience 1")[0] in ("1", "2")
    assert strong(1, 0.9)[1].float().mean() > 0.3  # so that hardly any mini-batch of 8 is without one


def test_a_learning_rate_that_diverges_is_found_and_the_last_good_checkpoint_stays(small_run, tmp_path, capsys):
    fast = ["--model.optimizer", "torch.optim.SGD", "--model.optimizer.init_args.lr", "1e30"]
    error = refused([*small_run(trainer__max_epochs=1), *fast], capsys)
    assert "the ex-model diverged while it learned expert 0 (" in error
    assert "of 8 samples in step " in error
    assert int(error.split("in step ")[1].split(" of experience 0")[0]) <= 2
    assert checkpoints(tmp_path / "run") == []  # a safety copy was due at every second step


@pytest.mark.slow
def test_a_sound_expert_in_its_place_is_learned(small_run, tmp_path, capsys):
    """Found broken late in its experience, when a safety copy of it is there already."""
    folder = tmp_path / "experts"
    shutil.copytree(EXPERTS, folder)
    manifest = read_manifest(folder)
    sound = manifest.experts[1]
    args = [*small_run(data__experts=str(folder)), *SCRATCH, "--buffer.generator", "Replay"]
    main([*args, "--trainer.default_root_dir", str(tmp_path / "whole")])

    shutil.move(folder / sound.file, tmp_path / "kept")
    digest = save_weights(load_expert(EXPERTS, manifest, 1).model, folder / sound.file)
    kind = Architecture(SOMETIMES, {"num_classes": 10, "low": 1e9, "size": 8, "after": 3})
    late = replace(sound, architecture=kind, sha256=digest)
    write_manifest(replace(manifest, experts=(manifest.experts[0], late, *manifest.experts[2:])), folder)
    assert "for 8 of 8 samples in step 3 of experience 1" in refused(args, capsys)  # a safety copy was due at step 2

    shutil.move(tmp_path / "kept", folder / sound.file)
    write_manifest(manifest, folder)
    main(args)
    weights = [(tmp_path / run / "ex_model" / "expert_0.safetensors").read_bytes() for run in ("whole", "run")]
    assert weights[0] == weights[1]
