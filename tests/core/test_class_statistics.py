import pytest
import torch
from torch import nn

from exml_lightning.core.class_statistics import ClassStatistics, Watch, measure, middle_layer, pool
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.rng import keyed_generator
from exml_lightning.models import LeNet5, SlimResNet18

FORMAT = ImageFormat((1, 2, 2), (0.25,), (0.5,))


@pytest.fixture
def statistics() -> ClassStatistics:
    """Two classes of six values, two directions each."""
    draws = keyed_generator("statistics")
    directions = torch.linalg.qr(torch.randn(2, 6, 2, generator=draws)).Q.mT.contiguous()
    means, images = torch.randn(2, 6, generator=draws), torch.tensor([30, 40])
    variances, rest = torch.tensor([[4.0, 2.0], [9.0, 0.5]]), torch.tensor([0.25, 0.5])
    return ClassStatistics("0", means, directions, variances, rest, torch.tensor([1.5, 0.5]), images)


def covariances(statistics):
    """The covariance matrix of each class, written out."""
    for directions, variances, rest in zip(statistics.directions, statistics.variances, statistics.rest, strict=True):
        along = directions.T @ directions
        yield directions.T @ variances.diag() @ directions + rest * (torch.eye(len(along)) - along)


def test_distances_are_those_of_the_covariance_matrices(statistics):
    values = torch.randn(7, 6, generator=keyed_generator("values"))
    expected = []
    for mean, covariance in zip(statistics.means, covariances(statistics), strict=True):
        away = values - mean
        expected.append((away * torch.linalg.solve(covariance, away.T).T).sum(dim=1).sqrt().log())
    torch.testing.assert_close(statistics.log_distance(values), torch.stack(expected, dim=1))
    nearest = torch.stack(expected, dim=1).amin(dim=1)
    torch.testing.assert_close(statistics.strangeness(values), (nearest - 1.5) / 0.5)


def test_samples_have_the_mean_and_the_variances_of_their_class(statistics):
    drawn = statistics.sample(torch.ones(20_000, dtype=torch.long), keyed_generator("sample"))
    torch.testing.assert_close(drawn.mean(dim=0), statistics.means[1], rtol=0, atol=0.1)
    along = (drawn - statistics.means[1]) @ statistics.directions[1].T
    torch.testing.assert_close(along.var(dim=0), statistics.variances[1], rtol=0.05, atol=0)
    across = drawn - statistics.means[1] - along @ statistics.directions[1]
    assert across.abs().max() < 1e-5


def test_the_misfit_of_a_sample_of_its_class_to_the_mean_is_one_on_average(statistics):
    """With what is across the directions, which samples leave out."""
    columns = torch.tensor([0, 1])
    drawn = statistics.means + torch.tensor([[0.0, 3, 0, 0, 0, 0], [2.0, 0, 0, 0, 0, 0]])
    totals = torch.tensor([4 + 2 + 4 * 0.25, 9 + 0.5 + 4 * 0.5])
    found = statistics.misfit(drawn, statistics.means, columns)
    torch.testing.assert_close(found, torch.tensor([9.0, 4.0]) / totals)


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
    with Watch(model.get_submodule(layer))() as watch:
        expert(torch.randn(3, *shape))
        assert watch.pop(3).shape == (3, values)


class Flat(nn.Module):
    """Its middle layer of three is given four pixels, as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.first.weight.data, self.first.bias.data = torch.eye(4), torch.zeros(4)

    def forward(self, images):
        return self.third(self.second(self.first(images.flatten(1))))


def test_moments_are_those_of_the_images():
    expert = Expert(Flat(), [3, 7], [0, 1], FORMAT)
    pixels = torch.randint(256, (4000, 1, 2, 2), generator=keyed_generator("pixels")).byte()
    columns = torch.arange(4000) % 2
    pixels[columns == 1] //= 2
    found = measure(expert, pixels, columns)
    values = FORMAT.to_input(pixels).flatten(1)
    assert (found.layer, found.images.tolist()) == ("second", [2000, 2000])
    for column in range(2):
        own = values[columns == column]
        torch.testing.assert_close(found.means[column], own.mean(dim=0), rtol=0, atol=0.03)
        whole = list(covariances(found))[column]
        torch.testing.assert_close(whole, own.T.cov(correction=0), rtol=0, atol=0.03)
    strange = found.strangeness(values)
    assert abs(float(strange.mean())) < 0.1
    assert 0.9 < float(strange.std()) < 1.1
    assert float(found.strangeness(values + 20).min()) > 3


def test_too_few_images_of_a_class_are_refused():
    expert = Expert(Flat(), [3, 7], [0, 1], FORMAT)
    with pytest.raises(ExmlError, match="expert 0: 1 images of one of its classes: give 20 or more"):
        measure(expert, torch.zeros(30, 1, 2, 2).byte(), torch.tensor([1] + [0] * 29))


class Turned(Flat):
    """Gives its middle layer something else than an image after the other."""

    def forward(self, images):
        self.second(self.first(images.flatten(1))[:1])
        return self.third(self.first(images.flatten(1)))


def test_a_layer_that_sees_no_single_images_is_refused():
    expert = Expert(Turned(), [3, 7], [0, 1], FORMAT)
    with pytest.raises(ExmlError, match="its middle layer is not given an image after the other"):
        measure(expert, torch.zeros(60, 1, 2, 2).byte(), torch.arange(60) % 2)
