"""Finding folders of experts, and choosing among their experts; torch is not imported."""

import difflib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from exml_lightning.core.errors import ExmlError, printable, shown
from exml_lightning.experts.manifest import FILE_NAME, read_manifest
from exml_lightning.experts.selection import Choice
from exml_lightning.files import natural_order

NOT_SEARCHED = ("__pycache__", "node_modules", "site-packages")
"""Folders that hold no experts but may hold much else; hidden ones and virtual environments are left out, too."""
LONGEST = 300
"""Characters of what is said of a folder."""


@dataclass(frozen=True)
class Catalog:
    """What was found.

    Args:
        experts: The experts, folder by folder.
        left_out: A line for each folder or manifest that cannot be read.
    """

    experts: list[Choice] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def name_of(expert: Choice) -> str:
    """Return the folder and the number of an expert, as ``--pick`` takes them."""
    return f"{expert.folder}:{expert.index}"


def find_experts(places: Sequence[Path]) -> Catalog:
    """Read the manifests in folders and anywhere below them, links followed.

    Args:
        places: The folders.

    Returns:
        The experts, each folder once.

    Raises:
        ExmlError: If a place is no folder.
    """
    found = Catalog()
    seen: set[str] = set()
    for place in places:
        if not place.is_dir():
            what = "is a file: name its folder" if place.exists() else "does not exist: name folders with experts"
            raise ExmlError(f"{printable(str(place), LONGEST)} {what}")
        for folder in _folders(place, seen, found.left_out):
            try:
                manifest = read_manifest(folder)
            except ExmlError as error:
                found.left_out.append(printable(str(error), LONGEST))
                continue
            found.experts.extend(Choice(folder, manifest, index) for index in range(len(manifest.experts)))
    return found


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
        folders[:] = sorted(
            (name for name in folders if name[0] != "." and name not in NOT_SEARCHED and not _leads_up(parent, name)),
            key=natural_order,
        )
        if FILE_NAME in names:
            yield Path(parent)


def _leads_up(parent: str, name: str) -> bool:
    """Whether a link leads to a folder that it is in: to follow it would list what is around."""
    path = Path(parent, name)
    return path.is_symlink() and Path(os.path.realpath(parent)).is_relative_to(os.path.realpath(path))


def with_classes(experts: Sequence[Choice], names: Sequence[str]) -> list[Choice]:
    """Return the experts that know one or more of these classes.

    Args:
        experts: The experts.
        names: The classes.

    Raises:
        ExmlError: If no expert knows one of them; says which names are like it.
    """
    known = dict.fromkeys(name for expert in experts for name in expert.entry.classes)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3) or [k for k in known if k.casefold() == name.casefold()]
            hint = f"did you mean {shown(close)}?" if close else f"they know {shown(known)}"
            raise ExmlError(f"--classes {printable(name)}: no expert knows this class; {hint}")
    return [expert for expert in experts if not set(names).isdisjoint(expert.entry.classes)]


def picked(experts: Sequence[Choice], wanted: Sequence[str]) -> list[Choice]:
    """Return experts that were named, in that order.

    Args:
        experts: Those to choose from.
        wanted: Of each, ``FOLDER:NUMBER``.

    Raises:
        ExmlError: If one is not among them, or is named twice.
    """
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
