"""The house stands: each room imports from those below it only, and no file takes part in a circle."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "exml_lightning"
LAYERS = (
    *("cli", "fitting", "callbacks", "module", "ex_model", "baselines", "generation", "data", "experts", "scenarios"),
    *("report", "models", "terminal", "files", "shipped", "core"),
)
"""From the top to the ground (docs/architecture.md)."""


def imports(tree: ast.Module) -> Iterator[str]:
    """Name what a file imports, at its top or in a function; not what only its types need."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        todo += ast.iter_child_nodes(node)


@cache
def graph() -> dict[str, set[str]]:
    """Return the modules of the package that each of them imports."""
    files = {
        ".".join(f.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): f
        for f in PACKAGE.rglob("*.py")
    }
    found: dict[str, set[str]] = {}
    for module, file in files.items():
        names = [
            n.removeprefix("exml_lightning.")
            for n in imports(ast.parse(file.read_text()))
            if n.startswith("exml_lightning.")
        ]
        found[module] = set()
        for name in names:
            while name and name not in files:
                name = name.rpartition(".")[0]
            if name and name != module:
                found[module].add(name)
    return found


def room(module: str) -> str:
    return module.partition(".")[0]


@pytest.mark.parametrize("name", LAYERS)
def test_a_room_imports_from_those_below_it(name):
    above = LAYERS[: LAYERS.index(name)]
    wrong = [f"{m} -> {o}" for m, others in graph().items() if room(m) == name for o in others if room(o) in above]
    assert not wrong


def test_modules_are_named_in_full():
    """The graph would not see what else an import could lead to."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            assert not isinstance(node, ast.ImportFrom) or not (node.level or node.module == "exml_lightning"), file


def test_every_room_has_its_layer():
    assert {room(module) for module in graph()} - {"__init__", "__main__"} == set(LAYERS)


def test_no_file_takes_part_in_a_circle():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_core_is_pure_pytorch():
    for file in (PACKAGE / "core").rglob("*.py"):
        assert not [
            n for n in imports(ast.parse(file.read_text())) if n.partition(".")[0] in ("lightning", "jsonargparse")
        ], file
