import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning import Trainer

from exml_lightning.callbacks.progress import ExpertProgressBar
from exml_lightning.callbacks.stream_checkpoint import EpochCheckpoint
from exml_lightning.cli import stream_verbs
from exml_lightning.cli.main import main
from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.broken_images import break_images
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.rng import keyed_generator
from exml_lightning.experts import Manifest, load_expert, load_weights, read_manifest, write_manifest
from exml_lightning.experts.expert_module import ExpertModule, ExpertRecipe
from exml_lightning.experts.manifest import PrivacySpent, PublishedStatistics
from exml_lightning.experts.privacy import PrivacySettings
from exml_lightning.experts.training import ExpertTraining, train_experts
from exml_lightning.models import LeNet5
from exml_lightning.scenarios import Digits, Scenario
from tests.conftest import ROOT, refused

DIGITS = Scenario("split_digits", Digits(), classes_per_experience=2)
RECIPE = ExpertRecipe(epochs=1, batch_size=64, workers=1)


def make_trainer(title: str, checkpoint: Path, epochs: int) -> Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    options = {"default_root_dir": checkpoint.parent, "callbacks": [EpochCheckpoint(checkpoint)], "accelerator": "cpu"}
    return Trainer(max_epochs=epochs, **options, **quiet)


def train(folder: Path, limit: int | None = None, **changes: object) -> Manifest:
    """Train experts of the digits, seed 1234, for one epoch; `changes` are of the job, or of its recipe."""
    recipe = {key: changes.pop(key) for key in [*changes] if hasattr(RECIPE, key)}
    job = ExpertTraining(DIGITS, folder, 1234, recipe=replace(RECIPE, **recipe))
    return train_experts(replace(job, **changes), make_trainer, limit)


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """All five experts."""
    folder = tmp_path_factory.mktemp("trained") / "experts"
    train(folder)
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    """A copy of them."""
    return shutil.copytree(trained, tmp_path / "experts")


def said(capsys) -> tuple[int, int]:
    """Count the experts that were there, and those that were trained."""
    out = capsys.readouterr().out
    return out.count("is done"), out.count("knows its own classes")


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_all_experts_are_trained_from_one_initial_model(trained):
    manifest = read_manifest(trained)
    weights = {f"expert_{k}.safetensors" for k in range(5)}
    assert {path.name for path in trained.iterdir()} == weights | {"initial.safetensors", "manifest.yaml"}
    dealt = [("5", "4"), ("8", "2"), ("6", "9"), ("1", "7"), ("0", "3")]
    assert [entry.classes for entry in manifest.experts] == dealt
    assert all(load_expert(trained, manifest, k).experience == k for k in range(5))
    assert manifest.experts[0].training["epochs"] == 1
    # the accuracy in the manifest is that of the file, on its own test images, among its own classes
    test = Digits().load(Path(), train=False)
    expert = load_expert(trained, manifest, 2)
    own = torch.isin(test.labels, expert.classes)
    guesses = expert.classes[expert(manifest.input.normalize(test.images[own])).argmax(dim=1)]
    assert manifest.experts[2].accuracy == pytest.approx((guesses == test.labels[own]).float().mean().item())


def own_images() -> tuple[torch.Tensor, torch.Tensor]:
    """Return the normalised training images of the first expert, of fives and fours, and their labels."""
    split = Digits().load(Path(), train=True)
    own = torch.isin(split.labels, torch.tensor([5, 4])).nonzero().flatten()
    return Digits().image_format.normalize(split.images[own]), split.labels[own]


def order_of(epoch: int, images: int) -> torch.Tensor:
    return torch.randperm(images, generator=keyed_generator("order", 1234, "expert", 0, epoch))


def sgd_step(
    network: LeNet5, velocity: list[torch.Tensor], loss: torch.Tensor, rate: float = 0.01, nesterov: bool = False
) -> None:
    """Take a step of momentum 0.9 and weight decay 5e-4, written out."""
    network.zero_grad()
    loss.backward()
    with torch.no_grad():
        for p, v in zip(network.parameters(), velocity, strict=True):
            gradient = p.grad + 5e-4 * p
            v.mul_(0.9).add_(gradient)
            p.sub_(rate * (gradient + 0.9 * v if nesterov else v))


def check_weights(folder: Path, network: LeNet5) -> None:
    """Assert that the first expert of a folder has the weights of `network`."""
    expected = load_expert(folder, read_manifest(folder), 0).model
    for (name, ours), theirs in zip(network.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)


