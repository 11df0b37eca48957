"""Two processes on the CPU (gloo), in a child: Lightning starts the second process by the same command."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from exml_lightning.experts import load_expert, read_manifest
from exml_lightning.scenarios import Digits
from tests.callbacks.test_resume import outcome

pytestmark = pytest.mark.slow
PROCESSES = ["--trainer.accelerator", "cpu", "--trainer.devices", "2", "--trainer.strategy", "ddp"]
SHARED = ["--buffer.generator.batch_size", "5"]
"""Parts of 5, 5 and 2 images for the first expert, 5 and 1 for the second."""


class BufferOfEachProcess(Callback):
    """Writes the buffer that each process holds."""

    def on_train_epoch_end(self, trainer, module):
        path = Path(trainer.default_root_dir) / f"buffer_{trainer.current_epoch}_{trainer.global_rank}.pt"
        torch.save(module.stream.buffer.state_dict(), path)


def start(args: list[str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "exml_lightning", *args]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def run(args: list[str]) -> str:
    child = start(args)
    try:
        out, err = child.communicate(timeout=300)
    finally:
        child.kill()  # which ends the second process, too
    assert child.returncode == 0, err
    return out


def test_two_processes_are_as_one_with_the_same_global_batch(small_run, tmp_path):
    dump = ["--trainer.callbacks", json.dumps([{"class_path": "tests.test_ddp.BufferOfEachProcess"}])]
    run([*small_run("two", data__batch_size=4), *SHARED, *dump, *PROCESSES])
    run([*small_run("one", data__batch_size=8), *SHARED, *dump])
    for experience in range(2):
        name = f"buffer_{experience}"
        one, *two = (
            torch.load(tmp_path / path) for path in (f"one/{name}_0.pt", f"two/{name}_0.pt", f"two/{name}_1.pt")
        )
        for column, values in one.items():
            assert all(torch.equal(values, other[column]) for other in two), (experience, column)
    one, two = (load_file(tmp_path / name / "ex_model" / "expert_0.safetensors") for name in ("one", "two"))
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert apart < 1e-6  # weights are about 0.1; means of halves are added up in another order
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("one", "two")]
    assert summaries[0]["accuracy_per_experience"] == pytest.approx(summaries[1]["accuracy_per_experience"], abs=0.01)


def test_two_processes_resume_and_count_every_test_image_once(small_run, tmp_path):
    run([*small_run("whole"), *PROCESSES])
    run([*small_run("parts", trainer__max_epochs=1), *PROCESSES])
    run([*small_run("parts"), *PROCESSES, "--ckpt_path", "last"])
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")

    folder = tmp_path / "whole" / "ex_model"
    manifest = read_manifest(folder)
    ex_model = load_expert(folder, manifest, 0)
    test = Digits().load(Path(), train=False)
    guesses = ex_model.classes[ex_model(manifest.input.normalize(test.images)).argmax(dim=1)]
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["stream_accuracy"] == pytest.approx((guesses == test.labels).float().mean().item())


def second_of(child: subprocess.Popen[str]) -> int:
    """The process that Lightning started."""
    return int(Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()[0])


LONG = [*PROCESSES, "--data.n_iter", "150", "--checkpoint.every_n_steps", "10"]
WHOLE: dict[str, torch.Tensor] = {}


@pytest.fixture
def never_ended(small_run, tmp_path):
    """The weights of the run that was never ended, made once."""
    if not WHOLE:
        run([*small_run("whole"), *LONG])
        WHOLE.update(load_file(tmp_path / "whole" / "ex_model" / "expert_0.safetensors"))
    return WHOLE


@pytest.mark.parametrize(
    ("first", "number", "statuses"),
    [
        (False, signal.SIGKILL, (1, -9)),  # the connection breaks, unless Lightning has seen it before
        (True, signal.SIGKILL, (-9,)),
        (True, signal.SIGTERM, (143,)),
        (True, signal.SIGINT, (130,)),
    ],
)
def test_the_end_of_one_process_ends_the_run_and_the_same_command_goes_on(
    small_run, tmp_path, never_ended, first, number, statuses
):
    args = [*small_run("ended"), *LONG]
    child = start(args)
    checkpoint = tmp_path / "ended" / "checkpoints" / "last.ckpt"
    while not checkpoint.exists():
        assert child.poll() is None, child.communicate()[1]
        time.sleep(0.05)
    second = second_of(child)
    os.kill(child.pid if first else second, number)
    since = time.monotonic()
    _, err = child.communicate(timeout=60)
    assert time.monotonic() - since < 30
    assert child.returncode in statuses
    assert not first or "Traceback" not in err
    status_of_second = Path(f"/proc/{second}/status")
    assert not status_of_second.exists() or "Z (zombie)" in status_of_second.read_text()
    run(args)
    weights = load_file(tmp_path / "ended" / "ex_model" / "expert_0.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in never_ended.items())
