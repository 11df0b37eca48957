"""The accuracy matrix as a table in the terminal."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table


def print_accuracy_matrix(
    matrix: Sequence[Sequence[float]], parts: Sequence[str], streams: Sequence[float], seen: Sequence[float]
) -> None:
    """Print accuracies in per cent, one row for each experience learned.

    Args:
        matrix: Accuracy on each part of the test stream, fractions.
        parts: What each part tests.
        streams: Stream accuracy of each row.
        seen: Stream accuracy of each row over the parts met so far.
    """
    table = Table(box=box.SIMPLE)
    table.add_column("learned")
    for part in parts:
        table.add_column(part, justify="right")
    table.add_column("seen so far", justify="right", style="bold")
    table.add_column("whole stream", justify="right", style="bold")
    for i, row in enumerate(matrix):
        values = [*row, seen[i], streams[i]]
        table.add_row(f"expert {i + 1}", *(f"{100 * value:.1f}" for value in values))
    console = Console()
    console.print("accuracy in % after each experience")
    console.print(table)


def print_values(title: str, values: dict[str, str]) -> None:
    """Print names and values.

    Args:
        title: Heading.
        values: Value of each name, as it should be shown.
    """
    table = Table(box=box.SIMPLE, show_header=False)
    for name, value in values.items():
        table.add_row(name, value)
    console = Console()
    console.print(title, soft_wrap=True, highlight=False)
    console.print(table)
