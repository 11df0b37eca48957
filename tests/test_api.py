"""The public names: what they are, that their examples run, that they cost nothing until they are used."""

import doctest
import re
import subprocess
import sys

import pytest
import torch

import exml_lightning
from exml_lightning.core.generators import ModelInversion
from tests.conftest import ROOT


@pytest.mark.parametrize("name", exml_lightning.__all__)
def test_each_public_name_has_examples_of_its_own_that_run(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    [own] = doctest.DocTestFinder(recurse=False).find(getattr(exml_lightning, name), name)
    assert re.search(rf"\b{name}\b", "".join(example.source for example in own.examples))
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(own)
    assert result.attempted > 0
    assert result.failed == 0


def blocks():
    """The Python code of docs/python.md."""
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.DOTALL)


def test_the_page_runs_as_it_stands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints").symlink_to(ROOT / "checkpoints")
    namespace = {}
    for code in blocks():
        quick = re.sub(r"(n_iter|steps)=\d+", r"\1=2", code)
        exec(re.sub(r"buffer_size=\d+", "buffer_size=10", quick), namespace)
    assert len(namespace["labels"]) == 7
    assert namespace["probabilities"].shape == (20, 10)
    torch.testing.assert_close(namespace["probabilities"].sum(dim=1).cpu(), torch.ones(20))
    assert namespace["model"].classes == ("cat", "dog", "bird", "fox")


def test_names_are_sorted_listed_and_no_modules():
    assert exml_lightning.__all__ == sorted(exml_lightning.__all__)
    assert set(exml_lightning._MODULES) == set(exml_lightning.__all__)
    assert set(exml_lightning.__all__) <= set(dir(exml_lightning))
    assert exml_lightning.ModelInversion is ModelInversion
    package = ROOT / "exml_lightning"
    modules = {path.stem for path in package.glob("*.py")} | {path.name for path in package.iterdir() if path.is_dir()}
    assert not modules & set(exml_lightning.__all__)  # importing the module would hide the name
    page = (ROOT / "docs" / "python.md").read_text()
    assert set(exml_lightning.__all__) == set(re.findall(r"`(\w+)`", page.partition("## Public names")[2]))
    with pytest.raises(AttributeError, match="no attribute 'distill'"):
        exml_lightning.distill  # noqa: B018


def test_importing_the_package_imports_neither_torch_nor_lightning():
    code = (
        "import sys, exml_lightning as e; assert 'distil' in dir(e); print({'torch', 'lightning'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "set()"
