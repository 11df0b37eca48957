import math

import pytest
import torch

from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.rng import keyed_generator


def blob(height: int, width: int, y: float, x: float) -> torch.Tensor:
    rows, columns = torch.arange(height).view(-1, 1), torch.arange(width).view(1, -1)
    return torch.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 4)


def centre(image: torch.Tensor) -> tuple[float, float]:
    rows, columns = torch.arange(image.shape[0]).view(-1, 1), torch.arange(image.shape[1]).view(1, -1)
    return float((image * rows).sum() / image.sum()), float((image * columns).sum() / image.sum())


def test_nothing_asked_nothing_done():
    images = torch.rand(3, 1, 4, 4)
    assert Augmentation()(images, keyed_generator()) is images


def test_shift_moves_each_image_by_its_own_draw():
    image = blob(24, 32, 11.5, 15.5)
    moved = Augmentation(shift=0.1)(image.expand(6, 1, 24, 32).contiguous(), keyed_generator("shift"))
    draws = torch.rand(6, 4, generator=keyed_generator("shift"))
    for result, draw in zip(moved, draws, strict=True):
        # sampling from further right moves the content left: by the drawn share of the width
        right, down = round(float(2 * draw[2] - 1) * 0.1 * 32), round(float(2 * draw[3] - 1) * 0.1 * 24)
        y, x = centre(result[0])
        assert x == pytest.approx(15.5 - right, abs=0.05)
        assert y == pytest.approx(11.5 - down, abs=0.05)


def test_without_rotation_images_stay_sharp():
    images = torch.rand(50, 3, 32, 24, generator=torch.Generator().manual_seed(0))
    moved = Augmentation(shift=0.2, flip=True)(images, keyed_generator("shift"))
    inside = moved[:, :, 8:24, 8:16]
    away = [(there[..., None] - image.flatten()).abs().amin(-1) for there, image in zip(inside, images, strict=True)]
    assert torch.stack(away).max() < 1e-4  # each is a pixel of the original


@pytest.mark.parametrize(("height", "width"), [(33, 33), (33, 49)])
def test_rotation_is_rigid_in_pixels(height, width):
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    image = blob(height, width, middle_y, middle_x + 8)
    turned = Augmentation(rotation=40)(image.expand(5, 1, height, width).contiguous(), keyed_generator("turn"))
    draws = torch.rand(5, 4, generator=keyed_generator("turn"))
    for result, draw in zip(turned, draws, strict=True):
        angle = float(2 * draw[0] - 1) * math.radians(40)
        y, x = centre(result[0])
        assert math.hypot(y - middle_y, x - middle_x) == pytest.approx(8, abs=0.1)
        assert math.atan2(y - middle_y, x - middle_x) == pytest.approx(-angle, abs=0.02)


def test_flip_mirrors_about_half_of_the_images():
    image = torch.arange(16.0).view(1, 1, 4, 4)
    flipped = Augmentation(flip=True)(image.expand(400, 1, 4, 4).contiguous(), keyed_generator("flip"))
    same = (flipped - image).abs().amax(dim=(1, 2, 3)) < 1e-4
    mirrored = (flipped - image.flip(3)).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert bool((same ^ mirrored).all())
    assert 150 < int(mirrored.sum()) < 250


def test_gradients_flow_to_the_images():
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    augment = Augmentation(shift=0.1, rotation=20, flip=True)
    assert torch.autograd.gradcheck(lambda x: augment(x, keyed_generator("g")), [images])


@pytest.mark.parametrize("wrong", [{"shift": -0.1}, {"shift": 2}, {"rotation": 181}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ExmlError, match=next(iter(wrong))):
        Augmentation(**wrong)
