import multiprocessing
import os
import re
import signal
from pathlib import Path

import pytest
import torch
import yaml

from exml_lightning.cli.main import main
from exml_lightning.core.rng import keyed_generator
from exml_lightning.experts import load_expert, read_manifest
from exml_lightning.experts.recipe import ExpertRecipe
from exml_lightning.models import LeNet5
from exml_lightning.scenarios import Digits

forks = multiprocessing.get_context("forkserver")
forks.set_forkserver_preload(["exml_lightning.cli.lightning_cli"])


@pytest.fixture
def arguments(repository, tmp_path):
    """Arguments that train experts for one epoch into a folder of their own."""

    def make(*more: str, folder: str = "experts") -> list[str]:
        overlay = {"data": {"experts": str(tmp_path / folder)}, "experts": {"epochs": 1, "batch_size": 64}}
        path = tmp_path / "experts.yaml"
        path.write_text(yaml.safe_dump({**overlay, "trainer": {"enable_progress_bar": False}}))
        return ["experts", "-c", str(repository / "configs" / "split_digits.yaml"), "-c", str(path), *more]

    return make


def weights(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.safetensors"))]


def test_all_experts_are_trained_from_one_initial_model(arguments, tmp_path, capsys):
    main(arguments())
    folder = tmp_path / "experts"
    manifest = read_manifest(folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        *(f"expert_{k}.safetensors" for k in range(5)),
        "initial.safetensors",
        "manifest.yaml",
    ]
    assert [entry.classes for entry in manifest.experts] == [
        ("5", "4"),
        ("8", "2"),
        ("6", "9"),
        ("1", "7"),
        ("0", "3"),
    ]
    assert all(load_expert(folder, manifest, k).experience == k for k in range(5))
    assert manifest.experts[0].training["epochs"] == 1
    # the accuracy in the manifest is that of the file, on its own test images, among its own classes
    test = Digits().load(Path(), train=False)
    expert = load_expert(folder, manifest, 2)
    own = torch.isin(test.labels, expert.classes)
    guesses = expert.classes[expert(manifest.input.normalize(test.images[own])).argmax(dim=1)]
    assert manifest.experts[2].accuracy == pytest.approx((guesses == test.labels[own]).float().mean().item())
    assert capsys.readouterr().out.count("knows its own classes") == 5


def test_an_epoch_is_sgd_written_out(arguments, tmp_path):
    main(arguments("--data.scenario.classes_per_experience", "[2, 8]"))
    folder = tmp_path / "experts"
    from exml_lightning.experts import load_weights

    network = LeNet5()
    load_weights(network, folder / "initial.safetensors")
    train = Digits().load(Path(), train=True)
    own = torch.isin(train.labels, torch.tensor([5, 4])).nonzero().flatten()
    images, labels = Digits().image_format.normalize(train.images[own]), train.labels[own]
    velocity = [torch.zeros_like(p) for p in network.parameters()]
    order = torch.randperm(len(labels), generator=keyed_generator("order", 1234, "expert", 0, 0))
    for rows in order.split(64):
        loss = -torch.log_softmax(network(images[rows]), dim=1)[torch.arange(len(rows)), labels[rows]].mean()
        network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for p, v in zip(network.parameters(), velocity, strict=True):
                v.mul_(0.9).add_(p.grad + 5e-4 * p)
                p.sub_(0.01 * v)
    expected = load_expert(folder, read_manifest(folder), 0).model
    for (name, ours), theirs in zip(network.named_parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)


def test_a_second_run_trains_nothing(arguments, tmp_path, capsys):
    main(arguments())
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "experts").iterdir()}
    capsys.readouterr()
    main(arguments())
    assert capsys.readouterr().out.count("is done") == 5
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "experts").iterdir()} == before


def test_a_lost_expert_is_trained_again_and_the_same(arguments, tmp_path, capsys):
    main(arguments())
    before = weights(tmp_path / "experts")
    (tmp_path / "experts" / "expert_3.safetensors").unlink()
    capsys.readouterr()
    main(arguments())
    out = capsys.readouterr().out
    assert (out.count("is done"), out.count("knows its own classes")) == (4, 1)
    assert weights(tmp_path / "experts") == before


