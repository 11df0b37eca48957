"""Runs the command line in a child process that dies at a chosen file event."""

import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

TIMEOUT = 300.0
"""Seconds after which a child is killed."""
_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(
    [
        "exml_lightning.cli.lightning_cli",
        "exml_lightning.cli.main",
        "matplotlib.backends.backend_agg",
        "sklearn.datasets",
    ]
)


@dataclass(frozen=True)
class FileEvent:
    """A child was about to change a file.

    Args:
        what: Python's audit event: ``open``, ``os.rename``, ``os.remove``, ``os.mkdir`` or ``os.chmod``.
        path: The file, relative to the folder watched.
        target: For a rename, its new name.
        size: For a rename, the bytes of the file.
    """

    what: str
    path: str
    target: str = ""
    size: int = 0


@dataclass(frozen=True)
class Fault:
    """What ends a child.

    Args:
        event: The file event, from 0, just before which it strikes.
        signal: The signal that the child sends itself. SIGXFSZ is sent by the system instead, to a write that makes
            a file longer than `longest`: the file stays half-written. None for an error of that write instead.
        delay: Seconds after the event.
        longest: Bytes that a file may have from the event on.
        file: The file whose writing is to be cut; empty for that of the event.
    """

    event: int
    signal: signal.Signals | None
    delay: float = 0.0
    longest: int = 0
    file: str = ""


@dataclass(frozen=True)
class Ending:
    """How a child ended.

    Args:
        status: Its exit status, negative for a signal.
        events: Its file events; with a fault, the last one is where the fault struck.
        struck: Whether the fault struck before the child was done.
        output: What it printed.
    """

    status: int | None
    events: list[FileEvent]
    struck: bool
    output: str


def run_child(arguments: list[str], folder: Path, fault: Fault | None = None) -> Ending:
    """Run the command line in a child.

    Args:
        arguments: The words after ``exml``.
        folder: Everything that the command writes is below it; events of other files are not counted.
        fault: What ends the child; None to let it finish.
    """
    ledger = folder.parent / f"{folder.name}.events"
    ledger.unlink(missing_ok=True)
    reader, writer = _forks.Pipe(duplex=False)  # not a file: a fault may limit the length of files
    child = _forks.Process(target=_main, args=(arguments, folder, ledger, writer, fault))
    child.start()
    writer.close()
    clock = threading.Timer(TIMEOUT, child.kill)
    clock.start()
    output = b""
    while piece := os.read(reader.fileno(), 65536):
        output += piece
    child.join()
    clock.cancel()
    reader.close()
    events = [FileEvent(*json.loads(line)) for line in ledger.read_text(encoding="utf-8").splitlines()]
    struck = fault is not None and len(events) > fault.event
    return Ending(child.exitcode, events, struck, output.decode(errors="replace"))


def _main(arguments: list[str], folder: Path, ledger: Path, output: Connection, fault: Fault | None) -> None:
    from exml_lightning.cli.main import main

    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a command started in a terminal has
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    tempfile.tempdir = str(folder / "tmp")
    (folder / "tmp").mkdir(exist_ok=True)
    _watch(folder, os.open(ledger, os.O_WRONLY | os.O_CREAT), fault)
    main(arguments)


def _watch(folder: Path, ledger: int, fault: Fault | None) -> None:
    """Write down the file events of this process, and strike at one of them."""
    count, struck = 0, False

    def hook(what: str, values: tuple[Any, ...]) -> None:
        nonlocal count, struck
        if struck:
            return
        event = _event(folder, what, values)
        if event is None:
            return
        os.write(ledger, f"{json.dumps([event.what, event.path, event.target, event.size])}\n".encode())
        count += 1
        if fault is not None and count == fault.event + 1:
            struck = True
            _strike(fault)

    sys.addaudithook(hook)


def _strike(fault: Fault) -> None:
    number = fault.signal
    if number is None or number == signal.SIGXFSZ:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN if number is None else signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault.longest, resource.RLIM_INFINITY))
        return

    def send() -> None:
        time.sleep(fault.delay)
        os.kill(os.getpid(), number)

    if fault.delay:
        threading.Thread(target=send, daemon=True).start()
    else:
        send()


def _event(folder: Path, what: str, values: tuple[Any, ...]) -> FileEvent | None:
    if what not in ("open", "os.rename", "os.remove", "os.mkdir", "os.chmod") or not isinstance(values[0], str | Path):
        return None
    path = str(values[0])
    if not path.startswith(f"{folder}/"):
        return None
    name = path.removeprefix(f"{folder}/")
    if what == "open":
        reads = values[2] & (os.O_WRONLY | os.O_RDWR) == os.O_RDONLY
        return None if reads and ".part." not in name else FileEvent(what, name)  # a part is read to flush it
    if what == "os.rename":
        return FileEvent(what, name, str(values[1]).removeprefix(f"{folder}/"), Path(path).stat().st_size)
    return FileEvent(what, name)
