"""The tables of a report in the terminal: what there are runs of, the paper's figure below ours."""

import io
import sys
from pathlib import Path

from rich.markup import escape

from exml_lightning.report.cells import Column
from exml_lightning.report.paper import DAMAGED_NOTE, has_figures
from exml_lightning.report.tables import ARROWS_NOTE, DIVIDER, DOUBT, Layout, cell_text, layouts, paper_text
from exml_lightning.report.text import Footnotes, printable
from exml_lightning.terminal import is_quiet, print_rows


def print_report(columns: dict[str, Column], folder: Path, files: list[str]) -> None:
    """Print the tables and the files; a terminal of few letters gets a ? for the others.

    Args:
        columns: All cells, by scenario.
        folder: Where the files are.
        files: Their names.
    """
    if is_quiet():
        return
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    for layout in layouts(columns):
        shown = tuple(name for name in layout.scenarios if name in columns)
        if shown:
            _print_table(layout, shown, columns)
        else:
            print(f"{layout.title}: no runs\n")
    print(f"{printable(str(folder))}: {', '.join(files)}")


def _print_table(layout: Layout, shown: tuple[str, ...], columns: dict[str, Column]) -> None:
    footnotes = Footnotes()
    rows: list[list[str]] = []
    has_divider = False
    for strategy in layout.rows(columns):
        if not any(strategy.key in columns[name].cells for name in shown):
            continue
        if layout.is_paper and not strategy.in_table and not has_divider:
            has_divider = True
            rows.append([DIVIDER, *[""] * len(shown)])
        cells = []
        for name in shown:
            paper = paper_text(name, strategy) if has_figures(name) else ""
            words = cell_text(name, strategy.key, columns[name], footnotes)
            cells.append(f"{words}\npaper {paper}" if paper not in ("", "-") else words)
        rows.append([printable(strategy.title), *cells])
    print_rows(layout.title, ["", *(escape(printable(name)) for name in shown)], rows)
    words = "".join(cell for row in rows for cell in row[1:])
    notes = [ARROWS_NOTE] if "↑" in words or "↓" in words else []
    notes += [DAMAGED_NOTE] if DOUBT in words else []
    for note in (*footnotes.lines, *notes):
        print(printable(note))
    print()
