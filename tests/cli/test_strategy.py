"""Which strategy is stacked, and where: on small files, of which nothing but the keys in question is read."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from exml_lightning.cli.strategy import stack_strategy
from exml_lightning.core.errors import ExmlError
from tests.conftest import ROOT, refused

SCENARIO = {"data": {"scenario": {"name": "a"}, "n_iter": 3}, "buffer": {"generator": {"class_path": "ModelInversion"}}}
FILES = {
    "ours": {"strategy": "best", **SCENARIO},  # as those that are shipped
    "theirs": SCENARIO,  # chooses its generator itself
    "bare": {"data": {"scenario": {"name": "a"}, "n_iter": 3}},
    "mine": {"model": {"lambda_ce": 2}, "buffer": {"generator": {"init_args": {"steps": 3}}}},
    "noise": {"buffer": {"generator": "Noise"}},
    "oracle": {"baseline": {"class_path": "Oracle"}},
    "run": {"strategy": None, "baseline": None, **SCENARIO, "buffer": {"name": "best", "size": 5}},
    "asks": {"strategy": "other"},
    "part": {"data": {"scenario": {"classes_per_experience": 5}}},
    "strategies/best": {"buffer": {"name": "best"}},
    "strategies/other": {"buffer": {"name": None, "generator": {"class_path": "Noise"}}},
}
"""By name; files of strategies are named by their path."""


@pytest.fixture(autouse=True)
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("strategies").mkdir()
    for name, content in FILES.items():
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content))


def stacked(words: str) -> str:
    """Name the files that are stacked, in their order; of the words, those that are no options stand for -c FILE."""
    given = re.sub(r"(?:(?<=^)|(?<= ))(?<!--strategy )(?<!--strat )([a-z/]+)(?= |$)", r"-c \1.yaml", words)
    return " ".join(Path(word).stem for option, word in pairwise(stack_strategy(given.split())) if option == "-c")


@pytest.mark.parametrize(
    ("words", "order"),
    [
        ("ours", "ours best"),
        ("ours mine", "ours best mine"),
        ("ours part", "ours best part"),
        ("mine", "best mine"),
        ("bare mine", "best bare mine"),  # what they say overrules what nobody asked for
        ("", "best"),
        ("theirs", "theirs"),
        ("noise", "noise"),
        ("ours noise", "ours noise"),
        ("ours oracle", "ours oracle"),
        ("run", "run"),
        ("ours strategies/other mine", "ours other mine"),
        ("ours strategies/best strategies/other", "ours best other"),
        ("ours --strategy other mine", "ours other mine"),
        ("theirs mine --strategy other", "theirs other mine"),
        ("--strategy=strategies/other.yaml mine", "other mine"),
        ("--strategy strategies/other.yaml ours", "ours other"),
        ("ours --strat other", "ours other"),
        ("ours --strategy null", "ours"),
        ("ours --strategy best strategies/other", "ours best other"),
        ("ours asks mine", "ours asks other mine"),
        ("ours --buffer.generator=Noise", "ours"),
        ("ours --baseline=Oracle", "ours"),
        ("ours --buffer.generator.fresh=false", "ours best"),
    ],
)
def test_the_order(words, order):
    assert stacked(words) == order


def test_options_come_after_all_files_and_a_pipe_is_left_alone():
    words = ["--data.n_iter", "3", "-c", "/dev/null", "--config=ours.yaml"]
    best = ["-c", "strategies/best.yaml"]
    assert stack_strategy(words) == [
        "-c",
        "/dev/null",
        "-c",
        "ours.yaml",
        *best,
        "--data.n_iter",
        "3",
        "--strategy=null",
    ]


def test_the_shipped_ones_are_found_from_elsewhere():
    scenario = str(ROOT / "configs" / "split_digits.yaml")
    assert stack_strategy(["-c", scenario, "--strategy", "noise"])[3] == str(ROOT / "configs/strategies/noise.yaml")


def test_a_scenario_after_a_strategy_is_refused(capsys):
    line = (
        "ours.yaml is stacked after the strategy strategies/other.yaml, whose settings it would overrule: the scenario"
    )
    for late in ("ours", "theirs", "run"):
        with pytest.raises(ExmlError, match="the scenario comes first"):
            stacked(f"strategies/other {late}")
    said = refused(["fit", "-c", "strategies/other.yaml", "-c", "ours.yaml"], capsys, code=2)
    assert said == f"exml: error: {line} comes first, -c ours.yaml -c strategies/other.yaml\n"
    assert stacked("strategies/other part") == "other part"


@pytest.mark.parametrize(
    ("name", "said"),
    [("bst", "no strategy 'bst'; did you mean best?"), ("xy.yaml", "--strategy xy.yaml: there is no such file")],
)
def test_a_strategy_that_there_is_not(name, said, capsys):
    assert refused(["fit", "-c", "ours.yaml", "--strategy", name], capsys, code=2) == f"exml: error: {said}\n"
