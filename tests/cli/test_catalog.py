"""`exml catalog`, and `exml fit` of what was selected."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from exml_lightning.cli.main import main
from exml_lightning.core.images import ImageFormat
from exml_lightning.experts import ExpertEntry, Manifest, read_manifest, save_weights, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.catalog_find import find_experts
from exml_lightning.experts.manifest import PrivacySpent
from tests.conftest import ROOT, refused

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
def two(digit_experts, tmp_path, monkeypatch) -> Path:
    """Two copies of the shipped experts, in the working directory."""
    for name in ("one", "two"):
        shutil.copytree(digit_experts, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(out: str) -> list[list[str]]:
    """The cells of a table that is not folded: headings, folders and experts."""
    lines = [line for line in out.splitlines()[1:] if line.strip()]
    return [re.split(r"\s{2,}", line.strip()) for line in lines]


def test_the_table_and_the_records(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    architecture = Architecture("exml_lightning.models.SlimResNet18", {"num_classes": 3, "width": 4})
    network = architecture.build("catalogue")
    (tmp_path / "zoo" / "b10").mkdir(parents=True)
    (tmp_path / "zoo" / "b9" / "deep").mkdir(parents=True)
    digest = save_weights(network, tmp_path / "zoo" / "b10" / "a.safetensors")
    entry = ExpertEntry(
        "a.safetensors", digest, architecture, ("cat", "dog", "a name of many more letters"), (0, 1, 2), accuracy=0.875,
        privacy=PrivacySpent(7.99, 0.00037), license="CC-BY-4.0",
    )  # fmt: skip
    write_manifest(Manifest("b", None, entry.classes, RGB, (entry,)), tmp_path / "zoo" / "b10")
    torch.save(network.state_dict(), tmp_path / "zoo" / "b9" / "deep" / "a.pt")
    names = tuple(f"c{k}" for k in range(40))
    other = ExpertEntry(
        "a.pt", "0" * 64, Architecture("my.Net"), names, tuple(range(40)), input=GREY,
        training={"strategy": "model_inversion", "expert_licenses": ["MIT", None]},
    )  # fmt: skip
    write_manifest(Manifest("deep", None, names, RGB, (other,)), tmp_path / "zoo" / "b9" / "deep")

    main(["catalog", "zoo"])
    out = capsys.readouterr().out
    assert out.startswith("zoo: 2 experts\n")
    count = sum(parameter.numel() for parameter in network.parameters())  # without what batch norm counts
    size = (tmp_path / "zoo" / "b10" / "a.safetensors").stat().st_size
    assert table(out) == [
        ["expert", "classes", "architecture", "input", "accuracy", "epsilon, delta", "MB", "parameters", "licence",
         "ex-model"],
        ["zoo/b9/deep"],
        ["0", "c0 c1 c2 c3 c4 c5 ... (40)", "Net", "1x32x32",
         f"{(tmp_path / 'zoo' / 'b9' / 'deep' / 'a.pt').stat().st_size / 1e6:.2f}", "its experts': MIT, not stated",
         "model_inversion"],
        ["zoo/b10"],
        ["0", "cat dog a name of many mor..", "SlimResNet18(width=4)", "3x32x32", "87.5 %", "7.99, 0.00037",
         f"{size / 1e6:.2f}", f"{count:,}", "CC-BY-4.0"],
    ]  # fmt: skip

    main(["catalog", "zoo", "--json"])
    records = json.loads(capsys.readouterr().out)
    assert records[1] == {
        "folder": "zoo/b10", "expert": 0, "file": "a.safetensors", "sha256": digest, "strategy": None,
        "classes": ["cat", "dog", "a name of many more letters"], "task": 0,
        "architecture": {"class_path": "exml_lightning.models.SlimResNet18", "init_args": architecture.init_args},
        "input": {"shape": [3, 32, 32], "mean": [0.5] * 3, "std": [0.25] * 3}, "accuracy": 0.875,
        "privacy": {"epsilon": 7.99, "delta": 0.00037}, "bytes": size, "parameters": count, "licenses": ["CC-BY-4.0"],
    }  # fmt: skip
    assert records[0]["strategy"] == "model_inversion"
    assert records[0]["licenses"] == ["MIT", None]
    assert records[0]["parameters"] is None


def test_torch_is_not_imported(two):
    code = """
