"""Kills the command line at every file event of a small job and at random moments, and resumes it."""

import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from benchmarks.reliability.children import Fault, FileEvent
from benchmarks.reliability.jobs import Job, command, environment, fit, generate, train_experts
from benchmarks.reliability.survival import (
    INT,
    KILL,
    NAMES,
    STATUSES,
    TERM,
    TORN,
    Reference,
    Tally,
    finish,
    survive,
    uninterrupted,
)
from benchmarks.reliability.whole_files import broken_files

START_UP = 1.5
"""Seconds of a real command before Python has come to the package: until then signals end it in their own way."""


def run(folder: Path) -> dict[str, Any]:
    """Kill a fit, a training of experts and a generating at their file events.

    Args:
        folder: A folder to work in.

    Returns:
        For each job what `Tally.result` gives, and the file events that it has.
    """
    results: dict[str, Any] = {}
    for job, every, stride in ((fit(), 1, 12), (train_experts(), 4, 16), (generate(), 4, 16)):
        whole, tally = uninterrupted(job, folder / "whole"), Tally()
        chosen = faults(whole.events, every, stride)
        for fault in tqdm(chosen, desc=f"exml {job.verb}: kills at file events", dynamic_ncols=True, disable=None):
            survive(whole, folder / "killed", [fault], tally)
        for seed in tqdm(
            range(len(chosen) // 20), desc=f"exml {job.verb}: kills of resumes", dynamic_ncols=True, disable=None
        ):
            survive(whole, folder / "killed", chain(whole.events, seed), tally)
        results[job.verb] = {**tally.result(), "events": len(whole.events)}
    return {**results, "failures": [line for result in results.values() for line in result["failures"]]}


def run_random(folder: Path, chains: int = 20) -> dict[str, Any]:
    """Kill the real command at random moments of its life.

    Args:
        folder: A folder to work in.
        chains: Runs, each killed three times.

    Returns:
        What `Tally.result` gives.
    """
    tally = Tally()
    kill_real_commands(folder, tally, chains)
    return tally.result()


def faults(events: list[FileEvent], every: int, stride: int, seed: int = 0) -> list[Fault]:
    """Choose moments to strike at.

    Args:
        events: Those of a run that is left alone.
        every: SIGKILL strikes just before every so many events.
        stride: SIGTERM, Ctrl-C and a SIGKILL delayed by up to 3 ms strike at every so many.
        seed: Of the delays and of where writes are torn.

    Returns:
        Those, and a torn write of each file.
    """
    draw = random.Random(seed)
    chosen = [Fault(i, KILL) for i in range(0, len(events), every)]
    chosen += [Fault(i, KILL, delay=draw.uniform(0, 0.003)) for i in range(0, len(events), stride)]
    chosen += [Fault(i, number) for number in (TERM, INT) for i in range(0, len(events), stride)]
    for event in events:
        if event.what == "os.rename" and not Path(event.target).name.startswith("."):
            first = _first_mention(events, event.path)
            if first > 0:
                chosen.append(
                    Fault(first - 1, TORN, longest=draw.randrange(max(3 * event.size // 4, 1)), file=event.target)
                )
    return chosen


def chain(events: list[FileEvent], seed: int) -> list[Fault]:
    """Choose kills of a start and of the resumes after it."""
    draw = random.Random(f"chain {seed}")
    count = draw.randint(2, 4)
    # A resume has less left to do: most of its events are among the first.
    return [Fault(draw.randrange(len(events) // (i + 1)), draw.choice((KILL, KILL, TERM, INT))) for i in range(count)]


def kill_real_commands(folder: Path, tally: Tally, chains: int, seed: int = 0) -> None:
    """Kill the real command at random moments of its life, and its resumes, until one is left to finish.

    Args:
        folder: A folder to work in.
        tally: Where to count.
        chains: Runs, each killed three times: by SIGKILL, SIGTERM and Ctrl-C in a random order.
        seed: Of the moments.
    """
    job = fit(n_iter=60, generator_steps=40)  # half of its life is work, the other half start-up
    whole = folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    start = time.monotonic()
    subprocess.run(command(job.arguments(whole)), env=environment(whole), check=True, capture_output=True)
    life = time.monotonic() - start
    reference = Reference(job, whole, [], job.outcome(whole))
    for i in tqdm(range(chains), desc="real exml fit: kills at random moments", dynamic_ncols=True, disable=None):
        draw = random.Random(f"real {seed} {i}")
        killed = folder / "killed"
        shutil.rmtree(killed, ignore_errors=True)
        for number in draw.sample((KILL, TERM, INT), 3):
            _kill_real_command(job, killed, number, draw.uniform(0, life), tally)
        finish(reference, killed, tally, f"real command, chain {i}")


def _kill_real_command(job: Job, folder: Path, number: signal.Signals, moment: float, tally: Tally) -> None:
    child = subprocess.Popen(
        command(job.arguments(folder)),
        env=environment(folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=_hear_ctrl_c,
    )
    try:
        child.wait(moment)
    except subprocess.TimeoutExpired:
        child.send_signal(number)
    output, _ = child.communicate(timeout=60)
    if child.returncode == 0 or "ex-model: " in output or "already holds a finished run" in output:
        tally.late += 1
        return
    where = f"real command, {NAMES[number]} after {moment:.2f} s"
    tally.add("at random", NAMES[number], child.returncode)
    if child.returncode not in (STATUSES[number], *((-number, 1) if moment < START_UP else ())):
        tally.failures.append(f"{where}: status {child.returncode}: {output[-300:]}")
    tally.failures += [f"{where}: not whole: {line}" for line in broken_files(folder)]


def _hear_ctrl_c() -> None:
    """Undo what a shell does to commands in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _first_mention(events: list[FileEvent], path: str) -> int:
    """Return the first event that names a file, by the names that it had before, too."""
    for i, event in enumerate(events):
        if event.path == path:
            return i
        if event.target == path:
            return _first_mention(events, event.path)
    raise ValueError(path)
