"""`Merge` against the formula, written out with NumPy on small layers in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from exml_lightning.core import merging
from exml_lightning.core.merging import Merge


def network(seed: int, classes: int = 3) -> nn.Sequential:
    torch.manual_seed(seed)
    layers = nn.Conv2d(2, 4, 2, groups=2, bias=False), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, classes)
    made = nn.Sequential(*layers).double()
    for tensor in made.state_dict().values():
        tensor.copy_(torch.randn(tensor.shape) * 3)
    return made


@pytest.fixture(autouse=True)
def own_draws():
    with torch.random.fork_rng(devices=[]):
        yield


def by_hand(rows: list[np.ndarray], initial: np.ndarray | None, diagonal: bool) -> np.ndarray:
    """W = (sum W_i G_i) (sum G_i)^-1 of each group; G_i of mean diagonal 1, a fifth of its off-diagonal, some ridge."""
    groups, _, inputs = rows[0].shape
    weighted, grams = np.zeros_like(rows[0]), np.zeros((groups, inputs, inputs))
    for w in rows:
        d = w if initial is None else w - np.vdot(w, initial) / np.vdot(initial, initial) * initial
        gram = np.einsum("goi,goj->gij", d, d)
        scale = np.mean([gram[g, i, i] for g in range(groups) for i in range(inputs)])
        gram *= np.where(np.eye(inputs) == 1, 1, 0 if diagonal else 0.2)
        gram = gram / scale + 1e-6 * np.eye(inputs)
        weighted, grams = weighted + w @ gram, grams + gram
    return weighted @ np.linalg.inv(grams)


def merged(networks: list[nn.Sequential], initial: nn.Sequential | None) -> nn.Sequential:
    merge = Merge()
    for one in networks:
        merge.add(one, None if initial is None else initial.state_dict())
        merge = Merge(**vars(merge))  # as a checkpoint keeps it
    found = network(0, len(networks[-1][3].bias))
    found.load_state_dict(merge.weights())
    return found


def convolution(one: nn.Sequential) -> np.ndarray:
    return one[0].weight.detach().numpy().reshape(2, 2, 4)


def linear(one: nn.Sequential) -> np.ndarray:
    return np.hstack([one[3].weight.detach().numpy(), one[3].bias.detach().numpy()[:, None]])[None]


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("given", [False, True])
def test_three_networks_by_the_formula(monkeypatch, diagonal, given):
    if diagonal:  # of layers with many inputs
        monkeypatch.setattr(merging, "MAX_INPUTS", 2)
    networks, initial = [network(k) for k in range(3)], network(3) if given else None
    found = merged(networks, initial)
    for rows in (convolution, linear):
        start = None if initial is None else rows(initial)
        expected = by_hand([rows(one) for one in networks], start, diagonal)
        np.testing.assert_allclose(rows(found), expected, rtol=1e-9)
    for name in ("weight", "bias", "running_mean", "running_var"):
        mean = torch.stack([getattr(one[1], name).detach() for one in networks]).mean(dim=0)
        torch.testing.assert_close(getattr(found[1], name).detach(), mean)


def test_one_network_stays_as_it_is_and_none_is_changed():
    one, initial = network(0), network(1)
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    found = merged([one], initial).state_dict()
    for tensor in found.values():
        tensor.add_(1)
    assert all(torch.equal(tensor, one.state_dict()[name]) for name, tensor in before.items())
    assert all(torch.equal(tensor + 1, found[name]) for name, tensor in before.items())


def test_where_inputs_do_not_overlap_each_network_keeps_its_change():
    """What the mean would halve: rows that training moved along the inputs of one task alone."""
    networks = [network(3) for _ in range(3)]
    for one in networks:
        one[3].weight.data.fill_(1)
    changes = torch.zeros(2, 3, 4, dtype=torch.float64)
    changes[0, :, :2] = torch.tensor([5, -5, 0])[:, None]
    changes[1, :, 2:] = torch.tensor([0, 7, -7])[:, None]
    for one, change in zip(networks, changes, strict=False):
        one[3].weight.data += change
    found = merged(networks[:2], networks[2])[3].weight.detach()
    torch.testing.assert_close(found, 1 + changes.sum(dim=0), rtol=1e-4, atol=1e-4)


def test_classes_that_networks_before_did_not_have_are_zeros_in_theirs():
    few, many, wide = network(0), network(1, 5), network(0, 5)
    wide[3].weight.data[:3], wide[3].weight.data[3:] = few[3].weight.data, 0
    wide[3].bias.data[:3], wide[3].bias.data[3:] = few[3].bias.data, 0
    np.testing.assert_allclose(
        linear(merged([few, many], None)), by_hand([linear(wide), linear(many)], None, False), rtol=1e-9
    )
