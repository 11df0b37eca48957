"""The tables: one a scenario, a row for each strategy and settings, ours beside the paper's; and one row a run."""

from collections.abc import Sequence
from dataclasses import dataclass

from exml_lightning.report.buffer_size import without_smaller
from exml_lightning.report.paper import (
    DAMAGED,
    DAMAGED_NOTE,
    FIGURES,
    PAPER_ROWS,
    TABLE_2,
    TABLE_3,
    is_ex_model,
    order_of,
    title_of,
)
from exml_lightning.report.rows import Report, Row, differing
from exml_lightning.report.text import csv_text, seconds, with_std

NOTE = (
    "Mean ± sample standard deviation over the runs. Ex-model: keeps the constraints of the ex-model scenario, one "
    "model and no original data. Seconds: mean of generating + distilling, of baselines testing; images found in the "
    "cache cost none. Differs in: the settings in which rows of one strategy differ; those below a table are of each "
    "strategy's first row. Of rows that make a line of the picture of buffer sizes the largest is here."
)
UNKNOWN = (
    "Not known: runs without labelled images have no accuracy, so neither a figure here nor a picture of it over time. "
    "Their agreement with the experts, which is no accuracy, is in runs.csv, and on the page of --html beside each run."
)
DIFFER = "Settings that differ between strategies"
SAME = "The same in all"
HEADINGS = ("strategy", "ex-model", "runs", "ours", "paper", "seconds", "differs in")
COSTS = ("generating", "distilling", "testing")


@dataclass(frozen=True)
class Line:
    """A row of a table: its runs, none for a row of the paper that there are no runs of, and in what it differs."""

    scenario: str
    strategy: str
    row: Row | None
    settings: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        """Its cells in words."""
        start = title_of(self.strategy), is_ex_model(self.strategy)
        doubt = " (?)" if (self.scenario, self.strategy) == DAMAGED else ""
        paper = with_std(*self.figures) + doubt if self.figures else ""
        if self.row is None:
            return (*start, "0", "no runs", paper, "", "")
        ours = "not known" if self.row.percent is None else with_std(*self.row.percent)
        time = " + ".join(map(seconds, self.seconds))
        return (*start, str(len(self.row.runs)), ours, paper, time, "; ".join(self.settings))

    @property
    def figures(self) -> tuple[float, float] | None:
        """Mean and standard deviation of the paper."""
        return FIGURES.get((self.scenario, self.strategy))

    @property
    def seconds(self) -> list[float | None]:
        """Mean seconds of what its runs did."""
        if self.row is None:
            return []
        return [self.row.mean_of(f"seconds_{name}") for name in (COSTS[2:] if self.row.is_baseline else COSTS[:2])]


def sections(report: Report) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return the tables' files, without suffix, each with its title and scenarios: the paper's two, and all others."""
    others = tuple(name for name in report if name not in TABLE_2 + TABLE_3)
    found = {
        "table_2": ("Table 2. Stream accuracy in %, MNIST and CIFAR10", TABLE_2),
        "table_3": ("Table 3. Stream accuracy in %, CORe50", TABLE_3),
        "table_other": ("Other scenarios", others),
    }
    return found if others else {name: found[name] for name in ("table_2", "table_3")}


def heading(rows: Sequence[Row]) -> str:
    """Name the table of a scenario."""
    return f"{rows[0].scenario}: stream accuracy in %"


def notes(rows: Sequence[Row]) -> list[str]:
    """Say what the figures of a scenario's table do not: that the paper's is damaged, that there are none."""
    damaged = [DAMAGED_NOTE] if rows[0].scenario == DAMAGED[0] else []
    return damaged + ([UNKNOWN] if any(row.percent is None for row in rows) else [])


def table(scenario: str, rows: Sequence[Row]) -> list[Line]:
    """Return the table of a scenario; rows of the paper that there are no runs of are in it, too.

    Of rows that make a curve of buffer sizes it has that of the largest; see `without_smaller`.
    """
    lines = [Line(scenario, row.strategy, row, tuple(differing(row, rows))) for row in without_smaller(rows)]
    missing = [
        name for name in PAPER_ROWS if (scenario, name) in FIGURES and name not in {row.strategy for row in rows}
    ]
    lines += [Line(scenario, name, None) for name in missing]
    return sorted(lines, key=lambda line: order_of(line.strategy))


CSV_HEADINGS = (
    *("scenario", "strategy", "name", "settings", "runs", "mean_percent", "std_percent"),
    *("paper_mean_percent", "paper_std_percent"),
    *(f"mean_seconds_{name}" for name in COSTS),
)


def tables_csv(scenarios: Sequence[str], report: Report) -> str:
    """Write the tables of some scenarios in long form; rows of the paper without runs have 0 runs."""
    found: list[Sequence[object]] = []
    for scenario in scenarios:
        for line in table(scenario, report.get(scenario, [])):
            paper = line.figures if (scenario, line.strategy) != DAMAGED else None
            start = scenario, line.strategy, title_of(line.strategy), "; ".join(line.settings)
            runs, percent = (0, None) if line.row is None else (len(line.row.runs), line.row.percent)
            ours = runs, *(percent or (None, None))
            costs = [line.row and line.row.mean_of(f"seconds_{name}") for name in COSTS]
            found.append((*start, *ours, *(paper or (None, None)), *costs))
    return csv_text(CSV_HEADINGS, found)


FRACTIONS = ("stream_accuracy", "stored_experts", "chance", "agreement", "average_accuracy", "forgetting")
RUNS_HEADINGS = (
    *("scenario", "strategy", "run", "seed"),
    *(f"{name}_percent" for name in FRACTIONS),
    *(f"seconds_{name}" for name in COSTS),
    *("peak_memory_mb", "device", "buffer_size", "settings", "command", "folder"),
)


def runs_csv(report: Report) -> str:
    """Write one row a run; ``settings`` says how its row of the table differs from others."""
    found: list[Sequence[object]] = []
    for scenario, rows in report.items():
        for row in rows:
            settings = "; ".join(differing(row, rows))
            for run in row.runs:
                fractions = [run.number(name) for name in FRACTIONS]
                found.append((
                    *(scenario, row.strategy, run.run_id, run.results.get("seed")),
                    *(None if value is None else 100 * value for value in fractions),
                    *(run.number(f"seconds_{name}") for name in COSTS),
                    *(run.number("peak_memory_mb"), run.results.get("device"), row.settings.get("buffer.size")),
                    *(settings, run.results.get("command"), run.folder.as_posix()),
                ))  # fmt: skip
    return csv_text(RUNS_HEADINGS, found)
