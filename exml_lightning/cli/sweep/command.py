"""`exml sweep`: its options, and the order of its work."""

import contextlib
import importlib.util
import io
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveInt

from exml_lightning.cli.sweep.cell import last_error
from exml_lightning.cli.sweep.grid import RUNS, Grid, Job, cells_of
from exml_lightning.cli.sweep.on_disk import has_experts, is_finished
from exml_lightning.cli.sweep.progress import SKIPPED, WAITING, Progress, State, print_results
from exml_lightning.cli.sweep.run import ray_cluster, run_jobs
from exml_lightning.cli.verbs import parser_of
from exml_lightning.core.errors import ExmlError
from exml_lightning.files import check_folder
from exml_lightning.terminal import quiet_lightning, say

NO_RAY = 'exml sweep needs Ray: pip install "exml-lightning[sweep]", or in a clone pip install -e ".[sweep]"'


def cores() -> int:
    """Count the CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def plan_of(grid: Grid) -> Progress:
    """Look at what is on disk, and plan the rest.

    Raises:
        ExmlError: See `cells_of`.
    """
    cells = {cell: State(SKIPPED if is_finished(cell) else WAITING) for cell in cells_of(grid)}
    needed = dict.fromkeys(job.training for job, state in cells.items() if job.training and state.word == WAITING)
    return Progress({**{job: State() for job in needed if not has_experts(job)}, **cells})


def check_settings(cells: Sequence[Job]) -> None:
    """Parse, in this process, the settings of one cell of each scenario, strategy and combination of values.

    Raises:
        ExmlError: If there is a key or a value that the package does not take.
    """
    parsers = {verb: parser_of(verb) for verb in {cell.words[0] for cell in cells}}
    for cell in {(cell.scenario, cell.strategy, cell.variant): cell for cell in cells}.values():
        heard = io.StringIO()
        try:
            with quiet_lightning(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(heard):
                parsers[cell.words[0]].parse_args(cell.words[1:])
        except SystemExit as error:
            raise ExmlError(f"{cell.scenario}, {cell.strategy}: {last_error(heard.getvalue())}") from error


def sweep(
    *,
    config: list[Path] | None = None,
    scenarios: list[str] | None = None,
    strategies: list[str] | None = None,
    runs: list[int] = list(RUNS),  # noqa: B006 - jsonargparse shows it, nothing changes it
    grid: dict[str, list[Any]] | None = None,
    set: dict[str, Any] | None = None,
    overlays: list[str] | None = None,
    output: Path = Path("runs"),
    workers: PositiveInt | None = None,
    cpus: PositiveInt = 1,
    gpus: NonNegativeFloat = 0.0,
    address: str | None = None,
    retries: NonNegativeInt = 3,
    dry_run: bool = False,
) -> None:
    """Run scenarios x strategies x runs, and values of any setting, here or on a Ray cluster.

    Each cell of the grid is one `exml fit`, or `exml test` of a baseline, in a run folder of its own. Missing experts
    are trained first. Finished cells are skipped, stopped ones go on: the same command again does what is left.

      exml sweep --scenarios joint_mnist split_mnist --strategies best auxiliary min_entropy --workers 2
      exml sweep --scenarios split_mnist --strategies auxiliary --runs 0 --grid '{buffer.size: [10, 100, 1000]}'
      exml sweep -c mnist --set '{data.root: data}' --dry_run

    Args:
        config: YAML file of these options, or the name of one in configs/sweeps.
        scenarios: Names of scenarios (configs/NAME.yaml), or the paths of YAML files.
        strategies: configs/strategies/NAME.yaml or configs/baselines/NAME.yaml, or the path of a YAML file; NAME+FILE
            stacks a file of further settings.
        runs: Runs of each scenario, 0 to 4.
        grid: Lists of values of settings of `exml fit`: every combination is run.
        set: Settings of all cells.
        overlays: NAME.yaml in configs/trainer, models or experts, or the path of a YAML file; all cells have them, in
            this order.
        output: Folder of the run folders.
        workers: Cells at a time on this machine; if not given, as many as it has CPUs for.
        cpus: CPUs of a cell: its threads.
        gpus: GPUs of a cell; 0.5 lets two share one; 0 hides them.
        address: HOST:PORT of a Ray cluster to join, or auto.
        retries: How often a cell goes on whose worker was lost.
        dry_run: Print the commands and what is on disk; run nothing.

    Raises:
        ExmlError: For whatever the user can put right, before any work; at the end, if cells have failed.
    """
    if not scenarios or not strategies:
        raise ExmlError("which? Give --scenarios and --strategies, for instance split_digits and auxiliary")
    if address and workers:
        raise ExmlError("--workers: a cluster (--address) has as many as its CPUs and GPUs allow; leave it out")
    progress = plan_of(Grid(scenarios, strategies, runs, grid or {}, set or {}, overlays or (), output))
    pending = progress.cells(WAITING)
    if not dry_run and pending:
        if importlib.util.find_spec("ray") is None:
            raise ExmlError(NO_RAY)
        check_folder(output, "output")
    check_settings(pending)
    if dry_run:
        for job, state in progress.items():
            print(f"{shlex.join(['exml', *job.words])}  # {state.word}")
        return
    say(progress.counts())
    if pending:
        with ray_cluster(workers or max(1, cores() // cpus), cpus, gpus, address, retries):
            run_jobs(progress, cpus, gpus, retries)
    print_results(progress, output)
