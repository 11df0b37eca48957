"""`exml report` as its users type it."""

import csv
import os
import re
import shutil
import subprocess
import sys

import pytest

from exml_lightning.cli.main import main
from exml_lightning.report.paper import FIGURES, TABLE_2, is_ex_model
from exml_lightning.report.text import csv_text, drawn, escape, file_name, printable, seconds
from tests.conftest import refused
from tests.report.fake_runs import write_agreement_run, write_run, write_samples

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


def test_all_files_are_written_and_listed_and_later_replaced(runs, tmp_path, monkeypatch, capsys):
    main(["report", "runs"])
    out = capsys.readouterr()
    assert names(tmp_path / "report") == ALWAYS | {
        *("table_other.md", "table_other.csv", "figure_2.png"),
        *("buffer_size_split_mnist.png", "buffer_size.md", "buffer_size.csv"),
        *("accuracy_over_time_split_mnist.png", "accuracy_over_time.csv"),
    }
    text = (tmp_path / "report" / "report.md").read_text()
    assert "\n\n6 runs; made by\n\n    exml report runs\n" in text
    assert set(re.findall(r"\]\((.+?)\)", text)) == names(tmp_path / "report") - {"report.md"}
    left_out = "runs/split_digits/noise/run0 is unfinished, 2 of 5 experts are learned: give its command again"
    assert out.err == f"left out: {left_out}\n"
    assert f"## Left out\n\n- {left_out}\n" in text
    assert "91.00 ± 1.41" in " ".join(out.out.split())
    assert "accuracy_over_time.csv" in out.out
    # The same runs make the same files elsewhere; the next report replaces all of them.
    before = {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()}
    shutil.copytree(runs, tmp_path / "other" / "runs")
    monkeypatch.chdir(tmp_path / "other")
    main(["report", "runs"])
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "other" / "report").iterdir()}
    main(["report", "runs/split_digits", "--output", str(tmp_path / "report")])
    assert names(tmp_path / "report") == ALWAYS | {"table_other.md", "table_other.csv"}
    assert "No runs of joint_mnist, split_mnist," in (tmp_path / "report" / "table_2.md").read_text()


def test_names_of_strangers_make_safe_files_and_good_links(runs, tmp_path):
    odd = {"a": "/../../pwned", "b": "*b* [x](y) <b>|$z$\n# \x1b[31m[/red]"}
    for folder, name in odd.items():
        run = write_run(tmp_path / "odd", folder, "noise", 0, 0.5, data__scenario__name=name)
        write_samples(run, [(0, 1)], ["$5", "b"])
        write_run(tmp_path / "odd", folder, "noise", 0, 0.5, "ten", buffer__size=10, data__scenario__name=name)
    (tmp_path / "odd" / "a").rename(tmp_path / "odd" / "run\udcff")
    main(["report", "odd"])
    assert not list(tmp_path.glob("**/*pwned.png")) + list(tmp_path.parent.glob("*pwned*"))
    text = (tmp_path / "report" / "report.md").read_text()
    assert r"### \*b\* \[x\](y) \<b\>\|\$z\$\\n\# \\x1b\[31m\[/red\]: stream accuracy in %" in text
    links = set(re.findall(r"^- \[[\w.-]+\]\(([\w.-]+)\)$", text, re.MULTILINE))
    assert links == names(tmp_path / "report") - {"report.md"}
    assert len({link for link in links if link.endswith(".png")}) == 3 * len(odd)
    assert "odd/run\\udcff/noise/run0" in (tmp_path / "report" / "runs.csv").read_text()
    main(["report", "runs/split_digits"])
    assert names(tmp_path / "report") == ALWAYS | {"table_other.md", "table_other.csv"}  # no stale picture


def test_what_is_no_file_of_a_report_is_never_deleted(runs, tmp_path):
    report = tmp_path / "report"
    (report / "samples_mine.png").mkdir(parents=True)
    own = ("thesis.txt", "figure_3.png", "figure_4.png", "samples_mine.png")
    for name in own[:3]:
        (report / name).write_text("the user's own")
    (report / "report.md").write_text("# Mine\n- [figure_3.png](figure_3.png)\n")  # lists it, but is no report
    main(["report", "runs/split_digits"])
    with (report / "report.md").open("a") as file:
        file.write("".join(f"- [{name}]({name})\n" for name in (*own, "runs.csv") if name != "figure_3.png"))
    main(["report", "runs/split_digits"])
    assert set(own) <= names(report)


