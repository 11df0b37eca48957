"""Words as Markdown, CSV, pictures, the terminal and file names can have them; a stranger may have written them."""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Sequence

_LETTERS = "ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ"
_MARKUP = re.compile(r"[\\`*\[\]<>|~$&#]|(?<![^\W_])_|_(?![^\W_])")  # an underscore within a word is none
_LONGEST_FILE_NAME = 60


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


def printable(text: str) -> str:
    r"""Write what no line can have as Python does: a line break as ``\n``, half a character as ``\udcff``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escape(text: str) -> str:
    """Write a text so that Markdown shows it as it is, on one line; an address is no link."""
    return _MARKUP.sub(r"\\\g<0>", printable(text)).replace("://", ":\\//")


def drawn(text: str, most: int = 60) -> str:
    """Write a text so that a picture shows it as it is.

    Args:
        text: The text.
        most: Letters that there is room for.
    """
    text = printable(text)
    short = text if len(text) <= most else f"{text[: most - 1]}…"
    return short.replace("$", r"\$")  # else what stands between two of them is read as a formula


def file_name(name: str) -> str:
    """Return the name of a scenario as a part of file names: itself, or if it cannot be, letters like it and a hash."""
    safe = re.sub(r"[^\w-]", "_", name, flags=re.ASCII)[:_LONGEST_FILE_NAME]
    if safe == name != "":
        return name
    return f"{safe}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown; a line break in a cell becomes ``<br>``, a row of one word is slanted."""
    lines = [list(map(escape, headings)), ["---"] * len(headings)]
    for row in rows:
        first, *others = _cells(row)
        lines.append([first, *others] if any(others) else [f"*{first}*", *others])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cells(row: Sequence[str]) -> list[str]:
    return ["<br>".join(map(escape, cell.split("\n"))) for cell in row]


def csv_text(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table as CSV: numbers with four digits after the point, None as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headings)
    for row in rows:
        cells = [f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row]
        writer.writerow([printable(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()
