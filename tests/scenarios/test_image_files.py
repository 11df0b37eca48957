"""Images are found by what can be read, opened one frame and a bounded number of pixels at a time, and upright."""

import os
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from exml_lightning.core.rng import keyed_generator
from exml_lightning.scenarios import FolderImages, image_files
from exml_lightning.scenarios.decoded import decode_images
from exml_lightning.scenarios.image_files import find_images, image_pixels, open_image, read_image
from exml_lightning.scenarios.labelled_folder import read_labelled

ORIENTATION = 0x0112
UPRIGHT = torch.arange(24, dtype=torch.uint8).view(4, 6) * 10
"""A grey image of 6x4, every pixel another."""
STORED = {
    1: UPRIGHT,
    2: UPRIGHT.flip(1),
    3: UPRIGHT.flip(0, 1),
    4: UPRIGHT.flip(0),
    5: UPRIGHT.T,
    6: UPRIGHT.rot90(1),  # shown by a quarter turn clockwise, so stored by one to the left
    7: UPRIGHT.T.flip(0, 1),
    8: UPRIGHT.rot90(-1),
}
"""How a camera stores it, by the orientation that it writes beside (EXIF 2.3, 0x0112)."""


def exif_of(orientation: object) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def as_image(pixels: torch.Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.numpy()))


def pixels_of(path) -> torch.Tensor:
    with open_image(path) as image:
        return image_pixels(image)


def names(folder) -> list[str]:
    return [os.path.relpath(file, folder) for file in find_images(folder)[0]]


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


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(
    ("suffix", "options"),
    [("png", {}), ("webp", {"lossless": True}), ("tiff", {}), ("tif", {"compression": "tiff_lzw"})],
)
def test_an_image_is_turned_as_its_camera_was(tmp_path, suffix, options, orientation):
    as_image(STORED[orientation]).save(tmp_path / f"a.{suffix}", exif=exif_of(orientation), **options)
    assert torch.equal(pixels_of(tmp_path / f"a.{suffix}")[0], UPRIGHT)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_wherever_images_are_read_they_are_upright(tmp_path, orientation):
    """A JPEG of four grey areas, of which no two are equal: which is where survives its compression."""
    areas = torch.tensor([[20, 90], [160, 230]], dtype=torch.uint8).repeat_interleave(32, 0).repeat_interleave(32, 1)
    turned = {3: areas.flip(0, 1), 6: areas.rot90(1), 8: areas.rot90(-1)}[orientation]
    (tmp_path / "cat").mkdir()
    file = tmp_path / "cat" / "a.jpg"
    as_image(turned).save(file, quality=95, exif=exif_of(orientation))
    labelled = read_labelled(tmp_path, ["cat"], (1, 64, 64)).images[0]
    photographs = FolderImages(str(tmp_path), min_crop=1)
    photographs.open(tmp_path, (1, 64, 64))
    small = FolderImages(str(tmp_path), min_crop=1)  # decoded at a quarter of its size
    small.open(tmp_path, (1, 8, 8))
    read = [
        read_image(str(file), (1, 64, 64)),
        labelled,
        photographs.draw(1, keyed_generator("a"))[0],
        small.draw(1, keyed_generator("a"))[0].repeat_interleave(8, 1).repeat_interleave(8, 2),
        decode_images([file], (3, 64, 64), tmp_path / "cache.safetensors")[0, 1:2],
    ]
    for pixels in read:
        corners = pixels[0, [8, 8, 56, 56], [8, 56, 8, 56]].int()
        assert (corners - torch.tensor([20, 90, 160, 230])).abs().max() <= 3


def test_a_cache_from_before_images_were_turned_is_not_taken(tmp_path, monkeypatch):
    as_image(STORED[3]).save(tmp_path / "a.png", exif=exif_of(3))
    cache = tmp_path / "c.safetensors"
    decode_images([tmp_path / "a.png"], (3, 4, 6), cache)
    now = cache.read_bytes()
    monkeypatch.setattr("exml_lightning.scenarios.decoded.VERSION", 1)
    decode_images([tmp_path / "a.png"], (3, 4, 6), cache)
    assert cache.read_bytes() != now


