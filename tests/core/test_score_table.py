import numpy as np
import pytest
import torch
from scipy.stats import norm

from exml_lightning.core.rng import keyed_generator
from exml_lightning.core.score_table import KNOTS, TAIL, ScoreTable, StandardTable


def normal(*shape, key="reference"):
    return torch.randn(*shape, generator=keyed_generator(key))


def test_scores_by_the_formula():
    """Quantiles, linear between and beyond, written out with numpy for one class."""
    reference = normal(1001, 1).exp()
    shares = (np.arange(KNOTS) + 0.5) / KNOTS
    knots, scores = np.quantile(reference[:, 0].numpy(), shares), norm.ppf(shares)
    values = torch.linspace(float(knots[0]) - 3, float(knots[-1]) + 5, 200)
    expected = np.interp(values.numpy(), knots, scores)
    high = (scores[-1] - scores[-TAIL]) / (knots[-1] - knots[-TAIL])
    low = (scores[TAIL - 1] - scores[0]) / (knots[TAIL - 1] - knots[0])
    expected += high * np.maximum(values.numpy() - knots[-1], 0) + low * np.minimum(values.numpy() - knots[0], 0)
    given = ScoreTable(reference)(values[:, None])[:, 0]
    assert np.allclose(given.numpy(), expected, atol=1e-3, rtol=1e-3)


def test_the_scores_of_normal_logits_are_standardised_logits():
    reference = 3 * normal(20_000, 4) + torch.tensor([-5.0, 0, 2, 100])
    logits = reference.mean(dim=0) + 3 * torch.tensor([-2.0, -0.5, 0, 1.5])[:, None]
    given = ScoreTable(reference)(logits)
    torch.testing.assert_close(given, torch.tensor([-2.0, -0.5, 0, 1.5])[:, None].expand(4, 4), atol=0.08, rtol=0)


def test_the_scale_of_a_model_does_not_matter():
    reference, logits = normal(500, 3), 2 * normal(40, 3, key="logits")
    scores = ScoreTable(reference)(logits)
    scale, offset = torch.tensor([0.01, 1, 50]), torch.tensor([7.0, -3, 0])
    torch.testing.assert_close(
        ScoreTable(reference * scale + offset)(logits * scale + offset), scores, atol=1e-2, rtol=0
    )
    assert (scores.sort(dim=0).indices == logits.sort(dim=0).indices).all()


def test_equal_logits_share_their_scores():
    """A unit that always says the same says nothing, nor does a single image; a tie at the top stays bounded."""
    for reference in (torch.full((50, 1), 3.0), torch.full((1, 1), 3.0)):
        given = ScoreTable(reference)(torch.tensor([[3.0], [4], [-1e6]]))
        assert given[:, 0].tolist() == pytest.approx([0, 0, 0], abs=1e-5)
    tied = torch.cat([normal(85, 1), torch.full((15, 1), 5.0)])
    given = ScoreTable(tied)(torch.tensor([[5.0], [5.1], [6]]))[:, 0]
    expected = norm.ppf((np.arange(KNOTS) + 0.5) / KNOTS)[int(0.85 * KNOTS) :].mean()
    assert given[0].item() == pytest.approx(expected, abs=0.05)
    assert given[2] < 5


def test_broken_logits_stay_broken():
    scores = ScoreTable(normal(50, 2))(torch.tensor([[torch.nan, 1], [torch.inf, 1]]))
    assert not scores[:, 0].isfinite().any()
    assert scores[:, 1].isfinite().all()


def test_in_a_straight_line_it_is_the_distance_in_standard_deviations():
    reference = torch.tensor([[1.0, 7.3], [3, 7.3], [8, 7.3]]).repeat(300, 1)
    given = StandardTable(reference)(torch.tensor([[4.0, 7], [10, 7], [-2, 7]]))
    assert given[:, 0].tolist() == pytest.approx([0, 6 / (26 / 3) ** 0.5, -6 / (26 / 3) ** 0.5])
    assert given[:, 1].tolist() == [0] * 3  # what is always the same says nothing
