import math

import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.procedural import Strokes
from exml_lightning.core.scales import Center, CenterBatch, NormalScores, NoScale, Standardize

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


def test_heads_never_compete_so_others_and_familiarity_are_left_out():
    scale = NormalScores(raw_logits=0.3, others=0.1, familiarity=1)
    single, several = scale.score_weights(None), scale.score_weights(HEADS)
    assert (single.raw_logits, single.others, single.familiarity) == (0.3, 0.1, 1)
    assert (several.raw_logits, several.others, several.familiarity) == (0.3, 0, 0)
    assert Center().score_weights(None) is None


@pytest.mark.parametrize("name", ["raw_logits", "others", "familiarity"])
def test_weights_are_not_negative(name):
    with pytest.raises(ExmlError, match=rf"model.normalize.{name} is -1: give 0 or more"):
        NormalScores(**{name: -1})


def test_reference_images_are_the_same_for_all_experts():
    drawn = NormalScores(reference=Strokes()).reference_images(5, FORMAT, 7, torch.device("cpu"))
    again = NormalScores(reference=Strokes()).reference_images(5, FORMAT, 7, torch.device("cpu"))
    other = NormalScores(reference=Strokes()).reference_images(5, FORMAT, 8, torch.device("cpu"))
    assert drawn.shape == (5, 1, 8, 8)
    assert torch.equal(drawn, again)
    assert not torch.equal(drawn, other)
    assert NormalScores().reference_images(5, FORMAT, 7, torch.device("cpu")) is None
