"""Which runs belong together."""

import json
import statistics

import pytest

from exml_lightning.core.errors import ExmlError
from exml_lightning.report import cells
from exml_lightning.report.cells import build_columns
from exml_lightning.report.runs import find_runs
from tests.report.fake_runs import write_run


def columns(tmp_path):
    return build_columns(find_runs([tmp_path])[0], [])


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
    assert cell.sizes_note == ""


def test_runs_that_few_sizes_have_are_left_out_and_told(tmp_path):
    for size, run_ids in ((10, (0, 1, 3)), (100, (0, 1)), (5000, (0, 1, 2))):
        for k in run_ids:
            write_run(tmp_path, "split_mnist", "replay", k, 0.5, f"{size}-{k}", buffer__size=size)
    for size, run_ids in ((10, (0, 1)), (100, (2, 3)), (5000, (2, 3))):
        for k in run_ids:
            write_run(tmp_path, "mt_cifar10", "replay", k, 0.5, f"{size}-{k}", buffer__size=size)
    found = columns(tmp_path)
    cell = found["split_mnist"].cells["replay"]
    assert [[run.run_id for run in group.runs] for group in cell.sizes] == [[0, 1]] * 3
    assert cell.sizes_note == "runs 0, 1 only, without run 3 of 10 and run 2 of 5,000"
    cell = found["mt_cifar10"].cells["replay"]
    assert [[run.run_id for run in group.runs] for group in cell.sizes] == [[2, 3]] * 2
    assert cell.sizes_note == "runs 2, 3 only, without runs 0, 1 of 10"


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


def test_a_single_larger_run_does_not_cost_a_line_its_runs(tmp_path):
    for size, run_ids in ((4, range(5)), (40, range(5)), (400, range(1))):
        for k in run_ids:
            write_run(tmp_path, "split_mnist", "replay", k, 0.5, f"{size}-{k}", buffer__size=size)
    cell = columns(tmp_path)["split_mnist"].cells["replay"]
    assert [(group.settings["buffer.size"], len(group.runs)) for group in cell.sizes] == [(4, 5), (40, 5)]
    assert cell.sizes_note == "runs 0, 1, 2, 3, 4 only, without run 0 of 400"


def test_a_run_that_is_there_twice(tmp_path):
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5, "run0")
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5, "run0_model.temperature=2")
    left_out = []
    cell = build_columns(find_runs([tmp_path])[0], left_out)["split_mnist"].cells["replay"]
    assert [run.folder.name for run in cell.main.runs] == ["run0"]
    where = tmp_path / "split_mnist" / "replay"
    same = "run 0 of replay on split_mnist with the same settings"
    assert left_out == [f"{where / 'run0_model.temperature=2'} repeats {where / 'run0'}: {same}"]
    write_run(tmp_path, "split_mnist", "replay", 0, 0.6, "other")
    with pytest.raises(ExmlError, match=r"run0 and .*other are both run 0 .* but another accuracy: leave one"):
        columns(tmp_path)


def test_a_column_has_one_buffer_size_where_several_would_do(tmp_path):
    """An ablation of one strategy does not move its neighbours."""
    for strategy in ("model_inversion", "auxiliary"):
        for size in (4, 400):
            for k in range(2):
                write_run(tmp_path, "split_mnist", strategy, k, 0.5, f"{size}-{k}", buffer__size=size)
    write_run(tmp_path, "split_mnist", "auxiliary", 0, 0.5, "ablation", buffer__size=4, model__lambda_ce=7)
    cells = columns(tmp_path)["split_mnist"].cells
    assert [cell.main.settings["buffer.size"] for cell in cells.values()] == [400, 400]


MOBILE = {"class_path": "exml_lightning.models.MobileNetV2", "init_args": {}}


def test_experts_of_another_architecture_are_another_group(tmp_path):
    for k in range(2):
        write_run(tmp_path, "core50_nc", "replay", k, 0.3)
    write_run(tmp_path, "core50_nc", "replay", 0, 0.9, "mobile", results={"expert_architecture": MOBILE})
    write_run(tmp_path, "core50_nc", "oracle", 0, 0.9, results={"expert_architecture": MOBILE})
    column = columns(tmp_path)["core50_nc"]
    (other,) = column.cells["replay"].others
    words = "expert_architecture MobileNetV2 instead of LeNet5"
    assert column.note("replay", other) == words
    assert column.note("oracle", column.cells["oracle"].main) == ""  # the upper row, of two as frequent
    assert column.note("replay", column.cells["replay"].main) == "expert_architecture LeNet5 instead of MobileNetV2"


def test_runs_made_before_it_was_said_belong_to_the_others(tmp_path):
    for k in range(3):
        for strategy in ("replay", "oracle"):
            folder = write_run(tmp_path, "split_mnist", strategy, k, 0.3)
            if k > 0 or strategy == "oracle":
                path = folder / ("test.json" if strategy == "oracle" else "summary.json")
                left = {"expert_architecture", "experts_digest", "processes"}
                content = {key: value for key, value in json.loads(path.read_text()).items() if key not in left}
                path.write_text(json.dumps(content))
    column = columns(tmp_path)["split_mnist"]
    for strategy, cell in column.cells.items():
        assert len(cell.main.runs) == 3
        assert (cell.others, column.note(strategy, cell.main)) == ((), "")


def test_processes_make_a_group(tmp_path):
    for k in range(2):
        write_run(tmp_path, "split_mnist", "replay", k, 0.3)
    write_run(tmp_path, "split_mnist", "replay", 2, 0.5, results={"processes": 4})
    column = columns(tmp_path)["split_mnist"]
    (other,) = column.cells["replay"].others
    assert column.note("replay", other) == "processes 4 instead of 1"
    assert column.note("replay", column.cells["replay"].main) == ""


def test_a_run_of_other_experts_that_is_there_twice_says_so(tmp_path):
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5, "first")
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5, "second", results={"experts_digest": "ffffffff"})
    with pytest.raises(ExmlError, match=r"on split_mnist with the same settings but other experts: leave one"):
        columns(tmp_path)


def test_fewer_experts_than_the_papers_are_noted(tmp_path):
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5, experts=2)
    write_run(tmp_path, "split_mnist", "noise", 0, 0.5, results={"experiences_skipped": [3]})
    write_run(tmp_path, "split_digits", "replay", 0, 0.5, experts=2)
    found = columns(tmp_path)
    notes = [found["split_mnist"].note(name, found["split_mnist"].cells[name].main) for name in ("replay", "noise")]
    assert notes[0] == "number of experts 2 instead of the paper's 5"
    assert notes[1].endswith("; number of experts 4 instead of the paper's 5")
    assert found["split_digits"].note("replay", found["split_digits"].cells["replay"].main) == ""


def test_neighbours_are_counted_by_their_settings_not_one_by_one(tmp_path, monkeypatch):
    """A search over a key that is not shared: its runs agree with the others as one."""
    for i in range(4):
        write_run(tmp_path, "split_mnist", "replay", 0, 0.5, f"search{i}", model__lambda_ce=i)
    write_run(tmp_path, "split_mnist", "noise", 0, 0.5)
    counts, rank = [], cells._rank

    def watched(group, neighbours):
        counts.append([len(frequent) for frequent in neighbours])
        return rank(group, neighbours)

    monkeypatch.setattr(cells, "_rank", watched)
    columns(tmp_path)
    assert counts == [[1]] * 5  # once a group, and the search counts once
