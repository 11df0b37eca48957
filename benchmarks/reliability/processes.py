"""Compares two processes with one, resumes them, and kills either of them."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from safetensors.torch import load_file

from benchmarks.reliability.jobs import ROOT, Job, command, environment, fit
from benchmarks.reliability.whole_files import broken_files
from exml_lightning.module import ExModelModule

LONGEST = 60.0
"""Seconds within which a run must end when one of its processes has died."""
TWO = {"devices": 2, "strategy": "ddp"}
GENERATOR = {"class_path": "ModelInversion", "init_args": {"steps": 3, "batch_size": 5}}  # so that both have a part


class BufferOfEachProcess(Callback):
    """Writes the buffer that each process holds at the end of each experience into the run folder."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write it."""
        assert isinstance(pl_module, ExModelModule)
        assert pl_module.stream.buffer is not None
        path = Path(trainer.default_root_dir).parent / f"buffer_{trainer.current_epoch}_{trainer.global_rank}.pt"
        torch.save(pl_module.stream.buffer.state_dict(), path)


def run(folder: Path) -> dict[str, Any]:
    """Run two processes (gloo, CPU) in all these ways.

    Args:
        folder: A folder to work in.

    Returns:
        What was compared and measured, and what was not as it should be.
    """
    failures: list[str] = []
    print("one process, then two", flush=True)
    dump = [{"class_path": "benchmarks.reliability.processes.BufferOfEachProcess"}]
    for name, batch_size, devices in (("one", 8, {}), ("two", 4, TWO)):
        job = _job(batch_size, 6, {**devices, "callbacks": dump})
        _run(job, folder / name)
    compared, differing = _compare_buffers(folder / "one", folder / "two")
    failures += differing
    one, two = (load_file(folder / name / "run" / "ex_model" / "expert_0.safetensors") for name in ("one", "two"))
    apart = max(float((one[name] - two[name]).abs().max()) for name in one)
    if not apart < 1e-5:
        failures.append(f"weights of two processes differ from those of one by up to {apart:g}")

    print("two processes, resumed and killed", flush=True)
    whole = _job(4, 60, TWO)
    _run(whole, folder / "whole")
    outcome = whole.outcome(folder / "whole")
    _run(_job(4, 60, {**TWO, "max_epochs": 1}), folder / "resumed")
    _run(whole, folder / "resumed", "--ckpt_path", "last")
    if whole.outcome(folder / "resumed") != outcome:
        failures.append("two processes that are resumed differ from two that are not")
    killed = []
    for rank in (1, 0):
        seconds, status, wrong = _kill(whole, folder / f"killed {rank}", rank)
        _run(whole, folder / f"killed {rank}")
        if whole.outcome(folder / f"killed {rank}") != outcome:
            wrong.append("after the resume it differs from a run that was not killed")
        failures += [f"process {rank} killed: {line}" for line in wrong]
        killed.append({"process": rank, "seconds": seconds, "status": status})
    return {"buffers": compared, "apart": apart, "killed": killed, "failures": failures}


def _job(batch_size: int, n_iter: int, trainer: dict[str, Any]) -> Job:
    return fit(trainer=trainer, data={"batch_size": batch_size}, buffer={"generator": GENERATOR}, n_iter=n_iter)


def _start(job: Job, folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command([*job.arguments(folder), *options]),
        env=environment(folder),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(job: Job, folder: Path, *options: str) -> None:
    child = _start(job, folder, *options)
    output, _ = child.communicate(timeout=300)
    if child.returncode != 0:
        raise RuntimeError(f"status {child.returncode}: {output[-1000:]}")


def _compare_buffers(one: Path, two: Path) -> tuple[int, list[str]]:
    """Compare the buffers of both processes with that of one process, bit for bit."""
    differing, compared = [], 0
    for path in sorted(two.glob("buffer_*.pt")):
        experience = path.name.split("_")[1]
        theirs, ours = torch.load(path), torch.load(one / f"buffer_{experience}_0.pt")
        compared += 1
        differing += [f"{path.name}: {name}" for name in ours if not torch.equal(ours[name], theirs[name])]
    return compared, differing


def _kill(job: Job, folder: Path, rank: int) -> tuple[float, int, list[str]]:
    """Kill a process of two in the middle of a run, by SIGKILL.

    Returns:
        Seconds until both have ended, the status of the first, what was wrong.
    """
    child = _start(job, folder)
    checkpoint = folder / "run" / "checkpoints" / "experience=0.ckpt"
    while not checkpoint.exists() and child.poll() is None:
        time.sleep(0.02)
    children = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text(encoding="utf-8").split()
    second = next(int(pid) for pid in children if "exml_lightning" in _words(int(pid)))
    start = time.monotonic()
    os.kill(second if rank else child.pid, signal.SIGKILL)
    while (child.poll() is None or "exml_lightning" in _words(second)) and time.monotonic() - start < LONGEST:
        time.sleep(0.05)
    seconds = time.monotonic() - start
    wrong = [f"not whole: {line}" for line in broken_files(folder / "run")]
    if seconds >= LONGEST:
        wrong.append(f"still running after {LONGEST:.0f} seconds")
        child.kill()
    output, _ = child.communicate()
    if child.returncode == 0:
        wrong.append(f"status 0: {output[-500:]}")
    return seconds, child.returncode, wrong


def _words(pid: int) -> str:
    """Return the command line of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").replace("\0", " ")
    except OSError:
        return ""
