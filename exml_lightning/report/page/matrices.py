"""The accuracy matrix of a run, or its agreement matrix, as a table of shaded cells."""

from collections.abc import Sequence
from typing import TypeVar

from exml_lightning.report.page.markup import Html, caption, element, scroller
from exml_lightning.report.run import Row

Item = TypeVar("Item")
MOST = 24
"""Rows and columns that there is room for; of longer streams some are shown, evenly apart."""
SHADES = 10


def matrix(rows: Sequence[Row], what: str, name: str, part: str, last: str) -> Html:
    """Write a matrix.

    Args:
        rows: What was measured after each experience.
        what: ``Accuracy`` or ``Agreement``.
        name: The run.
        part: What its columns are: ``part`` or ``expert``.
        last: Heading of the last column.
    """
    parts = sorted({name for row in rows for name in row.parts})
    shown, columns = _some(rows), _some(parts)
    heading = element(
        "tr",
        element("th", "learned", scope="col"),
        [element("th", f"{part} {name + 1}", scope="col", class_="num") for name in columns],
        element("th", last, scope="col", class_="num total"),
    )
    lines = [
        element(
            "tr",
            element("th", f"expert {row.after + 1}", scope="row"),
            [_cell(row.parts.get(name), name == row.after) for name in columns],
            _cell(row.stream, False, " total"),
        )
        for row in shown
    ]
    words = "In %, rows from the first expert to the last. Framed: what the expert just learned brought."
    if len(shown) < len(rows) or len(columns) < len(parts):
        words += f" {len(shown)} of {len(rows)} rows and {len(columns)} of {len(parts)} columns, evenly apart."
    table = element(
        "table", caption(f"{what} matrix", words), element("thead", heading), element("tbody", lines), class_="matrix"
    )
    return scroller(f"{what} matrix, {name}", table)


def _cell(fraction: float | None, is_new: bool, more: str = "") -> Html:
    if fraction is None:
        return element("td", element("span", "none", class_="unseen"), class_=f"num empty{more}")
    shade = round(SHADES * fraction)
    return element("td", f"{100 * fraction:.1f}", class_=f"num s{shade}{' new' if is_new else ''}{more}")


def _some(items: Sequence[Item]) -> list[Item]:
    """Return all items, or of many some evenly apart, the first and the last among them."""
    if len(items) <= MOST:
        return list(items)
    return [items[round(i * (len(items) - 1) / (MOST - 1))] for i in range(MOST)]
