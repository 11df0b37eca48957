"""Settings in which the groups of runs of a scenario differ: a row a key, a column a group."""

from exml_lightning.report.cells import Column, Group
from exml_lightning.report.page.markup import Html, caption, element, scroller
from exml_lightning.report.page.names import named_groups
from exml_lightning.report.settings import flat, key_of, say

MOST_GROUPS = 30
"""Columns that there is room for."""


def settings_table(column: Column) -> Html | None:
    """Write the settings that differ; None where there are no two groups, or they differ in nothing."""
    groups = [(name, group) for name, _, group in named_groups(column) if not group.runs[0].is_baseline]
    shown = groups[:MOST_GROUPS]
    values = [flat(group.settings) for _, group in shown]
    keys = sorted({key for settings in values for key in settings})
    differ = [key for key in keys if len({key_of(settings.get(key)) for settings in values}) > 1]
    if not differ:
        return None
    many = f"; the first {len(shown)} of {len(groups)}" if len(shown) < len(groups) else ""
    title = f"Settings that differ, {column.scenario}"
    heading = element(
        "tr",
        element("th", "setting", scope="col"),
        [element("th", name, _runs(group), scope="col") for name, group in shown],
    )
    rows = [
        element(
            "tr",
            element("th", element("code", key), scope="row"),
            [element("td", say(settings[key]) if key in settings else "-") for settings in values],
        )
        for key in differ
    ]
    words = caption(title, f"A column a group of runs{many}. -: not set.")
    table = element("table", words, element("thead", heading), element("tbody", rows), class_="words")
    summary = element("summary", f"{column.scenario}: {len(differ)} of {len(keys)} settings differ")
    return element("details", summary, scroller(title, table))


def _runs(group: Group) -> Html:
    numbers = ", ".join(str(run.run_id) for run in group.runs)
    return element("span", f"run{'' if len(group.runs) == 1 else 's'} {numbers}", class_="hint")
