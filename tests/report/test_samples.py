import json
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.experts import load_expert, read_manifest
from exml_lightning.report.samples import read_samples, rows_shown, save_samples
from tests.conftest import EXPERTS


def test_pixels_come_back_as_they_were(tmp_path):
    labels = torch.tensor([2, 0, 2, 2, 0, 2, 2, 2])
    images = torch.randint(0, 256, (8, 3, 4, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    save_samples(tmp_path / "samples" / "experience=0.png", images, labels, ["ant", "bee", "cat"])
    samples = read_samples(tmp_path / "samples" / "experience=0.png")
    assert samples.classes == ("ant", "cat")
    assert samples.images.shape == (5, 2, 4, 6, 3)
    expected = images.permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(samples.images[:2, 0], expected[[1, 4]])
    assert (samples.images[2:, 0] == 255).all()  # only two ants
    np.testing.assert_array_equal(samples.images[:, 1], expected[[0, 2, 3, 5, 6]])
    with Image.open(tmp_path / "samples" / "experience=0.png") as picture:
        assert picture.size == (2 * 6 * 16, 5 * 4 * 16)  # so that people can see it
        assert json.loads(picture.text["exml"]) == {"classes": ["ant", "cat"], "size": [4, 6]}


def test_older_files_of_plain_pixels_are_read(tmp_path):
    pixels = np.random.default_rng(0).integers(256, size=(5 * 4, 2 * 6, 3), dtype=np.uint8)
    about = PngInfo()
    about.add_text("exml", json.dumps({"classes": ["ant", "cat"], "size": [4, 6]}))
    Image.fromarray(pixels).save(tmp_path / "x.png", pnginfo=about)
    np.testing.assert_array_equal(read_samples(tmp_path / "x.png").images[1, 1], pixels[4:8, 6:12])


def test_grey_images_and_at_most_ten_classes(tmp_path):
    images = (torch.arange(12, dtype=torch.uint8) * 20).view(12, 1, 1, 1).expand(12, 1, 2, 2)
    save_samples(tmp_path / "x.png", images, torch.arange(12), [str(i) for i in range(12)])
    samples = read_samples(tmp_path / "x.png")
    assert samples.classes == tuple("0123456789")
    assert samples.images[0, :, 0, 0, 1].tolist() == list(range(0, 200, 20))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, about, pixels=b""):
    """A picture that may say to be larger than it is."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    text = chunk(b"tEXt", b"exml\0" + json.dumps(about).encode())
    return b"\x89PNG\r\n\x1a\n" + header + text + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


ANT = {"classes": ["ant"], "size": [4, 4]}
PIXELS = (b"\0" + bytes(12)) * 20
ODD = {
    "text": b"no picture",
    "nothing said": png(4, 20, {}, PIXELS),
    "wrong size": png(4, 20, {**ANT, "size": [4, 5]}, PIXELS),
    "odd shape": png(9, 5, {**ANT, "size": [1, 9]}, (b"\0" + bytes(27)) * 5),
    "too many classes": png(4, 20, {**ANT, "classes": ["ant"] * 11}, PIXELS),
    # too large for us, for a warning of PIL, for an error of PIL
    **{f"bomb {n}": png(n, n, {"classes": ["a"], "size": [n // 5, n]}) for n in (6000, 12000, 20000)},
    **{
        f"confidence {odd}": png(4, 20, {**ANT, "confidence": odd}, PIXELS)
        for odd in ([[2.0]], [["1"]], [[True]], [[0.5], [0.5]], [[0.5] * 6], 7)
    },
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_other_files_are_named(content, tmp_path):
    path = tmp_path / "x.png"
    path.write_bytes(png(4, 20, ANT, PIXELS))
    assert read_samples(path).images.shape == (5, 1, 4, 4, 3)
    path.write_bytes(content)
    with pytest.raises(ExmlError, match=r"x\.png holds no samples of a run"):
        read_samples(path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(ExmlError, match="holds no samples"):
        read_samples(tmp_path / "x.png")


def test_a_spoiled_picture_never_crashes(tmp_path):
    path = tmp_path / "x.png"
    save_samples(path, torch.rand(2, 3, 4, 4), torch.tensor([0, 1]), ["ant", "bee"])
    whole = path.read_bytes()
    refused = 0
    for i in range(len(whole)):
        for spoiled in (whole[:i], whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :]):
            path.write_bytes(spoiled)
            try:
                read_samples(path)
            except ExmlError:
                refused += 1
    assert refused > len(whole)


def test_confidence_comes_back(tmp_path):
    path, labels = tmp_path / "x.png", torch.tensor([1, 0, 1])
    told = [0.12345, 1.0, float("nan")]
    save_samples(path, torch.rand(3, 1, 4, 4), labels, ["ant", "bee"], told)
    assert read_samples(path).confidence == ((1.0,), (0.1235, None))  # of classes in order
    assert rows_shown(torch.tensor([3, 1, 3, 3, 3, 3, 3])) == [1, 0, 2, 3, 4, 5]


def test_a_run_keeps_what_its_experts_say_of_the_images_it_keeps(small_run, tmp_path):
    main(small_run(buffer__generator="Noise"))
    manifest = read_manifest(EXPERTS)
    for k in range(2):
        samples = read_samples(tmp_path / "run" / "samples" / f"experience={k}.png")
        expert = load_expert(EXPERTS, manifest, k)
        for column, name in enumerate(samples.classes):
            pixels = samples.images[: len(samples.confidence[column]), column, :, :, :1].copy()
            images = expert.image_format.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
            with torch.no_grad():
                answers = expert(images).softmax(dim=1)
            place = expert.classes.tolist().index(manifest.class_names.index(name))
            np.testing.assert_allclose(answers[:, place], samples.confidence[column], atol=0.02)  # of 8 bits
