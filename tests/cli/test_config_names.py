"""What a word after ``-c`` means: a path, a path below `configs/`, a name."""

from pathlib import Path

import pytest

from exml_lightning.cli.config_files import misspelt, wrong_file
from exml_lightning.cli.config_names import config_words, find_configs, name_of, with_paths
from exml_lightning.cli.verbs import VERBS
from exml_lightning.shipped import CONFIGS
from tests.conftest import refused

SCENARIOS = (
    "core50_nc, core50_ni, core50_nic, from_folder, joint_cifar10, joint_core50, joint_mnist, mt_cifar10, "
    "own_images, split_cifar10, split_digits, split_fashion, split_mnist"
)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text("data: {n_iter: 3}\n")


@pytest.mark.parametrize(
    ("word", "file"),
    [
        ("split_digits", "split_digits.yaml"),
        ("cpu", "trainer/cpu.yaml"),
        ("min_entropy", "baselines/min_entropy.yaml"),
        ("noise", "strategies/noise.yaml"),
        ("lenet5_rgb", "models/lenet5_rgb.yaml"),
        ("wandb", "loggers/wandb.yaml"),
        ("trainer/cpu", "trainer/cpu.yaml"),
        ("trainer/cpu.yaml", "trainer/cpu.yaml"),
        ("configs/trainer/cpu", "trainer/cpu.yaml"),
        ("configs/split_digits.yaml", "split_digits.yaml"),
        ("sweeps/mnist", "sweeps/mnist.yaml"),
    ],
)
def test_what_ships_is_found_from_anywhere(word, file):
    assert [*find_configs(word).values()] == [CONFIGS / file]


@pytest.mark.parametrize("word", ["mnist", "split_digits.yaml", "cpu.yaml", "./configs/cpu.yaml", "/split_mnist"])
def test_what_is_no_name(word):
    assert find_configs(word) == {}


def test_a_sweep_has_names_of_its_own():
    assert [*find_configs("mnist", sweep=True).values()] == [CONFIGS / "sweeps" / "mnist.yaml"]
    assert find_configs("split_mnist", sweep=True) == {}


def test_the_working_directory_comes_first():
    write("configs/split_digits.yaml", "configs/trainer/mine.yaml")
    for word in ("split_digits", "configs/split_digits", "configs/split_digits.yaml"):
        assert [*find_configs(word).values()] == [Path("configs/split_digits.yaml")]
    assert [*find_configs("mine").values()] == [Path("configs/trainer/mine.yaml")]
    assert name_of(Path("configs/split_digits.yaml")) == "configs/split_digits.yaml"
    assert name_of(CONFIGS / "split_digits.yaml") == str(CONFIGS / "split_digits.yaml")  # the name means the other
    assert name_of(CONFIGS / "trainer" / "cpu.yaml") == "configs/trainer/cpu.yaml"


def test_a_file_of_that_name_wins_and_a_folder_does_not():
    Path("split_digits").mkdir()
    assert [*find_configs("split_digits").values()] == [CONFIGS / "split_digits.yaml"]
    assert wrong_file(["-c", "split_digits/"]) == (
        "split_digits is a folder: name a file in it, for instance split_digits/FILE.yaml"
    )
    write("cpu")
    assert find_configs("cpu") == {"cpu": Path("cpu")}
    assert wrong_file(["-c", "cpu"]) is None
    Path("cpu").write_text("a log\n")
    assert wrong_file(["-c", "cpu"]) == (
        "cpu holds a log: it must hold keys, such as `data: {run_id: 0}`; what ships with that name is "
        "configs/trainer/cpu.yaml"
    )


def test_a_name_that_is_not_clear_is_refused():
    write("configs/models/cpu.yaml")
    assert wrong_file(["-c", "cpu"]) == (
        "-c cpu may be configs/trainer/cpu.yaml or configs/models/cpu.yaml: give one of these"
    )
    for word in ("trainer/cpu", "configs/models/cpu.yaml"):
        assert wrong_file(["-c", word]) is None
    write("split_mnist.yaml")  # a copy that was changed, perhaps
    assert wrong_file(["-c", "split_mnist"]) == (
        "-c split_mnist may be split_mnist.yaml or configs/split_mnist.yaml: give one of these"
    )
    assert with_paths(["-c", "split_mnist"]) == ["-c", "split_mnist"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-c splt_digits", f"no file or name splt_digits; did you mean split_digits? Scenarios: {SCENARIOS}"),
        ("-c xyz", f"no file or name xyz; scenarios: {SCENARIOS}"),
        ("--config=mine", f"no file or name mine; did you mean mine.yaml? Scenarios: {SCENARIOS}"),
        ("-c split_digits.yaml", "no file split_digits.yaml; did you mean configs/split_digits.yaml?"),
        ("-c trainer/gpuu", "no file trainer/gpuu; did you mean configs/trainer/gpu.yaml?"),
    ],
)
def test_a_name_that_there_is_not(words, said, capsys):
    write("mine.yaml")
    assert refused(["fit", *words.split()], capsys, code=2) == f"exml: error: {said}\n"


def test_a_sweep_that_there_is_not(capsys):
    said = "no file or name mnits; did you mean mnist? Sweeps: buffer_size, cifar10, core50, mnist"
    assert refused(["sweep", "-c", "mnits"], capsys, code=2) == f"exml: error: {said}\n"


def test_every_way_to_write_the_option():
    paths = ["-c", str(CONFIGS / "trainer" / "cpu.yaml")]
    for words in ("-c cpu", "-c=cpu", "-ccpu", "--config cpu", "--config=cpu", "--conf cpu", "--co=cpu"):
        assert with_paths([*words.split(), "--data.n_iter", "3"]) == [*paths, "--data.n_iter", "3"]
    others = ["--cpus", "2", "--checkpoint.every_n_steps", "3", "--print_config", "-c", "--data.run_id", "cpu", "-c"]
    assert [*config_words(others)] == [(False, word) for word in others]


@pytest.mark.parametrize("verb", [*(verb for verb in VERBS if VERBS[verb].configured), "sweep"])
@pytest.mark.parametrize(
    "word", ["--confg", "--cfg", "--conifg", "--configs", "--Config", "-config", "--configuration"]
)
def test_an_option_that_is_nearly_that_of_a_file(verb, word, capsys):
    """It said "which scenario?"."""
    said = f"exml: error: no option {word}; did you mean --config?\n"
    assert refused([verb, word, "x.yaml"], capsys, code=2) == said
    assert refused([verb, f"{word}=x.yaml"], capsys, code=2) == said


@pytest.mark.parametrize("word", ["--stratgy", "--strategies", "-strategy", "--Strategy"])
def test_an_option_that_is_nearly_that_of_a_strategy(word, capsys):
    said = f"exml: error: no option {word}; did you mean --strategy?\n"
    assert refused(["fit", word, "noise"], capsys, code=2) == said
    assert refused(["fit", "-c", "split_digits", f"{word}=noise"], capsys, code=2) == said


def test_options_that_are_right_are_left_alone():
    right = "--print_config --trainer.strategy ddp --data.config x --strat noise --conf a -c b -ccpu --scenarios -h"
    assert misspelt(right.split(), ("config", "strategy")) is None
