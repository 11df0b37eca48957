from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts import ExpertEntry, Manifest, read_manifest, write_manifest
from exml_lightning.models import Architecture

ENTRY = ExpertEntry(
    file="expert_0.safetensors",
    sha256="00",
    architecture=Architecture("exml_lightning.models.LeNet5", {"num_classes": 3}),
    classes=("cat", "ant"),
    outputs=(2, 0),
    classifier="classifier",
    accuracy=0.75,
    training={"epochs": 2},
)
MANIFEST = Manifest("tiny", 3, ("ant", "bee", "cat"), ImageFormat((1, 32, 32), (0.1,), (0.3,)), (ENTRY,))


def test_write_and_read(tmp_path):
    write_manifest(MANIFEST, tmp_path)
    assert read_manifest(tmp_path) == MANIFEST
    raw = yaml.safe_load((tmp_path / "manifest.yaml").read_text())
    assert raw["format"] == 1
    assert raw["experts"][0]["classes"] == ["cat", "ant"]
    assert raw["experts"][0]["architecture"]["class_path"] == "exml_lightning.models.LeNet5"


def test_classes_are_class_indices_in_the_order_of_the_outputs():
    assert MANIFEST.classes_of(0) == [2, 0]


def damage(tmp_path: Path, change) -> None:
    write_manifest(MANIFEST, tmp_path)
    raw = yaml.safe_load((tmp_path / "manifest.yaml").read_text())
    change(raw)
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(raw))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.pop("format"), "format must be 1"),
        (lambda m: m.update(format=2), "format must be 1"),
        (lambda m: m.pop("class_names"), "class_names is missing"),
        (lambda m: m.update(clas_names=[]), "unknown keys .'clas_names'"),
        (lambda m: m.update(class_names=["ant", "ant", "cat"]), "twice"),
        (lambda m: m.update(experts={}), "experts must be a list"),
        (lambda m: m.update(experts=[]), "experts is empty"),
        (lambda m: m["input"].update(std=[float("nan")]), "finite"),
        (lambda m: m["experts"][0].update(classifier=["a"]), "classifier must be of type str"),
        (lambda m: m["experts"][0].update(accuracy="good"), "accuracy must be of type float"),
        (lambda m: m["input"].update(shape=[1, 32]), r"input\.shape"),
        (lambda m: m["input"].update(std=[0]), "std"),
        (lambda m: m["experts"][0].pop("sha256"), r"experts\[0\]\.sha256 is missing"),
        (lambda m: m["experts"][0].update(classes=[]), r"experts\[0\]\.classes is empty"),
        (lambda m: m["experts"][0].update(classes=["cat", "unicorn"]), "unicorn"),
        (lambda m: m["experts"][0].update(outputs=[1]), r"experts\[0\]\.outputs"),
        (lambda m: m["experts"][0].update(outputs=[1, 1]), r"experts\[0\]\.outputs"),
        (lambda m: m["experts"][0].update(outputs=[1, "x"]), "invalid literal"),
        (lambda m: m["experts"][0].update(file="../secret"), "without a path"),
        (lambda m: m["experts"][0]["architecture"].update(init_args=[1]), r"init_args must be a mapping"),
    ],
)
def test_what_is_wrong_is_named_with_the_file(tmp_path, change, message):
    damage(tmp_path, change)
    with pytest.raises(ExmlError, match=message) as error:
        read_manifest(tmp_path)
    assert str(tmp_path / "manifest.yaml") in str(error.value)


@pytest.mark.parametrize("text", ["", "[]", "a: b: c", "\x00", "just words"])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    (tmp_path / "manifest.yaml").write_text(text)
    with pytest.raises(ExmlError, match=r"manifest\.yaml"):
        read_manifest(tmp_path)


def test_a_folder_without_experts_says_so(tmp_path):
    with pytest.raises(ExmlError, match="there are no experts in this folder"):
        read_manifest(tmp_path)


def test_an_interrupted_write_leaves_the_old_one(tmp_path, monkeypatch):
    write_manifest(MANIFEST, tmp_path)
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_manifest(replace(MANIFEST, run=4), tmp_path)
    assert read_manifest(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.yaml"]
