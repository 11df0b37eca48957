from urllib.error import URLError

import pytest
import torch
import torchvision

from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.architecture import Architecture, last_linear, probe
from exml_lightning.models import LeNet5, SlimResNet18


def test_lenet5_has_the_layers_of_1998():
    convolutions = 6 * (1 * 25 + 1) + 16 * (6 * 25 + 1) + 120 * (16 * 25 + 1)
    assert sum(p.numel() for p in LeNet5().parameters()) == convolutions + 84 * 121 + 10 * 85
    assert LeNet5(num_classes=3, in_channels=3)(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


def test_initial_weights_depend_on_the_key_only():
    architecture = Architecture("exml_lightning.models.LeNet5").with_classes(4)
    torch.manual_seed(0)
    first = architecture.build(1234, "expert").classifier.weight
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(architecture.build(1234, "expert").classifier.weight, first)
    assert torch.equal(torch.rand(1), expected)  # the global state stays as it was
    assert not torch.equal(architecture.build(2345, "expert").classifier.weight, first)
    assert first.shape == (4, 84)


def test_networks_are_built_on_the_cpu_whatever_lightning_builds_on():
    architecture = Architecture("exml_lightning.models.LeNet5")
    with torch.device("meta"):
        network = architecture.build(1)
    assert torch.equal(network.classifier.weight, architecture.build(1).classifier.weight)


class Pair(torch.nn.Module):
    """Returns no logits."""

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return images, images


def test_what_a_network_returns_is_looked_at():
    assert probe(LeNet5(7), (1, 32, 32), "net") == 7
    with pytest.raises(ExmlError, match=r"net refuses images of shape \[3, 32, 32\]"):
        probe(LeNet5(), (3, 32, 32), "net")
    with pytest.raises(ExmlError, match="net returns tuple for one image"):
        probe(Pair(), (1, 2, 2), "net")
    with pytest.raises(ExmlError, match=r"net returns \[1, 1, 2, 2\] for one image"):
        probe(torch.nn.Identity(), (1, 2, 2), "net")


@pytest.mark.parametrize(
    "class_path",
    [
        "",
        "LeNet5",
        "exml_lightning.models.Nope",
        "no.such.Module",
        "math.sin",
        ".x.Y",
        "tests.models.test_models.Plain",
    ],
)
def test_what_is_no_network_is_refused(class_path):
    with pytest.raises(ExmlError, match="class_path"):
        Architecture(class_path).build()


class Plain:
    """No network."""


CALLED = []


def network_of(num_classes: int, weights: str | None = None, pretrained: bool = False) -> LeNet5:
    """Make a network, as the functions of torchvision and timm do."""
    CALLED.append((weights, pretrained))
    return LeNet5(num_classes).eval()


def unannotated(num_classes):
    CALLED.append(num_classes)
    return LeNet5(num_classes)


def of_something_else(num_classes: int) -> "int | None":
    CALLED.append(num_classes)
    return LeNet5(num_classes)


def of_nothing_known(num_classes: int) -> "Unknown":  # noqa: F821
    CALLED.append(num_classes)
    return LeNet5(num_classes)


def liar(num_classes: int) -> torch.nn.Module:
    return "no network"


@pytest.mark.parametrize("name", ["unannotated", "of_something_else", "of_nothing_known"])
def test_a_function_that_does_not_say_it_makes_networks_is_never_called(name):
    CALLED.clear()
    with pytest.raises(ExmlError, match=r"neither an nn\.Module class nor a function annotated to return one"):
        Architecture(f"{__name__}.{name}", {"num_classes": 2}).build()
    assert CALLED == []


def test_a_shell_command_is_no_network(tmp_path):
    for path in ("os.system", "subprocess.getoutput", "builtins.eval", "torch.load"):
        with pytest.raises(ExmlError, match=r"neither an nn\.Module class nor a function"):
            Architecture(path, {"command": f"touch {tmp_path}/here"}).build()
    assert not list(tmp_path.iterdir())


def test_a_function_annotated_to_return_a_network_makes_it():
    network = Architecture(f"{__name__}.network_of").with_classes(3).build(7)
    assert isinstance(network, LeNet5)
    assert network.training
    again = Architecture(f"{__name__}.network_of").with_classes(3).build(7)
    assert torch.equal(network.classifier.weight, again.classifier.weight)
    with pytest.raises(ExmlError, match=r"liar makes str, which is no nn\.Module"):
        Architecture(f"{__name__}.liar").with_classes(3).build()


def test_torchvision_networks_are_named_by_their_functions():
    network = Architecture("torchvision.models.resnet18").with_classes(7).build()
    assert probe(network, (3, 64, 64), "net") == 7
    assert last_linear(network) == "fc"
    assert isinstance(network, torchvision.models.ResNet)


def test_a_skeleton_has_no_pretrained_weights():
    CALLED.clear()
    full = Architecture(f"{__name__}.network_of", {"weights": "V1", "pretrained": True}).with_classes(2)
    full.build()
    full.skeleton().build()
    assert CALLED == [("V1", True), (None, False)]
    assert full.skeleton() == full.skeleton().skeleton() != full
    plain = Architecture("exml_lightning.models.LeNet5", {"num_classes": 2})
    assert plain.skeleton() == plain


@pytest.mark.parametrize(
    ("class_path", "arguments", "message"),
    [
        ("exml_lightning.models.LeNet5", {"widht": 3}, r"LeNet5 refuses init_args \{'widht': 3\}: .*widht"),
        ("torchvision.models.resnet18", {"num_classes": "ten"}, "resnet18 refuses init_args"),
        ("torchvision.models.resnet18", {"weights": "V9"}, "resnet18 refuses init_args"),
        ("exml_lightning.models.MobileNetV2", {"weights": "V9"}, "no weights 'V9': give one of IMAGENET1K_V1"),
    ],
)
def test_arguments_that_a_network_refuses_are_named(class_path, arguments, message):
    with pytest.raises(ExmlError, match=message):
        Architecture(class_path, arguments).build()


def no_network(*args, **kwargs):
    raise URLError("no network")


@pytest.mark.parametrize("class_path", ["torchvision.models.resnet18", "exml_lightning.models.MobileNetV2"])
def test_weights_that_cannot_be_fetched_say_how_to_do_without(class_path, monkeypatch):
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(ExmlError, match=r"fetched?.*no network.*weights: null|weights: null.*no network"):
        Architecture(class_path, {"weights": "IMAGENET1K_V1"}).build()


def convolution(before, after, size):
    return before * after * size * size


def test_slim_resnet18_has_the_parameters_of_its_layers():
    def count(width, num_classes):
        total = convolution(3, width, 3) + 2 * width
        for before, after in [(width, width), (width, 2 * width), (2 * width, 4 * width), (4 * width, 8 * width)]:
            first = convolution(before, after, 3) + convolution(after, after, 3) + 4 * after
            second = 2 * convolution(after, after, 3) + 4 * after
            shortcut = 0 if before == after else convolution(before, after, 1) + 2 * after
            total += first + second + shortcut
        return total + 8 * width * num_classes + num_classes

    assert count(20, 10) == 1_094_750
    for width, num_classes in [(20, 10), (4, 3)]:
        network = SlimResNet18(num_classes, width)
        assert sum(p.numel() for p in network.parameters()) == count(width, num_classes)


@pytest.mark.parametrize("size", [32, 64])
def test_slim_resnet18_takes_images_of_several_sizes_and_learns(size):
    network = SlimResNet18(5, width=4)
    logits = network(torch.randn(2, 3, size, size))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())
    assert network.stages(network.stem(torch.zeros(1, 3, size, size))).shape == (1, 32, size // 8, size // 8)


def test_slim_resnet18_with_group_norm_has_as_many_parameters_and_looks_at_each_image_alone():
    network = SlimResNet18(3, width=4, norm="group")
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in SlimResNet18(3, 4).parameters())
    assert not [*network.buffers()]
    images = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(network(images)[1:2], network(images[1:2]))


