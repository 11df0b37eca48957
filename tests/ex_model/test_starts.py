import shutil
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import Noise
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.merging import Merge
from exml_lightning.ex_model.starts import Starts, check_start, difference
from exml_lightning.experts import load_expert, read_manifest, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.fitting import distil
from exml_lightning.models import LeNet5
from tests.conftest import EXPERTS, refused


def weights_of(folder, index):
    return load_expert(folder, read_manifest(folder), index).model.state_dict()


def average():
    first, second = (weights_of(EXPERTS, k) for k in range(2))
    return {name: (first[name] + second[name]) / 2 for name in first}


def merged():
    merge, initial = Merge(), load_file(EXPERTS / "initial.safetensors")
    for k in range(2):
        merge.add(load_expert(EXPERTS, read_manifest(EXPERTS), k).model, initial)
    return merge.weights()


def scratch():
    return Architecture("exml_lightning.models.LeNet5", {"num_classes": 10}).build(1234, "ex-model").state_dict()


@pytest.mark.parametrize(
    ("start", "expected"),
    [("average", average), ("expert", lambda: weights_of(EXPERTS, 0)), ("merged", merged), ("scratch", scratch)],
)
def test_what_an_ex_model_starts_as(tmp_path, start, expected):
    """Seen after a learning rate of nearly 0; ``scratch`` is the one initial model of a run."""
    zoo = shutil.copytree(EXPERTS, tmp_path / "zoo")
    manifest = read_manifest(zoo)
    write_manifest(replace(manifest, experts=manifest.experts[:2]), zoo)
    small = {"n_iter": 1, "batch_size": 2, "buffer_size": 4, "generator": Noise(), "seed": 1234}
    still = partial(torch.optim.SGD, lr=1e-30)
    model = distil(zoo, start=start, optimizer=still, accelerator="cpu", progress=False, **small)
    torch.testing.assert_close(dict(model.network.state_dict()), expected(), rtol=0, atol=1e-7)


def test_the_mean_of_three_is_a_running_one(make_expert):
    def network(value):
        model = LeNet5(2)
        for parameter in model.parameters():
            parameter.data.fill_(value)
        return model

    image_format = ImageFormat((1, 32, 32), (0.0,), (1.0,))
    ex_model = network(100.0)
    for k, value in enumerate([1.0, 2.0, 6.0]):
        expert = Expert(network(value), (0, 1), (0, 1), image_format, experience=k)
        ex_model.load_state_dict(Starts("average").weights(ex_model, expert, None))
    assert {round(p.mean().item(), 5) for p in ex_model.parameters()} == {3.0}


def test_other_architectures_are_refused(digit_experts):
    manifest = read_manifest(digit_experts)
    ours = manifest.experts[0].architecture
    check_start("average", manifest, ours, range(5))
    other = replace(manifest.experts[1], architecture=Architecture("torch.nn.Linear", {}))
    mixed = replace(manifest, experts=(manifest.experts[0], other))
    check_start("scratch", mixed, ours, range(2))
    assert not difference("expert", mixed, ours, 0)
    assert "Linear" in difference("expert", mixed, ours, 1)
    with pytest.raises(ExmlError, match=r"is .*torch\.nn\.Linear.*set model\.start to scratch"):
        check_start("average", mixed, ours, range(1, 2))
    check_start("average", mixed, ours, range(1))  # not asked for


def test_other_inputs_are_refused(digit_experts):
    manifest = read_manifest(digit_experts)
    other = replace(manifest.experts[1], input=ImageFormat((1, 28, 28), (0.5,), (0.5,)))
    mixed = replace(manifest, experts=(manifest.experts[0], other))
    with pytest.raises(ExmlError, match=r"expert 1 takes .*28, 28.*set model\.start to scratch"):
        check_start("average", mixed, manifest.experts[0].architecture, range(2))


def test_heads_with_units_of_their_own_are_refused_but_for_a_classifier_that_is_named(digit_experts):
    manifest = read_manifest(digit_experts)
    first = manifest.experts[0]
    ours, small = first.architecture, Architecture(first.architecture.class_path, {"num_classes": 2})
    for changes in ({"outputs": (0, 1)}, {"outputs": (1, 0), "architecture": small}):
        narrow = replace(manifest, experts=(replace(first, **changes),))
        assert not difference("expert", narrow, ours, 0)
        with pytest.raises(
            ExmlError, match=r"expert 0 (has units \[0, 1\] for the classes of the stream \[5, 4\]|is )"
        ):
            check_start("merged", narrow, ours, range(1))
        for classifier in (None, "features.9"):
            wrong = replace(manifest, experts=(replace(first, classifier=classifier, architecture=small),))
            assert difference("expert", wrong, ours, 0).startswith("is ")


def test_the_first_expert_is_copied_and_of_its_classifier_the_rows_of_its_classes():
    image_format = ImageFormat((1, 32, 32), (0.0,), (1.0,))
    ex_model, narrow = LeNet5(5), LeNet5(3)
    before = {name: tensor.clone() for name, tensor in ex_model.state_dict().items()}
    expert = Expert(narrow, (4, 1), (0, 2), image_format, classifier="classifier")
    ex_model.load_state_dict(Starts("expert").weights(ex_model, expert, lambda: ex_model))
    found, theirs = ex_model.state_dict(), narrow.state_dict()
    for name in ("classifier.weight", "classifier.bias"):
        expected = [before[name][0], theirs[name][2], before[name][2], before[name][3], theirs[name][0]]
        assert torch.equal(found.pop(name), torch.stack(expected))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in found.items())
    later = Expert(narrow, (0,), (1,), image_format, experience=1)
    assert Starts("expert").weights(ex_model, later, lambda: ex_model) is None


def test_a_run_with_another_start_keeps_nothing_to_merge(digit_experts):
    manifest = read_manifest(digit_experts)
    stream = SimpleNamespace(
        manifest=manifest, experience=0, completed=0, num_experts=2, initial_weights=lambda k: None
    )
    starts, ours = Starts("merged"), manifest.experts[0].architecture
    with pytest.raises(ExmlError, match="checkpoint had another start, so the experts before cannot be merged"):
        starts.check(stream, ours)
    starts.merge.count = 1
    starts.check(stream, ours)


class WideLeNet5(LeNet5):
    """Another architecture than the experts', for the same images and classes."""


def test_a_start_that_is_not_possible_is_refused_before_work(small_run, tmp_path, capsys):
    wide = '{"class_path": "tests.ex_model.test_starts.WideLeNet5"}'
    args = [*small_run("run"), "--model.start", "merged", "--model.architecture", wide]
    assert "they must be the same" in refused(args, capsys)
