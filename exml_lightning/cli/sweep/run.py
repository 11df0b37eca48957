"""Ray runs the jobs of a sweep, and those again whose worker or process was lost."""

import contextlib
import functools
import io
import logging
import os
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exml_lightning.cli.sweep.cell import LOG, PATIENCE, ProcessLostError, run_command
from exml_lightning.cli.sweep.grid import Job
from exml_lightning.cli.sweep.progress import FAILED, FINISHED, RUNNING, WAITING, Progress
from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.terminal import Terminated

SECONDS = 0.5
"""Between two looks at the jobs."""
OBJECT_STORE = 80 * 2**20
"""Bytes, the least that Ray takes: jobs hand over a few words only."""


@contextlib.contextmanager
def ray_cluster(workers: int, cpus: int, gpus: float, address: str | None, retries: int) -> Iterator[None]:
    """Start Ray on this machine, or join a cluster; the arguments are options of `exml sweep`.

    Raises:
        ExmlError: If there is no cluster, or no node of it has enough CPUs and GPUs for a job.
    """
    os.environ.update(
        RAY_USAGE_STATS_ENABLED="0",
        RAY_task_oom_retries=str(retries),  # for ever by default
        RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",  # it says so at length otherwise
    )
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: other work would slow cells down and their times
    _check_address(address)
    import ray

    list_nodes: Any = ray.nodes  # Ray has no types for it
    handler = signal.getsignal(signal.SIGTERM)
    short = "/tmp" if Path("/tmp").is_dir() else None  # names of sockets have 107 characters at most
    with (
        tempfile.TemporaryDirectory(prefix="exml-", dir=short, ignore_cleanup_errors=True) as folder,
        contextlib.redirect_stderr(io.StringIO()),  # what Ray prints about workers that it lost
    ):
        here = {
            "address": "local",
            "num_cpus": workers * cpus,
            "object_store_memory": OBJECT_STORE,
            "_temp_dir": folder,
        }
        where: dict[str, Any] = {"address": address} if address else {**here, "include_dashboard": False}
        try:
            with _sessions_of_their_own():
                ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray has no class of its own for a start that takes too long
            raise ExmlError(f"Ray cannot be started, or joined (--address): {one_line(error)}") from error
        try:
            signal.signal(signal.SIGTERM, handler)  # Ray's own ends with status 15
            nodes = [node["Resources"] for node in list_nodes() if node["Alive"]]
            if not any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= min(gpus, 1) for node in nodes):
                raise ExmlError(f"no node has {cpus} CPUs and {gpus:g} GPUs for a cell: give less by --cpus and --gpus")
            yield
        finally:
            ray.shutdown()


def _check_address(address: str | None) -> None:
    """Refuse an address where nothing answers: Ray would try it for many minutes."""
    if address in (None, "auto"):
        return
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError, ValueError) as error:
        raise ExmlError(
            f"--address {address}: nothing answers ({error}): give HOST:PORT of what `ray start --head` started"
        ) from error


@contextlib.contextmanager
def _sessions_of_their_own() -> Iterator[None]:
    """Keep a SIGTERM to this process group from Ray's servers, whose end would end this process at once.

    `ray.init` has no argument for it.
    """
    kind: Any = subprocess.Popen
    start = kind.__init__
    kind.__init__ = functools.partialmethod(start, start_new_session=True)
    try:
        yield
    finally:
        kind.__init__ = start


def run_jobs(progress: Progress, cpus: int, gpus: float, retries: int) -> None:
    """Run the jobs that wait until each is finished or has failed; when interrupted, end those that run.

    Raises:
        Terminated: After SIGTERM.
    """
    import ray

    remote: Any = ray.remote(run_command).options(
        num_cpus=cpus, num_gpus=gpus, max_retries=retries, retry_exceptions=[ProcessLostError]
    )
    tasks: dict[Job, Any] = {}
    logs: dict[Job, int] = {}
    for job in progress:
        if progress[job].word == WAITING:
            experts = [tasks[job.training]] if job.training in tasks else []
            logs[job] = _log_size(job)
            tasks[job] = remote.remote(job.words, job.folder, Path.cwd(), cpus, gpus, *experts)
    terminated: list[int] = []
    # An exit that is raised inside of a call of Ray ends this process at once, with status 1.
    before = signal.signal(signal.SIGTERM, lambda number, _: terminated.append(number))
    try:
        while tasks and not terminated:
            ended = ray.wait(list(tasks.values()), timeout=SECONDS)[0]
            for job, task in list(tasks.items()):
                if progress[job].word == WAITING and _log_size(job) != logs[job]:
                    progress.change(job, RUNNING)
                if task in ended:
                    del tasks[job]
                    error = _error_of(task, retries)
                    progress.change(job, FAILED if error else FINISHED, error)
        if terminated:
            raise Terminated
    finally:
        for task in tasks.values():
            ray.cancel(task)  # they write a checkpoint
        if tasks:
            ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=PATIENCE)
        signal.signal(signal.SIGTERM, before)


def _log_size(job: Job) -> int:
    """Return the size of a job's log, which grows as soon as it runs, on whatever node."""
    log = job.folder / LOG
    return log.stat().st_size if log.exists() else 0


def _error_of(task: Any, retries: int) -> str:
    """Return the error with which a task has ended; empty if there is none."""
    import ray

    try:
        return str(ray.get(task))
    except ray.exceptions.RayTaskError as error:  # its process was lost, or its log cannot be written
        lost = isinstance(error.cause, ProcessLostError)
        return f"{one_line(error.cause)}{f', {retries + 1} times (--retries {retries})' if lost else ''}"
    except ray.exceptions.RayError as error:
        return f"its worker was lost {retries + 1} times ({type(error).__name__}; --retries {retries})"
