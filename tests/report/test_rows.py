"""Which runs make a row of a table, and what is said of their settings."""

import json
import statistics

import pytest

from exml_lightning.report.rows import differing, first_rows, shared, sort_runs
from exml_lightning.report.runs import find_runs, read_run
from exml_lightning.report.settings import IGNORED, key_of, settings_of
from tests.report.fake_runs import CONFIG, RECIPE, write_run


def settings(tmp_path, strategy="model_inversion", results=None, **changes):
    folder = f"run{len(list(tmp_path.rglob('config.yaml')))}"
    run = write_run(tmp_path, "split_mnist", strategy, 0, 0.5, folder, results=results, **changes)
    return settings_of(read_run(run))


def report(tmp_path):
    left_out = []
    return sort_runs(find_runs([tmp_path])[0], left_out), left_out


IRRELEVANT = {
    "seed_everything": 3,
    "data__run_id": 4,
    "data__root": "/elsewhere",
    "data__skip_broken": True,
    "data__auxiliary": {"class_path": "exml_lightning.scenarios.Photographs"},  # which model inversion does not look at
    "buffer__cache": None,
    "checkpoint__every_n_steps": 3,
    "experts__epochs": 3,
    "privacy__epsilon": 8.0,
    "model__compile": True,
    "trainer__devices": 2,
    "trainer__max_epochs": 5,
    "trainer__precision": "32-true",
    "trainer__limit_test_batches": 1.0,
    "trainer__accumulate_grad_batches": None,
    "trainer__gradient_clip_algorithm": "norm",
    "trainer__callbacks": [],
}
RELEVANT = {
    "data__n_iter": 7,
    "data__seed": 7,
    "data__augmentation__flip": True,
    "data__scenario__classes_per_experience": 5,
    "model__lambda_ce": 0.5,
    "model__normalize": "standardize",
    "model__optimizer__init_args__lr": 0.5,
    "buffer__size": 7,
    "buffer__generator__init_args__confidence": 0.99,
    "trainer__precision": "16-mixed",
    "trainer__limit_train_batches": 1,
    "trainer__fast_dev_run": True,
}


OF_EXPERTS = [
    {"experts": 6, "experiences_learned": 6},
    {"experiences_skipped": [2], "experiences_learned": 4},
    {"expert_training": {**RECIPE, "epochs": 1}},
    {"expert_architecture": {"class_path": "exml_lightning.models.SlimResNet18", "init_args": {}}},
    {"processes": 2},
]


def test_settings_are_what_can_change_a_result(tmp_path):
    plain = settings(tmp_path)
    for key, value in IRRELEVANT.items():
        assert settings(tmp_path, **{key: value}) == plain, key
    for key, value in RELEVANT.items():
        assert settings(tmp_path, **{key: value}) != plain, key
    for results in OF_EXPERTS:
        assert settings(tmp_path, results=results) != plain, results


def test_every_ignored_key_exists():
    gone = {"data.skip_broken", "buffer.name"}
    for key in IGNORED - gone:
        place = CONFIG
        for name in key.split("."):
            assert name in place, key
            place = place[name]


def test_runs_of_before_and_of_now_are_one_row(tmp_path):
    write_run(tmp_path, "split_mnist", "replay", 0, 0.5, results={"expert_architecture": None, "processes": None})
    path = tmp_path / "split_mnist" / "replay" / "run0" / "summary.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if v is not None}))
    now = {"class_path": "exml_lightning.core.scales.Center"}
    write_run(tmp_path, "split_mnist", "replay", 1, 0.7, model__normalize=now, model__unknown=None)
    scores = {"class_path": "exml_lightning.core.scales.NormalScores"}
    given = {"raw_logits": 0.3, "others": 0.0, "familiarity": 0.0, "reference": None}
    write_run(tmp_path, "split_mnist", "replay", 2, 0.8, model__normalize={**scores, "init_args": given})
    write_run(tmp_path, "split_mnist", "replay", 3, 0.9, model__normalize="quantile", model__raw_logits=0.3)
    rows = report(tmp_path)[0]["split_mnist"]
    assert [[run.run_id for run in row.runs] for row in rows] == [[0, 1], [2, 3]]
    assert differing(rows[1], rows) == ["model.normalize NormalScores", "model.normalize.raw_logits 0.3"]


def test_the_same_is_said_in_several_ways(tmp_path):
    short = {"class_path": "exml_lightning.Noise", "init_args": {}}
    long = {"class_path": "exml_lightning.core.generators.Noise", "init_args": None}
    assert settings(tmp_path, buffer__generator=short) == settings(tmp_path, buffer__generator=long)
    assert settings(tmp_path, model__lambda_ce=1) == settings(tmp_path, model__lambda_ce=1.0)
    assert key_of(settings(tmp_path, model__lambda_ce=1)) != key_of(settings(tmp_path, model__lambda_ce=True))
    assert settings(tmp_path, model__lambda_ce=1) == settings(tmp_path, model__lambda_ce=None)  # of model inversion
    before, now = (f"exml_lightning.{module}.default_optimizer" for module in ("optimizers", "module"))
    assert settings(tmp_path, model__optimizer=before) == settings(tmp_path, model__optimizer=now)
    of_run = {"class_path": "Precomputed", "init_args": {"folder": "made/run0/x"}}
    assert settings(tmp_path, buffer__generator=of_run)["buffer.generator.folder"] == "made/run<k>/x"


