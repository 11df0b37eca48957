import pickle
import shutil
from dataclasses import replace

import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.experts import load_expert, load_weights, read_manifest, save_weights, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.models import LeNet5


@pytest.fixture
def folder(tmp_path, digit_experts):
    """A copy of the first two shipped experts."""
    for name in ("manifest.yaml", "expert_0.safetensors", "expert_1.safetensors"):
        shutil.copy(digit_experts / name, tmp_path)
    manifest = read_manifest(tmp_path)
    write_manifest(replace(manifest, experts=manifest.experts[:2]), tmp_path)
    return tmp_path


def change_weights(folder, change):
    """Write expert 0 anew with other weights and the right hash."""
    manifest = read_manifest(folder)
    network = LeNet5()
    load_weights(network, folder / "expert_0.safetensors")
    network = change(network) or network
    entry = replace(manifest.experts[0], sha256=save_weights(network, folder / "expert_0.safetensors"))
    write_manifest(replace(manifest, experts=(entry, manifest.experts[1])), folder)


def load(folder):
    return load_expert(folder, read_manifest(folder), 0)


def test_an_expert_is_frozen_and_answers_for_its_classes(folder):
    expert = load(folder)
    manifest = read_manifest(folder)
    images = torch.randn(3, 1, 32, 32)
    assert expert(images).shape == (3, 2)
    assert torch.equal(expert(images), expert.model(images)[:, list(manifest.experts[0].outputs)])
    assert expert.classes.tolist() == manifest.classes_of(0)
    assert not expert.training
    assert not any(p.requires_grad for p in expert.parameters())


def test_the_shipped_experts_are_as_the_manifest_says(digit_experts):
    manifest = read_manifest(digit_experts)
    assert [load_expert(digit_experts, manifest, i).experience for i in range(5)] == [0, 1, 2, 3, 4]
    assert sum(path.stat().st_size for path in digit_experts.iterdir()) < 2_000_000


def test_tied_weights_are_saved(tmp_path):
    tied = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    save_weights(tied, tmp_path / "tied.safetensors")
    again = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    load_weights(again, tmp_path / "tied.safetensors")
    assert torch.equal(again[1].weight, tied[0].weight)


def prefixed(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "hyper_parameters": {"lr": 0.1}, "callbacks": {}},
        lambda state: {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        lambda state: {"model": state, "args": None},
        lambda state: prefixed("module.", state),
        lambda state: {"state_dict": prefixed("net.", state)},
        lambda state: {"state_dict": prefixed("model.module.", state)},
        lambda state: prefixed("_orig_mod.", state),
    ],
)
def test_the_usual_wrappings_are_taken_off(tmp_path, wrap):
    network, other = LeNet5(), LeNet5()
    torch.save(wrap(network.state_dict()), tmp_path / "weights.pt")
    load_weights(other, tmp_path / "weights.pt")
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_a_first_part_that_is_the_networks_own_stays(tmp_path):
    """All names of this network begin alike, as those of a wrapped one do."""

    def make():
        return torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)))

    network, other = make(), make()
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    load_weights(other, tmp_path / "weights.pt")
    assert torch.equal(other[0][1].weight, network[0][1].weight)


def test_files_without_the_batches_that_batch_norm_counts_are_read(tmp_path):
    network, other = torch.nn.BatchNorm2d(3), torch.nn.BatchNorm2d(3)
    network.running_mean += 2
    state = network.state_dict()
    del state["num_batches_tracked"]
    torch.save(state, tmp_path / "weights.pt")
    load_weights(other, tmp_path / "weights.pt")
    assert other.running_mean.tolist() == [2, 2, 2]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_floating_types_are_converted(tmp_path, dtype):
    network, other = LeNet5(), LeNet5()
    torch.save({name: tensor.to(dtype) for name, tensor in network.state_dict().items()}, tmp_path / "weights.pt")
    load_weights(other, tmp_path / "weights.pt")
    for name, tensor in network.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor.to(dtype).float())


