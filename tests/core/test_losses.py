import math

import pytest
import torch

from exml_lightning.core.losses import distillation_kl, distillation_mse, known_cross_entropy
from exml_lightning.core.targets import Target

LOGITS = torch.tensor([[1.0, 2.0, 5.0], [0.0, 4.0, 5.0]])
TWO = [True, True, False]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [([TWO, TWO], (1 + 4 + 9 + 0) / 4), ([[True, False, False], TWO], (1 + 9 + 0) / 3)],
    ids=["one mask", "another for each sample"],
)
def test_mse_is_the_mean_over_samples_and_classes_taking_part(mask, expected):
    target = Target(torch.tensor([[0.0, 4.0, 0.0], [3.0, 4.0, 0.0]]), torch.tensor(mask))
    assert distillation_mse(LOGITS, target).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("classes", "labels", "expected"),
    [
        (TWO, [0, 1], (math.log(math.e + math.e**2) - 1 + math.log(1 + math.e**4) - 4) / 2),
        (
            [TWO, [False, True, True]],
            [0, 2],
            (math.log(math.e + math.e**2) - 1 + math.log(math.e**4 + math.e**5) - 5) / 2,
        ),
    ],
    ids=["known classes", "a head for each sample"],
)
def test_cross_entropy_is_over_the_classes_that_take_part(classes, labels, expected):
    loss = known_cross_entropy(LOGITS, torch.tensor(labels), torch.tensor(classes))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def softmax(values):
    return [math.exp(v) / sum(math.exp(w) for w in values) for v in values]


def kl(wanted, given):
    """Of one sample, with a temperature of 2."""
    q, p = softmax([v / 2 for v in wanted]), softmax([v / 2 for v in given])
    return sum(a * math.log(a / b) for a, b in zip(q, p, strict=True)) * 2**2


def test_kl_by_hand_over_the_classes_taking_part():
    mask = torch.tensor([TWO, [True, True, True]])
    target = Target(torch.tensor([[0.0, 4.0, 0.0], [3.0, 4.0, 1.0]]), mask)
    expected = (kl([0, 4], [1, 2]) + kl([3, 4, 1], [0, 4, 5])) / 2
    assert distillation_kl(LOGITS, target, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_kl_with_heads_is_the_mean_over_the_heads_that_take_part():
    logits = torch.tensor([[1.0, 2.0, 5.0, 3.0, 9.0]])
    target = Target(torch.tensor([[0.0, 4.0, 3.0, 1.0, 0.0]]), torch.tensor([[True, True, True, True, False]]))
    heads = [torch.tensor([0, 0, 1, 1, 2]) == task for task in range(3)]
    expected = (kl([0, 4], [1, 2]) + kl([3, 1], [5, 3])) / 2
    assert distillation_kl(logits, target, 2.0, heads).item() == pytest.approx(expected, rel=1e-5)


def test_kl_of_equal_probabilities_is_zero_and_classes_left_out_get_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    mask = torch.tensor([[True, True, False]] * 2)
    loss = distillation_kl(logits, Target((LOGITS + 7) * mask, mask), 0.1)
    assert loss.item() == pytest.approx(0, abs=1e-3)
    distillation_kl(logits, Target(torch.zeros(2, 3), mask), 0.1).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert logits.grad[:, 2].tolist() == [0, 0]
    assert logits.grad[:, :2].abs().min() > 0


def test_cross_entropy_of_samples_without_a_label_is_nothing():
    logits, labels = torch.randn(5, 3), torch.tensor([2, -1, 0, -1, 1])
    logits.requires_grad_()
    found = known_cross_entropy(logits, labels, torch.ones(3, dtype=torch.bool))
    each = -logits.log_softmax(dim=1)
    torch.testing.assert_close(found, (each[0, 2] + each[2, 0] + each[4, 1]) / 5)
    (gradient,) = torch.autograd.grad(found, logits)
    assert not gradient[[1, 3]].any()
    assert float(known_cross_entropy(logits, torch.full((5,), -1), torch.ones(3, dtype=torch.bool))) == 0
