import pytest
import torch
from torch import nn

from exml_lightning.core import priors

IMAGES = torch.tensor([[[[1.0, 2.0], [3.0, 5.0]]], [[[0.0, 0.0], [0.0, 4.0]]]])


def test_l2_norm_by_hand():
    assert priors.l2_norm(IMAGES).tolist() == [1 + 4 + 9 + 25, 16]


def test_total_variation_by_hand():
    # first image: down (3-1)^2 + (5-2)^2, right (2-1)^2 + (5-3)^2
    assert priors.total_variation(IMAGES).tolist() == [4 + 9 + 1 + 4, 16 + 16]


def test_blur_by_hand():
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 16.0
    # the blurred dot is the kernel itself: 4 in the middle, 2 beside, 1 at the corners
    expected = (16 - 4) ** 2 + 4 * 2**2 + 4 * 1**2
    assert priors.blur(image).item() == expected


def batch_norm_network() -> nn.Sequential:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2)).eval()
    first, convolution, second = network
    first.running_mean.fill_(1.0)
    first.running_var.fill_(4.0)
    convolution.weight.data.copy_(torch.tensor([2.0, -1.0]).view(2, 1, 1, 1))
    second.running_mean.copy_(torch.tensor([0.5, 0.0]))
    second.running_var.copy_(torch.tensor([1.0, 3.0]))
    return network


def test_batch_norm_statistics_by_hand_over_all_layers():
    network = batch_norm_network()
    images = torch.tensor([1.0, 3.0, 5.0, 7.0]).view(2, 1, 1, 2)  # mean 4, variance 5
    with priors.BatchNormStatistics(network) as statistics:
        network(images)
        term = statistics.pop()
    first = (4 - 1) ** 2 + (5 - 4) ** 2
    # after the first layer: mean (4 - 1) / 2, variance 5 / 4 (eps 1e-5 aside); then times 2 and -1
    second = (3 - 0.5) ** 2 + (5 - 1) ** 2 + (-1.5 - 0) ** 2 + (1.25 - 3) ** 2
    assert term.item() == pytest.approx(first + second, rel=1e-4)


def test_batch_norm_statistics_clean_up():
    network = batch_norm_network()
    with priors.BatchNormStatistics(network) as statistics:
        network(IMAGES)
    assert not network[0]._forward_pre_hooks
    with pytest.raises(RuntimeError, match="no batch-norm layer"):
        statistics.pop()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradient_of_batch_norm_statistics_is_that_of_the_formula(layout):
    layer = nn.BatchNorm2d(3).eval()
    layer.running_mean.copy_(torch.tensor([0.1, -0.5, 2.0]))
    layer.running_var.copy_(torch.tensor([0.5, 2.0, 1.0]))
    torch.manual_seed(0)
    images = (1.5 * torch.randn(4, 3, 5, 6) + 0.7).to(memory_format=layout).requires_grad_()
    with priors.BatchNormStatistics(layer) as statistics:
        layer(images)
        (found,) = torch.autograd.grad(3 * statistics.pop(), [images])
    columns = images.double().movedim(1, 0).flatten(1)
    means = columns.mean(dim=1)
    variances = ((columns - means[:, None]) ** 2).mean(dim=1)
    distance = ((means - layer.running_mean) ** 2).sum() + ((variances - layer.running_var) ** 2).sum()
    (expected,) = torch.autograd.grad(3 * distance, [images])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (1, 3, 1, 1)])
def test_constant_channels_have_no_variance(shape):
    layer = nn.BatchNorm2d(3).eval()
    images = torch.full(shape, 2.0, requires_grad=True)
    with priors.BatchNormStatistics(layer) as statistics:
        layer(images)
        found = statistics.pop()
        (gradient,) = torch.autograd.grad(found, [images])
    assert found.item() == pytest.approx(3 * ((2 - 0) ** 2 + (0 - 1) ** 2), rel=1e-5)
    # 2 (mean - 0) / n; the variance of a constant does not change to first order
    torch.testing.assert_close(gradient, torch.full(shape, 2 * 2 * 3 / images.numel()), rtol=1e-5, atol=0)
