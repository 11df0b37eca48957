"""What counts as a setting, and how differences are said."""

import json

import pytest

from exml_lightning.report.run import read_run
from exml_lightning.report.settings import IGNORED, differences, fill_architectures, say, settings_of, shared
from tests.report.fake_runs import CONFIG, RECIPE, write_run


def settings(tmp_path, strategy="model_inversion", results=None, **changes):
    folder = f"run{len(list(tmp_path.rglob('config.yaml')))}"
    return settings_of(
        read_run(write_run(tmp_path, "split_mnist", strategy, 0, 0.5, folder, results=results, **changes))
    )


IRRELEVANT = {
    "seed_everything": 3,
    "ckpt_path": "last",
    "data__run_id": 4,
    "data__root": "/elsewhere",
    "data__experts": "zoo",
    "data__download": True,
    "data__eval_batch_size": 7,
    "data__skip_broken": True,
    "data__auxiliary": {"class_path": "exml_lightning.scenarios.Photographs"},  # which model inversion does not look at
    "buffer__cache": None,
    "checkpoint__every_n_steps": 3,
    "experts__epochs": 3,
    "privacy__epsilon": 8.0,
    "generate__folder": "look",
    "model__compile": True,
    "trainer__devices": 2,
    "trainer__enable_progress_bar": False,
    "trainer__default_root_dir": "elsewhere",
    "trainer__max_epochs": 5,
    "trainer__precision": "32-true",
    "trainer__limit_test_batches": 1.0,
    "trainer__accumulate_grad_batches": None,
    "trainer__fast_dev_run": None,
    "trainer__sync_batchnorm": None,
    "trainer__gradient_clip_algorithm": "norm",
    "trainer__callbacks": [],
}
RELEVANT = {
    "data__n_iter": 7,
    "data__seed": 7,
    "data__batch_size": 7,
    "data__augmentation__flip": True,
    "data__scenario__classes_per_experience": 5,
    "model__lambda_ce": 0.5,
    "model__optimizer__init_args__lr": 0.5,
    "buffer__size": 7,
    "buffer__generator__init_args__confidence": 0.99,
    "trainer__precision": "16-mixed",
    "trainer__limit_train_batches": 1,
    "trainer__fast_dev_run": True,
}


@pytest.mark.parametrize("key", IRRELEVANT)
def test_what_cannot_change_a_result_is_no_setting(tmp_path, key):
    assert settings(tmp_path) == settings(tmp_path, **{key: IRRELEVANT[key]})


@pytest.mark.parametrize("key", RELEVANT)
def test_what_can_is_one(tmp_path, key):
    assert settings(tmp_path) != settings(tmp_path, **{key: RELEVANT[key]})


LENET = {"class_path": "exml_lightning.models.LeNet5", "init_args": {}}
MOBILE = {"class_path": "exml_lightning.models.MobileNetV2", "init_args": {"weights": None}}


@pytest.mark.parametrize(
    "results",
    [
        {"expert_training": None},
        {"expert_architecture": MOBILE},
        {"expert_architecture": None},
        {"processes": 4},
        {"experiences_skipped": [2]},
        {"experts": 6, "experiences_learned": 6},
    ],
)
def test_the_experts_count(tmp_path, results):
    assert settings(tmp_path) != settings(tmp_path, results=results)


def test_every_ignored_key_exists():
    for key in IGNORED:
        group, _, name = key.partition(".")
        assert group in CONFIG
        assert not name or name in CONFIG[group]


def test_the_auxiliary_images_count_for_what_looks_at_them(tmp_path):
    other = {"data__auxiliary": {"class_path": "exml_lightning.scenarios.Photographs"}}
    assert settings(tmp_path, "auxiliary") != settings(tmp_path, "auxiliary", **other)


def test_a_baseline_depends_on_the_experts_only(tmp_path):
    learning = {"buffer__size": 7, "data__n_iter": 7, "model__lambda_ce": 7, "trainer__precision": "16-mixed"}
    assert settings(tmp_path, "oracle") == settings(tmp_path, "oracle", **learning)
    assert set(settings(tmp_path, "oracle")) == {
        "data.scenario",
        "baseline",
        "expert_training",
        "expert_architecture",
        "experts_asked",
    }
    assert settings(tmp_path, "oracle") != settings(tmp_path, "oracle", results={"expert_training": {"epochs": 1}})
    batch_norm = "parameter_average_batch_norm"
    assert settings(tmp_path, batch_norm) != settings(tmp_path, batch_norm, buffer__size=7)
    assert settings(tmp_path, batch_norm) == settings(tmp_path, batch_norm, data__n_iter=7)


