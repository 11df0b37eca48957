import pytest
import torch

from exml_lightning.core.scales import Center, NoScale
from exml_lightning.core.targets import Answers, add_targets, merge_targets

EXPERT = torch.tensor([[4.0, 2.0], [0.0, 6.0]])  # classes 3 and 1
PREVIOUS = torch.tensor([[1.0, 3.0, 9.0, 9.0, 9.0], [2.0, 8.0, 9.0, 9.0, 9.0]])  # knows classes 0 and 1
CLASSES = torch.tensor([3, 1])
KNOWN = torch.tensor([True, True, False, False, False])
LABELS = torch.tensor([0, 3])


def merge(labels=LABELS, known=KNOWN, scale=Center(), **options):  # noqa: B008
    return merge_targets(Answers(EXPERT, CLASSES, PREVIOUS, known), labels, scale, **options)


def test_unit_by_unit():
    # centred: expert 3: 1, -3; expert 1: -1, 3. previous 0: -1, -3; previous 1: 1, 3. Class 1 is known to both.
    target = merge()
    assert target.logits.tolist() == [[-1, (-1 + 1) / 2, 0, 1, 0], [-3, (3 + 3) / 2, 0, -3, 0]]
    assert target.mask.tolist() == [[True, True, False, True, False]] * 2


def test_without_normalization():
    assert merge(scale=NoScale()).logits.tolist() == [[1, (2 + 3) / 2, 0, 4, 0], [2, (6 + 8) / 2, 0, 0, 0]]


def test_by_sample_the_label_chooses_the_vector():
    # the first sample's label is a class of the previous ex-model, the second's of the expert
    target = merge(merge="sample")
    assert target.logits.tolist() == [[-1, 1, 0, 0, 0], [0, 3, 0, -3, 0]]
    assert target.mask.tolist() == [[True, True, False, False, False], [False, True, False, True, False]]


def test_by_sample_a_class_of_both_takes_the_mean():
    target = merge(torch.tensor([1, 1]), merge="sample")
    assert target.logits.tolist() == [[-1, 0, 0, 1, 0], [-3, 3, 0, -3, 0]]


@pytest.mark.parametrize("how", ["unit", "sample"])
def test_before_the_first_experience_ends_the_expert_is_all_there_is(how):
    target = merge(torch.tensor([3, 1]), torch.zeros(5, dtype=torch.bool), merge=how)
    assert target.logits.tolist() == [[0, -1, 0, 1, 0], [0, 3, 0, -3, 0]]
    assert target.mask.tolist() == [[False, True, False, True, False]] * 2


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


def test_targets_with_the_others_add_up_over_the_stream():
    """Class by class: the score of the expert that knows it, and a part of what each other one says."""
    scores = torch.tensor([[[1.0, 2, -1, 0.5]], [[-3, 0.2, 4, -0.1]]])
    owners = [torch.tensor([0, 3]), torch.tensor([1, 2])]
    target = torch.zeros(1, 4)
    for each, classes in zip(scores, owners, strict=True):
        merged = add_targets(Answers(each, classes, target, torch.ones(4, dtype=torch.bool)), others=0.2)
        assert merged.mask.all()
        target = merged.logits
    expected = [1 + 0.2 * -3, 0.2 * 2 + 0.2, 0.2 * -1 + 4, 0.5 + 0.2 * -0.1]
    torch.testing.assert_close(target, torch.tensor([expected]))
