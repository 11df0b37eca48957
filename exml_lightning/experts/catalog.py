"""The catalogue: finding experts and ex-models in folders, what it says of each, picking some; no torch."""

import difflib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text
from safetensors import safe_open

from exml_lightning.core.errors import ExmlError, printable, shown
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.manifest import FILE_NAME, ExpertEntry, PublishedStatistics, read_manifest
from exml_lightning.experts.selection import Choice, choose
from exml_lightning.files import check_regular, natural_order

NOT_SEARCHED = ("__pycache__", "node_modules", "site-packages")
"""Folders that hold no experts but may hold much else; hidden ones and virtual environments are left out, too."""
LONGEST = 300
"""Characters of what is said of a folder."""
MOST_CLASSES, LONGEST_NAME = 6, 20
"""Classes of an expert in the table, and letters of each."""
NUMBERS = ("accuracy", "MB", "parameters")
COUNTED_BY_NETWORKS = ("running_mean", "running_var", "num_batches_tracked")
"""What batch norm keeps beside its parameters."""
WIDE = 1000
"""Letters of a line that no terminal shows."""


def find_experts(places: Sequence[Path]) -> tuple[list[Choice], list[str]]:
    """Read the manifests in and below folders, each once, links followed; raises `ExmlError` if a place is no folder.

    Returns the experts, folder by folder, and a line for each folder or manifest that cannot be read.
    """
    experts: list[Choice] = []
    left_out: list[str] = []
    seen: set[str] = set()
    for place in places:
        if not place.is_dir():
            what = "is a file: name its folder" if place.exists() else "does not exist: name folders with experts"
            raise ExmlError(f"{printable(str(place), LONGEST)} {what}")
        for folder in _folders(place, seen, left_out):
            try:
                manifest = read_manifest(folder)
            except ExmlError as error:
                left_out.append(printable(str(error), LONGEST))
            else:
                experts += [choose(folder, manifest, index) for index in range(len(manifest.experts))]
    return experts, left_out


def _folders(place: Path, seen: set[str], left_out: list[str]) -> Iterator[Path]:
    """Find folders with a manifest, each once, however many links lead to it."""

    def cannot_be_read(error: OSError) -> None:
        where = printable(str(error.filename), LONGEST)
        left_out.append(f"{where} cannot be read ({error.strerror}): allow it, or leave it out")

    for parent, folders, names in os.walk(place, followlinks=True, onerror=cannot_be_read):
        real = os.path.realpath(parent)
        if real in seen or "pyvenv.cfg" in names:
            folders.clear()
            continue
        seen.add(real)
        searched = [name for name in folders if name[0] != "." and name not in NOT_SEARCHED]
        folders[:] = sorted((name for name in searched if not _leads_up(parent, name)), key=natural_order)
        if FILE_NAME in names:
            yield Path(parent)


def _leads_up(parent: str, name: str) -> bool:
    """Whether a link leads to a folder that it is in: to follow it would list what is around."""
    path = Path(parent, name)
    return path.is_symlink() and Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(path))


def name_of(expert: Choice) -> str:
    """Return the folder and the number of an expert, as ``--pick`` takes them."""
    return f"{expert.folder}:{expert.index}"


def picked(experts: Sequence[Choice], wanted: Sequence[str]) -> list[Choice]:
    """Return the experts named as by `name_of`, in that order; `ExmlError` if one is not there or named twice."""
    places = {(os.path.realpath(expert.folder), expert.index): expert for expert in experts}
    chosen: dict[tuple[str, int], Choice] = {}
    for words in wanted:
        folder, _, number = words.rpartition(":")
        if not folder or not (number.isascii() and number.isdecimal()):
            raise ExmlError(f"--pick {printable(words)}: give FOLDER:NUMBER, as they are listed, for instance zoo/a:0")
        place = os.path.realpath(folder), int(number)
        if place not in places:
            names = [name_of(expert) for expert in experts]
            close = difflib.get_close_matches(words, names, n=3, cutoff=0.5) or names
            raise ExmlError(f"--pick {printable(words)} is not among the experts listed; there is {shown(close)}")
        if place in chosen:
            raise ExmlError(f"--pick names {printable(words)} twice: an expert is learned once")
        chosen[place] = places[place]
    return list(chosen.values())


