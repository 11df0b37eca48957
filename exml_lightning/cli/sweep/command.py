"""`exml sweep`: its options, and the order of its work."""

import contextlib
import io
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from exml_lightning.cli.parser import Parser, verb_parser
from exml_lightning.cli.sweep.grid import RUNS, Grid
from exml_lightning.cli.sweep.plan import Plan, check_settings, plan_of
from exml_lightning.cli.sweep.progress import FAILED, SKIPPED, cells
from exml_lightning.cli.usage_errors import GROUPS
from exml_lightning.core.errors import ExmlError
from exml_lightning.files import check_folder
from exml_lightning.terminal import is_quiet, say

SWEEP_HELP = """\
Run scenarios x strategies x runs, and values of any setting, on the CPUs and GPUs of this machine or of a Ray cluster.

Each cell of the grid is one `exml fit`, or `exml test` of a baseline, in a run folder of its own. Missing experts are
trained first. Finished cells are skipped, stopped ones go on: the same command again does what is left.

  exml sweep --scenarios joint_mnist split_mnist --strategies model_inversion auxiliary min_entropy --workers 2
  exml sweep --scenarios split_mnist --strategies auxiliary --runs 0 --grid '{buffer.size: [10, 100, 1000]}'
  exml sweep -c configs/sweeps/mnist.yaml --set '{data.root: data}' --dry_run
"""
SETTINGS = (*GROUPS, "baseline")
NO_RAY = 'exml sweep needs Ray: pip install "exml-lightning[sweep]", or in a clone pip install -e ".[sweep]"'


class _Parser(Parser):
    """Says more where words are likely meant for `exml fit`, or in another form."""

    def explain(self, message: str, parser: ArgumentParser) -> str:
        """Say what is wrong and what to write instead."""
        hint = ""
        if message.startswith("Option '") and message.split("'")[1].split(".")[0] in SETTINGS:
            hint = (
                "; this is a file for exml fit: name it by --scenarios, --strategies or --overlays, for instance "
                "--scenarios split_digits"
            )
        elif 'Parser key "grid"' in message:
            hint = "; for instance --grid '{buffer.size: [10, 100]}'"
        elif 'Parser key "set"' in message:
            hint = "; for instance --set '{buffer.size: 10}'"
        elif message.startswith("unrecognized arguments: --") and message.split("--")[1].split(".")[0] in SETTINGS:
            hint = "; settings of exml fit are given as --set '{buffer.size: 10}', or --grid '{buffer.size: [10, 100]}'"
        return super().explain(message, parser) + hint


def run_sweep(args: list[str]) -> None:
    """Run ``exml sweep``.

    Args:
        args: The words after the verb.

    Raises:
        ExmlError: For whatever the user can put right, before any work; at the end, if cells have failed.
    """
    given = sweep_parser().parse_args(args)
    _check(given)
    output = Path(given.output)
    grid = Grid(
        given.scenarios, given.strategies, given.runs, given.grid or {}, given.set or {}, given.overlays or (), output
    )
    plan = plan_of(grid)
    refused = {job: how for job, how in plan.progress.items() if how.state == FAILED}
    if given.dry_run:
        check_settings(plan.pending)
        _print_commands(plan)
        if refused:
            raise ExmlError(f"{len(refused)} of {cells(len(plan.states))} cannot be run: see above")
        return
    _check_ray()
    _check_address(given.address)
    check_folder(output, "output")
    states = [how.state for how in plan.progress.values()]
    say(f"{cells(len(plan.states))}: {states.count(SKIPPED)} finished before, {len(plan.pending)} to run")
    if plan.pending:
        for job, how in refused.items():
            print(f"refused: {job.name}: {how.note}", flush=True)
        check_settings(plan.pending)
        _make(output)
        say("starting Ray")
        _drive(plan, given)
    from exml_lightning.cli.sweep.results import print_results, raise_for_failures

    print_results(plan.progress, output)
    raise_for_failures(plan.progress)


