import math

import pytest
import torch

from exml_lightning.core.losses import distillation_mse, known_cross_entropy
from exml_lightning.core.targets import Target

LOGITS = torch.tensor([[1.0, 2.0, 5.0], [0.0, 4.0, 5.0]])


def test_mse_is_the_mean_over_samples_and_classes_taking_part():
    mask = torch.tensor([[True, True, False]] * 2)
    target = Target(torch.tensor([[0.0, 4.0, 0.0], [3.0, 4.0, 0.0]]), mask)
    assert distillation_mse(LOGITS, target).item() == pytest.approx((1 + 4 + 9 + 0) / 4)


def test_mse_with_another_mask_for_each_sample():
    mask = torch.tensor([[True, False, False], [True, True, False]])
    target = Target(torch.tensor([[0.0, 0.0, 0.0], [3.0, 4.0, 0.0]]), mask)
    assert distillation_mse(LOGITS, target).item() == pytest.approx((1 + 9 + 0) / 3)


def test_cross_entropy_is_over_the_known_classes():
    known = torch.tensor([True, True, False])
    expected = -(math.log(math.e**1 / (math.e**1 + math.e**2)) + math.log(math.e**4 / (1 + math.e**4))) / 2
    assert known_cross_entropy(LOGITS, torch.tensor([0, 1]), known).item() == pytest.approx(expected, rel=1e-6)


def test_unknown_classes_get_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    known_cross_entropy(logits, torch.tensor([0, 1]), torch.tensor([True, True, False])).backward()
    assert logits.grad is not None
    assert logits.grad[:, 2].tolist() == [0, 0]
