"""Tables 2 and 3 in words."""

import csv
import io
import re

import pytest

from exml_lightning.report.captions import captions
from exml_lightning.report.cells import build_columns
from exml_lightning.report.paper import FIGURES, STRATEGIES, TABLE_2, TABLE_3
from exml_lightning.report.runs import find_runs
from exml_lightning.report.tables import DAMAGED_NOTE, layouts, make_table, runs_csv, table_csv
from exml_lightning.report.text import Footnotes, csv_text, drawn, escape, file_name, markdown, printable, seconds
from tests.report.fake_runs import write_run


def columns(tmp_path):
    return build_columns(find_runs([tmp_path])[0], [])


def cells(tmp_path, name="table_2"):
    """Return a table as a mapping from row and column to the words."""
    found = columns(tmp_path)
    (layout,) = [layout for layout in layouts(found) if layout.name == name]
    table = make_table(layout, found)
    headings = list(table.headings)
    for i, heading in enumerate(headings):
        if heading == "paper":
            headings[i] = f"paper {headings[i - 1]}"
    rows = {row[0]: dict(zip(headings, row, strict=True)) for row in table.rows}
    return rows, table


def rows_of_csv(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_the_figures_of_the_paper():
    """Each written out from Tables 2 and 3, independently of the order in the code; row by row."""
    printed = {
        "oracle": "93.71±0.28 99.42±0.19 87.37±1.11 96.58±0.86 96.58±0.86 85.73±0.29 96.04±1.08 -",
        "ensemble_average": "- 33.40±4.74 - 51.85±2.37 - - 26.30±1.38 69.92±0.70",
        "min_entropy": "- 39.41±5.27 - 52.03±2.67 - - 42.41±0.96 61.36±1.86",
        "parameter_average": "- 20.11±0.97 - 10.00±0.00 51.85±2.37 - 2.00±0.00 2.00±0.00",
        "model_inversion": "93.09±1.43 43.23±3.00 64.55±3.25 17.40±3.96 61.71±7.52 50.06±2.76 33.10±1.93 44.38±4.93",
        "data_impression": "92.12±0.88 36.05±6.74 52.64±5.82 24.70±6.85 61.15±3.92 52.91±2.09 17.57±3.57 43.26±2.36",
        "auxiliary": "89.35±0.18 35.48±6.35 76.94±2.68 41.35±5.83 60.72±3.70 81.82±0.29 34.87±1.16 44.51±2.91",
    }
    scenarios = [*TABLE_2, *TABLE_3[:3]]
    for strategy, line in printed.items():
        for scenario, words in zip(scenarios, line.split(), strict=True):
            figures = FIGURES.get((scenario, strategy))
            assert ("-" if figures is None else f"{figures[0]:.2f}±{figures[1]:.2f}") == words
    assert len(FIGURES) == sum(word != "-" for line in printed.values() for word in line.split())


def test_the_tables_are_whole_without_runs(tmp_path):
    write_run(tmp_path, "split_digits", "replay", 0, 0.9)
    rows, table = cells(tmp_path)
    assert table.headings == tuple(["", "ex-model scenario"] + [word for s in TABLE_2 for word in (s, "paper")])
    assert list(rows) == [
        *("Oracle", "Ensemble Avg.", "Min Entropy", "Param. Avg."),
        *("Model Inversion ED", "Data Impression ED", "Aux. Data ED"),
        "not in the paper's table",
        *("Procedural ED", "Procedural ED, best", "Procedural ED, refined"),
        *("Replay ED", "Probability Avg.", "Concat", "Param. Avg., batch norm", "Noise ED"),
    ]
    marks = {name: row["ex-model scenario"] for name, row in rows.items()}
    assert {name for name, mark in marks.items() if mark == "✗"} == {
        *("Oracle", "Ensemble Avg.", "Min Entropy", "Replay ED", "Probability Avg.", "Concat")
    }
    assert rows["Ensemble Avg."]["joint_mnist"] == "-"
    assert rows["Ensemble Avg."]["split_mnist"] == "no runs"
    assert rows["Ensemble Avg."]["paper split_mnist"] == "33.40 ± 4.74"
    assert rows["Ensemble Avg."]["paper mt_cifar10"] == "-"
    assert rows["Ensemble Avg."]["mt_cifar10"] == "no runs"
    assert rows["Param. Avg."]["paper mt_cifar10"] == "51.85 ± 2.37 (?)"
    assert DAMAGED_NOTE in table.notes
    assert rows["Param. Avg., batch norm"]["split_mnist"] == "-"
    assert rows["Replay ED"]["paper split_mnist"] == ""
    assert "| *not in the paper's table* |  |" in table.markdown()
    rows, table = cells(tmp_path, "table_3")
    assert table.headings[2:] == ("joint_core50", "paper", "core50_nc", "paper", "core50_ni", "paper", "core50_nic")
    assert (rows["Oracle"]["core50_ni"], rows["Oracle"]["core50_nic"]) == ("-", "-")
    assert rows["Oracle"]["core50_nc"] == "no runs"
    assert DAMAGED_NOTE not in table.notes
    rows, _ = cells(tmp_path, "table_other")
    assert rows == {"Replay ED": {"": "Replay ED", "ex-model scenario": "✗", "split_digits": "90.00 (1)"}}


def test_a_cell_says_mean_deviation_and_runs(tmp_path):
    for k, accuracy in enumerate((0.40, 0.42, 0.47)):
        write_run(tmp_path, "split_mnist", "model_inversion", k, accuracy)
    write_run(tmp_path, "split_mnist", "model_inversion", 0, 0.388, "confident",
              buffer__generator__init_args__confidence=0.99)  # fmt: skip
    write_run(tmp_path, "split_mnist", "auxiliary", 0, 0.3548)
    rows, table = cells(tmp_path)
    # The sample variance is (9 + 1 + 16) / 2 = 13.
    assert rows["Model Inversion ED"]["split_mnist"] == "43.00 ± 3.61 (3)\n38.80 (1) ᵃ"
    assert rows["Aux. Data ED"]["split_mnist"] == "35.48 (1)"
    assert table.notes[0] == "ᵃ buffer.generator.confidence 0.99 instead of null"
    assert "43.00 ± 3.61 (3)<br>38.80 (1) ᵃ" in table.markdown()


def test_fewer_experts_than_the_papers_are_not_compared(tmp_path):
    write_run(tmp_path, "split_mnist", "oracle", 0, 0.4, experts=2)
    rows, table = cells(tmp_path)
    assert rows["Oracle"]["split_mnist"] == "40.00 (1) ᵃ"
    assert table.notes[0] == "ᵃ number of experts 2 instead of the paper's 5"


def test_several_processes_stand_below_the_table(tmp_path):
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5, results={"processes": 4})
    write_run(tmp_path, "split_mnist", "oracle", 0, 0.5)
    found = columns(tmp_path)
    text = captions(layouts(found)[0], found)
    assert "1,000 steps of batch 128 an expert; 4 processes with such a batch each; augmentation" in text


