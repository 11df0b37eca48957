"""The tables of a report in the terminal: what there are runs of, the paper's figure below ours."""

from pathlib import Path

from exml_lightning.report.cells import Column
from exml_lightning.report.paper import has_figures
from exml_lightning.report.table import print_rows
from exml_lightning.report.tables import ARROWS_NOTE, DIVIDER, Layout, cell_text, layouts, paper_text
from exml_lightning.report.text import Footnotes


def print_report(columns: dict[str, Column], folder: Path, files: list[str]) -> None:
    """Print the tables and the files.

    Args:
        columns: All cells, by scenario.
        folder: Where the files are.
        files: Their names.
    """
    for layout in layouts(columns):
        shown = tuple(name for name in layout.scenarios if name in columns)
        if shown:
            _print_table(layout, shown, columns)
        else:
            print(f"{layout.title}: no runs\n")
    print(f"{folder}: {', '.join(files)}")


def _print_table(layout: Layout, shown: tuple[str, ...], columns: dict[str, Column]) -> None:
    footnotes = Footnotes()
    rows: list[list[str]] = []
    has_divider = False
    for strategy in layout.rows(columns):
        if not any(strategy.key in columns[name].cells for name in shown):
            continue
        if layout.is_paper and not strategy.in_table and not has_divider:
            has_divider = True
            rows.append([DIVIDER.strip("*"), *[""] * len(shown)])
        cells = []
        for name in shown:
            paper = paper_text(name, strategy) if has_figures(name) else ""
            words = cell_text(name, strategy.key, columns[name], footnotes)
            cells.append(f"{words}\npaper {paper}" if paper not in ("", "-") else words)
        rows.append([strategy.title, *cells])
    print_rows(layout.title, ["", *shown], rows)
    compared = any(mark in cell for row in rows for cell in row for mark in "↑↓")
    for note in (*footnotes.lines, *([ARROWS_NOTE] if compared else [])):
        print(note)
    print()
