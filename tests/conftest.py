"""What several tests share: small experts, a small stream, runs of the command line."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType

if "PYTEST_XDIST_WORKER" in os.environ:  # threads of two processes that share cores wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from exml_lightning.callbacks import accuracy, agreement, measured
from exml_lightning.core.expert import Expert
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.rng import derive_seed
from exml_lightning.report import figures
from exml_lightning.terminal import is_quiet, set_quiet

ROOT = Path(__file__).parent.parent
EXPERTS = ROOT / "checkpoints" / "split_digits" / "run0"
FIGURES: list[tuple[ModuleType, str]] = [
    (accuracy, "save_accuracy_over_time"),
    *((module, "save_matrix") for module in (accuracy, agreement, measured)),
]
"""What makes the figures of a fit, and where."""


@pytest.fixture(scope="session", autouse=True)
def blank_figures() -> Iterator[Callable[..., None]]:
    """Leaves the paper of figures white, and does not set those of fits: nine take as long as a small fit itself."""
    draw = Figure.draw
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "draw", lambda figure, renderer: None)
        for module, name in FIGURES:
            patch.setattr(module, name, lambda path, *what, **more: Image.new("L", (1, 1)).save(path))
        yield draw


@contextmanager
def figures_set() -> Iterator[None]:
    """Within it, fits make their figures as for a user, though on white paper: for runs that many tests read."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in FIGURES:
            patch.setattr(module, name, getattr(figures, name))
        yield


@pytest.fixture(scope="session", autouse=True)
def few_images_to_agree_about() -> None:
    """Draws a tenth of the images that agreement is measured on: five hundred take as long as a small fit."""
    agreement.IMAGES = 50


@pytest.fixture
def drawn_figures(blank_figures: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws figures all the same, for tests that look at them."""
    monkeypatch.setattr(Figure, "draw", blank_figures)


@pytest.fixture
def repository() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture
def digit_experts() -> Path:
    """The shipped experts."""
    return EXPERTS


@pytest.fixture
def make_expert() -> Callable[..., Expert]:
    """Makes an expert with random weights for 1x8x8 images; its keyword arguments change the network."""

    def make(
        classes: tuple[int, ...] = (1, 3),
        outputs: tuple[int, ...] | None = None,
        experience: int = 0,
        batch_norm: bool = False,
        seed: int = 0,
    ) -> Expert:
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed("test", seed))
            layers: list[nn.Module] = [nn.Conv2d(1, 4, 3, padding=1)]
            if batch_norm:
                layers.append(nn.BatchNorm2d(4))
            layers += [nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1)]
            if batch_norm:
                layers.append(nn.BatchNorm2d(4))
            layers += [nn.Tanh(), nn.Flatten(), nn.Linear(256, 5)]
            network = nn.Sequential(*layers)
            network[-1].weight.data.mul_(8)  # sure enough of itself
            for _ in range(40):  # batch norm records the statistics of bright, flat images
                network(0.9 + 0.1 * torch.randn(16, 1, 8, 8))
        return Expert(network, classes, outputs or classes, ImageFormat((1, 8, 8), (0.3,), (0.5,)), experience)

    return make


def write_small_run(tmp_path: Path, folder: str = "run", verb: str = "fit", **changes: object) -> list[str]:
    """Write the settings of a fit over two shipped experts that takes a second or two; return its command."""
    overlay = {
        "trainer": {"max_epochs": 2, "default_root_dir": str(tmp_path / folder), "enable_progress_bar": False},
        "data": {"n_iter": 6, "batch_size": 8, "experts": str(EXPERTS)},
        "buffer": {
            "size": 12,
            "generator": {"class_path": "ModelInversion", "init_args": {"steps": 3}},
            "cache": str(tmp_path / "cache" / folder),
        },
        "checkpoint": {"every_n_steps": 2},
    }
    for key, value in changes.items():
        group, _, name = key.partition("__")
        overlay[group][name] = value
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(overlay))
    return [verb, "-c", str(ROOT / "configs" / "split_digits.yaml"), "-c", str(path)]


@pytest.fixture
def small_run(tmp_path: Path) -> Callable[..., list[str]]:
    """Arguments of a fit over two shipped experts that takes a second or two, into a folder of its own."""
    return partial(write_small_run, tmp_path)


@pytest.fixture(scope="session")
def small_run_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `small_run` is given, after its command has run."""
    from exml_lightning.cli.main import main

    folder = tmp_path_factory.mktemp("small")
    with figures_set():
        main(write_small_run(folder))
    return folder


@pytest.fixture
def finished_run(small_run_once: Path, tmp_path: Path) -> Path:
    """The run folder that the command of `small_run` writes, with its cache beside it: a copy, made without the fit."""
    shutil.copytree(small_run_once, tmp_path, dirs_exist_ok=True)
    return tmp_path / "run"


@pytest.fixture(scope="session")
def parse() -> Callable[[list[str]], Namespace]:
    """Parses the words after ``exml`` as the command line does; the parser of each verb is made once."""
    from exml_lightning.cli.verbs import parser_of

    parsers: dict[str, ArgumentParser] = {}

    def parsed(words: list[str]) -> Namespace:
        verb, *options = words
        if verb not in parsers:
            parsers[verb] = parser_of(verb)
        quiet = is_quiet()
        try:
            return parsers[verb].parse_args(options)
        finally:
            set_quiet(quiet)

    return parsed


def refused(args: list[str], capsys, code: int = 1) -> str:
    """Run, and return the one line that says what is wrong."""
    from exml_lightning.cli.main import main

    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_:
        main(args)
    assert exit_.value.code == code
    error = capsys.readouterr().err
    if code == 1:
        lines = [line for line in error.splitlines() if line.startswith("exml: error:")]
        assert len(lines) == 1
        return lines[0]
    return error
