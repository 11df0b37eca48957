"""The cells of a grid, their commands and their folders; what `exml sweep` refuses and prints before any work."""

import json
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from exml_lightning.cli.main import main
from exml_lightning.cli.sweep import command
from exml_lightning.cli.sweep.grid import RUNS, Grid, cells_of
from exml_lightning.core.errors import ExmlError
from exml_lightning.scenarios import RUN_SEEDS
from tests.conftest import refused


@pytest.fixture(autouse=True)
def in_the_repository(repository, monkeypatch):
    monkeypatch.chdir(repository)


def folders(grid: Grid) -> list[str]:
    return [str(cell.folder) for cell in cells_of(grid)]


def test_cells_are_the_product_run_by_run():
    assert len(RUNS) == len(RUN_SEEDS)
    names = ["joint_mnist", "split_mnist"], ["auxiliary", "oracle"]
    expected = [
        f"out/{scenario}/{strategy}/run{run}" for run in (0, 3) for scenario in names[0] for strategy in names[1]
    ]
    assert folders(Grid(*names, [0, 3, 3], output=Path("out"))) == expected


def test_a_command_is_that_of_a_user():
    settings = {"data.root": "my data", "data.augmentation": None}
    grid = Grid(["split_mnist"], ["auxiliary", "min_entropy"], [2], {"buffer.size": [10]}, settings, ["cpu"])
    fit, test = cells_of(grid)
    assert shlex.join(fit.words) == (
        "fit -c configs/split_mnist.yaml -c configs/strategies/auxiliary.yaml -c configs/trainer/cpu.yaml "
        "--data.run_id 2 --data.root 'my data' --data.augmentation null --buffer.size 10 "
        "--trainer.default_root_dir runs/split_mnist/auxiliary/run2_buffer.size=10 "
        "--trainer.enable_progress_bar false"
    )
    assert test.words[:5] == ("test", "-c", "configs/split_mnist.yaml", "-c", "configs/baselines/min_entropy.yaml")
    assert test.folder == Path("runs/split_mnist/min_entropy/run2")
    assert fit.training is test.training
    assert shlex.join(fit.training.words) == (
        "experts -c configs/split_mnist.yaml -c configs/trainer/cpu.yaml --data.run_id 2 --data.root 'my data' "
        "--data.augmentation null --trainer.enable_progress_bar false"
    )
    assert fit.training.folder == Path("checkpoints/split_mnist/run2")


def test_an_overlay_may_be_a_model_or_a_recipe_of_experts():
    (cell,) = cells_of(Grid(["split_cifar10"], ["refined"], [1], overlays=["slim_resnet18_narrow", "paper", "bf16"]))
    stacked = ["configs/models/slim_resnet18_narrow.yaml", "configs/experts/paper.yaml", "configs/trainer/bf16.yaml"]
    for words in (cell.words, cell.training.words):
        assert [word for word in words if word in stacked] == stacked


def test_a_grid_value_that_the_scenario_has_anyway_is_the_cell_of_a_plain_fit():
    found = folders(Grid(["split_mnist"], ["replay"], [0], {"buffer.size": [100, 5000], "model.lambda_ce": [0.5, 1]}))
    names = ["_buffer.size=100_model.lambda_ce=0.5", "_buffer.size=100", "_model.lambda_ce=0.5", ""]
    assert found == [f"runs/split_mnist/replay/run0{name}" for name in names]


def test_what_changes_nothing_in_a_baseline_gives_it_no_cell_of_its_own():
    values = {"buffer.size": [10, 100], "model.lambda_ce": [0.5, 2], "data.root": ["a", "b"]}
    assert folders(Grid(["split_cifar10"], ["oracle"], [0], values)) == [
        f"runs/split_cifar10/oracle/run0_data.root={root}" for root in "ab"
    ]
    norm = Grid(["split_cifar10"], ["parameter_average_batch_norm"], [0], {"buffer.size": [10, 100]})
    assert len(cells_of(norm)) == 2


def test_a_strategy_is_named_by_its_class_and_by_what_is_stacked_on_it(tmp_path):
    (tmp_path / "calm.yaml").write_text("model: {optimizer: {init_args: {lr: 0.01}}}")
    (tmp_path / "mine.yaml").write_text("buffer: {generator: {class_path: Noise}}")
    found = folders(Grid(["split_digits"], [f"auxiliary+{tmp_path}/calm.yaml", f"{tmp_path}/mine.yaml"], [0]))
    assert found == ["runs/split_digits/auxiliary/run0_calm", "runs/split_digits/noise/run0"]
    (cell,) = cells_of(Grid(["split_digits"], [f"{tmp_path}/calm.yaml"], [0]))  # settings of the default strategy
    assert cell.words[4:7] == ("configs/strategies/best.yaml", "-c", f"{tmp_path}/calm.yaml")
    assert str(cell.folder) == "runs/split_digits/best/run0"
    assert cell.settings.keys().isdisjoint({"strategy"})
    with pytest.raises(ExmlError, match=r"share runs/split_digits/noise/run0: .*NAME\+FILE"):
        cells_of(Grid(["split_digits"], ["noise", f"{tmp_path}/mine.yaml"], [0]))


