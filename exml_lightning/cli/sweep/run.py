"""The driver of a sweep: gives jobs to Ray, and again where a worker was lost."""

import contextlib
import functools
import logging
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from exml_lightning.cli.sweep.grid import EXPERTS, Job
from exml_lightning.cli.sweep.progress import ENDED, FAILED, FINISHED, LOST, RUNNING, TRAINING, WAITING, Progress
from exml_lightning.cli.sweep.remote import LOG, PATIENCE, run_command
from exml_lightning.cli.sweep.state import mark_finished
from exml_lightning.cli.sweep.view import View
from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.terminal import Terminated

SECONDS = 0.5
"""Between two updates of the table."""
OBJECT_STORE = 80 * 2**20
"""Bytes, the least that Ray takes: jobs hand over a few words only."""
TERMINATED = (128 + signal.SIGTERM, 128 + signal.SIGINT)


@contextlib.contextmanager
def ray_cluster(workers: int, cpus: int, gpus: float, address: str | None) -> Iterator[None]:
    """Start Ray on this machine, or join a cluster.

    Args:
        workers: Jobs at a time on this machine.
        cpus: CPUs of a job.
        gpus: GPUs of a job.
        address: ``HOST:PORT`` of a cluster, or ``auto``; None for this machine.

    Raises:
        ExmlError: If there is no cluster, or no node of it has enough CPUs and GPUs for a job.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: other work would slow cells down and their times
    os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # it says so at length otherwise
    import ray

    list_nodes: Any = ray.nodes  # Ray has no types for it
    handler = signal.getsignal(signal.SIGTERM)
    short = "/tmp" if Path("/tmp").is_dir() else None  # names of sockets have 107 characters at most
    with tempfile.TemporaryDirectory(prefix="exml-", dir=short, ignore_cleanup_errors=True) as folder:
        own: dict[str, Any] = {
            "num_cpus": workers * cpus,
            "object_store_memory": OBJECT_STORE,
            "include_dashboard": False,
        }
        here = {"address": "local", "_temp_dir": folder, **own}
        try:
            with _sessions_of_their_own():
                ray.init(
                    **({"address": address} if address else here), log_to_driver=False, logging_level=logging.ERROR
                )
        except (OSError, RuntimeError, ValueError) as error:
            where = f"joined at {address}" if address else "started"
            raise ExmlError(f"--address: Ray cannot be {where}: {one_line(error)}") from error
        try:
            signal.signal(signal.SIGTERM, handler)  # Ray's own ends with status 15
            nodes = [node["Resources"] for node in list_nodes() if node["Alive"]]
            if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= min(gpus, 1) for node in nodes):
                raise ExmlError(f"no node has {cpus} CPUs and {gpus:g} GPUs for a cell: give less by --cpus and --gpus")
            yield
        finally:
            ray.shutdown()


@contextlib.contextmanager
def _sessions_of_their_own() -> Iterator[None]:
    """Keep a SIGTERM to this process group from Ray's servers, whose end would end this process at once.

    `ray.init` has no argument for it.
    """
    start: Any = subprocess.Popen.__init__
    kind: Any = subprocess.Popen
    kind.__init__ = functools.partialmethod(start, start_new_session=True)
    try:
        yield
    finally:
        kind.__init__ = start


class Driver:
    """Runs jobs until each is finished or has failed.

    Args:
        progress: How far each job is; those that wait are run.
        trainings: The job that a job waits for.
        cpus: CPUs of a job.
        gpus: GPUs of a job.
        retries: How often a job whose worker is lost is run again.
        view: Shows the progress.
    """

    def __init__(
        self,
        progress: Mapping[Job, Progress],
        trainings: Mapping[Job, Job],
        cpus: int,
        gpus: float,
        retries: int,
        view: View,
    ) -> None:
        import ray

        self._ray: Any = ray
        self._progress, self._trainings, self._retries, self._view = progress, trainings, retries, view
        self._task: Any = ray.remote(run_command).options(num_cpus=cpus, num_gpus=gpus, max_retries=0)
        self._share = (cpus, gpus)
        self._tasks: dict[Any, Job] = {}

    def run(self) -> None:
        """Run them all; when interrupted, end those that run, each after a checkpoint."""
        terminated: list[int] = []
        # An exit that is raised inside of a call of Ray ends this process at once, with status 1.
        before = signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
        try:
            while not terminated:
                self._submit()
                if not self._tasks:
                    return
                self._listen(SECONDS)
                self._view.refresh()
            raise Terminated
        finally:
            self._stop()
            signal.signal(signal.SIGTERM, before)

    def _submit(self) -> None:
        given = set(self._tasks.values())
        for job, progress in self._progress.items():
            if progress.state not in (WAITING, LOST) or job in given:
                continue
            before = self._trainings.get(job)
            if before is not None and self._progress[before].state == FAILED:
                self._end(job, FAILED, "its experts failed")
            elif before is None or self._progress[before].state in ENDED:
                task = self._task.remote(job.words, str(job.folder), str(Path.cwd()), *self._share)
                self._tasks[task] = job

    def _listen(self, timeout: float) -> None:
        """Take in what tasks report, if any does within so many seconds."""
        errors = self._ray.exceptions
        for task in self._ray.wait(list(self._tasks), timeout=timeout)[0]:
            job = self._tasks[task]
            try:
                self._heard(job, *self._ray.get(next(task)))
                continue
            except StopIteration:
                pass
            except errors.RayTaskError as error:  # the task itself: a log that cannot be written
                self._end(job, FAILED, one_line(error.cause) if isinstance(error.cause, Exception) else "cancelled")
            except errors.RayError as error:
                self._lose(job, type(error).__name__)
            del self._tasks[task]

    def _heard(self, job: Job, first: str | int, second: int | str) -> None:
        progress = self._progress[job]
        if isinstance(first, str) and isinstance(second, int):
            progress.node, progress.pid, progress.since, progress.note = first, second, time.monotonic(), ""
            self._change(job, TRAINING if job.strategy == EXPERTS else RUNNING)
        elif first == 0:
            if job.strategy != EXPERTS:
                mark_finished(job)
            self._end(job, FINISHED)
        elif isinstance(first, int) and (first < 0 or first in TERMINATED):
            self._lose(job, f"the process ended with status {first}")
        else:
            self._end(job, FAILED, str(second))

    def _lose(self, job: Job, why: str) -> None:
        progress = self._progress[job]
        progress.lost += 1
        if progress.lost > self._retries:
            self._end(job, FAILED, f"{why}, {progress.lost} times (--retries {self._retries})")
            return
        progress.note = why
        self._change(job, LOST)

    def _end(self, job: Job, state: str, note: str = "") -> None:
        progress = self._progress[job]
        progress.seconds, progress.note = progress.elapsed, note
        self._change(job, state)

    def _change(self, job: Job, state: str) -> None:
        self._progress[job].state = state
        self._view.changed(job)

    def _stop(self) -> None:
        """Cancel what is left, and wait until the processes have written their checkpoints."""
        for task in self._tasks:
            self._ray.cancel(task)
        end = time.monotonic() + PATIENCE
        while self._tasks and time.monotonic() < end:
            for task in self._ray.wait(list(self._tasks), timeout=SECONDS)[0]:
                try:
                    self._ray.get(next(task))
                except (StopIteration, self._ray.exceptions.RayError):
                    del self._tasks[task]


def log_of(job: Job) -> Path:
    """Return the file of what a job printed."""
    return job.folder / LOG
