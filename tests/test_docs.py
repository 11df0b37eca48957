"""Each command, and each block of Python and YAML, in README and docs/ is right; what can run here is run (slow)."""

import argparse
import importlib.util
import json
import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterable
from itertools import pairwise, takewhile
from pathlib import Path

import jsonargparse
import pytest
import torch
import yaml
from PIL import Image
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification

from exml_lightning.cli.config_names import find_configs
from exml_lightning.cli.main import main
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.selection import read_experts
from exml_lightning.scenarios import RUN_SEEDS
from tests.documents import PAGES, ROOT, Snippet, inline, snippets

ALL = [snippet for page in PAGES for snippet in snippets(page)]
TYPED = [s for s in ALL if s.kind == "command"] + [s for page in PAGES for s in inline(page)]
COMMANDS = list({shlex.join(snippet.words): snippet for snippet in TYPED}.values())
SMOKE = str(ROOT / "configs" / "trainer" / "smoke.yaml")

NOT_RUN = {
    r"^pip |^python3 -m venv|^pre-commit": "changes the environment; .ci/run installs in a fresh one",
    r"^pytest|^python -m pytest|^ruff|^mypy": "these are the tests; .ci/run runs them",
    r"^mkdocs|^jupyter": "tests/test_site.py does that",
    r"ray start|\$head|^sbatch": "Slurm and several machines",
    r"^tensorboard": "a server, which runs until it is stopped; tests/callbacks/test_loggers.py reads what it shows",
    r"^wandb login": "asks for the key of an account",
    r"trainer/ddp\.yaml": "several GPUs",
    r"--trainer\.devices 2": "starts a second process by this command: tests/test_ddp.py does that in a child",
    r"^exml (fit|test|experts).*core50": "8 GB of data; tests/test_configs.py runs the scenarios on a few frames",
    r"^exml (fit|test|experts).*cifar10": "minutes each; tests/test_configs.py runs the scenarios on a few images",
    r"--privacy\.": "minutes each; tests/experts/test_private_training.py trains private experts",
    r"--epsilon": "after statistics without noise of the same folder; tests/experts/test_statistics_file.py",
    r"--data\.experts experts_8": "learns what the command above it, which is not run, has trained",
    r"^python -m benchmarks": "half an hour each, and they rewrite docs/; their own tests run them at a small size",
}
"""Commands that `test_the_commands_of_a_page_run_in_order` leaves out, and why. All others are run."""
YAML_NOT_STACKED = {
    "docs/manifest.md": "a manifest, not a configuration",
    "docs/catalog.md": "a selection of experts, not a configuration",
}


class Parsed(BaseException):
    """A command has been parsed: stop before any work. No `Exception`, so that no verb catches it."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A folder like a clone, with the files that pages ask their readers to save."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "docs", "tests", "benchmarks"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copytree(ROOT / "checkpoints" / "split_digits", folder / "checkpoints" / "split_digits")
    for snippet in ALL:
        if snippet.file:
            (folder / snippet.file).write_text(snippet.text)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


def understand(words, parse, monkeypatch):
    """Parse a command by the program's own parser, whose files are opened; status 2 or an error if it is wrong."""
    if words[0] == "exml":
        main(words[1:]) if words[1].startswith("--") else parse(words[1:])
        return
    for kind in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
        real = kind.parse_args

        def parse_and_stop(self, *args, _real=real, **kwargs):
            given = _real(self, *args, **kwargs)
            raise Parsed(given)

        monkeypatch.setattr(kind, "parse_args", parse_and_stop)
    monkeypatch.setattr(sys, "argv", words[2:])
    with pytest.raises(Parsed):
        runpy.run_module(words[2], run_name="__main__")


@pytest.mark.parametrize("command", COMMANDS, ids=lambda s: s.text[:60])
def test_a_command_is_understood(command, workspace, parse, monkeypatch):
    monkeypatch.chdir(workspace)
    words = command.words
    if words[0] == "exml" or (words[:2] == ["python", "-m"] and words[2] != "pytest"):
        if words[2] == "benchmarks.results":  # takes a folder and nothing else
            assert importlib.util.find_spec(words[2]) is not None
        else:
            understand(words, parse, monkeypatch)
    elif words[0] == "pip":
        extras = set(re.findall(r"[a-z]+", (re.findall(r"\[(.*)\]", command.text) or [""])[0]))
        assert extras <= tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"].keys()
    else:
        assert all(Path(word).exists() for word in words if word.startswith("tests/"))
        assert why_not_run(command), f"{command.page}: {command.text}"


def test_a_command_that_is_wrong_is_noticed(workspace, parse, monkeypatch, capsys):
    monkeypatch.chdir(workspace)
    for text in ("exml fit -c configs/split_digits.yaml --data.n_itre 3", "exml fit -c configs/split_digit.yaml",
                 "exml sweep --scenarios x --worker_s 2", "python -m benchmarks.beyond --scenarios x"):  # fmt: skip
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as exit_:
            understand(shlex.split(text), parse, patch)
        assert exit_.value.code == 2
    assert "n_itre" in capsys.readouterr().err


