"""What ships is found from any folder, by each verb; a wheel holds all of it."""

import json
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml

from exml_lightning.cli.main import main
from exml_lightning.cli.sweep.grid import Grid, cells_of
from exml_lightning.cli.sweep.on_disk import has_experts
from exml_lightning.data import ExpertStream
from exml_lightning.scenarios import Digits, Scenario
from exml_lightning.shipped import CONFIGS, EXPERTS, found_experts
from tests.conftest import ROOT

OVERLAYS = ("trainer", "loggers", "models", "experts", "baselines", "strategies")
SCENARIO = Scenario("split_digits", Digits(), 2)


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_a_scenario_is_parsed_in_an_empty_folder(file, parse):
    config = parse(["fit", "-c", file.stem])
    name = config.data.scenario.name if config.data.scenario else "from_folder"
    assert (name, config.buffer.name, config.data.root) == (file.stem, "best", "data")


@pytest.mark.parametrize("name", sorted(f.stem for folder in OVERLAYS for f in (CONFIGS / folder).glob("*.yaml")))
def test_a_file_to_stack_is_parsed_in_an_empty_folder(name, parse):
    parse(["test", "-c", "split_digits", "-c", name])


@pytest.mark.parametrize("name", sorted(file.stem for file in (CONFIGS / "sweeps").glob("*.yaml")))
def test_a_sweep_is_planned_in_an_empty_folder(name, parse):
    given = parse(["sweep", "-c", name])
    cells = cells_of(Grid(given.scenarios, given.strategies, [0], given.grid or {}))
    assert {cell.scenario for cell in cells} == {*given.scenarios}
    assert cells[0].words[1:3] == ("-c", f"configs/{given.scenarios[0]}.yaml")  # which is found from anywhere


def test_the_default_experts_are_those_of_the_working_directory_else_those_that_ship():
    own, other = Path("checkpoints/split_digits/run0"), Path("checkpoints/split_digits/run1")
    assert found_experts(own) == EXPERTS
    assert found_experts(other) == other
    assert len(ExpertStream(SCENARIO).manifest.experts) == 5
    own.mkdir(parents=True)  # as training that was stopped leaves it
    assert found_experts(own) == own
    assert ExpertStream(SCENARIO).experts == own
    assert ExpertStream(SCENARIO, experts="elsewhere").experts == Path("elsewhere")


def test_it_is_said_where_one_could_expect_others(capsys):
    assert ExpertStream(SCENARIO).manifest
    assert capsys.readouterr().out == ""
    Path("checkpoints/split_mnist").mkdir(parents=True)
    assert ExpertStream(SCENARIO).manifest
    assert capsys.readouterr().out == ""
    Path("checkpoints/split_digits/run1").mkdir(parents=True)
    assert ExpertStream(SCENARIO).manifest
    said = "there is no checkpoints/split_digits/run0: the experts that ship with exml_lightning are taken\n"
    assert capsys.readouterr().out == said
    assert ExpertStream(SCENARIO, experts=str(EXPERTS)).manifest
    assert capsys.readouterr().out == ""


def test_a_sweep_trains_no_experts_that_ship():
    (cell,) = cells_of(Grid(["split_digits"], ["noise"], [0]))
    assert has_experts(cell.training)
    (cell,) = cells_of(Grid(["split_digits"], ["noise"], [0], settings={"experts.epochs": 3}))
    assert not has_experts(cell.training)


def test_experts_are_trained_into_the_working_directory():
    before = {file: file.read_bytes() for file in EXPERTS.iterdir() if file.is_file()}
    main(["experts", "-c", "split_digits", "-c", "smoke", "--trainer.enable_progress_bar", "false"])
    assert Path("checkpoints/split_digits/run0/manifest.yaml").is_file()
    assert before == {file: file.read_bytes() for file in EXPERTS.iterdir() if file.is_file()}


def test_a_fit_by_names_goes_on_by_paths_and_by_its_own_configuration(capsys):
    run, last = Path("runs/split_digits/best/run0"), ["--trainer.enable_progress_bar", "false"]
    main(["fit", "-c", "split_digits", "-c", "smoke", *last])
    summary = json.loads((run / "summary.json").read_text())
    assert summary["command"] == "exml fit -c split_digits -c smoke --trainer.enable_progress_bar false"
    assert yaml.safe_load((run / "config.yaml").read_text())["data"]["experts"] is None
    weights = (run / "ex_model" / "expert_0.safetensors").read_bytes()
    (run / "checkpoints" / "last.ckpt").unlink()
    (run / "checkpoints" / "experience=1.ckpt").unlink()  # as if the second expert had not been learned
    (run / "ex_model" / "expert_0.safetensors").unlink()
    for words in (["configs/split_digits.yaml", "-c", str(CONFIGS / "trainer" / "smoke.yaml")], [f"{run}/config.yaml"]):
        capsys.readouterr()
        main(["fit", "-c", *words, *last])
        assert f"going on with {run}/checkpoints/" in capsys.readouterr().out
        assert (run / "ex_model" / "expert_0.safetensors").read_bytes() == weights


def test_a_wheel_is_given_every_file(monkeypatch):
    monkeypatch.chdir(ROOT)
    given = ConfigParser()
    given.read("setup.cfg")
    beside = dict(line.split(" = ") for line in given["options"]["package_dir"].strip().splitlines())
    shipped = {
        file
        for package, patterns in given["options.package_data"].items()
        for pattern in patterns.split(", ")
        for file in Path(beside.get(package, package.replace(".", "/"))).glob(pattern)
    }
    beside = {*Path("configs").rglob("*.yaml"), *EXPERTS.relative_to(ROOT).glob("*.*")}
    inside = {
        file for file in Path("exml_lightning").rglob("*.*") if file.is_file() and "__pycache__" not in file.parts
    }
    assert shipped == beside | {file for file in inside if file.suffix != ".py"}
    modules = {str(file.parent).replace("/", ".") for file in inside if file.suffix == ".py"}
    assert {*given["options"]["packages"].split()} == modules | {"exml_lightning.configs", "exml_lightning.checkpoints"}


@pytest.mark.slow
def test_a_wheel_runs_without_the_clone(tmp_path):
    """Built as pip builds it, from the files that git knows."""
    source, place = tmp_path / "source", tmp_path / "place"
    for name in subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split():
        if not name.startswith(("docs/", "tests/", "benchmarks/")):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(place), str(source)]
    subprocess.run(pip, check=True)
    (tmp_path / "empty").mkdir()
    code = f"""
import sys
sys.path.insert(0, {str(place)!r})
from exml_lightning import shipped
from exml_lightning.cli.main import main
assert str(shipped.CONFIGS).startswith({str(place)!r}), shipped.CONFIGS
main(["fit", "-c", "split_digits", "-c", "smoke"])
main(["test", "-c", "configs/split_digits.yaml", "-c", "min_entropy"])
main(["sweep", "-c", "mnist", "--dry_run"])
"""
    subprocess.run([sys.executable, "-P", "-c", code], cwd=tmp_path / "empty", check=True)
    assert (
        json.loads((tmp_path / "empty/runs/split_digits/best/run0/summary.json").read_text())["experiences_learned"]
        == 2
    )
