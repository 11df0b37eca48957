"""Files of strangers: refused before anything in them is run, by one line, within memory and time."""

import os
import re
from importlib import import_module

import pytest
import torch

from benchmarks.reliability.hostile import CANARY, Hostile, meet_all
from benchmarks.reliability.hostile_files import CATALOGUE, CKPT, checkpoint
from exml_lightning.callbacks.resume import find_checkpoint
from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.experts import read_manifest

RUNS_CODE = re.compile("code|class_path|unpickles|calls|starts a program")
"""What would run code, by its name, is met each time; the rest of the catalogue costs memory and time alone."""


def test_names_of_the_catalogue_are_its_own():
    assert len({hostile.name for hostile in CATALOGUE}) == len(CATALOGUE)


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(hostile, id=hostile.name, marks=[] if RUNS_CODE.search(hostile.name) else pytest.mark.slow)
        for hostile in CATALOGUE
    ],
)
def test_it_is_refused(hostile, tmp_path):
    import_module("exml_lightning.cli.lightning_cli")  # here, or each child would have to
    [(_, refused, said)] = meet_all([hostile], tmp_path)
    assert refused, said


def test_the_catalogue_can_fail(tmp_path):
    """Files that are accepted, run code, take too much memory or end the process are told from those refused."""

    def build(folder):
        (folder / "target").touch()
        return folder / "target"

    def raises(message):
        raise ExmlError(message)

    meetings = [
        lambda folder: None,
        lambda folder: ((folder / CANARY).touch(), raises("target: has run")),
        lambda folder: bytearray(2**31),
        lambda folder: raises("another file"),
        lambda folder: os._exit(7),
        lambda folder: raises("target: is refused"),
    ]
    results = meet_all([Hostile(str(k), build, met) for k, met in enumerate(meetings)], tmp_path)
    assert [refused for _, refused, _ in results] == [False, False, False, False, False, True]
    assert [said for _, _, said in results][0:2] == [
        "it was accepted",
        "code in it has run; exml: error: target: has run",
    ]
    assert "MemoryError" in results[2][2]
    assert results[4][2] == "it ended its process with status 7"
    assert results[5] == ("5", True, "exml: error: target: is refused")


@pytest.mark.parametrize(
    "verb", ["test", *(pytest.param(verb, marks=pytest.mark.slow) for verb in ("fit", "validate"))]
)
@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("scenario", "the checkpoint is of another run: its scenario is split_mnist, not split_digits"),
        ("architecture", "the checkpoint is of another ex-model: ['network.features.0.bias'"),
        ("input", "the checkpoint has learned from [1, 8, 8]: it is of another run"),
    ],
    ids=["scenario", "architecture", "input"],
)
def test_a_checkpoint_of_another_run_is_refused(verb, other, message, small_run, digit_experts, tmp_path, capsys):
    args = small_run(verb=verb)
    content = checkpoint(learned=[read_manifest(digit_experts).experts[0].sha256])
    if other == "scenario":
        content["ExpertStream"]["scenario"] = "split_mnist"
    elif other == "input":
        content["ExpertStream"]["buffer"]["images"] = torch.zeros(4, 1, 8, 8)
    else:
        del content["state_dict"]["network.features.0.bias"]
    path = tmp_path / CKPT
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    with pytest.raises(SystemExit) as error:
        main([*args, "--ckpt_path", str(path)])
    assert error.value.code == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_whole_checkpoint_passes(tmp_path):
    torch.save(checkpoint(), tmp_path / "a.ckpt")
    assert find_checkpoint(tmp_path / "run", str(tmp_path / "a.ckpt"), "test") == str(tmp_path / "a.ckpt")