def test_mobilenet_is_torchvisions_with_a_head_of_dropout_and_one_layer():
    network = Architecture("exml_lightning.models.MobileNetV2").with_classes(50).build()
    dropout, linear = network.classifier
    assert (dropout.p, linear.in_features, linear.out_features) == (0.2, 1280, 50)
    assert last_linear(network) == "classifier.1"
    assert probe(network, (3, 64, 64), "net") == 50
    # 3.4 million with the 1,000 classes of the paper
    assert sum(p.numel() for p in network.parameters()) == 3_504_872 - 1281 * 950


def test_mobilenet_takes_the_features_of_pretrained_weights_and_a_new_head(monkeypatch):
    pretrained = torchvision.models.MobileNetV2().state_dict()
    asked = []

    def from_url(url, **options):
        asked.append((url.rpartition("/")[2], options["check_hash"]))
        return pretrained

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", from_url)
    network = Architecture("exml_lightning.models.MobileNetV2", {"weights": "IMAGENET1K_V1"}).with_classes(4).build(1)
    assert asked == [("mobilenet_v2-b0353104.pth", True)]
    state = network.state_dict()
    assert all(torch.equal(state[name], pretrained[name]) for name in state if name.startswith("features."))
    assert network.classifier[1].weight.shape == (4, 1280)


def test_the_last_linear_layer_is_found():
    assert last_linear(LeNet5()) == "classifier"
    assert last_linear(torch.nn.Conv2d(1, 1, 1)) is None
