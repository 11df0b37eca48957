"""Tables 2 and 3 in the paper's layout, a table of all other scenarios, and one row a run."""

from collections.abc import Sequence
from dataclasses import dataclass

from exml_lightning.report.cells import Column, Group, has_papers_experts
from exml_lightning.report.paper import (
    DAMAGED,
    DAMAGED_NOTE,
    FIGURES,
    TABLE_2,
    TABLE_3,
    Strategy,
    has_figures,
    is_defined,
    rows_of,
)
from exml_lightning.report.text import Footnotes, csv_text, escape, markdown, with_std

NO_RUNS = "no runs"
NOT_DEFINED = "-"
DOUBT = "(?)"
MARKS = {True: "✓", False: "✗", None: ""}
DIVIDER = "not in the paper's table"
LEAST = 0.1
"""Percentage points that a figure must differ from the paper's by to be marked, where neither has a spread."""
ARROWS_NOTE = (
    "↑, ↓: differs from the paper's figure by more than two standard deviations (the larger of the two), and by more "
    f"than {LEAST}."
)
CELLS_NOTE = (
    "Mean ± sample standard deviation over the runs, in brackets their number. ✓: keeps the constraints of the "
    "ex-model scenario (one model, no original data); ✗: does not. -: not defined."
)


@dataclass(frozen=True)
class Layout:
    """One of the tables.

    Args:
        name: Of its files.
        title: Heading.
        scenarios: Its columns.
        is_paper: Whether it is one of the paper's, written in full even where there are no runs.
    """

    name: str
    title: str
    scenarios: tuple[str, ...]
    is_paper: bool

    def rows(self, columns: dict[str, Column]) -> list[Strategy]:
        """Return its rows, those of the paper's tables first."""
        present = {strategy for name in self.scenarios if name in columns for strategy in columns[name].cells}
        return rows_of(present, whole=self.is_paper)


@dataclass(frozen=True)
class Table:
    """A table in words.

    Args:
        headings: Of its columns.
        rows: Its cells.
        notes: What stands below it.
    """

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]

    def markdown(self) -> str:
        """Write it in Markdown, with the notes below."""
        return markdown(self.headings, self.rows) + "\n" + "".join(f"{escape(note)}  \n" for note in self.notes)


def layouts(columns: dict[str, Column]) -> list[Layout]:
    """Return the tables that a report has: the paper's two, and a third if there are runs of other scenarios."""
    others = tuple(name for name in columns if name not in TABLE_2 + TABLE_3)
    found = [
        Layout("table_2", "Table 2. Stream accuracy in %, MNIST and CIFAR10", TABLE_2, is_paper=True),
        Layout("table_3", "Table 3. Stream accuracy in %, CORe50", TABLE_3, is_paper=True),
        Layout("table_other", "Other scenarios. Stream accuracy in %", others, is_paper=False),
    ]
    return found if others else found[:2]


def make_table(layout: Layout, columns: dict[str, Column]) -> Table:
    """Put a table in words.

    Args:
        layout: Which table.
        columns: All cells, by scenario.
    """
    footnotes = Footnotes()
    headings = ["", "ex-model scenario"]
    for scenario in layout.scenarios:
        headings += [scenario, "paper"] if has_figures(scenario) else [scenario]
    rows = []
    is_below = False
    for strategy in layout.rows(columns):
        if layout.is_paper and not strategy.in_table and not is_below:
            is_below = True
            rows.append((DIVIDER, *[""] * (len(headings) - 1)))
        row = [strategy.title, MARKS[strategy.ex_model]]
        for scenario in layout.scenarios:
            row.append(cell_text(scenario, strategy.key, columns.get(scenario), footnotes))
            if has_figures(scenario):
                row.append(paper_text(scenario, strategy))
        rows.append(tuple(row))
    compared = any(mark in cell for row in rows for cell in row for mark in "↑↓")
    notes = [*footnotes.lines, CELLS_NOTE]
    notes += [ARROWS_NOTE] if compared else []
    notes += [DAMAGED_NOTE] if DAMAGED[0] in layout.scenarios else []
    return Table(tuple(headings), tuple(rows), tuple(notes))


@dataclass(frozen=True)
class CellLine:
    """A group in a cell of a table.

    Args:
        group: The group.
        arrow: How it compares with the paper's figure, see `arrow`.
        mark: The raised letter of its note, if it has one.
    """

    group: Group
    arrow: str
    mark: str

    @property
    def figures(self) -> str:
        """Mean and standard deviation, and in brackets the number of runs."""
        return f"{with_std(*self.group.accuracy)} ({len(self.group.runs)})"


