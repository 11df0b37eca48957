"""What the catalogue finds and says."""

import json
import os
from pathlib import Path

import pytest

from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts import ExpertEntry, Manifest, save_weights, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.catalog import find_experts, name_of, picked, print_catalog, record
from exml_lightning.experts.manifest import PrivacySpent

GREY = ImageFormat((1, 32, 32), (0.5,), (0.25,))
RGB = ImageFormat((3, 32, 32), (0.5,) * 3, (0.25,) * 3)


def write_experts(folder: Path, *classes: list[str], **more) -> None:
    """Write a manifest of experts whose files are not there."""
    folder.mkdir(parents=True)
    entries = [
        ExpertEntry(f"{k}.pt", f"{len(str(folder)) + k:064x}", Architecture("torchvision.models.resnet18"),
                    tuple(names), tuple(range(len(names))), **more)
        for k, names in enumerate(classes)
    ]  # fmt: skip
    names = dict.fromkeys(name for own in classes for name in own)
    write_manifest(Manifest("zoo", None, tuple(names), RGB, tuple(entries)), folder)


@pytest.fixture
def zoo(tmp_path, monkeypatch) -> tuple[int, str]:
    """An expert, and an ex-model deep down; returns the parameters and the hash of the expert."""
    monkeypatch.chdir(tmp_path)
    architecture = Architecture("exml_lightning.models.SlimResNet18", {"num_classes": 3, "width": 4})
    network = architecture.build("catalogue")
    for folder in ("b10", "b9/deep"):
        Path("zoo", folder).mkdir(parents=True)
    digest = save_weights(network, Path("zoo/b10/a.safetensors"))
    entry = ExpertEntry(
        "a.safetensors", digest, architecture, ("cat", "dog", "a name of many more letters"), (0, 1, 2), accuracy=0.875,
        privacy=PrivacySpent(float("inf"), 0.00037), license="CC-BY-4.0",
    )  # fmt: skip
    write_manifest(Manifest("b", None, entry.classes, RGB, (entry,)), Path("zoo/b10"))
    names = tuple(f"c{k}" for k in range(40))
    other = ExpertEntry("a.pt", "0" * 64, Architecture("my.Net"), names, tuple(range(40)), task=2, input=GREY,
                        training={"strategy": "two\nlines [red]"})  # fmt: skip
    write_manifest(Manifest("deep", None, names, RGB, (other,)), Path("zoo/b9/deep"))
    return sum(parameter.numel() for parameter in network.parameters()), digest  # without what batch norm counts


def test_the_table_has_a_row_an_expert_and_only_columns_with_something_in_them(zoo, capsys):
    print_catalog("zoo", find_experts([Path("zoo")])[0])
    out = capsys.readouterr().out
    assert out.startswith("zoo\n\n")
    for cell in ("zoo/b9/deep:0", "c0 c1 c2 c3 c4 c5 ... (40)", "Net", "1x32x32", "missing", "two?lines [red]",
                 "zoo/b10:0", "cat dog a name of many mor..", "SlimResNet18(width=4)", "3x32x32", "87.5 %",
                 "inf, 0.00037", f"{Path('zoo/b10/a.safetensors').stat().st_size / 1e6:.2f}",
                 f"{zoo[0]:,}"):  # fmt: skip
        assert cell in out
    lines = out.splitlines()
    assert len(lines) == 5  # natural order: b9 before b10
    assert lines[2].split() == ["expert", "classes", "architecture", "input", "accuracy", "epsilon,", "delta", "MB",
                                "parameters", "ex-model", "task"]  # fmt: skip
    print_catalog("zoo", find_experts([Path("zoo/b10")])[0])
    assert not {"ex-model", "task"} & set(capsys.readouterr().out.splitlines()[2].split())


