import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.models import Architecture, LeNet5, probe


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
    "class_path", ["", "LeNet5", "exml_lightning.models.Nope", "no.such.Module", "math.sin", ".x.Y"]
)
def test_what_is_no_network_is_refused(class_path):
    with pytest.raises(ExmlError, match="class_path"):
        Architecture(class_path).build()
