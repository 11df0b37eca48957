"""The three networks: their layers, and what they take and return."""

import pytest
import torch
import torchvision

from exml_lightning.experts.architecture import Architecture, last_linear, probe
from exml_lightning.models import LeNet5, SlimResNet18


def test_lenet5_has_the_layers_of_1998():
    convolutions = 6 * (1 * 25 + 1) + 16 * (6 * 25 + 1) + 120 * (16 * 25 + 1)
    assert sum(p.numel() for p in LeNet5().parameters()) == convolutions + 84 * 121 + 10 * 85
    assert LeNet5(num_classes=3, in_channels=3)(torch.zeros(2, 3, 32, 32)).shape == (2, 3)


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
