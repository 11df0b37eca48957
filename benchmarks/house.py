"""Figures of the package's structure, by reading its files; nothing of it is imported or run.

    python -m benchmarks.house [ROOT] [--json]

An import counts wherever it stands, within a function, too; what only type checkers read does not.
"""

import argparse
import ast
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

PACKAGE = "exml_lightning"


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the dotted names that a file, or a part of it, imports, but for those below ``if TYPE_CHECKING``."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield from (f"{node.module}.{alias.name}" for alias in node.names if not node.level)
    else:
        types = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for child in node.orelse if types else ast.iter_child_nodes(node):
            yield from imported(child)


def graph(modules: Mapping[str, Path]) -> dict[str, set[str]]:
    """Return which modules of the package each of them imports.

    Args:
        modules: Files by dotted name; a package goes by its own name, without ``__init__``.
    """
    found: dict[str, set[str]] = {}
    for module, file in modules.items():
        parts = [name.split(".") for name in imported(ast.parse(file.read_text(encoding="utf-8")))]
        prefixes = ([".".join(name[:end]) for end in range(len(name), 0, -1)] for name in parts)
        nearest = (next((prefix for prefix in each if prefix in modules), module) for each in prefixes)
        found[module] = set(nearest) - {module, PACKAGE}
    return found


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups whose members can all be reached from each other, each sorted.

    Args:
        arrows: What leads where.
    """

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        todo = [start]
        while todo:
            new = arrows.get(todo.pop(), set()) - seen
            seen |= new
            todo += new
        return seen

    beyond = {name: reached(name) for name in arrows}
    groups = {frozenset(other for other in beyond[name] if name in beyond[other]) for name in arrows}
    return sorted(sorted(group) for group in groups if group)


def room(module: str) -> str:
    """Return the sub-package of a module, or the module at the top that it is."""
    return module.removeprefix(f"{PACKAGE}.").partition(".")[0]


def figures(root: Path) -> dict[str, Any]:
    """Measure a clone.

    Args:
        root: Its folder.
    """
    package = root / PACKAGE
    files = sorted(package.rglob("*.py"))
    lengths = {str(file.relative_to(package)): len(file.read_text(encoding="utf-8").splitlines()) for file in files}
    modules = {".".join(f.relative_to(root).with_suffix("").parts).removesuffix(".__init__"): f for f in files}
    arrows = graph(modules)
    rooms: dict[str, set[str]] = {}
    for module in arrows.keys() - {PACKAGE}:
        rooms.setdefault(room(module), set()).update({room(other) for other in arrows[module]} - {room(module)})
    longest = max(lengths, key=lengths.__getitem__)
    return {
        "files": len(files),
        "lines": sum(lengths.values()),
        "median file, lines": median(lengths.values()),
        "longest file, lines": lengths[longest],
        "longest file": longest,
        "modules at the top": len(list(package.glob("*.py"))),
        "sub-packages": len(list(package.glob("*/__init__.py"))),
        "circles by file": circles(arrows),
        "circles by room": circles(rooms),
        "lines of tests": sum(len(f.read_text(encoding="utf-8").splitlines()) for f in root.glob("tests/**/*.py")),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.house", description=__doc__.partition("\n")[0])
    parser.add_argument(
        "root", nargs="?", type=Path, default=Path(), metavar="ROOT", help="a clone; default this folder"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, the members of circles included")
    given = parser.parse_args()
    if not (given.root / PACKAGE).is_dir():
        parser.error(f"there is no {PACKAGE}/ in {given.root}")
    measured = figures(given.root)
    if given.json:
        print(json.dumps(measured, indent=1))
        return
    for name, value in measured.items():
        print(f"{name:<20}  {len(value) if isinstance(value, list) else value}")


if __name__ == "__main__":
    main()
