from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_sample_images

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.rng import keyed_generator
from exml_lightning.scenarios import DatasetImages, Digits, Photographs


@pytest.mark.parametrize("channels", [1, 3])
def test_crops_of_the_photographs(channels):
    photographs = Photographs()
    photographs.open(Path(), (channels, 32, 32), 40)
    crops = photographs.draw(40, keyed_generator("crops"))
    assert crops.shape == (40, channels, 32, 32)
    assert crops.dtype == torch.uint8
    assert torch.equal(crops, photographs.draw(40, keyed_generator("crops")))
    assert not torch.equal(crops, photographs.draw(40, keyed_generator("others")))
    assert len({crop.numpy().tobytes() for crop in crops}) == 40


def test_the_first_crop_comes_from_where_it_was_drawn():
    photographs = Photographs()
    photographs.open(Path(), (3, 32, 32), 1)
    crop = photographs.draw(1, keyed_generator("one"))[0]
    which, scale, down, right = torch.rand(1, 4, generator=keyed_generator("one"))[0].tolist()
    source = load_sample_images().images[int(which * 2)]
    side = round((0.1 + 0.9 * scale) * 427)
    top, left = int(down * (427 - side + 1)), int(right * (640 - side + 1))
    expected = torch.from_numpy(source[top : top + side, left : left + side].copy()).float().mean(dim=(0, 1))
    assert (crop.float().mean(dim=(1, 2)) - expected).abs().max() < 3


def test_images_of_a_data_set_are_drawn_without_replacement():
    source = DatasetImages(Digits())
    source.open(Path(), (1, 32, 32), 1347)
    images = source.draw(1347, keyed_generator("all"))
    expected = Digits().load(Path(), train=True).images
    assert sorted(i.numpy().tobytes() for i in images) == sorted(i.numpy().tobytes() for i in expected)
    with pytest.raises(ExmlError, match="1348 images are asked for"):
        source.open(Path(), (1, 32, 32), 1348)


def test_images_of_another_shape_are_refused_before_work_starts():
    with pytest.raises(ExmlError, match=r"data\.auxiliary.*\[3, 64, 64\]"):
        DatasetImages(Digits()).open(Path(), (3, 64, 64), 5)