def cell_lines(scenario: str, strategy: str, column: Column | None, footnotes: Footnotes) -> list[CellLine]:
    """Return what a cell has: its main group, then each other group on a line of its own; nothing without runs."""
    if column is None or strategy not in column.cells:
        return []
    cell = column.cells[strategy]
    lines = []
    for group in (cell.main, *cell.others):
        note = column.note(strategy, group)
        lines.append(CellLine(group, arrow(scenario, strategy, group), footnotes.mark(note) if note else ""))
    return lines


def empty_text(scenario: str, strategy: str) -> str:
    """Put a cell without runs in words."""
    return NO_RUNS if is_defined(scenario, strategy) else NOT_DEFINED


def cell_text(scenario: str, strategy: str, column: Column | None, footnotes: Footnotes) -> str:
    """Put a cell in words, a line a group."""
    lines = cell_lines(scenario, strategy, column, footnotes)
    words = [" ".join(filter(None, (line.figures, line.arrow, line.mark))) for line in lines]
    return "\n".join(words) or empty_text(scenario, strategy)


def paper_text(scenario: str, strategy: Strategy) -> str:
    """Put the paper's figure in words: a dash where its table has one, nothing where it has no such row."""
    if not strategy.in_table:
        return ""
    figures = FIGURES.get((scenario, strategy.key))
    doubt = f" {DOUBT}" if (scenario, strategy.key) == DAMAGED else ""
    return "-" if figures is None else with_std(*figures) + doubt


def arrow(scenario: str, strategy: str, group: Group) -> str:
    """Compare with the paper, both rounded as the paper is.

    Returns:
        ``↑`` or ``↓`` where the difference is more than two of the larger standard deviation, else nothing; nothing
        where the experts were not as many as the paper's.
    """
    is_comparable = has_papers_experts(scenario, group) and (scenario, strategy) != DAMAGED
    if not is_comparable or (scenario, strategy) not in FIGURES:
        return ""
    mean, std = FIGURES[scenario, strategy]
    our_mean, our_std = group.accuracy
    # In whole hundredths: a difference of floats would be larger than itself now and then.
    difference = round(100 * our_mean) - round(100 * mean)
    allowed = max(2 * round(100 * std), 2 * round(100 * (our_std or 0.0)), round(100 * LEAST))
    return "" if abs(difference) <= allowed else "↑" if difference > 0 else "↓"


CSV_HEADINGS = (
    *("scenario", "strategy", "name", "group", "runs", "mean_percent", "std_percent"),
    *("paper_mean_percent", "paper_std_percent"),
    *("mean_seconds_generating", "mean_seconds_distilling", "mean_seconds_testing"),
)


def table_csv(layout: Layout, columns: dict[str, Column]) -> str:
    """Write a table in long form: a row for each group of each cell; without runs, a row with 0 runs."""
    rows: list[Sequence[object]] = []
    for scenario in layout.scenarios:
        for strategy in layout.rows(columns):
            paper = FIGURES.get((scenario, strategy.key)) if (scenario, strategy.key) != DAMAGED else None
            theirs = paper or (None, None)
            column = columns.get(scenario)
            if column is None or strategy.key not in column.cells:
                rows.append((scenario, strategy.key, strategy.title, "", 0, None, None, *theirs, None, None, None))
                continue
            cell = column.cells[strategy.key]
            for group in (cell.main, *cell.others):
                note = column.note(strategy.key, group)
                figures = (len(group.runs), *group.accuracy, *theirs)
                costs = [group.mean_of(f"seconds_{name}") for name in ("generating", "distilling", "testing")]
                rows.append((scenario, strategy.key, strategy.title, note, *figures, *costs))
    return csv_text(CSV_HEADINGS, rows)


RUNS_HEADINGS = (
    *("scenario", "strategy", "run", "seed", "stream_accuracy_percent", "average_accuracy_percent"),
    *("forgetting_percent", "seconds_generating", "seconds_distilling", "seconds_testing", "peak_memory_mb"),
    *("device", "buffer_size", "differs", "command", "folder"),
)


def runs_csv(columns: dict[str, Column]) -> str:
    """Write one row a run; ``differs`` says how its settings differ from its neighbours'."""
    rows: list[Sequence[object]] = []
    for column in columns.values():
        for strategy, cell in column.cells.items():
            for group in cell.groups:
                note = column.note(strategy, group)
                for run in group.runs:
                    fractions = [run.number(key) for key in ("stream_accuracy", "average_accuracy", "forgetting")]
                    costs = [run.number(f"seconds_{name}") for name in ("generating", "distilling", "testing")]
                    rows.append((
                        *(column.scenario, strategy, run.run_id, run.results.get("seed")),
                        *(None if value is None else 100 * value for value in fractions),
                        *(*costs, run.number("peak_memory_mb"), run.results.get("device")),
                        *(group.settings.get("buffer.size"), note, run.results.get("command"), run.folder.as_posix()),
                    ))  # fmt: skip
    return csv_text(RUNS_HEADINGS, rows)
