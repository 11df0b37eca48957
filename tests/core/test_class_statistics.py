import pytest
import torch

from exml_lightning.core.class_statistics import ClassStatistics
from exml_lightning.core.rng import keyed_generator


@pytest.fixture
def statistics() -> ClassStatistics:
    """Two classes of six values, two directions each."""
    draws = keyed_generator("statistics")
    directions = torch.linalg.qr(torch.randn(2, 6, 2, generator=draws)).Q.mT.contiguous()
    means, images = torch.randn(2, 6, generator=draws), torch.tensor([30, 40])
    variances, rest = torch.tensor([[4.0, 2.0], [9.0, 0.5]]), torch.tensor([0.25, 0.5])
    units = torch.tensor([1.0, 2, 3, 4, 5, 6])
    return ClassStatistics("0", units, means, directions, variances, rest, torch.tensor([1.5, 0.5]), images)


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
    features = values * statistics.units
    torch.testing.assert_close(statistics.log_distance(features), torch.stack(expected, dim=1))
    nearest = torch.stack(expected, dim=1).amin(dim=1)
    torch.testing.assert_close(statistics.strangeness(features), (nearest - 1.5) / 0.5)


def test_samples_have_the_mean_and_the_variances_of_their_class(statistics):
    drawn = statistics.sample(torch.ones(20_000, dtype=torch.long), keyed_generator("sample")) / statistics.units
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
    units = statistics.units
    found = statistics.misfit(drawn * units, statistics.means * units, columns)
    torch.testing.assert_close(found, torch.tensor([9.0, 4.0]) / totals)
