"""The cells of a grid: each is one `exml fit` or `exml test`, after an `exml experts` where experts are missing."""

import difflib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from exml_lightning.cli.config_names import SUFFIXES, find_configs, known_configs, name_of
from exml_lightning.cli.flatten import flatten
from exml_lightning.cli.strategy import chooses, stack_files
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.strategy_name import strategy_name
from exml_lightning.experts.selection import is_selection, read_experts
from exml_lightning.files import read_yaml

RUNS = range(5)
"""Those of every scenario (`scenarios.runs`, which imports torch)."""
OWN_OPTIONS = {"data.run_id": "--runs", "trainer.default_root_dir": "--output", "data.scenario.name": "--scenarios"}
OWN_OPTIONS |= {"strategy": "--strategies"}
ONE_STREAM = ("experts.", "privacy.", "data.scenario.")
_OF_STEPS = ("n_iter", "batch_size", "augmentation", "auxiliary", "copies")
NOT_FOR_BASELINES = ("buffer.", "model.", *(f"data.{key}" for key in _OF_STEPS))
"""What changes nothing in a baseline, but for those that generate images."""
FOR_EXPERTS = ("data.", "experts.", "privacy.", *(f"trainer.{key}" for key in ("accelerator", "devices", "max_epochs")))


@dataclass(frozen=True)
class Grid:
    """What `exml sweep` is to run: its options, of which `values` are those of ``--grid``, `settings` of ``--set``."""

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
        words: The verb (``fit``, ``test`` or ``experts``) and its options.
        folder: Where it writes.
        settings: What the configuration files and the command line say, flat; not the defaults of the package.
        training: What trains its experts; None where there is no scenario, or they are a selection.
    """

    scenario: str
    strategy: str
    run: int
    variant: tuple[str, ...]
    words: tuple[str, ...]
    folder: Path
    settings: Mapping[str, Any]
    training: "Job | None" = None

    @property
    def name(self) -> str:
        """What to call it: the scenario, the strategy, the run and the variant."""
        return " ".join([self.scenario, self.strategy, f"run{self.run}", *self.variant])


@dataclass(frozen=True)
class _Stack:
    """The files of a scenario and a strategy, and what they and ``--set`` say; `stacked` are those of ``+FILE``."""

    scenario: Path
    files: list[Path]
    settings: dict[str, Any]
    strategy: str
    baseline: bool
    stacked: list[str]


def cells_of(grid: Grid) -> list[Job]:
    """Make the cells of a grid: all of the first run, then all of the second.

    A value that changes nothing in a baseline gives it no cell of its own. A value that the configuration has anyway
    adds nothing to the name of the folder, which is then that of `exml fit` without a sweep.

    Raises:
        ExmlError: If a scenario, strategy or file does not exist, there is no such run, a setting may not be in a grid,
            or two cells would share a folder.
    """
    _check(grid)
    stacks = [_stack(grid, *names) for names in itertools.product(grid.scenarios, grid.strategies)]
    points = [dict(zip(grid.values, point, strict=True)) for point in itertools.product(*grid.values.values())]
    cells: dict[Path, Job] = {}
    trainings: dict[Path, Job] = {}
    for run, stack, point in itertools.product(grid.runs, stacks, points):
        cell = _cell(grid, stack, run, point, trainings)
        if cells.setdefault(cell.folder, cell).words != cell.words:
            raise ExmlError(f"two cells would share {cell.folder}: stack a file on a strategy as NAME+FILE")
    return list(cells.values())


def _check(grid: Grid) -> None:
    for run in grid.runs:
        if run not in RUNS:
            raise ExmlError(f"--runs {run}: there are runs {RUNS[0]} to {RUNS[-1]}")
    given = flatten(grid.settings)
    for key, value in (*given.items(), *((key, value) for key, values in grid.values.items() for value in values)):
        if isinstance(value, Namespace):  # what jsonargparse makes of a mapping with a class_path
            keys = f"{{{key}: {value.class_path}, {key}.SETTING: VALUE}}"
            raise ExmlError(f"{key}: a class and its settings are set key by key: {keys}")
    for key in (*given, *grid.values):
        if key in OWN_OPTIONS:
            raise ExmlError(f"{key}: give {OWN_OPTIONS[key]} instead")
    for key, values in grid.values.items():
        if key.startswith(ONE_STREAM):
            raise ExmlError(f"--grid {key}: cells learn the same experts; write a scenario for each value instead")
        if not values:
            raise ExmlError(f"--grid {key}: give a list of values, for instance '{{{key}: [10, 100]}}'")
        if key in given:
            raise ExmlError(f"{key} is in --grid and in --set: leave one out")


def _stack(grid: Grid, scenario: str, strategy: str) -> _Stack:
    first, *more = strategy.split("+")
    stacked = [_find(path, ("configs/strategies",), "file") for path in more]
    given = [
        _find(scenario, ("configs",), "scenario"),
        _find(first, ("configs/strategies", "configs/baselines"), "strategy"),
        *stacked,
        *(_find(path, ("configs/trainer", "configs/models", "configs/experts"), "overlay") for path in grid.overlays),
    ]
    settings: dict[str, Any] = {}
    files = stack_files(given, chosen=any(map(chooses, (*flatten(grid.settings), *grid.values))))
    for file in files:
        values = read_yaml(file)
        if not isinstance(values, dict):
            raise ExmlError(f"{file} must hold a mapping of settings")
        settings |= flatten(values)
    settings |= flatten(grid.settings)
    settings.pop("strategy", None)  # that of a scenario has been followed
    experts, stream = settings.get("data.experts"), settings.get("data.scenario.name")
    if experts is None and stream is None:
        raise ExmlError(f"{given[0]} has no scenario: give a folder of experts with --set '{{data.experts: DIR}}'")
    if experts is not None and stream is not None and len(grid.runs) > 1:
        raise ExmlError(f"data.experts {experts}: a folder holds the experts of one run: name it, as in --runs 0")
    baseline = settings.get("baseline.class_path")
    kind = baseline or settings.get("buffer.generator.class_path", "Unrelated")
    name = (not baseline and settings.get("buffer.name")) or strategy_name(kind)
    return _Stack(given[0], files, settings, name, baseline is not None, [file.stem for file in stacked])


def _cell(grid: Grid, stack: _Stack, run: int, point: dict[str, Any], trainings: dict[Path, Job]) -> Job:
    """Make a cell; trainings that others have named before are taken from `trainings`, by their folders."""
    ignored = NOT_FOR_BASELINES if stack.baseline and stack.strategy != "parameter_average_batch_norm" else ()
    point = {key: value for key, value in point.items() if not key.startswith(ignored)}
    settings = {**stack.settings, **flatten(point), "data.run_id": run}
    settings = {key: value for key, value in settings.items() if not key.startswith(ignored)}
    stream = settings.get("data.scenario.name")
    owner = settings.get("data.scenario.experts_of") or stream
    experts = Path(settings.get("data.experts") or f"checkpoints/{owner}/run{run}")
    training = None
    if stream is None:
        stream = read_experts(experts).scenario
    elif not is_selection(experts):
        training = trainings.setdefault(experts, _training(grid, stack, run, str(owner), experts))
    new = {key: value for key, value in point.items() if not flatten({key: value}).items() <= stack.settings.items()}
    variant = (*stack.stacked, *(f"{key}={said(value)}" for key, value in new.items()))
    name = "_".join([f"run{run}", *(re.sub(r"[^\w.=+-]+", "-", words) for words in variant)])
    folder = grid.output / stream / stack.strategy / name
    options = {**grid.settings, **point, "trainer.default_root_dir": str(folder)}
    words = _words("test" if stack.baseline else "fit", stack.files, run, options)
    return Job(stream, stack.strategy, run, variant, words, folder, settings, training)


def _training(grid: Grid, stack: _Stack, run: int, owner: str, folder: Path) -> Job:
    """Make the job that trains the experts of a scenario, or of the one whose experts it learns."""
    borrowed = bool(stack.settings.get("data.scenario.experts_of"))
    scenario = stack.scenario.with_name(f"{owner}.yaml") if borrowed else stack.scenario
    files = [scenario, *stack.files[len(stack.files) - len(grid.overlays) :]]
    given = {
        key: value
        for key, value in flatten(grid.settings).items()
        if key.startswith(FOR_EXPERTS) and not (borrowed and key.startswith("data.scenario."))
    }
    return Job(owner, "experts", run, (), _words("experts", files, run, given), folder, given)


def _words(verb: str, files: Sequence[Path], run: int, settings: Mapping[str, Any]) -> tuple[str, ...]:
    options = {"data.run_id": run, **settings, "trainer.enable_progress_bar": False}
    stacked = [word for file in files for word in ("-c", name_of(file))]
    return (verb, *stacked, *(word for key, value in options.items() for word in (f"--{key}", said(value))))


def _find(word: str, folders: Sequence[str], what: str) -> Path:
    """Find a configuration by its name in one of the folders below `configs/`, or by its path."""
    known = {Path(name).stem: file for name, file in known_configs().items() if str(Path(name).parent) in folders}
    if word in known:
        return known[word]
    if word.endswith(SUFFIXES):
        if found := find_configs(word):
            return next(iter(found.values()))
        raise ExmlError(f"{what} {word}: there is no such file")
    close = difflib.get_close_matches(word, known, n=1)
    meant = f"did you mean {close[0]}? There" if close else "there"
    raise ExmlError(f"no {what} {word!r} in {' and '.join(folders)}: {meant} are {', '.join(known)}")


def said(value: object) -> str:
    """Return a value as it is said on the command line, in names and in messages."""
    return value if isinstance(value, str) else json.dumps(value)