def test_a_damaged_expert_is_not_overwritten(arguments, tmp_path, capsys):
    main(arguments())
    (tmp_path / "experts" / "expert_3.safetensors").write_bytes(b"precious")
    with pytest.raises(SystemExit):
        main(arguments())
    assert "expert_3.safetensors has another hash" in capsys.readouterr().err
    assert (tmp_path / "experts" / "expert_3.safetensors").read_bytes() == b"precious"


def train_and_die(args: list[str], step: int, expert: int) -> None:
    """Run in this process and kill it at a step."""
    from exml_lightning.experts import recipe

    original = recipe.ExpertModule.training_step

    def patched(self, batch, batch_idx):
        if self.key[-1] == expert and self.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, batch, batch_idx)

    recipe.ExpertModule.training_step = patched
    main(args)


@pytest.mark.slow
def test_killed_and_started_again_is_as_never_killed(arguments, tmp_path, capsys):
    more = ["--experts.epochs", "3"]
    main(arguments(*more, folder="whole"))
    args = arguments(*more, folder="cut")
    child = forks.Process(target=train_and_die, args=(args, 7, 2))  # in the second epoch of the third expert
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL
    assert len(read_manifest(tmp_path / "cut").experts) == 2
    assert (tmp_path / "cut" / "training" / "expert_2.ckpt").is_file()
    capsys.readouterr()
    main(args)
    assert capsys.readouterr().out.count("is done") == 2
    assert weights(tmp_path / "cut") == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--experts.epochs", "2", "training"),
        ("--data.run_id", "1", "run is 0"),
        ("--data.scenario.name", "other", "scenario is split_digits"),
        ("--data.scenario.classes_per_experience", "5", "classes"),
    ],
)
def test_a_folder_of_other_experts_is_left_alone(arguments, tmp_path, capsys, option, value, message):
    main(arguments())
    before = weights(tmp_path / "experts")
    with pytest.raises(SystemExit) as exit_:
        main(arguments(option, value))
    assert exit_.value.code == 1
    error = capsys.readouterr().err
    assert "manifest.yaml" in error
    assert message in error
    assert "--data.experts DIR" in error
    assert weights(tmp_path / "experts") == before


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--experts.lr", "0.5", "an expert is half trained as"),
        ("--data.scenario.classes_per_experience", "5", "an expert is half trained as"),
        ("--data.run_id", "1", "is the initial model of another run"),
    ],
)
def test_a_half_trained_expert_of_another_recipe_is_left_alone(arguments, tmp_path, capsys, option, value, message):
    args = arguments("--experts.epochs", "3")
    child = forks.Process(target=train_and_die, args=(args, 7, 0))
    child.start()
    child.join(120)
    before = (tmp_path / "experts" / "training" / "expert_0.ckpt").read_bytes()
    with pytest.raises(SystemExit) as exit_:
        main([*args, option, value])
    assert exit_.value.code == 1
    assert message in capsys.readouterr().err
    assert (tmp_path / "experts" / "training" / "expert_0.ckpt").read_bytes() == before
    assert not (tmp_path / "experts" / "manifest.yaml").exists()


@pytest.mark.parametrize("option", [["--trainer.fast_dev_run", "true"], ["--trainer.limit_train_batches", "2"]])
def test_half_epochs_are_refused(arguments, tmp_path, capsys, option):
    with pytest.raises(SystemExit) as exit_:
        main(arguments(*option))
    assert exit_.value.code == 1
    assert "whole epochs" in capsys.readouterr().err
    assert not (tmp_path / "experts").exists()


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch_size": 0}, {"lr": -1}])
def test_impossible_recipes_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ExpertRecipe(**wrong)


def test_only_the_first_experts_are_trained(arguments, tmp_path, capsys):
    main(arguments("--trainer.max_epochs", "2"))
    folder = tmp_path / "experts"
    assert len(read_manifest(folder).experts) == 2
    first = weights(folder)
    main(arguments())
    assert len(read_manifest(folder).experts) == 5
    (folder / "expert_0.safetensors").unlink()
    (folder / "expert_4.safetensors").unlink()
    capsys.readouterr()
    main(arguments("--trainer.max_epochs", "2"))
    out = capsys.readouterr().out
    assert (out.count("is done"), out.count("knows its own classes")) == (1, 1)
    assert len(read_manifest(folder).experts) == 5  # those beyond the limit stay
    assert weights(folder)[:2] == first[:2]
    main(arguments())
    assert len(weights(folder)) == 6


