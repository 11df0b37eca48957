"""Finding run folders."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from exml_lightning.core.errors import ExmlError
from exml_lightning.report.run import Run, read_run

NOT_SEARCHED = ("buffer", "cache", "checkpoints", "ex_model", "samples")
"""Folders that hold no runs but may hold much else."""
FILES = ("config.yaml", "summary.json", "test.json")


def find_runs(places: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Read the runs in folders and below them, links followed.

    Args:
        places: The folders: run folders, or folders with run folders anywhere below.

    Returns:
        The runs, each once, and a line for each that is broken or unfinished and for each folder that cannot be read.

    Raises:
        ExmlError: If a folder is missing, or has no finished run in it or below.
    """
    runs: dict[str, Run] = {}
    left_out: list[str] = []
    for place in places:
        _check_folder(place)
        here: list[str] = []
        has_run = False
        for folder in _run_folders(place, here):
            real = os.path.realpath(folder)
            try:
                runs[real] = runs.get(real) or read_run(folder)
                has_run = True
            except ExmlError as error:
                here.append(str(error))
        if not has_run:
            why = f"; {here[0]}" if here else ""
            raise ExmlError(f"{place} holds no finished run of `exml fit` or `exml test`{why}")
        left_out += here
    return list(runs.values()), list(dict.fromkeys(left_out))


def _check_folder(place: Path) -> None:
    try:
        if not place.is_dir():
            what = "is a file: name its folder" if place.exists() else "does not exist: name folders of runs"
            raise ExmlError(f"{place} {what}")
    except OSError as error:
        raise ExmlError(f"{place} cannot be read ({error.strerror}): allow it, or leave it out") from error


def _run_folders(place: Path, left_out: list[str]) -> Iterator[Path]:
    """Find run folders, each once, however many links lead to it; a line for each folder that cannot be read."""

    def cannot_be_read(error: OSError) -> None:
        left_out.append(f"{error.filename} cannot be read ({error.strerror}): allow it, or leave it out")

    seen: set[str] = set()
    for parent, folders, names in os.walk(place, followlinks=True, onerror=cannot_be_read):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if name not in NOT_SEARCHED and not name.startswith("."))
        if any(name in names for name in FILES):
            yield Path(parent)
