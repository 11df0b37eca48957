"""Every shipped configuration is parsed, and every scenario and strategy is run."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from torch.nn import Linear

from exml_lightning.callbacks import SyntheticBufferCallback
from exml_lightning.cli.main import main
from exml_lightning.cli.verbs import parser_of
from exml_lightning.core.augmentation import Augmentation
from exml_lightning.data import ExpertStream
from exml_lightning.experts.expert_module import ExpertRecipe
from exml_lightning.module import ExModelModule
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
    """And learned by the best strategy, unless another is named."""
    config = parse([verb, "-c", str(CONFIGS / f"{scenario}.yaml")])
    assert (config.data.scenario.name, config.buffer.name) == (scenario, "best")
    best = yaml.safe_load((CONFIGS / "strategies" / "best.yaml").read_text())
    assert config.data.n_iter == best["data"]["n_iter"]


def test_best_says_the_defaults_of_the_classes(parse):
    """So that `distil` and `exml fit` without configs/ learn the same way."""
    best = parse(["fit", "-c", str(CONFIGS / "strategies" / "best.yaml"), "--data.experts", str(EXPERTS)])
    made = parser_of("fit").instantiate_classes(best)
    stream, module, buffer = ExpertStream(experts=str(EXPERTS)), ExModelModule(), SyntheticBufferCallback()
    assert made.data.settings() == stream.settings()
    assert made.model.distillation == module.distillation
    assert made.model.starts.start == module.starts.start
    assert made.buffer.generator == buffer.generator
    assert made.buffer.size == buffer.size
    network = Linear(1, 1)
    optimizers = [of.optimizer(network.parameters()) for of in (made.model, module)]
    assert optimizers[0].defaults == optimizers[1].defaults
    assert made.model.lr_scheduler == module.lr_scheduler


@pytest.mark.parametrize("strategy", sorted((CONFIGS / "strategies").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_strategy_with_an_optimiser_says_its_schedule_too(strategy):
    """Else that of a scenario, which was chosen for another optimiser, would go with it."""
    model = yaml.safe_load(strategy.read_text()).get("model", {})
    assert ("optimizer" in model) == ("lr_scheduler" in model)


def test_all_scenarios_are_there():
    names = ["split_digits", "joint_mnist", "split_mnist", "split_fashion", "joint_cifar10", "split_cifar10"]
    names += ["mt_cifar10", "joint_core50", "core50_nc", "core50_ni", "core50_nic", "own_images"]
    assert sorted(names) == SCENARIOS


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


@pytest.mark.parametrize("scenario", ["split_cifar10", "joint_cifar10", "own_images"])
def test_the_papers_recipe_is_one_file_away(scenario, parse):
    experts = parse(["experts", "-c", scenario, "-c", "paper", "--data.root", "data"]).experts
    plain = ExpertRecipe(epochs=100)
    assert {key: getattr(plain, key) for key in ("epochs", "batch_size", "lr", "schedule", "momentum")} == {
        key: experts[key] for key in ("epochs", "batch_size", "lr", "schedule", "momentum")
    }
    assert Augmentation(**experts.augmentation) == plain.augmentation
    assert parse(["experts", "-c", scenario]).experts.schedule == "one_cycle"


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
    steps = ["--buffer.generator.steps", "3"]
    if strategy == "precomputed":
        files = str(tmp_path / "generated")
        main(["generate", *scenario, "--strategy", "model_inversion", *options, *steps, "--generate.folder", files])
        options += ["--buffer.generator.folder", files]
    if strategy == "refined":  # LeNet5 has no batch norm; mt_cifar10 below has
        options += ["--buffer.generator.batch_norm", "0"]
    if strategy in ("model_inversion", "data_impression", "refined"):
        options += steps
    strategy_file = ["-c", str(CONFIGS / "strategies" / f"{strategy}.yaml")]
    main(["fit", *scenario, *strategy_file, *options, "--trainer.default_root_dir", str(tmp_path)])
    assert json.loads((tmp_path / "summary.json").read_text())["experiences_learned"] == 2


# What makes a run of a scenario quick: a step an image, few images, the smallest of networks.
QUICK = {
    "trainer": {"enable_progress_bar": False},
    "data": {"n_iter": 1, "batch_size": 2},
    "buffer": {"size": 4, "cache": None, "generator": {"class_path": "ModelInversion", "init_args": {"steps": 1}}},
}
SLIM = {"class_path": "exml_lightning.models.SlimResNet18", "init_args": {"width": 2}}
BOTH_SLIM = {group: {"architecture": SLIM} for group in ("experts", "model")}
NOT_RUN = {
    "split_digits": "test_split_digits_runs_by_every_strategy",
    "split_fashion": "split_mnist but for its images",
    "own_images": "test_images_of_ones_own_need_one_command",
}
CHANGES = {
    "mnist": {},
    "joint_cifar10": yaml.safe_load((CONFIGS / "models" / "mobilenetv2_random.yaml").read_text()),
    "cifar10": {"experts": {"architecture": SLIM}},
    "core50": BOTH_SLIM,
}


@pytest.mark.real_data
@pytest.mark.parametrize("scenario", [name for name in SCENARIOS if name not in NOT_RUN])
def test_a_scenario_runs_from_experts_to_test(scenario, tmp_path):
    """Its first two experts, trained for an epoch on few images; mt_cifar10 from refined photographs."""
    name = next(name for name in CHANGES if name in scenario)
    root = few_images(name.removeprefix("joint_"), tmp_path / "data")
    given = {**QUICK["data"], "root": str(root), "experts": str(tmp_path / "experts")}
    quick, refined = tmp_path / "quick.yaml", []
    quick.write_text(yaml.safe_dump({**QUICK, **CHANGES[name], "data": given}))
    stacked, files = ["-c", SMOKE, "-c", str(quick)], ["-c", str(CONFIGS / f"{scenario}.yaml")]
    main(["experts", "-c", str(CONFIGS / f"{scenario.replace('mt_', 'split_')}.yaml"), *stacked])
    if scenario == "mt_cifar10":
        refined = ["-c", str(CONFIGS / "strategies" / "refined.yaml")]
        stacked += ["--data.n_iter", "4"]  # enough for a cycle of the rate
    run = tmp_path / "run"
    main(["fit", *files, *refined, *stacked, "--trainer.default_root_dir", str(run)])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["experiences_learned"] == (1 if scenario.startswith("joint") else 2)
    trained = yaml.safe_load((tmp_path / "experts" / "manifest.yaml").read_text())["experts"]
    assert len(trained) == summary["experiences_learned"]
    if refined:
        written = yaml.safe_load((run / "config.yaml").read_text())
        assert written["model"]["lr_scheduler"] == "one_cycle"
        generator = written["buffer"]["generator"]["init_args"]
        assert (generator["steps"], generator["batch_norm"]) == (1, 10)
        assert generator["initial"]["class_path"].endswith("Mixture")
    if scenario == "split_mnist":
        main(["test", *files, *stacked, "--trainer.default_root_dir", str(run), "--ckpt_path", "last"])
        assert json.loads((run / "test.json").read_text())["stream_accuracy"] == summary["stream_accuracy"]


def few_images(name: str, folder: Path) -> Path:
    """Return the root of a data set; of MNIST and CIFAR10 a new one, of the first images."""
    data = ROOT / "data"
    if not (data / name.replace("mnist", "MNIST")).is_dir():
        pytest.skip(f"{name} is not below {data}")
    if name == "mnist":
        (folder / "MNIST" / "raw").mkdir(parents=True)
        for file in (data / "MNIST" / "raw").glob("*-ubyte"):
            header, each = (16, 28 * 28) if "images" in file.name else (8, 1)
            with file.open("rb") as whole:  # the number of images is the second of the header's integers
                few = whole.read(4) + (300).to_bytes(4, "big") + whole.read(header + 300 * each - 4)[4:]
            (folder / "MNIST" / "raw" / file.name).write_bytes(few)
    elif name == "cifar10":
        for images in (data / name).glob("*/*"):
            few = folder / images.relative_to(data)
            few.mkdir(parents=True)
            for k in range(10):
                (few / f"{k:04d}.jpg").symlink_to(images / f"{k:04d}.jpg")
    else:
        return data
    return folder


def test_images_of_ones_own_need_one_command(tmp_path, capsys):
    """A folder for each of five classes, and nothing else; then a fit, without training images and with them gone."""
    images, generator = tmp_path / "my_images", torch.Generator().manual_seed(0)
    for name in ("ant", "bee", "cat", "dog", "elk"):
        (images / name).mkdir(parents=True)
        for k in range(5):
            pixels = torch.randint(256, (60 + k, 80, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(images / name / f"{k}.png")
    quick, own = tmp_path / "quick.yaml", ["-c", str(CONFIGS / "own_images.yaml"), "--data.root", str(images)]
    quick.write_text(yaml.safe_dump(QUICK))
    own += ["-c", str(quick), "--data.experts", str(tmp_path / "experts"), "--data.scenario.dataset.size", "16"]
    main(["experts", *own, "--experts.epochs", "1"])
    assert f"{images / 'test'} is not there: the 5 test images are a fifth of each class" in capsys.readouterr().out
    manifest = yaml.safe_load((tmp_path / "experts" / "manifest.yaml").read_text())
    assert [len(expert["classes"]) for expert in manifest["experts"]] == [3, 2]
    assert manifest["input"]["shape"] == [3, 16, 16]
    architecture = {"class_path": "exml_lightning.models.SlimResNet18", "init_args": {"num_classes": 5}}
    assert [expert["architecture"] for expert in manifest["experts"]] == [architecture] * 2
    for strategy in ("best", "model_inversion"):
        run = tmp_path / strategy
        main(["fit", *own, "-c", SMOKE, "--strategy", strategy, "--trainer.default_root_dir", str(run)])
        summary = json.loads((run / "summary.json").read_text())
        assert summary["experiences_learned"] == 2


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
