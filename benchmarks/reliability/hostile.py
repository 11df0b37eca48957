"""A hostile file, and meeting it: in a child with little memory and time, which must end with one line of error."""

import contextlib
import io
import multiprocessing
import os
import re
import resource
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError

CANARY = "canary"
"""A file that exists only if code out of a hostile file has run."""
MEMORY = 1536 * 2**20
"""Bytes that a child may have more than its parent."""
SECONDS = 60


@dataclass(frozen=True)
class Hostile:
    """A hostile file.

    Args:
        name: What it is.
        build: Writes it, and what belongs to it, into an empty folder, and returns it.
        meet: Has the package read it; gets the same folder. Raises `ExmlError`, or ends with status 1.
    """

    name: str
    build: Callable[[Path], Path]
    meet: Callable[[Path], object]


class Payload:
    """Unpickling it leaves the canary."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / CANARY

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def command(*words: str) -> Callable[[Path], object]:
    """Return what runs ``exml`` with words in which ``{}`` stands for the folder."""
    return lambda folder: main([word.replace("{}", str(folder)) for word in words])


def meet_all(hostiles: Sequence[Hostile], folder: Path) -> list[tuple[str, bool, str]]:
    """Build hostile files, each in a folder of its own, and meet them one after the other in a child.

    Args:
        hostiles: The files.
        folder: Where their folders are made.

    Returns:
        Of each its name, whether it was refused as it should be (by one line that names it, before any code in it ran,
        within the limits), and that line, or what happened in its place.
    """
    places = [folder / f"{k:03d}" for k in range(len(hostiles))]
    for place in places:
        place.mkdir(parents=True)
    paths = [hostile.build(place) for hostile, place in zip(hostiles, places, strict=True)]
    said: list[str] = []
    while len(said) < len(hostiles):  # a child that dies or hangs is replaced
        said += _said_by_child(hostiles[len(said) :], places[len(said) :])
    return [
        (hostile.name, *_judge(path, place, words))
        for hostile, path, place, words in zip(hostiles, paths, places, said, strict=True)
    ]


def _said_by_child(hostiles: Sequence[Hostile], places: Sequence[Path]) -> list[str]:
    """What a child says of files until one of them ends it."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_meet_each, args=(hostiles, places, sender))
    child.start()
    sender.close()
    said: list[str] = []
    try:
        while len(said) < len(hostiles):
            if not receiver.poll(SECONDS):
                return [*said, f"nothing for {SECONDS} s"]
            said.append(receiver.recv())
    except EOFError:
        child.join()
        said.append(f"it ended its process with status {child.exitcode}")
    finally:
        child.kill()
        child.join()
    return said


def _judge(path: Path, place: Path, said: str) -> tuple[bool, str]:
    if (place / CANARY).exists():
        return False, f"code in it has run; {said}"
    lines = said.strip().splitlines() or [""]
    errors = [line for line in lines if line.startswith("exml: error: ")]  # progress bars and warnings come before
    refused = len(errors) == 1 and errors[0] == lines[-1] and path.name in errors[0] and "Traceback" not in said
    return refused and len(errors[0]) < 2000, errors[0] if refused else said.strip()


def _meet_each(hostiles: Sequence[Hostile], places: Sequence[Path], sender: Connection) -> None:
    torch.set_num_threads(1)  # the others were left behind in the fork, and torch would wait for them
    status = Path("/proc/self/status")
    if status.is_file():
        found = re.search(r"VmSize:\s+(\d+) kB", status.read_text())
        limit = (int(found.group(1)) * 1024 if found else 0) + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for hostile, place in zip(hostiles, places, strict=True):
        os.chdir(place)
        sys.path.append(str(place))  # as the command line does with the working directory
        sender.send(_meet(hostile, place))
        sys.path.remove(str(place))
    sender.close()
    os._exit(0)


def _meet(hostile: Hostile, place: Path) -> str:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            hostile.meet(place)
        said.write("it was accepted")
    except ExmlError as error:
        said.write(f"exml: error: {error}")
    except SystemExit as error:
        if error.code != 1:
            said.write(f"status {error.code}")
    except BaseException:
        said.write(traceback.format_exc())
    return said.getvalue()