def _drive(plan: Plan, given: Namespace) -> None:
    from exml_lightning.cli.sweep.run import Driver, ray_cluster
    from exml_lightning.cli.sweep.view import View

    console = Console(file=sys.stdout, quiet=is_quiet())
    workers = given.workers or 2
    # What Ray prints about workers that it lost would go through the table, which says the same.
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
        ray_cluster(workers, given.cpus, given.gpus, given.address),
        View(plan.progress, console) as view,
    ):
        Driver(plan.progress, plan.trainings, given.cpus, given.gpus, given.retries, view).run()


def _print_commands(plan: Plan) -> None:
    """Print what would be run, a command a line, each with what is on disk behind it."""
    for job in plan.progress:
        state = plan.states.get(job, "missing")
        print(f"{shlex.join(['exml', *job.words])}  # {state}")


def _check(given: Namespace) -> None:
    for name, example in (("scenarios", "split_digits"), ("strategies", "auxiliary")):
        if not getattr(given, name):
            raise ExmlError(f"which {name}? Give --{name}, for instance --{name} {example}")
    for name, least in (("workers", 1), ("cpus", 1), ("gpus", 0), ("retries", 0)):
        value = getattr(given, name)
        if value is not None and value < least:
            raise ExmlError(f"--{name} {value:g}: give {least} or more")
    if given.address and given.workers:
        raise ExmlError("--workers: a cluster (--address) has as many as its CPUs and GPUs allow; leave it out")


def _make(output: Path) -> None:
    """Make the folder of the run folders: some places let nobody, whatever their rights say."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExmlError(f"{output} cannot be made: {error.strerror}; name another folder with --output DIR") from error


def _check_ray() -> None:
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise ExmlError(NO_RAY) from error


def _check_address(address: str | None) -> None:
    """Refuse an address where nothing answers: Ray would try it for many minutes."""
    if address in (None, "auto"):
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ExmlError(f"--address {address}: give HOST:PORT of the cluster's head, or auto")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise ExmlError(
            f"--address {address}: nothing answers there ({error}); `ray start --head` starts one"
        ) from error


def sweep_parser() -> Parser:
    """Return the parser of ``exml sweep``."""
    parser = verb_parser("sweep", "--scenarios NAME ... --strategies NAME ... [options]", SWEEP_HELP, _Parser)
    add = parser.add_argument
    add("-c", "--config", action="config", help="YAML file of these options, as in configs/sweeps.")
    add(
        "--scenarios",
        metavar="NAME",
        nargs="+",
        type=str,
        help="configs/NAME.yaml of the working directory, or the path of a YAML file.",
    )
    add(
        "--strategies",
        metavar="NAME",
        nargs="+",
        type=str,
        help="configs/strategies/NAME.yaml or configs/baselines/NAME.yaml, or the path of a YAML file; NAME+FILE "
        "stacks a file of further settings.",
    )
    add("--runs", metavar="K", nargs="+", type=int, default=list(RUNS), help="Runs of each scenario, 0 to 4.")
    add(
        "--grid",
        metavar="YAML",
        type=dict[str, list[Any]] | None,
        default=None,
        help="Lists of values of settings of `exml fit`: every combination is run.",
    )
    add("--set", metavar="YAML", type=dict[str, Any] | None, default=None, help="Settings of all cells.")
    add(
        "--overlays",
        metavar="NAME",
        nargs="+",
        type=str,
        help="configs/trainer/NAME.yaml, or the path of a YAML file: stacked on all cells, in this order.",
    )
    add("--output", metavar="DIR", default="runs", help="Folder of the run folders.")
    add("--workers", type=int | None, default=None, help="Cells at a time on this machine; 2 if not given.")
    add("--cpus", type=int, default=1, help="CPUs of a cell: its threads.")
    add("--gpus", type=float, default=0.0, help="GPUs of a cell; 0.5 lets two share one; 0 hides them.")
    add("--address", metavar="HOST:PORT", type=str | None, default=None, help="Ray cluster to join, or auto.")
    add("--retries", type=int, default=3, help="How often a cell goes on whose worker was lost.")
    add("--dry_run", action="store_true", help="Print the commands and what is on disk; run nothing.")
    return parser