def test_readme_start_and_notebook_begin_alike():
    first = "exml fit -c split_digits"
    for page in ("README.md", "docs/index.md", "docs/start.ipynb"):
        found = re.search(r"\bexml (fit|test|experts|generate)\b[^\n`]*", (ROOT / page).read_text())
        assert found is not None
        assert found[0] == first, page


def test_no_command_is_overlooked():
    for page in PAGES:
        found = [s.text.split()[:2] for s in snippets(page) if s.kind == "command"]
        for line in re.findall(r"^\s+((?:exml|pip|python -m) .*)", page.read_text(), re.MULTILINE):
            assert line.split()[:2] in found, f"{page.name}: {line}"


@pytest.mark.parametrize("block", [s for s in ALL if s.kind == "yaml"], ids=lambda s: s.page)
def test_yaml_of_a_page_stacks(block, workspace, parse, tmp_path, monkeypatch):
    if block.page in YAML_NOT_STACKED:
        return
    monkeypatch.chdir(workspace)
    (tmp_path / "block.yaml").write_text(block.text)
    whole = "dataset" in (yaml.safe_load(block.text).get("data") or {}).get("scenario", {})
    scenario = [] if whole else ["-c", "configs/split_digits.yaml"]
    config = parse(["fit", *scenario, "-c", str(tmp_path / "block.yaml")])
    for group in yaml.safe_load(block.text):
        assert group in config


@pytest.mark.parametrize("block", [s for s in ALL if s.kind == "python"], ids=lambda s: s.page)
def test_python_of_a_page_compiles_and_what_it_imports_is_there(block):
    code = compile(block.text, block.page, "exec")
    assert code.co_names
    for line in block.text.splitlines():
        if line.startswith(("import ", "from ")):
            exec(line, {})


def why_not_run(command: Snippet) -> str | None:
    """Return why a command is not run; None if it is."""
    text = shlex.join(command.words)
    return next((why for pattern, why in NOT_RUN.items() if re.search(pattern, text)), None)


def test_each_reason_not_to_run_is_needed():
    for pattern in NOT_RUN:
        if not pattern.startswith("^mkdocs"):
            assert any(re.search(pattern, shlex.join(command.words)) for command in COMMANDS), pattern


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not (ROOT / "data" / "MNIST").is_dir(), reason="data/MNIST is not there")
@pytest.mark.parametrize("page", [page for page in PAGES if snippets(page)], ids=lambda page: page.name)
def test_the_commands_of_a_page_run_in_order(page, workspace, tmp_path, monkeypatch):
    """At smoke size, in a folder of its own; Python blocks, too."""
    for name in ("configs", "checkpoints"):
        (tmp_path / name).symlink_to(workspace / name)  # experts that are trained serve all pages
    (tmp_path / "data").symlink_to(ROOT / "data")
    shutil.copytree(ROOT / "docs" / "results", tmp_path / "docs" / "results")
    for file in workspace.glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    names = {"__name__": page.stem}
    for snippet in snippets(page):
        if snippet.kind == "python":
            prepare_python(snippet.text)
            exec(compile(snippet.text, snippet.page, "exec"), names)
        elif snippet.kind == "command" and not why_not_run(snippet):
            words = snippet.words[1:]
            prepare(words, tmp_path)
            main(small(words))


def small(words: list[str]) -> list[str]:
    """Make a command small: two experts, four steps, a few images of three steps each, unless it says otherwise."""
    if words[0] == "sweep":
        return [*words, "--runs", "0", "--dry_run"]
    if words[0] not in ("fit", "test", "validate", "experts", "generate"):
        return words
    last = max((i + 2 for i, word in enumerate(words) if word in ("-c", "--config")), default=1)
    made = re.search(r"(strategies/|--strategy )(model|data)(?!.*precomputed)", " ".join(words))
    fewer = ["--experts.batch_size", "512"] if words[0] == "experts" else []
    return [*words[:last], "-c", SMOKE, *fewer, *(["--buffer.generator.steps", "3"] if made else []), *words[last:]]


