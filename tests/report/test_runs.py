"""Finding and reading run folders."""

import json
import os
import re

import pytest

from exml_lightning.core.errors import ExmlError
from exml_lightning.report.runs import Row, find_runs
from tests.report.fake_runs import write_run


def test_runs_are_found_at_any_depth_and_each_once(tmp_path):
    fit = write_run(tmp_path / "runs", "split_mnist", "model_inversion", 3, 0.4)
    baseline = write_run(tmp_path / "runs" / "deep" / "er", "split_mnist", "min_entropy", 0, 0.75)
    for name in ("cache", "checkpoints", "buffer", "ex_model", "samples", ".hidden"):
        (fit / name).mkdir()
        (fit / name / "summary.json").write_text("{")
    runs, left_out = find_runs([tmp_path / "runs", fit, tmp_path])
    assert left_out == []
    found = {(run.folder, run.scenario, run.strategy, run.run_id, run.is_baseline) for run in runs}
    assert found == {
        (fit, "split_mnist", "model_inversion", 3, False),
        (baseline, "split_mnist", "min_entropy", 0, True),
    }


def test_the_files_of_a_run_are_read(tmp_path):
    folder = write_run(
        tmp_path,
        "split_mnist",
        "replay",
        1,
        0.6,
        experts=2,
        matrix=[[1.0, 0.0], [0.4, 0.8]],
        results={"forgetting": 0.6},
    )
    ((run,), _) = find_runs([folder])
    assert run.accuracy == pytest.approx(60)
    assert run.over_time == (Row(0, {0: 1.0, 1: 0.0}, 0.5), Row(1, {0: 0.4, 1: 0.8}, 0.6))
    assert run.number("forgetting") == 0.6
    assert run.number("device") is None  # no number
    assert run.number("nothing") is None


def test_a_stream_with_fewer_parts_than_experiences(tmp_path):
    folder = write_run(tmp_path, "core50_ni", "replay", 0, 0.6, experts=3)
    (folder / "accuracy_matrix.csv").write_text("after_experience,0,stream\n0,0.1,0.1\n1,0.2,0.2\n2,0.6,0.6\n")
    ((run,), _) = find_runs([folder])
    assert [row.parts for row in run.over_time] == [{0: 0.1}, {0: 0.2}, {0: 0.6}]


def test_the_strategy_is_that_of_the_configuration_not_of_the_folder(tmp_path):
    folder = write_run(tmp_path, "split_mnist", "parameter_average_batch_norm", 0, 0.2, folder="any")
    folder.rename(tmp_path / "elsewhere")
    ((run,), _) = find_runs([tmp_path])
    assert (run.folder, run.strategy) == (tmp_path / "elsewhere", "parameter_average_batch_norm")


def spoil_json(folder):
    (folder / "summary.json").write_text("{")


def no_config(folder):
    (folder / "config.yaml").unlink()


def spoil_config(folder):
    (folder / "config.yaml").write_text("a: [")


def empty_config(folder):
    (folder / "config.yaml").write_text("data: {}\nbuffer: 3\n")


def no_summary(folder):
    (folder / "summary.json").unlink()


def no_matrix(folder):
    (folder / "accuracy_matrix.csv").unlink()


def spoil_matrix(folder):
    (folder / "accuracy_matrix.csv").write_text("after_experience,0,stream\n0,none,0.1\n")


def other_matrix(folder):
    (folder / "accuracy_matrix.csv").write_text("a,b\n1,2\n")


def pipe(folder):
    (folder / "summary.json").unlink()
    os.mkfifo(folder / "summary.json")


def results(**changes):
    def change(folder):
        path = folder / "summary.json"
        values = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))

    return change


BROKEN = {
    "summary.json is broken": spoil_json,
    "has no config.yaml: it is of an older version": no_config,
    "config.yaml is broken (while parsing": spoil_config,
    "config.yaml is broken (it has no buffer)": empty_config,
    "is unfinished: it has no summary.json": no_summary,
    "has no accuracy_matrix.csv": no_matrix,
    "accuracy_matrix.csv is broken (could not convert": spoil_matrix,
    "accuracy_matrix.csv is broken (its columns are a, b)": other_matrix,
    "is unfinished, 3 of 5 experts are learned": results(experiences_learned=3),
    "does not say how many experts there are: it is of an older version": results(experts=None),
    "stream_accuracy is nan": results(stream_accuracy=float("nan")),
    "stream_accuracy is 93": results(stream_accuracy=93),
    "experiences_learned is missing": results(experiences_learned=None),
    "is unfinished: it has no": pipe,
}


@pytest.mark.parametrize("words", BROKEN)
def test_what_is_broken_is_an_error_where_it_is_named_and_left_out_below_a_folder(tmp_path, words):
    good = write_run(tmp_path, "split_mnist", "replay", 0, 0.9)
    bad = write_run(tmp_path, "split_mnist", "replay", 1, 0.9)
    BROKEN[words](bad)
    with pytest.raises(ExmlError, match=re.escape(words)) as error:
        find_runs([tmp_path, bad])
    assert str(bad) in str(error.value)
    assert "\n" not in str(error.value)
    runs, left_out = find_runs([tmp_path])
    assert [run.folder for run in runs] == [good]
    assert left_out == [str(error.value)]


def test_skipped_experts_do_not_make_a_run_unfinished(tmp_path):
    folder = write_run(tmp_path, "zoo", "noise", 0, 0.5, results={"experiences_learned": 4, "experiences_skipped": [2]})
    assert len(find_runs([folder])[0]) == 1


def test_a_stream_without_a_scenario_has_no_accuracy(tmp_path):
    folder = write_run(tmp_path, "zoo", "noise", 0, 0.5, data__scenario=None)
    with pytest.raises(ExmlError, match="agreement, no accuracy"):
        find_runs([folder])


def test_folders_without_runs(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, words in (("nowhere", "does not exist"), ("file", "is a file"), ("empty", "holds no finished run")):
        with pytest.raises(ExmlError, match=f"{name} {words}"):
            find_runs([tmp_path / name])
    write_run(tmp_path / "bad", "split_mnist", "replay", 0, 0.9, results={"experiences_learned": 1})
    with pytest.raises(ExmlError, match=r"holds no finished run .*1 of 5 experts"):
        find_runs([tmp_path / "bad"])
