import pytest
import torch
import torch.nn.functional as F
from torch import nn

from exml_lightning.core.expert import Expert
from exml_lightning.core.familiarity import LayerShares, layers_that_tell
from exml_lightning.core.images import ImageFormat


def expert_of(*layers, shape=(3, 8, 8), initial=None):
    network = nn.Sequential(*layers)
    units = network(torch.zeros(1, *shape)).shape[1]
    image_format = ImageFormat(shape, (0.5,) * shape[0], (0.5,) * shape[0])
    return Expert(network, range(units), range(units), image_format, initial=initial)


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


@pytest.mark.parametrize("known", [False, True])
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
def test_a_convolution(settings, known):
    """By its weights, or by what has changed since its training began where that is `known`."""
    convolution = nn.Conv2d(**{"in_channels": 3, "out_channels": 4, "kernel_size": 3, **settings})
    change = convolution.weight.detach().double()
    initial = {"0.weight": 0.2 * torch.randn(change.shape) + 0.7 * change.float()} if known else None
    if initial is not None:
        origin = initial["0.weight"].double()
        change = change - (change.flatten() @ origin.flatten()) / (origin.flatten() @ origin.flatten()) * origin
    expert = expert_of(convolution, nn.Flatten(), initial=initial)
    _, shares = LayerShares(expert)(expert.model, images())
    groups, padding = convolution.groups, settings.get("padding", 0)
    width = 2 if padding == "same" else padding
    mode = settings.get("padding_mode", "constant")
    padded = F.pad(images(), (width,) * 4, mode=mode)
    for image, share in zip(padded, shares, strict=True):
        unfolded = F.unfold(image[None], 3, settings.get("dilation", 1), 0, settings.get("stride", 1))
        patches = unfolded[0].T  # (places, inputs)
        seen = torch.zeros(())
        for group, weights in zip(patches.chunk(groups, dim=1), change.chunk(groups), strict=True):
            seen = seen + share_of(group, weights.flatten(1)) * group.square().sum()
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


def test_rows_that_weight_decay_alone_has_changed_take_nothing_in():
    layer, origin = nn.Linear(192, 7), torch.randn(7, 192)
    with torch.no_grad():
        layer.weight[:4] = 0.8 * origin[:4]
        origin[4:] = 0
    shares = LayerShares(expert_of(nn.Flatten(), layer, initial={"1.weight": origin}))
    _, found = shares(lambda x: layer(x.flatten(1)), images())
    expected = [share_of(x.reshape(1, -1), layer.weight.detach()[4:]) for x in images()]
    torch.testing.assert_close(found[:, 0], torch.stack(expected), rtol=1e-4, atol=1e-6)
    assert shares.weights.tolist() == [3]
    unchanged = LayerShares(expert_of(nn.Flatten(), layer, initial={"1.weight": layer.weight.detach()}))
    assert unchanged.weights.tolist() == [0]


def test_how_much_a_layer_counts():
    """The smaller one of the dimensions of what it takes in and of what it is blind to, all groups together."""
    last = nn.Linear(100, 4)
    last.weight.data[2:] = last.weight.data[:2]
    grouped = nn.Conv2d(20, 8, 3, groups=4)  # four times 2 of 45
    shares = LayerShares(expert_of(nn.Conv2d(3, 20, 3), grouped, nn.Flatten(), nn.Linear(128, 100), last))
    assert shares.weights.tolist() == [27 - 20, 4 * 2, 128 - 100, 2]


class Conv2dSame(nn.Conv2d):
    """Pads by itself, so that its output is as large as its input over its stride, as timm's and TensorFlow's do."""

    def forward(self, images):
        pads = []
        for size, kernel, stride in zip(images.shape[:1:-1], self.kernel_size, self.stride, strict=True):
            missing = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [missing // 2, missing - missing // 2]
        return F.conv2d(F.pad(images, pads), self.weight, self.bias, self.stride)


@pytest.mark.parametrize(
    ("size", "same", "plain"),
    [
        (3, Conv2dSame(1, 4, 5), [nn.Conv2d(1, 4, 5, padding=2)]),  # a kernel larger than its input
        (8, Conv2dSame(1, 4, 3, stride=2), [nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(1, 4, 3, stride=2)]),
    ],
)
def test_a_layer_that_pads_by_itself(size, same, plain):
    plain[-1].load_state_dict(same.state_dict())
    given = images(6, (1, size, size))
    by_itself, padded = (expert_of(*layers, nn.Flatten(), shape=(1, size, size)) for layers in ([same], plain))
    answers, found = LayerShares(by_itself)(by_itself, given)
    expected_answers, expected = LayerShares(padded)(padded, given)
    torch.testing.assert_close(answers, expected_answers)
    torch.testing.assert_close(found, expected)
    assert expected.max() < 0.99
    assert found.shape == (6, 1)


def test_behind_batch_norm_nothing_tells():
    layers = [nn.Conv2d(3, 4, 3), nn.Identity(), nn.Flatten(), nn.Linear(144, 5)]
    assert len(layers_that_tell(expert_of(*layers))) == 2
    layers[1] = nn.BatchNorm2d(4)
    assert layers_that_tell(expert_of(*layers)) == []


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


def test_a_network_without_such_layers_tells_nothing():
    expert = expert_of(nn.Flatten(), nn.Linear(192, 192))
    shares = LayerShares(expert)
    answers, found = shares(expert, images())
    torch.testing.assert_close(answers, expert(images()))
    assert (len(shares), shares.weights.tolist(), found.shape) == (0, [], (5, 0))
