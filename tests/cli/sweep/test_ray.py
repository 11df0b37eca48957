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
ROOT = Path(__file__).parent.parent.parent
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
LONG = "{data.n_iter: 150, checkpoint.every_n_steps: 10, buffer.cache: null}"


def options(output: Path, *strategies: str, settings: str = "{buffer.cache: null}", runs: str = "0") -> list[str]:
    common = ["--scenarios", "split_digits", "--overlays", "smoke", "--runs", runs, "--output", str(output)]
    return ["sweep", *common, "--strategies", *strategies, "--set", settings]


def exml(*args: str, start_new_session: bool = False) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "exml_lightning", *args]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=ONE_THREAD,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=start_new_session,
    )


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


def processes_of(output: Path) -> list[str]:
    """Command lines of all processes that write below a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode().split("\0")
        except OSError:
            continue
        if "fit" in words and any(word.startswith(str(output)) for word in words):
            found.append(shlex.join(words))
    return found


def weights(folder: Path) -> bytes:
    return (folder / "ex_model" / "expert_0.safetensors").read_bytes()


def by_hand(output: Path, *strategies: str, settings: str) -> list[bytes]:
    """Run the commands that a dry run prints, and return the weights."""
    lines = finish(exml(*options(output, *strategies, settings=settings), "--dry_run")).splitlines()
    for line in lines:
        finish(exml(*shlex.split(line, comments=True)[1:]))
    return [weights(output / "split_digits" / name / "run0") for name in strategies]


@pytest.fixture(scope="module")
def long_fit(tmp_path_factory) -> bytes:
    """The weights of a fit that nothing disturbed, long enough to be disturbed."""
    return by_hand(tmp_path_factory.mktemp("whole"), "auxiliary", settings=LONG)[0]


def test_cells_end_with_the_weights_of_fits_by_hand_and_are_skipped_then(tmp_path):
    names = ("auxiliary", "noise")
    said = finish(exml(*options(tmp_path / "swept", *names)))
    assert "2 finished]" in said
    cells = [tmp_path / "swept" / "split_digits" / name / "run0" for name in names]
    assert [weights(cell) for cell in cells] == by_hand(tmp_path / "hand", *names, settings="{buffer.cache: null}")
    before = [(cell / "log.txt").read_bytes() for cell in cells]
    again = finish(exml(*options(tmp_path / "swept", *names)))
    assert "2 cells: 2 finished before, 0 to run" in again
    assert "running" not in again
    assert [(cell / "log.txt").read_bytes() for cell in cells] == before
    asked = finish(exml(*options(tmp_path / "hand", *names)))  # of cells finished by hand, the command itself is asked
    assert "2 finished]" in asked
    assert "holds a finished run" in (tmp_path / "hand" / "split_digits" / "noise" / "run0" / "log.txt").read_text()


def test_a_killed_worker_is_replaced_and_the_weights_are_the_same(tmp_path, long_fit):
    cell = tmp_path / "split_digits" / "auxiliary" / "run0"
    process = exml(*options(tmp_path, "auxiliary", settings=LONG))
    wait_for("checkpoint", (cell / "checkpoints" / "last.ckpt").exists)
    (worker,) = workers(cell)
    os.kill(worker, signal.SIGKILL)
    said = finish(process)
    assert "lost  split_digits auxiliary run0" in said
    assert len(workers(cell)) == 2
    assert "going on with last.ckpt" in (cell / "log.txt").read_text()
    assert weights(cell) == long_fit


def test_a_killed_fit_is_replaced_and_given_up_after_as_many_retries(tmp_path):
    cell = tmp_path / "split_digits" / "auxiliary" / "run0"
    process = exml(
        *options(tmp_path, "auxiliary", settings="{data.n_iter: 100000, buffer.cache: null}"), "--retries", "1"
    )
    for attempt in (1, 2):
        wait_for("attempt", lambda count=attempt: len(workers(cell)) == count)
        (fit,) = wait_for("fit", lambda: [pid for pid in children_of(workers(cell)[-1]) if "fit" in words_of(pid)])
        os.kill(fit, signal.SIGKILL)
    said = finish(process, 1)
    assert "status -9, 2 times (--retries 1)" in said
    assert "1 of 1 cell failed" in said


def children_of(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def words_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")


def test_a_cell_that_fails_stops_no_other_and_is_named(tmp_path):
    """LeNet5 has no batch norm; the experts of run 1 are trained first, once for both cells."""
    settings = f"{{data.experts: {tmp_path / 'experts'}, buffer.cache: null}}"
    strategies = ("parameter_average_batch_norm", "auxiliary")
    said = finish(exml(*options(tmp_path / "runs", *strategies, settings=settings, runs="1")), 1)
    assert said.count("training experts  split_digits experts run1") == 1
    manifest = yaml.safe_load((tmp_path / "experts" / "manifest.yaml").read_text())
    assert (manifest["run"], len(manifest["experts"]), manifest["experts"][0]["training"]["epochs"]) == (1, 2, 1)
    assert (tmp_path / "runs" / "split_digits" / "auxiliary" / "run1" / "ex_model" / "manifest.yaml").is_file()
    log = tmp_path / "runs" / "split_digits" / "parameter_average_batch_norm" / "run1" / "log.txt"
    (line,) = [line for line in said.splitlines() if line.startswith("failed: ")]
    assert "LeNet5 has no batch-norm layer" in line
    assert str(log) in line
    assert said.splitlines()[-1].startswith("exml: error: 1 of 2 cells failed")


def test_ctrl_c_stops_after_a_checkpoint_and_the_same_command_goes_on(tmp_path, long_fit):
    cell = tmp_path / "split_digits" / "auxiliary" / "run0"
    process = exml(*options(tmp_path, "auxiliary", settings=LONG))
    last = cell / "checkpoints" / "last.ckpt"
    wait_for("checkpoint", last.exists)
    written = last.stat().st_mtime_ns
    process.send_signal(signal.SIGINT)
    said = finish(process, 130)
    assert "exml: stopped; go on with the same command" in said
    assert last.stat().st_mtime_ns > written
    assert processes_of(tmp_path) == []
    assert not (cell / "ex_model").exists()
    finish(exml(*options(tmp_path, "auxiliary", settings=LONG)))
    assert weights(cell) == long_fit


def test_sigterm_to_all_processes_of_a_job_stops_after_a_checkpoint(tmp_path):
    """As `timeout` and clusters send it: to the process group, where Ray's servers would be, too."""
    cell = tmp_path / "split_digits" / "auxiliary" / "run0"
    process = exml(*options(tmp_path, "auxiliary", settings=LONG), start_new_session=True)
    wait_for("checkpoint", (cell / "checkpoints" / "last.ckpt").exists)
    os.killpg(process.pid, signal.SIGTERM)
    assert "exml: stopped; go on with the same command" in finish(process, 143)
    assert processes_of(tmp_path) == []


def test_nothing_is_left_when_the_driver_is_killed(tmp_path):
    cell = tmp_path / "split_digits" / "auxiliary" / "run0"
    process = exml(*options(tmp_path, "auxiliary", settings="{data.n_iter: 100000, buffer.cache: null}"))
    wait_for("fit", lambda: (cell / "config.yaml").exists())
    assert len(processes_of(tmp_path)) > 0
    process.kill()
    wait_for("end of the fit", lambda: not processes_of(tmp_path))
    process.communicate()
