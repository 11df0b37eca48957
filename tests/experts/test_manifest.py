from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts import ExpertEntry, Manifest, read_manifest, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.manifest import PrivacySpent, check_manifest

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


def rewrite(folder: Path, change) -> None:
    """Write the manifest, and again as a person changed it."""
    write_manifest(MANIFEST, folder)
    raw = yaml.safe_load((folder / "manifest.yaml").read_text())
    change(raw)
    (folder / "manifest.yaml").write_text(yaml.safe_dump(raw))


def test_what_is_written_is_plain_yaml_and_read_back(tmp_path):
    more = {"privacy": PrivacySpent(float("inf"), 1e-5), "license": "CC-BY-4.0", "input": ImageFormat((3, 8, 9), (0.5,) * 3, (0.25,) * 3)}  # fmt: skip # noqa: E501
    manifest = replace(MANIFEST, run=None, experts=(replace(ENTRY, **more),))
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert manifest.classes_of(0) == [2, 0]
    raw = yaml.safe_load((tmp_path / "manifest.yaml").read_text())
    assert list(raw) == ["format", "scenario", "run", "class_names", "input", "experts"]
    assert (raw["format"], raw["run"]) == (1, None)
    assert raw["experts"][0]["classes"] == ["cat", "ant"]
    assert raw["experts"][0]["architecture"] == {
        "class_path": "exml_lightning.models.LeNet5",
        "init_args": {"num_classes": 3},
    }
    assert raw["experts"][0]["input"] == {"shape": [3, 8, 9], "mean": [0.5] * 3, "std": [0.25] * 3}


def test_the_shipped_manifest_is_written_as_it_is_read(digit_experts, tmp_path):
    """But for the optional keys of later versions, which are written as null."""
    write_manifest(read_manifest(digit_experts), tmp_path)
    was, now = (yaml.safe_load((folder / "manifest.yaml").read_text()) for folder in (digit_experts, tmp_path))
    for one, other in zip(was["experts"], now["experts"], strict=True):
        assert {key: value for key, value in other.items() if key in one or value is not None} == one
    assert {**now, "experts": was["experts"]} == was


def test_what_people_write_by_hand_is_understood(tmp_path):
    """Names that are numbers, a whole number for an accuracy, a hash in capitals, a date; no more than needed."""

    def change(raw):
        raw.update(class_names=[1, 2, 3], scenario="mine/first")
        del raw["run"]
        entry = {key: raw["experts"][0][key] for key in ("file", "architecture", "outputs")}
        entry.update(classes=[3, 1], accuracy=1, sha256="AB" * 32, training={"on": "DATE", "lr": None})
        entry["architecture"]["init_args"] = None
        raw["experts"] = [entry]

    rewrite(tmp_path, change)
    path = tmp_path / "manifest.yaml"
    path.write_text(path.read_text().replace("DATE", "2024-05-01"))
    manifest = read_manifest(tmp_path)
    entry = manifest.experts[0]
    assert (manifest.class_names, manifest.scenario, entry.classes) == (("1", "2", "3"), "mine/first", ("3", "1"))
    assert (entry.accuracy, entry.sha256, entry.training) == (1, "ab" * 32, {"on": "2024-05-01", "lr": None})
    assert (manifest.run, entry.task, entry.input, entry.license) == (None, 0, None, None)
    assert entry.architecture.init_args == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format=2), "format must be 1"),
        (lambda m: m.update(clas_names=m.pop("class_names")), "class_names: this key is .*; clas_names: there is no"),
        (lambda m: m.update(class_names=["ant", "ant", "cat"]), "class_names: one of them is there twice"),
        (lambda m: m.update(experts={}), "experts: Input should be a list"),
        (lambda m: m.update(experts=[]), "experts is empty"),
        (lambda m: m.update(scenario="../elsewhere"), "scenario: .*'../elsewhere' names folders of runs"),
        (lambda m: m["input"].update(std=[float("nan")]), r"input\.std\[0\]: Input should be a finite number"),
        (lambda m: m["input"].update(std=[0]), r"input: input std \[0\.0\] must be positive"),
        (lambda m: m["input"].update(shape=[1, 20_000, 20_000]), r"input: shape .* is too large"),
        (lambda m: m["experts"][0].update(accuracy=1.01), r"experts\[0\]\.accuracy: .* less than or equal to 1"),
        (lambda m: m["experts"][0].update(license="MIT\x1b[2J"), r"experts\[0\]\.license has control characters"),
        (lambda m: m["experts"][0].update(license="x" * 257), r"experts\[0\]\.license: .*: give 1 to 256 characters"),
        (lambda m: m["experts"][0].update(sha256="00"), r"experts\[0\]\.sha256: give 64 hexadecimal digits, in quotes"),
        (lambda m: m["experts"][0].update(file=".."), r"experts\[0\]\.file: '\.\.' must be a file of the same folder"),
        (lambda m: m["experts"][0].update(privacy={"epsilon": -1}), r"privacy\.epsilon: .* 0; .*privacy\.delta"),
        (lambda m: m["experts"][0].update(classes=["cat", "unicorn"]), r"experts\[0\]\.classes: \['unicorn'\] is not"),
        (lambda m: m["experts"][0].update(outputs=[1]), r"experts\[0\]\.outputs must name one output unit for each"),
        (lambda m: m["experts"][0].update(outputs=[1, 2**31]), r"experts\[0\]\.outputs\[1\]: .*less than or equal to"),
        (lambda m: m["experts"][0].update(training={1: 2}), r"experts\[0\]\.training: the key 1 must be text"),
        (lambda m: m["experts"][0]["architecture"].update(class_path="a b.c"), r"class_path: 'a b\.c': give the"),
        (lambda m: m["experts"][0]["architecture"].update(init_args={"a": 2**64}), r"init_args\.a is a number of more"),
        (lambda m: m["experts"][0]["architecture"].update(init_args={"trust_remote_code": 0}), "run code that comes"),
        (lambda m: m["experts"][0]["architecture"].update(init_args={"model_name": "hf-hub:a/b"}), "timm fetch"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_file_and_key(tmp_path, change, message):
    rewrite(tmp_path, change)
    with pytest.raises(ExmlError, match=message) as error:
        read_manifest(tmp_path)
    assert str(error.value).startswith(f"{tmp_path / 'manifest.yaml'}: ")
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is missing: there are no experts"),
        ("", "must be a mapping"),
        ("[]", "must be a mapping"),
        ("a: b: c", "is not YAML"),
    ],
)
def test_what_is_no_manifest_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "manifest.yaml").write_text(text)
    with pytest.raises(ExmlError, match=rf"manifest\.yaml.*{message}"):
        read_manifest(tmp_path)