def test_records_hold_all_of_it_for_json(zoo):
    deep, whole = (record(expert) for expert in find_experts([Path("zoo")])[0])
    assert json.loads(json.dumps(whole, allow_nan=False)) == {
        "folder": "zoo/b10", "expert": 0, "file": "a.safetensors", "sha256": zoo[1], "strategy": None,
        "classes": ["cat", "dog", "a name of many more letters"], "outputs": [0, 1, 2], "task": 0,
        "architecture": {"class_path": "exml_lightning.models.SlimResNet18",
                         "init_args": {"num_classes": 3, "width": 4}, "returns": None, "binary": False},
        "input": {"shape": [3, 32, 32], "mean": [0.5] * 3, "std": [0.25] * 3}, "accuracy": 0.875, "classifier": None,
        "privacy": {"epsilon": "inf", "delta": 0.00037}, "license": "CC-BY-4.0", "statistics": None, "training": {},
        "weights": None,
        "bytes": Path("zoo/b10/a.safetensors").stat().st_size, "parameters": zoo[0],
    }  # fmt: skip
    assert (deep["strategy"], deep["input"]["shape"]) == ("two\nlines [red]", [1, 32, 32])
    assert (deep["parameters"], deep["bytes"]) == (None, None)


def test_folders_are_found_once_at_any_depth(tmp_path):
    write_experts(tmp_path / "zoo", ["cat"])
    write_experts(tmp_path / "zoo" / "a" / "b" / "c", ["dog"], ["fox"])
    for name in (".hidden", "node_modules", "env"):
        write_experts(tmp_path / "zoo" / name, ["owl"])
    (tmp_path / "zoo" / "env" / "pyvenv.cfg").touch()
    write_experts(tmp_path / "apart", ["bee"])
    (tmp_path / "zoo" / "linked").symlink_to(tmp_path / "apart")
    (tmp_path / "zoo" / "again").symlink_to(tmp_path / "apart")
    (tmp_path / "zoo" / "a" / "loop").symlink_to(tmp_path / "zoo")
    (tmp_path / "zoo" / "up").symlink_to(tmp_path)
    (tmp_path / "zoo" / "itself").symlink_to(tmp_path / "zoo" / "itself")
    found, left_out = find_experts([tmp_path / "zoo", tmp_path / "zoo" / "a"])
    assert not left_out
    places = [(expert.folder.relative_to(tmp_path / "zoo").as_posix(), expert.classes) for expert in found]
    assert places == [(".", ("cat",)), ("a/b/c", ("dog",)), ("a/b/c", ("fox",)), ("again", ("bee",))]


def test_broken_folders_are_named_and_the_others_listed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("good", "tag", "escape"):
        write_experts(tmp_path / name, ["cat"])
    (tmp_path / "tag" / "manifest.yaml").write_text("!!python/object/apply:os.mkdir ['has_run']")
    text = (tmp_path / "escape" / "manifest.yaml").read_text()
    (tmp_path / "escape" / "manifest.yaml").write_text(text.replace("[cat]", '["\\e[2J\\e]0;title\\a"]'))
    for name in ("pipe", "gone", "odd\x1b[31m"):
        (tmp_path / name).mkdir()
    os.mkfifo(tmp_path / "pipe" / "manifest.yaml")
    (tmp_path / "gone" / "manifest.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "odd\x1b[31m" / "manifest.yaml").write_text("[")
    found, left_out = find_experts([tmp_path])
    assert [expert.folder.name for expert in found] == ["good"]
    assert len(left_out) == 5
    for name in ("tag", "escape", "pipe", "gone", "odd?[31m"):
        assert sum(line.startswith(f"{tmp_path}/{name}/manifest.yaml") for line in left_out) == 1, name
    assert "\x1b" not in "".join(left_out)
    assert not Path("has_run").exists()


def test_experts_are_picked_by_folder_and_number_in_that_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_experts(Path("a"), ["cat"], ["dog"])
    write_experts(Path("b"), ["fox"])
    found = find_experts([Path()])[0]
    assert [name_of(expert) for expert in picked(found, ["b:0", "./a/:1"])] == ["b:0", "a:1"]
    for words, message in {
        "a": "--pick a: give FOLDER:NUMBER",
        "a:-1": "--pick a:-1: give FOLDER:NUMBER",
        "a:2": "--pick a:2 is not among the experts listed; there is 'a:1', 'a:0'",
        "./a:1": "--pick names ./a:1 twice",
    }.items():
        with pytest.raises(ExmlError, match=message):
            picked(found, ["a:1", words])
    for place, message in {"none": "none does not exist", "a/manifest.yaml": "yaml is a file: name its folder"}.items():
        with pytest.raises(ExmlError, match=message):
            find_experts([Path(place)])