def test_no_experts_at_all_are_refused(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(arguments("--trainer.max_epochs", "0"))
    assert "trainer.max_epochs is 0" in capsys.readouterr().err
    assert not (tmp_path / "experts").exists()


class Fetched(LeNet5):
    """Its weights are fetched, unless there is no network."""

    network = True

    def __init__(self, num_classes: int = 10, weights: str | None = None) -> None:
        super().__init__(num_classes)
        if weights is not None:
            if not self.network:
                raise OSError("no network")
            torch.nn.init.constant_(self.features[0].weight, 0.125)


def fetched(tmp_path: Path, **init_args: object) -> list[str]:
    """Write a configuration of experts that start with fetched weights."""
    path = tmp_path / "fetched.yaml"
    architecture = {"class_path": f"{__name__}.Fetched", "init_args": {"weights": "V1", **init_args}}
    path.write_text(yaml.safe_dump({"experts": {"architecture": architecture, "lr": 0}}))
    return ["-c", str(path), "--trainer.max_epochs", "1"]


def test_experts_start_with_pretrained_weights_and_need_them_no_more(arguments, tmp_path, monkeypatch):
    main(arguments(*fetched(tmp_path)))
    folder = tmp_path / "experts"
    entry = read_manifest(folder).experts[0]
    assert entry.architecture.init_args == {"weights": None, "num_classes": 10}
    assert entry.training["weights"] == "V1"
    monkeypatch.setattr(Fetched, "network", False)
    expert = load_expert(folder, read_manifest(folder), 0)
    assert expert.model.features[0].weight.unique().tolist() == [0.125]
    main(arguments(*fetched(tmp_path)))  # all done
    main(arguments(*fetched(tmp_path), "--trainer.max_epochs", "2"))  # the second starts from the saved initial model


def test_experts_of_other_pretrained_weights_are_others(arguments, tmp_path, capsys):
    main(arguments(*fetched(tmp_path)))
    with pytest.raises(SystemExit):
        main(arguments(*fetched(tmp_path, weights=None)))
    assert "expert 0 has training" in capsys.readouterr().err


def test_pretrained_weights_that_cannot_be_fetched_are_told_before_data_are_read(
    arguments, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(Fetched, "network", False)

    def unread(self, root, train):
        raise AssertionError("data were read")

    monkeypatch.setattr(Digits, "load", unread)
    with pytest.raises(SystemExit):
        main(arguments(*fetched(tmp_path)))
    assert "cannot fetch its pretrained weights (without them: weights: null): no network" in capsys.readouterr().err


class FixedHead(LeNet5):
    """Gives as many logits as it likes."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__(7)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ({"class_path": "exml_lightning.models.LeNet5", "init_args": {"in_channels": 3}}, "refuses images of shape"),
        ({"class_path": f"{__name__}.FixedHead"}, "has 7 output units: split_digits needs 10"),
        ({"class_path": "os.system"}, "neither an nn.Module class nor a function"),
        ({"class_path": "torchvision.models.vit_b_16"}, r"refuses images of shape \[1, 32, 32\]"),
    ],
)
def test_networks_that_do_not_suit_are_refused_before_work(arguments, tmp_path, capsys, architecture, message):
    path = tmp_path / "network.yaml"
    path.write_text(yaml.safe_dump({"experts": {"architecture": architecture}}))
    with pytest.raises(SystemExit) as exit_:
        main(arguments("-c", str(path)))
    assert exit_.value.code == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "experts").exists()


def test_an_expert_without_training_or_test_images(arguments, tmp_path, capsys, monkeypatch):
    original = Digits.load

    def lacking(self, root, train):  # the second expert has classes 8 and 2, the third 6 and 9
        split = original(self, root, train)
        gone = (6, 9) if train else (8, 2)
        return split[(~torch.isin(split.labels, torch.tensor(gone))).nonzero().flatten()]

    monkeypatch.setattr(Digits, "load", lacking)
    main(arguments("--trainer.max_epochs", "2"))
    assert "expert 2/5 has no test images of its classes: accuracy null" in capsys.readouterr().out
    assert read_manifest(tmp_path / "experts").experts[1].accuracy is None
    with pytest.raises(SystemExit):
        main(arguments())
    assert "split_digits has no training images for expert 2, of 6, 9" in capsys.readouterr().err
    assert len(read_manifest(tmp_path / "experts").experts) == 2
