"""Every shipped configuration is parsed, and every scenario and strategy is run."""

import json
from pathlib import Path

import pytest
import yaml

from exml_lightning.cli.main import main
from tests.conftest import EXPERTS, ROOT

CONFIGS = ROOT / "configs"
SCENARIOS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "from_folder")
STRATEGIES = sorted(path.stem for path in (CONFIGS / "strategies").glob("*.yaml"))
BASELINES = sorted(path.stem for path in (CONFIGS / "baselines").glob("*.yaml"))
MODELS = sorted(path.stem for path in (CONFIGS / "models").glob("*.yaml"))
TRAINERS = sorted(path.stem for path in (CONFIGS / "trainer").glob("*.yaml"))
BARE = {"class_path": "exml_lightning.models.MobileNetV2"}
SMOKE = str(CONFIGS / "trainer" / "smoke.yaml")


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("verb", ["fit", "experts"])
def test_a_scenario_is_complete(scenario, verb, parse):
    assert parse([verb, "-c", str(CONFIGS / f"{scenario}.yaml")]).data.scenario.name == scenario


def test_all_scenarios_are_there():
    names = ["split_digits", "joint_mnist", "split_mnist", "joint_cifar10", "split_cifar10", "mt_cifar10"]
    assert sorted([*names, "joint_core50", "core50_nc", "core50_ni", "core50_nic"]) == SCENARIOS


@pytest.mark.parametrize(
    ("verb", "file"),
    [("fit", f"strategies/{name}") for name in STRATEGIES] + [("test", f"baselines/{name}") for name in BASELINES],
)
def test_a_strategy_or_a_baseline_stacks(verb, file, parse):
    """A file is named after the class that it chooses, or the name that it gives."""
    config = parse([verb, "-c", str(CONFIGS / "split_digits.yaml"), "-c", str(CONFIGS / f"{file}.yaml")])
    chosen = config.baseline or config.buffer.generator
    name = config.buffer.name or chosen.class_path.rpartition(".")[2].lower()
    assert name == Path(file).name.replace("_", "")


@pytest.mark.parametrize("model", MODELS)
def test_a_network_stacks(model, parse):
    stacked = ["-c", str(CONFIGS / "split_digits.yaml"), "-c", str(CONFIGS / "models" / f"{model}.yaml")]
    chosen = yaml.safe_load((CONFIGS / "models" / f"{model}.yaml").read_text())["experts"]["architecture"]
    assert parse(["experts", *stacked]).experts.architecture.items() >= chosen.items()
    parse(["fit", *stacked])


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainer_stacks(trainer, parse):
    file = CONFIGS / "trainer" / f"{trainer}.yaml"
    config = parse(["fit", "-c", str(CONFIGS / "split_digits.yaml"), "-c", str(file)])
    assert {key: config.trainer[key] for key in yaml.safe_load(file.read_text())["trainer"]}


def test_every_logger_stacks(parse):
    for file in sorted((CONFIGS / "loggers").glob("*.yaml")):
        parse(["fit", "-c", str(CONFIGS / "split_digits.yaml"), "-c", str(file)])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_split_digits_runs_by_every_strategy(strategy, tmp_path):
    options = ["-c", SMOKE, "--data.experts", str(EXPERTS), "--buffer.cache", str(tmp_path / "cache")]
    scenario = ["-c", str(CONFIGS / "split_digits.yaml")]
    if strategy == "precomputed":
        files = str(tmp_path / "generated")
        main(["generate", *scenario, *options, "--buffer.generator.steps", "3", "--generate.folder", files])
        options += ["--buffer.generator.folder", files]
    if strategy == "refined":  # LeNet5 has no batch norm; test_photographs_are_refined_for_batch_norm has
        options += ["--buffer.generator.batch_norm", "0", "--buffer.generator.steps", "3"]
    strategy_file = ["-c", str(CONFIGS / "strategies" / f"{strategy}.yaml")]
    main(["fit", *scenario, *strategy_file, *options, "--trainer.default_root_dir", str(tmp_path)])
    assert json.loads((tmp_path / "summary.json").read_text())["experiences_learned"] == 2


# What makes a run of a scenario quick: a step an image, the smallest of networks or none with ImageNet weights.
QUICK = {
    "trainer": {"enable_progress_bar": False},
    "data": {"n_iter": 1, "batch_size": 2},
    "buffer": {"size": 4, "cache": None, "generator": {"class_path": "ModelInversion", "init_args": {"steps": 1}}},
}
SLIM = {"architecture": {"class_path": "exml_lightning.models.SlimResNet18", "init_args": {"width": 2}}}
CHANGES = {
    "mnist": {"experts": {"batch_size": 512}},
    "cifar10": {"experts": SLIM},
    "core50": yaml.safe_load((CONFIGS / "models" / "mobilenetv2_random.yaml").read_text()),
}


