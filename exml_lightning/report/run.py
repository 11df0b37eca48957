"""A run, read from the small files in its folder."""

import csv
import math
import re
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

NO_DATA_SET = "no data set"


@dataclass(frozen=True)
class Step:
    """What was measured after an experience; fractions.

    Args:
        after: The experience, from 0.
        parts: Accuracy on each part of the test stream, by the experience that brought it; without a data set,
            agreement with each expert.
        whole: Accuracy on the whole test stream; without a data set, mean agreement.
    """

    after: int
    parts: dict[int, float]
    whole: float


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        folder: Its folder, as it was found.
        scenario: Name of the scenario; without a data set, of the stream.
        strategy: Name of the strategy, or of the baseline.
        run_id: Which of the runs.
        measure: What was measured: `accuracy`, or without a data set `agreement` with the experts.
        is_baseline: Whether it was measured by `exml test`, not learned.
        config: Its `config.yaml`.
        results: Its `summary.json`; of a baseline, `test.json`.
        steps: Its `accuracy_matrix.csv` or `agreement_matrix.csv`; empty for a baseline.
    """

    folder: Path
    scenario: str
    strategy: str
    run_id: int
    measure: str
    is_baseline: bool
    config: dict[str, Any]
    results: dict[str, Any]
    steps: tuple[Step, ...]

    @property
    def percent(self) -> float:
        """Accuracy on the whole test stream, or agreement, in %."""
        return 100 * float(self.results["stream_accuracy" if self.measure == "accuracy" else "agreement"])

    @property
    def skipped(self) -> int:
        """How many experts were skipped."""
        return len(self.results.get("experiences_skipped") or [])

    def number(self, key: str) -> float | None:
        """Return a figure of the results, None where there is none."""
        value = self.results.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            return None
        return float(value)

    def words(self, key: str) -> str:
        """Return a result as it is written, or that it is not known."""
        value = self.results.get(key)
        return "not known" if value is None else str(value)


def read_run(folder: Path) -> Run:
    """Read one run.

    Args:
        folder: Its folder.

    Raises:
        ExmlError: If a file is missing or broken, or the run is unfinished.
    """
    config = read_yaml(folder / "config.yaml")
    is_baseline = config.get("baseline") is not None
    path = folder / ("test.json" if is_baseline else "summary.json")
    if not has_file(path):
        raise ExmlError(f"{folder} is unfinished: it has no {path.name}; give its command again")
    results = read_json(path)
    data, buffer = (_group(config, name, folder) for name in ("data", "buffer"))
    scenario, run_id = data.get("scenario"), data.get("run_id")
    measure = "agreement" if scenario is None else "accuracy"
    name = _stream(folder) if scenario is None else scenario.get("name") if isinstance(scenario, dict) else None
    if not is_whole(run_id) or not isinstance(name, str):
        raise broken(folder / "config.yaml", "data.run_id or data.scenario.name is missing")
    if not is_whole(buffer.get("size"), 1) or not is_whole(data.get("n_iter")):
        raise broken(folder / "config.yaml", "buffer.size or data.n_iter is no whole number")
    strategy = _strategy(config.get("baseline"), buffer, folder)
    key = "stream_accuracy" if measure == "accuracy" else "agreement"
    if not is_fraction(results.get(key)):
        raise broken(path, f"{key} is {results.get(key)}, not a fraction")
    experts = results.get("experts")
    if experts is None:
        raise ExmlError(f"{path} does not say how many experts there are: it is of an older version; {REMEDY}")
    if not is_whole(experts, 1) or not is_whole(results.get("processes", 1), 1):
        raise broken(path, "experts or processes is no number of them")
    steps: tuple[Step, ...] = ()
    if is_baseline:
        _check_baseline(path, results, strategy)
    else:
        _check_finished(folder, path, results)
        last = "stream" if measure == "accuracy" else "mean"
        steps = _read_matrix(folder / f"{measure}_matrix.csv", experts, last)
    return Run(folder, name, strategy, run_id, measure, is_baseline, config, results, steps)


def _group(config: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    group = config.get(name)
    if not isinstance(group, dict):
        raise broken(folder / "config.yaml", f"it has no {name}")
    return group


def _stream(folder: Path) -> str:
    """Name a stream without a data set by its folder: ``<stream>/<strategy>/run<k>``, unless the user named another."""
    parts = folder.resolve().parts
    return f"{parts[-3] if len(parts) > 3 and parts[-1].startswith('run') else parts[-1]} ({NO_DATA_SET})"


def _strategy(baseline: Any, buffer: dict[str, Any], folder: Path) -> str:
    if baseline is None and buffer.get("name") is not None:
        name = buffer["name"]
        if not isinstance(name, str) or not STRATEGY_NAME.fullmatch(name):
            raise broken(folder / "config.yaml", "buffer.name is not of a-z, 0-9 and _")
        return name
    chosen = buffer.get("generator") if baseline is None else baseline
    class_path = "ModelInversion" if chosen is None else chosen.get("class_path") if isinstance(chosen, dict) else None
    if not isinstance(class_path, str):
        raise broken(folder / "config.yaml", "baseline or buffer.generator has no class_path")
    return strategy_name(class_path)


def _check_baseline(path: Path, results: dict[str, Any], strategy: str) -> None:
    measured = results.get("baseline")
    if measured is None or strategy_name(str(measured)) != strategy:
        what = "a checkpoint" if measured is None else f"the baseline {measured}"
        raise broken(path, f"it is of {what}, but the config.yaml beside it is of {strategy}")


def _check_finished(folder: Path, path: Path, results: dict[str, Any]) -> None:
    learned, skipped = results.get("experiences_learned"), results.get("experiences_skipped") or []
    if not is_whole(learned):
        raise broken(path, "experiences_learned is missing")
    if not isinstance(skipped, list):
        raise broken(path, "experiences_skipped is no list")
    if learned + len(skipped) < results["experts"]:
        of = f"{learned} of {results['experts']}"
        raise ExmlError(f"{folder} is unfinished, {of} experts are learned: give its command again")


def _read_matrix(path: Path, experts: int, last: str) -> tuple[Step, ...]:
    lines = read_text(path).splitlines()
    try:
        heading, *cells = csv.reader(lines) if lines else [[]]
        parts = [int(name) for name in heading[1:-1] if re.fullmatch(r"\d{1,6}", name, re.ASCII)]
        if heading[:1] != ["after_experience"] or heading[-1] != last or not len(parts) == len(heading) - 2 > 0:
            raise ValueError(f"its columns are {', '.join(heading)}")
        steps = tuple(
            Step(int(line[0]), {k: float(a) for k, a in zip(parts, line[1:-1], strict=True) if a}, float(line[-1]))
            for line in cells
        )
        after = [step.after for step in steps]
        if not after or after != sorted(set(after)) or not 0 <= after[0] <= after[-1] < experts:
            raise ValueError(f"its rows are not after experiences from 0 to {experts - 1}")
        if not all(is_fraction(value) for step in steps for value in (step.whole, *step.parts.values())):
            raise ValueError("not all of its accuracies are fractions")
    except (ValueError, IndexError, csv.Error) as error:
        raise broken(path, one_line(error)) from error
    return steps
