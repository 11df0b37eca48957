"""Broken copies of images."""

import torch

from exml_lightning.core.broken_images import break_images


def kind(image: torch.Tensor, broken: torch.Tensor) -> str:
    """Say how an image was broken, by comparing it with each way."""
    for turns in (1, 2, 3):
        if torch.equal(torch.rot90(image, turns, (1, 2)), broken):
            return f"turned {turns}"
    h, w = image.shape[1] // 2, image.shape[2] // 2
    corners = [(0, 0), (0, w), (h, 0), (h, w)]
    before = [image[:, y : y + h, x : x + w] for y, x in corners]
    after = [broken[:, y : y + h, x : x + w] for y, x in corners]
    order = [next(i for i, quarter in enumerate(before) if torch.equal(quarter, place)) for place in after]
    assert sorted(order) == [0, 1, 2, 3]
    return "as it was" if order == [0, 1, 2, 3] else "quarters"


def broken_kinds(shape: tuple[int, int]) -> list[str]:
    images = torch.rand(400, 3, *shape, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    made = break_images(images, torch.Generator().manual_seed(1))
    assert torch.equal(images, before)
    assert torch.equal(made, break_images(images, torch.Generator().manual_seed(1)))
    return [kind(image, broken) for image, broken in zip(images, made, strict=True)]


def test_each_is_broken_in_one_of_four_ways():
    found = broken_kinds((8, 8))
    assert {each: 70 < found.count(each) < 130 for each in set(found)} == dict.fromkeys(
        ("turned 1", "turned 2", "turned 3", "quarters"), True
    )


def test_those_that_are_not_square_are_turned_by_half_or_not_at_all():
    found = broken_kinds((8, 12))
    assert set(found) == {"turned 2", "quarters"}
    assert 150 < found.count("turned 2") < 250


def test_a_row_that_belongs_to_no_quarter_stays():
    images = torch.rand(40, 1, 9, 8, generator=torch.Generator().manual_seed(0))
    made = break_images(images, torch.Generator().manual_seed(1))
    turned = [torch.equal(torch.rot90(a, 2, (1, 2)), b) for a, b in zip(images, made, strict=True)]
    stays = [torch.equal(a[:, 8], b[:, 8]) for a, b in zip(images, made, strict=True)]
    assert all(a != b for a, b in zip(turned, stays, strict=True))
