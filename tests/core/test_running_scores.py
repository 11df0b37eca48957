import torch

from exml_lightning.core.running_scores import RunningScores

NO = -torch.inf


def test_the_mean_is_over_those_who_answered_and_the_stream_may_grow():
    scores = RunningScores("mean")
    scores.add(torch.tensor([[1.0, NO], [3.0, 2.0]]))
    scores.add(torch.tensor([[2.0, NO, 6.0], [NO, 4.0, NO]]))
    assert scores.scores().tolist() == [[1.5, NO, 6.0], [3.0, 3.0, NO]]


def test_the_greatest_answer_counts():
    scores = RunningScores("max")
    scores.add(torch.tensor([[-1.0, NO]]))
    scores.add(torch.tensor([[-2.0, -3.0, NO]]))
    assert scores.scores().tolist() == [[-1.0, -3.0, NO]]
