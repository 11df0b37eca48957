"""Tables in the terminal, left out under `--quiet`."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from exml_lightning.terminal import is_quiet

MOST = 12
"""Rows and columns of a matrix that are printed, the newest ones; all are in the files of the run."""


def print_matrix(
    title: str, matrix: Sequence[Sequence[float]], columns: Sequence[str], totals: dict[str, Sequence[float]]
) -> None:
    """Print fractions in per cent, one row for each experience learned; of a long stream the newest rows and columns.

    Args:
        title: Heading.
        matrix: A row for each experience; shorter rows leave the rest empty.
        columns: Name of each column of the matrix.
        totals: More columns, by name.
    """
    if is_quiet():
        return
    rows, shown = range(len(matrix))[-MOST:], range(len(columns))[-MOST:]
    table = Table(box=box.SIMPLE)
    table.add_column("learned", no_wrap=True)
    for j in shown:
        table.add_column(columns[j], justify="right")
    for name in totals:
        table.add_column(name, justify="right", style="bold")
    for i in rows:
        cells = [f"{100 * matrix[i][j]:.1f}" if j < len(matrix[i]) else "" for j in shown]
        table.add_row(f"expert {i + 1}", *cells, *(f"{100 * values[i]:.1f}" for values in totals.values()))
    console = Console()
    console.print(title if len(rows) == len(matrix) else f"{title}, the last {len(rows)} of {len(matrix)}")
    console.print(table)


def print_values(title: str, values: dict[str, str], always: bool = False) -> None:
    """Print names and values.

    Args:
        title: Heading.
        values: Value of each name, as it should be shown.
        always: Also under `--quiet`, where it is what the verb exists to print.
    """
    if is_quiet() and not always:
        return
    table = Table(box=box.SIMPLE, show_header=False)
    for name, value in values.items():
        table.add_row(name, value)
    console = Console()
    console.print(title, soft_wrap=True, highlight=False)
    console.print(table)


def print_rows(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of words.

    Args:
        title: Heading.
        headings: Of the columns.
        rows: The cells of each row.
    """
    if is_quiet():
        return
    table = Table(box=box.SIMPLE)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console = Console()
    console.print(title, soft_wrap=True, highlight=False, markup=False)
    console.print(table)
