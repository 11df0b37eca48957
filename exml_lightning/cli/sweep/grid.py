"""The jobs of a sweep: a cell of the grid is one `exml fit` or `exml test`, after the training of its experts."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from exml_lightning.cli.sweep.settings import find_config, flatten, option, read_settings, said
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.strategy_name import strategy_name
from exml_lightning.experts.selection import is_selection

RUNS = range(5)
"""Those of every scenario (`scenarios.runs`, which imports torch)."""
EXPERTS = "experts"
"""What stands in place of a strategy where experts are trained."""
OWN_OPTIONS = {"data.run_id": "--runs", "trainer.default_root_dir": "--output", "data.scenario.name": "--scenarios"}
ONE_STREAM = ("experts.", "privacy.", "data.scenario.")
NOT_FOR_BASELINES = ("buffer.", "model.", "data.n_iter", "data.batch_size", "data.augmentation", "data.auxiliary")
NOT_FOR_EXPERTS = ("trainer.max_time", "trainer.max_steps", "trainer.limit_train_batches", "trainer.overfit_batches")
"""Of a fit; `exml experts` refuses them."""


@dataclass(frozen=True)
class Grid:
    """What `exml sweep` is to run.

    Args:
        scenarios: Names or files.
        strategies: Names or files of strategies and baselines; ``NAME+FILE`` stacks a file on one.
        runs: Which of the five runs.
        values: Values of settings, each of which is run.
        settings: Settings of all cells.
        overlays: Files to stack on all of them.
        output: Folder of all run folders.
    """

    scenarios: Sequence[str]
    strategies: Sequence[str]
    runs: Sequence[int] = tuple(RUNS)
    values: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    overlays: Sequence[str] = ()
    output: Path = Path("runs")


@dataclass(frozen=True, eq=False)
class Job:
    """One command of the sweep.

    Args:
        scenario: Name of the scenario.
        strategy: Name of the strategy or the baseline; ``experts`` if it trains experts.
        run: The run.
        variant: What else tells it from others, as in the name of its folder.
        verb: ``fit``, ``test`` or ``experts``.
        options: The words after the verb.
        folder: Where it writes.
        settings: What the configuration files and the command line say, flat; not the defaults of the package.
        experts: Folder of the experts that it needs.
    """

    scenario: str
    strategy: str
    run: int
    variant: tuple[str, ...]
    verb: str
    options: tuple[str, ...]
    folder: Path
    settings: Mapping[str, Any]
    experts: Path

    @property
    def words(self) -> tuple[str, ...]:
        """The words after ``exml``."""
        return (self.verb, *self.options)

    @property
    def name(self) -> str:
        """What to call it: the scenario, the strategy, the run and the variant."""
        return " ".join([self.scenario, self.strategy, f"run{self.run}", *self.variant])


def cells_of(grid: Grid) -> list[Job]:
    """Make the cells of a grid: all of the first run, then all of the second.

    A value that changes nothing in a baseline gives it no cell of its own. A value that the configuration has anyway
    adds nothing to the name of the folder, which is then that of `exml fit` without a sweep.

    Raises:
        ExmlError: If a scenario, strategy or file does not exist, there is no such run, a setting may not be in a grid,
            or two cells would share a folder.
    """
    _check(grid)
    cells: dict[Path, Job] = {}
    origins: dict[Path, _Stack] = {}
    stacks = [_stack(grid, scenario, strategy) for scenario in grid.scenarios for strategy in grid.strategies]
    points = [dict(zip(grid.values, point, strict=True)) for point in itertools.product(*grid.values.values())]
    for run, stack, point in itertools.product(grid.runs, stacks, points):
        cell = _cell(grid, stack, run, point)
        other, origin = cells.setdefault(cell.folder, cell), origins.setdefault(cell.folder, stack)
        if origin is not stack or other.options != cell.options:
            raise ExmlError(
                f"two cells of the grid would share {cell.folder} ({origin.asked}; {stack.asked}): give a file that is "
                "stacked on a strategy as NAME+FILE"
            )
    return list(cells.values())


def training_of(cell: Job, grid: Grid) -> Job | None:
    """Return the job that trains the experts of a cell; None where there is no scenario, or they are a selection."""
    scenario = cell.settings.get("data.scenario.name")
    if scenario is None or is_selection(cell.experts):
        return None
    config = Path(cell.options[1])  # the first file of a cell is its scenario
    experts_of = cell.settings.get("data.scenario.experts_of")
    if experts_of is not None:
        config = config.with_name(f"{experts_of}.yaml")
    files = [config, *_overlays(grid)]
    kept = {
        key: value
        for key, value in grid.settings.items()
        if key.startswith(("data.", "experts.", "privacy.", "trainer."))
        and not key.startswith(NOT_FOR_EXPERTS)
        and not (experts_of and key.startswith("data.scenario."))
    }
    options = [
        *(word for file in files for word in ("-c", str(file))),
        *option("data.run_id", cell.run),
        *_options(kept),
        *option("trainer.enable_progress_bar", False),
    ]
    given = flatten(kept)
    return Job(
        experts_of or scenario, EXPERTS, cell.run, (), "experts", tuple(options), cell.experts, given, cell.experts
    )


def matters(key: str, strategy: str) -> bool:
    """Whether a setting can change what a strategy, or a baseline, gives."""
    return strategy == "parameter_average_batch_norm" or not key.startswith(NOT_FOR_BASELINES)


def _check(grid: Grid) -> None:
    wrong = [run for run in grid.runs if run not in RUNS]
    if wrong:
        raise ExmlError(f"--runs {wrong[0]}: there are runs {RUNS[0]} to {RUNS[-1]}")
    for name in ("scenarios", "strategies", "runs"):
        given = getattr(grid, name)
        if len(set(given)) != len(given):
            raise ExmlError(f"--{name} names one twice: {' '.join(map(str, given))}")
    for where, keys in (("set", flatten(grid.settings)), ("grid", grid.values)):
        for key in keys:
            if key in OWN_OPTIONS:
                raise ExmlError(f"--{where} {key}: give {OWN_OPTIONS[key]} instead")
    for key, values in grid.values.items():
        if key.startswith(ONE_STREAM):
            raise ExmlError(
                f"--grid {key}: all cells of a scenario and a run learn the same experts; write a configuration for "
                "each value, and give them to --scenarios"
            )
        if not isinstance(values, list | tuple) or not values:
            raise ExmlError(f"--grid {key}: give a list of values, for instance '{{{key}: [10, 100]}}'")
        if key in flatten(grid.settings):
            raise ExmlError(f"{key} is in --grid and in --set: leave one out")


@dataclass(frozen=True)
class _Stack:
    """The files of a scenario and a strategy: what was asked for, and what they and ``--set`` say."""

    asked: str
    files: list[Path]
    given: dict[str, Any]
    strategy: str
    baseline: bool
    variant: tuple[str, ...]


def _stack(grid: Grid, scenario: str, strategy: str) -> _Stack:
    first, *more = strategy.split("+")
    stacked = [find_config(path, ("configs/strategies",), "file") for path in more]
    files = [
        find_config(scenario, ("configs",), "scenario"),
        find_config(first, ("configs/strategies", "configs/baselines"), "strategy"),
        *stacked,
        *_overlays(grid),
    ]
    given: dict[str, Any] = {}
    for file in files:
        given |= read_settings(file)
    given |= flatten(grid.settings)
    if given.get("data.experts") is not None and given.get("data.scenario.name") and len(grid.runs) > 1:
        raise ExmlError(
            f"data.experts {given['data.experts']}: a folder holds the experts of one run: name it, for instance by "
            "--runs 0"
        )
    baseline = given.get("baseline.class_path")
    name = strategy_name(baseline or given.get("buffer.generator.class_path", "ModelInversion"))
    if given.get("buffer.name") and not baseline:
        name = given["buffer.name"]
    variant = tuple(file.stem for file in stacked)
    return _Stack(f"{scenario} {strategy}", files, given, name, baseline is not None, variant)


def _cell(grid: Grid, stack: _Stack, run: int, point: dict[str, Any]) -> Job:
    point = {key: value for key, value in point.items() if not stack.baseline or matters(key, stack.strategy)}
    settings = {**stack.given, **flatten(point), "data.run_id": run}
    stream, experts = settings.get("data.scenario.name"), settings.get("data.experts")
    if experts is None and stream is None:
        raise ExmlError(
            f"{stack.files[0]} has no scenario: give a folder of experts with --set '{{data.experts: DIR}}'"
        )
    if experts is None:
        experts = f"checkpoints/{settings.get('data.scenario.experts_of') or stream}/run{run}"
    if stream is None:
        stream = _scenario_of(Path(experts), stack.files[0])
    differs = {key: value for key, value in point.items() if not flatten({key: value}).items() <= stack.given.items()}
    variant = (*stack.variant, *(f"{key}={said(value)}" for key, value in differs.items()))
    name = "_".join([f"run{run}", *(re.sub(r"[^\w.=+-]+", "-", words) for words in variant)])
    folder = grid.output / stream / stack.strategy / name
    options = [
        *(word for file in stack.files for word in ("-c", str(file))),
        *option("data.run_id", run),
        *_options({**grid.settings, **point}),
        *option("trainer.default_root_dir", str(folder)),
        *option("trainer.enable_progress_bar", False),
    ]
    verb = "test" if stack.baseline else "fit"
    return Job(stream, stack.strategy, run, variant, verb, tuple(options), folder, settings, Path(experts))


def _overlays(grid: Grid) -> list[Path]:
    return [find_config(path, ("configs/trainer",), "overlay") for path in grid.overlays]


def _options(values: Mapping[str, Any]) -> list[str]:
    return [word for key, value in values.items() for word in option(key, value)]


def _scenario_of(experts: Path, config: Path) -> str:
    """Name the stream of a folder of experts or of a selection, as the run folder of `exml fit` is named after it."""
    if is_selection(experts):
        return experts.stem
    manifest = experts / "manifest.yaml"
    try:
        return str(yaml.safe_load(manifest.read_text(encoding="utf-8"))["scenario"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise ExmlError(
            f"{config} has no scenario, and {manifest} names none: give a folder of experts with "
            "--set '{data.experts: DIR}'"
        ) from error
