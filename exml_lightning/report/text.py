"""Tables as Markdown and as CSV, and numbers as the report writes them."""

import csv
import io
from collections.abc import Iterable, Sequence

_LETTERS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"


class Footnotes:
    """Gives each text a letter, and the same text the same one."""

    def __init__(self) -> None:
        self._marks: dict[str, str] = {}

    def mark(self, text: str) -> str:
        """Return the raised letter of a text."""
        number = len(self._marks)
        repeated = _LETTERS[number % len(_LETTERS)] * (1 + number // len(_LETTERS))
        return self._marks.setdefault(text, repeated)

    @property
    def lines(self) -> list[str]:
        """What stands below the table."""
        return [f"{mark} {text}" for text, mark in self._marks.items()]


def with_std(mean: float, std: float | None) -> str:
    """Write a mean, and its standard deviation where there is one, both in %."""
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def seconds(value: float) -> str:
    """Write seconds: with a digit after the point below ten, else whole ones."""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown; a line break in a cell becomes ``<br>``."""
    lines = [headings, ["---"] * len(headings), *rows]
    cells = [[cell.replace("|", "\\|").replace("\n", "<br>") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)


def csv_text(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table as CSV: numbers with four digits after the point, None as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headings)
    for row in rows:
        writer.writerow([f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row])
    return text.getvalue()
