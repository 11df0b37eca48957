"""Networks by name: what may be called, what it is called with, what it returns."""

import os
from urllib.error import URLError

import pytest
import torch
import torchvision

from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.architecture import Architecture, default_architecture, last_linear, probe
from exml_lightning.models import LeNet5

LENET = Architecture("exml_lightning.models.LeNet5")
CALLED = []


def network_of(num_classes: int, weights: str | None = None, pretrained: bool = False) -> LeNet5:
    """Make a network, as the functions of torchvision and timm do."""
    CALLED.append((weights, pretrained))
    return LeNet5(num_classes).eval()


def unannotated(num_classes):
    CALLED.append(num_classes)


def of_something_else(num_classes: int) -> "int | None":
    CALLED.append(num_classes)


def of_nothing_known(num_classes: int) -> "Unknown":  # noqa: F821
    CALLED.append(num_classes)


def liar(num_classes: int) -> torch.nn.Module:
    return "no network"


class Odd(torch.nn.Module):
    """Returns no logits, and knows what torch was told when it was made."""

    def __init__(self):
        super().__init__()
        self.asked = {name: value for name, value in os.environ.items() if name.startswith("TORCH_FORCE")}

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images, images


def test_initial_weights_depend_on_the_key_only():
    """Not on the global state, which stays as it was, nor on where Lightning builds."""
    architecture = LENET.with_classes(4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = architecture.build(1234, "expert").classifier.weight
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    with torch.device("meta"):
        assert torch.equal(architecture.build(1234, "expert").classifier.weight, first)
    assert not torch.equal(architecture.build(2345, "expert").classifier.weight, first)
    assert first.shape == (4, 84)


def test_a_function_annotated_to_return_a_network_makes_it():
    network = Architecture(f"{__name__}.network_of").with_classes(3).build(7)
    assert isinstance(network, LeNet5)
    assert network.training
    with pytest.raises(ExmlError, match=r"liar makes str, which is no nn\.Module"):
        Architecture(f"{__name__}.liar").with_classes(3).build()
    resnet = Architecture("torchvision.models.resnet18").with_classes(7).build()
    assert isinstance(resnet, torchvision.models.ResNet)
    assert (probe(resnet, (3, 64, 64), "net"), last_linear(resnet)) == (7, "fc")


@pytest.mark.parametrize(
    ("class_path", "message"),
    [
        ("LeNet5", "cannot be imported"),
        ("no.such.Module", "give the dotted path of an nn.Module class"),
        ("exml_lightning.models.Lenet5", r"did you mean exml_lightning\.models\.LeNet5\?"),
        ("math.sin", "is neither an nn.Module class"),
        ("pathlib.Path", "is neither an nn.Module class"),
    ],
)
def test_what_is_no_network_is_refused(class_path, message):
    with pytest.raises(ExmlError, match=f"class_path '{class_path}'.*{message}"):
        Architecture(class_path).build()


@pytest.mark.parametrize(
    ("class_path", "arguments"),
    [
        *((f"{__name__}.{k}", {"num_classes": 2}) for k in ("unannotated", "of_something_else", "of_nothing_known")),
        *((name, {"command": "touch has_run"}) for name in ("os.system", "subprocess.getoutput", "builtins.eval")),
        ("torch.load", {"f": "a.pt"}),
    ],
)  # fmt: skip
def test_a_function_that_does_not_say_it_makes_networks_is_never_called(class_path, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CALLED.clear()
    with pytest.raises(ExmlError, match=r"neither an nn\.Module class nor a function annotated to return one"):
        Architecture(class_path, arguments).build()
    assert CALLED == []
    assert not list(tmp_path.iterdir())


def test_a_skeleton_has_no_pretrained_weights():
    CALLED.clear()
    full = Architecture(f"{__name__}.network_of", {"weights": "V1", "pretrained": True}).with_classes(2)
    full.build()
    full.skeleton().build()
    assert CALLED == [("V1", True), (None, False)]
    assert full.skeleton() == full.skeleton().skeleton() != full
    assert LENET.skeleton() == LENET


@pytest.mark.parametrize(
    ("class_path", "arguments", "message"),
    [
        ("exml_lightning.models.LeNet5", {"widht": 3}, r"LeNet5 refuses init_args \{'widht': 3\}: .*widht"),
        ("exml_lightning.models.MobileNetV2", {"weights": "V9"}, "no weights 'V9': give one of IMAGENET1K_V1"),
    ],
)
def test_arguments_that_a_network_refuses_are_named(class_path, arguments, message):
    with pytest.raises(ExmlError, match=message):
        Architecture(class_path, arguments).build()


@pytest.mark.parametrize("class_path", ["torchvision.models.resnet18", "exml_lightning.models.MobileNetV2"])
def test_weights_that_cannot_be_fetched_say_how_to_do_without(class_path, monkeypatch):
    def no_network(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(ExmlError, match=r"fetched?.*no network.*weights: null|weights: null.*no network"):
        Architecture(class_path, {"weights": "IMAGENET1K_V1"}).build()


def test_torch_is_told_to_read_no_code_while_a_network_is_built(monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    assert Architecture(f"{__name__}.Odd").build().asked == {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
    now = {name: value for name, value in os.environ.items() if name.startswith("TORCH_FORCE")}
    assert now == {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}


def test_what_a_network_returns_is_looked_at():
    assert probe(LeNet5(7), (1, 32, 32), "net") == 7
    for network, shape, message in (
        (LeNet5(), (3, 32, 32), r"net refuses images of shape \[3, 32, 32\]"),
        (Odd(), (1, 2, 2), r"net returns tuple for images \[1, "),
        (torch.nn.Identity(), (1, 2, 2), r"net returns \[1, 1, 2, 2\] for images"),
    ):
        with pytest.raises(ExmlError, match=message):
            probe(network, shape, "net")


@pytest.mark.parametrize(
    ("shape", "name"),
    [
        ((1, 32, 32), "LeNet5"),
        ((3, 32, 32), "SlimResNet18"),
        ((1, 64, 48), "SlimResNet18"),
        ((3, 64, 64), "SlimResNet18"),
    ],
)
def test_the_default_network_takes_the_images(shape, name):
    chosen = default_architecture(shape).with_classes(3)
    assert chosen.class_path == f"exml_lightning.models.{name}"
    assert probe(chosen.build(), shape, name) == 3
