import pytest
import torch
import torch.nn.functional as F
from torch import nn

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.familiarity import LayerShares, layers_that_tell
from exml_lightning.core.images import ImageFormat


def expert_of(*layers, shape=(3, 8, 8)):
    network = nn.Sequential(*layers)
    units = network(torch.zeros(1, *shape)).shape[1]
    return Expert(network, range(units), range(units), ImageFormat(shape, (0.5,) * shape[0], (0.5,) * shape[0]))


def share_of(vectors, weights):
    """By the pseudo-inverse: the sum of |W^+ W x|^2 over that of |x|^2; `vectors` are (places, inputs)."""
    weights = weights.double()
    seen = vectors.double() @ (torch.linalg.pinv(weights) @ weights).T
    return (seen.square().sum() / vectors.double().square().sum()).float()


def images(count=5, shape=(3, 8, 8)):
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(0))


def test_a_linear_layer():
    layer = nn.Linear(192, 7)
    answers, shares = LayerShares(expert_of(nn.Flatten(), layer))(
        lambda x: x.flatten(1)[:, :3] + layer(x.flatten(1)).mean(), images()
    )
    assert answers.shape == (5, 3)
    expected = torch.stack([share_of(x.reshape(1, -1), layer.weight) for x in images()])
    torch.testing.assert_close(shares, expected[:, None], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"padding": "same", "dilation": 2},
        {"padding": 2, "padding_mode": "reflect"},
        {"groups": 3, "out_channels": 6},
        {"groups": 3, "out_channels": 3, "padding": 1, "padding_mode": "circular", "stride": (2, 1)},
    ],
    ids=str,
)
def test_a_convolution(settings):
    convolution = nn.Conv2d(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3, **settings})
    expert = expert_of(convolution, nn.Flatten())
    _, shares = LayerShares(expert)(expert.model, images())
    groups, padding = convolution.groups, settings.get("padding", 0)
    width = 2 if padding == "same" else padding
    mode = settings.get("padding_mode", "constant")
    padded = F.pad(images(), (width,) * 4, mode=mode)
    for image, share in zip(padded, shares, strict=True):
        unfolded = F.unfold(image[None], 3, settings.get("dilation", 1), 0, settings.get("stride", 1))
        patches = unfolded[0].T  # (places, inputs)
        seen = torch.zeros(())
        for group, weights in zip(patches.chunk(groups, dim=1), convolution.weight.chunk(groups), strict=True):
            seen = seen + share_of(group, weights.detach().flatten(1)) * group.square().sum()
        torch.testing.assert_close(share, (seen / patches.square().sum())[None], rtol=1e-4, atol=1e-6)


def test_rows_that_say_the_same_count_once():
    layer = nn.Linear(192, 4)
    with torch.no_grad():
        layer.weight[1] = 2 * layer.weight[0]
        layer.weight[2] = 0
    expert = expert_of(nn.Flatten(), layer)
    _, shares = LayerShares(expert)(expert.model, images())
    expected = [share_of(x.reshape(1, -1), layer.weight.detach()[[0, 3]]) for x in images()]
    torch.testing.assert_close(shares[:, 0], torch.stack(expected), rtol=1e-4, atol=1e-6)


def test_layers_that_take_part():
    first, wide, last = nn.Linear(192, 32), nn.Linear(32, 32), nn.Linear(32, 5)

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.wide, self.last, self.unused = first, wide, last, nn.Linear(32, 2)

        def forward(self, pixels):
            hidden = self.wide(self.first(pixels.flatten(1)).tanh()).tanh()
            return self.last(hidden) + self.last(2 * hidden.flip(1))

    expert = expert_of(Twice())
    shares = LayerShares(expert)
    assert len(layers_that_tell(expert)) == 2  # `wide` takes all in, `unused` is never asked
    _, found = shares(expert.model, images())
    with torch.no_grad():
        hidden = wide(first(images().flatten(1)).tanh()).tanh()
    calls = torch.stack([hidden, 2 * hidden.flip(1)], dim=1)
    expected = torch.stack([share_of(both, last.weight.detach()) for both in calls])
    torch.testing.assert_close(found[:, 1], expected, rtol=1e-4, atol=1e-6)


def test_half_precision_does_not_overflow():
    expert = expert_of(nn.Flatten(), nn.Linear(192, 32), nn.Linear(32, 4))
    shares = LayerShares(expert)
    _, exact = shares(expert.model, 500 * images())
    with torch.autocast("cpu", torch.bfloat16):
        answers, rough = shares(expert.model, 500 * images())
    assert answers.dtype == torch.bfloat16
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, rtol=0.02, atol=0.01)


def test_a_blank_image_has_no_energy():
    expert = expert_of(nn.Flatten(), nn.Linear(192, 4))
    _, shares = LayerShares(expert)(expert.model, torch.zeros(2, 3, 8, 8))
    assert torch.equal(shares, torch.zeros(2, 1))


def test_nothing_stays_hooked():
    expert = expert_of(nn.Flatten(), nn.Linear(192, 4))
    shares = LayerShares(expert)
    with pytest.raises(ZeroDivisionError):
        shares(lambda x: expert.model(x) / (1 // 0), images())
    assert not expert.model[1]._forward_hooks


class TokensFirst(nn.Module):
    """Gives its layers tokens before images, a fixed table, and each image twice, beside images as they should be."""

    def __init__(self):
        super().__init__()
        self.sound, self.tokens, self.table, self.copies = (nn.Linear(n, 4) for n in (192, 24, 24, 192))
        self.entries = nn.Parameter(torch.randn(6, 24))

    def forward(self, pixels):
        tokens = self.tokens(pixels.flatten(2).reshape(-1, 8, 24).transpose(0, 1)).mean(dim=0)
        twice = self.copies(torch.cat([pixels, pixels.flip(3)]).flatten(1)).unflatten(0, (2, -1)).sum(dim=0)
        return self.sound(input=pixels.flatten(1)) + tokens + self.table(self.entries).mean(dim=0) + twice


@pytest.mark.parametrize("count", [1, 5, 6])
def test_layers_that_are_given_something_else_than_images_are_left_out(count):
    expert = expert_of(TokensFirst())
    assert layers_that_tell(expert) == [expert.model[0].sound]
    _, together = LayerShares(expert)(expert.model, images(count))
    alone = [LayerShares(expert)(expert.model, image[None])[1] for image in images(count)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-6)


def test_a_layer_that_is_not_called_takes_nothing_in():
    expert = expert_of(nn.Flatten(), nn.Linear(192, 32), nn.Linear(32, 4))
    _, shares = LayerShares(expert)(lambda x: expert.model[:2](x), images())
    assert shares[:, 0].min() > 0
    assert torch.equal(shares[:, 1], torch.zeros(5))


def test_a_network_without_such_layers_is_refused():
    with pytest.raises(ExmlError, match=r"no convolution or linear layer .* model\.normalize\.familiarity 0"):
        LayerShares(expert_of(nn.Flatten(), nn.Linear(192, 192)))
