import pytest
import torch

from exml_lightning.core.procedural import DeadLeaves
from exml_lightning.core.rng import keyed_generator


def draw(leaves, n=60, shape=(3, 48, 48)):
    return leaves.draw(n, shape, keyed_generator("leaves"), torch.device("cpu")) / 255


def areas(image):
    """Pixels of each colour of a plain image ``(channels, height, width)``."""
    return image.flatten(1).unique(dim=1, return_counts=True)[1]


def test_plain_leaves_cover_the_image():
    drawn = draw(DeadLeaves(leaves=30, gradient=0, texture=0))
    counts = [areas(image) for image in drawn]
    assert all(1 < len(each) <= 31 for each in counts)
    assert sum(len(each) for each in counts) / len(counts) > 12  # and are not hidden by one
    # flat, not noise: a neighbour has nearly always the same colour
    assert (drawn[..., 1:] == drawn[..., :-1]).all(dim=1).float().mean() > 0.75


def test_one_of_many_leaves_has_the_area_of_the_power_law():
    """Of two leaves before a ground: the pixels that are not ground, by the mean area of a leaf."""
    drawn = draw(DeadLeaves(leaves=2, gradient=0, texture=0), 1500, (1, 32, 32))
    # E[r^2] of a density of r^-3 from 0.08 to 0.6; a polygon fills some of its disc; some lies outside the image
    mean_square = 2 * torch.tensor(0.6 / 0.08).log() / (0.08**-2 - 0.6**-2)
    disc = torch.pi * mean_square
    ground = torch.stack([areas(image).max() for image in drawn]) / 32**2
    covered = 1 - ground.mean()
    assert 2 * disc * 0.5 < covered < 2 * disc


def test_one_channel_is_grey_and_colours_are_faint():
    assert draw(DeadLeaves(), shape=(1, 20, 20)).shape == (60, 1, 20, 20)
    red, green, blue = draw(DeadLeaves(gradient=0, texture=0), 200).transpose(0, 1).flatten(1)
    for one, other in ((red, green), (green, blue)):
        assert 0.6 < torch.corrcoef(torch.stack([one, other]))[0, 1] < 0.95
        assert (one != other).float().mean() > 0.7


@pytest.mark.parametrize(("gradient", "texture"), [(1, 0), (0, 0.2)])
def test_gradient_and_texture(gradient, texture):
    drawn = draw(DeadLeaves(leaves=2, gradient=gradient, texture=texture))
    inside = drawn[:, :, 10:38, 10:38]
    step = inside.diff(dim=3)
    grey = (inside > 0) & (inside < 1)  # not clipped
    kept = grey[..., 1:] & grey[..., :-1]
    changes = step[kept].abs()
    assert (changes > 0).float().mean() > (0.95 if texture else 0.7)  # a slope may be less than a level of 8 bits
    second = step.diff(dim=3)[kept[..., 1:] & kept[..., :-1]].abs()
    if texture:
        assert 0.03 < changes.mean() < 0.2
    else:
        assert (second < 1.5 / 255).float().mean() > 0.85  # linear but for the edges
        assert changes.median() < 1 / 48
