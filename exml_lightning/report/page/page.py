"""`report.html`: all of a report on one page, one file that asks for no other."""

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files
from itertools import groupby
from string import Template

from exml_lightning.report.agreement_run import AgreementRun
from exml_lightning.report.cells import Column
from exml_lightning.report.page.charts import buffer_size_charts, over_time_charts
from exml_lightning.report.page.markup import Html, element, joined
from exml_lightning.report.page.pictures import Pictures
from exml_lightning.report.page.run_list import MOST_RUNS, Entry, entries, run_details, runs_table
from exml_lightning.report.page.score_tables import score_table
from exml_lightning.report.page.settings_table import settings_table
from exml_lightning.report.page.summary import summary
from exml_lightning.report.tables import layouts

NAME = "report.html"
_OVER_TIME = (
    "Accuracy on the whole test stream after each expert: mean over the runs of a strategy, in a band of one standard "
    "deviation. Baselines, which ask all experts at once, are level lines."
)
_BUFFER = "All points of a line are of the same runs, where there are such; docs/report.md says which."
_SETTINGS = (
    "What can change a result and is not the same in all groups of learned runs. Baselines are compared in the notes "
    "below the tables."
)


def build_page(columns: dict[str, Column], agreement: Sequence[AgreementRun], left_out: list[str], command: str) -> str:
    """Write the page.

    Args:
        columns: All cells, by scenario.
        agreement: Runs of streams without a scenario.
        left_out: A line for each run and each picture that was left out; gets more for pictures that are broken.
        command: The command line, to be told.

    Returns:
        The HTML document.
    """
    found = entries(columns, list(agreement))
    pictures = Pictures()
    details = []
    for scenario, several in groupby(found[:MOST_RUNS], key=lambda entry: entry.scenario):
        details.append(element("h3", scenario))
        details += [run_details(entry, pictures, left_out) for entry in several]
    tables, without = [], []
    for layout in layouts(columns):
        table = score_table(layout, columns)
        if table is None:
            without.append(f"{layout.title}: no runs")
        else:
            tables.append(table)
    incomplete = [*left_out, *_skipped(found), *pictures.notes]
    if len(found) > MOST_RUNS:
        incomplete.append(f"matrix and images of {len(found) - MOST_RUNS} of {len(found)} runs are not shown")
    settings = [table for column in columns.values() if (table := settings_table(column)) is not None]
    sections = {
        "summary": ("Summary", "", [summary(found, command, incomplete)]),
        "tables": ("Tables", ". ".join(without), tables),
        "time": ("Accuracy over time", _OVER_TIME, over_time_charts(columns)),
        "buffer": (
            "Buffer size",
            _BUFFER,
            buffer_size_charts(columns),
        ),
        "settings": ("Settings that differ", _SETTINGS, settings),
        "runs": ("Runs", "", [runs_table(found), *details]),
    }
    shown = {key: section for key, section in sections.items() if section[2]}
    links = [element("li", element("a", title, href=f"#{key}")) for key, (title, _, _) in shown.items()]
    body = joined([_section(key, *section) for key, section in shown.items()])
    many = f"{len(found):,} run{'' if len(found) == 1 else 's'}"
    style, script = _part("page.css"), _part("page.js")
    return Template(_part("page.html")).substitute(
        title=element("title", f"exml report: {many}"),
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; img-src data:; "
        "base-uri 'none'; form-action 'none'",
        style=style,
        script=script,
        heading=element("h1", f"Report of {many}"),
        links=element("ul", links),
        body=body,
    )


def _section(key: str, title: str, text: str, parts: list[Html]) -> Html:
    heading = element("h2", title, id=f"{key}-title")
    words = element("p", text, class_="lead") if text else None
    return element("section", heading, words, parts, id=key, aria_labelledby=f"{key}-title")


def _skipped(found: Sequence[Entry]) -> list[str]:
    counts = [(entry.name, len(entry.run.results.get("experiences_skipped") or [])) for entry in found]
    return [f"{name}: {count} expert{'' if count == 1 else 's'} skipped" for name, count in counts if count]


def _part(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
