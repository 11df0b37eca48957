import pytest
import torch

from exml_lightning.core.agreement import agreement, by_guessing


def test_the_ex_model_chooses_among_the_classes_of_the_expert():
    """Its likeliest class may be another expert's: then the likelier of these two counts."""
    logits = torch.tensor([[0.0, 9.0, 1.0, 2.0], [3.0, 9.0, 1.0, 2.0], [5.0, 9.0, 8.0, 7.0], [0.0, 9.0, 4.0, 0.0]])
    answers = torch.tensor([3, 2, 2, 3])  # of an expert of 3 and 2, in this order
    assert agreement(logits, answers, [3, 2]) == pytest.approx(2 / 4)  # 3, 3, 2, 2


def test_who_always_says_the_same_agrees_with_the_most_frequent_answer():
    assert by_guessing(torch.tensor([7, 2, 7, 7, 9])) == 3 / 5
