"""The documentation site: its pages that are written by scripts, its pictures, its notebook, and that it builds."""

import json
import re
import runpy

import pytest
import torch
from PIL import Image

from exml_lightning.core.scales import Center
from exml_lightning.core.targets import Answers, merge_targets
from tests.documents import ROOT


def test_the_configuration_page_is_up_to_date():
    module = runpy.run_path(str(ROOT / "docs" / "hooks" / "reference.py"))
    assert (ROOT / "docs" / "configuration.md").read_text() == module["write"](), "run: python docs/hooks/reference.py"


def test_the_site_builds_without_a_warning_and_fetches_nothing(tmp_path):
    config = pytest.importorskip("mkdocs.config")
    from mkdocs.commands.build import build

    build(config.load_config(str(ROOT / "mkdocs.yml"), strict=True, site_dir=str(tmp_path)))
    pages = [path.read_text() for path in tmp_path.rglob("*.html")]
    assert len(pages) > 20
    fetched = r"<(?:script|img|iframe)[^>]* src=.?(?:https?:)?//|<link[^>]* rel=.?stylesheet[^>]*(?:https?:)?//"
    assert not [found for page in pages for found in re.findall(fetched, page)]


def test_the_pictures_are_drawn(drawn_figures, tmp_path):
    """By the script that says so; each is a whole picture."""
    runpy.run_path(str(ROOT / "docs" / "pictures" / "draw.py"))["main"](tmp_path)
    drawn = sorted(path.name for path in tmp_path.iterdir())
    assert drawn == sorted(path.name for path in (ROOT / "docs" / "pictures").glob("*.png"))
    for name in drawn:
        with Image.open(tmp_path / name) as picture:
            assert len(picture.convert("L").getcolors()) > 50


def test_the_merging_picture_says_what_the_code_does():
    """Classes 4 5 2 8 6 9: the numbers of docs/pictures/merging.png."""
    answers = Answers(
        torch.tensor([[1.0, -1.0]]),
        torch.tensor([1, 2]),
        torch.tensor([[2.0, -2.0, 0.0, 0.0, 0.0, 0.0]]),
        torch.tensor([True, True, False, False, False, False]),
    )
    target = merge_targets(answers, torch.tensor([1]), Center())
    assert target.logits[0, :3].tolist() == [2.0, -0.5, -1.0]
    assert target.mask[0].tolist() == [True, True, True, False, False, False]
    assert '"target": ["2.0", "-0.5", "-1.0", "", "", ""]' in (ROOT / "docs" / "pictures" / "draw.py").read_text()


@pytest.mark.slow
def test_the_notebook_runs(tmp_path):
    """docs/start.ipynb, in a folder like a clone."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    path = ROOT / "docs" / "start.ipynb"
    assert path.stat().st_size < 300_000
    book = nbformat.read(path, as_version=4)
    assert all(cell.execution_count for cell in book.cells if cell.cell_type == "code")
    (tmp_path / "docs").mkdir()
    for name in ("configs", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    nbclient.NotebookClient(book, timeout=900, resources={"metadata": {"path": str(tmp_path / "docs")}}).execute()
    summary = json.loads((tmp_path / "runs" / "start" / "summary.json").read_text())
    assert summary["experiences_learned"] == 5
    assert 0.4 < summary["stream_accuracy"] < 0.75
    assert len((tmp_path / "runs" / "start" / "predictions.csv").read_text().splitlines()) == 9
