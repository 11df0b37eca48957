"""Finding and reading run folders."""

import json
import os
import re

import pytest
import yaml

from exml_lightning.core.errors import ExmlError
from exml_lightning.report.runs import Step, find_runs
from tests.report.fake_runs import write_agreement_run, write_run


def test_runs_are_found_at_any_depth_and_each_once(tmp_path):
    fit = write_run(tmp_path / "runs", "split_mnist", "model_inversion", 3, 0.4)
    baseline = write_run(tmp_path / "runs" / "deep" / "er", "split_mnist", "min_entropy", 0, 0.75, folder="any")
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
    odd = {"forgetting": 0.6, "average_accuracy": float("nan"), "peak_memory_mb": 10**400}
    matrix = [[1.0, 0.0], [0.4, 0.8]]
    folder = write_run(tmp_path, "split_mnist", "replay", 1, 0.6, experts=2, matrix=matrix, results=odd)
    ((run,), _) = find_runs([folder])
    assert run.percent == pytest.approx(60)
    assert run.steps == (Step(0, {0: 1.0, 1: 0.0}, 0.5), Step(1, {0: 0.4, 1: 0.8}, 0.6))
    assert run.number("forgetting") == 0.6
    for no_number in ("device", "nothing", "average_accuracy", "peak_memory_mb"):
        assert run.number(no_number) is None
    # The test stream may have fewer parts than there are experiences, and experts may have been skipped.
    (folder / "accuracy_matrix.csv").write_text("after_experience,0,stream\n0,0.1,0.1\n1,,0.6\n")
    learned = {"experiences_learned": 1, "experiences_skipped": [0]}
    (folder / "summary.json").write_text(json.dumps({**run.results, **odd, **learned, "average_accuracy": 1}))
    assert find_runs([folder])[0][0].steps == (Step(0, {0: 0.1}, 0.1), Step(1, {}, 0.6))


BOMB = "zz:\n  a0: &a0 [x, x]\n" + "".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
HEADING = "after_experience,0,1,stream\n"
BROKEN = [  # a file of the run, its content or what else it says, and words of the message
    ("summary.json", "{", "is broken (Expecting"),
    ("summary.json", "[]", "is broken (Input should be a valid dictionary)"),
    ("summary.json", "[" * 10**5, "is broken (maximum recursion depth"),
    ("summary.json", '{"a": ' * 70 + "1" + "}" * 70, "is nested more than 64 deep"),
    ("summary.json", None, "is unfinished: it has no summary.json"),
    ("summary.json", {"experiences_learned": 3}, "is unfinished, 3 of 5 experts are learned"),
    ("summary.json", {"experts": None}, "is broken (experts: Input"),
    ("summary.json", {"stream_accuracy": float("nan")}, "is broken (stream_accuracy: Input"),
    ("summary.json", {"stream_accuracy": None}, "it has no stream_accuracy"),
    ("summary.json", {"processes": True}, "is broken (processes: Input"),
    ("summary.json", {"experiences_skipped": 3}, "is broken (experiences_skipped: Input"),
    ("summary.json", " " * (2**24 + 1), "has more than 16 MB"),
    ("summary.json", {"expert_classes": [["a"], 3]}, "is broken (expert_classes.1: Input"),
    ("config.yaml", None, "config.yaml is missing: a run of distil() has none"),
    ("config.yaml", "a: [", "is not YAML: while parsing"),
    ("config.yaml", "data: {}\nbuffer: 3\n", "is broken (data.run_id: Field required)"),
    ("config.yaml", "1: a\n", "is broken (1"),
    ("config.yaml", BOMB, "more than 1000000 values"),
    ("config.yaml", {"buffer": {"size": "x"}}, "is broken (buffer.size: Input"),
    ("config.yaml", {"buffer": {"size": 5, "name": "../x"}}, "is broken (buffer.name: String should match"),
    ("accuracy_matrix.csv", None, "accuracy_matrix.csv is missing"),
    ("accuracy_matrix.csv", "", "is broken (its columns are)"),
    ("accuracy_matrix.csv", "a,b\n1,2\n", "its columns are a, b)"),
    ("accuracy_matrix.csv", "after_experience,stream\n0,0.1\n", "its columns are after_experience, stream"),
    ("accuracy_matrix.csv", f"{HEADING}0,none,0.1,0.1", "is broken (could not convert"),
    ("accuracy_matrix.csv", HEADING, "its rows are not after experiences from 0 to 4"),
    ("accuracy_matrix.csv", f"{HEADING}1,0.1,0.1,0.1\n0,0.1,0.1,0.1", "its rows are not after"),
    ("accuracy_matrix.csv", f"{HEADING}0,nan,0.1,0.1", "not all of its accuracies are fractions"),
]


