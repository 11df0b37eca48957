import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from exml_lightning.core.errors import ExmlError
from exml_lightning.scenarios import CIFAR10, Folder, Scenario, decoded
from exml_lightning.scenarios.image_files import read_image
from tests.conftest import ROOT

DATA = ROOT / "data"
CLASSES = ("Zebra", "class 2", "class 10")
"""Sorted, 2 before 10."""


def write(folder: Path, count: int, first: int = 0) -> None:
    """Write images of random pixels and of several sizes and formats."""
    folder.mkdir(parents=True, exist_ok=True)
    for k in range(first, first + count):
        random = np.random.default_rng([k, *folder.name.encode()])
        pixels = random.integers(0, 256, (20 + k, 30, 3) if k % 2 else (25, 18 + k), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:02d}.{'png' if k % 3 else 'jpg'}")


@pytest.fixture
def images(tmp_path) -> Path:
    """Three classes with ten images each, without splits."""
    for name in CLASSES:
        write(tmp_path / "images" / name, 10)
    return tmp_path / "images"


def split(images: Path, train: str, test: str) -> None:
    """Move images into folders of splits: the last three of each class are for testing."""
    for name in CLASSES:
        for k, file in enumerate(sorted((images / name).iterdir())):
            folder = images / (train if k < 7 else test) / name
            folder.mkdir(parents=True, exist_ok=True)
            file.rename(folder / file.name)
        (images / name).rmdir()


def told(files: list[Path], size: int = 16) -> torch.Tensor:
    read = [read_image(str(file), (3, size, size)) for file in files]
    return torch.stack([image for image in read if isinstance(image, torch.Tensor)])


@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("train", "val"), ("Training", "VALIDATION")])
def test_folders_of_splits_are_read(images, capsys, train, test):
    split(images, train, test)
    dataset = Folder(size=16)
    for wanted, folder, count in ((True, train, 7), (False, test, 3)):
        found = dataset.load(images, wanted)
        files = [file for name in CLASSES for file in sorted((images / folder / name).iterdir())]
        assert found.labels.tolist() == [label for label in range(3) for _ in range(count)]
        assert torch.equal(found.images, told(files))
        assert found.groups.tolist() == [0] * 3 * count
    assert dataset.class_names == CLASSES
    said = capsys.readouterr().out
    assert said == (
        "" if test == "test" else f"{images}/test is not there: the 9 test images are those in {images}/{test}\n"
    )


def test_test_is_taken_before_val(images):
    split(images, "train", "val")
    shutil.copytree(images / "val", images / "test")
    (images / "test" / "Zebra" / "07.png").unlink()
    assert len(Folder(size=16).load(images, train=False)) == 8


@pytest.mark.parametrize("place", [".", "train"])
def test_a_fifth_is_set_aside_where_there_is_no_split(images, capsys, place):
    if place == "train":
        images.rename(images.with_name("train"))
        images.mkdir()
        images.with_name("train").rename(images / "train")
    dataset = Folder(size=16)
    train, test = (dataset.load(images, wanted) for wanted in (True, False))
    assert train.labels.bincount().tolist() == [8, 8, 8]
    assert test.labels.bincount().tolist() == [2, 2, 2]
    both = {bytes(image.numpy().tobytes()) for image in torch.cat([train.images, test.images])}
    assert both == {bytes(image.numpy().tobytes()) for image in told(sorted((images / place).glob("*/*.*g")))}
    assert f"the 6 test images are a fifth of each class in {images / place}" in capsys.readouterr().out
    torch.manual_seed(5)
    again = Folder(size=16).load(images, train=False)
    assert torch.equal(again.images, test.images)


def test_images_are_decoded_once(images, monkeypatch):
    first = Folder(size=16).load(images, train=True)
    assert (images / "decoded" / "images_train_3x16x16.safetensors").is_file()

    def forbidden(*args):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(decoded, "read_image", forbidden)
        again = Folder(size=16)
        assert torch.equal(again.load(images, train=True).images, first.images)
        assert again.class_names == CLASSES  # the cache is no class
        with pytest.raises(AssertionError):
            Folder(size=8).load(images, train=True)
    (images / "Zebra" / "00.jpg").unlink()
    assert len(Folder(size=16).load(images, train=True)) < 24


