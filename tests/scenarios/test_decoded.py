import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from exml_lightning.core.errors import ExmlError
from exml_lightning.scenarios import decoded
from exml_lightning.scenarios.decoded import decode_images, decode_once, fit_images

SHAPE = (3, 4, 6)


@pytest.fixture
def files(tmp_path) -> list[Path]:
    """Three images of random pixels, one of them grey."""
    folder = tmp_path / "images"
    folder.mkdir()
    random = np.random.default_rng(0)
    for k, size in enumerate([(4, 6, 3), (4, 6, 3), (4, 6)]):
        Image.fromarray(random.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{k}.png")
    return sorted(folder.iterdir())


def pixels(files):
    """Read the images by PIL alone."""
    arrays = [np.array(Image.open(file).convert("RGB")) for file in files]
    return torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def forbid_decoding(monkeypatch):
    def forbidden(file, shape):
        raise AssertionError(f"{file} was decoded")

    monkeypatch.setattr(decoded, "_decode", forbidden)


@pytest.mark.parametrize("chunk", [1, 2, 256])
def test_the_cache_is_a_safetensors_file_and_spares_decoding(files, tmp_path, monkeypatch, chunk):
    monkeypatch.setattr(decoded, "CHUNK", chunk)
    cache = tmp_path / "deep" / "c.safetensors"
    assert torch.equal(decode_images(files, SHAPE, cache), pixels(files))
    content = cache.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    assert header["images"] == {"dtype": "U8", "shape": [3, *SHAPE], "data_offsets": [0, 216]}
    assert content[8 + length :] == pixels(files).numpy().tobytes() + struct.pack("<3q", 0, 1, 2)
    forbid_decoding(monkeypatch)
    assert torch.equal(decode_images(files, SHAPE, cache), pixels(files))


@pytest.mark.skipif(not Path("/proc/self/maps").is_file(), reason="only Linux tells what is mapped")
def test_images_are_mapped_not_read(files, tmp_path):
    images = decode_images(files, SHAPE, tmp_path / "c.safetensors")
    assert str(tmp_path / "c.safetensors") in Path("/proc/self/maps").read_text()
    del images


def test_a_stale_cache_is_replaced(files, tmp_path):
    cache = tmp_path / "c.safetensors"
    decode_images(files, SHAPE, cache)
    Image.fromarray(255 - np.array(Image.open(files[0]))).save(files[0])  # another time
    assert torch.equal(decode_images(files, SHAPE, cache), pixels(files))
    Image.new("RGB", (6, 4)).save(files[0])  # another size
    assert torch.equal(decode_images(files, SHAPE, cache), pixels(files))
    assert torch.equal(decode_images(files[1:], SHAPE, cache), pixels(files[1:]))
    for file in files:
        Image.new("RGB", (4, 6)).save(file)
    assert torch.equal(decode_images(files, (3, 6, 4), cache), pixels(files))


@pytest.mark.parametrize("damage", [b"", b"no tensors at all", "cut"])
def test_a_broken_cache_is_warned_of_and_rebuilt(files, tmp_path, caplog, monkeypatch, damage):
    cache = tmp_path / "c.safetensors"
    decode_images(files, SHAPE, cache)
    cache.write_bytes(cache.read_bytes()[:-9] if damage == "cut" else damage)
    assert torch.equal(decode_images(files, SHAPE, cache), pixels(files))
    assert "c.safetensors is broken" in caplog.text
    forbid_decoding(monkeypatch)
    decode_images(files, SHAPE, cache)


def test_a_folder_that_cannot_be_written_costs_a_warning_only(files, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    images = decode_images(files, SHAPE, tmp_path / "file" / "c.safetensors")
    assert torch.equal(images, pixels(files))
    assert "cannot be written" in caplog.text


def test_images_that_will_not_do_are_named(files, tmp_path):
    cache = tmp_path / "c.safetensors"
    with pytest.raises(ExmlError, match=r"0\.png has 6x4 pixels: it must have 8x8"):
        decode_images(files, (3, 8, 8), cache)
    files[1].write_bytes(files[1].read_bytes()[:40])
    with pytest.raises(ExmlError, match=r"1\.png is no whole image"):
        decode_images(files, SHAPE, cache)
    files[2].unlink()
    with pytest.raises(ExmlError, match=r"2\.png cannot be read \(No such file or directory\): fetch it again"):
        decode_images(files, SHAPE, cache)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]  # not even half a cache


def test_images_of_any_size_are_made_to_fit_and_broken_ones_left_out(files, tmp_path, monkeypatch, caplog):
    files[1].write_bytes(b"none")
    images, places = fit_images(files, (3, 2, 3), tmp_path / "c.safetensors")
    assert places.tolist() == [0, 2]
    assert images.shape == (2, 3, 2, 3)
    assert images[1].unique(dim=0).shape[0] == 1  # the third file is grey
    assert caplog.text.count("left out") == 1
    monkeypatch.setattr(decoded, "read_image", None)
    again, places = fit_images(files, (3, 2, 3), tmp_path / "c.safetensors")
    assert torch.equal(again, images)
    assert places.tolist() == [0, 2]


def test_where_no_image_can_be_read_there_is_no_cache(files, tmp_path):
    for file in files:
        file.write_bytes(b"none")
    with pytest.raises(ExmlError, match="none of the 3 images of c can be read"):
        fit_images(files, SHAPE, tmp_path / "c.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


@pytest.mark.parametrize("writable", [True, False])
def test_numbers_are_kept_with_images(tmp_path, writable):
    """Whether or not images end at a multiple of eight bytes."""
    cache = tmp_path / "c.safetensors" if writable else tmp_path / "file" / "c.safetensors"
    (tmp_path / "file").write_text("in the way")
    images = torch.arange(5 * 3, dtype=torch.uint8).reshape(5, 3, 1, 1)

    def read(index):
        return (images[index], 2**40 + index) if index != 3 else None

    for _ in range(2):
        found, numbers = decode_once(read, 5, (3, 1, 1), "key", cache)
        assert torch.equal(found, images[[0, 1, 2, 4]])
        assert numbers.tolist() == [2**40 + index for index in (0, 1, 2, 4)]