def raw_exif(kind: int, count: int, value: bytes, entries: int = 1) -> bytes:
    """EXIF data with an orientation: the type, the number and the bytes of its values, and how many entries it says."""
    entry = struct.pack(">HHI4s", ORIENTATION, kind, count, value)
    return b"Exif\0\0MM\0*" + struct.pack(">IH", 8, entries) + entry + bytes(4)


SHORT, TEXT, RATIONAL = 3, 2, 5
BROKEN = {
    "cut": raw_exif(SHORT, 1, b"\0\6")[:20],
    "no TIFF": b"Exif\0\0" + b"x" * 40,
    "an offset beyond its end": b"Exif\0\0MM\0*\x7f\xff\xff\xff",
    "values beyond its end": raw_exif(RATIONAL, 2**31, b"\x7f\xff\xff\xff"),
    "an orientation of 99": raw_exif(SHORT, 1, b"\0\x63"),
    "words for the orientation": raw_exif(TEXT, 4, b"up\xff\0"),
    "nothing": b"Exif\0\0",
}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_exif_costs_no_image(tmp_path, suffix, name):
    options = {"quality": 95} if suffix == "jpg" else {"lossless": True} if suffix == "webp" else {}
    for file, exif in (("plain", b""), ("broken", BROKEN[name])):
        as_image(UPRIGHT).save(tmp_path / f"{file}.{suffix}", exif=exif, **options)
    assert torch.equal(pixels_of(tmp_path / f"broken.{suffix}"), pixels_of(tmp_path / f"plain.{suffix}"))


def test_an_orientation_before_the_damage_is_followed(tmp_path):
    as_image(STORED[6]).save(tmp_path / "a.png", exif=raw_exif(SHORT, 1, b"\0\6", entries=500))
    assert torch.equal(pixels_of(tmp_path / "a.png")[0], UPRIGHT)


