"""Finding and reading run folders."""

import json
import os
import re

import pytest
import yaml

from exml_lightning.core.errors import ExmlError
from exml_lightning.report.run import Step
from exml_lightning.report.runs import find_runs
from tests.report.fake_runs import write_agreement_run, write_run


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
    assert run.percent == pytest.approx(60)
    assert run.steps == (Step(0, {0: 1.0, 1: 0.0}, 0.5), Step(1, {0: 0.4, 1: 0.8}, 0.6))
    assert run.number("forgetting") == 0.6
    assert run.number("device") is None  # no number
    assert run.number("nothing") is None


def test_a_stream_with_fewer_parts_than_experiences(tmp_path):
    folder = write_run(tmp_path, "core50_ni", "replay", 0, 0.6, experts=3)
    (folder / "accuracy_matrix.csv").write_text("after_experience,0,stream\n0,0.1,0.1\n1,0.2,0.2\n2,0.6,0.6\n")
    ((run,), _) = find_runs([folder])
    assert [step.parts for step in run.steps] == [{0: 0.1}, {0: 0.2}, {0: 0.6}]


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


def matrix(*lines):
    def change(folder):
        (folder / "accuracy_matrix.csv").write_text("\n".join(["after_experience,0,1,stream", *lines]))

    return change


def config(text):
    def change(folder):
        with (folder / "config.yaml").open("a") as file:
            file.write(text)

    return change


def setting(group, key, value):
    def change(folder):
        path = folder / "config.yaml"
        content = yaml.safe_load(path.read_text())
        content[group][key] = value
        path.write_text(yaml.dump(content))

    return change


def no_parts(folder):
    (folder / "accuracy_matrix.csv").write_text("after_experience,stream\n0,0.1\n")


def huge(folder):
    with (folder / "summary.json").open("r+b") as file:
        file.truncate(2**24 + 1)


BOMB = "zz:\n  a0: &a0 [x, x]\n" + "".join(f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
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
    "experiences_learned is missing": results(experiences_learned=None),
    "is unfinished: it has no": pipe,
    "it has more than 16 MB": huge,
    "has an alias or a tag": config(BOMB),
    "has an alias or": config("zz: !!python/name:os.system\n"),
    "its key 1 is no text": config("zz: {1: a, b: c}\n"),
    "nested more than 32 deep": config(f"zz: {'[' * 40}{']' * 40}\n"),
    "a number of 4000 characters": config(f"zz: {'9' * 4000}\n"),
    "a whole number is larger than 1e+15": results(peak_memory_mb=10**400),
    "summary.json is broken (it is nested more than 32": results(device=json.loads("[" * 40 + "]" * 40)),
    "buffer.size or data.n_iter is no whole number": setting("buffer", "size", "x"),
    "data.n_iter is no whole number": setting("data", "n_iter", [1]),
    "experts or processes is no number": results(processes=True),
    "experiences_skipped is no list": results(experiences_skipped=3),
    "its rows are not after experiences from 0 to 4": matrix(),
    "its rows are not after": matrix("1,0.1,0.1,0.1", "0,0.1,0.1,0.1"),
    "not all of its accuracies are fractions": matrix("0,nan,0.1,0.1"),
    "its columns are after_experience, stream": no_parts,
    "stream_accuracy is None": results(stream_accuracy=None),
}


@pytest.mark.parametrize("words", BROKEN)
def test_what_is_broken_costs_itself_only(tmp_path, words):
    good = write_run(tmp_path, "split_mnist", "replay", 0, 0.9)
    bad = write_run(tmp_path, "split_mnist", "replay", 1, 0.9)
    BROKEN[words](bad)
    runs, (line,) = find_runs([tmp_path])
    assert [run.folder for run in runs] == [good]
    assert words in line
    assert str(bad) in line
    assert "\n" not in line
    with pytest.raises(ExmlError, match=f"{bad} holds no finished run .*{re.escape(words)}"):
        find_runs([bad])


def test_skipped_experts_do_not_make_a_run_unfinished(tmp_path):
    folder = write_run(tmp_path, "zoo", "noise", 0, 0.5, results={"experiences_learned": 4, "experiences_skipped": [2]})
    assert len(find_runs([folder])[0]) == 1


def test_a_stream_without_a_data_set_has_agreement(tmp_path):
    folder = write_agreement_run(tmp_path)
    ((run,), _) = find_runs([folder])
    assert (run.scenario, run.measure, run.percent) == ("from_folder (no data set)", "agreement", 81.25)
    assert run.steps == (Step(0, {0: 1.0}, 1.0), Step(1, {0: 0.625, 1: 1.0}, 0.8125))
    (folder / "agreement_matrix.csv").write_text("after_experience,0,1,stream\n0,1.0,,1.0\n")
    with pytest.raises(ExmlError, match=r"agreement_matrix\.csv is broken"):
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
    write_run(tmp_path, "split_mnist", "concat", 0, 0.9)
    real = os.scandir

    def scandir(path):
        if str(path).endswith("concat"):  # the tests may run as root, who may read all
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    runs, left_out = find_runs([tmp_path])
    assert [run.folder for run in runs] == [good]
    assert left_out == [
        f"{tmp_path / 'split_mnist' / 'concat'} cannot be read (Permission denied): allow it, or leave it out"
    ]


@pytest.mark.parametrize(("measured", "words"), [(None, "a checkpoint"), ("Concat", "the baseline Concat")])
def test_a_test_of_something_else_than_the_configuration_is_broken(tmp_path, measured, words):
    folder = write_run(tmp_path, "split_mnist", "min_entropy", 0, 0.8)
    path = folder / "test.json"
    content = json.loads(path.read_text()) | {"baseline": "MinEntropy"}
    path.write_text(json.dumps(content))
    assert find_runs([folder])[0][0].strategy == "min_entropy"
    del content["baseline"]
    path.write_text(json.dumps(content if measured is None else {**content, "baseline": measured}))
    with pytest.raises(ExmlError, match=f"test.json is broken .it is of {words}, but the config.yaml beside it is of"):
        find_runs([folder])
