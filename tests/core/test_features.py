import pytest
import torch
from torch import nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.features import Features, enlarge, middle_layer, pool, thumbnail_size
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.rng import keyed_generator
from exml_lightning.models import LeNet5, SlimResNet18


def test_activations_are_pooled_to_so_many_values():
    maps = torch.arange(2 * 16 * 10 * 10.0).view(2, 16, 10, 10)
    torch.testing.assert_close(pool(maps), nn.functional.adaptive_avg_pool2d(maps, 5).flatten(1))
    tokens = torch.arange(2 * 3 * 4.0).view(2, 3, 4)
    torch.testing.assert_close(pool(tokens), tokens.mean(dim=1))
    assert pool(torch.ones(2, 2000)).shape == (2, 512)
    torch.testing.assert_close(pool(torch.arange(8.0).view(2, 4)), torch.arange(8.0).view(2, 4))


@pytest.mark.parametrize(
    ("model", "shape", "layer", "values"),
    [
        (LeNet5(2), (1, 32, 32), "features.6", 400),
        (SlimResNet18(2, width=8), (3, 32, 32), "stages.2.0.body.0", 400),
    ],
)
def test_the_middle_layer_is_looked_into(model, shape, layer, values):
    image_format = ImageFormat(shape, (0.5,) * shape[0], (0.25,) * shape[0])
    expert = Expert(model, [0, 1], [0, 1], image_format)
    assert middle_layer(expert) == layer
    images = torch.randn(3, *shape, generator=keyed_generator("images"))
    with Features(expert, layer)() as look:
        expert(images)
        features = look.pop(images)
    assert features.shape == (3, shape[0] * 144 + values)
    thumbnails = nn.functional.adaptive_avg_pool2d(images, 12).flatten(1)
    torch.testing.assert_close(features[:, : thumbnails.shape[1]], thumbnails)


def test_thumbnails_are_enlarged_to_what_they_were_made_of():
    """Where it was smooth; a small image is its own thumbnail."""
    across = torch.linspace(-1, 1, 36)
    image = (across[:, None] + 2 * across).expand(1, 1, 36, 36)
    thumbnail = nn.functional.avg_pool2d(image, 3)
    features = torch.cat([thumbnail.flatten(1), torch.ones(1, 7)], dim=1)
    own = ImageFormat((1, 36, 36), (0.5,), (0.5,))
    again = enlarge(features, Expert(nn.Identity(), [0], [0], own))
    assert (again - image)[..., 5:-5, 5:-5].abs().max() < 0.05
    assert thumbnail_size((3, 8, 40)) == (3, 8, 12)
    small = torch.randn(1, 9 * 9, generator=keyed_generator("small"))
    tiny = Expert(nn.Identity(), [0], [0], ImageFormat((1, 9, 9), (0.5,), (0.5,)))
    torch.testing.assert_close(enlarge(small, tiny), small.view(1, 1, 9, 9))
    shown = ImageFormat((3, 36, 36), (0.2, 0.3, 0.4), (0.5, 0.25, 0.5))  # of a stream of other images
    colour = enlarge(features, Expert(nn.Identity(), [0], [0], shown, own_format=own))
    pixels = again / 2 + 0.5
    torch.testing.assert_close(
        colour, torch.cat([(pixels - 0.2) / 0.5, (pixels - 0.3) / 0.25, (pixels - 0.4) / 0.5], 1)
    )


def test_features_are_those_of_what_the_network_takes():
    """So that they are the same in a stream of other images, but for what converting these loses."""
    network, own = LeNet5(2), ImageFormat((1, 32, 32), (0.1307,), (0.3081,))
    pixels = torch.rand(4, 1, 32, 32, generator=keyed_generator("pixels"))
    found = []
    for shown in (own, ImageFormat((1, 32, 32), (0.5,), (0.5,)), ImageFormat((3, 32, 32), (0.5,) * 3, (0.25,) * 3)):
        expert = Expert(network, [0, 1], [0, 1], shown, own_format=own)
        images = shown.normalize(pixels.expand(-1, shown.shape[0], -1, -1))
        with Features(expert, "features.6")() as look, torch.no_grad():
            expert(images)
            found.append(look.pop(images))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[2], found[0], rtol=1e-4, atol=1e-4)


class Turned(nn.Module):
    """Gives its middle layer something else than an image after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, images):
        self.second(self.first(images.flatten(1))[:1])
        return self.third(self.first(images.flatten(1)))


def test_a_layer_that_sees_no_single_images_is_refused():
    expert = Expert(Turned(), [3, 7], [0, 1], ImageFormat((1, 2, 2), (0.25,), (0.5,)))
    images = torch.zeros(5, 1, 2, 2)
    with Features(expert, middle_layer(expert))() as look:
        expert(images)
        with pytest.raises(ExmlError, match="its middle layer is not given an image after the other"):
            look.pop(images)