def test_an_epoch_is_sgd_written_out(trained):
    network = LeNet5()
    load_weights(network, trained / "initial.safetensors")
    images, labels = own_images()
    velocity = [torch.zeros_like(p) for p in network.parameters()]
    for rows in order_of(0, len(labels)).split(64):
        loss = -torch.log_softmax(network(images[rows]), dim=1)[torch.arange(len(rows)), labels[rows]].mean()
        sgd_step(network, velocity, loss)
    check_weights(trained, network)


def test_one_cycle_is_nesterovs_momentum_at_a_rate_that_rises_and_falls(tmp_path):
    changes = Augmentation(shift=0.1, flip=True)
    train(tmp_path, limit=1, epochs=2, lr=0.05, schedule="one_cycle", augmentation=changes)
    network = LeNet5()
    load_weights(network, tmp_path / "initial.safetensors")
    images, labels = own_images()
    batches = [(epoch, rows) for epoch in range(2) for rows in order_of(epoch, len(labels)).split(64)]
    peak, last = len(batches) / 4 - 1, len(batches) - 1
    rates = [
        0.002 + 0.048 * step / peak if step <= peak else 0.05 * (last - step) / (last - peak)
        for step in range(len(batches))
    ]
    assert max(rates) > 0.04
    assert rates[-1] == 0
    draws = [keyed_generator("augmentation", 1234, "expert", 0, epoch) for epoch in range(2)]
    velocity = [torch.zeros_like(p) for p in network.parameters()]
    for (epoch, rows), rate in zip(batches, rates, strict=True):
        logits = network(changes(images[rows], draws[epoch]))
        loss = -torch.log_softmax(logits, dim=1)[torch.arange(len(rows)), labels[rows]].mean()
        sgd_step(network, velocity, loss, rate, nesterov=True)
    check_weights(tmp_path, network)
    training = read_manifest(tmp_path).experts[0].training
    assert training["schedule"] == "one_cycle"
    assert training["augmentation"] == {"shift": 0.1, "rotation": 0.0, "flip": True}
    with pytest.raises(ExmlError, match="expert 0: training is"):  # those of another recipe are others
        train(tmp_path, epochs=2, lr=0.05, augmentation=changes)


@pytest.mark.parametrize("steps", range(1, 10))
def test_one_cycle_of_few_steps_trains_too(steps):
    recipe = ExpertRecipe(epochs=steps, batch_size=8, schedule="one_cycle")
    images = Digits().load(Path(), train=True)[torch.arange(8)]
    module = ExpertModule(LeNet5(), recipe, images, Digits().image_format, ("few",), "")
    made = module.configure_optimizers()
    optimizer, rates = made["optimizer"] if isinstance(made, dict) else made, []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if isinstance(made, dict):
            made["lr_scheduler"]["scheduler"].step()
    assert max(rates) == pytest.approx(recipe.lr) if steps < 8 else max(rates) > 0.75 * recipe.lr


def test_the_manifest_of_a_constant_rate_is_that_of_before_there_were_others(trained):
    keys = {"epochs", "batch_size", "lr", "momentum", "weight_decay", "seed", "initial"}
    assert read_manifest(trained).experts[0].training.keys() == keys


def test_experts_that_are_there_are_left_and_a_lost_one_is_trained_again_and_the_same(folder, capsys):
    before = content(folder)
    stamps = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert train(folder) == read_manifest(folder)
    assert said(capsys) == (5, 0)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == stamps
    (folder / "expert_3.safetensors").write_bytes(b"precious")
    with pytest.raises(ExmlError, match=r"expert_3\.safetensors has another hash"):
        train(folder)
    assert (folder / "expert_3.safetensors").read_bytes() == b"precious"
    (folder / "expert_3.safetensors").unlink()
    train(folder)
    assert said(capsys) == (4, 1)
    assert content(folder) == before


def test_only_the_first_experts_are_trained(tmp_path, folder, trained, capsys):
    first = tmp_path / "first"
    assert len(train(first, limit=2).experts) == len(read_manifest(first).experts) == 2
    train(first)
    assert said(capsys) == (2, 5)
    assert content(first) == content(trained)
    for name in ("expert_0.safetensors", "expert_4.safetensors"):
        (folder / name).unlink()
    train(folder, limit=2)
    assert said(capsys) == (1, 1)
    assert len(read_manifest(folder).experts) == 5  # those beyond the limit stay listed
    assert not (folder / "expert_4.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 2}, r"expert 0: training is"),
        ({"run_id": 1}, "run is 0, but 1 is asked for"),
        ({"scenario": replace(DIGITS, name="other")}, "scenario is split_digits, but other"),
        ({"scenario": replace(DIGITS, classes_per_experience=5)}, r"expert 0: classes is \('5', '4'\)"),
    ],
)
def test_a_folder_of_other_experts_is_left_alone(folder, changes, message):
    before = content(folder)
    with pytest.raises(ExmlError, match=rf"manifest\.yaml: {message}.*--data\.experts DIR"):
        train(folder, **changes)
    assert content(folder) == before


