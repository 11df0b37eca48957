import torch

from exml_lightning.ex_model.growth import grow_weights

OURS = {"body": torch.full((3, 2), 9.0), "head.weight": torch.full((4, 2), 9.0), "head.bias": torch.full((4,), 9.0)}
THEIRS = {"body": torch.zeros(3, 2), "head.weight": torch.ones(2, 2), "head.bias": torch.ones(2)}


def test_new_classes_get_the_rows_of_the_ex_model():
    grown = grow_weights(OURS, THEIRS, ["a", "b"], ["a", "b", "c", "d"])
    assert grown["head.bias"].tolist() == [1, 1, 9, 9]
    assert grown["head.weight"].tolist() == [[1, 1], [1, 1], [9, 9], [9, 9]]
    assert torch.equal(grown["body"], THEIRS["body"])
