import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts import ExpertEntry, Manifest, load_expert, read_manifest, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.selection import choose, is_selection, read_experts, read_selection, write_selection

GREY, RGB = ImageFormat((1, 8, 8), (0.5,), (0.25,)), ImageFormat((3, 16, 16), (0.5,) * 3, (0.2,) * 3)
NET = Architecture("torch.nn.Linear", {"in_features": 2, "out_features": 2})


def entry(letter: str, *classes: str, **more) -> ExpertEntry:
    outputs = tuple(range(len(classes)))
    return ExpertEntry(f"{letter}.pt", letter * 64, NET, classes, outputs, **more)


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """Two folders: of grey images (one of them RGB), and of RGB images."""
    (tmp_path / "zoo" / "one").mkdir(parents=True)
    (tmp_path / "zoo" / "two").mkdir()
    one = (entry("a", "cat", "dog"), entry("b", "fox", input=RGB), entry("c", "owl", "cat"))
    write_manifest(Manifest("one", 3, ("owl", "fox", "dog", "cat"), GREY, one), tmp_path / "zoo" / "one")
    two = (entry("d", "bee", "fox"), entry("e", "ant", input=GREY))
    write_manifest(Manifest("two", None, ("ant", "bee", "fox"), RGB, two), tmp_path / "zoo" / "two")
    return tmp_path / "zoo"


def select(folder: Path, *lines: dict, **changes) -> Path:
    path = folder / "pets.yaml"
    path.write_text(yaml.safe_dump({"format": 1, "experts": list(lines), **changes}))
    return path


def test_experts_of_two_folders_become_one_stream(zoo):
    first, last = {"folder": "two", "expert": 0, "sha256": "D" * 64}, {"folder": str(zoo / "two"), "expert": 1}
    path = select(zoo, first, {"folder": "one", "expert": 2}, {"folder": "one", "file": "b.pt"}, last)
    manifest = read_selection(path)
    assert (manifest.scenario, manifest.run) == ("pets", None)
    assert manifest.class_names == ("bee", "fox", "owl", "cat", "ant")  # as the experts bring them; no dog
    assert [manifest.classes_of(k) for k in range(4)] == [[0, 1], [2, 3], [1], [4]]
    assert manifest.input == RGB  # of the first expert
    assert [e.input for e in manifest.experts] == [None, GREY, None, GREY]
    assert [e.path(path) for e in manifest.experts] == [zoo / f"{n}.pt" for n in ("two/d", "one/c", "one/b", "two/e")]
    assert replace(manifest.experts[0], task=3).path(zoo) == zoo / "two" / "d.pt"  # as a scenario gives tasks


def test_written_and_read_from_elsewhere(zoo, tmp_path):
    one, two = read_manifest(zoo / "one"), read_manifest(zoo / "two")
    (tmp_path / "lists").mkdir()
    path = tmp_path / "lists" / "pets.yaml"
    write_selection(path, [choose(zoo / "two", two, 1), choose(zoo / "one", one, 0)])
    lines = [line for line in path.read_text().splitlines() if line.startswith("- ")]
    assert lines == [
        f"- {{folder: ../zoo/two, expert: 1, sha256: {'e' * 64}}}  # ant",
        f"- {{folder: ../zoo/one, expert: 0, sha256: {'a' * 64}}}  # cat dog",
    ]
    assert read_experts(path).class_names == ("ant", "cat", "dog")
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    shutil.move(tmp_path / "lists", moved / "lists")
    shutil.move(zoo, moved / "zoo")
    assert read_experts(moved / "lists" / "pets.yaml").class_names == ("ant", "cat", "dog")


