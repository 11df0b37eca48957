"""One command of a sweep as a process of its own, which ends when the Ray worker that started it does."""

import contextlib
import ctypes
import os
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from io import BufferedWriter
from pathlib import Path

LOG = "log.txt"
SECONDS = 0.2
"""Between two looks at the process."""
PATIENCE = 60.0
"""Seconds that a process has to write a checkpoint and end, after SIGTERM."""
PR_SET_PDEATHSIG = 1
"""Of `prctl`, in Linux's prctl.h; what it sets outlives `os.execv`."""
STOPPED = (128 + signal.SIGTERM, 128 + signal.SIGINT)


class ProcessLostError(Exception):
    """The process of a cell was killed or stopped from outside: the same command goes on with it."""


def run_command(words: Sequence[str], folder: Path, place: Path, cpus: int, gpus: float, before: str = "") -> str:
    """Run ``exml`` with these words; the process ends with this one, and with SIGTERM if this task is cancelled.

    Args:
        words: The words after ``exml``.
        folder: Its run folder, where what it prints is added to ``log.txt``.
        place: The working directory.
        cpus: Threads to compute with.
        gpus: Share of GPUs; Ray says which, and 0 hides them.
        before: The error of the command that this one waits for.

    Returns:
        The error with which it ended; empty if it did what it should.

    Raises:
        ProcessLostError: If it was killed or stopped.
    """
    if before:
        return "its experts failed"
    path = place / folder / LOG
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(cpus), **({} if gpus else {"CUDA_VISIBLE_DEVICES": ""})}
    with path.open("ab") as log:
        _wait_for_predecessor(log)
        start = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {platform.node()}, worker {os.getpid()}"
        log.write(f"[{start}] {shlex.join(['exml', *words])}\n".encode())
        log.flush()
        begin = log.tell()
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, str(os.getpid()), *words],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            while process.poll() is None:
                time.sleep(SECONDS)  # Ray interrupts this, but no wait for a process
        except BaseException:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(PATIENCE)
            process.kill()
            raise
    if process.returncode < 0 or process.returncode in STOPPED:
        raise ProcessLostError(f"the process ended with status {process.returncode}")
    return last_error(path.read_bytes()[begin:].decode(errors="replace")) if process.returncode else ""


def _wait_for_predecessor(log: BufferedWriter) -> None:
    """Wait until no process that writes this log is left: that of a worker that died may still write a checkpoint.

    The lock belongs to the open file, which the process that is started inherits, so it outlives this one.
    """
    with contextlib.suppress(ImportError, OSError):  # Windows; a file system without locks
        import fcntl

        while True:
            try:
                return fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(SECONDS)  # Ray interrupts this, but no wait for a lock


def last_error(text: str) -> str:
    """Return the error that a command printed last, else its last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["it printed nothing"]
    errors = [line for line in lines if line.startswith("exml: error:")] or lines
    return errors[-1].removeprefix("exml: error:").strip()


def main() -> None:
    """Ask Linux for SIGTERM at the death of the parent, then turn into the command; elsewhere only the latter."""
    parent, words = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before
            raise SystemExit(128 + signal.SIGTERM)
    os.execv(sys.executable, [sys.executable, "-m", "exml_lightning", *words])


if __name__ == "__main__":
    main()
