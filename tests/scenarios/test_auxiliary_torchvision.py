from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.rng import keyed_generator
from exml_lightning.scenarios import FolderImages, Photographs, TorchvisionImages
from tests.scenarios.test_datasets import write_idx

DATA = Path(__file__).parents[2] / "data"


def opened(source, root=Path(), shape=(3, 8, 8)):
    source.open(root, shape)
    return source


def fake_idx_files(root: Path, name: str, *prefixes: str) -> None:
    images = torch.randint(0, 256, (6, 28, 28), generator=keyed_generator(name), dtype=torch.uint8)
    for prefix in prefixes:
        write_idx(root / name / "raw", prefix, images, torch.arange(6))


@pytest.mark.real_data
@pytest.mark.skipif(not (DATA / "FashionMNIST").is_dir(), reason="data/FashionMNIST is not there")
def test_real_fashion_mnist():
    source = opened(TorchvisionImages("FashionMNIST"), DATA, (1, 32, 32))
    assert len(source) == 60000
    data = torchvision.datasets.FashionMNIST(str(DATA)).data[:, None]
    resized = torchvision.transforms.v2.functional.resize(data, [32, 32])
    images = source.draw(300, keyed_generator("draw"))
    order = torch.randperm(60000, generator=keyed_generator("draw"))[:300]
    assert torch.equal(images, resized[order])
    test = opened(TorchvisionImages("FashionMNIST", {"train": False}), DATA, (3, 32, 32))
    whole = test.draw(None, keyed_generator("draw"))
    assert whole.shape == (10000, 3, 32, 32)
    assert not torch.equal(whole[:300, :1], resized[:300])


def test_a_data_set_by_name(tmp_path):
    fake_idx_files(tmp_path, "KMNIST", "train", "t10k")
    source = opened(TorchvisionImages("KMNIST"), tmp_path, (1, 28, 28))
    whole = source.draw(None, keyed_generator("draw"))
    assert torch.equal(whole[:, 0], torchvision.datasets.KMNIST(str(tmp_path)).data)
    assert torch.equal(
        source.draw(6, keyed_generator("draw")), whole[torch.randperm(6, generator=keyed_generator("draw"))]
    )


def test_a_data_set_without_a_root(tmp_path):
    source = opened(TorchvisionImages("FakeData", {"size": 5, "image_size": [3, 20, 20]}), tmp_path, (3, 20, 20))
    assert len(source) == 5
    expected = torchvision.datasets.FakeData(size=5, image_size=(3, 20, 20))
    whole = source.draw(None, keyed_generator("draw"))
    assert torch.equal(
        whole, torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in expected])
    )
    source.download(tmp_path)
    assert not list(tmp_path.iterdir())  # it has nothing to fetch


def test_an_image_folder_with_a_root_of_its_own_and_a_broken_file(tmp_path, caplog):
    (tmp_path / "cats").mkdir()
    Image.new("RGB", (9, 9), (1, 2, 3)).save(tmp_path / "cats" / "b.png")
    (tmp_path / "cats" / "a.png").write_text("no image")
    source = opened(TorchvisionImages("ImageFolder", {"root": str(tmp_path)}), Path("elsewhere"))
    assert source.draw(3, keyed_generator("draw"))[:, :, 0, 0].tolist() == [[1, 2, 3]] * 3
    assert [m.startswith(f"{tmp_path}/cats/a.png cannot be read") for m in caplog.messages] == [True]


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (torch.full((1, 9, 9), 0.2), 51),
        (torch.full((9, 9), 1.0), 255),
        (torch.full((3, 9, 9), 7, dtype=torch.uint8), 7),
    ],
)
def test_items_that_are_tensors(tmp_path, image, expected):
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "a.dat").touch()
    options = {"root": str(tmp_path), "loader": lambda path: image, "extensions": (".dat",)}
    source = opened(TorchvisionImages("DatasetFolder", options))
    assert source.draw(1, keyed_generator("draw")).unique().tolist() == [expected]


