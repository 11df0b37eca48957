"""Finding a network's weights in a file: which of several, and by which names."""

import hashlib
import json
import time
from argparse import Namespace
from fractions import Fraction

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.experts import load_weights
from exml_lightning.experts.state_dict import file_hash, find_weights, indexed_files


def small(seed=0):
    torch.manual_seed(seed)
    network = nn.Sequential()
    network.add_module("features", nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU()))
    network.add_module("head", nn.Linear(4, 3))
    return network


class Wrapper(nn.Module):
    """Around a network, as people write it where `forward` returns something else."""

    def __init__(self, network):
        super().__init__()
        self.net = network


def prefixed(prefix, state):
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


RAW, MEAN = small(0).state_dict(), small(1).state_dict()
ZERO = torch.zeros(())
FILES = {
    "a LightningModule with a loss of weights": (
        {"state_dict": prefixed("model.", RAW) | {"criterion.weight": ZERO}, "epoch": 3}, ["criterion.weight"]),
    "with metrics": ({"state_dict": prefixed("net.", RAW) | {"train_acc.total": ZERO, "val.f1.tp": ZERO}},
                     ["train_acc.total", "val.f1.tp"]),
    "the module is the network, with a loss": (RAW | {"loss_fn.pos_weight": ZERO}, ["loss_fn.pos_weight"]),
    "torch's AveragedModel": (prefixed("module.", RAW) | {"n_averaged": ZERO}, ["n_averaged"]),
    "counted by thop": (RAW | {"total_ops": ZERO, "features.0.total_params": ZERO},
                        ["features.0.total_params", "total_ops"]),
    "a part that was compiled": ({name.replace("features.", "features._orig_mod."): t for name, t in RAW.items()}, []),
    "a part in DataParallel": ({name.replace("features.", "features.module."): t for name, t in RAW.items()}, []),
    "all of it, twice": (prefixed("module._orig_mod.", RAW), []),
    "four deep": (prefixed("trainer.module.model.net.", RAW), []),
    "a checkpoint with tensors beside": ({"model": RAW, "best": torch.ones(3), "optimizer": {"state": {}}}, []),
    "under another key": ({"weights": RAW, "epoch": 1}, []),
    "two keys down": ({"checkpoint": {"net": RAW}}, []),
}  # fmt: skip


@pytest.mark.parametrize("what", FILES)
def test_names_are_found_whatever_is_around_them(tmp_path, what):
    content, left_out = FILES[what]
    torch.save(content, tmp_path / "a.pt")
    network = small(5)
    found = load_weights(network, tmp_path / "a.pt")
    assert [*found.left_out] == left_out
    assert all(torch.equal(tensor, RAW[name]) for name, tensor in network.state_dict().items())


def test_a_wrapper_around_the_network_has_a_beginning_that_the_file_lacks(tmp_path):
    torch.save(RAW, tmp_path / "a.pt")
    network = Wrapper(small(5))
    load_weights(network, tmp_path / "a.pt")
    assert all(torch.equal(tensor, RAW[name]) for name, tensor in network.net.state_dict().items())


SEVERAL = {
    "timm": ({"state_dict": RAW, "state_dict_ema": MEAN}, "state_dict", "state_dict_ema"),
    "the average first": ({"ema": MEAN, "model": RAW}, "model", "ema"),
    "DINO": ({"teacher": prefixed("backbone.", MEAN), "student": prefixed("backbone.", RAW)},
             "student.backbone", "teacher.backbone"),
    "side by side": ({"state_dict": prefixed("ema_model.module.", MEAN) | prefixed("model.", RAW)},
                     "state_dict.model", "state_dict.ema_model"),
    "upper case": ({"EMA": MEAN, "net": RAW}, "net", "EMA"),
    "another word": ({"state_dict": prefixed("avg_model.", MEAN) | prefixed("model.", RAW)},
                     "state_dict.model", "state_dict.avg_model"),
    "Lightning's averaging": ({"state_dict": RAW, "current_model_state": MEAN}, "state_dict", "current_model_state"),
}  # fmt: skip


@pytest.mark.parametrize("what", SEVERAL)
def test_of_several_weights_one_is_taken_and_the_others_can_be_asked_for(tmp_path, what):
    content, taken, other = SEVERAL[what]
    torch.save(content, tmp_path / "a.pt")
    found = find_weights(tmp_path / "a.pt", small())
    assert (found.key, found.others) == (taken, (other,))
    assert torch.equal(found.state["head.weight"], RAW["head.weight"])
    for key in (other, other.split(".")[1]) if other.endswith("_model") else (other, other.split(".")[0]):
        assert torch.equal(find_weights(tmp_path / "a.pt", small(), key).state["head.weight"], MEAN["head.weight"])
    with pytest.raises(ExmlError, match=f"no weights 'nothing'; it has .*{other.split('.')[0]}"):
        find_weights(tmp_path / "a.pt", small(), "nothing")


def test_an_average_alone_is_called_one_and_equals_are_not_chosen_among(tmp_path):
    bad = {name: tensor for name, tensor in RAW.items() if name != "head.bias"}
    torch.save({"net": bad, "ema": MEAN}, tmp_path / "a.pt")
    found = find_weights(tmp_path / "a.pt", small())
    assert (found.key, found.averaged) == ("ema", True)
    torch.save({"grads": RAW, "weights": MEAN}, tmp_path / "a.pt")
    with pytest.raises(ExmlError, match=r"several weights of this network, 'grads', 'weights': choose by --weights"):
        find_weights(tmp_path / "a.pt", small())
    assert torch.equal(find_weights(tmp_path / "a.pt", small(), "weights").state["head.bias"], MEAN["head.bias"])


