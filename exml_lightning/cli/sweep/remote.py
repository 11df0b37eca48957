"""What a Ray worker runs: one command of a sweep, as a process of its own."""

import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from io import BufferedWriter
from pathlib import Path

LOG = "log.txt"
SECONDS = 0.2
"""Between two looks at the process."""
PATIENCE = 60.0
"""Seconds that a process has to write a checkpoint and end, after SIGTERM."""


def run_command(
    words: Sequence[str], folder: str, place: str, cpus: int, gpus: float
) -> Iterator[tuple[str, int] | tuple[int, str]]:
    """Run ``exml`` with these words; the process ends with this one, and with SIGTERM if this task is cancelled.

    Args:
        words: The words after ``exml``.
        folder: Its run folder, where what it prints is added to ``log.txt``.
        place: The working directory.
        cpus: Threads to compute with.
        gpus: Share of GPUs; Ray says which.

    Yields:
        Once it is started, the name of this machine and the process id; once it has ended, its status (negative: the
        signal that killed it) and the last line that it printed.
    """
    path = Path(place) / folder / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(cpus)}
    if not gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    with path.open("ab") as log:
        _wait_for_predecessor(log)
        node, worker = platform.node(), os.getpid()
        command = shlex.join(["exml", *words])
        log.write(f"[{time.strftime('%Y-%m-%d %H:%M:%S')} {node}, worker {worker}] {command}\n".encode())
        log.flush()
        begin = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", "exml_lightning.cli.sweep.child", str(worker), *words],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield node, process.pid
            while process.poll() is None:
                time.sleep(SECONDS)  # Ray interrupts this, but no wait for a process
        except BaseException:
            _end(process)
            raise
    yield process.returncode, _last_line(path, begin)


def _wait_for_predecessor(log: BufferedWriter) -> None:
    """Wait until no process that writes this log is left: that of a worker that died may still write a checkpoint.

    The lock belongs to the open file, which the process that is started inherits, so it outlives this one.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return
    while True:
        try:
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            time.sleep(SECONDS)
        except OSError:  # a file system without locks
            return


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()


def _last_line(path: Path, begin: int) -> str:
    """Return the error that a process printed last, else its last line."""
    with path.open("rb") as log:
        log.seek(begin)
        text = log.read().decode(errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return last_error(text) or (lines or ["it printed nothing"])[-1]


def last_error(text: str) -> str:
    """Return the last error of what a command printed, with the indented lines that belong to it; in one line."""
    error: list[str] = []
    for line in text.splitlines():
        if line.startswith(("exml: error:", "error:")):
            error, inside = [line.removeprefix("exml: ").removeprefix("error:").strip()], True
        elif error and inside and line.startswith(" "):
            error.append(line.strip())
        else:
            inside = False
    return " ".join(filter(None, error))