def test_what_is_too_large_for_the_network_is_infinite(tmp_path):
    state = {name: tensor.double() for name, tensor in LeNet5().state_dict().items()}
    state["classifier.bias"][0] = 1e300
    torch.save(state, tmp_path / "weights.pt")
    with pytest.raises(ExmlError, match=r"classifier\.bias holds NaN or infinity"):
        load_weights(LeNet5(), tmp_path / "weights.pt")


def test_all_that_differs_is_named_in_the_order_of_the_network(tmp_path):
    state = LeNet5().state_dict()
    names = list(state)
    assert names[:4] == ["features.0.weight", "features.0.bias", "features.3.weight", "features.3.bias"]
    for name in names[:4]:
        del state[name]
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
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ExmlError, match=r"expert_0\.safetensors has another hash"):
        load(folder)
    path.unlink()
    with pytest.raises(ExmlError, match=r"expert_0\.safetensors is missing"):
        load(folder)


def test_weights_that_are_no_numbers_are_named(folder):
    change_weights(folder, lambda network: network.classifier.bias.data[0:1].fill_(float("nan")) and None)
    with pytest.raises(ExmlError, match=r"expert_0\.safetensors: classifier\.bias holds NaN or infinity"):
        load(folder)


def test_weights_of_another_network_are_named(folder):
    change_weights(folder, lambda network: torch.nn.Linear(2, 2))
    with pytest.raises(ExmlError, match=r"expert_0\.safetensors belongs to another network than LeNet5.*missing"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"outputs": (5, 10)}, r"output unit 10, but the network has units 0 to 9"),
        ({"classifier": "head"}, "classifier 'head' is no layer"),
        ({"classifier": "features.9"}, "classifier 'features.9' has 84 units, but the network has 10"),
        ({"architecture": Architecture("nowhere.Net")}, r"manifest\.yaml: expert_0\.safetensors has an .* be imported"),
        ({"architecture": Architecture("exml_lightning.models.LeNet5", {"width": 3})}, "refuses init_args"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(folder, changes, message):
    manifest = read_manifest(folder)
    entry = replace(manifest.experts[0], **changes)
    with pytest.raises(ExmlError, match=message):
        load_expert(folder, replace(manifest, experts=(entry,)), 0)


def test_an_input_that_the_network_refuses_is_named(folder):
    manifest = read_manifest(folder)
    smaller = replace(manifest, input=replace(manifest.input, shape=(1, 8, 8)))
    with pytest.raises(ExmlError, match=r"expert_0\.safetensors: LeNet5 refuses images of shape \[1, 8, 8\]"):
        load_expert(folder, smaller, 0)


class Bomb:
    def __reduce__(self):
        return print, ("code of the file has run",)


@pytest.mark.parametrize("content", [{"a": Bomb()}, {"a": 1}, [1, 2]])
def test_a_pickle_is_not_executed(tmp_path, capsys, content):
    path = tmp_path / "expert.pt"
    torch.save(content, path)
    with pytest.raises(ExmlError, match=r"expert\.pt"):
        load_weights(LeNet5(), path)
    path.write_bytes(pickle.dumps(content))
    with pytest.raises(ExmlError, match=r"expert\.pt"):
        load_weights(LeNet5(), path)
    assert "code of the file" not in capsys.readouterr().out


def test_a_whole_pickled_network_is_refused_with_the_remedy(tmp_path):
    torch.save(LeNet5(), tmp_path / "whole.pt")
    with pytest.raises(ExmlError, match=r"whole\.pt cannot .*code, which is not run.*: save a state dict") as error:
        load_weights(LeNet5(), tmp_path / "whole.pt")
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("name", ["x.safetensors", "x.pt"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"\xff" * 100])
def test_garbage_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ExmlError, match=name):
        load_weights(LeNet5(), tmp_path / name)
