"""Words as Markdown, CSV, pictures, the terminal and file names can have them; a stranger may have written them."""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Sequence

_MARKUP = re.compile(r"[\\`*\[\]<>|~$&#]|(?<![^\W_])_|_(?![^\W_])")  # an underscore within a word is none
_LONGEST_FILE_NAME = 60


def with_std(mean: float, std: float | None) -> str:
    """Write a mean, and its standard deviation where there is one, both in %."""
    return f"{mean:.2f}" if std is None else f"{mean:.2f} ± {std:.2f}"


def seconds(value: float | None) -> str:
    """Write seconds: with a digit after the point below ten, else whole ones; a dash for what is not known."""
    return "-" if value is None else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def printable(text: str) -> str:
    r"""Write what no line can have as Python does: a line break as ``\n``, half a character as ``\udcff``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def escape(text: str) -> str:
    """Write a text so that Markdown shows it as it is, on one line; an address is no link."""
    return _MARKUP.sub(r"\\\g<0>", printable(text)).replace("://", ":\\//")


def short(text: str, most: int = 60) -> str:
    """Cut a text to the letters that there is room for."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def drawn(text: str, most: int = 60) -> str:
    """Write a text so that a picture shows it as it is, cut to the letters that there is room for."""
    return short(text, most).replace("$", r"\$")  # else what stands between two of them is read as a formula


def file_name(name: str) -> str:
    """Return the name of a scenario as a part of file names: itself, or if it cannot be, letters like it and a hash."""
    safe = re.sub(r"[^\w-]", "_", name, flags=re.ASCII)[:_LONGEST_FILE_NAME]
    if safe == name != "":
        return name
    return f"{safe}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def markdown(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [list(map(escape, headings)), ["---"] * len(headings), *(list(map(escape, row)) for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def csv_text(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table as CSV: numbers with four digits after the point, None as an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(headings)
    for row in rows:
        cells = [f"{cell:.4f}" if isinstance(cell, float) else cell for cell in row]
        writer.writerow([printable(cell) if isinstance(cell, str) else cell for cell in cells])
    return text.getvalue()