def test_the_experts_of_multi_task_cifar10_are_those_of_split_cifar10():
    settings = {"data": {"root": "there"}, "trainer.max_steps": 3, "data.scenario.task_labels": True}
    training = cells_of(Grid(["mt_cifar10"], ["auxiliary"], [1], settings=settings))[0].training
    assert training.folder == Path("checkpoints/split_cifar10/run1")
    assert shlex.join(training.words) == (
        "experts -c configs/split_cifar10.yaml --data.run_id 1 --data.root there --trainer.enable_progress_bar false"
    )


def test_a_folder_of_experts_without_a_scenario(digit_experts):
    grid = Grid(["from_folder"], ["noise"], [0, 1], settings={"data.experts": str(digit_experts)})
    cells = cells_of(grid)
    assert [(str(cell.folder), cell.training) for cell in cells] == [
        (f"runs/split_digits/noise/run{run}", None) for run in (0, 1)
    ]
    with pytest.raises(ExmlError, match=r"configs/from_folder.yaml has no scenario.*--set '\{data.experts: DIR\}'"):
        cells_of(Grid(["from_folder"], ["noise"], [0]))
    with pytest.raises(ExmlError, match=r"data.experts x: a folder holds the experts of one run: .*--runs 0"):
        cells_of(Grid(["split_digits"], ["noise"], [0, 1], settings={"data.experts": "x"}))


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"scenarios": []}, "which? Give --scenarios and --strategies"),
        (
            {"scenarios": ["split_mnsit"]},
            "no scenario 'split_mnsit' in configs: did you mean split_mnist? There are",
        ),
        ({"scenarios": ["nowhere.yaml"]}, "scenario nowhere.yaml: there is no such file"),
        ({"runs": [0, 5]}, "--runs 5: there are runs 0 to 4"),
        ({"workers": 2, "address": "auto"}, "--workers: a cluster"),
        ({"set": {"data": {"run_id": 1}}}, "data.run_id: give --runs instead"),
        ({"grid": {"experts.epochs": [1, 2]}}, "--grid experts.epochs: cells learn the same"),
        ({"grid": {"buffer.size": []}}, "--grid buffer.size: give a list of values"),
        ({"grid": {"buffer.size": [1]}, "set": {"buffer": {"size": 2}}}, "buffer.size is in --grid and in --set"),
        ({"set": {"buffer.sze": 7}}, "split_digits, noise: .*buffer.sze"),
        ({"grid": {"buffer.size": [4, "bad"]}}, "split_digits, noise: .*buffer.size.*bad"),
        ({"strategies": ["oracle"], "set": {"data.n_iter": "many"}}, "split_digits, oracle: .*data.n_iter.*many"),
    ],
)
def test_what_cannot_be_run_is_said_before_any_work(options, error):
    given = {"scenarios": ["split_digits"], "strategies": ["noise"], "runs": [0], "dry_run": True}
    with pytest.raises(ExmlError, match=error.replace("?", r"\?")):
        command.sweep(**{**given, **options})


def test_a_class_with_its_settings_is_set_by_keys(capsys):
    cells = ["sweep", "--scenarios", "split_digits", "--strategies", "noise", "--runs", "0", "--dry_run", "--set"]
    main([*cells, "{model.optimizer: torch.optim.SGD, model.optimizer.lr: 0.1}"])
    assert "--model.optimizer torch.optim.SGD --model.optimizer.lr 0.1 " in capsys.readouterr().out
    sgd = "{class_path: torch.optim.SGD, init_args: {lr: 0.1}}"
    for given in (f"{{model.optimizer: {sgd}}}", f"{{model: {{optimizer: {sgd}}}}}"):
        assert "{model.optimizer: torch.optim.SGD, model.optimizer.SETTING: VALUE}" in refused([*cells, given], capsys)
    grid = ["--grid", f"{{model.optimizer: [{sgd}]}}"]
    assert "{model.optimizer: torch.optim.SGD, " in refused([*cells[:-1], *grid], capsys)


def test_a_dry_run_prints_commands_and_needs_no_ray(capsys, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    path = tmp_path / "sweep.yaml"
    given = {"scenarios": ["split_digits"], "strategies": ["noise"], "runs": [0, 1], "output": str(tmp_path)}
    path.write_text(json.dumps({**given, "grid": {"buffer.size": [400, 7]}}))
    main(["sweep", "-c", str(path), "--strategies", "replay", "--dry_run"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition("  # ")[2] for line in lines] == ["waiting"] * 5
    assert lines[0].startswith("exml experts -c configs/split_digits.yaml --data.run_id 1 ")
    assert "configs/strategies/replay.yaml --data.run_id 0 --buffer.size 7" in lines[2]
    error = refused(["sweep", "-c", str(path)], capsys)
    assert 'pip install "exml-lightning[sweep]"' in error
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["mnist", "buffer_size", "cifar10", "core50"])
def test_the_shipped_sweeps(name):
    config = yaml.safe_load(Path(f"configs/sweeps/{name}.yaml").read_text())
    values = config.pop("grid", {})
    count = 5 * len(config["scenarios"]) * len(config["strategies"]) * len(values.get("buffer.size", [0]))
    assert len(cells_of(Grid(**config, values=values))) == count
