"""Two processes on the CPU (gloo), in a child: Lightning starts the second process by the same command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from exml_lightning.experts import load_expert, read_manifest
from exml_lightning.scenarios import Digits

pytestmark = pytest.mark.slow


def run(args: list[str]) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.run(
        [sys.executable, "-m", "exml_lightning", *args], capture_output=True, text=True, env=environment, timeout=300
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_two_processes_learn_resume_and_count_every_test_image_once(small_run, tmp_path):
    processes = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    run([*small_run("whole"), *processes])
    run([*small_run("parts", trainer__max_epochs=1), *processes])
    run([*small_run("parts"), *processes, "--ckpt_path", "last"])
    weights = [(tmp_path / name / "ex_model" / "expert_0.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]

    folder = tmp_path / "whole" / "ex_model"
    manifest = read_manifest(folder)
    ex_model = load_expert(folder, manifest, 0)
    test = Digits().load(Path(), train=False)
    guesses = ex_model.classes[ex_model(manifest.input.normalize(test.images)).argmax(dim=1)]
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["stream_accuracy"] == pytest.approx((guesses == test.labels).float().mean().item())

    buffers = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["ExpertStream"]["buffer"]["images"]
        for name in ("whole", "parts")
    ]
    assert torch.equal(*buffers)


def test_the_number_of_processes_does_not_change_what_is_generated(small_run, tmp_path):
    run(small_run("one", trainer__max_epochs=1))
    run([*small_run("two", trainer__max_epochs=1), "--trainer.accelerator", "cpu", "--trainer.devices", "2",
         "--trainer.strategy", "ddp"])  # fmt: skip
    buffers = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["ExpertStream"]["buffer"]["images"]
        for name in ("one", "two")
    ]
    assert torch.equal(*buffers)
