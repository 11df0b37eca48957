"""Which runs belong together."""

import statistics

import pytest

from exml_lightning.core.errors import ExmlError
from exml_lightning.report.cells import build_columns
from exml_lightning.report.runs import find_runs
from tests.report.fake_runs import write_run


def columns(tmp_path):
    return build_columns(find_runs([tmp_path])[0])


def test_runs_of_the_same_settings_are_a_group(tmp_path):
    accuracies = [0.40, 0.42, 0.47]
    for k, accuracy in enumerate(accuracies):
        write_run(tmp_path, "split_mnist", "model_inversion", k, accuracy)
    cell = columns(tmp_path)["split_mnist"].cells["model_inversion"]
    assert [run.run_id for run in cell.main.runs] == [0, 1, 2]
    mean, std = cell.main.accuracy
    assert mean == pytest.approx(43)
    assert std == pytest.approx((((-3) ** 2 + (-1) ** 2 + 4**2) / 2) ** 0.5)  # n - 1
    assert (cell.others, cell.sizes) == ((), ())
    assert cell.main.mean_of("seconds_generating") == statistics.fmean([100, 101, 102])
    assert cell.main.mean_of("seconds_testing") is None


def test_the_group_with_the_most_runs_fills_the_cell(tmp_path):
    for k in range(2):
        write_run(tmp_path, "split_mnist", "replay", k, 0.9)
    write_run(tmp_path, "split_mnist", "replay", 0, 0.95, "run0_long", data__n_iter=5000)
    column = columns(tmp_path)["split_mnist"]
    cell = column.cells["replay"]
    assert len(cell.main.runs) == 2
    (other,) = cell.others
    assert column.note("replay", other) == "data.n_iter 5000 instead of 1000"
    assert column.note("replay", cell.main) == ""


def test_of_as_many_runs_the_group_that_agrees_with_the_neighbours_does(tmp_path):
    write_run(tmp_path, "split_mnist", "replay", 0, 0.9, "a")
    write_run(tmp_path, "split_mnist", "replay", 0, 0.95, "b", data__n_iter=500)
    write_run(tmp_path, "split_mnist", "noise", 0, 0.4, data__n_iter=500)
    write_run(tmp_path, "split_mnist", "oracle", 0, 0.99)  # says nothing of steps
    column = columns(tmp_path)["split_mnist"]
    assert column.cells["replay"].main.settings["data.n_iter"] == 500
    assert column.usual["data.n_iter"] == 500
    assert column.note("noise", column.cells["noise"].main) == ""


def test_a_group_with_other_shared_settings_than_its_neighbours_is_noted(tmp_path):
    for strategy in ("model_inversion", "auxiliary", "replay"):
        steps = 500 if strategy == "auxiliary" else 1000
        write_run(tmp_path, "split_mnist", strategy, 0, 0.5, data__n_iter=steps)
    write_run(tmp_path, "split_mnist", "oracle", 0, 0.9, results={"expert_training": {"epochs": 1}})
    write_run(tmp_path, "split_mnist", "concat", 0, 0.9, data__n_iter=3)
    column = columns(tmp_path)["split_mnist"]
    notes = {strategy: column.note(strategy, cell.main) for strategy, cell in column.cells.items()}
    assert notes.pop("auxiliary") == "data.n_iter 500 instead of 1000"
    assert "expert_training.epochs 1 instead of 20" in notes.pop("oracle")
    assert set(notes.values()) == {""}


def test_of_two_that_differ_the_lower_row_is_noted(tmp_path):
    write_run(tmp_path, "split_mnist", "model_inversion", 0, 0.5, data__n_iter=7)
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5)
    column = columns(tmp_path)["split_mnist"]
    assert column.note("model_inversion", column.cells["model_inversion"].main) == ""
    assert column.note("replay", column.cells["replay"].main) == "data.n_iter 1000 instead of 7"


def test_other_buffer_sizes_are_points_of_figure_3(tmp_path):
    for size in (1000, 10, 5000):
        write_run(tmp_path, "split_mnist", "replay", 0, 0.5, f"size{size}", buffer__size=size)
    write_run(tmp_path, "split_mnist", "noise", 0, 0.5)
    cell = columns(tmp_path)["split_mnist"].cells["replay"]
    assert cell.main.settings["buffer.size"] == 5000
    assert cell.others == ()
    assert [group.settings["buffer.size"] for group in cell.sizes] == [10, 1000, 5000]


def test_a_curve_of_other_settings_has_one_line_in_the_cell(tmp_path):
    """The group of the cell's size; the others are points of the longer line."""
    for k in range(2):
        write_run(tmp_path, "split_mnist", "replay", k, 0.5)
    for size in (10, 100, 5000):
        write_run(tmp_path, "split_mnist", "replay", 0, 0.4, f"size{size}", buffer__size=size, data__n_iter=300)
    column = columns(tmp_path)["split_mnist"]
    cell = column.cells["replay"]
    assert [column.note("replay", group) for group in cell.others] == ["data.n_iter 300 instead of 1000"]
    assert [group.settings["buffer.size"] for group in cell.sizes] == [10, 100, 5000]
    assert len(cell.groups) == 4


def test_a_run_that_is_there_twice_is_an_error(tmp_path):
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5, "first")
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5, "second")
    with pytest.raises(ExmlError, match=r"first and .*second are both run 0 of replay on split_mnist"):
        columns(tmp_path)
