import pytest
import torch

from exml_lightning.core.scales import Center, NoScale, StatisticsScale
from exml_lightning.core.targets import Answers, merge_targets

EXPERT = torch.tensor([[4.0, 2.0], [0.0, 6.0]])  # classes 3 and 1
PREVIOUS = torch.tensor([[1.0, 3.0, 9.0, 9.0, 9.0], [2.0, 8.0, 9.0, 9.0, 9.0]])  # knows classes 0 and 1
CLASSES = torch.tensor([3, 1])
KNOWN = torch.tensor([True, True, False, False, False])


NOBODY = torch.zeros(5, dtype=torch.bool)
PREVIOUS_ONLY = [True, True, False, False, False]
UNION, EXPERT_ONLY = [[True, True, False, True, False]] * 2, [[False, True, False, True, False]] * 2


@pytest.mark.parametrize(
    ("options", "logits", "mask"),
    [
        # centred: expert 3: 1, -3; expert 1: -1, 3. previous 0: -1, -3; previous 1: 1, 3. Class 1 is known to both.
        ({}, [[-1, (-1 + 1) / 2, 0, 1, 0], [-3, (3 + 3) / 2, 0, -3, 0]], UNION),
        ({"scale": NoScale()}, [[1, (2 + 3) / 2, 0, 4, 0], [2, (6 + 8) / 2, 0, 0, 0]], UNION),
        # by sample: the first one's label is a class of the previous ex-model, the second's of the expert
        (
            {"merge": "sample"},
            [[-1, 1, 0, 0, 0], [0, 3, 0, -3, 0]],
            [[True, True, False, False, False], EXPERT_ONLY[0]],
        ),
        # a class of both takes the mean
        ({"merge": "sample", "labels": [1, 1]}, [[-1, 0, 0, 1, 0], [-3, 3, 0, -3, 0]], UNION),
        # before the first experience ends the expert is all there is
        ({"known": NOBODY, "labels": [3, 1]}, [[0, -1, 0, 1, 0], [0, 3, 0, -3, 0]], EXPERT_ONLY),
        ({"known": NOBODY, "labels": [3, 1], "merge": "sample"}, [[0, -1, 0, 1, 0], [0, 3, 0, -3, 0]], EXPERT_ONLY),
    ],
)
def test_by_hand(options, logits, mask):
    given = {"known": KNOWN, "labels": [0, 3], "scale": Center(), **options}
    answers = Answers(EXPERT, CLASSES, PREVIOUS, given.pop("known"))
    target = merge_targets(answers, torch.tensor(given.pop("labels")), **given)
    assert target.logits.tolist() == logits
    assert target.mask.tolist() == mask


def test_equal_class_sets_take_the_mean_everywhere():
    known = torch.tensor([True, True])
    expert, previous = torch.tensor([[0.0, 2.0]]), torch.tensor([[6.0, 2.0]])
    target = merge_targets(Answers(expert, torch.tensor([0, 1]), previous, known), torch.tensor([0]), Center())
    assert target.logits.tolist() == [[(-1 + 2) / 2, (1 - 2) / 2]]


HEADS = torch.tensor([5, 5, 7, 7, 7])


def test_with_heads_the_new_one_asks_the_expert_and_the_old_ones_the_previous_ex_model():
    # the previous ex-model's untrained units 2 to 4, and the expert's silence on task 5, must leave no trace
    expert = torch.tensor([[4.0, 2.0, 9.0], [0.0, 6.0, 3.0]])  # classes 3, 2, 4: task 7
    previous = torch.tensor([[1.0, 3.0, 50.0, 60.0, 70.0], [2.0, 8.0, 50.0, 60.0, 70.0]])
    known = torch.tensor([True, True, False, False, False])
    for labels in (torch.tensor([0, 1]), torch.tensor([3, 4])):
        target = merge_targets(Answers(expert, torch.tensor([3, 2, 4]), previous, known), labels, Center(), heads=HEADS)
        assert target.logits.tolist() == [[-1, 1, -3, -1, 4], [-3, 3, 3, -3, 0]]
        assert target.mask.all()


def test_a_class_of_two_takes_the_larger_score_where_none_of_these_competes():
    """An expert that finds an image strange does not say that it is of no class."""
    answers = Answers(
        torch.tensor([[4.0, -9.0]]), torch.tensor([1, 2]), torch.tensor([[0.5, -8.0, -3.0]]), torch.tensor([True] * 3)
    )
    target = merge_targets(answers, torch.zeros(1, dtype=torch.long), StatisticsScale())
    assert target.logits.tolist() == [[0.5, 4.0, -3.0]]
    plain = merge_targets(answers, torch.zeros(1, dtype=torch.long), NoScale())
    assert plain.logits.tolist() == [[0.5, -2.0, -6.0]]
