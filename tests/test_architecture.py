"""What docs/architecture.md names is there, and its table of rooms is that of the layers."""

import ast
import re
from functools import cache

import pytest

from tests.documents import ROOT
from tests.test_layers import LAYERS

PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGE = ROOT / "exml_lightning"
NAMED = [
    (file, name)
    for file, name in sorted(set(re.findall(r"`([\w/.]+\.py)(?::([\w.]+))?`", PAGE)))
    if ("/" in file or name)
]


@cache
def names(file: str) -> set[str]:
    """Classes, functions and values of a file, and those within classes by their dotted names."""
    found, todo = set(), [("", ast.parse((PACKAGE / file).read_text()))]
    while todo:
        prefix, node = todo.pop()
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                found.add(f"{prefix}{child.name}")
                if isinstance(child, ast.ClassDef):
                    todo.append((f"{prefix}{child.name}.", child))
            elif isinstance(child, ast.Assign):
                found |= {f"{prefix}{target.id}" for target in child.targets if isinstance(target, ast.Name)}
    return found


@pytest.mark.parametrize(
    ("file", "name"), [pair for pair in NAMED if ("/" in pair[0] or pair[1]) and "tests/" not in pair[0]]
)
def test_what_the_page_names_is_there(file, name):
    if file.startswith(("docs/", "tests/")):
        assert (ROOT / file).is_file()
    else:
        assert (PACKAGE / file).is_file()
        assert not name or name in names(file)


def test_the_table_names_the_rooms_in_the_order_of_the_layers():
    rows = re.findall(r"^\| `(\w+)(?:/|\.py)` \|", PAGE, re.MULTILINE)
    assert tuple(rows) == LAYERS
    for room in rows:
        assert (PACKAGE / room).is_dir() or (PACKAGE / f"{room}.py").is_file()
    for cell, files in re.findall(r"^\| `(\w+)/` \| (.*) \|$", PAGE, re.MULTILINE):
        for file in re.findall(r"`(\w+\.py)`", files):
            assert (PACKAGE / cell / file).is_file()
