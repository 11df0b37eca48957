"""A run, read from the small files in its folder."""

import csv
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.core.strategy_name import STRATEGY_NAME, strategy_name
from exml_lightning.report.small_files import (
    REMEDY,
    broken,
    has_file,
    is_fraction,
    is_whole,
    read_json,
    read_text,
    read_yaml,
)

MOST_PARTS = 10**6


class NoScenarioError(ExmlError):
    """A run has agreement with its experts, no accuracy."""


@dataclass(frozen=True)
class Row:
    """What was measured after an experience.

    Args:
        after: The experience, from 0.
        parts: Accuracy on each part of the test stream, by the experience that brought it; fractions.
        stream: Accuracy on the whole test stream.
    """

    after: int
    parts: dict[int, float]
    stream: float


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: Its folder, as it was found.
        scenario: Name of the scenario.
        strategy: Name of the strategy, or of the baseline.
        run_id: Which of the runs.
        is_baseline: Whether it was measured by `exml test`, not learned.
        config: Its `config.yaml`.
        results: Its `summary.json`; of a baseline, `test.json`.
        over_time: Its `accuracy_matrix.csv`; empty for a baseline.
    """

    folder: Path
    scenario: str
    strategy: str
    run_id: int
    is_baseline: bool
    config: dict[str, Any]
    results: dict[str, Any]
    over_time: tuple[Row, ...]

    @property
    def accuracy(self) -> float:
        """Stream accuracy in %."""
        return 100 * float(self.results["stream_accuracy"])

    def number(self, key: str) -> float | None:
        """Return a figure of the results, None where there is none."""
        value = self.results.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            return None
        return float(value)


def read_run(folder: Path) -> Run:
    """Read one run.

    Args:
        folder: Its folder.

    Raises:
        ExmlError: If a file is missing or broken, or the run is unfinished.
    """
    has = {name for name in ("config.yaml", "summary.json", "test.json") if has_file(folder / name)}
    if has == {"test.json"} and "baseline" not in read_json(folder / "test.json"):
        raise ExmlError(f"{folder} has the test.json of a checkpoint only: name the folder of its fit")
    config = read_yaml(folder / "config.yaml")
    is_baseline = config.get("baseline") is not None
    if not is_baseline and "summary.json" not in has:
        raise ExmlError(f"{folder} is unfinished: it has no summary.json; give its command again")
    path = folder / ("test.json" if is_baseline else "summary.json")
    results = read_json(path)
    data, buffer = _group(config, "data", folder), _group(config, "buffer", folder)
    scenario = data.get("scenario")
    if not isinstance(scenario, dict):
        raise NoScenarioError(
            f"{folder} is of a stream without a scenario: it has agreement, no accuracy to report; --html shows it"
        )
    run_id, name = data.get("run_id"), scenario.get("name")
    if not is_whole(run_id) or not isinstance(name, str):
        raise broken(folder / "config.yaml", "data.run_id or data.scenario.name is missing")
    if not is_whole(buffer.get("size"), 1) or not is_whole(data.get("n_iter")):
        raise broken(folder / "config.yaml", "buffer.size or data.n_iter is no whole number")
    name_given = None if is_baseline else buffer.get("name")
    strategy = strategy_of(config["baseline"] if is_baseline else buffer.get("generator"), name_given, folder)
    _check_results(path, results)
    if is_baseline:
        _check_baseline(path, results, strategy)
    else:
        check_finished(folder, path, results)
    over_time = () if is_baseline else read_matrix(folder / "accuracy_matrix.csv", results["experts"])
    return Run(folder, name, strategy, run_id, is_baseline, config, results, over_time)


def left_beside(run: Run) -> list[str]:
    """Say what else was measured in the folder of a run, and is not reported.

    Args:
        run: The run.

    Returns:
        A line, if there is something: a baseline measured in the folder of a fit, or a fit in that of a baseline.
    """
    other = run.folder / ("summary.json" if run.is_baseline else "test.json")
    if not has_file(other):
        return []
    try:
        results = read_json(other)
    except ExmlError as error:
        return [str(error)]
    advice = "give `exml test` a folder of its own"
    if run.is_baseline:
        return [f"{other} is of a fit, but the config.yaml beside it is of a baseline; {advice}"]
    return [f"{other} is of a baseline, measured in the folder of a fit; {advice}"] if "baseline" in results else []


def _group(config: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    group = config.get(name)
    if not isinstance(group, dict):
        raise broken(folder / "config.yaml", f"it has no {name}")
    return group


def strategy_of(chosen: Any, name: Any, folder: Path) -> str:
    """Name the strategy of a run.

    Args:
        chosen: Its generator or baseline, as in the configuration.
        name: Its `buffer.name`.
        folder: The run folder, for messages.

    Raises:
        ExmlError: If it cannot be named.
    """
    if name is not None:
        if not isinstance(name, str) or not STRATEGY_NAME.fullmatch(name):
            raise broken(folder / "config.yaml", "buffer.name is not of a-z, 0-9 and _")
        return name
    class_path = "ModelInversion" if chosen is None else chosen.get("class_path") if isinstance(chosen, dict) else None
    if not isinstance(class_path, str):
        raise broken(folder / "config.yaml", "baseline or buffer.generator has no class_path")
    return strategy_name(class_path)


def _check_results(path: Path, results: dict[str, Any]) -> None:
    if not is_fraction(results.get("stream_accuracy")):
        raise broken(path, f"stream_accuracy is {results.get('stream_accuracy')}, not a fraction")
    if results.get("experts") is None:
        raise ExmlError(f"{path} does not say how many experts there are: it is of an older version; {REMEDY}")
    if not is_whole(results["experts"], 1) or not is_whole(results.get("processes", 1), 1):
        raise broken(path, "experts or processes is no number of them")


def _check_baseline(path: Path, results: dict[str, Any], strategy: str) -> None:
    measured = results.get("baseline")
    if measured is None or strategy_name(str(measured)) != strategy:
        what = "a checkpoint" if measured is None else f"the baseline {measured}"
        raise broken(path, f"it is of {what}, but the config.yaml beside it is of {strategy}")


def check_finished(folder: Path, path: Path, results: dict[str, Any]) -> None:
    """Make sure that a fit has learned all its experts.

    Args:
        folder: The run folder.
        path: Its `summary.json`.
        results: What that says.

    Raises:
        ExmlError: If it has not, or does not say.
    """
    learned, experts = results.get("experiences_learned"), results["experts"]
    if not is_whole(learned):
        raise broken(path, "experiences_learned is missing")
    skipped = results.get("experiences_skipped", [])
    if not isinstance(skipped, list):
        raise broken(path, "experiences_skipped is no list")
    if learned + len(skipped) < experts:
        raise ExmlError(f"{folder} is unfinished, {learned} of {experts} experts are learned: give its command again")


def read_matrix(path: Path, experts: int, last: str = "stream") -> tuple[Row, ...]:
    """Read the matrix of a run.

    Args:
        path: The CSV file.
        experts: How many experts the run has.
        last: Name of the last column, whose values become `Row.stream`.

    Raises:
        ExmlError: If it is no such matrix.
    """
    lines = read_text(path).splitlines()
    try:
        heading, *cells = csv.reader(lines) if lines else [[]]
        if len(heading) < 3 or heading[0] != "after_experience" or heading[-1] != last:
            raise ValueError(f"its columns are {', '.join(heading)}")
        parts = [int(name) for name in heading[1:-1]]
        if not all(0 <= part < MOST_PARTS for part in parts):
            raise ValueError(f"its columns are {', '.join(heading)}")
        rows = tuple(
            Row(int(line[0]), {k: float(a) for k, a in zip(parts, line[1:-1], strict=True) if a}, float(line[-1]))
            for line in cells
        )
        steps = [row.after for row in rows]
        if not steps or steps != sorted(set(steps)) or not 0 <= steps[0] <= steps[-1] < experts:
            raise ValueError(f"its rows are not after experiences from 0 to {experts - 1}")
        if not all(is_fraction(value) for row in rows for value in (row.stream, *row.parts.values())):
            raise ValueError("not all of its accuracies are fractions")
    except (ValueError, IndexError, csv.Error) as error:
        raise broken(path, one_line(error)) from error
    return rows
