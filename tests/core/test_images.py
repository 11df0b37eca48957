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
    assert torch.equal(FORMAT.to_pixels(images), pixels)


def test_images_as_a_buffer_holds_them_are_taken_by_their_type():
    pixels = torch.tensor([[[[0]], [[255]]]], dtype=torch.uint8)
    images = FORMAT.normalize(pixels)
    assert FORMAT.to_pixels(pixels) is pixels
    assert torch.equal(FORMAT.to_input(pixels), images)
    assert FORMAT.to_input(images) is images
    assert FORMAT.to_pixels(images + 1).flatten().tolist() == [128, 255]  # of 0 + 1 * 0.5, and of what is too bright


def test_large_images_come_in_smaller_chunks():
    sizes = {16: 512, 32: 128, 64: 32, 96: 16, 224: 16}
    assert {size: ImageFormat((3, size, size), (0.5,) * 3, (0.5,) * 3).chunk for size in sizes} == sizes


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