def test_a_group_that_is_no_state_dict_does_not_bar_the_others(tmp_path):
    torch.save({"model": RAW, "hparams": {"head.weight": "xavier", "t": ZERO}}, tmp_path / "a.pt")
    assert find_weights(tmp_path / "a.pt", small()).key == "model"


def test_a_beginning_in_the_file_and_another_in_the_network(tmp_path):
    torch.save({"state_dict": prefixed("model.", RAW)}, tmp_path / "a.pt")
    assert torch.equal(find_weights(tmp_path / "a.pt", Wrapper(small(3))).state["net.head.bias"], RAW["head.bias"])


def test_tied_weights_may_be_there_once(tmp_path):
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    state = network.state_dict()
    torch.save({name: state[name].clone() for name in ("0.weight", "0.bias", "1.bias")}, tmp_path / "a.pt")
    assert torch.equal(find_weights(tmp_path / "a.pt", network).state["1.weight"], state["0.weight"])


def test_a_hostile_file_of_many_names_takes_no_time(tmp_path):
    torch.save({f"p{i}.head.bias": ZERO for i in range(20_000)}, tmp_path / "a.pt")
    start = time.process_time()
    with pytest.raises(ExmlError, match="another network"):
        find_weights(tmp_path / "a.pt", small())
    assert time.process_time() - start < 10  # it was quadratic: minutes


@pytest.mark.parametrize(("change", "message"), [
    (lambda s: prefixed("model.", {**s, "extra.weight": ZERO}), r": 1 unexpected \(model\.extra\.weight\)$"),
    (lambda s: {f"model.{n}": t for n, t in s.items() if n != "head.bias"}, r": 1 missing \(head\.bias\)$"),
    (lambda s: prefixed("model.", {**s, "head.bias": torch.ones(7)}), r"1 of another shape \(head\.bias \[7\] where"),
    (lambda s: {"a.weight": ZERO}, r"8 missing \(features\.0\.weight, .*\); 1 unexpected \(a\.weight\)"),
])  # fmt: skip
def test_the_culprit_is_named(tmp_path, change, message):
    torch.save({"state_dict": change(RAW)}, tmp_path / "a.pt")
    with pytest.raises(ExmlError, match=message):
        find_weights(tmp_path / "a.pt", small())


def test_auxiliary_classifiers_that_one_of_them_lacks(tmp_path):
    torch.manual_seed(0)
    make = torchvision.models.googlenet
    with_heads, without = (make(num_classes=2, aux_logits=aux, init_weights=False) for aux in (True, False))
    for network, other, remedy in ((without, with_heads, "false"), (with_heads, without, "true")):
        torch.save(network.state_dict(), tmp_path / "a.pt")
        with pytest.raises(ExmlError, match=rf"init_args \{{aux_logits: {remedy}\}}"):
            find_weights(tmp_path / "a.pt", other)


def test_layers_without_sizes_take_those_of_the_file(tmp_path):
    torch.save(RAW, tmp_path / "a.pt")
    lazy = nn.Sequential()
    lazy.add_module("features", nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU()))
    lazy.add_module("head", nn.LazyLinear(3))
    load_weights(lazy, tmp_path / "a.pt")
    assert torch.equal(lazy.head.weight, RAW["head.weight"])


def test_an_index_of_several_files(tmp_path):
    parts = {"w-1.safetensors": ["features.0.weight", "features.0.bias"]}
    parts["w-2.safetensors"] = [name for name in RAW if name not in parts["w-1.safetensors"]]
    for file, names in parts.items():
        save_file({name: RAW[name] for name in names}, tmp_path / file)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {name: file for file, names in parts.items() for name in names}}))
    network = small(5)
    load_weights(network, index)
    assert all(torch.equal(tensor, RAW[name]) for name, tensor in network.state_dict().items())
    assert [path.name for path in indexed_files(index)] == ["w-1.safetensors", "w-2.safetensors"]
    before = file_hash(index)
    assert before != hashlib.sha256(index.read_bytes()).hexdigest()
    save_file({name: MEAN[name] for name in parts["w-1.safetensors"]}, tmp_path / "w-1.safetensors")
    assert file_hash(index) != before  # another of its files


@pytest.mark.parametrize("content", [
    "{}", "[]", "no", '{"weight_map": {"a": "../x.safetensors"}}', '{"weight_map": {"a": 3}}',
    '{"weight_map": {"a": "gone.safetensors"}}',
])  # fmt: skip
def test_an_index_that_will_not_do(tmp_path, content):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(content)
    with pytest.raises(ExmlError, match=r"model\.safetensors\.index\.json"):
        find_weights(index, small())


def test_a_torchscript_program_is_called_one(tmp_path):
    torch.jit.script(small()).save(tmp_path / "a.pt")
    with pytest.raises(ExmlError, match=r"program \(TorchScript\).*torch\.jit\.load\('a\.pt'\)\.state_dict"):
        find_weights(tmp_path / "a.pt", small())


def test_the_options_of_a_training_beside_weights_are_read_and_other_objects_are_named(tmp_path):
    """As timm's train.py writes them."""
    torch.save({"state_dict": RAW, "args": Namespace(lr=0.1)}, tmp_path / "a.pth.tar")
    assert find_weights(tmp_path / "a.pth.tar", small()).key == "state_dict"
    torch.save({"state_dict": RAW, "when": Fraction(1, 2)}, tmp_path / "b.pt")
    with pytest.raises(ExmlError, match=r"holds code, which is not run: 'fractions\.Fraction'"):
        find_weights(tmp_path / "b.pt", small())
