"""What the catalogue says of an expert: the rows of the table, the records for scripts."""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text
from safetensors import safe_open

from exml_lightning.core.errors import printable
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.licences import licences
from exml_lightning.experts.manifest import ExpertEntry
from exml_lightning.experts.selection import LONGEST_PATH, Choice
from exml_lightning.files import check_regular

MOST_CLASSES = 6
LONGEST_NAME = 20
NUMBERS = ("expert", "accuracy", "MB", "parameters")
COUNTED_BY_NETWORKS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norm keeps beside its parameters."""
MEGABYTE = 1e6
GAP, NARROWEST, WIDE = 2, 6, 1000
"""Letters: between columns, of a column, of a line that no terminal reads."""


def strategy_of(entry: ExpertEntry) -> str | None:
    """Return the strategy that an ex-model was learned by; None for an expert."""
    strategy = entry.training.get("strategy")
    return strategy if isinstance(strategy, str) else None


def file_size(path: Path) -> int | None:
    """Return the bytes of a file; None if there is none."""
    try:
        check_regular(path)
        return path.stat().st_size
    except OSError:
        return None


def count_parameters(path: Path) -> int | None:
    """Count the parameters of a network from the header of a safetensors file; None for any other, or a broken one."""
    if path.suffix != ".safetensors":
        return None
    total = 0
    try:
        check_regular(path)
        with safe_open(path, framework="numpy") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if not name.endswith(COUNTED_BY_NETWORKS):
                    count = 1
                    for size in file.get_slice(name).get_shape():
                        count *= size
                    total += count
    except Exception:  # of a stranger's file; what is wrong with it, `exml fit` says
        return None
    return total


def architecture_words(architecture: Architecture) -> str:
    """Name a network by its class and its arguments but ``num_classes``."""
    words = [f"{key}={value}" for key, value in architecture.init_args.items() if key != "num_classes"]
    return architecture.class_path.rpartition(".")[2] + (f"({', '.join(words)})" if words else "")


def record(expert: Choice) -> dict[str, Any]:
    """Return all that is known of an expert, in plain values."""
    entry, path = expert.entry, expert.entry.path(expert.folder)
    return {
        "folder": str(expert.folder),
        "expert": expert.index,
        "file": entry.file,
        "sha256": entry.sha256,
        "strategy": strategy_of(entry),
        "classes": list(entry.classes),
        "task": entry.task,
        "architecture": asdict(entry.architecture),
        "input": asdict(entry.input or expert.manifest.input),
        "accuracy": entry.accuracy,
        "privacy": None if entry.privacy is None else asdict(entry.privacy),
        "bytes": file_size(path),
        "parameters": count_parameters(path),
        "licenses": licences(entry),
    }


def print_catalog(title: str, experts: Sequence[Choice]) -> None:
    """Print a table: each folder on a line, a row for each of its experts; no column that no expert has anything in.

    Args:
        title: What stands above it.
        experts: The experts.
    """
    console = Console(width=None if sys.stdout.isatty() else WIDE)

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    say(f"{title}\n")
    rows = [_row(expert) for expert in experts]
    widths = {
        name: max(cell_len(name), *(cell_len(row[name]) for row in rows))
        for name in (rows[0] if rows else {})
        if any(row[name] for row in rows)
    }
    while sum(widths.values()) > console.width - GAP * len(widths) and max(widths.values()) > NARROWEST:
        widths[max(widths, key=widths.__getitem__)] -= 1  # the widest column is folded first
    if rows:
        console.print(_table(widths, []))
    for folder, group in groupby(zip(experts, rows, strict=True), key=lambda pair: pair[0].folder):
        say(printable(str(folder), LONGEST_PATH))
        console.print(_table(widths, [row for _, row in group]))


def finite(value: Any) -> Any:
    """Write what JSON has no number for, an epsilon of infinity say, as text; see `record`."""
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [finite(entry) for entry in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _table(widths: dict[str, int], rows: Sequence[dict[str, str]]) -> Table:
    """A piece of the table: its headings, or rows below them."""
    table = Table(box=None, padding=(0, GAP, 0, 0), show_header=not rows)
    for name, width in widths.items():
        table.add_column(name, width=width, overflow="fold", justify="right" if name in NUMBERS else "left")
    for row in rows:
        table.add_row(*(Text(row[name]) for name in widths))
    return table


def _row(expert: Choice) -> dict[str, str]:
    entry, images = expert.entry, expert.entry.input or expert.manifest.input
    path = entry.path(expert.folder)
    size, parameters, strategy = file_size(path), count_parameters(path), strategy_of(entry)
    cells = {
        "expert": str(expert.index),
        "classes": _classes(entry.classes),
        "architecture": architecture_words(entry.architecture),
        "input": "x".join(map(str, images.shape)),
        "accuracy": "" if entry.accuracy is None else f"{100 * entry.accuracy:.1f} %",
        "epsilon, delta": "" if entry.privacy is None else f"{entry.privacy.epsilon:.3g}, {entry.privacy.delta:.2g}",
        "MB": "missing" if size is None else f"{size / MEGABYTE:.2f}",
        "parameters": "" if parameters is None else f"{parameters:,}",
        "licence": _licence(entry),
        "ex-model": strategy or "",
        "task": str(entry.task or ""),
    }
    return {name: printable(cell, 1000) for name, cell in cells.items()}


def _classes(names: Sequence[str]) -> str:
    cut = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 2]}.." for name in names[:MOST_CLASSES]]
    return " ".join(cut) + (f" ... ({len(names)})" if len(names) > MOST_CLASSES else "")


def _licence(entry: ExpertEntry) -> str:
    found = licences(entry)
    if found == [entry.license]:
        return entry.license or ""
    return f"its experts': {', '.join(licence or 'not stated' for licence in found)}"
