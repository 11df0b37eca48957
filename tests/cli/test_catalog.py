"""`exml catalog`, and `exml fit` of what was selected."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from exml_lightning.cli.main import main
from exml_lightning.experts import read_manifest
from tests.conftest import ROOT, refused

FROM_FOLDER = ["-c", str(ROOT / "configs" / "from_folder.yaml")]


@pytest.fixture
def two(digit_experts, tmp_path, monkeypatch) -> Path:
    """Two copies of the shipped experts, in the working directory."""
    for name in ("one", "two"):
        shutil.copytree(digit_experts, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_torch_is_not_imported(two):
    code = """
import sys
from exml_lightning.cli.main import main
main(["catalog", "one", "two", "--pick", "two:3", "one:0", "--output", "s.yaml"])
print("torch" in sys.modules or "lightning" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.startswith("one two: 2 of 10 experts\n")
    assert "two:3 " in out
    assert "s.yaml: 2 experts in this order" in out
    assert out.endswith("False\n")


def test_records_are_printed_and_what_cannot_be_read_is_named(two, capsys):
    Path("three").mkdir()
    Path("three/manifest.yaml").write_text("[")
    main(["catalog", ".", "--json", "--pick", "two:3", "one:0"])
    captured = capsys.readouterr()
    assert [(one["folder"], one["expert"]) for one in json.loads(captured.out)] == [("two", 3), ("one", 0)]
    assert captured.err.startswith("left out: three/manifest.yaml is not YAML")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["empty"], "empty: no folder of experts there, or below"),
        (["one", "--pick", "one:5"], "--pick one:5 is not among the experts listed"),
        (["one", "--output", "s.txt"], "--output s.txt: name a file of its own that ends in .yaml"),
        (["one", "--output", "manifest.yaml"], "name a file of its own"),
        (["one", "--output", "there.yaml"], "there.yaml is there already"),
        (["one", "--output", "one/manifest.yaml/s.yaml"], "is a file"),
    ],
)
def test_errors(two, capsys, options, message):
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
    main(["catalog", "one", "two", "--pick", "two:3", "one:0", "--output", "picked.yaml"])
    fit("picked.yaml")
    run = Path("runs/picked/noise/run0")
    manifest = read_manifest(run / "ex_model")
    classes = (*shipped[3].classes, *shipped[0].classes)
    assert set(classes) == {"1", "7", "4", "5"}
    assert manifest.class_names == manifest.experts[0].classes == classes
    capsys.readouterr()
    main(["catalog", "runs"])
    assert capsys.readouterr().out.splitlines()[3].split()[-1] == "noise"
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
