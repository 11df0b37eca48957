"""Writes that fail, as on a full disk: one clear error, and the same command goes on when there is room."""

import shutil
import subprocess

import pytest

from benchmarks.reliability.disks import NAMESPACE, fail, failing_writes, run
from benchmarks.reliability.jobs import fit
from benchmarks.reliability.survival import Tally, uninterrupted

pytestmark = pytest.mark.slow


def namespaces_allowed() -> bool:
    return shutil.which("unshare") is not None and subprocess.run([*NAMESPACE, "true"]).returncode == 0


def test_a_checkpoint_that_cannot_be_written(tmp_path):
    whole, tally = uninterrupted(fit(), tmp_path / "whole"), Tally()
    second = [fault for fault in failing_writes(whole) if fault.file == "run/checkpoints/last.ckpt"][1]
    fail(whole, tmp_path / "failed", second, tally)
    assert tally.failures == []


def test_every_file_and_real_file_systems(tmp_path):
    result = run(tmp_path)
    assert result["failures"] == []
    assert result["failing writes"] >= 25
    assert len(result["mounted"]) == 5 * namespaces_allowed()
