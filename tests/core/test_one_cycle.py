import pytest
import torch

from exml_lightning.core.one_cycle import one_cycle


def rates(steps, groups):
    optimizer = torch.optim.SGD(groups, lr=0.1)
    schedule, seen = one_cycle(optimizer, steps), []
    for _ in range(steps):
        seen.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return torch.tensor(seen, dtype=torch.float64)


def test_each_group_rises_to_its_own_rate_for_a_quarter_of_the_steps_and_falls_to_0():
    groups = [{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)], "lr": 0.4}]
    step = torch.arange(40, dtype=torch.float64)
    rise, fall = 1 / 25 + (1 - 1 / 25) * step / 9, (39 - step) / 30
    shape = torch.where(step <= 9, rise, fall)
    torch.testing.assert_close(rates(40, groups), shape[:, None] * torch.tensor([0.1, 0.4]), rtol=0, atol=2e-6)


@pytest.mark.parametrize("steps", [1, 2])
def test_too_few_steps_to_rise_are_taken_at_the_peak(steps):
    assert rates(steps, [torch.zeros(1)]).flatten().tolist() == pytest.approx([0.1] * steps)
