from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import Dataset
from torchvision.datasets.utils import verify_str_arg

from exml_lightning.core.errors import ExmlError
from exml_lightning.scenarios import MNIST, FashionMNIST, Scenario, Torchvision, decoded
from exml_lightning.scenarios.image_files import fit_image
from tests.conftest import ROOT

DATA = ROOT / "data"
FAKE = {"size": 60, "image_size": [3, 40, 50], "num_classes": 3}


class Splits(Dataset):
    """As torchvision's sets with a split: each image says in its pixels which it is."""

    known = ("train", "test")
    names: list | None = None
    labels = {"train": [7, 2, 5, 2, 7, 5], "test": [2, 5, 7, 7], "trainval": [2, 5, 7], "val": [7, 2, 5]}

    def __init__(self, root, split="train", download=False):
        self.split = verify_str_arg(split, "split", self.known)
        self.downloaded = download
        if self.names is not None:
            self.classes = self.names

    def __len__(self):
        return len(self.labels[self.split])

    def __getitem__(self, index):
        return Image.new("L", (8, 8), 10 * len(self.split) + index), np.int64(self.labels[self.split][index])


@pytest.fixture
def splits(monkeypatch):
    """Makes torchvision know a class `Splits` with attributes of one's own."""

    def make(**attributes):
        kind = type("Splits", (Splits,), attributes)
        monkeypatch.setattr(torchvision.datasets, "Splits", kind, raising=False)
        if "Splits" not in torchvision.datasets.__all__:
            monkeypatch.setattr(torchvision.datasets, "__all__", (*torchvision.datasets.__all__, "Splits"))
        return Torchvision(name="Splits", size=8, channels=1)

    return make


def test_labels_without_names_are_the_numbers_of_the_test_images(splits, tmp_path):
    dataset = splits()
    train, test = (dataset.load(tmp_path, wanted) for wanted in (True, False))
    assert dataset.class_names == ("2", "5", "7")
    assert train.labels.tolist() == [2, 0, 1, 0, 2, 1]
    assert test.labels.tolist() == [0, 1, 2, 2]
    assert train.images[:, 0, 3, 3].tolist() == [50, 51, 52, 53, 54, 55]
    assert test.images[:, 0, 3, 3].tolist() == [40, 41, 42, 43]


def test_names_are_those_of_the_set_if_they_tell_classes_apart(splits, tmp_path):
    names = [f"c{label}" for label in range(9)]
    for own, expected in ((names, ("c2", "c5", "c7")), (["same"] * 9, ("2", "5", "7")), (names[:4], ("2", "5", "7"))):
        dataset = splits(names=own)
        dataset.open(tmp_path)
        assert dataset.class_names == expected


@pytest.mark.parametrize(
    ("known", "train", "test"),
    [
        (("train", "val"), "train", "val"),
        (("train", "test", "val"), "train", "test"),
        (("trainval", "test"), None, "test"),
    ],
)
def test_the_splits_are_those_that_the_class_knows(splits, tmp_path, known, train, test):
    dataset = splits(known=known)
    assert dataset.load(tmp_path, train=False).images[0, 0, 0, 0] == 10 * len(test)
    if train is None:  # the class does not say by its default that trainval trains
        with pytest.raises(ExmlError, match="Unknown value 'train' for argument split"):
            dataset.load(tmp_path, train=True)
    else:
        assert dataset.load(tmp_path, train=True).images[0, 0, 0, 0] == 10 * len(train)


def test_the_default_of_the_class_says_what_trains():
    pets = Torchvision(name="OxfordIIITPet")
    assert pets._splits(train=True) == [{"split": "trainval"}]
    assert Torchvision(name="EMNIST", options={"split": "letters"})._splits(train=True) == [{"train": True}]
    assert Torchvision(name="EuroSAT")._splits(train=True) is None
    assert Torchvision(name="SVHN", options={"split": "extra"})._splits(train=True) is None


def test_a_set_without_splits_is_divided(tmp_path, capsys):
    dataset = Torchvision(name="FakeData", options=FAKE)
    train, test = (dataset.load(tmp_path, wanted) for wanted in (True, False))
    fake = torchvision.datasets.FakeData(60, (3, 40, 50), 3)
    pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image, _ in fake]
    expected = {
        fit_image(image, (3, 32, 32)).numpy().tobytes(): label for image, (_, label) in zip(pixels, fake, strict=True)
    }
    found = [*zip(train.images, train.labels, strict=True), *zip(test.images, test.labels, strict=True)]
    assert {image.numpy().tobytes(): int(label) for image, label in found} == {k: int(v) for k, v in expected.items()}
    counts = torch.tensor([int(label) for _, label in fake]).bincount()
    assert test.labels.bincount().tolist() == [round(int(n) / 5) for n in counts]
    assert f"its {len(test)} test images are a fifth of each class" in capsys.readouterr().out