ANT, FOX = {"folder": "two", "expert": 1}, {"folder": "one", "expert": 1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "experts is empty"),
        ([ANT, {"folder": "three", "expert": 0}], r"experts\[1\]\.folder: .*three is not there"),
        ([{**FOX, "expert": 3}], r"experts\[0\]\.expert is 3, but .*one.manifest.yaml has experts 0 to 2"),
        ([{**FOX, "sha256": "a" * 64}], r"experts\[0\]: expert 1 of .*one has other weights \(sha256\) than when"),
        ([ANT, FOX, ANT], r"experts\[0\] .*two, expert 1.* and experts\[2\] .* are the same expert"),
        ([{"folder": "one", "file": "z.pt"}], r"experts\[0\]\.file 'z\.pt': no expert of the folder has it"),
        ([{"folder": "one", "file": "../two/d.pt"}], "must be a file of the same folder, without a path"),
        ([{"folder": "one"}], r"experts\[0\]: give `expert`, its number in the folder, or `file`, and not both"),
        ([{"folder": "a\x1b[2Jb", "expert": 0}], r"experts\[0\]\.folder has control characters"),
        ([{"folder": "x" * 5000, "expert": 0}], r"experts\[0\]\.folder: .* must be a path of 1 to 4096"),
        (["one"], r"experts\[0\]: Input should be a mapping"),
    ],
)
def test_errors_name_the_file_and_the_line(zoo, lines, message):
    path = select(zoo, *lines)
    with pytest.raises(ExmlError, match=message) as raised:
        read_selection(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert str(raised.value).isprintable()


def test_other_files_are_no_selections(zoo):
    with pytest.raises(ExmlError, match=r"pets\.yaml is missing: write a selection with `exml catalog"):
        read_experts(zoo / "pets.yaml")
    with pytest.raises(ExmlError, match=r"is the manifest of a folder of experts: give the folder, .*one"):
        read_experts(zoo / "one" / "manifest.yaml")
    with pytest.raises(ExmlError, match="format must be 1"):
        read_experts(select(zoo, ANT, format=2))
    with pytest.raises(ExmlError, match="scenario: there is no such key"):
        read_experts(select(zoo, ANT, scenario="../../etc"))
    assert [is_selection(zoo / name) for name in ("pets.yaml", "new.yml", "one", "none")] == [True, True, False, False]


def test_experts_that_cannot_be_one_stream(zoo):
    write_manifest(Manifest("two", None, ("Cat",), GREY, (entry("f", "Cat"),)), zoo / "two")
    path = select(zoo, {"folder": "one", "expert": 0}, {"folder": "two", "expert": 0})
    with pytest.raises(ExmlError, match=r"'cat' in .*one/a\.pt, 'Cat' in .*two/f\.pt; give it one name"):
        read_selection(path)
    write_manifest(Manifest("two", None, ("cat",), GREY, (entry("f", "cat", task=1),)), zoo / "two")
    with pytest.raises(ExmlError, match=r"class 'cat' is of task 0 in .*one/a\.pt, but of task 1 in .*two/f\.pt"):
        read_selection(path)


def test_a_manifest_still_names_files_of_its_own_folder(zoo):
    for change in ({"file": "../two/d.pt"}, {"folder": "../two"}):
        raw = yaml.safe_load((zoo / "one" / "manifest.yaml").read_text())
        raw["experts"][0].update(change)
        (zoo / "bad").mkdir(exist_ok=True)
        (zoo / "bad" / "manifest.yaml").write_text(yaml.safe_dump(raw))
        with pytest.raises(ExmlError, match=r"experts\[0\]: .*bad.manifest\.yaml: .*(without a path|no such key)"):
            read_selection(select(zoo, {"folder": "bad", "expert": 0}))


def test_code_beside_another_folder_is_not_run(zoo, tmp_path, monkeypatch):
    """A folder of the selection may not bring the code that the manifest of another one names."""
    monkeypatch.syspath_prepend(tmp_path)
    (zoo / "two" / "net.py").write_text("raise SystemExit('has run')")
    evil = replace(entry("f", "cat"), architecture=Architecture("zoo.two.net.Net", {}))
    (tmp_path / "apart").mkdir()
    write_manifest(Manifest("apart", None, ("cat",), GREY, (evil,)), tmp_path / "apart")
    read_manifest(tmp_path / "apart")  # alone, it is the user's own code
    lines = {"folder": "../apart", "expert": 0}, {"folder": "two", "expert": 0}
    with pytest.raises(ExmlError, match="is code beside the experts"):
        read_selection(select(zoo, *lines))


def test_weights_are_read_from_the_folder_of_each(digit_experts, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(digit_experts, tmp_path / name)
    path = select(tmp_path, {"folder": "two", "expert": 3}, {"folder": "one", "expert": 0})
    manifest = read_selection(path)
    expert = load_expert(path, manifest, 1)
    assert expert.classes.tolist() == [2, 3]  # after the two of the first
    assert expert.outputs.tolist() == list(read_manifest(digit_experts).experts[0].outputs)
    (tmp_path / "two" / "expert_3.safetensors").write_bytes(b"other")
    with pytest.raises(ExmlError, match=r"two/expert_3\.safetensors has another hash"):
        load_expert(path, manifest, 0)
    shutil.rmtree(tmp_path / "two")
    load_expert(path, manifest, 1)
