import struct
from pathlib import Path

import pytest
import torch
import torchvision

from exml_lightning.core.errors import ExmlError
from exml_lightning.scenarios import MNIST, Digits

DATA = Path(__file__).parents[2] / "data"
real_mnist = pytest.mark.skipif(not (DATA / "MNIST" / "raw").is_dir(), reason="data/MNIST is not there")


def write_idx(folder: Path, prefix: str, images: torch.Tensor, labels: torch.Tensor) -> None:
    """Write the idx format by hand: magic number, sizes, bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    header = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
    (folder / f"{prefix}-images-idx3-ubyte").write_bytes(header + images.numpy().tobytes())
    header = struct.pack(">4B1I", 0, 0, 8, 1, len(labels))
    (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(header + labels.to(torch.uint8).numpy().tobytes())


def test_digits_are_split_into_train_and_test():
    train, test = Digits().load(Path(), train=True), Digits().load(Path(), train=False)
    assert (len(train), len(test)) == (1347, 450)
    assert train.images.shape[1:] == (1, 32, 32)
    assert sorted(set(test.labels.tolist())) == list(range(10))
    values = Digits().image_format.normalize(train.images)
    assert values.mean().abs() < 0.01
    assert abs(values.std() - 1) < 0.01


def test_idx_files_are_read_resized_and_labelled(tmp_path):
    images = torch.zeros(3, 28, 28, dtype=torch.uint8)
    images[1] = 200
    write_idx(tmp_path / "MNIST" / "raw", "t10k", images, torch.tensor([7, 0, 9]))
    test = MNIST().load(tmp_path, train=False)  # the training files do not exist
    assert test.labels.tolist() == [7, 0, 9]
    assert test.images.shape == (3, 1, 32, 32)
    assert test.images.flatten(1).float().mean(dim=1).tolist() == [0, 200, 0]


def test_a_missing_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(ExmlError, match=r"MNIST/raw/train-images-idx3-ubyte is missing.*--data\.root.*--data\.downl"):
        MNIST().load(tmp_path, train=True)


@pytest.mark.parametrize("damage", ["cut", "empty", "not idx"])
def test_a_damaged_file_is_named(tmp_path, damage):
    raw = tmp_path / "MNIST" / "raw"
    write_idx(raw, "train", torch.zeros(3, 28, 28, dtype=torch.uint8), torch.tensor([0, 1, 2]))
    path = raw / "train-images-idx3-ubyte"
    path.write_bytes({"cut": path.read_bytes()[:-100], "empty": b"", "not idx": b"hello world, hello"}[damage])
    with pytest.raises(ExmlError, match="train-images-idx3-ubyte"):
        MNIST().load(tmp_path, train=True)
    write_idx(raw, "train", torch.zeros(3, 28, 28, dtype=torch.uint8), torch.tensor([0, 1]))
    with pytest.raises(ExmlError, match="2 labels for 3 images"):
        MNIST().load(tmp_path, train=True)


@real_mnist
@pytest.mark.real_data
def test_real_mnist_is_what_torchvision_reads():
    ours = MNIST().load(DATA, train=False)
    theirs = torchvision.datasets.MNIST(str(DATA), train=False)
    assert torch.equal(ours.labels, theirs.targets)
    pixels = torchvision.transforms.v2.functional.resize(theirs.data[:50, None], [32, 32])
    assert torch.equal(ours.images[:50], pixels)
    assert torch.bincount(ours.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
