"""The rows of the tables: runs of one scenario and strategy that have the same settings."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exml_lightning.report.paper import EXPERTS, TABLE_2, TABLE_3, order_of, title_of
from exml_lightning.report.runs import Run
from exml_lightning.report.settings import Settings, key_of, say, settings_of
from exml_lightning.report.text import printable

SIZE = "buffer.size"
_OF_EXPERTS = ("expert", "data.scenario", "data.labelled")
_OF_STRATEGY = ("buffer.generator", "baseline", "data.auxiliary")


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but the run, by their number."""

    scenario: str
    strategy: str
    settings: Settings
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        """Name of the strategy."""
        return title_of(self.strategy)

    @property
    def is_baseline(self) -> bool:
        """Whether the runs learned nothing."""
        return self.runs[0].is_baseline

    @property
    def percent(self) -> tuple[float, float | None] | None:
        """Mean and sample standard deviation of accuracy in %, the latter None for one run; None if not known."""
        known = [run.percent for run in self.runs if run.percent is not None]
        return mean_and_std(known) if known else None

    @property
    def learned(self) -> int:
        """How many experts were learned, or asked by a baseline."""
        return int(self.settings["experts"]) - self.runs[0].skipped

    def mean_of(self, key: str) -> float | None:
        """Return the mean of a figure of the results over the runs that have it."""
        values = [value for run in self.runs if (value := run.number(key)) is not None]
        return statistics.fmean(values) if values else None


Report = dict[str, list[Row]]
"""All rows by scenario, in the order of the tables; of a strategy, most runs, largest buffer, most steps first.

Those of experts that know what is none of their classes come last.
"""


def mean_and_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation; None for the latter of one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def sort_runs(runs: Iterable[Run], left_out: list[str]) -> Report:
    """Sort runs into rows; `left_out` gets a line for each run that is there twice."""
    found: dict[tuple[str, str, str], dict[int, Run]] = defaultdict(dict)
    settings: dict[tuple[str, str, str], Settings] = {}
    for run in sorted(runs, key=lambda run: len(run.folder.name)):
        its = settings_of(run)
        place = run.scenario, run.strategy, key_of(its)
        settings[place] = its
        other = found[place].setdefault(run.run_id, run)
        if other is not run:
            left_out.append(_repeats(run, other))
    paper = TABLE_2 + TABLE_3

    def order(place: tuple[str, str, str]) -> tuple[object, ...]:
        scenario, strategy, key = place
        column = paper.index(scenario) if scenario in paper else len(paper)
        its = settings[place]
        size, steps = (-float(its.get(what) or 0) for what in (SIZE, "data.n_iter"))
        taught_more = bool(its.get("expert.training.unknown"))
        return column, scenario, order_of(strategy), taught_more, -len(found[place]), size, steps, key

    report: Report = defaultdict(list)
    for place in sorted(found, key=order):
        members = tuple(run for _, run in sorted(found[place].items()))
        report[place[0]].append(Row(place[0], place[1], settings[place], members))
    return dict(report)


def _repeats(run: Run, other: Run) -> str:
    digests = {str(one.results["experts_digest"]) for one in (run, other) if "experts_digest" in one.results}
    what = f"run {run.run_id} of {run.strategy} on {run.scenario} with the same settings"
    but = " but other experts" if len(digests) > 1 else "" if run.percent == other.percent else " but other figures"
    return printable(f"{run.folder} repeats {other.folder}: {what}{but}; delete one of them")


def first_rows(rows: Iterable[Row]) -> list[Row]:
    """Return the first row of each strategy, which the figures show."""
    return list({row.strategy: row for row in reversed(list(rows))}.values())[::-1]


def differing(row: Row, rows: Iterable[Row]) -> list[str]:
    """Say what a row is set to where the rows of its strategy differ; and that the paper had other experts."""
    own = [other.settings for other in rows if other.strategy == row.strategy]
    keys = sorted({key for settings in own for key in settings})
    words = [
        f"{key} {say(row.settings.get(key))}"
        for key in keys
        if len({key_of(settings.get(key)) for settings in own}) > 1
    ]
    paper = EXPERTS.get(row.scenario, row.learned)
    return words if row.learned == paper else [*words, f"{row.learned} experts, the paper's {paper}"]


@dataclass(frozen=True)
class Shared:
    """Settings of a scenario: what all are set to, where they differ and who, and what is a strategy's own."""

    same: Sequence[str]
    differ: Sequence[str]
    own: Sequence[str]


def shared(rows: Iterable[Row]) -> Shared:
    """Compare the settings of a scenario's strategies: those of learning among what learned, experts among all."""
    first = first_rows(rows)
    learned = [row for row in first if not row.is_baseline]
    same, differ = [], []
    for key in sorted({key for row in first for key in row.settings if not key.startswith(_OF_STRATEGY)}):
        values: dict[str, list[str]] = defaultdict(list)
        for row in first if key.startswith(_OF_EXPERTS) else learned:
            values[say(row.settings.get(key))].append(row.title)
        *others, most = sorted(values, key=lambda value: len(values[value])) or [""]
        if others:
            told = [f"{each} ({', '.join(values[each])})" for each in others if each != "null"]
            differ.append(f"{key} {', '.join([*told, *([f'else {most}'] if most != 'null' else [])])}")
        elif most not in ("", "0") and key != "data.scenario.name":
            same.append(f"{key} {most}")
    own = []
    for row in learned:
        found = {key: value for key, value in row.settings.items() if key.startswith(_OF_STRATEGY) and value != 0}
        words = "; ".join(f"{key.removeprefix('buffer.')} {say(value)}" for key, value in found.items())
        own.append(f"{row.title}: {words}")
    return Shared(same, differ, own)
