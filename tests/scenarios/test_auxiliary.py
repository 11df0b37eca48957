import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images
from torchvision.transforms.functional import pil_to_tensor

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.rng import keyed_generator
from exml_lightning.scenarios import FolderImages, Photographs


def opened(source, root=Path(), shape=(3, 8, 8)):
    source.open(root, shape)
    return source


def drawn(source, num_images=1, key="draw"):
    return source.draw(num_images, keyed_generator(key))


def noise(mode: str, size: tuple[int, int], key: str = "pixels") -> Image.Image:
    """A noisy image; its size is width, height."""
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=keyed_generator(key), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy()).convert(mode)


def plain_colours(folder: Path, count: int) -> list[int]:
    """Square images of one grey value each; returns the values, in the order of the files."""
    values = [10 + 7 * k for k in range(count)]
    for k, value in enumerate(values):
        Image.new("L", (9, 9), value).save(folder / f"{k:02}.png")
    return values


def test_a_folder_is_read_at_any_depth_in_any_format(tmp_path):
    (tmp_path / "cats" / "tabby").mkdir(parents=True)
    (tmp_path / "dogs.png").mkdir()  # a folder, whatever its name
    noise("RGB", (40, 30)).save(tmp_path / "b.JPEG")
    noise("L", (17, 9)).save(tmp_path / "a.png")
    noise("P", (5, 31)).save(tmp_path / "cats" / "palette.png")
    noise("RGBA", (1, 1)).save(tmp_path / "cats" / "tabby" / "one_pixel.webp")
    noise("1", (12, 12)).save(tmp_path / "dogs.png" / "two_values.bmp")
    noise("CMYK", (12, 12)).save(tmp_path / "dogs.png" / "print.tiff")
    (tmp_path / "labels.txt").write_text("no image")
    for channels in (1, 3):
        source = opened(FolderImages(str(tmp_path)), shape=(channels, 8, 6))
        assert (len(source), drawn(source, 20).shape) == (6, (20, channels, 8, 6))


def test_crops_are_square_within_the_image_and_of_all_sizes_and_places(tmp_path):
    y, x = torch.meshgrid(torch.arange(120), torch.arange(240), indexing="ij")
    pixels = torch.stack([x, y, torch.zeros_like(x)], dim=-1).to(torch.uint8)  # a pixel's colour is its place
    Image.fromarray(pixels.numpy()).save(tmp_path / "places.png")
    crops = drawn(opened(FolderImages(str(tmp_path), min_crop=0.25), shape=(3, 24, 24)), 2000).float()
    across, down = crops[:, 0, 0], crops[:, 1, :, 0]
    # the first and the last of 24 pixels show places 23/24 of a side apart
    sides = (across[:, -1] - across[:, 0]) * 24 / 23
    assert ((sides - (down[:, -1] - down[:, 0]) * 24 / 23).abs() < 2).all()
    assert 29 < sides.min() < 33
    assert 117 < sides.max() < 122
    assert abs(sides.mean() - 75) < 3
    for middle, length in ((across.mean(dim=1), 240), (down.mean(dim=1), 120)):
        assert 14 <= middle.min() < 25
        assert length - 25 < middle.max() <= length - 15
        assert abs(middle.mean() - length / 2) < 3


def test_draws_depend_on_the_generator_alone(tmp_path):
    for k in range(5):
        noise("RGB", (30, 20), str(k)).save(tmp_path / f"{k}.png")
    source, state = opened(FolderImages(str(tmp_path))), torch.random.get_rng_state()
    crops = drawn(source, 12)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(crops, drawn(opened(FolderImages(str(tmp_path))), 12))
    assert not torch.equal(crops, drawn(source, 12, "others"))
    assert len({crop.numpy().tobytes() for crop in crops}) == 12  # an image that comes again gives another crop


