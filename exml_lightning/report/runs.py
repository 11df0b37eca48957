"""Finding run folders and reading their small files."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.regular_file import check_regular

NOT_SEARCHED = ("buffer", "cache", "checkpoints", "ex_model", "samples")
"""Folders that hold no runs but may hold much else."""
FILES = ("config.yaml", "summary.json", "test.json")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where libyaml is there


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
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def find_runs(places: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Read the runs in folders and below them.

    Args:
        places: The folders: run folders, or folders with run folders anywhere below.

    Returns:
        The runs, each once, and a line for each that is broken or unfinished and was met below a folder.

    Raises:
        ExmlError: If a folder is missing, is itself a run that is broken or unfinished, or has no finished run below.
    """
    runs: dict[Path, Run] = {}
    left_out: dict[Path, str] = {}
    for place in places:
        if not place.is_dir():
            what = "is a file: name its folder" if place.exists() else "does not exist: name folders of runs"
            raise ExmlError(f"{place} {what}")
        folders = {folder.resolve(): folder for folder in _run_folders(place)}
        for resolved, folder in folders.items():
            if resolved in runs:
                continue
            try:
                runs[resolved] = read_run(folder)
            except ExmlError as error:
                if folder == place:
                    raise
                left_out[resolved] = str(error)
        if not runs.keys() & folders.keys():
            why = "".join(f"; {left_out[folder]}" for folder in list(folders)[:1])
            raise ExmlError(f"{place} holds no finished run of `exml fit` or `exml test`{why}")
    return list(runs.values()), list(left_out.values())


def _run_folders(place: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if name not in NOT_SEARCHED and not name.startswith("."))
        if any(name in names for name in FILES):
            yield Path(parent)


def read_run(folder: Path) -> Run:
    """Read one run.

    Args:
        folder: Its folder.

    Raises:
        ExmlError: If a file is missing or broken, or the run is unfinished.
    """
    config = _read_config(folder / "config.yaml")
    summary, test = folder / "summary.json", folder / "test.json"
    is_baseline = config.get("baseline") is not None
    if not is_baseline and not summary.is_file():
        raise ExmlError(f"{folder} is unfinished: it has no summary.json; give its command again")
    results = _read_json(test if is_baseline else summary)
    path = test if is_baseline else summary
    data, buffer = _group(config, "data", folder), _group(config, "buffer", folder)
    scenario = data.get("scenario")
    if not isinstance(scenario, dict):
        raise ExmlError(f"{folder} is of a stream without a scenario: it has agreement, no accuracy to report")
    run_id, name = data.get("run_id"), scenario.get("name")
    if not isinstance(run_id, int) or not isinstance(name, str):
        raise _broken(folder / "config.yaml", "data.run_id or data.scenario.name is missing")
    _check_finished(folder, path, results, is_baseline)
    return Run(
        folder=folder,
        scenario=name,
        strategy=_snake(config["baseline"] if is_baseline else buffer.get("generator"), folder),
        run_id=run_id,
        is_baseline=is_baseline,
        config=config,
        results=results,
        over_time=() if is_baseline else _read_matrix(folder / "accuracy_matrix.csv"),
    )


def _check_finished(folder: Path, path: Path, results: dict[str, Any], is_baseline: bool) -> None:
    accuracy, experts = results.get("stream_accuracy"), results.get("experts")
    if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
        raise _broken(path, f"stream_accuracy is {accuracy}, not a fraction")
    if not isinstance(experts, int):
        raise ExmlError(f"{path} does not say how many experts there are: it is of an older version; {REMEDY}")
    learned, skipped = results.get("experiences_learned"), results.get("experiences_skipped", [])
    if is_baseline:
        return
    if not isinstance(learned, int) or not isinstance(skipped, list):
        raise _broken(path, "experiences_learned is missing")
    if learned + len(skipped) < experts:
        raise ExmlError(f"{folder} is unfinished, {learned} of {experts} experts are learned: give its command again")


REMEDY = "make the run again, or leave its folder out"


def _broken(path: Path, why: str) -> ExmlError:
    return ExmlError(f"{path} is broken ({why}): {REMEDY}")


def _read_text(path: Path) -> str:
    try:
        check_regular(path)
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        older = ": it is of an older version" if path.name == "config.yaml" else ""
        raise ExmlError(f"{path.parent} has no {path.name}{older}; {REMEDY}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _broken(path, one_line(error)) from error


def _read_json(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _broken(path, one_line(error)) from error
    if not isinstance(content, dict):
        raise _broken(path, "it holds no names and values")
    return content


def _read_config(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        content = yaml.load(text, Loader=_LOADER)  # a safe one
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _broken(path, one_line(error)) from error
    if not isinstance(content, dict):
        raise _broken(path, "it holds no names and values")
    return content


def _group(config: dict[str, Any], name: str, folder: Path) -> dict[str, Any]:
    group = config.get(name)
    if not isinstance(group, dict):
        raise _broken(folder / "config.yaml", f"it has no {name}")
    return group


def _snake(chosen: Any, folder: Path) -> str:
    """Name a strategy as its run folder is named by default: ``ModelInversion`` is ``model_inversion``."""
    class_path = chosen.get("class_path") if isinstance(chosen, dict) else "ModelInversion"
    if not isinstance(class_path, str):
        raise _broken(folder / "config.yaml", "baseline or buffer.generator has no class_path")
    name = class_path.rpartition(".")[2]
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def _read_matrix(path: Path) -> tuple[Row, ...]:
    try:
        heading, *lines = list(csv.reader(_read_text(path).splitlines()))
        if heading[0] != "after_experience" or heading[-1] != "stream":
            raise ValueError(f"its columns are {', '.join(heading)}")
        parts = [int(name) for name in heading[1:-1]]
        return tuple(
            Row(int(line[0]), {k: float(a) for k, a in zip(parts, line[1:-1], strict=True) if a}, float(line[-1]))
            for line in lines
        )
    except (ValueError, IndexError, csv.Error) as error:
        if isinstance(error, ExmlError):
            raise
        raise _broken(path, one_line(error)) from error