def test_a_terminal_of_few_letters_and_no_torch(runs):
    code = """
import sys
from exml_lightning.cli.main import main
main(["report", "runs", "--html"])
print("torch" in sys.modules or "lightning" in sys.modules)
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
    assert "91.00 ?" in out
    assert out.endswith("False\n")


@pytest.mark.parametrize("html", [[], ["--html"]])
def test_of_runs_without_labelled_images_it_says_what_there_is_not(tmp_path, monkeypatch, capsys, html):
    monkeypatch.chdir(tmp_path)
    write_agreement_run(tmp_path / "runs")
    main(["report", "runs", *html])
    said, written = capsys.readouterr().out, (tmp_path / "report" / "table_other.md").read_text()
    assert names(tmp_path / "report") == ALWAYS | {
        "table_other.md",
        "table_other.csv",
        *(["report.html"] if html else []),
    }
    for text in (said, written, (tmp_path / "report" / "report.html").read_text() if html else written):
        assert "not known" in text
        assert "runs without labelled images have no accuracy, so neither a figure here nor a picture of it" in text
    (row,) = csv.DictReader((tmp_path / "report" / "runs.csv").open())
    assert (row["stream_accuracy_percent"], row["agreement_percent"]) == ("", "81.2500")
    shutil.rmtree(tmp_path / "runs")
    write_run(tmp_path / "runs", "split_digits", "replay", 0, 0.9)
    main(["report", "runs", *html])
    assert "without labelled images" not in capsys.readouterr().out


def test_bad_input_is_one_line_and_nothing_is_written(runs, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for args, words in (
        (["nowhere"], "nowhere does not exist"),
        (["runs/split_digits/noise/run0"], "2 of 5 experts are learned"),
        (["runs/split_digits", "--output", "file"], "file is a file: name a folder with --output DIR"),
    ):
        assert words in refused(["report", *args], capsys)
    assert "runs" in refused(["report"], capsys, code=2)
    assert not (tmp_path / "report").exists()


def test_a_table_has_a_row_for_each_strategy_and_settings_beside_the_papers(runs, tmp_path):
    write_run(runs, "mt_cifar10", "parameter_average", 0, 0.5)
    write_run(runs, "split_mnist", "noise", 0, 0.25, buffer__name="my_own")
    main(["report", "runs"])
    report = tmp_path / "report"
    lines = (report / "table_2.md").read_text().splitlines()
    note = "2 experts, the paper's 5"
    assert f"| Oracle | no | 1 | 99.00 | 99.42 ± 0.19 | 2.5 | {note} |" in lines
    assert "| Ensemble Avg. | no | 0 | no runs | 33.40 ± 4.74 |  |  |" in lines
    assert f"| Replay ED | no | 2 | 91.00 ± 1.41 |  | 100 + 50 | buffer.size 5000; {note} |" in lines
    assert sum(line.startswith("| Replay ED |") for line in lines) == 1
    assert "| Replay ED | 50.00 ± 0.00 (2) | 91.00 ± 1.41 (2) |" in (report / "buffer_size.md").read_text().splitlines()
    assert "| Param. Avg. | yes | 1 | 50.00 | 51.85 ± 2.37 (?) | 2.5 |  |" in lines
    assert any("damaged" in line for line in lines)
    assert "No runs of joint_mnist, joint_cifar10, split_cifar10." in lines
    assert any(line.startswith("| My own |") for line in lines)
    with (report / "table_2.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["scenario"] for row in rows} == set(TABLE_2)
    (replay,) = [row for row in rows if row["strategy"] == "replay" and row["scenario"] == "split_mnist"]
    assert (replay["runs"], replay["mean_percent"], replay["mean_seconds_generating"]) == ("2", "91.0000", "100.5000")
    (missing,) = [row for row in rows if (row["scenario"], row["strategy"]) == ("split_cifar10", "oracle")]
    assert (missing["runs"], missing["mean_percent"], missing["paper_mean_percent"]) == ("0", "", "96.5800")
    with (report / "runs.csv").open() as file:
        of_runs = {row["folder"]: row for row in csv.DictReader(file)}
    assert len(of_runs) == 8
    one = of_runs["runs/split_mnist/replay/run1"]
    assert (one["stream_accuracy_percent"], one["forgetting_percent"], one["seed"]) == ("92.0000", "25.0000", "2345")


def test_the_figures_of_the_paper():
    assert len(FIGURES) == 44
    assert FIGURES["core50_nc", "oracle"] == (96.04, 1.08)
    assert FIGURES["joint_cifar10", "auxiliary"] == (76.94, 2.68)
    assert ("joint_mnist", "concat") not in FIGURES
    assert is_ex_model("parameter_average") == "yes"
    assert (is_ex_model("oracle"), is_ex_model("my_own")) == ("no", "")


@pytest.mark.slow
def test_a_real_run_and_a_real_baseline(small_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(small_run("runs/fit"))
    main([*small_run("runs/oracle", verb="test"), "--baseline", "Oracle"])
    main(["report", "runs"])
    table = (tmp_path / "report" / "table_other.md").read_text()
    assert re.search(r"\| Oracle \| no \| 1 \| \d+\.\d\d \|", table)
    assert re.search(r"\| Model Inversion ED \| yes \| 1 \| \d+\.\d\d \|", table)
    assert "expert.training.epochs 50;" in table
    assert (tmp_path / "report" / "accuracy_over_time_split_digits.png").is_file()
    assert (tmp_path / "report" / "samples_split_digits.png").is_file()


def test_names_of_strangers_as_text():
    assert printable("a\nb\x1b[31m\udcff é") == "a\\nb\\x1b[31m\\udcff é"
    assert escape("*b* [x](y) <b> a|b `c` $x$ joint_mnist __init__ a\\b") == (
        r"\*b\* \[x\](y) \<b\> a\|b \`c\` \$x\$ joint_mnist \_\_init\_\_ a\\b"
    )
    assert drawn("cost $x$\n") == r"cost \$x\$\n"
    assert len(drawn("x" * 300)) == 60
    assert csv_text(["a"], [["\udcff"], [None], [0.5]]) == 'a\n\\udcff\n""\n0.5000\n'
    assert [seconds(value) for value in (0.04, 2.55, 114.4, 7200, None)] == ["0.0", "2.5", "114", "7,200", "-"]
    odd = ["/../../x", "my digits", "my_digits ", "x" * 300, "x" * 301, "", "日本", "a\udcff"]
    made = [file_name(name) for name in odd]
    assert len(set(made)) == len(odd)
    assert all(re.fullmatch(r"[\w-]{9,69}", name, re.ASCII) for name in made)
    assert file_name("my-digits_2") == "my-digits_2"
