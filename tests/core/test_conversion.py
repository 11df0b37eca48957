import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as transforms

from exml_lightning.core.conversion import InputConversion
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.rng import keyed_generator

GREY = ImageFormat((1, 4, 4), (0.5,), (0.25,))
RGB = ImageFormat((3, 4, 4), (0.1, 0.2, 0.3), (0.5, 0.4, 0.2))


def test_the_normalisation_is_exchanged():
    other = ImageFormat((3, 4, 4), (0.0, 0.5, 1.0), (1.0, 2.0, 4.0))
    pixels = torch.rand(2, 3, 4, 4, generator=keyed_generator("pixels"))
    torch.testing.assert_close(InputConversion(RGB, other)(RGB.normalize(pixels)), other.normalize(pixels))


def test_rgb_becomes_grey_by_luma():
    pixels = torch.rand(1, 3, 4, 4, generator=keyed_generator("pixels"))
    red, green, blue = pixels[0]
    grey = InputConversion(RGB, GREY)(RGB.normalize(pixels))
    torch.testing.assert_close(grey[0, 0], (0.299 * red + 0.587 * green + 0.114 * blue - 0.5) / 0.25)


def test_grey_becomes_three_equal_channels():
    pixels = torch.rand(1, 1, 4, 4, generator=keyed_generator("pixels"))
    rgb = InputConversion(GREY, RGB)(GREY.normalize(pixels))
    for channel, mean, std in ((0, 0.1, 0.5), (1, 0.2, 0.4), (2, 0.3, 0.2)):
        torch.testing.assert_close(rgb[0, channel], (pixels[0, 0] - mean) / std)


def test_sizes_are_changed_as_a_picture_is():
    small = ImageFormat((1, 8, 8), (0.0,), (1.0,))
    large = ImageFormat((1, 32, 32), (0.0,), (1.0,))
    pixels = (torch.rand(1, 1, 32, 32, generator=keyed_generator("pixels")) * 255).round().to(torch.uint8)
    picture = transforms.to_pil_image(pixels[0]).resize((8, 8), Image.Resampling.BILINEAR)  # PIL always antialiases
    expected = transforms.pil_to_tensor(picture).float() / 255
    ours = InputConversion(large, small)(pixels.float() / 255)
    torch.testing.assert_close(ours[0], expected, atol=1 / 255, rtol=0)
    assert InputConversion(small, large)(ours).shape == (1, 1, 32, 32)


def test_gradients_reach_every_pixel_even_at_the_limits_of_real_ones():
    large = ImageFormat((3, 7, 9), (0.1, 0.2, 0.3), (0.5, 0.4, 0.2))
    images = GREY.normalize(torch.tensor([0.0, 1.0]).repeat(8).view(1, 1, 4, 4)).requires_grad_()
    InputConversion(GREY, large)(images).sum().backward()
    assert images.grad is not None
    assert images.grad.min() > 0


def test_other_channels_are_refused():
    with pytest.raises(ExmlError, match=r"2 channels .* 3"):
        InputConversion(ImageFormat((2, 4, 4), (0.0, 0.0), (1.0, 1.0)), RGB)
    with pytest.raises(ExmlError, match=r"3 channels .* 2"):
        InputConversion(RGB, ImageFormat((2, 4, 4), (0.0, 0.0), (1.0, 1.0)))
