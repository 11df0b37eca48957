"""`--budget`: what is measured, what is chosen and where it is said; a run that goes on keeps it."""

import json

import pytest
import yaml

from exml_lightning.callbacks import time_budget
from exml_lightning.cli.main import main
from exml_lightning.core import budget
from exml_lightning.core.budget import Costs, Plan

DRAWN = [
    *("--buffer.generator", "Unrelated", "--model.lambda_ce", "0"),
    *("--data.augmentation.shift", "0", "--data.augmentation.rotation", "0"),
]
WEIGHTS = "ex_model/expert_0.safetensors"


@pytest.fixture
def measured(monkeypatch):
    """Keeps what is measured; what is believed is 4 s a step, so that 12 steps an expert fit into two minutes."""
    found = []
    measure = time_budget.measure

    def watched(*args):
        found.append(measure(*args))
        return Costs(4.0, [0.01, 0.01], 0.01, [0.1, 0.1])

    monkeypatch.setattr(time_budget, "LEAST_SECONDS", 1e-9)
    monkeypatch.setattr(time_budget, "measure", watched)
    monkeypatch.setattr(budget, "LADDER", [6, 12, 24])
    return found


def test_a_budget_is_chosen_once_and_said_where_it_can_be_repeated(small_run, tmp_path, measured, capsys):
    words = [*small_run(), *DRAWN, "--trainer.accelerator", "cpu"]
    main([*words, "--budget", "small", "--trainer.max_epochs", "1"])
    main([*words, "--budget", "small"])  # a run that goes on asks nobody
    (costs,) = measured
    assert len(costs.asking) == len(costs.generating) == 1
    assert min(costs.step, *costs.asking, costs.previous, *costs.generating) > 0
    said = "--data.n_iter 12 --buffer.size 12"  # 24 steps of 4 s, 12 images made and 24 answers, of believed experts
    line = f"budget small (2 minutes): 1 expert x 12 steps of 8, 12 images, about 1:37; the same again: {said}"
    assert line in capsys.readouterr().out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["steps"], summary["images"]) == (12, 12)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["budget"], config["data"]["n_iter"], config["buffer"]["size"]) == (None, 12, 12)
    main([*words, *said.split(), "--trainer.default_root_dir", str(tmp_path / "again")])
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (tmp_path / "again" / WEIGHTS).read_bytes()


def test_what_does_not_fit_is_said():
    line = time_budget.words("small", Plan(100, 500, 450.0), 3, 64)
    assert "3 experts x 100 steps of 64, 500 images, the least there is, which takes about 7:30; the same" in line