def test_a_baseline_depends_on_the_experts_only(tmp_path):
    changed = {"data__n_iter": 7, "buffer__size": 7, "model__lambda_ce": 0.5, "data__seed": 3}
    assert settings(tmp_path, "oracle", **changed) == settings(tmp_path, "oracle")
    assert settings(tmp_path, "oracle", results={"experts": 4}) != settings(tmp_path, "oracle")
    drawn = "parameter_average_batch_norm"
    assert settings(tmp_path, drawn, buffer__size=7) != settings(tmp_path, drawn)


def test_odd_configurations_are_read(tmp_path):
    odd = {1: {2: 3}, "x": [1, {"b": float("nan"), 4: 1.0}]}
    found = settings(tmp_path, model__normalize=odd, privacy=[3])
    assert found["model.normalize.1.2"] == 3
    assert found["model.normalize.x"] == '[1, {"4": 1, "b": "nan"}]'


def test_a_row_is_mean_and_standard_deviation_of_its_runs(tmp_path):
    accuracies = [0.4, 0.5, 0.75]
    for k, accuracy in enumerate(accuracies):
        write_run(tmp_path, "split_mnist", "replay", k, accuracy)
    write_run(tmp_path, "split_mnist", "replay", 0, 0.9, "other", data__n_iter=7)
    write_run(tmp_path, "split_mnist", "oracle", 0, 0.9)
    rows = report(tmp_path)[0]["split_mnist"]
    assert [(row.strategy, len(row.runs)) for row in rows] == [("oracle", 1), ("replay", 3), ("replay", 1)]
    mean, std = rows[1].percent
    assert mean == pytest.approx(100 * statistics.mean(accuracies))
    assert std == pytest.approx(100 * statistics.stdev(accuracies))
    assert rows[2].percent == (90, None)
    assert rows[1].mean_of("seconds_generating") == 101
    assert [differing(row, rows) for row in rows] == [[], ["data.n_iter 1000"], ["data.n_iter 7"]]
    assert first_rows(rows) == rows[:2]


def test_runs_from_experts_with_statistics_are_rows_of_their_own(tmp_path):
    write_run(tmp_path, "split_mnist", "best", 0, 0.8)
    for k, results in enumerate([{}, {}, {"statistics_epsilon": 8.0}]):
        published = {"experts_with_statistics": 5, **results}
        write_run(tmp_path, "split_mnist", "best", k, 0.9, f"published{k}", results=published)
    found, left_out = report(tmp_path)
    rows = found["split_mnist"]
    assert not left_out
    assert sorted(row.percent[0] for row in rows) == [80, 90, 90]
    write_run(tmp_path, "split_mnist", "best", 1, 0.6, "null", model__lambda_ce=None)
    write_run(tmp_path, "split_mnist", "best", 2, 0.7, "zero", model__lambda_ce=0)
    assert [len(row.runs) for row in report(tmp_path)[0]["split_mnist"]] == [3, 2, 1]  # null is 0 without statistics
    rows = found["split_mnist"]
    assert [row.title for row in rows] == ["Procedural ED, best", *2 * ["Best, experts with statistics"]]
    assert [differing(row, rows) for row in rows] == [[], ["experts.epsilon null"], ["experts.epsilon 8"]]


def test_a_run_that_is_there_twice_counts_once(tmp_path):
    write_run(tmp_path, "split_mnist", "replay", 0, 0.9)
    write_run(tmp_path, "split_mnist", "replay", 0, 0.9, "again1")
    write_run(tmp_path, "split_mnist", "replay", 0, 0.8, "again22")
    write_run(tmp_path, "split_mnist", "replay", 0, 0.9, "again333", results={"experts_digest": "other"})
    found, left_out = report(tmp_path)
    assert [row.percent for row in found["split_mnist"]] == [(90, None)]
    for line, words in zip(
        left_out, ("settings; delete", "but other figures; delete", "but other experts"), strict=True
    ):
        assert words in line
        assert "run 0 of replay on split_mnist" in line


def test_settings_of_a_scenario_are_told_in_a_line(tmp_path):
    write_run(tmp_path, "split_mnist", "replay", 0, 0.9, model__lambda_ce=0.5)
    write_run(tmp_path, "split_mnist", "noise", 0, 0.9, model__start="scratch")
    write_run(tmp_path, "split_mnist", "model_inversion", 0, 0.9)
    write_run(tmp_path, "split_mnist", "oracle", 0, 0.9, results={"expert_training": {**RECIPE, "epochs": 1}})
    told = shared(report(tmp_path)[0]["split_mnist"])
    assert told.differ == [
        "expert.training.epochs 1 (Oracle), else 20",
        "model.lambda_ce 0.5 (Replay ED), else 1",
        "model.start scratch (Noise ED), else average",
    ]
    assert {"data.n_iter 1000", "buffer.size 5000", "expert.architecture LeNet5"} <= set(told.same)
    assert "Noise ED: generator Noise" in told.own
    assert any(line.startswith("Model Inversion ED: generator ModelInversion; generator.steps ") for line in told.own)


def test_runs_of_experts_that_know_what_is_none_of_their_classes_come_last(tmp_path):
    """However many they are: what a figure shows of a strategy is of the experts that others have."""
    for run in range(2):
        taught = {"expert_training": {**RECIPE, "unknown": True}}
        write_run(tmp_path, "split_mnist", "oracle", run, 0.7, f"taught{run}", results=taught)
    write_run(tmp_path, "split_mnist", "oracle", 0, 0.9)
    rows = sort_runs(find_runs([tmp_path])[0], [])["split_mnist"]
    assert [(len(row.runs), row.percent[0]) for row in rows] == [(1, pytest.approx(90)), (2, pytest.approx(70))]
    assert first_rows(rows) == rows[:1]