def test_items_that_are_no_images_are_refused_before_work_starts(tmp_path):
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "a.dat").touch()
    options = {"root": str(tmp_path), "loader": str, "extensions": (".dat",)}
    with pytest.raises(ExmlError, match=r"data\.auxiliary: DatasetFolder has no images: its items are str"):
        opened(TorchvisionImages("DatasetFolder", options))
    (tmp_path / "MovingMNIST").mkdir()
    np.save(tmp_path / "MovingMNIST" / "mnist_test_seq.npy", np.zeros((20, 4, 64, 64), dtype=np.uint8))
    with pytest.raises(ExmlError, match=r"tensors of shape \[20, 1, 64, 64\] are no images"):
        opened(TorchvisionImages("MovingMNIST"), tmp_path)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("fashionmnist", "did you mean FashionMNIST"),
        ("Cifar_100", "did you mean CIFAR100"),
        ("qqq", "see its documentation"),
        ("wrap_dataset_for_transforms_v2", "no data set"),
    ],
)
def test_an_unknown_name_is_refused_with_a_suggestion(name, hint):
    with pytest.raises(ExmlError, match=f"torchvision has no data set {name}.*{hint}|{hint} {name}"):
        TorchvisionImages(name)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("SVHN", {"spli": "extra"}, "options of SVHN: .*'spli'"),
        ("EMNIST", None, "options of EMNIST: .*'split'"),
        ("SVHN", {"download": True}, "leave download out .* --data.download true"),
    ],
)
def test_options_that_a_data_set_does_not_have(name, options, message):
    with pytest.raises(ExmlError, match=rf"data\.auxiliary: {message}"):
        TorchvisionImages(name, options)


def test_an_option_with_a_wrong_value(tmp_path):
    with pytest.raises(ExmlError, match=r"SVHN, split=all.*'all'.*extra"):
        opened(TorchvisionImages("SVHN", {"split": "all"}), tmp_path)


def test_missing_files_are_refused_with_the_remedy(tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(torchvision.datasets.SEMEION, "download", lambda self: fetched.append(self))
    with pytest.raises(ExmlError, match=rf"KMNIST.*{tmp_path} .*--data\.download true"):
        opened(TorchvisionImages("KMNIST"), tmp_path)
    with pytest.raises(ExmlError, match=r"SEMEION.*--data\.download true"):
        opened(TorchvisionImages("SEMEION"), tmp_path)
    assert not fetched  # it does unless told not to
    with pytest.raises(ExmlError, match=rf"ImageFolder.*{tmp_path} .*--data\.root DIR"):
        opened(TorchvisionImages("ImageFolder"), tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "prefix"),
    [("KMNIST", None, ""), ("EMNIST", {"split": "letters"}, "emnist-letters-")],  # EMNIST takes download by **kwargs
)
def test_download_has_torchvision_fetch_the_files(tmp_path, monkeypatch, name, options, prefix):
    def fetch(self) -> None:
        for part in ("train", "t10k", "test"):
            fake_idx_files(Path(self.root), name, prefix + part)

    monkeypatch.setattr(getattr(torchvision.datasets, name), "download", fetch)
    source = TorchvisionImages(name, options)
    with pytest.raises(ExmlError, match=r"--data\.download true"):
        opened(source, tmp_path)
    source.download(tmp_path)
    assert len(opened(source, tmp_path)) == 6


def test_a_failed_download_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets.KMNIST, "mirrors", ["http://127.0.0.1:9/"])
    with pytest.raises(ExmlError, match=rf"KMNIST could not be fetched into {tmp_path}.*by hand"):
        TorchvisionImages("KMNIST").download(tmp_path)


def test_sources_that_draw_something_else_say_something_else():
    sources = [
        Photographs(),
        Photographs(0.2),
        FolderImages("photos"),
        FolderImages("photos", 1),
        FolderImages("others"),
        TorchvisionImages("SVHN"),
        TorchvisionImages("SVHN", {"split": "extra"}),
        TorchvisionImages("SVHN", {"split": "test"}),
        TorchvisionImages("SVHN", min_crop=0.5),
        TorchvisionImages("CIFAR100"),
    ]
    assert len({source.describe() for source in sources}) == len(sources)
    assert FolderImages("photos").describe() == FolderImages("photos").describe()
