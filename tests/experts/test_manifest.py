from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts import ExpertEntry, Manifest, read_manifest, write_manifest
from exml_lightning.experts.architecture import Architecture

ENTRY = ExpertEntry(
    file="expert_0.safetensors",
    sha256="00" * 32,
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


def test_a_licence_is_kept_and_need_not_be_there(tmp_path):
    write_manifest(replace(MANIFEST, experts=(replace(ENTRY, license="CC-BY-4.0"),)), tmp_path)
    assert read_manifest(tmp_path).experts[0].license == "CC-BY-4.0"
    raw = yaml.safe_load((tmp_path / "manifest.yaml").read_text())
    assert raw["format"] == 1
    assert raw["experts"][0].pop("license") == "CC-BY-4.0"  # files of before lack it
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(raw))
    assert read_manifest(tmp_path) == MANIFEST


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
        (lambda m: m.update(clas_names=[]), r"unknown keys \['clas_names'\]"),
        (lambda m: m.update(class_names=["ant", "ant", "cat"]), "twice"),
        (lambda m: m.update(experts={}), "experts must be a list"),
        (lambda m: m.update(experts=[]), "experts is empty"),
        (lambda m: m["input"].update(std=[float("nan")]), r"input\.std must be a number from"),
        (lambda m: m["experts"][0].update(classifier=["a"]), r"experts\[0\]\.classifier must be of type str"),
        (lambda m: m["experts"][0].update(accuracy="good"), r"experts\[0\]\.accuracy must be a number"),
        (lambda m: m["experts"][0].update(license=["MIT"]), r"experts\[0\]\.license must be of type str"),
        (lambda m: m["experts"][0].update(license="MIT\x1b[2J"), r"experts\[0\]\.license is .* none of them a control"),
        (lambda m: m["input"].update(shape=[1, 32]), r"input\.shape"),
        (lambda m: m["input"].update(std=[0]), "std"),
        (lambda m: m["experts"][0].pop("sha256"), r"experts\[0\]\.sha256 is missing"),
        (lambda m: m["experts"][0].update(classes=[]), r"experts\[0\]\.classes is empty"),
        (lambda m: m["experts"][0].update(classes=["cat", "unicorn"]), "unicorn"),
        (lambda m: m["experts"][0].update(outputs=[1]), r"experts\[0\]\.outputs"),
        (lambda m: m["experts"][0].update(outputs=[1, 1]), r"experts\[0\]\.outputs"),
        (lambda m: m["experts"][0].update(outputs=[1, "x"]), r"experts\[0\]\.outputs must be a whole number, not str"),
        (lambda m: m["experts"][0].update(file="../secret"), "without a path"),
        (lambda m: m["experts"][0]["architecture"].update(init_args=[1]), r"init_args must be a mapping"),
        (lambda m: m.update(scenario="../elsewhere"), "scenario '../elsewhere' names folders of runs"),
        (lambda m: m.update(run=True), "run must be a whole number, not bool"),
        (
            lambda m: m.update(class_names=["ant", "bee", "cat", True]),
            r"class_names\[3\] must be of type str, not bool",
        ),
        (lambda m: m["input"].update(shape=[1, 20_000, 20_000]), r"input\.shape .* is too large"),
        (lambda m: m["input"].update(mean=[True]), r"input\.mean must be a number, not bool"),
        (lambda m: m["experts"][0].update(sha256="00"), r"experts\[0\]\.sha256 must be 64 hexadecimal digits"),
        (lambda m: m["experts"][0].update(file=".."), "without a path"),
        (lambda m: m["experts"][0].update(outputs=[2, -1]), "a whole number from 0 to 2147483647"),
        (lambda m: m["experts"][0].update(outputs=[2, float("inf")]), "a whole number, not float"),
        (lambda m: m["experts"][0].update(accuracy=1.01), "accuracy must be a number from 0 to 1"),
        (lambda m: m["experts"][0].update(accuracy=float("nan")), "accuracy must be a number from 0 to 1"),
        (
            lambda m: m["experts"][0].update(classes=["cat", "a\x1b[2J"]),
            r"classes\[1\] is .* none of them a control character",
        ),
        (lambda m: m["experts"][0]["architecture"].update(class_path="a b.c"), "give the dotted path"),
        (lambda m: m["experts"][0]["architecture"].update(init_args={"a": 2**64}), r"init_args\.a is a number of more"),
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