def test_a_fit_needs_no_training_images(images):
    split(images, "train", "test")
    for file in (images / "train").glob("*/*"):
        file.write_bytes(b"no image")
    Folder(size=16).load(images, train=False)
    shutil.rmtree(images / "train")
    dataset = Folder(size=16)
    scenario = Scenario("own", dataset, classes_per_experience=[2, 1])
    parts = scenario.test_stream(images, scenario.experiences(0, images))
    assert [len(part.images) for part in parts] == [6, 3]
    with pytest.raises(ExmlError, match=r"images has no training images: put them into train/<class>/"):
        dataset.load(images, train=True)


def test_images_that_cannot_be_read_are_left_out_with_a_warning(images, caplog):
    split(images, "train", "test")
    broken = images / "train" / "class 10" / "03.jpg"
    broken.write_bytes(broken.read_bytes()[:50])
    train = Folder(size=16).load(images, train=True)
    assert train.labels.bincount().tolist() == [7, 7, 6]
    files = [file for name in CLASSES for file in sorted((images / "train" / name).iterdir()) if file != broken]
    assert torch.equal(train.images, told(files))
    assert "03.jpg cannot be read" in caplog.text
    assert "left out" in caplog.text
    assert Folder(size=16).load(images, train=True).labels.bincount().tolist() == [7, 7, 6]  # out of the cache
    for file in (images / "train" / "class 10").iterdir():
        file.write_bytes(b"none")
    with pytest.raises(ExmlError, match=r"no image in .*train/class 10 can be read: put others there"):
        Folder(size=16).load(images, train=True)


def test_a_class_may_lack_test_images_but_not_its_folder(images):
    split(images, "train", "test")
    shutil.rmtree(images / "test" / "Zebra")
    with pytest.raises(ExmlError, match=r"train has a folder Zebra, but .*images/test has none.*make an empty one"):
        Folder(size=16).open(images)
    (images / "test" / "Zebra").mkdir()
    assert Folder(size=16).load(images, train=False).labels.bincount(minlength=3).tolist() == [0, 3, 3]
    shutil.rmtree(images / "train" / "class 2")
    with pytest.raises(ExmlError, match=r"images/test has a folder class 2, but .*images/train has none"):
        Folder(size=16).open(images)


def test_folders_that_will_not_do_are_named_with_the_remedy(images, tmp_path):
    with pytest.raises(ExmlError, match=r"elsewhere is no folder: name one with train/<class>/.*--data\.root DIR"):
        Folder(path="elsewhere").open(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExmlError, match=r"empty has no folders of classes: it needs train/<class>/"):
        Folder(path="empty").open(tmp_path)
    write(tmp_path / "flat" / "train", 2)
    write(tmp_path / "flat" / "test", 2)
    with pytest.raises(ExmlError, match=r"flat has no folders of classes"):  # no classes train and test
        Folder(path="flat").open(tmp_path)
    (images / "notes").mkdir()
    with pytest.raises(ExmlError, match=r"images/notes has no images: put those of the class there, or take the fold"):
        Folder(path="images", size=16).load(tmp_path, train=True)


def test_a_class_may_be_called_train(images):
    (images / "Zebra").rename(images / "train")
    dataset = Folder(size=16)
    assert len(dataset.load(images, train=True)) == 24
    assert dataset.class_names == ("class 2", "class 10", "train")


@pytest.mark.real_data
@pytest.mark.skipif(not (DATA / "cifar10" / "test").is_dir(), reason="data/cifar10 is not there")
def test_the_folders_of_cifar10_are_read_as_cifar10_reads_them(tmp_path):
    (tmp_path / "cifar10").symlink_to(DATA / "cifar10")
    dataset = Folder(path="cifar10", size=32)
    ours, theirs = dataset.load(tmp_path, train=False), CIFAR10().load(DATA, train=False)
    assert dataset.class_names == CIFAR10.class_names
    assert torch.equal(ours.labels, theirs.labels)
    assert torch.equal(ours.images, theirs.images)