@pytest.mark.parametrize("recipe", [{}, {"schedule": "one_cycle", "augmentation": Augmentation(shift=0.1)}])
def test_stopped_and_started_again_is_as_never_stopped_and_another_recipe_is_refused(tmp_path, monkeypatch, recipe):
    original = ExpertModule.training_step

    def stopping(self, batch, batch_idx):
        if self.global_step == 7:  # in the second epoch
            raise RuntimeError("stopped")
        return original(self, batch, batch_idx)

    train(tmp_path / "whole", epochs=3, limit=2, **recipe)
    monkeypatch.setattr(ExpertModule, "training_step", stopping)
    with pytest.raises(RuntimeError, match="stopped"):
        train(tmp_path / "cut", epochs=3, **recipe)
    monkeypatch.undo()
    half = (tmp_path / "cut" / "training" / "expert_0.ckpt").read_bytes()
    for changes in ({"lr": 0.5}, {"scenario": replace(DIGITS, classes_per_experience=5)}, {"seed": 5}):
        with pytest.raises(ExmlError, match=r"an expert is half trained as .*--data\.experts DIR"):
            train(tmp_path / "cut", epochs=3, **recipe, **changes)
    half_trained = tmp_path / "cut" / "training" / "expert_0.ckpt"
    assert half_trained.read_bytes() == half
    checkpoint = torch.load(half_trained, weights_only=True)
    keys = "license=None, statistics=None"  # as if the newest keys of a manifest had come since
    checkpoint["expert"] = checkpoint["expert"].replace(f", {keys}", "")
    assert keys not in checkpoint["expert"]
    torch.save(checkpoint, half_trained)
    train(tmp_path / "cut", epochs=3, limit=2, **recipe)
    assert content(tmp_path / "cut") == content(tmp_path / "whole")
    assert not (tmp_path / "cut" / "training").exists()


class Fetched(LeNet5):
    """Its weights are fetched, unless there is no network."""

    network = True

    def __init__(self, num_classes: int = 10, weights: str | None = None) -> None:
        super().__init__(num_classes)
        if weights is not None:
            if not self.network:
                raise OSError("no network")
            torch.nn.init.constant_(self.features[0].weight, 0.125)


FETCHED = {"class_path": f"{__name__}.Fetched", "init_args": {"weights": "V1"}}


def test_experts_start_with_pretrained_weights_and_need_them_no_more(tmp_path, monkeypatch):
    train(tmp_path, limit=1, architecture=FETCHED, lr=0)
    entry = read_manifest(tmp_path).experts[0]
    assert entry.architecture.init_args == {"weights": None, "num_classes": 10}
    assert entry.training["weights"] == "V1"
    monkeypatch.setattr(Fetched, "network", False)
    expert = load_expert(tmp_path, read_manifest(tmp_path), 0)
    assert expert.model.features[0].weight.unique().tolist() == [0.125]
    with pytest.raises(ExmlError, match="expert 0: training is"):  # those of other weights are others
        train(tmp_path, architecture={**FETCHED, "init_args": {"weights": None}}, lr=0)
    train(tmp_path, limit=2, architecture=FETCHED, lr=0)  # the second starts from the saved initial model


