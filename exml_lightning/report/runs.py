"""Run folders: found, and read from the small files in them, which strangers may have written."""

import csv
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from exml_lightning.core.errors import ExmlError, one_line
from exml_lightning.core.strategy_name import STRATEGY_NAME, strategy_name
from exml_lightning.files import MAX_DEPTH, read_bytes, read_yaml
from exml_lightning.report.text import printable

NOT_SEARCHED = ("buffer", "cache", "checkpoints", "ex_model", "samples")
"""Folders that hold no runs but may hold much else."""
FILES = ("config.yaml", "summary.json", "test.json")
WITH_STATISTICS = "_with_statistics"
"""After the strategy of runs whose experts published statistics: another task, which has rows of its own."""
REMEDY = "make the run again, or leave its folder out"

Whole = Annotated[int, Field(strict=True, ge=0)]
Count = Annotated[int, Field(strict=True, ge=1)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]

_MAPPING = TypeAdapter(dict[str, Any])


@dataclass(frozen=True)
class Step:
    """What was measured after an experience, from 0: fractions.

    `parts` has accuracy on each part of the test stream, by the experience that brought it, `whole` that on all of it;
    without labelled images, agreement with each expert, and its mean.
    """

    after: int
    parts: dict[int, float]
    whole: float


@dataclass(frozen=True)
class Run:
    """A finished run, in the folder it was found in.

    `scenario` names the stream where there is none; `strategy` the baseline if `is_baseline`, which `exml test`
    measured. `measure` is `accuracy`, or without labelled images `agreement` with the experts; `percent` is accuracy on
    the whole test stream, in %, None where it is not known: agreement never takes its place. `config` is its
    `config.yaml`, `results` its `summary.json` (of a baseline `test.json`), `steps` its `accuracy_matrix.csv` or
    `agreement_matrix.csv` (empty for a baseline).
    """

    folder: Path
    scenario: str
    strategy: str
    run_id: int
    measure: str
    is_baseline: bool
    percent: float | None
    config: dict[str, Any]
    results: dict[str, Any]
    steps: tuple[Step, ...]

    @property
    def classes(self) -> dict[int, str]:
        """The classes of each expert, from 0, in words; none of a run of 0.2.0 or before."""
        return {k: ", ".join(names) for k, names in enumerate(self.results.get("expert_classes") or [])}

    @property
    def skipped(self) -> int:
        """How many experts were skipped."""
        return len(self.results.get("experiences_skipped") or [])

    def number(self, key: str) -> float | None:
        """Return a figure of the results, None where there is none."""
        value: Any = self.results.get(key)
        return float(value) if type(value) in (int, float) and abs(value) < 1e300 else None

    def words(self, key: str) -> str:
        """Return a result as it is written, or that it is not known."""
        value = self.results.get(key)
        return "not known" if value is None else str(value)


def find_runs(places: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Read the runs in and below folders, links followed; `ExmlError` if a folder is missing or has no finished run.

    Returns the runs, each once, and a line for each that is broken or unfinished and each folder that cannot be read.
    """
    runs: dict[str, Run] = {}
    left_out: list[str] = []
    for place in places:
        if not os.path.isdir(place):  # noqa: PTH112 - pathlib raises for what may not be looked at
            what = "is a file: name its folder" if os.path.isfile(place) else "does not exist: name folders of runs"  # noqa: PTH113
            raise ExmlError(f"{place} {what}")
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


class _Class(BaseModel):
    class_path: str


class _Scenario(BaseModel):
    name: str


class _Data(BaseModel):
    run_id: Whole
    n_iter: Whole
    labelled: str | None = None
    scenario: _Scenario | None = None


class _Buffer(BaseModel):
    size: Count
    name: Annotated[str, Field(pattern=f"^{STRATEGY_NAME.pattern}$")] | None = None
    generator: _Class | None = None


class _Config(BaseModel):
    """What the report needs of a `config.yaml`."""

    data: _Data
    buffer: _Buffer
    baseline: _Class | None = None

    @property
    def strategy(self) -> str:
        if self.baseline is None and self.buffer.name is not None:
            return self.buffer.name
        chosen = self.baseline or self.buffer.generator
        return strategy_name(chosen.class_path if chosen else "ModelInversion")


class _Results(BaseModel):
    """What the report needs of a `summary.json` or `test.json`."""

    experts: Count
    processes: Count = 1
    stream_accuracy: Fraction | None = None
    agreement: Fraction | None = None
    experiences_learned: Whole = 0
    experiences_skipped: list[object] | None = None
    baseline: str | None = None
    experts_with_statistics: Whole = 0
    expert_classes: list[list[str]] | None = None


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file where what it says cannot be used."""
    try:
        yield
    except ExmlError:
        raise
    except (ValueError, IndexError, RecursionError, csv.Error) as error:
        why = one_line(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            why = ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))
        raise ExmlError(f"{path} is broken ({printable(why)[:300]}): {REMEDY}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Read a mapping from JSON; `ExmlError` names a file that is missing, not regular, too large, or no mapping."""
    with _reading(path):
        values = json.loads(read_bytes(path).decode("utf-8"))  # pydantic's reader takes no half characters
        if _depth(values) > MAX_DEPTH:
            raise ValueError(f"it is nested more than {MAX_DEPTH} deep")
        return _MAPPING.validate_python(values)


def _depth(value: object) -> int:
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, entries), default=0)