@pytest.mark.parametrize(
    ("image", "grey", "rgb"),
    [
        (Image.new("RGB", (9, 9), (200, 100, 50)), 124.2, (200, 100, 50)),  # 0.299 R + 0.587 G + 0.114 B
        (Image.new("L", (9, 9), 77), 77, (77, 77, 77)),
        (Image.new("1", (9, 9), 1), 255, (255, 255, 255)),
        (Image.new("RGBA", (9, 9), (200, 100, 50, 20)), 124.2, (200, 100, 50)),
        (Image.new("LA", (9, 9), (77, 20)), 77, (77, 77, 77)),
        (Image.new("RGB", (9, 9), (200, 100, 50)).quantize(2), 124.2, (200, 100, 50)),
        (Image.new("I;16", (9, 9), 0x8000), 128, (128, 128, 128)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else "",
)
def test_values_of_grey_and_rgb(tmp_path, image, grey, rgb):
    image.save(tmp_path / "image.png")
    source = FolderImages(str(tmp_path))
    assert (drawn(opened(source, shape=(1, 8, 8))) - grey).abs().max() < 1
    assert torch.equal(drawn(opened(source))[0], torch.tensor(rgb, dtype=torch.uint8)[:, None, None].expand(3, 8, 8))


def test_a_jpeg_looks_as_if_decoded_in_full(tmp_path):
    image = noise("RGB", (12, 12)).resize((1200, 1200), Image.Resampling.BICUBIC)
    image.save(tmp_path / "image.jpg", quality=95)
    with Image.open(tmp_path / "image.jpg") as image:
        expected = pil_to_tensor(image.resize((32, 32), Image.Resampling.BILINEAR))
    crop = drawn(opened(FolderImages(str(tmp_path), min_crop=1), shape=(3, 32, 32)))[0]
    assert (crop.int() - expected.int()).abs().max() <= 8


def test_broken_files_are_named_and_left_out(tmp_path, caplog):
    values = plain_colours(tmp_path, 4)
    noise("RGB", (30, 30)).save(tmp_path / "00_cut.png")
    os.truncate(tmp_path / "00_cut.png", 300)
    (tmp_path / "01_text.jpg").write_text("no image")
    (tmp_path / "empty.png").touch()
    Image.new("F", (5, 5)).save(tmp_path / "unknown_range.tiff")
    source = opened(FolderImages(str(tmp_path)), shape=(1, 8, 8))
    assert not caplog.messages
    images = drawn(source, 20)
    for name in ("00_cut.png", "01_text.jpg", "empty.png", "unknown_range.tiff"):
        assert len([m for m in caplog.messages if f"{tmp_path}/{name} cannot be read" in m]) == 1
    assert len(caplog.messages) == 4
    rounds = [tuple(order) for order in images[:, 0, 0, 0].view(5, 4).tolist()]
    assert all(sorted(order) == values for order in rounds)  # each whole one once, before any comes again
    assert len(set(rounds)) > 1
    assert torch.equal(images, drawn(source, 20))
    assert torch.equal(images, drawn(opened(FolderImages(str(tmp_path)), shape=(1, 8, 8)), 20))


def test_a_folder_without_an_image_that_can_be_read_is_refused(tmp_path, caplog):
    plain_colours(tmp_path, 3)
    source = opened(FolderImages(str(tmp_path)))
    for path in tmp_path.iterdir():
        path.write_text("no image")
    with pytest.raises(ExmlError, match="no image left that can be read"):
        drawn(source, 7)
    caplog.clear()
    with pytest.raises(ExmlError, match=rf"no image of .*{tmp_path}.*can be read; the first.*00\.png cannot be read"):
        opened(FolderImages(str(tmp_path)))
    assert not caplog.messages


def test_a_missing_or_empty_folder_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "readme.txt").write_text("no image")
    with pytest.raises(ExmlError, match=r"data/photos is not a folder, photos has no images: .*JPEG, PNG.*folder DIR"):
        opened(FolderImages("photos"), Path("data"))
    for place, value in (("data/photos", 50), ("photos", 100)):  # in the data root first
        Path(place).mkdir(parents=True, exist_ok=True)
        Image.new("L", (9, 9), value).save(tmp_path / place / "image.png")
    assert drawn(opened(FolderImages("photos"), Path("data"))).unique().tolist() == [50]
    assert drawn(opened(FolderImages("photos"), Path("elsewhere"))).unique().tolist() == [100]


@pytest.mark.parametrize("min_crop", [0, 1.01, float("nan")])
def test_a_crop_is_a_fraction_of_a_grey_or_rgb_image(min_crop):
    with pytest.raises(ExmlError, match=r"data\.auxiliary: min_crop is"):
        FolderImages("photos", min_crop)
    with pytest.raises(ExmlError, match=r"data\.auxiliary: the experts take 4 channels"):
        opened(Photographs(), shape=(4, 8, 8))


def test_the_first_crop_comes_from_where_it_was_drawn():
    crop = drawn(opened(Photographs(), shape=(3, 32, 32)), 1)[0]
    generator = keyed_generator("draw")
    which = torch.randperm(2, generator=generator)[0]
    scale, down, right = torch.rand(3, generator=generator).tolist()
    source = load_sample_images().images[which]
    side = round((0.1 + 0.9 * scale) * 427)
    top, left = int(down * (427 - side + 1)), int(right * (640 - side + 1))
    image = Image.fromarray(source[top : top + side, left : left + side])
    expected = pil_to_tensor(image.resize((32, 32), Image.Resampling.BILINEAR))
    assert (crop.int() - expected.int()).abs().max() <= 1
