import pytest
import torch

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat

FORMAT = ImageFormat((2, 1, 1), (0.5, 0.25), (0.5, 0.25))


def test_normalize_pixels_and_back():
    pixels = torch.tensor([[[[0]], [[255]]], [[[51]], [[102]]]], dtype=torch.uint8)
    expected = torch.tensor([[(0 - 0.5) / 0.5, (1 - 0.25) / 0.25], [(0.2 - 0.5) / 0.5, (0.4 - 0.25) / 0.25]])
    images = FORMAT.normalize(pixels)
    torch.testing.assert_close(images.flatten(1), expected)
    torch.testing.assert_close(FORMAT.denormalize(images), pixels / 255)


@pytest.mark.parametrize(
    ("shape", "mean", "std"),
    [
        ((1, 0, 4), (0.1,), (0.1,)),
        ((3, 4, 4), (0.1,), (0.1,)),
        ((1, 4, 4), (0.1,), (0.0,)),
        ((1, 4, 4), (0.1,), (float("nan"),)),
    ],
)
def test_impossible_formats_are_refused(shape, mean, std):
    with pytest.raises(ExmlError, match="input"):
        ImageFormat(shape, mean, std)
