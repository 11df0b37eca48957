"""The page of `exml report --html`: one file that needs no network, from a template that escapes all text."""

import base64
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files

import jinja2
from markupsafe import Markup

from exml_lightning.report.page.runs import show_runs
from exml_lightning.report.page.svg import as_svg
from exml_lightning.report.paper import order_of, title_of
from exml_lightning.report.pictures import KINDS, Picture
from exml_lightning.report.rows import Report, shared
from exml_lightning.report.tables import DIFFER, NOTE, heading, notes, sections, table

NAME = "report.html"


def build_page(report: Report, pictures: Sequence[Picture], left_out: list[str], command: str) -> str:
    """Return the page's HTML, which tells `command` and `left_out`; that gets a line for what has no room on it."""
    shown = show_runs(report, left_out)
    strategies = {row.strategy for rows in report.values() for row in rows}
    tables = [
        {
            "id": f"table-{i}",
            "title": heading(rows),
            "section": next(title for title, names in sections(report).values() if scenario in names),
            "lines": table(scenario, rows),
            "settings": shared(rows),
            "notes": notes(rows),
        }
        for i, (scenario, rows) in enumerate(report.items(), 1)
    ]
    drawn = [
        {"picture": picture, "id": f"figure-{i}", "svg": as_svg(picture.figure, f"f{i}", picture.title)}
        for i, picture in enumerate(pictures, 1)
    ]
    skipped = [f"{run.name}: {run.run.skipped} experts skipped" for run in shown if run.run.skipped]
    script = _part("page.js")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    text = environment.from_string(_part("page.html")).render(
        style=Markup(_part("page.css")),
        script=Markup(script),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        made=datetime.now(UTC),
        version=version("exml-lightning"),
        command=command,
        scenarios=list(report),
        strategies=[title_of(name) for name in sorted(strategies, key=order_of)],
        incomplete=[*left_out, *skipped],
        tables=tables,
        note=NOTE,
        differ=DIFFER,
        kinds={kind: title for kind, title in KINDS.items() if any(picture.kind == kind for picture in pictures)},
        drawn=drawn,
        runs=shown,
    )
    return text.encode("utf-8", "backslashreplace").decode()  # names of strangers may have half characters


def _part(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