def second(classes, first=ENTRY, **changes) -> Manifest:
    """A manifest whose second expert knows other classes."""
    other = replace(ENTRY, file="b.pt", sha256="01" * 32, classes=classes, outputs=tuple(range(len(classes))))
    names = tuple(dict.fromkeys((*MANIFEST.class_names, *first.classes, *classes)))
    return replace(MANIFEST, class_names=names, experts=(first, replace(other, **changes)))


@pytest.mark.parametrize(
    ("one", "other"),
    [("cat", "Cat"), ("cat", " cat"), ("cat", "c-a t"), ("traffic light", "Traffic_Light"), ("1-2", "1 2")],
)
def test_one_class_under_two_names_is_refused(one, other):
    """Whether it is to be written or read."""
    manifest = second((other, "dog"), replace(ENTRY, classes=(one,), outputs=(0,)))
    with pytest.raises(ExmlError) as error:
        check_manifest(manifest)
    said = f"one class has two names: {one!r} in expert_0.safetensors, {other!r} in b.pt; give it one name"
    assert said in str(error.value)


@pytest.mark.parametrize(
    "classes", [("cats", "cat"), ("CAT", "cat"), ("1", "-1"), ("class 1", "class 11"), ("été", "ete")]
)
def test_names_of_two_classes_are_left_alone(classes):
    """Among them upper and lower case in one expert, which tells the two apart; numbers of two experts."""
    check_manifest(second(classes))
    check_manifest(second(("1-2", "-1"), replace(ENTRY, classes=("12", "1"), outputs=(0, 1))))


def test_the_same_weights_know_the_same_classes_unless_tasks_differ():
    with pytest.raises(ExmlError, match=r"expert_0\.safetensors and b\.pt hold the same weights .*'cat', 'ant'.*'bee'"):
        check_manifest(second(("ant", "bee"), sha256="00" * 32))
    check_manifest(second(("bee", "dog"), sha256="00" * 32, task=1))
    check_manifest(second(("ant", "cat"), sha256="00" * 32, outputs=(0, 2)))


def test_a_class_belongs_to_one_task():
    with pytest.raises(ExmlError, match=rf"class '{ENTRY.classes[0]}' is of task 0 in .*, but of task 1 in b\.pt"):
        check_manifest(second(ENTRY.classes, task=1))
