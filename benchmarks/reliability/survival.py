"""Strikes a job, resumes it, and compares what it makes with what it makes when it is left alone."""

import shutil
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.reliability.children import Fault, FileEvent, run_child
from benchmarks.reliability.jobs import Job, Outcome, metric_rows
from benchmarks.reliability.whole_files import broken_files, unfinished_files

KILL, TERM, INT, TORN = signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGXFSZ
STATUSES = {KILL: -KILL, TORN: -TORN, TERM: 128 + TERM, INT: 128 + INT}
NAMES = {KILL: "SIGKILL", TORN: "torn write", TERM: "SIGTERM", INT: "Ctrl-C"}
OTHER_FOLDERS = {"tmp": "temporary file", "cache": "cache entry", "experts": "expert", "generated": "buffer file"}


@dataclass(frozen=True)
class Reference:
    """A job that was left alone.

    Args:
        job: The job.
        folder: Where it worked.
        events: Its file events.
        outcome: What it made.
    """

    job: Job
    folder: Path
    events: list[FileEvent]
    outcome: Outcome


@dataclass
class Tally:
    """What has been tried so far.

    Args:
        struck: Kills by the file that they hit, then by what they were.
        statuses: Exit statuses by what the kills were.
        failures: A line for each promise that was not kept.
        late: Faults that came after the job was done.
        rows: Rows of ``metrics.csv`` that there should be, over all runs.
        rows_lost: Those that were not there.
        rows_added: Rows beside them: Lightning logs the step at which SIGTERM stops a fit.
    """

    struck: dict[str, Counter[str]] = field(default_factory=dict)
    statuses: dict[str, Counter[str]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    late: int = 0
    rows: int = 0
    rows_lost: int = 0
    rows_added: int = 0

    def add(self, place: str, kind: str, status: int | None) -> None:
        """Count a kill."""
        self.struck.setdefault(place, Counter())[kind] += 1
        self.statuses.setdefault(kind, Counter())[str(status)] += 1

    @property
    def kills(self) -> int:
        """The number of kills."""
        return sum(counter.total() for counter in self.struck.values())

    def result(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "kills": self.kills,
            "struck": {place: dict(counter) for place, counter in self.struck.items()},
            "statuses": {kind: dict(counter) for kind, counter in self.statuses.items()},
            "late": self.late,
            "rows": self.rows,
            "rows_lost": self.rows_lost,
            "rows_added": self.rows_added,
            "failures": self.failures,
        }


def uninterrupted(job: Job, folder: Path) -> Reference:
    """Run a job to its end.

    Args:
        job: The job.
        folder: An empty folder, or one to be emptied.
    """
    shutil.rmtree(folder, ignore_errors=True)
    ending = run_child(job.arguments(folder), folder)
    if ending.status != 0 or broken_files(folder):
        raise RuntimeError(f"exml {job.verb} does not even work undisturbed: {broken_files(folder)} {ending.output}")
    return Reference(job, folder, ending.events, job.outcome(folder))


def survive(whole: Reference, folder: Path, faults: Sequence[Fault], tally: Tally) -> None:
    """Strike a job and each resume of it, let the last one finish, and compare.

    Args:
        whole: The job.
        folder: An empty folder, or one to be emptied.
        faults: The first strikes the job, the next ones resumes of it.
        tally: Where to count.
    """
    shutil.rmtree(folder, ignore_errors=True)
    arguments = whole.job.arguments(folder)
    for fault in faults:
        assert fault.signal is not None
        ending = run_child(arguments, folder, fault)
        if not ending.struck or ending.status == 0:  # a delayed or a deferred signal may come too late
            tally.late += 1
            break
        event = ending.events[-1]
        tally.add(_kind(fault.file or event.target or event.path), NAMES[fault.signal], ending.status)
        where = f"exml {whole.job.verb}, {fault}"
        if ending.status != STATUSES[fault.signal]:
            tally.failures.append(f"{where}: status {ending.status} at {event}: {ending.output[-300:]}")
        tally.failures += [f"{where}: not whole: {line}" for line in broken_files(folder)]
    finish(whole, folder, tally, f"exml {whole.job.verb}, {list(faults)}")


def finish(whole: Reference, folder: Path, tally: Tally, where: str) -> None:
    """Give the same command once more, let it end, and compare.

    Args:
        whole: The job.
        folder: Where it was struck.
        tally: Where to write what is not as it should be.
        where: What was done to it, for those lines.
    """
    ending = run_child(whole.job.arguments(folder), folder)
    finished = "already holds a finished run" in ending.output  # it was struck when all was done
    if ending.status != 0 and not finished:
        tally.failures.append(f"{where}: the resume ended with {ending.status}: {ending.output[-500:]}")
        return
    made = whole.job.outcome(folder)
    tally.failures += [f"{where}: {name} differs" for name in whole.outcome if made.get(name) != whole.outcome[name]]
    tally.failures += [f"{where}: not whole at the end: {line}" for line in broken_files(folder)]
    if not finished:
        tally.failures += [f"{where}: left behind: {name}" for name in unfinished_files(folder / "run")]
    if whole.job.verb == "fit":
        rows, wanted = metric_rows(folder / "run"), metric_rows(whole.folder / "run")
        tally.rows += len(wanted)
        tally.rows_lost += len(set(wanted) - set(rows))
        tally.rows_added += len(set(rows) - set(wanted))
        if [row for row in wanted if row in rows] != [row for row in rows if row in wanted]:
            tally.failures.append(f"{where}: metrics.csv has rows twice or out of order: {rows}")


def _kind(path: str) -> str:
    """Say what a file is, by its path below the folder of a job."""
    top, *rest = Path(path).parts
    name = Path(path).name.rpartition(".part.")[2]
    if top in OTHER_FOLDERS:
        return OTHER_FOLDERS[top]
    if name.endswith(".ckpt") or "checkpoints" in rest:
        return "checkpoint"
    if "ex_model" in rest:
        return "`ex_model/`"
    if name.endswith((".png", "buffer")):
        return "picture"
    return f"`{name}`" if "." in name else "run folder"
