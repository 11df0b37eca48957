"""The figures of the structure, of a small package whose circles are known, and of the real one."""

import json
import sys

from benchmarks import house


def test_a_small_package(tmp_path, monkeypatch, capsys):
    """a.x -> b.y -> a.z closes a circle of rooms, not of files; top <-> b.w is one of files, too."""
    files = {
        "exml_lightning/__init__.py": "",
        "exml_lightning/top.py": "from exml_lightning.b import w\n\n\n",
        "exml_lightning/a/__init__.py": "from exml_lightning.a.x import X\n",
        "exml_lightning/a/x.py": "from exml_lightning.b.y import Y\n",
        "exml_lightning/a/z.py": "import torch\nif TYPE_CHECKING: import exml_lightning.b.y\n",
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
        "lines": 11,
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
