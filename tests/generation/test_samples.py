"""Samples of an expert as a run asks for them."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import ModelInversion, Noise
from exml_lightning.core.images import ImageFormat
from exml_lightning.generation.samples import Sampler

FORMAT = ImageFormat((1, 4, 4), (0.5,), (0.5,))


class Without(nn.Module):
    """Gives images no gradient, in one way or another."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.head = how, nn.Linear(16, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if self.how == "rounded":
            images = (images * 8).round() / 8
        if self.how == "detached":
            images = images.detach()
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.how != "no_grad"):
            return self.head(images.flatten(1))


@pytest.mark.parametrize("how", ["rounded", "detached", "no_grad", ""])
def test_an_expert_without_gradient_is_refused_before_images_are_made_of_it(how):
    torch.manual_seed(0)
    expert = Expert(Without(how), [0, 1], [0, 1], FORMAT, file="a.pt")
    stream = SimpleNamespace(seed=0)
    Sampler(Noise(), stream, None, False).rehearse(expert)
    inversion = Sampler(ModelInversion(steps=2), stream, Path("nowhere"), False)
    assert expert.gives_gradient() == (not how)
    if not how:
        inversion.rehearse(expert)
        return
    with pytest.raises(ExmlError, match=r"expert 0 \(a\.pt\) gives images no gradient.*--strategy best, auxiliary or"):
        inversion.rehearse(expert)