def test_differences_are_said_exactly(tmp_path):
    usual = settings(tmp_path)
    assert differences(settings(tmp_path, buffer__generator__init_args__confidence=0.99), usual) == [
        "buffer.generator.confidence 0.99 instead of null"
    ]
    assert differences(usual, settings(tmp_path, data__n_iter=20, data__augmentation=None)) == [
        "data.augmentation shift 0.06, rotation 10 instead of null",
        "data.n_iter 1000 instead of 20",
    ]
    sgd = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.1, "nesterov": True, "momentum": 0.0}}
    (words,) = differences(settings(tmp_path, model__optimizer=sgd), usual)
    assert words.startswith("model.optimizer SGD (lr 0.1, nesterov) instead of Adam (lr 0.0001, ")
    unknown = settings(tmp_path, results={"expert_training": None})
    assert differences(unknown, usual)[0].startswith("expert_training not known instead of epochs 20, batch_size 32")
    longer = settings(tmp_path, results={"expert_training": {**RECIPE, "epochs": 100}})
    assert differences(longer, usual) == ["expert_training.epochs 100 instead of 20"]
    assert differences(usual, settings(tmp_path)) == []


def test_a_number_is_the_same_with_and_without_a_point(tmp_path):
    assert settings(tmp_path, model__lambda_ce=1) == settings(tmp_path, model__lambda_ce=1.0)


def test_shared_settings_are_not_those_of_the_strategy(tmp_path):
    keys = set(shared(settings(tmp_path, "auxiliary")))
    assert {"data.n_iter", "data.scenario", "buffer.size", "expert_training", "experts_asked"} <= keys
    assert not {key for key in keys if key.startswith(("model.", "buffer.generator", "data.auxiliary"))}


@pytest.mark.parametrize(
    ("value", "words"), [(None, "null"), (True, "true"), (1e-4, "0.0001"), ([1, 2.5], "[1, 2.5]"), ("a b", "a b")]
)
def test_values_in_words(value, words):
    assert say(value) == words


def test_processes_count_for_what_learns(tmp_path):
    assert settings(tmp_path, "oracle") == settings(tmp_path, "oracle", results={"processes": 4})
    one, four = settings(tmp_path), settings(tmp_path, results={"processes": 4})
    path = write_run(tmp_path, "split_mnist", "model_inversion", 0, 0.5, "old") / "summary.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "processes"}))
    assert settings_of(read_run(path.parent)) == one  # made earlier: it does not say
    assert differences(four, one) == ["processes 4 instead of 1"]


def test_an_architecture_that_is_not_said_is_that_of_the_others(tmp_path):
    lenet, mobile = settings(tmp_path), settings(tmp_path, results={"expert_architecture": MOBILE})
    other = settings(tmp_path, results={"expert_architecture": MOBILE, "expert_training": {"epochs": 1}})

    def unknown():
        found = settings(tmp_path)
        del found["expert_architecture"]
        return found

    one, two = unknown(), unknown()
    fill_architectures([one, lenet, two, other])
    assert one == two == lenet
    one = unknown()
    fill_architectures([one, lenet, mobile])  # of two kinds one cannot tell
    assert differences(one, lenet) == ["expert_architecture not known instead of LeNet5"]
    assert differences(mobile, lenet) == ["expert_architecture MobileNetV2 instead of LeNet5"]
    alone = unknown()
    fill_architectures([alone])
    assert "expert_architecture" not in alone
    assert differences(settings(tmp_path, results={"expert_architecture": None}), lenet) == [
        "expert_architecture various instead of LeNet5"
    ]


def test_precomputed_samples_are_of_their_folder(tmp_path):
    def precomputed(run_id, folder):
        generator = {"class_path": "exml_lightning.core.generators.Precomputed", "init_args": {"folder": folder}}
        return settings(tmp_path, buffer__generator=generator, data__run_id=run_id)

    assert differences(precomputed(0, "a"), precomputed(0, "b")) == ["buffer.generator.folder a instead of b"]
    assert precomputed(1, "generated/run1") == precomputed(2, "generated/run2")  # each run has its own
    assert precomputed(1, "run1") != precomputed(1, "run10")
    assert precomputed(0, None) == precomputed(1, None)


def test_one_is_not_true(tmp_path):
    one, true = settings(tmp_path, trainer__fast_dev_run=1), settings(tmp_path, trainer__fast_dev_run=True)
    assert differences(one, true) == ["trainer.fast_dev_run 1 instead of true"]