def test_items_are_decoded_once(tmp_path, monkeypatch):
    first = Torchvision(name="FakeData", options=FAKE).load(tmp_path, train=True)
    (cache,) = (tmp_path / "decoded").iterdir()

    def forbidden(*args):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patch:
        patch.setattr(decoded, "_write", forbidden)
        again = Torchvision(name="FakeData", options=FAKE).load(tmp_path, train=True)
        assert torch.equal(again.images, first.images)
        assert torch.equal(again.labels, first.labels)
    other = Torchvision(name="FakeData", options={**FAKE, "random_offset": 9}).load(tmp_path, train=True)
    assert not torch.equal(other.images[:5], first.images[:5])
    assert cache.is_file()


def test_other_pixels_of_the_same_number_are_decoded_anew(splits, tmp_path):
    splits().load(tmp_path, train=False)
    changed = splits(__getitem__=lambda self, index: (Image.new("L", (8, 8), 200), self.labels[self.split][index]))
    assert changed.load(tmp_path, train=False).images.unique().tolist() == [200]


def test_names_may_be_given_and_then_no_file_is_opened(tmp_path):
    given = Torchvision(name="SVHN", class_names=tuple("0123456789"))
    assert len(Scenario("svhn", given, classes_per_experience=5).experiences(0, tmp_path)) == 2
    with pytest.raises(ExmlError, match=r"class_names names a class twice"):
        Torchvision(name="SVHN", class_names=("a", "a"))
    few = Torchvision(name="FakeData", options=FAKE, class_names=("a", "b"))
    with pytest.raises(ExmlError, match=r"FakeData, .* has labels 2, of no class: give class_names"):
        few.load(tmp_path, train=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "Svhn"}, r"dataset: torchvision has no data set Svhn; did you mean SVHN\?"),
        ({"name": "EMNIST"}, r"dataset: options of EMNIST: missing a required argument: 'split'"),
        ({"name": "SVHN", "options": {"download": True}}, r"give --data\.download true"),
        ({"name": "SVHN"}, r"dataset: SVHN cannot be opened in .*fetch them with --data\.download true"),
    ],
)
def test_what_cannot_be_opened_is_named_with_the_remedy(tmp_path, options, message):
    with pytest.raises(ExmlError, match=message):
        Torchvision(**options).open(tmp_path)


@pytest.mark.parametrize("label", [None, {"boxes": []}, torch.zeros(40), True, "a word", -1])
def test_a_set_without_a_single_label_an_image_is_refused(splits, tmp_path, label):
    dataset = splits(__getitem__=lambda self, index: (Image.new("L", (8, 8)), label))
    with pytest.raises(ExmlError, match="Splits has no single label an image: name a set for classification"):
        dataset.open(tmp_path)


def test_an_item_that_cannot_be_read_is_named(splits, tmp_path):
    def fails(self, index):
        raise OSError("cut")

    with pytest.raises(ExmlError, match=r"image 0 of Splits: reading it ended in OSError \(cut\): fetch it again"):
        splits(__getitem__=fails).open(tmp_path)


def test_both_splits_are_fetched_where_class_names_are_asked_for(splits, tmp_path):
    fetched = []

    def note(self, root, split="train", download=False):
        Splits.__init__(self, root, split, download)
        if download:
            fetched.append(split)

    dataset = splits(__init__=note, known=("train", "val"))
    dataset.open(tmp_path)
    assert fetched == []
    splits(__init__=note, known=("train", "val")).open(tmp_path, download=True)
    assert fetched == ["train", "val"]


@pytest.mark.real_data
@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_real_files_are_read_as_their_own_class_reads_them(tmp_path, kind):
    """But for antialiasing: what is smaller than the size is made larger."""
    if not (DATA / kind.source / "raw").is_dir():
        pytest.skip(f"data/{kind.source} is not there")
    dataset = Torchvision(name=kind.source, options={"root": str(DATA)}, channels=1)
    ours, theirs = dataset.load(tmp_path, train=False), kind().load(DATA, train=False)
    assert torch.equal(ours.labels, theirs.labels)
    assert torch.equal(ours.images, theirs.images)
    assert len(dataset.class_names) == 10
    assert Path(tmp_path / "decoded").is_dir()
