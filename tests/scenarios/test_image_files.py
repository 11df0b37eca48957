"""Images are opened one frame and a bounded number of pixels at a time."""

import pytest
from PIL import Image

from exml_lightning.scenarios import image_files
from exml_lightning.scenarios.image_files import open_image


def test_an_image_of_the_largest_size_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_PIXELS", 600)
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    with open_image(tmp_path / "a.png") as image:
        assert image.size == (30, 20)
    Image.new("L", (601, 1)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="too large: 601x1 pixels; 600 at most"), open_image(tmp_path / "a.png"):
        pass


def test_the_first_frame_of_several_is_seen(tmp_path):
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with open_image(tmp_path / "a.png") as image:
        assert image.getpixel((0, 0)) == 10
