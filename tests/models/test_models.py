import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.models import Architecture, LeNet5


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


@pytest.mark.parametrize("class_path", ["", "LeNet5", "exml_lightning.models.Nope", "no.such.Module", "math.sin"])
def test_what_is_no_network_is_refused(class_path):
    with pytest.raises(ExmlError, match="class_path"):
        Architecture(class_path).build()
