"""What every kind of procedural images does."""

import json

import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.procedural import ColouredNoise, DeadLeaves, Mixture, Strokes
from exml_lightning.core.rng import keyed_generator

CPU = torch.device("cpu")
KINDS = {
    "strokes": Strokes(),
    "coloured strokes": Strokes(curves=(2, 5), connected=0.3, colour=True),
    "dead leaves": DeadLeaves(),
    "coloured noise": ColouredNoise(),
    "mixture": Mixture([Strokes(), Mixture([DeadLeaves(), ColouredNoise()])]),
}
all_kinds = pytest.mark.parametrize("images", KINDS.values(), ids=KINDS.keys())


def draw(images, n=6, shape=(3, 12, 12), key=0):
    return images.draw(n, shape, keyed_generator("images", key), CPU)


@all_kinds
@pytest.mark.parametrize("shape", [(1, 8, 8), (4, 17, 30), (1, 1, 1), (3, 300, 260)])
def test_any_size_and_number_of_channels(images, shape):
    drawn = draw(images, 3, shape)
    assert drawn.shape == (3, *shape)
    assert drawn.dtype == torch.uint8
    if shape[1] > 6:
        assert drawn.float().std() > 0.05 * 255
        assert len(drawn.flatten(1).unique(dim=0)) == 3


@all_kinds
def test_the_generator_decides(images):
    first = draw(images)
    torch.manual_seed(3)
    assert torch.equal(draw(images), first)
    other = draw(images, key=1)
    assert (other != first).flatten(1).any(dim=1).all()
    generator = keyed_generator("images", 0)
    images.draw(6, (3, 12, 12), generator, CPU)
    assert not torch.equal(images.draw(6, (3, 12, 12), generator, CPU), first)


@all_kinds
def test_mixed_precision_around_it_changes_nothing(images):
    with torch.autocast("cpu", torch.bfloat16):
        drawn = draw(images)
    assert torch.equal(drawn, draw(images))


def test_settings_name_the_class_of_each_part():
    where = "exml_lightning.core.procedural"
    settings = Mixture([Strokes(curves=(2, 4), colour=True), DeadLeaves(leaves=9)]).settings()
    strokes = {"curves": [2, 4], "connected": 0.9, "width": [0.02, 0.04], "size": 0.62, "colour": True}
    assert settings == {
        "class": f"{where}.mixture.Mixture",
        "parts": [
            {"class": f"{where}.strokes.Strokes", **strokes},
            {"class": f"{where}.dead_leaves.DeadLeaves", "leaves": 9, "gradient": 0.5, "texture": 0.1},
        ],
    }
    assert json.loads(json.dumps(settings)) == settings


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        (Strokes, {"curves": (0, 3)}),
        (Strokes, {"connected": 1.5}),
        (Strokes, {"width": (float("nan"), 0.1)}),
        (Strokes, {"size": 0}),
        (DeadLeaves, {"leaves": 1}),
        (DeadLeaves, {"gradient": -1}),
        (ColouredNoise, {"exponent": (2, 1)}),
        (ColouredNoise, {"contrast": (-1, 1)}),
        (Mixture, {"parts": []}),
    ],
)
def test_impossible_settings_are_refused(kind, wrong):
    with pytest.raises(ExmlError, match=f"{next(iter(wrong))} is .*: give "):
        kind(**wrong)


def test_a_mixture_has_as_many_of_each_kind():
    flat = {value: ColouredNoise(brightness=(value, value), contrast=(0, 0)) for value in (0.0, 0.5, 1.0)}
    drawn = draw(Mixture(list(flat.values())), 3000, (1, 4, 4))
    values = drawn[:, 0, 0, 0]
    assert torch.equal(drawn, values[:, None, None, None].expand_as(drawn))
    counts = [int((values == round(255 * value)).sum()) for value in flat]
    assert sum(counts) == 3000
    assert all(abs(count - 1000) < 4 * (3000 * 1 / 3 * 2 / 3) ** 0.5 for count in counts)
    assert 500 < (values[1:] != values[:-1]).sum() < 2999  # mixed, not one kind after the other