import sys
from exml_lightning.cli.main import main
main(["catalog", "one", "two", "--pick", "two:3", "one:0", "--output", "s.yaml"])
print("torch" in sys.modules or "lightning" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "two\n     3  " in out
    assert "s.yaml: 2 experts in this order" in out
    assert out.endswith("False\n")


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
    found = find_experts([tmp_path / "zoo", tmp_path / "zoo" / "a"])
    assert not found.left_out
    places = [
        (expert.folder.relative_to(tmp_path / "zoo").as_posix(), expert.entry.classes) for expert in found.experts
    ]
    assert places == [(".", ("cat",)), ("a/b/c", ("dog",)), ("a/b/c", ("fox",)), ("again", ("bee",))]


def test_broken_folders_are_named_and_the_others_listed(tmp_path, capsys):
    write_experts(tmp_path / "good", ["cat"])
    write_experts(tmp_path / "tag", ["cat"])
    (tmp_path / "tag" / "manifest.yaml").write_text("!!python/object/apply:os.system ['touch has_run']")
    write_experts(tmp_path / "escape", ["cat"])
    text = (tmp_path / "escape" / "manifest.yaml").read_text()
    (tmp_path / "escape" / "manifest.yaml").write_text(text.replace("[cat]", '["\\e[2J\\e]0;title\\a"]'))
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "manifest.yaml")
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "manifest.yaml").symlink_to(tmp_path / "nowhere")
    (tmp_path / "odd\x1b[31m").mkdir()
    (tmp_path / "odd\x1b[31m" / "manifest.yaml").write_text("[")
    main(["catalog", str(tmp_path)])
    captured = capsys.readouterr()
    assert ": 1 expert\n" in captured.out
    lines = captured.err.splitlines()
    assert len(lines) == 5
    assert all(line.startswith(f"left out: {tmp_path}") for line in lines)
    for name in ("tag", "escape", "pipe", "gone", "odd?[31m"):
        assert sum(f"/{name}/manifest.yaml" in line for line in lines) == 1, name
    assert "\x1b" not in captured.err + captured.out
    assert not Path("has_run").exists()


def test_odd_words_of_a_manifest_are_printed_plainly(tmp_path, capsys):
    training = {"strategy": "two\nlines", "expert_licenses": {"a": 1}}
    write_experts(tmp_path / "zoo\x1b[31m", ["[red]cat[/red]"], training=training)
    main(["catalog", str(tmp_path)])
    out = capsys.readouterr().out
    assert "[red]cat[/red]" in out
    assert "two?lines" in out
    assert "zoo?[31m\n" in out
    assert "\x1b" not in out
    output = str(tmp_path / "s.yaml")
    assert "none of them a control character" in refused(["catalog", str(tmp_path), "--output", output], capsys)
    assert not Path(output).exists()


def test_filters(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_experts(Path("a"), ["cat", "dog"], ["fox"], accuracy=0.9)
    write_experts(Path("b"), ["dog", "owl"])

    def listed(*options: str) -> list[str]:
        main(["catalog", ".", "--json", *options])
        return [f"{one['folder']}:{one['expert']}" for one in json.loads(capsys.readouterr().out)]

    assert listed() == ["a:0", "a:1", "b:0"]
    assert listed("--classes", "dog") == ["a:0", "b:0"]
    assert listed("--classes", "owl", "fox") == ["a:1", "b:0"]
    assert listed("--min_accuracy", "0.9") == ["a:0", "a:1"]
    assert listed("--architecture", "ResNet18") == ["a:0", "a:1", "b:0"]
    assert listed("--architecture", "lenet") == []
    assert listed("--pick", "b:0", "./a/:1") == ["b:0", "a:1"]
    main(["catalog", "a", "b", "--classes", "dog"])
    assert "a b: 2 of 3 experts" in capsys.readouterr().out


def test_a_narrow_terminal_folds_cells_and_cuts_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("exml_lightning.experts.catalog_rows.WIDE", 80)
    deep = Path("a_folder_of_a_long_name", *("deeper" for _ in range(8)))
    write_experts(
        deep,
        ["cat", "dog", "elephant", "hippopotamus", "a very long name"],
        license="abcdefghijklmnopqrstuvwxyz0123456789",
    )
    main(["catalog", "."])
    lines = capsys.readouterr().out.splitlines()
    assert f"{deep}" in lines  # on one line, to be copied
    assert max(len(line) for line in lines if line != str(deep)) <= 80
    rows = lines[lines.index(str(deep)) + 1 :]
    end = lines[2].index("licence")
    assert "".join(line[end:].strip() for line in rows) == "abcdefghijklmnopqrstuvwxyz0123456789"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["none"], "none does not exist"),
        (["a/manifest.yaml"], "a/manifest.yaml is a file: name its folder"),
        (["empty"], "empty: no folder of experts there, or below"),
        (["a", "--classes", "cta"], "--classes cta: no expert knows this class; did you mean 'cat'?"),
        (["a", "--classes", "DOG"], "did you mean 'dog'?"),
        (["a", "--classes", "cat", "zebra"], "--classes zebra: no expert knows this class; they know 'cat', 'dog'"),
        (["a", "--min_accuracy", "90"], "--min_accuracy is 90.0: give a fraction"),
        (["a", "--pick", "a"], "--pick a: give FOLDER:NUMBER"),
        (["a", "--pick", "a:-1"], "--pick a:-1: give FOLDER:NUMBER"),
        (["a", "--pick", "a:2"], "--pick a:2 is not among the experts listed; there is 'a:1', 'a:0'"),
        (["a", "--pick", "a:1", "./a:1"], "--pick names ./a:1 twice"),
        (["a", "--output", "s.txt"], "--output s.txt: name a file of its own that ends in .yaml"),
        (["a", "--output", "manifest.yaml"], "name a file of its own"),
        (["a", "--output", "there.yaml"], "there.yaml is there already"),
        (["a", "--output", "a/manifest.yaml/s.yaml"], "is a file"),
        (["a", "--architecture", "vgg", "--output", "s.yaml"], "nothing to write into s.yaml"),
    ],
)
def test_errors(tmp_path, monkeypatch, capsys, options, message):
    monkeypatch.chdir(tmp_path)
    write_experts(Path("a"), ["cat"], ["dog"])
    Path("empty").mkdir()
    Path("there.yaml").write_text("mine")
    assert message in refused(["catalog", *options], capsys)
    assert not Path("s.yaml").exists()
    assert Path("there.yaml").read_text() == "mine"