def record(expert: Choice) -> dict[str, Any]:
    """Return all that is known of an expert as JSON has it; numbers without an end, an epsilon say, as text.

    The strategy is an ex-model's, the parameters are counted in files of safetensors; None for others.
    """
    known, (size, parameters) = asdict(expert), _measure(expert.folder / expert.file)
    known = {"folder": str(known.pop("folder")), "expert": known.pop("index"), **known, "strategy": _strategy(expert)}
    finite: dict[str, Any] = _finite(known | {"bytes": size, "parameters": parameters})
    return finite


def print_catalog(title: str, experts: Sequence[Choice]) -> None:
    """Print a table below a title, with a row for each expert; no column that no expert has anything in."""
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    console.print(f"{title}\n", soft_wrap=True, highlight=False, markup=False)
    rows = [_row(expert) for expert in experts]
    table = Table(box=None, padding=(0, 2, 0, 0))
    columns = [name for name in (rows[0] if rows else {}) if any(row[name] for row in rows)]
    for name in columns:
        table.add_column(name, overflow="fold", justify="right" if name in NUMBERS else "left")
    for row in rows:
        table.add_row(*(Text(printable(row[name], WIDE)) for name in columns))
    console.print(table)


def architecture_words(architecture: Architecture) -> str:
    """Name a network by its class and its arguments but ``num_classes``; of those that hold many values the names."""
    given = {key: value for key, value in architecture.init_args.items() if key != "num_classes" and value is not None}
    words = [f"{key}={{..}}" if isinstance(value, dict) else f"{key}={value}" for key, value in given.items()]
    return architecture.class_path.rpartition(".")[2] + (f"({', '.join(words)})" if words else "")


def class_words(names: Sequence[str]) -> str:
    """Name classes, the first few if they are many."""
    short = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 2]}.." for name in names[:MOST_CLASSES]]
    return " ".join(short) + (f" ... ({len(names)})" if len(names) > MOST_CLASSES else "")


def published_words(published: PublishedStatistics | None) -> str:
    """Say how many images statistics are of, and what they have spent; nothing where there are none."""
    if published is None:
        return ""
    private = "" if published.privacy is None else f", epsilon {published.privacy.epsilon:.3g}"
    return f"{published.images:,} images{private}"


def _row(expert: Choice) -> dict[str, str]:
    privacy, (size, parameters) = expert.privacy, _measure(expert.folder / expert.file)
    return {
        "expert": name_of(expert),
        "classes": class_words(expert.classes),
        "architecture": architecture_words(expert.architecture),
        "input": "x".join(map(str, expert.input.shape)) if expert.input else "",
        "accuracy": "" if expert.accuracy is None else f"{100 * expert.accuracy:.1f} %",
        "epsilon, delta": "" if privacy is None else f"{privacy.epsilon:.3g}, {privacy.delta:.2g}",
        "statistics": published_words(expert.statistics),
        "MB": "missing" if size is None else f"{size / 1e6:.2f}",
        "parameters": "" if parameters is None else f"{parameters:,}",
        "ex-model": _strategy(expert) or "",
        "task": str(expert.task or ""),
    }


def _strategy(entry: ExpertEntry) -> str | None:
    strategy = entry.training.get("strategy")
    return strategy if isinstance(strategy, str) else None


def _measure(path: Path) -> tuple[int | None, int | None]:
    """Return the bytes of a file, and the parameters that the header of safetensors names; None if unknown."""
    try:
        check_regular(path)
        size = path.stat().st_size
    except OSError:
        return None, None
    try:
        with safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if not name.endswith(COUNTED_BY_NETWORKS)]  # noqa: SIM118 - no mapping
            return size, sum(math.prod(file.get_slice(name).get_shape()) for name in names)
    except Exception:  # of a stranger's file, or one of torch; what is wrong with it, `exml fit` says
        return size, None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
