"""Every run: a table that sorts, and below it each run's command, matrix and images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exml_lightning.report.agreement_run import AgreementRun
from exml_lightning.report.cells import Column
from exml_lightning.report.page.markup import Html, caption, element, joined, number, scroller, sort_heading
from exml_lightning.report.page.matrices import matrix
from exml_lightning.report.page.names import named_groups
from exml_lightning.report.page.pictures import Pictures
from exml_lightning.report.paper import title_of
from exml_lightning.report.run import Run
from exml_lightning.report.text import seconds

MOST_RUNS = 200
"""Runs whose matrix and images are shown; all are in the table."""
NO_SCENARIO = "no data set"


@dataclass(frozen=True)
class Entry:
    """A run as the page shows it.

    Args:
        run: The run.
        title: Name of its strategy, numbered where several groups are of it.
        anchor: Its place on the page.
        note: How its settings differ from its neighbours'.
        is_first: Whether it is the first of its scenario, which is open.
    """

    run: Run | AgreementRun
    title: str
    anchor: str
    note: str
    is_first: bool

    @property
    def scenario(self) -> str:
        """Its scenario."""
        if isinstance(self.run, Run):
            return self.run.scenario
        parts = self.run.folder.resolve().parts  # .../<stream>/<strategy>/run<k>, unless the user named another
        return f"{parts[-3] if len(parts) > 3 and parts[-1].startswith('run') else parts[-1]} ({NO_SCENARIO})"

    @property
    def name(self) -> str:
        """What the page calls it."""
        return f"{self.scenario}, {self.title}, run {self.run.run_id}"

    @property
    def figure(self) -> float:
        """Stream accuracy in %, or agreement."""
        return self.run.accuracy if isinstance(self.run, Run) else self.run.agreement


def entries(columns: dict[str, Column], agreement: list[AgreementRun]) -> list[Entry]:
    """Return all runs in the order of the tables."""
    found: list[Entry] = []
    for column in columns.values():
        is_open = False
        for title, strategy, group in named_groups(column):
            note = column.note(strategy, group)
            for run in group.runs:
                is_first = not is_open and not run.is_baseline
                is_open = is_open or is_first
                found.append(Entry(run, title, f"run-{len(found) + 1}", note, is_first))
    for i, without in enumerate(agreement):
        found.append(Entry(without, title_of(without.strategy), f"run-{len(found) + 1}", "", i == 0))
    return found


_HEADINGS = (
    *("scenario", "strategy", "run", "accuracy in %", "forgetting in %", "generating, s", "distilling, s", "seed"),
    *("device", "folder"),
)


def runs_table(found: list[Entry]) -> Html:
    """Write a row a run."""
    title = "All runs"
    rows = []
    for i, entry in enumerate(found):
        results = entry.run.results
        link = element("a", entry.scenario, href=f"#{entry.anchor}") if i < MOST_RUNS else entry.scenario
        forgetting = _number(results, "forgetting")
        costs = [_number(results, f"seconds_{what}") for what in ("generating", "distilling")]
        is_agreement = isinstance(entry.run, AgreementRun)
        accuracy = f"{entry.figure:.2f}" + (" agreement" if is_agreement else "")
        rows.append(
            element(
                "tr",
                element("th", link, scope="row"),
                element("td", entry.title, class_="word"),
                number(str(entry.run.run_id), entry.run.run_id),
                number(accuracy, entry.figure),
                _percent(forgetting),
                [number("-" if value is None else seconds(value), value) for value in costs],
                number(_text(results, "seed"), _number(results, "seed")),
                element("td", _text(results, "device"), class_="word"),
                element("td", element("code", entry.run.folder.as_posix())),
            )
        )
    headings = [sort_heading(name, i, class_="num" if 2 <= i <= 7 else None) for i, name in enumerate(_HEADINGS)]
    table = element(
        "table",
        caption(title),
        element("thead", element("tr", headings)),
        element("tbody", rows),
        class_="sortable",
    )
    return scroller(title, table, more="tall")


def run_details(entry: Entry, pictures: Pictures, left_out: list[str]) -> Html:
    """Write what there is of one run.

    Args:
        entry: The run.
        pictures: Writes its images.
        left_out: Gets a line for each picture that is broken.
    """
    run = entry.run
    what = "accuracy" if isinstance(run, Run) else "agreement"
    summary = element(
        "summary",
        element("span", entry.name, class_="name"),
        " ",
        element("span", f"{what} {entry.figure:.2f} %", class_="figure"),
    )
    parts: list[Html | None] = [_facts(run.folder, run.results, entry.note)]
    if run.over_time:
        columns, last = ("part", "stream") if isinstance(run, Run) else ("expert", "mean")
        parts.append(matrix(run.over_time, what.capitalize(), entry.name, columns, last))
    images = pictures.of_run(run.folder, entry.name, entry.anchor, left_out)
    if images is not None:
        parts.append(
            joined(
                [
                    element("h4", "Images and the expert's confidence"),
                    element(
                        "p",
                        "Some of the images that the run drew or made for each expert. Below an image: the probability "
                        "in % that this expert gives the class.",
                        class_="hint",
                    ),
                    images,
                ]
            )
        )
    return element("details", summary, parts, class_="run", id=entry.anchor, open=entry.is_first)


def _facts(folder: Path, results: dict[str, Any], note: str) -> Html:
    skipped = results.get("experiences_skipped") or []
    facts = {
        "command": element("code", _text(results, "command")),
        "folder": element("code", folder.as_posix()),
        "seed": _text(results, "seed"),
        "device": _text(results, "device"),
        "experts": f"{results.get('experts')}" + (f", {len(skipped)} of them skipped" if skipped else ""),
    }
    if note:
        facts["settings"] = note
    return element("dl", [joined([element("dt", key), element("dd", value)]) for key, value in facts.items()])


def _number(results: dict[str, Any], key: str) -> float | None:
    value = results.get(key)
    return float(value) if isinstance(value, int | float) and abs(value) < float("inf") else None


def _percent(fraction: float | None) -> Html:
    return number("-" if fraction is None else f"{100 * fraction:.2f}", fraction)


def _text(results: dict[str, Any], key: str) -> str:
    value = results.get(key)
    return "not known" if value is None else str(value)
