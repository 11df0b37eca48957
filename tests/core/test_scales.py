import math

import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.procedural import Strokes
from exml_lightning.core.scales import (
    Center,
    CenterBatch,
    ExpertScores,
    NormalScores,
    NoScale,
    ScoreWeights,
    Standardize,
    StandardScores,
    StatisticsScale,
)
from exml_lightning.core.score_table import ScoreTable

LOGITS = torch.tensor([[1.0, 3.0, 7.0], [2.0, 8.0, 7.0], [6.0, 4.0, 7.0]])
TWO = torch.tensor([True, True, False])  # the third class is not known, whatever its logit
HEADS = torch.tensor([5, 5, 7, 7, 7])
FORMAT = ImageFormat((1, 8, 8), (0.3,), (0.5,))


@pytest.mark.parametrize(
    ("scale", "expected"),
    [
        (NoScale(), [[1, 3, 0], [2, 8, 0], [6, 4, 0]]),
        (Center(), [[-1, 1, 0], [-3, 3, 0], [1, -1, 0]]),
        (CenterBatch(), [[-2, -2, 0], [-1, 3, 0], [3, -1, 0]]),
        (Standardize(), [[-1, 1, 0], [-1, 1, 0], [1, -1, 0]]),
        (NormalScores(), [[1, 3, 0], [2, 8, 0], [6, 4, 0]]),  # those of the previous ex-model are scores already
    ],
)
def test_by_hand(scale, expected):
    assert scale(LOGITS, TWO).tolist() == expected


def test_standardize_divides_by_the_population_deviation():
    row, known = torch.tensor([[0.0, 3.0, 6.0]]), torch.ones(3, dtype=torch.bool)
    torch.testing.assert_close(Standardize()(row, known), torch.tensor([[-3, 0, 3]]) / math.sqrt((9 + 0 + 9) / 3))


def test_each_head_is_normalised_by_itself():
    logits = torch.tensor([[1.0, 3.0, 9.0, 2.0, 4.0]])
    known = torch.tensor([True, True, False, True, True])
    # head 5: mean 2; head 7 over its two known classes: mean 3
    assert Center()(logits, known, HEADS).tolist() == [[-1, 1, 0, -1, 1]]
    spread = torch.tensor([[1.0, 3.0, 9.0, 0.0, 8.0]])
    assert Standardize()(spread, known, HEADS).tolist() == [[-1, 1, 0, -1, 1]]
    assert NoScale()(logits, known, HEADS).tolist() == [[1, 3, 0, 2, 4]]


def test_what_does_not_apply_is_left_out_of_normal_scores():
    scale = NormalScores()
    assert scale.fitted(5, None) == (scale, "")
    for left_out, fitted in (("single expert", scale.fitted(1, None)), ("heads", scale.fitted(5, HEADS.tolist()))):
        assert fitted[0] == Center()
        assert left_out in fitted[1]
    assert scale.score_weights() == ScoreWeights(raw_logits=0.3, familiarity=2)
    for plain in (Center(), NoScale()):
        assert plain.score_weights() is None
        assert plain.fitted(1, HEADS.tolist()) == (plain, "")


def test_standard_scores_are_a_straight_line_unless_there_are_statistics():
    scale = StandardScores()
    assert scale.score_weights() == ScoreWeights(straight=True)
    assert scale.fitted(5, None) == (scale, "")
    strokes = Strokes()
    fitted = StandardScores(reference=strokes).fitted(5, None, statistics=True)
    assert fitted == (StatisticsScale(reference=strokes), "")
    assert scale.fitted(5, HEADS.tolist())[0] == scale.fitted(1, None)[0] == Center()
    reference, logits = torch.tensor([[1.0, 0], [5, 2]]), torch.tensor([[7.0, 1]])
    none = torch.empty(2, 0)
    scores = ExpertScores(scale.score_weights(), reference, none, torch.empty(0))(logits, none[:1])
    assert scores.tolist() == [[2, 0]]


def test_layers_count_as_given_but_for_those_that_say_the_same_of_every_image():
    logits, shares = torch.randn(300, 2), torch.rand(300, 3)
    shares[:, 1] = 0.5
    scores = ExpertScores(ScoreWeights(familiarity=4), logits, shares, torch.tensor([3.0, 5.0, 1.0]))
    first, _, third = (ScoreTable(shares[:, [i]])(shares[:, [i]]) for i in range(3))
    expected = ScoreTable(logits)(logits) + 4 * (3 * first + third) / (3 + 1)
    torch.testing.assert_close(scores(logits, shares), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["raw_logits", "familiarity"])
def test_weights_are_not_negative(name):
    with pytest.raises(ExmlError, match=rf"model.normalize.{name} is -1: give 0 or more"):
        NormalScores(**{name: -1})


def test_reference_images_are_the_same_for_all_experts():
    drawn, again, other = (
        NormalScores(reference=Strokes()).reference_images(FORMAT, seed, torch.device("cpu")) for seed in (7, 7, 8)
    )
    assert drawn.shape == (1000, 1, 8, 8)
    assert drawn.dtype == torch.uint8
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)
    assert NormalScores().reference_images(FORMAT, 7, torch.device("cpu")) is None