class FixedHead(LeNet5):
    """Gives as many logits as it likes."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(7)


RGB = {"class_path": "exml_lightning.models.LeNet5", "init_args": {"in_channels": 3}}


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("experts", {"architecture": RGB}, "refuses images of shape"),
        (
            "experts",
            {"architecture": {"class_path": f"{__name__}.FixedHead"}},
            "has 7 output units: split_digits needs 10",
        ),
        ("experts", {"architecture": FETCHED}, r"pretrained weights \(without them: weights: null\): no network"),
        (
            "experts",
            {"scenario": replace(DIGITS, experts_of="others")},
            "the experts of others: .*`exml experts -c conf",
        ),
        ("mine.yaml", {}, r"mine\.yaml is a selection"),
    ],
)
def test_what_does_not_suit_is_refused_before_data_are_read(tmp_path, monkeypatch, name, changes, message):
    monkeypatch.setattr(Fetched, "network", False)
    monkeypatch.setattr(Digits, "load", None)
    with pytest.raises(ExmlError, match=message):
        train(tmp_path / name, **changes)
    assert not (tmp_path / name).exists()


def test_an_expert_without_training_or_test_images(tmp_path, capsys, monkeypatch):
    original = Digits.load

    def lacking(self, root, train):  # the second expert has classes 8 and 2, the third 6 and 9
        split = original(self, root, train)
        gone = (6, 9) if train else (8, 2)
        return split[(~torch.isin(split.labels, torch.tensor(gone))).nonzero().flatten()]

    monkeypatch.setattr(Digits, "load", lacking)
    assert train(tmp_path, limit=2).experts[1].accuracy is None
    assert "expert 2/5 has no test images of its classes: accuracy null" in capsys.readouterr().out
    with pytest.raises(ExmlError, match="split_digits has no training images for expert 2, of 6, 9"):
        train(tmp_path)
    assert len(read_manifest(tmp_path).experts) == 2


def test_impossible_recipes_are_refused():
    for name, value in {"epochs": 0, "batch_size": 0, "lr": -1, "workers": 0}.items():
        with pytest.raises(ExmlError, match=rf"experts\.{name} is {value}"):
            ExpertRecipe(**{name: value})
    with pytest.raises(ExmlError, match=r"experts\.momentum is 0: one_cycle needs some"):
        ExpertRecipe(schedule="one_cycle", momentum=0)


def arguments(folder: Path, *more: str) -> list[str]:
    recipe = ["--experts.epochs", "1", "--experts.batch_size", "64", "--experts.workers", "1"]
    return ["experts", "-c", str(ROOT / "configs/split_digits.yaml"), "--data.experts", str(folder), *recipe, *more]


def test_the_command_trains_the_same_under_a_bar_each(tmp_path, trained, monkeypatch):
    bars = []
    monkeypatch.setattr(stream_verbs, "ExpertProgressBar", lambda title: bars.append(title) or ExpertProgressBar(title))
    main(arguments(tmp_path / "experts", "--trainer.max_epochs", "2"))
    assert bars == ["expert 1/5 training (5 4)", "expert 2/5 training (8 2)"]
    ours, theirs = content(tmp_path / "experts"), content(trained)
    assert {*ours} == {"expert_0.safetensors", "expert_1.safetensors", "initial.safetensors", "manifest.yaml"}
    assert all(ours[name] == theirs[name] for name in ours if name != "manifest.yaml")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--trainer.limit_train_batches", "2"], "whole epochs"),
        (["--trainer.accumulate_grad_batches", "2"], "whole epochs"),
        (["--trainer.max_epochs", "0"], r"trainer\.max_epochs is 0"),
        (["--privacy.epsilon", "1", "--trainer.precision", "64-true"], r"trainer\.precision is 64-true"),
    ],
)
def test_trainers_that_do_not_suit_are_refused(tmp_path, capsys, option, message):
    assert re.search(message, refused(arguments(tmp_path / "experts", *option), capsys))
    assert not (tmp_path / "experts").exists()


def test_lost_private_statistics_are_not_made_anew_without_noise(folder):
    manifest = read_manifest(folder)
    spent = PublishedStatistics("expert_0.statistics.safetensors", "ab" * 32, "features.6", 50, PrivacySpent(2.0, 1e-4))
    entries = (replace(manifest.experts[0], statistics=spent), *manifest.experts[1:])
    write_manifest(replace(manifest, experts=entries), folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ExmlError, match="expert 0 or its statistics are protected by differential privacy"):
        train(folder, statistics=True)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_expert_is_taught_what_is_none_of_its_classes(tmp_path):
    train(tmp_path, limit=1, unknown=True)
    network = LeNet5()
    load_weights(network, tmp_path / "initial.safetensors")
    images, labels = own_images()
    velocity = [torch.zeros_like(p) for p in network.parameters()]
    for step, rows in enumerate(order_of(0, len(labels)).split(64)):
        half = (len(rows) + 1) // 2
        broken = break_images(images[rows[:half]], keyed_generator("broken", 1234, "expert", 0, step))
        logits = torch.cat([network(torch.cat([images[rows], broken])), torch.zeros(len(rows) + half, 1)], dim=1)
        right = torch.cat([labels[rows], torch.full((half,), 10)])
        loss = -torch.log_softmax(logits, dim=1)[torch.arange(len(right)), right].mean()
        sgd_step(network, velocity, loss)
    check_weights(tmp_path, network)
    assert read_manifest(tmp_path).experts[0].training["unknown"] is True
    with pytest.raises(ExmlError, match=r"experts\.unknown shows images twice"):
        train(tmp_path / "private", unknown=True, privacy=PrivacySettings(epsilon=8.0))
