"""docs/results.md, docs/reliability.md: their tables and figures come from docs/results/ and docs/reliability.json."""

import csv
import json
from pathlib import Path
from statistics import mean, stdev

import pytest

from benchmarks.reliability.document import render as render_reliability
from benchmarks.results import land, render
from exml_lightning.cli.main import main
from tests.report.fake_runs import write_run

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(DOCS.parent)
        main(["report", "docs/results", "--output", str(folder)])
    return folder


def test_the_landed_runs_make_every_table_and_figure(report):
    landed = {path.name: path for path in (DOCS / "results" / "report").iterdir()}
    assert landed.keys() == {path.name for path in report.iterdir()}
    for name, path in landed.items():
        if name.endswith(".csv") or name.startswith(("table", "buffer_size.md")):
            assert path.read_text() == (report / name).read_text(), name


def test_the_page_shows_them():
    page = (DOCS / "results.md").read_text()
    assert render(page, DOCS / "results") == page
    for picture in (DOCS / "results" / "report").glob("*.png"):
        assert f"results/report/{picture.name}" in page


def test_a_cell_is_the_mean_of_its_runs():
    """Written out from the summaries alone."""
    summaries = [
        json.loads((DOCS / "results" / "split_mnist" / "model_inversion" / f"run{k}" / "summary.json").read_text())
        for k in range(5)
    ]
    values = [100 * summary["stream_accuracy"] for summary in summaries]
    assert [summary["seed"] for summary in summaries] == [1234, 2345, 3456, 5678, 6789]
    expected = f"| Model Inversion ED | yes | 5 | {mean(values):.2f} ± {stdev(values):.2f} | 43.23 ± 3.00 |"
    assert expected in (DOCS / "results.md").read_text()


def test_every_landed_run_says_its_command_and_no_weights_are_kept():
    with (DOCS / "results" / "report" / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) >= 80
    assert all(row["command"].startswith(("exml fit ", "exml test ")) for row in rows)
    kinds = {path.suffix for path in (DOCS / "results").rglob("*") if path.is_file()}
    assert kinds <= {".yaml", ".json", ".csv", ".md", ".png"}


def test_small_files_are_landed_and_samples_of_run_0(tmp_path):
    for run in (0, 1):
        folder = write_run(tmp_path / "runs", "split_mnist", "noise", run, 0.4)
        (folder / "samples").mkdir(exist_ok=True)
        (folder / "samples" / "experience=0.png").write_bytes(b"pixels")
        (folder / "checkpoints").mkdir()
        (folder / "checkpoints" / "last.ckpt").write_bytes(b"weights")
    land(tmp_path / "runs", tmp_path / "landed")
    found = {str(path.relative_to(tmp_path / "landed")) for path in (tmp_path / "landed").rglob("*") if path.is_file()}
    small = {f"split_mnist/noise/run{k}/{name}" for k in (0, 1)
             for name in ("accuracy_matrix.csv", "config.yaml", "summary.json")}  # fmt: skip
    assert found == {*small, "split_mnist/noise/run0/samples/experience=0.png"}


def test_only_what_stands_between_the_marks_is_replaced(tmp_path):
    (tmp_path / "t.md").write_text("# Title\n\n## One\n\n| new |\n")
    page = "before\n<!-- t.md -->\n| old |\n<!-- end -->\nafter\n"
    assert render(page, tmp_path) == "before\n<!-- t.md -->\n### One\n\n| new |\n<!-- end -->\nafter\n"


def test_the_page_of_reliability_is_made_of_its_results():
    results = json.loads((DOCS / "reliability.json").read_text())
    assert (DOCS / "reliability.md").read_text() == render_reliability(results)


def test_the_tables_of_procedural_images_are_those_that_were_measured():
    page = (DOCS / "notebook_of_trials.md").read_text()
    assert render(page, DOCS) == page
    assert page.count("<!-- end -->") == 2