@pytest.mark.parametrize(
    ("accuracies", "arrow"),
    [
        ([0.4923], ""),  # the paper: 43.23 ± 3.00
        ([0.4924], " ↑"),
        ([0.3723], ""),
        ([0.3722], " ↓"),
        ([0.45, 0.55], ""),  # mean 50, our own standard deviation is 7.07
        ([0.58, 0.59], " ↑"),
    ],
)
def test_an_arrow_is_two_of_the_larger_standard_deviations(tmp_path, accuracies, arrow):
    for k, accuracy in enumerate(accuracies):
        write_run(tmp_path, "split_mnist", "model_inversion", k, accuracy)
    rows, table = cells(tmp_path)
    assert rows["Model Inversion ED"]["split_mnist"].partition(f"({len(accuracies)})")[2] == arrow
    assert any("two standard deviations" in note for note in table.notes) == bool(arrow)


def test_figures_are_compared_as_they_are_printed(tmp_path):
    """The paper has 10.00 ± 0.00: a guess of 10.004 is the same; the damaged figure is not compared at all."""
    write_run(tmp_path, "split_cifar10", "parameter_average", 0, 0.10004)
    write_run(tmp_path, "mt_cifar10", "parameter_average", 0, 0.9)
    rows, _ = cells(tmp_path)
    assert rows["Param. Avg."]["split_cifar10"] == "10.00 (1)"
    assert rows["Param. Avg."]["mt_cifar10"] == "90.00 (1)"


def test_strategies_of_the_users_come_last(tmp_path):
    own = {"class_path": "my.code.OwnWay"}
    write_run(tmp_path, "split_mnist", "noise", 0, 0.3, buffer__generator=own)
    rows, _ = cells(tmp_path)
    assert list(rows)[-1] == "Own way"
    assert rows["Own way"]["ex-model scenario"] == ""


def test_the_long_form_has_a_row_for_each_group_and_each_empty_cell(tmp_path):
    for k in range(2):
        write_run(tmp_path, "split_mnist", "replay", k, 0.5 + 0.1 * k)
    write_run(tmp_path, "split_mnist", "replay", 0, 0.7, "long", data__n_iter=5000)
    found = columns(tmp_path)
    rows = rows_of_csv(table_csv(layouts(found)[0], found))
    assert len(rows) == len(STRATEGIES) * len(TABLE_2) + 1
    assert sum(row["runs"] == "0" for row in rows) == len(rows) - 2
    first, second = [row for row in rows if row["runs"] != "0"]
    assert (first["group"], first["runs"]) == ("", "2")
    assert float(first["mean_percent"]) == 55
    assert float(first["std_percent"]) == pytest.approx(50**0.5, abs=1e-4)
    assert float(first["mean_seconds_generating"]) == 100.5
    assert (second["group"], second["std_percent"]) == ("data.n_iter 5000 instead of 1000", "")
    papers = {(row["scenario"], row["strategy"]): row["paper_mean_percent"] for row in rows}
    assert papers["split_mnist", "min_entropy"] == "39.4100"
    assert papers["mt_cifar10", "parameter_average"] == ""


