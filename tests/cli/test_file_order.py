"""Orders of files that would mix settings of several scenarios or strategies, on those that ship and on small ones."""

from pathlib import Path

import pytest
import yaml

from exml_lightning.cli.strategy import stack_strategy
from exml_lightning.core.errors import ExmlError

FILES = {
    "unnamed": {"data": {"scenario": {"dataset": {"class_path": "Digits"}}, "n_iter": 3}},
    "generator": {"buffer": {"generator": {"class_path": "Noise"}}},  # a strategy by hand, without buffer.name
    "steps": {"buffer": {"generator": {"init_args": {"steps": 3}}}},
    "size": {"buffer": {"size": 400}},  # as split_digits has it; best another
    "merge": {"model": {"merge": "logit"}},  # which only best says
    "same": {"data": {"n_iter": 300}, "checkpoint": {"every_n_steps": 100}},
    "changed": {"data": {"scenario": {"name": "mine", "task_labels": True}}},
    "other_data": {"data": {"scenario": {"dataset": {"class_path": "FashionMNIST"}}}},
    "full": {"data": {"scenario": {"name": "mine", "dataset": {"class_path": "Digits"}}}},
    "oracle": {"baseline": {"class_path": "Oracle"}},
    "run": {
        "strategy": None,
        "baseline": None,
        "data": {"scenario": {"name": "a", "dataset": {"class_path": "Digits"}}, "n_iter": 1000},
        "model": {"merge": "unit"},
        "buffer": {"name": "best", "generator": {"class_path": "Unrelated"}},
        "trainer": {"accelerator": "auto"},
    },
}


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content))


def stack(words: str) -> list[str]:
    """Return what is stacked, by stems; a word is a file here, else a name."""
    given: list[str] = []
    for word in words.split():
        given += ["-c", f"{word}.yaml" if word in FILES else word]
    return [Path(word).stem for word in stack_strategy(given) if word.endswith(".yaml")]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("model_inversion split_mnist", "configs/split_mnist.yaml is stacked after the strategy configs/strategies/"),
        ("auxiliary unnamed", "unnamed.yaml is stacked after the strategy configs/strategies/auxiliary.yaml"),
        ("auxiliary from_folder", "configs/from_folder.yaml is stacked after the strategy"),
        ("split_mnist split_digits", "configs/split_digits.yaml is a second scenario, which would be mixed with con"),
        ("split_digits from_folder", "configs/from_folder.yaml is a second scenario"),
        ("from_folder split_digits", "configs/split_digits.yaml is a second scenario"),
        ("split_digits run", "run.yaml is a second scenario"),
        ("run split_digits", "configs/split_digits.yaml is stacked after the strategy run.yaml"),
        ("split_digits full", "full.yaml is a second scenario"),
        ("generator split_digits", "stacked after generator.yaml, whose buffer.generator it would"),
        ("steps split_digits", "whose buffer.generator.steps it would overrule: the scenario comes first"),
        ("size split_digits", "whose buffer.size it would overrule"),  # best would
        ("merge split_digits", "whose model.merge it would overrule"),
        ("smoke split_digits", "whose data.n_iter it would overrule: the scenario comes first, -c configs/split_"),
        ("mobilenetv2_random core50_nc", "whose experts.architecture.weights it would overrule"),
        ("cpu run", "run.yaml is stacked after configs/trainer/cpu.yaml, whose trainer.accelerator it would overrule"),
        ("oracle run", "whose baseline it would overrule"),
        ("run noise", "run.yaml holds a strategy beside its scenario, .* the strategy configs/strategies/noise.yaml"),
    ],
)  # fmt: skip
def test_what_would_be_mixed_is_refused(words, said):
    with pytest.raises(ExmlError, match=said):
        stack(words)


@pytest.mark.parametrize(
    ("words", "order"),
    [
        ("cpu split_digits", "cpu split_digits best"),
        ("tensorboard cpu split_digits smoke", "tensorboard cpu split_digits best smoke"),
        ("min_entropy split_digits", "min_entropy split_digits"),
        ("lenet5_rgb split_mnist", "lenet5_rgb split_mnist best"),
        ("lenet5_rgb cpu", "best lenet5_rgb cpu"),
        ("split_digits generator", "split_digits generator"),
        ("split_digits changed", "split_digits best changed"),
        ("split_mnist other_data auxiliary", "split_mnist other_data auxiliary"),
        ("split_digits auxiliary precomputed", "split_digits auxiliary precomputed"),
        ("run precomputed", "run precomputed"),
        ("run cpu", "run cpu"),
        ("run oracle", "run oracle"),
    ],
)
def test_what_mixes_nothing_is_stacked(words, order):
    assert stack(words) == order.split()


def test_a_setting_that_stays_as_it_is_may_come_first():
    assert stack_strategy(["-c", "same.yaml", "-c", "split_digits", "--strategy", "noise"])[1] == "same.yaml"


def test_another_strategy_for_the_configuration_of_a_run():
    line = "run.yaml holds a strategy beside its scenario, as config.yaml of a run does, and --strategy noise would"
    with pytest.raises(ExmlError, match=line):
        stack_strategy(["-c", "run.yaml", "--strategy", "noise"])
    assert stack_strategy(["-c", "run.yaml", "--strategy", "null"]) == ["-c", "run.yaml", "--strategy=null"]
