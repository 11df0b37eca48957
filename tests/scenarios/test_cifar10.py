import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from exml_lightning.core.errors import ExmlError
from exml_lightning.scenarios import CIFAR10, MNIST
from exml_lightning.scenarios.cifar10 import _Split

DATA = Path(__file__).parents[2] / "data"
real_cifar10 = pytest.mark.skipif(not (DATA / "cifar10" / "train").is_dir(), reason="data/cifar10 is not there")
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


@pytest.fixture
def folders(tmp_path) -> Path:
    """Two images a class and split: flat colours, red says the class, green the place."""
    for split in ("train", "test"):
        for label, name in enumerate(NAMES):
            folder = tmp_path / "cifar10" / split / name
            folder.mkdir(parents=True)
            (folder / "notes.txt").write_text("no image")
            for place, suffix in enumerate(["png", "PNG"]):
                colour = (20 * label, 100 * place, 255 if split == "test" else 0)
                Image.new("RGB", (32, 32), colour).save(folder / f"{place}.{suffix}")
    return tmp_path


@pytest.mark.parametrize("train", [True, False])
def test_folders_of_images_are_read_in_the_order_of_classes_and_names(folders, train):
    split = CIFAR10().load(folders, train)
    assert split.labels.tolist() == [label for label in range(10) for _ in range(2)]
    assert split.groups.tolist() == [0] * 20
    expected = [[20 * label, 100 * place, 0 if train else 255] for label in range(10) for place in range(2)]
    assert split.images[:, :, 31, 0].tolist() == expected
    assert list(CIFAR10.class_names) == NAMES


def test_only_the_files_of_the_split_are_opened(folders):
    for path in (folders / "cifar10" / "train").glob("*/*"):
        path.write_bytes(b"no image")
    CIFAR10().load(folders, train=False)
    with pytest.raises(ExmlError, match=r"train/airplane/0\.png is no whole image"):
        CIFAR10().load(folders, train=True)


def test_what_is_missing_is_named(folders):
    for path in (folders / "cifar10" / "train" / "deer").glob("*.[pP]*"):
        path.unlink()
    with pytest.raises(ExmlError, match="train/deer has no images"):
        CIFAR10().load(folders, train=True)
    message = r"neither .*cifar-10-batches-py nor .*cifar10/train is there.*--data\.root.*--data\.download"
    with pytest.raises(ExmlError, match=message):
        CIFAR10().load(folders / "elsewhere", train=True)


@pytest.fixture
def batches(tmp_path, monkeypatch) -> Path:
    """torchvision's files, with four random images a batch, and md5 sums that belong to them."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(3)
    sums = {}
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        content = {"data": random.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": random.integers(0, 10, 4)}
        content["labels"] = content["labels"].tolist()
        (folder / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((folder / name).read_bytes()).hexdigest()
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": NAMES}))
    meta = {**_Split.meta, "md5": hashlib.md5((folder / "batches.meta").read_bytes()).hexdigest()}
    monkeypatch.setattr(_Split, "meta", meta)
    monkeypatch.setattr(_Split, "train_list", [[name, sums[name]] for name in sums if name != "test_batch"])
    monkeypatch.setattr(_Split, "test_list", [["test_batch", sums["test_batch"]]])
    return tmp_path


def test_the_files_of_torchvision_are_read(batches):
    names = [f"data_batch_{k}" for k in range(1, 6)]
    contents = [pickle.loads((batches / "cifar-10-batches-py" / name).read_bytes()) for name in names]
    split = CIFAR10().load(batches, train=True)
    pixels = np.concatenate([content["data"] for content in contents]).reshape(-1, 3, 32, 32)
    assert torch.equal(split.images, torch.from_numpy(pixels))
    assert split.labels.tolist() == [label for content in contents for label in content["labels"]]


def test_a_fit_needs_no_training_files_of_torchvision(batches):
    folder = batches / "cifar-10-batches-py"
    (folder / "data_batch_3").write_bytes(b"changed")
    (folder / "data_batch_4").unlink()
    CIFAR10().load(batches, train=False)
    with pytest.raises(ExmlError, match=r"cifar-10-batches-py lacks files of CIFAR10's train split.*--data\.download"):
        CIFAR10().load(batches, train=True)
    (folder / "test_batch").write_bytes(b"cos\nabort\n(tR.")  # would end this process, were it unpickled
    with pytest.raises(ExmlError, match="test split, or they were changed"):
        CIFAR10().load(batches, train=False)


@pytest.mark.parametrize("kind", [MNIST, CIFAR10])
def test_download_is_torchvisions_and_leaves_folders_of_images_alone(folders, monkeypatch, kind):
    def fails(root, download):
        raise RuntimeError(f"no network {download}")

    monkeypatch.setattr(torchvision.datasets, kind.__name__, fails)
    CIFAR10().download(folders)
    with pytest.raises(ExmlError, match=rf"{kind.__name__} could not be fetched into .*elsewhere \(no network True\)"):
        kind().download(folders / "elsewhere")


@real_cifar10
@pytest.mark.real_data
def test_real_cifar10_has_all_images():
    split = CIFAR10().load(DATA, train=False)
    assert split.labels.bincount().tolist() == [1000] * 10
    with Image.open(DATA / "cifar10" / "test" / "frog" / "0123.jpg") as image:
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    assert torch.equal(split.images[6 * 1000 + 123], pixels)
    assert CIFAR10().load(DATA, train=True).labels.bincount().tolist() == [5000] * 10