def test_every_run_is_a_row(tmp_path):
    folder = write_run(tmp_path, "split_mnist", "replay", 2, 0.5)
    write_run(tmp_path, "split_mnist", "replay", 2, 0.4, "small", buffer__size=10)
    write_run(tmp_path, "split_mnist", "oracle", 0, 0.99)
    rows = {row["folder"]: row for row in rows_of_csv(runs_csv(columns(tmp_path)))}
    assert len(rows) == 3
    assert rows[str(folder)] == {
        "scenario": "split_mnist", "strategy": "replay", "run": "2", "seed": "3456",
        "stream_accuracy_percent": "50.0000", "average_accuracy_percent": "75.0000", "forgetting_percent": "25.0000",
        "seconds_generating": "102.0000", "seconds_distilling": "50.0000", "seconds_testing": "",
        "peak_memory_mb": "900.0000", "device": "cpu, 1 thread", "buffer_size": "5000", "differs": "",
        "command": "exml fit -c configs/split_mnist.yaml --data.run_id 2", "folder": str(folder),
    }  # fmt: skip
    assert rows[str(folder.parent / "small")]["differs"] == "buffer.size 10 instead of 5000"
    assert rows[str(tmp_path / "split_mnist" / "oracle" / "run0")]["buffer_size"] == ""


def test_the_settings_stand_below_the_table(tmp_path):
    for scenario in ("joint_mnist", "split_mnist"):
        for strategy in ("model_inversion", "replay"):
            changes = {} if strategy == "replay" else {"model__lambda_ce": 0.5}
            write_run(tmp_path, scenario, strategy, 0, 0.5, experts=1 if scenario == "joint_mnist" else 5, **changes)
    write_run(tmp_path, "split_mnist", "oracle", 0, 0.9)
    found = columns(tmp_path)
    text = captions(layouts(found)[0], found)
    assert (
        "- **split_mnist**: buffer 5,000; 1,000 steps of batch 128 an expert; augmentation shift 0.06, rotation 10; "
        "5 experts (LeNet5; epochs 20, batch_size 32, lr 0.01, momentum 0.9, weight_decay 0.0005); on cpu, 1 thread\n"
    ) in text
    assert "1 expert (LeNet5; epochs" in text
    assert "processes" not in text
    assert "- Model Inversion ED (joint_mnist, split_mnist): ModelInversion (steps 100, lr 0.1," in text
    assert "; model.lambda_ce 0.5\n" in text
    assert "- Replay ED (joint_mnist, split_mnist): Replay; model.lambda_ce 1\n" in text
    assert "- All: model.loss mse" in text
    assert "| Model Inversion ED | 100 + 50 | 100 + 50 |" in text
    assert "| Oracle |  | 2.5 |" in text
    assert captions(layouts(found)[1], found) == ""


def test_text():
    footnotes = Footnotes()
    marks = [footnotes.mark(str(i)) for i in range(30)]
    assert len(set(marks)) == 30
    assert footnotes.mark("3") == marks[3] == "ᵈ"
    assert footnotes.lines[3] == "ᵈ 3"
    assert markdown(["a", "b|c"], [["1\n2", "*"], ["x", ""]]) == (
        "| a | b\\|c |\n| --- | --- |\n| 1<br>2 | \\* |\n| *x* |  |\n"
    )
    assert [seconds(value) for value in (0.04, 2.55, 114.4, 7200)] == ["0.0", "2.5", "114", "7,200"]


def test_names_of_strangers():
    assert printable("a\nb\x1b[31m\udcff é") == "a\\nb\\x1b[31m\\udcff é"
    assert escape("*b* [x](y) <b> a|b `c` $x$ joint_mnist __init__ a\\b") == (
        r"\*b\* \[x\](y) \<b\> a\|b \`c\` \$x\$ joint_mnist \_\_init\_\_ a\\b"
    )
    assert drawn("cost $x$\n") == r"cost \$x\$\n"
    assert len(drawn("x" * 300)) == 60
    assert csv_text(["a"], [["\udcff"]]) == "a\n\\udcff\n"


def test_file_names_of_scenarios():
    assert [file_name(name) for name in ("split_mnist", "my-digits")] == ["split_mnist", "my-digits"]
    odd = ["/../../x", "my digits", "my_digits ", "x" * 300, "x" * 301, "", "日本", "a\udcff"]
    made = [file_name(name) for name in odd]
    assert len(set(made)) == len(odd)
    assert all(re.fullmatch(r"[\w-]{9,69}", name, re.ASCII) for name in made)
