"""Every shipped configuration is parsed, and every scenario and strategy is run."""

import json
from pathlib import Path

import pytest
import yaml

from exml_lightning.cli.main import main

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
SCENARIOS = sorted(path.stem for path in CONFIGS.glob("*.yaml") if path.stem != "from_folder")
STRATEGIES = sorted(path.stem for path in (CONFIGS / "strategies").glob("*.yaml"))
BASELINES = sorted(path.stem for path in (CONFIGS / "baselines").glob("*.yaml"))
MODELS = sorted(path.stem for path in (CONFIGS / "models").glob("*.yaml"))
TRAINERS = sorted(path.stem for path in (CONFIGS / "trainer").glob("*.yaml"))
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


def arguments(scenario: str, strategy: str, folder: Path, *options: str) -> list[str]:
    """Return the options of a run by a strategy into a folder, for which `exml generate` has made the files."""
    experts = [*options, "-c", SMOKE, "--buffer.cache", str(folder / "cache")]
    with_strategy = ["-c", str(CONFIGS / f"{scenario}.yaml"), "-c", str(CONFIGS / "strategies" / f"{strategy}.yaml")]
    if strategy == "precomputed":
        files = str(folder / "generated")
        main(["generate", *with_strategy[:2], *experts, "--buffer.generator.steps", "3", "--generate.folder", files])
        experts += ["--buffer.generator.folder", files]
    if strategy == "refined":  # LeNet5 has no batch norm; test_photographs_are_refined_for_batch_norm has
        experts += ["--buffer.generator.batch_norm", "0", "--buffer.generator.steps", "3"]
    return [*with_strategy, *experts, "--trainer.default_root_dir", str(folder)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_split_digits_runs_by_every_strategy(strategy, tmp_path):
    experts = str(ROOT / "checkpoints" / "split_digits" / "run0")
    main(["fit", *arguments("split_digits", strategy, tmp_path, "--data.experts", experts)])
    assert json.loads((tmp_path / "summary.json").read_text())["experiences_learned"] == 2


@pytest.fixture(scope="module")
def mnist_experts(tmp_path_factory):
    """Experts of a scenario, trained for one epoch on real MNIST, once for all strategies."""
    folders = {}

    def experts(scenario: str) -> list[str]:
        if scenario not in folders:
            folders[scenario] = tmp_path_factory.mktemp(scenario)
            main(["experts", "-c", str(CONFIGS / f"{scenario}.yaml"), "--data.root", str(ROOT / "data"),
                  "--data.experts", str(folders[scenario]), "--experts.epochs", "1", "--experts.batch_size", "512",
                  "--trainer.enable_progress_bar", "false"])  # fmt: skip
        return ["--data.root", str(ROOT / "data"), "--data.experts", str(folders[scenario])]

    return experts


@pytest.mark.real_data
@pytest.mark.skipif(not (ROOT / "data" / "MNIST").is_dir(), reason="data/MNIST is not there")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("scenario", ["split_mnist", "joint_mnist"])
def test_mnist_runs_from_experts_to_test(scenario, strategy, tmp_path, mnist_experts):
    common = arguments(scenario, strategy, tmp_path, *mnist_experts(scenario))
    main(["fit", *common])
    main(["test", *common, "--ckpt_path", "last"])
    test = json.loads((tmp_path / "test.json").read_text())
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert test["stream_accuracy"] == summary["stream_accuracy"]


# What makes a run of a scenario quick: one epoch an expert, a step an image; no network for ImageNet weights.
BARE = {"class_path": "exml_lightning.models.MobileNetV2"}
QUICK = {
    "trainer": {"enable_progress_bar": False},
    "data": {"root": str(ROOT / "data"), "n_iter": 1, "batch_size": 2},
    "buffer": {"size": 4, "cache": None, "generator": {"class_path": "ModelInversion", "init_args": {"steps": 1}}},
}


@pytest.mark.real_data
@pytest.mark.skipif(not (ROOT / "data" / "core50").is_dir(), reason="data/core50 is not there")
@pytest.mark.parametrize("scenario", ["joint_core50", "core50_nc", "core50_ni", "core50_nic"])
def test_core50_runs_from_experts_to_ex_model(scenario, tmp_path):
    random = yaml.safe_load((CONFIGS / "models" / "mobilenetv2_random.yaml").read_text())
    assert_runs(scenario, scenario, {**QUICK, **random}, tmp_path)


@pytest.mark.real_data
@pytest.mark.skipif(not (ROOT / "data" / "cifar10").is_dir(), reason="data/cifar10 is not there")
@pytest.mark.parametrize("scenario", ["joint_cifar10", "split_cifar10", "mt_cifar10"])
def test_cifar10_runs_from_experts_to_ex_model(scenario, tmp_path):
    """On the first real images of each class, with the smallest of networks."""
    changes = few_photographs(tmp_path)
    assert_runs(scenario, "split_cifar10" if scenario == "mt_cifar10" else scenario, {**QUICK, **changes}, tmp_path)


@pytest.mark.real_data
@pytest.mark.skipif(not (ROOT / "data" / "cifar10").is_dir(), reason="data/cifar10 is not there")
@pytest.mark.parametrize("scenario", ["split_cifar10", "mt_cifar10"])
def test_photographs_are_refined_for_batch_norm(scenario, tmp_path):
    steps = {"class_path": "ModelInversion", "init_args": {"steps": 2}}
    changes = {"buffer": {"size": 4, "cache": None, "generator": steps}, **few_photographs(tmp_path)}
    assert_runs(scenario, "split_cifar10", changes, tmp_path, "-c", str(CONFIGS / "strategies" / "refined.yaml"))
    generator = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["buffer"]["generator"]["init_args"]
    assert (generator["steps"], generator["batch_norm"]) == (2, 3)
    assert generator["initial"]["class_path"].endswith("Mixture")


def few_photographs(tmp_path: Path) -> dict:
    """Link the first images of each class; return settings for them and a small network."""
    for folder in (ROOT / "data" / "cifar10").glob("*/*"):
        few = tmp_path / "data" / folder.relative_to(ROOT / "data")
        few.mkdir(parents=True)
        for k in range(10):
            (few / f"{k:04d}.jpg").symlink_to(folder / f"{k:04d}.jpg")
    small = {"class_path": "exml_lightning.models.SlimResNet18", "init_args": {"width": 2}}
    return {"experts": {"architecture": small}, "data": {**QUICK["data"], "root": str(tmp_path / "data")}}


def assert_runs(scenario: str, experts_of: str, changes: dict, folder: Path, *strategy: str) -> None:
    """Train the first two experts of a scenario and learn them."""
    quick = folder / "quick.yaml"
    quick.write_text(yaml.safe_dump({**changes, "data": {**changes["data"], "experts": str(folder / "experts")}}))
    stacked = ["-c", SMOKE, "-c", str(quick)]
    main(["experts", "-c", str(CONFIGS / f"{experts_of}.yaml"), *stacked])
    scenario_file = ["-c", str(CONFIGS / f"{scenario}.yaml"), *strategy]
    main(["fit", *scenario_file, *stacked, "--trainer.default_root_dir", str(folder / "run")])
    learned = json.loads((folder / "run" / "summary.json").read_text())["experiences_learned"]
    assert learned == (1 if scenario.startswith("joint") else 2)
    manifest = yaml.safe_load((folder / "experts" / "manifest.yaml").read_text())
    assert len(manifest["experts"]) == learned


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
