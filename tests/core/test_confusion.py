import torch

from exml_lightning.core.confusion import Confusion, accuracy_on, grown

NO = -torch.inf


def test_images_are_counted_by_their_class_and_by_what_they_were_taken_for():
    confusion = Confusion(3)
    confusion.update(torch.tensor([[2.0, 1.0, NO], [0.0, 3.0, NO], [NO, NO, NO]]), torch.tensor([0, 0, 2]))
    confusion.update(torch.tensor([[0.0, 0.0, 5.0], [4.0, 0.0, 5.0]]), torch.tensor([2, 0]))
    counts = confusion.read()
    assert counts.tolist() == [[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 1, 1]]
    assert [accuracy_on(counts, classes) for classes in ([0], [1], [2], [0, 2])] == [1 / 3, 0, 1 / 2, 2 / 5]
    assert not confusion.read().any()


def test_counts_grow_by_a_class_of_which_nothing_was_counted():
    assert grown(torch.tensor([[3, 1, 2], [0, 4, 5]]), 3).tolist() == [[3, 1, 0, 2], [0, 4, 0, 5], [0, 0, 0, 0]]