def test_what_people_write_by_hand_is_understood(tmp_path):
    """Class names that are numbers, a whole number for an accuracy, a hash in capitals, a date."""

    def change(raw):
        raw.update(class_names=[1, 2, 3], scenario="mine/first")
        raw["experts"][0].update(classes=[3, 1], accuracy=1, sha256="AB" * 32, training={"on": "DATE", "lr": None})

    damage(tmp_path, change)
    path = tmp_path / "manifest.yaml"
    path.write_text(path.read_text().replace("DATE", "2024-05-01"))
    manifest = read_manifest(tmp_path)
    entry = manifest.experts[0]
    assert (manifest.class_names, manifest.scenario, entry.classes) == (("1", "2", "3"), "mine/first", ("3", "1"))
    assert (entry.accuracy, entry.sha256, entry.training) == (1, "ab" * 32, {"on": "2024-05-01", "lr": None})


def test_a_folder_without_experts_says_so(tmp_path):
    with pytest.raises(ExmlError, match="there are no experts in this folder"):
        read_manifest(tmp_path)


def second(classes, **changes):
    """A manifest whose second expert knows other classes."""
    other = replace(ENTRY, file="b.pt", sha256="01" * 32, classes=classes, outputs=tuple(range(len(classes))))
    names = tuple(dict.fromkeys((*MANIFEST.class_names, *classes)))
    return replace(MANIFEST, class_names=names, experts=(ENTRY, replace(other, **changes)))


@pytest.mark.parametrize("name", ["Cat", "CAT", " cat", "cat_", "c-a t"])
def test_one_class_under_two_names_is_refused(tmp_path, name):
    write_manifest(second((name, "dog")), tmp_path)
    with pytest.raises(ExmlError) as error:
        read_manifest(tmp_path)
    said = f"one class has two names: 'cat' in expert_0.safetensors, {name!r} in b.pt; give it one name"
    assert said in str(error.value)


@pytest.mark.parametrize(("one", "other"), [("traffic light", "Traffic_Light"), ("class 1", "class-1"), ("1-2", "1 2")])
def test_separators_make_no_other_class(tmp_path, one, other):
    manifest = second((other,))
    first = replace(ENTRY, classes=(one,), outputs=(0,))
    write_manifest(replace(manifest, class_names=(one, other), experts=(first, manifest.experts[1])), tmp_path)
    with pytest.raises(ExmlError, match="one class has two names"):
        read_manifest(tmp_path)


@pytest.mark.parametrize(
    "classes", [("cats", "cat"), ("CAT", "cat"), ("1", "-1"), ("1-2", "12"), ("class 1", "class 11"), ("été", "ete")]
)
def test_names_of_two_classes_are_left_alone(tmp_path, classes):
    """Among them upper and lower case in one expert, which tells the two apart."""
    manifest = second(classes)
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest


def test_numbers_of_two_experts_are_left_alone(tmp_path):
    manifest = second(("1-2", "-1"))
    first = replace(ENTRY, classes=("12", "1"), outputs=(0, 1))
    manifest = replace(manifest, class_names=("12", "1", "1-2", "-1"), experts=(first, manifest.experts[1]))
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest


def test_the_same_weights_know_the_same_classes_unless_tasks_differ(tmp_path):
    write_manifest(second(("ant", "bee"), sha256="00" * 32), tmp_path)
    with pytest.raises(ExmlError, match=r"expert_0\.safetensors and b\.pt hold the same weights .*'cat', 'ant'.*'bee'"):
        read_manifest(tmp_path)
    for same in (
        second(("bee", "dog"), sha256="00" * 32, task=1),
        second(("ant", "cat"), sha256="00" * 32, outputs=(0, 2)),
    ):
        write_manifest(same, tmp_path)
        assert read_manifest(tmp_path) == same


def test_an_interrupted_write_leaves_the_old_one(tmp_path, monkeypatch):
    write_manifest(MANIFEST, tmp_path)
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(ExmlError, match="disk full"):
        write_manifest(replace(MANIFEST, run=4), tmp_path)
    assert read_manifest(tmp_path) == MANIFEST
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.yaml"]


def test_a_class_belongs_to_one_task_and_tasks_count_from_0(tmp_path):
    write_manifest(second(ENTRY.classes, task=1), tmp_path)
    with pytest.raises(ExmlError, match=rf"class '{ENTRY.classes[0]}' is of task 0 in .*, but of task 1 in b\.pt"):
        read_manifest(tmp_path)
    write_manifest(second(("wolf",), task=-1), tmp_path)
    with pytest.raises(ExmlError, match=r"b\.pt has task -1: give 0 or more"):
        read_manifest(tmp_path)
