import pytest
import torch
from torch import Tensor, nn

from exml_lightning.core.layout import fast_layout
from exml_lightning.core.rng import keyed_generator
from exml_lightning.models import LeNet5, SlimResNet18


class Views(nn.Module):
    """Relies on the order of its feature maps in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.classifier = nn.Linear(4 * 6 * 6, 2)

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images)
        return self.classifier(features.view(len(images), -1))


class Reads(Views):
    """Is not refused, but answers something else."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images)
        return self.classifier(features.as_strided((len(images), 144), (144, 1)))


class TrainingViews(Views):
    """Relies on it in train mode alone."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.convolution(images)
        return self.classifier(features.view(len(images), -1) if self.training else features.flatten(1))


class Volumes(nn.Module):
    """Has weights that have no layout of this kind."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv3d(1, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images[:, None]).mean(dim=(2, 3, 4))


def last_strides(network):
    return [p.is_contiguous(memory_format=torch.channels_last) for p in network.parameters() if p.ndim == 4]


@pytest.mark.parametrize(("network", "shape"), [(LeNet5(), (1, 32, 32)), (SlimResNet18(), (3, 16, 16))])
@pytest.mark.parametrize("training", [True, False])
def test_networks_of_the_package_change_and_answer_the_same(network, shape, training):
    images = torch.randn(3, *shape)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    expected = network.eval()(images)
    assert fast_layout(network.train(training), shape) is network
    assert all(last_strides(network))
    assert all(module.training == training for module in network.modules())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(network.eval()(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [Views, Reads, TrainingViews])
def test_a_network_that_relies_on_the_other_order_keeps_it(kind):
    torch.manual_seed(0)
    network, images = kind(), torch.randn(5, 3, 8, 8)
    expected = network(images)
    fast_layout(network, (3, 8, 8))
    assert network.convolution.weight.is_contiguous()
    torch.testing.assert_close(network(images), expected)


def test_weights_of_other_kinds_are_left_alone():
    network = fast_layout(Volumes(), (4, 8, 8))
    assert network.convolution.weight.is_contiguous()


def test_convolutions_between_few_channels_keep_the_usual_order():
    """Their gradients in channels_last crash the process in torch 2.14.1."""
    network = fast_layout(SlimResNet18(3, width=4), (3, 32, 32))
    assert all(weight.is_contiguous() for weight in network.parameters())
    for seed in range(3):
        images = torch.randn(32, 3, 32, 32, generator=keyed_generator("images", seed))
        network(images).square().mean().backward()
    assert all(weight.grad.isfinite().all() for weight in network.parameters())