@pytest.mark.parametrize(("file", "content", "words"), BROKEN, ids=[words for *_, words in BROKEN])
def test_what_is_broken_costs_itself_only(tmp_path, file, content, words):
    good = write_run(tmp_path, "split_mnist", "replay", 0, 0.9)
    bad = write_run(tmp_path, "split_mnist", "replay", 1, 0.9)
    if isinstance(content, dict):
        content = json.dumps({**yaml.safe_load((bad / file).read_text()), **content})
    (bad / file).unlink()
    if content is not None:
        (bad / file).write_text(content)
    runs, (line,) = find_runs([tmp_path])
    assert [run.folder for run in runs] == [good]
    assert words in line
    assert str(bad) in line
    assert "\n" not in line
    assert len(line) < 700
    with pytest.raises(ExmlError, match=f"{bad} holds no finished run .*{re.escape(words)}"):
        find_runs([bad])


def test_a_pipe_is_not_waited_for(tmp_path):
    for i, file in enumerate(("config.yaml", "summary.json", "accuracy_matrix.csv")):
        bad = write_run(tmp_path, "split_mnist", "replay", i, 0.9)
        (bad / file).unlink()
        os.mkfifo(bad / file)
    with pytest.raises(ExmlError, match="cannot be read"):
        find_runs([tmp_path])


def test_a_stream_without_labelled_images_has_agreement_and_no_accuracy(tmp_path):
    folder = write_agreement_run(tmp_path)
    ((run,), _) = find_runs([folder])
    assert (run.scenario, run.measure, run.percent) == ("from_folder (no labelled images)", "agreement", None)
    assert run.steps == (Step(0, {0: 1.0}, 1.0), Step(1, {0: 0.625, 1: 1.0}, 0.8125))
    (folder / "agreement_matrix.csv").write_text("after_experience,0,1,stream\n0,1.0,,1.0\n")
    with pytest.raises(ExmlError, match=r"agreement_matrix\.csv is broken"):
        find_runs([folder])
    changes = {"data__scenario": None, "data__labelled": "images"}
    ((run,), _) = find_runs([write_run(tmp_path / "own", "pets", "noise", 0, 0.25, experts=2, **changes)])
    assert (run.scenario, run.measure, run.percent) == ("pets (own labelled images)", "accuracy", 25)


def test_folders_without_runs(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, words in (("nowhere", "does not exist"), ("file", "is a file"), ("empty", "holds no finished run")):
        with pytest.raises(ExmlError, match=f"{name} {words}"):
            find_runs([tmp_path / name])


def test_links_are_followed_and_a_folder_is_read_once(tmp_path):
    folder = write_run(tmp_path / "elsewhere", "split_mnist", "oracle", 0, 0.9)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "linked").symlink_to(folder.parent)
    (tmp_path / "runs" / "again").symlink_to(folder)
    (folder / "loop").symlink_to(tmp_path / "runs")
    runs, left_out = find_runs([tmp_path / "runs", tmp_path])
    assert [run.folder for run in runs] == [tmp_path / "runs" / "again"]
    assert left_out == []


def test_a_folder_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    good = write_run(tmp_path, "split_mnist", "oracle", 0, 0.9)
    bad = write_run(tmp_path, "split_mnist", "concat", 0, 0.9).parent
    real = os.scandir

    def scandir(path):
        if str(path) == str(bad):  # the tests may run as root, who may read all
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    runs, left_out = find_runs([tmp_path])
    assert [run.folder for run in runs] == [good]
    assert left_out == [f"{bad} cannot be read (Permission denied): allow it, or leave it out"]


@pytest.mark.parametrize(("measured", "words"), [(None, "a checkpoint"), ("Concat", "the baseline Concat")])
def test_a_test_of_something_else_than_the_configuration_is_broken(tmp_path, measured, words):
    folder = write_run(tmp_path, "split_mnist", "min_entropy", 0, 0.8, results={"baseline": "MinEntropy"})
    assert find_runs([folder])[0][0].strategy == "min_entropy"
    values = json.loads((folder / "test.json").read_text())
    (folder / "test.json").write_text(json.dumps({**values, "baseline": measured}))
    with pytest.raises(ExmlError, match=f"test.json is broken .it is of {words}, but the config.yaml beside it is of"):
        find_runs([folder])
