import pytest
import torch

from exml_lightning.core.expert import Expert
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts import ExpertEntry, Manifest, save_weights
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.common_start import CommonStart

FORMAT = ImageFormat((1, 32, 32), (0.5,), (0.25,))
WIDE, NARROW = (Architecture("exml_lightning.models.LeNet5", {"num_classes": n}) for n in (10, 2))


@pytest.fixture
def stream(tmp_path):
    """Three experts that began alike, one that began elsewhere, and one of another architecture."""
    experts, entries = [], []
    for k, architecture in enumerate([WIDE, WIDE, WIDE, WIDE, NARROW]):
        network = architecture.build("elsewhere" if k == 3 else "alike")
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(k)))
        digest = save_weights(network, tmp_path / f"expert_{k}.safetensors")
        entries.append(ExpertEntry(f"expert_{k}.safetensors", digest, architecture, ("cat", "dog"), (0, 1)))
        experts.append(Expert(network, (0, 1), (0, 1), FORMAT, k))
    return experts, Manifest("pets", None, ("cat", "dog"), FORMAT, tuple(entries)), tmp_path


def mean(experts):
    states = [expert.model.state_dict() for expert in experts]
    return {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}


def test_the_mean_stands_for_what_experts_began_with_that_began_alike(stream):
    experts, manifest, folder = stream
    start = CommonStart(folder, manifest)
    for expert in experts[:3]:
        torch.testing.assert_close(start.of(expert), mean(experts[:4]))
    assert start.of(experts[3]) is None
    assert start.of(experts[4]) is None


def test_experts_that_are_gone_are_left_out(stream):
    experts, manifest, folder = stream
    (folder / "expert_0.safetensors").unlink()
    torch.testing.assert_close(CommonStart(folder, manifest).of(experts[1]), mean(experts[1:4]))
