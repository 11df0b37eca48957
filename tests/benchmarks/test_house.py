"""The figures of the structure, of a small package whose circles are known, and of the real one."""

import ast
import json
import sys

import pytest

from benchmarks import house


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("import a.b, c", ["a.b", "c"]),
        ("from a.b import c, d as e", ["a.b.c", "a.b.d"]),
        ("def f():\n    if f:\n        import a", ["a"]),
        ("if TYPE_CHECKING:\n    import a\nelse:\n    import b", ["b"]),
        ("from typing import TYPE_CHECKING\nif typing.TYPE_CHECKING:\n    import a", ["typing.TYPE_CHECKING"]),
        ("try:\n    import a\nexcept ImportError:\n    import b", ["a", "b"]),
    ],
)
def test_imports_that_run(code, names):
    assert list(house.imported(ast.parse(code))) == names


def test_a_small_package(tmp_path, monkeypatch, capsys):
    """a.x -> b.y -> a.z closes a circle of rooms, not of files; top <-> b.w is one of files, too."""
    files = {
        "exml_lightning/__init__.py": "",
        "exml_lightning/top.py": "from exml_lightning.b import w\n\n\n",
        "exml_lightning/a/__init__.py": "from exml_lightning.a.x import X\n",
        "exml_lightning/a/x.py": "from exml_lightning.b.y import Y\n",
        "exml_lightning/a/z.py": "import torch\n",
        "exml_lightning/b/__init__.py": "",
        "exml_lightning/b/y.py": "from exml_lightning.a.z import Z\n",
        "exml_lightning/b/w.py": "def f():\n    from exml_lightning.top import g\n    return g\n",
        "tests/deep/test_a.py": "1\n2\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(sys, "argv", ["house", str(tmp_path), "--json"])
    house.main()
    assert json.loads(capsys.readouterr().out) == {
        "files": 8,
        "lines": 10,
        "median file, lines": 1,
        "longest file, lines": 3,
        "longest file": "b/w.py",
        "modules at the top": 2,
        "sub-packages": 2,
        "circles by file": [["exml_lightning.b.w", "exml_lightning.top"]],
        "circles by room": [["a", "b", "top"]],
        "lines of tests": 2,
    }
    sys.argv.pop()
    house.main()
    assert "\ncircles by file       1\n" in capsys.readouterr().out