@pytest.mark.real_data
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name != "split_digits"])
def test_a_scenario_runs_from_experts_to_test(scenario, tmp_path):
    """Its first two experts, trained for an epoch; of CIFAR10 on the first images of each class."""
    run = run_scenario(scenario, tmp_path, QUICK)
    if "mnist" in scenario:
        options = ["-c", SMOKE, "-c", str(tmp_path / "quick.yaml"), "--trainer.default_root_dir", str(run)]
        main(["test", "-c", str(CONFIGS / f"{scenario}.yaml"), *options, "--ckpt_path", "last"])
        test, summary = (json.loads((run / f"{name}.json").read_text()) for name in ("test", "summary"))
        assert test["stream_accuracy"] == summary["stream_accuracy"]


@pytest.mark.real_data
@pytest.mark.parametrize("scenario", ["split_cifar10", "mt_cifar10"])
def test_photographs_are_refined_for_batch_norm(scenario, tmp_path):
    generator = {"class_path": "ModelInversion", "init_args": {"steps": 2}}
    changes = {**QUICK, "buffer": {**QUICK["buffer"], "generator": generator}}
    run = run_scenario(scenario, tmp_path, changes, "-c", str(CONFIGS / "strategies" / "refined.yaml"))
    generator = yaml.safe_load((run / "config.yaml").read_text())["buffer"]["generator"]["init_args"]
    assert (generator["steps"], generator["batch_norm"]) == (2, 3)
    assert generator["initial"]["class_path"].endswith("Mixture")


def run_scenario(scenario: str, folder: Path, changes: dict, *strategy: str) -> Path:
    """Train the first two experts of a scenario and learn them; return the run folder."""
    data = next(name for name in CHANGES if name in scenario.lower())
    source = ROOT / "data" / {"mnist": "MNIST"}.get(data, data)
    if not source.is_dir():
        pytest.skip(f"{source} is not there")
    root = source.parent
    if data == "cifar10":
        root = folder / "data"
        for images in source.glob("*/*"):
            few = root / images.relative_to(source.parent)
            few.mkdir(parents=True)
            for k in range(10):
                (few / f"{k:04d}.jpg").symlink_to(images / f"{k:04d}.jpg")
    quick, experts_of = folder / "quick.yaml", scenario.replace("mt_", "split_")
    given = {**changes["data"], "root": str(root), "experts": str(folder / "experts")}
    quick.write_text(yaml.safe_dump({**changes, **CHANGES[data], "data": given}))
    stacked = ["-c", SMOKE, "-c", str(quick)]
    main(["experts", "-c", str(CONFIGS / f"{experts_of}.yaml"), *stacked])
    files = ["-c", str(CONFIGS / f"{scenario}.yaml"), *strategy, *stacked]
    main(["fit", *files, "--trainer.default_root_dir", str(folder / "run")])
    learned = json.loads((folder / "run" / "summary.json").read_text())["experiences_learned"]
    assert learned == (1 if scenario.startswith("joint") else 2)
    assert len(yaml.safe_load((folder / "experts" / "manifest.yaml").read_text())["experts"]) == learned
    return folder / "run"


def test_experts_of_another_scenario_are_trained_by_its_own_config(capsys, tmp_path):
    with pytest.raises(SystemExit):
        main(["experts", "-c", str(CONFIGS / "mt_cifar10.yaml"), "--data.run_id", "2"])
    error = capsys.readouterr().err
    assert "mt_cifar10 learns the experts of split_cifar10" in error
    assert "`exml experts -c configs/split_cifar10.yaml --data.run_id 2`" in error


def test_an_architecture_with_arguments_is_changed_by_a_file(capsys, tmp_path, parse):
    args = ["experts", "-c", str(CONFIGS / "core50_nc.yaml")]
    with pytest.raises(SystemExit) as exit_:
        main([*args, "--experts.architecture", json.dumps(BARE)])
    assert exit_.value.code == 1
    assert "as the last -c FILE" in capsys.readouterr().err
    path = tmp_path / "bare.yaml"
    path.write_text(yaml.safe_dump({"experts": {"architecture": BARE}}))
    assert parse([*args, "-c", str(path)]).experts.architecture == BARE
