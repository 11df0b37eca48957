"""`exml report` as its users type it."""

import re
import shutil
import subprocess
import sys

import pytest

from exml_lightning.cli import main
from tests.report.fake_runs import write_run, write_samples
from tests.test_cli import refused

ALWAYS = {"report.md", "runs.csv", "table_2.md", "table_2.csv", "table_3.md", "table_3.csv"}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A few runs below `runs`, one of them unfinished, in the working directory."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    for k in range(2):
        write_run(root, "split_mnist", "replay", k, 0.9 + 0.02 * k, experts=2)
        write_run(root, "split_mnist", "replay", k, 0.5, f"run{k}_small", experts=2, buffer__size=10)
    write_run(root, "split_mnist", "oracle", 0, 0.99, experts=2)
    write_samples(root / "split_mnist" / "replay" / "run0", [(0, 1), (2, 3)], [str(i) for i in range(10)])
    write_run(root, "split_digits", "replay", 0, 0.9, experts=1)
    write_run(root, "split_digits", "noise", 0, 0.9, results={"experiences_learned": 2})
    return root


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_all_files_are_written_and_listed_and_later_replaced(runs, tmp_path, capsys):
    main(["report", "runs"])
    out = capsys.readouterr()
    assert names(tmp_path / "report") == ALWAYS | {
        "table_other.md",
        "table_other.csv",
        "figure_2.png",
        "buffer_size_split_mnist.png",
        "buffer_size.md",
        "buffer_size.csv",
        "accuracy_over_time_split_mnist.png",
        "accuracy_over_time.csv",
    }
    text = (tmp_path / "report" / "report.md").read_text()
    assert "\n\n6 runs; made by\n\n    exml report runs\n" in text
    assert set(re.findall(r"\]\((.+?)\)", text)) == names(tmp_path / "report") - {"report.md"}
    left_out = "runs/split_digits/noise/run0 is unfinished, 2 of 5 experts are learned: give its command again"
    assert out.err == f"left out: {left_out}\n"
    assert f"## Left out\n\n- {left_out}\n" in text
    assert "91.00 ± 1.41 (2)" in out.out
    assert "paper 99.42 ± 0.19" in out.out
    assert "Table 3. Stream accuracy in %, CORe50: no runs" in out.out
    assert "accuracy_over_time.csv" in out.out
    # A second report replaces the first, and nothing else.
    (tmp_path / "report" / "figure_9.png").write_text("the user's own")
    main(["report", "runs/split_digits"])
    assert names(tmp_path / "report") == ALWAYS | {"table_other.md", "table_other.csv", "figure_9.png"}
    assert "no runs" in (tmp_path / "report" / "table_2.md").read_text()


def test_a_copy_elsewhere_gives_the_same_report(runs, tmp_path, monkeypatch):
    main(["report", "runs"])
    other = tmp_path / "other"
    shutil.copytree(runs, other / "runs")
    shutil.rmtree(runs)
    monkeypatch.chdir(other)
    main(["report", "runs"])
    assert names(other / "report") == names(tmp_path / "report")
    for path in (other / "report").iterdir():
        assert path.read_bytes() == (tmp_path / "report" / path.name).read_bytes(), path.name


def test_a_folder_without_a_report_loses_nothing(runs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.md").write_text("# Mine\n- [figure_3.png](figure_3.png)\n")
    (tmp_path / "out" / "figure_3.png").write_text("the user's own")
    main(["report", "runs/split_digits", "--output", "out"])
    assert (tmp_path / "out" / "figure_3.png").read_text() == "the user's own"


def test_bad_input_is_one_line_and_nothing_is_written(runs, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    shutil.copytree(runs / "split_mnist" / "replay" / "run0", runs / "split_mnist" / "replay" / "again")
    for args, words in (
        (["nowhere"], "nowhere does not exist"),
        (["runs/split_digits/noise/run0"], "2 of 5 experts are learned"),
        (["runs"], "again and runs/split_mnist/replay/run0 are both run 0 of replay"),
        (["runs/split_digits", "--output", "file"], "file is a file: name a folder with --output DIR"),
    ):
        assert words in refused(["report", *args], capsys)
    assert "RUN" in refused(["report"], capsys, code=2)
    assert not (tmp_path / "report").exists()


def test_no_torch_is_needed(runs):
    code = """
import sys
from exml_lightning.cli import main
main(["report", "runs"])
print("torch" in sys.modules or "lightning" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.endswith("False\n")


@pytest.mark.slow
def test_a_real_run_and_a_real_baseline(small_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(small_run("runs/fit"))
    main([*small_run("runs/oracle", verb="test"), "--baseline", "Oracle"])
    main(["report", "runs"])
    table = (tmp_path / "report" / "table_other.md").read_text()
    assert re.search(r"\| Oracle \| ✗ \| \d+\.\d\d \(1\) \|", table)
    assert re.search(r"\| Model Inversion ED \| ✓ \| \d+\.\d\d \(1\) \|", table)
    assert "2 experts (epochs 50," in table
    assert (tmp_path / "report" / "accuracy_over_time_split_digits.png").is_file()
    assert (tmp_path / "report" / "samples_split_digits.png").is_file()
