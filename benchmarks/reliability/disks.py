"""Lets disks run full and become read-only under a small fit, and goes on when there is room again."""

import json
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from benchmarks.reliability.children import Ending, Fault, run_child
from benchmarks.reliability.jobs import ROOT, environment, fit
from benchmarks.reliability.kills import faults
from benchmarks.reliability.survival import TORN, Reference, Tally, finish, uninterrupted
from benchmarks.reliability.whole_files import broken_files

NAMESPACE = ["unshare", "--user", "--map-root-user", "--mount"]
"""What lets anyone mount a file system of a few kilobytes, where the system allows it."""
ROOM = "32m"


def run(folder: Path) -> dict[str, Any]:
    """Let every write of a fit fail once, then fill real file systems.

    Args:
        folder: A folder to work in.

    Returns:
        The writes that failed, the cases on real file systems (none where they cannot be mounted) and what was not as
        it should be.
    """
    whole, tally = uninterrupted(fit(), folder / "whole"), Tally()
    failing = failing_writes(whole)
    for fault in tqdm(failing, desc="writes that fail", dynamic_ncols=True, disable=None):
        fail(whole, folder / "failed", fault, tally)
    mounted: dict[str, Any] = {"cases": [], "failures": []}
    allowed = shutil.which("unshare") is not None and subprocess.run([*NAMESPACE, "true"]).returncode == 0
    if allowed:
        report = folder / "mounted.json"
        inner = [sys.executable, "-m", "benchmarks.reliability.disks", str(folder / "mounted"), str(report)]
        subprocess.run([*NAMESPACE, *inner], cwd=ROOT, env=environment(folder), check=True)
        mounted = json.loads(report.read_text(encoding="utf-8"))
    return {
        "failing writes": len(failing),
        "mounted": mounted["cases"],
        "failures": tally.failures + mounted["failures"],
    }


def failing_writes(whole: Reference, seed: int = 0) -> list[Fault]:
    """Return a fault for each file of the run folder: its write fails in the middle, as on a full disk.

    Args:
        whole: The fit.
        seed: Of how many bytes there is room for.
    """
    draw = random.Random(seed)
    torn = [fault for fault in faults(whole.events, 1, 1) if fault.signal == TORN and fault.file.startswith("run/")]
    return [replace(fault, signal=None, longest=draw.randrange(fault.longest + 1)) for fault in torn]


def fail(whole: Reference, folder: Path, fault: Fault, tally: Tally) -> None:
    """Let a write fail, and go on.

    Args:
        whole: The fit.
        folder: An empty folder, or one to be emptied.
        fault: One of `failing_writes`.
        tally: Where to write what is not as it should be.
    """
    shutil.rmtree(folder, ignore_errors=True)
    ending = run_child(whole.job.arguments(folder), folder, fault)
    tally.failures += _complaints(ending, folder / fault.file, folder)
    finish(whole, folder, tally, f"after {fault.file} could not be written")


def _complaints(ending: Ending, file: Path, folder: Path) -> list[str]:
    """Say what is wrong about how a fit ended that could not write a file."""
    errors = [line for line in ending.output.splitlines() if "error" in line.lower()]
    wrong = [f"{file.name}: not whole: {line}" for line in broken_files(folder)]
    if ending.status != 1:
        wrong.append(f"{file.name}: status {ending.status}: {ending.output[-300:]}")
    if len(errors) != 1 or not errors[0].startswith("exml: error: ") or file.name not in errors[0]:
        wrong.append(f"{file.name}: not one line that names it: {ending.output[-600:]}")
    return wrong


def _mount(folder: Path, size: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)


def _remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def run_mounted(folder: Path) -> dict[str, Any]:
    """Run the cases that need file systems of their own.

    Args:
        folder: A folder to work in; nothing else sees what is mounted below it.

    Returns:
        A line for each case, and what was not as it should be.
    """
    whole, tally, cases = uninterrupted(fit(), folder / "whole"), Tally(), []
    for name, size in {"the first checkpoint": "300k", "a later checkpoint": "1700k"}.items():
        place = folder / f"full at {name}"
        _mount(place / "run", size)
        ending = run_child(whole.job.arguments(place), place)
        tally.failures += _complaints(ending, place / "run" / "checkpoints", place)
        _remount(place / "run", f"size={ROOM}")
        finish(whole, place, tally, f"disk full at {name}")
        cases.append([f"disk full at {name}", _message(ending, place)])

    place = folder / "read-only"
    _mount(place / "run", ROOM)
    first = run_child(whole.job.arguments(place), place, _after_the_first_experience(whole))
    if not first.struck:
        tally.failures.append(f"not killed: {first.output[-500:]}")
    _remount(place / "run", "ro")
    ending = run_child(whole.job.arguments(place), place)
    tally.failures += _complaints(ending, place / "run", place)
    _remount(place / "run", "rw")
    finish(whole, place, tally, "run folder read-only between two starts")
    cases.append(["run folder read-only between two starts", _message(ending, place)])

    for name, options in {"cache full": "size=8k", "cache read-only": "ro"}.items():
        place = folder / name
        _mount(place / "cache", ROOM)
        _remount(place / "cache", options)
        ending = run_child(whole.job.arguments(place), place)
        warning = _message(ending, place)
        if ending.status != 0 or not warning or whole.job.outcome(place) != whole.outcome:
            tally.failures.append(f"{name}: status {ending.status}: {ending.output[-500:]}")
        cases.append([name, warning])
    return {"cases": cases, "failures": tally.failures}


def _after_the_first_experience(whole: Reference) -> Fault:
    """Return a kill after the first experience."""
    for i, event in enumerate(whole.events):
        if event.what == "os.rename" and event.target.endswith("experience=0.ckpt"):
            return Fault(i + 20, signal.SIGKILL)
    raise ValueError("no checkpoint")


def _message(ending: Ending, place: Path) -> str:
    """Return the line about what cannot be written, without the folder it was tried in; empty if there is none."""
    lines = [line for line in ending.output.splitlines() if "cannot be written" in line]
    return lines[0].replace(f"{place}/", "") if lines else ""


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run_mounted(Path(sys.argv[1]))), encoding="utf-8")