def test_what_cannot_be_learned_together_is_said(two, capsys):
    assert "are the same expert (sha256)" in refused(
        ["catalog", "one", "two", "--pick", "one:0", "two:0", "--output", "s.yaml"], capsys
    )
    assert not Path("s.yaml").exists()
    main(["catalog", "one", "two", "--output", "s.yaml"])  # lines are still to be deleted by hand
    out = capsys.readouterr().out
    assert "`exml fit` will not take it as it is: experts[0] (one, expert 0) and experts[5] (two, expert 0)" in out
    assert len(yaml.safe_load(Path("s.yaml").read_text())["experts"]) == 10
    assert "are the same expert (sha256)" in refused(["fit", *FROM_FOLDER, "--data.experts", "s.yaml"], capsys)


FROM_FOLDER = ["-c", str(ROOT / "configs" / "from_folder.yaml")]


def fit(experts: str, *options: str) -> None:
    """Fit a few steps of noise, into ``runs/<name>/noise/run0``."""
    overlay = {
        "trainer": {"enable_progress_bar": False, "accelerator": "cpu"},
        "data": {"n_iter": 3, "batch_size": 4},
        "buffer": {"size": 12, "cache": None, "generator": {"class_path": "Noise"}},
    }
    Path("small.yaml").write_text(yaml.safe_dump(overlay))
    main(["fit", *FROM_FOLDER, "-c", "small.yaml", "--data.experts", experts, *options])


def stream_of(run: Path) -> dict:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["ExpertStream"]


