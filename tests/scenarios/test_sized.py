import hashlib

import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.scenarios import Folder
from exml_lightning.scenarios.sized import set_aside


def test_the_size_is_one_number_or_height_and_width():
    assert Folder(size=48).image_format == ImageFormat((3, 48, 48), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert Folder(size=[32, 64], channels=1).image_format == ImageFormat((1, 32, 64), (0.449,), (0.226,))
    assert Folder(channels=1, mean=[0.1], std=[0.3]).image_format == ImageFormat((1, 64, 64), (0.1,), (0.3,))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, r"dataset\.size is 0: give one number, or height and width"),
        ({"size": [1, 2, 3]}, r"dataset\.size is \[1, 2, 3\]"),
        ({"channels": 4}, r"dataset\.channels is 4: give 3 \(RGB\) or 1 \(grey\)"),
        ({"mean": [0.5]}, r"dataset: input mean \[0\.5\].*one value a channel \(3\)"),
        ({"std": [0.5, 0.5, 0.0]}, r"dataset: input std .* must be positive"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ExmlError, match=message):
        Folder(**options)


def test_a_fifth_of_each_class_is_set_aside_by_the_hash_of_its_name():
    names = [f"{label}/{k}.png" for label in ("ant", "bee") for k in range(10)] + ["cat/a.png", "cat/b.png"]
    labels = torch.tensor([0] * 10 + [1] * 10 + [2] * 2)

    def place(name):  # as `derive_seed` says it hashes a key
        return int.from_bytes(hashlib.sha256(repr(("test", name)).encode()).digest()[:8], "big") >> 1

    expected = {*sorted(names[:10], key=place)[:2], *sorted(names[10:20], key=place)[:2], min(names[20:], key=place)}
    chosen = set_aside(labels, names)
    assert {name for name, test in zip(names, chosen.tolist(), strict=True) if test} == expected


def test_an_image_that_comes_moves_one_other_at_most():
    names = [f"{k}.png" for k in range(40)]
    before: set[str] = set()
    for count in range(2, 40):
        chosen = set_aside(torch.zeros(count, dtype=torch.long), names[:count]).tolist()
        now = {name for name, test in zip(names, chosen, strict=False) if test}
        assert len((before ^ now) - {names[count - 1]}) <= 1
        assert len(now) == max(1, round(count / 5))
        before = now


def test_a_class_of_one_image_cannot_be_divided():
    with pytest.raises(ExmlError, match=r"bee/1\.png is the only image of its class"):
        set_aside(torch.tensor([0, 0, 1]), ["ant/1.png", "ant/2.png", "bee/1.png"])
