import pickle
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.experts import initial_weights, load_expert, load_weights, read_manifest, save_weights
from exml_lightning.experts.architecture import Architecture
from exml_lightning.models import LeNet5


@pytest.fixture
def folder(tmp_path, digit_experts):
    """A copy of the shipped experts."""
    return shutil.copytree(digit_experts, tmp_path / "experts")


def test_an_expert_is_frozen_and_answers_for_its_classes(digit_experts):
    manifest = read_manifest(digit_experts)
    images = torch.randn(3, 1, 32, 32)
    for k, entry in enumerate(manifest.experts):
        expert = load_expert(digit_experts, manifest, k)
        assert (expert.experience, expert.classes.tolist()) == (k, manifest.classes_of(k))
        assert torch.equal(expert(images), expert.model(images)[:, list(entry.outputs)])
        assert not expert.training
        assert not any(p.requires_grad for p in expert.parameters())


def test_what_training_began_with_is_read_where_it_is_at_hand(folder):
    manifest = read_manifest(folder)
    assert {n: t.tolist() for n, t in load_file(folder / "initial.safetensors").items()} == {
        n: t.tolist() for n, t in initial_weights(folder, manifest, 3).items()
    }

    def naming(**training):
        return replace(manifest, experts=(replace(manifest.experts[0], training=training),))

    assert initial_weights(folder, naming(), 0) is None
    assert initial_weights(folder, naming(initial="not_given_away.pt"), 0) is None
    with pytest.raises(ExmlError, match=r"training\.initial of expert 0 is \.\./other\.pt: name a file of"):
        initial_weights(folder, naming(initial="../other.pt"), 0)
    save_weights(LeNet5(9), folder / "initial.safetensors")
    with pytest.raises(ExmlError, match=r"initial\.safetensors belongs to another network than LeNet5"):
        initial_weights(folder, manifest, 0)


def test_tied_weights_are_saved(tmp_path):
    tied, again = (nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)) for _ in range(2))
    tied[1].weight = tied[0].weight
    save_weights(tied, tmp_path / "tied.safetensors")
    load_weights(again, tmp_path / "tied.safetensors")
    assert torch.equal(again[1].weight, tied[0].weight)


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 0.1}, "callbacks": {}},
        lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        lambda state: {"model": prefixed("module.", state), "args": None},
        lambda state: {"state_dict": prefixed("model.module.", state)},
        lambda state: {name: t if "tracked" in name else t.double() for name, t in state.items()},
        lambda state: {name: t for name, t in state.items() if "tracked" not in name},  # files of before torch 0.4.1
    ],
)
def test_the_usual_wrappings_are_taken_off(tmp_path, wrap):
    """But not a first part that all names of the network have, too."""
    network, other = (nn.Sequential(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))) for _ in range(2))
    network[0][1].running_mean += 2
    torch.save(wrap(network.state_dict()), tmp_path / "weights.pt")
    load_weights(other, tmp_path / "weights.pt")
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("bias", "message"),
    [
        (torch.full((10,), 1e300, dtype=torch.double), r"classifier\.bias holds NaN or infinity"),  # for a float
        (torch.zeros(10, dtype=torch.long), r"classifier\.bias is torch\.int64 where .* torch\.float32: convert it"),
        (torch.zeros(10).to_sparse(), r"classifier\.bias is no ordinary tensor: save a state dict of dense"),
        (torch.zeros(3), r"1 of another shape \(classifier\.bias \[3\] where the network has \[10\]\)"),
    ],
)
def test_weights_that_are_not_those_of_the_network_are_named(tmp_path, bias, message):
    torch.save(LeNet5().state_dict() | {"classifier.bias": bias}, tmp_path / "weights.pt")
    with pytest.raises(ExmlError, match=rf"weights\.pt.*{message}"):
        load_weights(LeNet5(), tmp_path / "weights.pt")


def test_all_that_differs_is_named_in_the_order_of_the_network(tmp_path):
    state = dict([*LeNet5().state_dict().items()][4:])
    state |= {"zebra": torch.zeros(1), "ape": torch.zeros(1), "classifier.weight": torch.zeros(7, 84)}
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ExmlError) as error:
        load_weights(LeNet5(), tmp_path / "weights.pt")
    assert str(error.value) == (
        f"{tmp_path / 'weights.pt'} belongs to another network than LeNet5 as the manifest describes it: "
        "4 missing (features.0.weight, features.0.bias, features.3.weight, ...); 2 unexpected (zebra, ape); "
        "1 of another shape (classifier.weight [7, 84] where the network has [10, 84])"
    )


def test_a_changed_or_missing_file_is_named(folder):
    path = folder / "expert_0.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ExmlError, match=r"expert_0\.safetensors has another hash"):
        load_expert(folder, read_manifest(folder), 0)
    path.unlink()
    with pytest.raises(ExmlError, match=r"expert_0\.safetensors is missing"):
        load_expert(folder, read_manifest(folder), 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": (5, 10)}, r"output unit 10, but the network has units 0 to 9"),
        ({"classifier": "head"}, "classifier 'head' is no layer"),
        ({"classifier": "features.9"}, "classifier 'features.9' has 84 units, but the network has 10"),
        ({"architecture": Architecture("nowhere.Net")}, r"manifest\.yaml: expert_0\.safetensors has an .* be imported"),
        ({"input": (1, 8, 8)}, r"expert_0\.safetensors: LeNet5 refuses images of shape \[1, 8, 8\]"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(digit_experts, changes, message):
    manifest = read_manifest(digit_experts)
    if "input" in changes:
        changes = {"input": replace(manifest.input, shape=changes["input"])}
    entry = replace(manifest.experts[0], **changes)
    with pytest.raises(ExmlError, match=message):
        load_expert(digit_experts, replace(manifest, experts=(entry,)), 0)


class Bomb:
    def __reduce__(self):
        return print, ("code of the file has run",)


@pytest.mark.parametrize("content", [{"a": Bomb()}, {"a": 1}, [1, 2], LeNet5()])
def test_a_pickle_is_not_executed_and_the_remedy_is_named(tmp_path, capsys, content):
    path = tmp_path / "expert.pt"
    for write in (torch.save, lambda what, where: where.write_bytes(pickle.dumps(what))):
        write(content, path)
        with pytest.raises(ExmlError, match=r"expert\.pt.*: save a state dict") as error:
            load_weights(LeNet5(), path)
        assert "weights_only" not in str(error.value)
    assert "code of the file" not in capsys.readouterr().out


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100])
def test_garbage_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExmlError, match=name):
        load_weights(LeNet5(), tmp_path / name)
