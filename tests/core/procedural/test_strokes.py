import math

import pytest
import torch
from scipy import ndimage

from exml_lightning.core.procedural import Strokes
from exml_lightning.core.rng import keyed_generator

CPU = torch.device("cpu")


def draw(strokes, n=100, shape=(1, 64, 64)):
    return strokes.draw(n, shape, keyed_generator("strokes"), CPU) / 255


def line(controls, width, pressure, size=0.5, pixels=64):
    """Draw one curve by its control points."""
    strokes = Strokes(curves=(1, 1), width=(width, width), size=size)
    curve = torch.tensor(controls).view(1, 1, 4, 2)
    return strokes.ink(curve, torch.tensor([width]), torch.tensor([pressure]), pixels, pixels)[0]


@pytest.mark.parametrize("along", [(0.0, 1.0, 2.0, 3.0), (0.0, 2.9, 2.95, 3.0)])
@pytest.mark.parametrize("width", [0.02, 0.06])
def test_a_straight_curve_is_a_line_of_the_width_asked_for(along, width):
    ink = line([(x, 7.0) for x in along], width, pressure=2.0)
    distance = (torch.arange(64) + 0.5) / 64 - 0.5
    profile = (2 * torch.exp(-(distance**2) / (2 * width**2))).clamp(max=1)
    middle = ink[:, 26:38]  # half a size from the middle there are the ends
    torch.testing.assert_close(middle, profile[:, None].expand_as(middle), atol=0.05, rtol=0)
    # the pen's reach: white to half white
    reach = width * math.sqrt(2 * math.log(4))
    assert (ink[:, 32] > 0.5).sum() == pytest.approx(2 * reach * 64, abs=1.01)


@pytest.mark.parametrize("size", [0.3, 0.6])
def test_a_straight_curve_has_the_length_asked_for(size):
    ink = line([(5.0, 1.0), (5.0, 2.0), (5.0, 2.5), (5.0, 4.0)], 0.03, pressure=0.8, size=size)
    # all of its ink: length x area under the pen's profile
    assert ink.sum() / 64**2 == pytest.approx(size * 0.8 * 0.03 * math.sqrt(2 * math.pi), rel=0.01)
    rows = (torch.arange(64) + 0.5) / 64 - 0.5
    assert (ink.amax(dim=1) > 0.4).sum() / 64 == pytest.approx(size, abs=1.01 / 64)  # half the ink at the ends
    assert (ink.sum(dim=1) @ rows).abs() < 1e-4


def test_an_image_that_is_not_square_is_not_stretched():
    strokes = Strokes(size=0.3)
    square, wide = draw(strokes, 8), draw(strokes, 8, (1, 64, 100))
    torch.testing.assert_close(wide[..., 18:82], square)


@pytest.mark.parametrize("size", [0.4, 0.62])
def test_the_longer_side_is_as_asked_for(size):
    width = 0.02
    ink = draw(Strokes(width=(width, width), size=size), shape=(1, 128, 128))[:, 0] > 0.5
    sides = torch.stack([ink.any(dim=1).sum(dim=1), ink.any(dim=2).sum(dim=1)]).amax(dim=0) / 128
    # a pen of the greatest pressure is half white this far from the curve; it reaches further where lines meet
    reach = width * math.sqrt(2 * math.log(2 * 2.5))
    assert sides.max() < size + 3 * reach
    assert sides.median() == pytest.approx(size + 2 * reach, abs=reach)
    assert sides.min() > size - 2 * reach


def test_there_are_no_gaps_in_thin_lines():
    ink = draw(Strokes(curves=(1, 3), connected=1, width=(0.02, 0.02)), 300, (1, 96, 96))[:, 0]
    assert all(ndimage.label(image > 0.5, torch.ones(3, 3))[1] == 1 for image in ink)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_differ_from_the_ground(channels):
    drawn = draw(Strokes(colour=True), 200, (channels, 48, 48))
    ground = drawn[:, :, 0, 0]
    change = (drawn - ground[:, :, None, None]).abs().amax(dim=(2, 3))
    assert change.min() > 0.29
    assert ground.std(dim=0).min() > 0.25  # uniform: 0.289
    assert (ground < 0.5).float().mean() == pytest.approx(0.5, abs=0.1)
