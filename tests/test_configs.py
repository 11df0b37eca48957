"""Every shipped configuration is parsed, and every scenario and strategy is run."""

import json
from pathlib import Path

import pytest
import yaml

from exml_lightning.cli import main

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "configs"
SCENARIOS = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
STRATEGIES = sorted(path.stem for path in (CONFIGS / "strategies").glob("*.yaml"))
BASELINES = sorted(path.stem for path in (CONFIGS / "baselines").glob("*.yaml"))
TRAINERS = sorted(path.stem for path in (CONFIGS / "trainer").glob("*.yaml"))
SMOKE = str(CONFIGS / "trainer" / "smoke.yaml")


def printed(capsys, *args: str) -> dict:
    with pytest.raises(SystemExit) as exit_:
        main([*args, "--print_config"])
    assert exit_.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("verb", ["fit", "experts"])
def test_a_scenario_is_complete(scenario, verb, capsys):
    config = printed(capsys, verb, "-c", str(CONFIGS / f"{scenario}.yaml"))
    assert config["data"]["scenario"]["name"] == scenario


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("overlay", [f"strategies/{name}" for name in STRATEGIES])
def test_a_strategy_stacks_on_every_scenario(scenario, overlay, capsys):
    assert_stacks("fit", scenario, overlay, lambda config: config["buffer"]["generator"], capsys)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("overlay", [f"baselines/{name}" for name in BASELINES])
def test_a_baseline_stacks_on_every_scenario(scenario, overlay, capsys):
    assert_stacks("test", scenario, overlay, lambda config: config["baseline"], capsys)


def assert_stacks(verb, scenario, overlay, chosen, capsys):
    """A file is named after the class that it chooses."""
    config = printed(capsys, verb, "-c", str(CONFIGS / f"{scenario}.yaml"), "-c", str(CONFIGS / f"{overlay}.yaml"))
    class_name = chosen(config)["class_path"].rpartition(".")[2]
    assert class_name.lower() == Path(overlay).name.replace("_", "")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_trainer_stacks(trainer, capsys):
    printed(
        capsys,
        "fit",
        "-c",
        str(CONFIGS / "split_digits.yaml"),
        "-c",
        str(CONFIGS / "trainer" / f"{trainer}.yaml"),
    )


def arguments(scenario: str, strategy: str, folder: Path, *options: str) -> list[str]:
    """Return the options of a run by a strategy into a folder, for which `exml generate` has made the files."""
    experts = [*options, "-c", SMOKE, "--buffer.cache", str(folder / "cache")]
    with_strategy = ["-c", str(CONFIGS / f"{scenario}.yaml"), "-c", str(CONFIGS / "strategies" / f"{strategy}.yaml")]
    if strategy == "precomputed":
        files = str(folder / "generated")
        main(["generate", *with_strategy[:2], *experts, "--buffer.generator.steps", "3", "--generate.folder", files])
        experts += ["--buffer.generator.folder", files]
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
