"""Sweeps on Ray with two workers: what is lost, fails or is stopped."""

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
LONG = "{data.n_iter: 150, checkpoint.every_n_steps: 10, buffer.cache: null}"
ENDLESS = "{data.n_iter: 100000, checkpoint.every_n_steps: 10, buffer.cache: null}"


def options(output: Path, *strategies: str, settings: str = LONG, runs: str = "0") -> list[str]:
    common = ["--scenarios", "split_digits", "--overlays", "smoke", "--runs", runs, "--output", str(output)]
    return ["sweep", *common, "--strategies", *strategies, "--set", settings]


def exml(*args: str) -> "subprocess.Popen[str]":
    """Start a command in a session of its own, so that its process group can be sent a signal."""
    words, environment = [sys.executable, "-m", "exml_lightning", *args], {**os.environ, "OMP_NUM_THREADS": "1"}
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(words, cwd=ROOT, env=environment, start_new_session=True, **pipe)


def finish(process: "subprocess.Popen[str]", status: int = 0) -> str:
    said = process.communicate(timeout=500)[0]
    assert process.returncode == status, said
    return said


def wait_for(what: str, found) -> object:
    end = time.monotonic() + 400  # other work beside it
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.05)
    pytest.fail(f"no {what}")


def workers(cell: Path) -> list[int]:
    log = cell / "log.txt"
    return [int(pid) for pid in re.findall(r", worker (\d+)\] exml", log.read_text())] if log.exists() else []


def fits_of(output: Path) -> list[int]:
    """All fits that write below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if "fit" in words and any(word.startswith(str(output)) for word in words):
            found.append(int(path.parent.name))
    return found


def weights(folder: Path) -> bytes:
    return (folder / "ex_model" / "expert_0.safetensors").read_bytes()


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory) -> dict[str, bytes]:
    """The weights of fits that nothing disturbed, long enough to be disturbed: the commands of a dry run."""
    output = tmp_path_factory.mktemp("hand")
    for line in finish(exml(*options(output, "auxiliary", "noise"), "--dry_run")).splitlines():
        finish(exml(*shlex.split(line, comments=True)[1:]))
    return {name: weights(output / "split_digits" / name / "run0") for name in ("auxiliary", "noise")}


def test_a_killed_worker_is_replaced_weights_are_those_by_hand_and_then_all_is_skipped(tmp_path, by_hand):
    cells = {name: tmp_path / "split_digits" / name / "run0" for name in by_hand}
    process = exml(*options(tmp_path, *by_hand))
    wait_for("checkpoint", (cells["auxiliary"] / "checkpoints" / "last.ckpt").exists)
    (worker,) = workers(cells["auxiliary"])
    os.kill(worker, signal.SIGKILL)
    assert "2 finished]" in finish(process)
    assert len(workers(cells["auxiliary"])) == 2
    assert re.search(r"going on with \S+last.ckpt: \d of \d experts", (cells["auxiliary"] / "log.txt").read_text())
    assert {name: weights(cell) for name, cell in cells.items()} == by_hand
    again = finish(exml(*options(tmp_path, *by_hand)))
    assert "cells: 2 skipped" in again
    assert "running" not in again


def test_a_killed_fit_is_replaced_and_given_up_after_as_many_retries(tmp_path):
    cell = tmp_path / "split_digits" / "auxiliary" / "run0"
    process = exml(*options(tmp_path, "auxiliary", settings=ENDLESS), "--retries", "1")
    for attempt in (1, 2):
        wait_for("attempt", lambda count=attempt: len(workers(cell)) == count)
        (fit,) = wait_for("fit", lambda: [pid for pid in fits_of(tmp_path) if parent_of(pid) == workers(cell)[-1]])
        os.kill(fit, signal.SIGKILL)
    said = finish(process, 1)
    assert "status -9, 2 times (--retries 1)" in said
    assert "1 of 1 cells failed" in said


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_cell_that_fails_stops_no_other_and_is_named(tmp_path):
    """LeNet5 has no batch norm; the experts of run 1 are trained first, once for both cells."""
    settings = f"{{data.experts: {tmp_path / 'experts'}, buffer.cache: null}}"
    strategies = ("parameter_average_batch_norm", "auxiliary")
    said = finish(exml(*options(tmp_path / "runs", *strategies, settings=settings, runs="1")), 1)
    assert said.count("running  split_digits experts run1") == 1
    manifest = yaml.safe_load((tmp_path / "experts" / "manifest.yaml").read_text())
    assert (manifest["run"], len(manifest["experts"]), manifest["experts"][0]["training"]["epochs"]) == (1, 2, 1)
    assert (tmp_path / "runs" / "split_digits" / "auxiliary" / "run1" / "ex_model" / "manifest.yaml").is_file()
    (line,) = [line for line in said.splitlines() if line.startswith("failed: ")]
    assert "LeNet5 has no batch-norm layer" in line
    assert str(tmp_path / "runs" / "split_digits" / "parameter_average_batch_norm" / "run1" / "log.txt") in line
    assert said.splitlines()[-1].startswith("exml: error: 1 of 2 cells failed")


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_all_processes_stops_after_a_checkpoint_and_the_same_command_goes_on(
    tmp_path, by_hand, number, status
):
    """To the process group, as terminals and clusters send it, where Ray's servers would be, too."""
    cell = tmp_path / "split_digits" / "auxiliary" / "run0"
    process = exml(*options(tmp_path, "auxiliary"))
    last = cell / "checkpoints" / "last.ckpt"
    wait_for("checkpoint", last.exists)
    written = last.stat().st_mtime_ns
    os.killpg(process.pid, number)
    assert "exml: stopped; go on with the same command" in finish(process, status)
    assert last.stat().st_mtime_ns > written
    assert fits_of(tmp_path) == []
    assert not (cell / "ex_model").exists()
    finish(exml(*options(tmp_path, "auxiliary")))
    assert weights(cell) == by_hand["auxiliary"]


def test_nothing_is_left_when_the_driver_is_killed(tmp_path):
    cell = tmp_path / "split_digits" / "auxiliary" / "run0"
    process = exml(*options(tmp_path, "auxiliary", settings=ENDLESS))
    wait_for("fit", lambda: (cell / "config.yaml").exists())
    assert len(fits_of(tmp_path)) > 0
    process.kill()
    wait_for("end of the fit", lambda: not fits_of(tmp_path))
    process.communicate()
