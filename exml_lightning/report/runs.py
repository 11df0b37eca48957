"""Finding run folders."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from exml_lightning.core.errors import ExmlError
from exml_lightning.report.agreement_run import AgreementRun, read_agreement_run
from exml_lightning.report.run import NoScenarioError, Run, left_beside, read_run

NOT_SEARCHED = ("buffer", "cache", "checkpoints", "ex_model", "samples")
"""Folders that hold no runs but may hold much else."""
FILES = ("config.yaml", "summary.json", "test.json")


def find_runs(places: Sequence[Path], agreement: dict[str, AgreementRun] | None = None) -> tuple[list[Run], list[str]]:
    """Read the runs in folders and below them, links followed.

    Args:
        places: The folders: run folders, or folders with run folders anywhere below.
        agreement: Takes the runs of streams without a scenario, by their folder; None treats them as broken ones.

    Returns:
        The runs, each once, and a line for each that is broken or unfinished and was met below a folder, for each
        folder that cannot be read, and for each result of something else than the run in its folder.

    Raises:
        ExmlError: If a folder is missing, is itself a run that is broken or unfinished, or has no finished run below.
    """
    runs: dict[str, Run] = {}
    left_out: dict[str, None] = {}
    for place in places:
        _check_folder(place)
        here: list[str] = []
        has_run = False
        for folder in _run_folders(place, here):
            real = os.path.realpath(folder)
            if real not in runs and real not in (agreement or {}):
                try:
                    try:
                        runs[real] = read_run(folder)
                    except NoScenarioError:
                        if agreement is None:
                            raise
                        agreement[real] = read_agreement_run(folder)
                except ExmlError as error:
                    if folder == place:
                        raise
                    here.append(str(error))
                    continue
                here += left_beside(runs[real]) if real in runs else []
            has_run = True
        if not has_run:
            why = f"; {here[0]}" if here else ""
            raise ExmlError(f"{place} holds no finished run of `exml fit` or `exml test`{why}")
        left_out |= dict.fromkeys(here)
    return list(runs.values()), list(left_out)


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