def read_run(folder: Path) -> Run:
    """Read the run in a folder; raises `ExmlError` if a file is missing or broken, or the run is unfinished."""
    path = folder / "config.yaml"
    if not path.exists():
        raise ExmlError(f"{path} is missing: a run of distil() has none; `exml fit` with the same settings writes it")
    with _reading(path):
        plain = _MAPPING.validate_python(read_yaml(path))
        config = _Config.model_validate(plain)
    path = folder / ("summary.json" if config.baseline is None else "test.json")
    if not path.is_file():
        raise ExmlError(f"{folder} is unfinished: it has no {path.name}; give its command again")
    values = read_json(path)
    scenario = config.data.scenario
    labelled = scenario is not None or config.data.labelled is not None
    measure, last = ("accuracy", "stream") if labelled else ("agreement", "mean")
    with _reading(path):
        results = _Results.model_validate(values)
        if (results.stream_accuracy if labelled else results.agreement) is None:
            raise ValueError(f"it has no {'stream_accuracy' if labelled else 'agreement'}")
        if config.baseline is not None and strategy_name(results.baseline or "") != config.strategy:
            what = "a checkpoint" if results.baseline is None else f"the baseline {results.baseline}"
            raise ValueError(f"it is of {what}, but the config.yaml beside it is of {config.strategy}")
    steps: tuple[Step, ...] = ()
    if config.baseline is None:
        learned = results.experiences_learned
        if learned + len(results.experiences_skipped or []) < results.experts:
            of = f"{learned} of {results.experts} experts are learned"
            raise ExmlError(f"{folder} is unfinished, {of}: give its command again")
        with _reading(path := folder / f"{measure}_matrix.csv"):
            steps = _read_matrix(read_bytes(path).decode("utf-8").splitlines(), results.experts, last)
    return Run(
        folder=folder,
        scenario=_stream(folder, labelled) if scenario is None else scenario.name,
        strategy=config.strategy + (WITH_STATISTICS if results.experts_with_statistics else ""),
        run_id=config.data.run_id,
        measure=measure,
        is_baseline=config.baseline is not None,
        percent=None if results.stream_accuracy is None else 100 * results.stream_accuracy,
        config=plain,
        results=values,
        steps=steps,
    )


def _stream(folder: Path, labelled: bool) -> str:
    """Name a stream without a scenario by its folder: ``<stream>/<strategy>/run<k>``, unless the user named another."""
    parts = folder.resolve().parts
    name = parts[-3] if len(parts) > 3 and parts[-1].startswith("run") else parts[-1]
    return f"{name} ({'own' if labelled else 'no'} labelled images)"


def _read_matrix(lines: Sequence[str], experts: int, last: str) -> tuple[Step, ...]:
    """Read a row an experience: a fraction for each part of the stream, empty where there was none, and the whole."""
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
    if not all(0 <= value <= 1 for step in steps for value in (step.whole, *step.parts.values())):
        raise ValueError("not all of its accuracies are fractions")
    return steps
