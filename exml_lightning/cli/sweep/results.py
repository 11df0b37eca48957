"""What a sweep says at its end: the figures of all cells, and what has failed."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev

from exml_lightning.cli.sweep.grid import EXPERTS, Job
from exml_lightning.cli.sweep.progress import FAILED, FINISHED, SKIPPED, Progress, cells
from exml_lightning.cli.sweep.remote import LOG
from exml_lightning.cli.sweep.state import accuracy_of, figures_of
from exml_lightning.core.errors import ExmlError
from exml_lightning.terminal import print_rows, say


def print_results(progress: Mapping[Job, Progress], output: Path) -> None:
    """Print mean and standard deviation over the runs of each scenario, strategy and grid point.

    Args:
        progress: How far each job is.
        output: Folder of the run folders, for the next command.
    """
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for job, how in progress.items():
        figures = figures_of(job) if how.state in (FINISHED, SKIPPED) and job.strategy != EXPERTS else None
        accuracy = None if figures is None else accuracy_of(figures)
        if accuracy is not None:
            found[job.scenario, job.strategy, " ".join(job.variant)].append(100 * accuracy)
    if not found:
        return
    rows = [[*key, _mean(values), str(len(values))] for key, values in sorted(found.items(), key=lambda item: item[0])]
    print_rows("stream accuracy in %", ["scenario", "strategy", "with", "mean ± std", "runs"], rows)
    say(f"next: exml report {output}")


def raise_for_failures(progress: Mapping[Job, Progress]) -> None:
    """Print what has failed and where its log is.

    Raises:
        ExmlError: If anything has.
    """
    failed = {job: how for job, how in progress.items() if how.state == FAILED}
    if not failed:
        return
    for job, how in failed.items():
        log = job.folder / LOG
        print(f"failed: {job.name}: {how.note}" + (f" ({log})" if how.node else ""))
    failures = sum(job.strategy != EXPERTS for job in failed)
    total = sum(job.strategy != EXPERTS for job in progress)
    raise ExmlError(
        f"{failures} of {cells(total)} failed; put right what is said above, then the same command runs them again"
    )


def _mean(values: list[float]) -> str:
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{mean(values):.2f}"
