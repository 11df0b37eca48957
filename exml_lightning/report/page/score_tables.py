"""Tables 2 and 3 and that of all other scenarios, ours beside the paper's: sortable, notes below."""

from exml_lightning.report.captions import SECONDS_NOTE, column_words, seconds_rows, strategy_lines
from exml_lightning.report.cells import Column
from exml_lightning.report.page.markup import Html, caption, element, joined, number, scroller, sort_heading
from exml_lightning.report.paper import DAMAGED, DAMAGED_NOTE, FIGURES, Strategy, has_figures
from exml_lightning.report.tables import (
    ARROWS_NOTE,
    CELLS_NOTE,
    CellLine,
    Layout,
    cell_lines,
    empty_text,
    paper_text,
)
from exml_lightning.report.text import Footnotes

_EX_MODEL = {True: ("✓", "yes"), False: ("✗", "no"), None: ("", "not known")}


def score_table(layout: Layout, columns: dict[str, Column]) -> Html | None:
    """Write a table, its notes and its settings; None where it has no runs.

    Args:
        layout: Which table.
        columns: All cells, by scenario.
    """
    shown = [columns[name] for name in layout.scenarios if name in columns]
    if not shown:
        return None
    footnotes = Footnotes()
    rows = [_row(layout, columns, strategy, footnotes) for strategy in layout.rows(columns)]
    table = element("table", caption(layout.title), _heading(layout), element("tbody", rows), class_="sortable")
    marks = [element("li", note, id=f"{layout.name}-note-{i}") for i, note in enumerate(footnotes.lines, 1)]
    general = [ARROWS_NOTE] if 'class="arrows"' in table else []
    general += [DAMAGED_NOTE] if DAMAGED[0] in layout.scenarios else []
    notes = element("ul", marks, [element("li", note) for note in (CELLS_NOTE, *general)], class_="notes")
    return joined([scroller(layout.title, table), notes, _settings(layout, shown)])


def _heading(layout: Layout) -> Html:
    first = [
        sort_heading("strategy", 0, rowspan=2),
        sort_heading("ex-model scenario", 1, rowspan=2),
    ]
    second, column = [], 2
    for scenario in layout.scenarios:
        if has_figures(scenario):
            first.append(element("th", scenario, scope="colgroup", colspan=2))
            second += [sort_heading(name, column + i, class_="num") for i, name in enumerate(("ours", "paper"))]
            column += 2
        else:
            first.append(sort_heading(scenario, column, rowspan=2, class_="num"))
            column += 1
    return element("thead", element("tr", first), element("tr", second) if second else None)


def _row(layout: Layout, columns: dict[str, Column], strategy: Strategy, footnotes: Footnotes) -> Html:
    mark, words = _EX_MODEL[strategy.ex_model]
    own = element("span", "not in the paper", class_="hint") if layout.is_paper and not strategy.in_table else None
    cells = [
        element("th", strategy.title, own, scope="row"),
        element(
            "td",
            element("span", mark, aria_hidden="true"),
            element("span", words, class_="unseen"),
            class_="mid",
            data_sort=None if strategy.ex_model is None else int(strategy.ex_model),
        ),
    ]
    for scenario in layout.scenarios:
        lines = cell_lines(scenario, strategy.key, columns.get(scenario), footnotes)
        if lines:
            cells.append(_ours(layout, lines, list(footnotes.lines)))
        else:
            cells.append(element("td", empty_text(scenario, strategy.key), class_="num empty"))
        if has_figures(scenario):
            figures = FIGURES.get((scenario, strategy.key))
            text = paper_text(scenario, strategy) or "-"
            is_empty = figures is None or not strategy.in_table
            cells.append(number(text, None if is_empty or figures is None else figures[0]))
    return element("tr", cells)


def _ours(layout: Layout, lines: list[CellLine], notes: list[str]) -> Html:
    parts = []
    for line in lines:
        arrow = {"↑": "higher than the paper's", "↓": "lower than the paper's"}.get(line.arrow)
        place = next((i for i, note in enumerate(notes, 1) if note.split(" ", 1)[0] == line.mark), 0)
        link = element("a", line.mark, href=f"#{layout.name}-note-{place}", aria_label=f"note {place}", class_="mark")
        parts.append(
            element(
                "div",
                line.figures,
                element("span", line.arrow, class_="arrows", role="img", aria_label=arrow) if arrow else None,
                link if line.mark else None,
            )
        )
    return element("td", parts, class_="num ours", data_sort=f"{lines[0].group.accuracy[0]:.6g}")


def _settings(layout: Layout, shown: list[Column]) -> Html:
    """Write what stands below a table in `report.md`, to be opened."""
    title = f"Seconds, {layout.title}"
    rows = [
        element("tr", element("th", name, scope="row"), [element("td", cell, class_="num") for cell in cells])
        for name, *cells in seconds_rows(layout, shown)
    ]
    headings = [
        element("th", "strategy", scope="col"),
        [element("th", c.scenario, scope="col", class_="num") for c in shown],
    ]
    words = caption("Seconds", SECONDS_NOTE)
    strategies = strategy_lines(layout, shown)
    return element(
        "details",
        element("summary", "Settings and seconds"),
        element("h3", "Settings of the columns"),
        element("dl", [joined([element("dt", c.scenario), element("dd", column_words(c))]) for c in shown]),
        joined(
            [
                element("h3", "Settings of the strategies"),
                element("ul", [element("li", line) for line in strategies]),
            ]
        )
        if strategies
        else None,
        scroller(title, element("table", words, element("thead", element("tr", headings)), element("tbody", rows))),
    )