def test_a_selection_is_learned_in_its_order_and_grows(two, capsys):
    shipped = read_manifest(two / "one").experts
    raw = yaml.safe_load(Path("two/manifest.yaml").read_text())
    raw["experts"][3]["license"] = "CC-BY-4.0"
    Path("two/manifest.yaml").write_text(yaml.safe_dump(raw))
    main(["catalog", "one", "two", "--pick", "two:3", "one:0", "--output", "picked.yaml"])
    fit("picked.yaml")
    run = Path("runs/picked/noise/run0")
    manifest = read_manifest(run / "ex_model")
    classes = (*shipped[3].classes, *shipped[0].classes)
    assert set(classes) == {"1", "7", "4", "5"}
    assert manifest.class_names == manifest.experts[0].classes == classes
    assert manifest.experts[0].license is None  # whoever hands it on says
    assert manifest.experts[0].training["expert_licenses"] == ["CC-BY-4.0", None]
    capsys.readouterr()
    main(["catalog", "runs"])
    assert table(capsys.readouterr().out)[2][-2:] == ["its experts': CC-BY-4.0, not stated", "noise"]
    stream = stream_of(run)
    assert stream["learned"] == [shipped[3].sha256, shipped[0].sha256]
    assert stream["class_names"] == list(classes)
    labels, experiences = stream["buffer"]["labels"], stream["buffer"]["experiences"]
    assert set(labels[experiences == 0].tolist()) <= {0, 1}
    assert set(labels[experiences == 1].tolist()) <= {2, 3}
    before = torch.load(run / "checkpoints" / "experience=1.ckpt", weights_only=True)["state_dict"]

    # growth: a line at the end; what was learned is not read again, so its weights may be gone
    with Path("picked.yaml").open("a") as file:
        file.write("- {folder: two, file: expert_4.safetensors}\n")
    Path("two/expert_3.safetensors").unlink()
    Path("one/expert_0.safetensors").unlink()
    fit("picked.yaml", "--ckpt_path", "last")
    assert stream_of(run)["learned"] == [shipped[k].sha256 for k in (3, 0, 4)]
    assert read_manifest(run / "ex_model").class_names == (*classes, *shipped[4].classes)
    again = torch.load(run / "checkpoints" / "experience=1.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(before[name], again[name]) for name in before)

    # another order is another run
    lines = Path("picked.yaml").read_text().splitlines()
    Path("picked.yaml").write_text("\n".join([*lines[:4], lines[5], lines[4], lines[6]]))
    command = ["fit", *FROM_FOLDER, "-c", "small.yaml", "--data.experts", "picked.yaml", "--ckpt_path", "last"]
    capsys.readouterr()
    assert "the checkpoint knows the classes ['1', '7', '5', '4', '0', '3'], but" in refused(command, capsys)


@pytest.mark.slow
def test_a_selection_that_was_stopped_goes_on(two):
    main(["catalog", "one", "two", "--pick", "one:3", "two:0", "--output", "whole.yaml"])
    shutil.copy("whole.yaml", "part.yaml")
    fit("whole.yaml")
    fit("part.yaml", "--trainer.max_epochs", "1")
    fit("part.yaml", "--ckpt_path", "last")
    files = [f"runs/{name}/noise/run0/ex_model/expert_0.safetensors" for name in ("whole", "part")]
    assert Path(files[0]).read_bytes() == Path(files[1]).read_bytes()


def test_errors_come_before_work(two, capsys):
    main(["catalog", "one", "two", "--pick", "one:3", "two:0", "--output", "s.yaml"])
    capsys.readouterr()
    command = ["fit", *FROM_FOLDER, "--data.experts", "s.yaml"]
    Path("two/expert_0.safetensors").write_bytes(Path("two/expert_1.safetensors").read_bytes())
    assert "two/expert_0.safetensors has another hash (sha256) than the manifest says" in refused(command, capsys)
    manifest = Path("two/manifest.yaml").read_text()
    first, second = (entry.sha256 for entry in read_manifest(two / "one").experts[:2])
    Path("two/manifest.yaml").write_text(manifest.replace(first, "f" * 64).replace(second, first))
    assert "s.yaml: experts[1]: expert 0 of two has other weights (sha256) than when" in refused(command, capsys)
    shutil.rmtree("two")
    assert "s.yaml: experts[1].folder: two is not there" in refused(command, capsys)
    missing = refused(["fit", *FROM_FOLDER, "--data.experts", "t.yaml"], capsys)
    assert "t.yaml is missing: write a selection with `exml catalog DIR... --output t.yaml`" in missing
    train = ["experts", "-c", str(ROOT / "configs" / "split_digits.yaml"), "--data.experts", "s.yaml"]
    assert "s.yaml is a selection: experts are trained into a folder" in refused(train, capsys)
    assert not Path("runs").exists()


@pytest.mark.slow
def test_other_verbs_take_a_selection(two, capsys):
    main(["catalog", "one", "two", "--pick", *(f"{('one', 'two')[k % 2]}:{k}" for k in range(5)), "--output", "s.yaml"])
    scenario = str(ROOT / "configs" / "split_digits.yaml")
    baseline = str(ROOT / "configs" / "baselines" / "oracle.yaml")
    found = {}
    for experts in ("s.yaml", "one"):
        options = ["--data.experts", experts, "--trainer.default_root_dir", f"test_{experts}"]
        main(["test", "-c", scenario, "-c", baseline, *options, "--trainer.enable_progress_bar", "false"])
        found[experts] = json.loads(Path(f"test_{experts}/test.json").read_text())["accuracy_per_experience"]
    assert found["s.yaml"] == found["one"]
    assert min(found["s.yaml"]) > 0.9
    main(["generate", "--data.experts", "s.yaml", "--generate.expert", "1", "--generate.num_samples", "2",
          "--buffer.generator", "Noise", "--trainer.accelerator", "cpu"])  # fmt: skip
    assert Path("generated/s/run0/expert_1.safetensors").is_file()
    capsys.readouterr()
    Path("configs").symlink_to(ROOT / "configs")
    main(["sweep", "--scenarios", "from_folder", "--strategies", "noise", "--runs", "0", "--dry_run",
          "--set", "{data.experts: s.yaml}"])  # fmt: skip
    line = capsys.readouterr().out
    assert "runs/s/noise/run0" in line
    assert "exml experts" not in line