def test_of_broken_exif_nothing_is_printed(tmp_path):
    as_image(UPRIGHT).save(tmp_path / "a.jpg", exif=raw_exif(SHORT, 1, b"\0\6", entries=500))
    code = (
        "from exml_lightning.scenarios.image_files import read_image\n"
        f"print(read_image({str(tmp_path / 'a.jpg')!r}, (1, 4, 4)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("torch.Size([1, 4, 4])\n", "")


def test_files_are_found_by_what_can_be_read(tmp_path, caplog):
    kinds = {"jpg": "jpeg", "JPEG": "jpeg", "jfif": "jpeg", "jpe": "jpeg", "gif": "gif", "GIF": "gif", "Png": "png"}
    kinds |= {"webp": "webp", "tif": "tiff", "bmp": "bmp", "pgm": "ppm", "pnm": "ppm", "apng": "png"}
    (tmp_path / "in" / "side").mkdir(parents=True)
    for k, (suffix, kind) in enumerate(kinds.items()):
        as_image(UPRIGHT).save(tmp_path / "in" / f"{k}.{suffix}", format=kind)
    as_image(UPRIGHT).save(tmp_path / "in" / "side" / "IMG_0001", format="jpeg")
    as_image(UPRIGHT).save(tmp_path / "in" / "side" / "ends with a dot.", format="png")
    expected = {f"{k}.{suffix}" for k, suffix in enumerate(kinds)} | {"side/IMG_0001", "side/ends with a dot."}
    assert set(names(tmp_path / "in")) == expected
    assert set(image_files.image_files(tmp_path / "in")) == {str(tmp_path / "in" / name) for name in expected}
    assert not caplog.messages


@pytest.mark.skipif(not image_files.HAS_AVIF, reason="PIL is older, or built without AVIF")
def test_avif_is_read_where_pil_can(tmp_path):
    photograph = as_image(UPRIGHT.rot90(1).repeat_interleave(8, 0).repeat_interleave(8, 1)).convert("RGB")
    photograph.save(tmp_path / "a.avif", quality=100, exif=exif_of(6))
    assert names(tmp_path) == ["a.avif"]
    found = read_image(str(tmp_path / "a.avif"), (1, 32, 48))[0, 4::8, 4::8]
    assert (found.int() - UPRIGHT.int()).abs().max() <= 4


def test_what_is_left_out_is_counted_in_one_line(tmp_path, caplog):
    as_image(UPRIGHT).save(tmp_path / "a.png")
    for name in ("notes.txt", "labels.csv", "README", "b.HEIC", "c.svg", "d.jp2", "e.jpg_large"):
        (tmp_path / name).write_text("x")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    assert image_files.image_files(tmp_path) == [str(tmp_path / "a.png")]
    (line,) = caplog.messages
    assert line == (
        f"{tmp_path}: files left out: not named like images: 6 ('README', 'e.jpg_large', 'labels.csv', 'notes.txt', "
        "'nowhere' and 1 more); images of a kind that is not read, to be converted to JPEG or PNG: 3 ('b.HEIC', "
        "'c.svg', 'd.jp2')"
    )


def test_a_file_without_a_suffix_that_begins_like_an_image_is_not_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_PIXELS", 23)
    as_image(UPRIGHT).save(tmp_path / "large", format="png")
    assert names(tmp_path) == ["large"]
    assert "it is too large" in read_image(str(tmp_path / "large"), (1, 8, 8))


@pytest.fixture
def with_junk(tmp_path):
    """One photograph of a class, among copies and what desktops leave behind."""
    folder = tmp_path / "photos"
    for name in ("cat", "cat/.ipynb_checkpoints", "__MACOSX/cat", ".git/cat", "cat/@eaDir/a.jpg"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    as_image(UPRIGHT).save(folder / "cat" / "a.jpg")
    copies = ("cat/.ipynb_checkpoints/a-checkpoint.jpg", "__MACOSX/cat/a.jpg", ".git/cat/a.jpg", "cat/.hidden.jpg")
    for name in (*copies, "cat/@eaDir/a.jpg/THUMB.jpg"):
        shutil.copy(folder / "cat" / "a.jpg", folder / name)
    for name in ("cat/._a.jpg", "__MACOSX/cat/._a.jpg", "cat/Thumbs.db", "cat/desktop.ini", ".DS_Store"):
        (folder / name).write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    return folder


def test_copies_and_junk_are_no_photographs(with_junk, caplog):
    assert find_images(with_junk) == ([str(with_junk / "cat" / "a.jpg")], [])
    assert len(read_labelled(with_junk, ["cat"], (1, 8, 8)).labels) == 1
    photographs = FolderImages(str(with_junk))
    photographs.open(with_junk, (1, 8, 8))
    assert len(photographs) == 1
    assert not caplog.messages


def test_a_folder_that_is_named_may_be_hidden(tmp_path):
    (tmp_path / ".cache" / "__MACOSX").mkdir(parents=True)
    as_image(UPRIGHT).save(tmp_path / ".cache" / "__MACOSX" / "a.png")
    assert names(tmp_path / ".cache") == []
    assert names(tmp_path / ".cache" / "__MACOSX") == ["a.png"]


def test_a_source_that_is_opened_again_says_it_once(tmp_path, caplog):
    as_image(UPRIGHT).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("x")
    photographs = FolderImages(str(tmp_path))
    for _ in range(2):
        photographs.open(tmp_path, (1, 8, 8))
    assert len(caplog.messages) == 1


def test_of_a_labelled_folder_one_line_says_what_is_left_out(tmp_path, caplog):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        as_image(UPRIGHT).save(tmp_path / name / "a.GIF", format="gif")
        (tmp_path / name / "notes.txt").write_text("x")
    assert read_labelled(tmp_path, ["cat", "dog"], (1, 8, 8)).labels.tolist() == [0, 1]
    assert [line.partition(": ")[2] for line in caplog.messages] == [
        "files left out: not named like images: 2 ('cat/notes.txt', 'dog/notes.txt')"
    ]