def prepare(words: list[str], folder: Path) -> None:
    """Put there what a reader has: experts, weight files, photographs, runs to report, to export or to list."""
    given = dict(pairwise(words))
    if words[0] == "manifest" and "--architecture" in given:
        write_weights(folder / words[1], words, given)
    elif words[0] == "manifest":
        sizes = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "layer_type": "basic"}
        names = {"id2label": {0: "cat", 1: "dog"}, "label2id": {"cat": 0, "dog": 1}}
        ResNetForImageClassification(ResNetConfig(**sizes, **names)).save_pretrained(folder / words[1])
        (folder / words[1] / "preprocessor_config.json").write_text('{"size": 32}')
    elif words[0] == "report":
        for place in (Path(word) for word in words[1:] if word.startswith("runs")):
            if not [*place.glob("**/summary.json"), *place.glob("**/test.json")]:
                runs = Path("docs/results/joint_mnist") if place.name == "runs" else Path("docs/results") / place.name
                shutil.copytree(runs, place, dirs_exist_ok=True)
    elif words[0] in ("fit", "test", "generate") and "--data.experts" not in given:
        (file,) = find_configs(words[2]).values()
        config = yaml.safe_load(file.read_text())
        run = given.get("--data.run_id", "0")
        assert 0 <= int(run) < len(RUN_SEEDS)
        if not (folder / "checkpoints" / config["data"]["scenario"]["name"] / f"run{run}").is_dir():
            main(small(["experts", *words[1:3], "--data.root", "data", "--data.run_id", run]))
    elif words[0] == "fit" and given["--data.experts"] == "zoo" and not (folder / "zoo").is_dir():
        shutil.copytree("checkpoints/split_digits/run0", folder / "zoo")
    elif words[0] == "catalog":
        for name in ("clinic_a", "clinic_b"):
            shutil.copytree("checkpoints/split_digits/run0", folder / "zoo" / name, dirs_exist_ok=True)
        if "runs" in words:
            finish_run(folder / "runs" / "split_digits" / "model_inversion" / "run0")
    elif words[0] == "statistics" and not (folder / words[2]).is_dir():
        shutil.copytree("checkpoints/split_digits/run0", folder / words[1], dirs_exist_ok=True)
        write_labelled(folder / words[2], map(str, range(10)), 25)
    elif words[0] in ("export", "predict") and Path(words[1]).name == "ex_model":
        finish_run(folder / Path(words[1]).parent)
    if "--data.labelled" in given and "--data.experts" in given:
        write_labelled(folder / given["--data.labelled"], read_experts(Path(given["--data.experts"])).class_names, 2)
    for name in ("daisy", "rose", "thistle", "tulip") if "my_images" in words else ():
        (Path("my_images") / name).mkdir(parents=True, exist_ok=True)
        for k in range(5):
            Image.effect_noise((80, 64), 50 + k).save(f"my_images/{name}/{k}.png")
    for name in {"photos", "my_photographs"} & set(words):
        Path(name).mkdir(exist_ok=True)
        for k in range(3):
            Image.effect_noise((80, 64), 50 + k).save(f"{name}/{k}.png")


def write_labelled(folder: Path, classes: Iterable[str], count: int) -> None:
    """Write images of each class into a folder of its name, unless there are some."""
    for name in classes if not folder.is_dir() else ():
        (folder / name).mkdir(parents=True)
        for k in range(count):
            Image.effect_noise((32, 32), 50 + k).save(folder / name / f"{k}.png")


def prepare_python(code: str) -> None:
    """Put there the files that a block of Python opens: a photograph, and what `exml export` above it has written."""
    if '"photo.jpg"' in code:
        Image.effect_noise((80, 64), 50).save("photo.jpg")
    if '"model.onnx"' in code:
        shutil.copy(next(Path("runs").glob("**/model.onnx")), "model.onnx")


def finish_run(run: Path) -> None:
    """Learn from the shipped experts into a run folder, unless it has an ex-model."""
    if not (run / "ex_model").is_dir():
        experts = ["--data.experts", "checkpoints/split_digits/run0"]
        main(small(["fit", "-c", "configs/from_folder.yaml", *experts, "--trainer.default_root_dir", str(run)]))


def write_weights(folder: Path, words: list[str], given: dict[str, str]) -> None:
    """Write the weight files that `exml manifest` is to describe."""
    Path("my_networks.py").write_text(NETWORK)
    folder.mkdir(exist_ok=True)

    def values(option: str) -> list[str]:
        after = words[words.index(option) + 1 :] if option in words else []
        return list(takewhile(lambda word: not word.startswith("--"), after))

    names = values("--files") or [f"expert_{len(list(folder.glob('*.pt')))}.pt"]
    classes = values("--classes") or ["fish", "frog"]
    architecture = {
        "class_path": given["--architecture"],
        "init_args": {**yaml.safe_load(given.get("--init_args", "{}")), "num_classes": len(classes)},
    }
    for k, name in enumerate(names):
        torch.manual_seed(k)
        network: nn.Module = Architecture.from_config(architecture).build(0)
        torch.save(network.state_dict(), folder / name)
        (folder / name).with_suffix(".txt").write_text("\n".join(classes))


NETWORK = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self, width: int, num_classes: int) -> None:
        last = nn.Linear(width, num_classes)
        super().__init__(nn.Conv2d(1, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
"""


def test_the_generator_of_the_page_fills_the_buffer(workspace, tmp_path, monkeypatch, capsys):
    """docs/own_generator.md, as its reader does it."""
    monkeypatch.chdir(workspace)
    command = next(s.words for s in snippets(ROOT / "docs" / "own_generator.md") if s.text.startswith("exml fit"))
    run = tmp_path / "run"
    main([*command[1:4], "-c", SMOKE, *command[4:], "--trainer.default_root_dir", str(run)])
    assert json.loads((run / "summary.json").read_text())["experiences_learned"] == 2
    generator = yaml.safe_load((run / "config.yaml").read_text())["buffer"]["generator"]
    assert generator == {"class_path": "my_generator.SmoothNoise", "init_args": {"grid": 8}}
    with pytest.raises(SystemExit):
        main([*command[1:], "--buffer.generator.grid", "1"])
    assert "buffer.generator.grid is 1: give 2 or more" in capsys.readouterr().err
