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
    assert len(opened(TorchvisionImages("FashionMNIST", {"train": False}), DATA, (3, 32, 32))) == 10000


def test_a_data_set_by_name(tmp_path):
    fake_idx_files(tmp_path, "KMNIST", "train", "t10k")
    source = opened(TorchvisionImages("KMNIST"), tmp_path, (1, 28, 28))
    order = torch.randperm(6, generator=keyed_generator("draw"))
    expected = torchvision.datasets.KMNIST(str(tmp_path)).data[order]
    assert torch.equal(source.draw(6, keyed_generator("draw"))[:, 0], expected)


def test_a_data_set_without_a_root(tmp_path):
    source = opened(TorchvisionImages("FakeData", {"size": 5, "image_size": [3, 20, 20]}), tmp_path, (3, 20, 20))
    assert len(source) == 5
    expected = torchvision.datasets.FakeData(size=5, image_size=(3, 20, 20))
    whole = torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in expected])
    order = torch.randperm(5, generator=keyed_generator("draw"))
    assert torch.equal(source.draw(5, keyed_generator("draw")), whole[order])
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
    ("item", "expected"),
    [
        (torch.full((1, 9, 9), 0.2), 51),
        (torch.full((9, 9), 1.0), 255),
        (torch.full((3, 9, 9), 7, dtype=torch.uint8), 7),
        (torch.zeros(20, 1, 9, 9), r"tensors of shape \[20, 1, 9, 9\] are no images"),
        ("words", "DatasetFolder has no images: its items are str"),
    ],
)
def test_items_that_are_tensors_or_no_images(tmp_path, item, expected):
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / "a.dat").touch()
    options = {"root": str(tmp_path), "loader": lambda path: item, "extensions": (".dat",)}
    source = TorchvisionImages("DatasetFolder", options)
    if isinstance(expected, str):
        with pytest.raises(ExmlError, match=rf"data\.auxiliary: .*{expected}"):
            opened(source)
    else:
        assert opened(source).draw(1, keyed_generator("draw")).unique().tolist() == [expected]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Cifar_100", None, "torchvision has no data set Cifar_100; did you mean CIFAR100"),
        ("wrap_dataset_for_transforms_v2", None, "torchvision has no data set wrap.*; see its documentation"),
        ("SVHN", {"spli": "extra"}, "options of SVHN: .*'spli'"),
        ("EMNIST", None, "options of EMNIST: .*'split'"),
        ("SVHN", {"download": True}, "leave download out .* --data.download true"),
    ],
)
def test_what_torchvision_does_not_have_is_refused(name, options, message):
    with pytest.raises(ExmlError, match=rf"data\.auxiliary: {message}"):
        TorchvisionImages(name, options)


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


def test_sources_that_draw_something_else_say_something_else():
    sources = [
        *(Photographs(), Photographs(0.2), FolderImages("photos"), FolderImages("photos", 1), FolderImages("others")),
        *(TorchvisionImages("SVHN"), TorchvisionImages("SVHN", {"split": "extra"}), TorchvisionImages("CIFAR100")),
    ]
    assert len({source.describe() for source in sources}) == len(sources)
