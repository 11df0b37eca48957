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
        (["one", "--output", "s.txt"], "--output s.txt: name a file of its own that ends in .yaml"),
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


def test_a_selection_is_learned_in_its_order_and_grows(two, capsys):
    def stream() -> dict:
        return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["ExpertStream"]

    def weights() -> dict:
        return torch.load(run / "checkpoints" / "experience=1.ckpt", weights_only=True)["state_dict"]

    shipped, run = read_manifest(two / "one").experts, Path("runs/picked/noise/run0")
    main(["catalog", "one", "two", "--pick", "two:3", "one:0", "--output", "picked.yaml"])
    fit("picked.yaml")
    manifest = read_manifest(run / "ex_model")
    classes = (*shipped[3].classes, *shipped[0].classes)
    assert manifest.class_names == manifest.experts[0].classes == classes
    capsys.readouterr()
    main(["catalog", "runs"])
    assert capsys.readouterr().out.splitlines()[3].split()[-1] == "noise"
    assert (stream()["learned"], stream()["class_names"]) == ([shipped[3].sha256, shipped[0].sha256], list(classes))
    labels, experiences = (stream()["buffer"][key] for key in ("labels", "experiences"))
    assert [set(labels[experiences == k].tolist()) <= {2 * k, 2 * k + 1} for k in (0, 1)] == [True, True]
    before = weights()

    # growth: a line at the end; what was learned is not read again, so its weights may be gone
    with Path("picked.yaml").open("a") as file:
        file.write("- {folder: two, file: expert_4.safetensors}\n")
    Path("two/expert_3.safetensors").unlink()
    Path("one/expert_0.safetensors").unlink()
    fit("picked.yaml", "--ckpt_path", "last")
    assert stream()["learned"] == [shipped[k].sha256 for k in (3, 0, 4)]
    assert read_manifest(run / "ex_model").class_names == (*classes, *shipped[4].classes)
    assert all(torch.equal(before[name], tensor) for name, tensor in weights().items())

    # another order is another run
    lines = Path("picked.yaml").read_text().splitlines()
    Path("picked.yaml").write_text("\n".join([*lines[:4], lines[5], lines[4], lines[6]]))
    command = ["fit", *FROM_FOLDER, "-c", "small.yaml", "--data.experts", "picked.yaml", "--ckpt_path", "last"]
    assert "the checkpoint knows the classes ['1', '7', '5', '4', '0', '3'], but" in refused(command, capsys)


def test_errors_come_before_work(two, capsys):
    main(["catalog", "one", "two", "--pick", "one:3", "two:0", "--output", "s.yaml"])
    Path("two/expert_0.safetensors").write_bytes(Path("two/expert_1.safetensors").read_bytes())
    command = ["fit", *FROM_FOLDER, "--strategy", "model_inversion", "--data.experts", "s.yaml"]
    assert "two/expert_0.safetensors has another hash (sha256) than the manifest says" in refused(command, capsys)
    shutil.rmtree("two")
    assert "s.yaml: experts[1].folder: two is not there" in refused(command, capsys)
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
    Path("configs").symlink_to(ROOT / "configs")
    main(["sweep", "--scenarios", "from_folder", "--strategies", "noise", "--runs", "0", "--dry_run",
          "--set", "{data.experts: s.yaml}"])  # fmt: skip
    line = capsys.readouterr().out
    assert "runs/s/noise/run0" in line
    assert "exml experts" not in line
