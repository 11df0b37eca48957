import torch

from exml_lightning.core.averaging import running_mean


def state(values: list[float], seen: int) -> dict[str, torch.Tensor]:
    return {"weight": torch.tensor(values), "num_batches_tracked": torch.tensor(seen)}


def test_three_state_dicts_by_hand():
    mean: dict[str, torch.Tensor] = {}
    for count, new in enumerate([state([1.0, -2.0], 5), state([2.0, 4.0], 9), state([6.0, 1.0], 7)]):
        mean = running_mean(mean, new, count)
    assert mean["weight"].tolist() == [3.0, 1.0]  # (1 + 2 + 6) / 3, (-2 + 4 + 1) / 3
    assert mean["num_batches_tracked"].item() == 7  # of the last


def test_neither_the_mean_nor_the_new_one_is_changed_or_shared():
    first, second = state([1.0], 1), state([3.0], 2)
    mean = running_mean({}, first, 0)
    both = running_mean(mean, second, 1)
    both["weight"].zero_()
    both["num_batches_tracked"].zero_()
    mean["num_batches_tracked"].fill_(9)
    assert [t["weight"].item() for t in (first, second, mean)] == [1.0, 3.0, 1.0]
    assert [t["num_batches_tracked"].item() for t in (first, second)] == [1, 2]
