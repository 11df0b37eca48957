"""`distil`: the same fit as the command line's, interrupted and resumed, and what it refuses."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from exml_lightning.cli.main import main
from exml_lightning.core.augmentation import Augmentation
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.generators import ModelInversion, Noise
from exml_lightning.core.scales import Center
from exml_lightning.experts import read_manifest, write_manifest
from exml_lightning.fitting import GROUPS, distil
from exml_lightning.module import ExModelModule
from tests.conftest import EXPERTS, ROOT

WEIGHTS = "ex_model/expert_0.safetensors"


@pytest.fixture
def zoo(tmp_path):
    """The first two shipped experts: 5 4, and 8 2."""
    folder = tmp_path / "zoo"
    folder.mkdir()
    manifest = read_manifest(EXPERTS)
    for entry in manifest.experts[:2]:
        shutil.copy(EXPERTS / entry.file, folder)
    write_manifest(replace(manifest, experts=manifest.experts[:2]), folder)
    return folder


QUICK = {"n_iter": 4, "batch_size": 8, "buffer_size": 12, "accelerator": "cpu", "progress": False}


@pytest.mark.parametrize("kept", [True, False])
def test_a_folder_that_is_gone_is_not_told(zoo, tmp_path, capsys, monkeypatch, kept):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    folder = tmp_path / "run" if kept else None
    distil(zoo, folder, generator=Noise(), **{**QUICK, "progress": True})
    said = capsys.readouterr().out.replace("\n", "")
    assert (f"finished: {folder}" in said, f"ex-model: {folder}/ex_model" in said) == (kept, kept)
    assert "finished" in said
    assert "temporary" not in said
    assert not list((tmp_path / "temporary").iterdir())
    if folder is not None:
        assert json.loads((folder / "summary.json").read_text())["expert_classes"] == [["5", "4"], ["8", "2"]]


def test_same_seed_and_settings_give_the_weights_of_the_command_line(tmp_path, zoo):
    overlay = {
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False, "default_root_dir": str(tmp_path / "cli")},
        "data": {"n_iter": 4, "batch_size": 8, "seed": 7},
        "buffer": {"size": 12, "cache": None, "generator": {"class_path": "ModelInversion", "init_args": {"steps": 3}}},
        "model": {"lambda_ce": 0.3, "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.02}}},
    }
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(overlay))
    config = str(ROOT / "configs" / "from_folder.yaml")
    main(["fit", "-c", config, "-c", str(tmp_path / "small.yaml"), "--data.experts", str(zoo)])
    state = torch.get_rng_state()
    model = distil(
        zoo,
        folder=tmp_path / "python",
        seed=7,
        augmentation=Augmentation(shift=0.06),
        generator=ModelInversion(steps=3, batch_size=256, augmentation=Augmentation(shift=0.06)),
        lambda_ce=0.3,
        loss="mse",
        normalize=Center(),
        start="scratch",
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.02),
        cache=None,
        **QUICK,
    )
    assert torch.equal(torch.get_rng_state(), state)
    theirs, ours = load_file(tmp_path / "cli" / WEIGHTS), model.network.state_dict()
    assert theirs.keys() == ours.keys()
    assert all(torch.equal(theirs[name], ours[name]) for name in theirs)
    assert set(model.classes) == {"2", "4", "5", "8"}
    without = {"config.yaml"}  # no command line, no configuration
    assert {path.name for path in (tmp_path / "cli").iterdir()} - without == {
        path.name for path in (tmp_path / "python").iterdir()
    }


def test_every_setting_is_named_by_the_docstring():
    names = [name for group in GROUPS.values() for name in group]
    assert len(set(names)) == len(names)
    assert not {"experts", "folder", "task", "progress"} & set(names)
    assert all(f"``{name}``" in distil.__doc__ for name in names)


def test_ctrl_c_is_raised_and_the_same_call_goes_on(tmp_path, zoo, monkeypatch):
    whole = distil(zoo, generator=Noise(), **QUICK)
    step = ExModelModule.training_step

    def interrupted(self, batch, batch_idx):
        if self.stream.experience == 1 and batch_idx == 2:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    before = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(ExModelModule, "training_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            distil(zoo, tmp_path / "run", generator=Noise(), **QUICK)
    assert signal.getsignal(signal.SIGINT) is before
    model = distil(zoo, tmp_path / "run", generator=Noise(), **QUICK)
    theirs = whole.network.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.network.state_dict().items())
    with pytest.raises(ExmlError, match=r"under other settings \(model.lambda_ce was 0.0, now 0.5\)"):
        distil(zoo, tmp_path / "run", generator=Noise(), lambda_ce=0.5, **QUICK)


def test_a_head_of_several_tasks(tmp_path, zoo):
    manifest = read_manifest(zoo)
    experts = tuple(replace(entry, task=10 * k) for k, entry in enumerate(manifest.experts))
    write_manifest(replace(manifest, experts=experts), zoo)
    with pytest.raises(ExmlError, match=r"tasks 0, 10: say by task which head"):
        distil(zoo, **QUICK)
    with pytest.raises(ExmlError, match=r"task is 1: .*zoo has experts of 0, 10"):
        distil(zoo, task=1, **QUICK)
    assert distil(zoo, task=10, generator=Noise(), **QUICK).classes == ("2", "8")


def test_bad_input_is_refused_before_work(tmp_path, zoo, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TypeError, match=r"unexpected keyword argument 'n_itr'; did you mean 'n_iter'\?"):
        distil(zoo, n_itr=3)
    with pytest.raises(ExmlError, match=r"data.n_iter is 0: give 1 or more"):
        distil(zoo, n_iter=0)
    with pytest.raises(ExmlError, match="there is no nowhere: give the folder of your experts"):
        distil("nowhere")
    with pytest.raises(ExmlError, match=r"manifest.yaml is a file: name a folder"):
        distil(zoo, folder=zoo / "manifest.yaml")
    with pytest.raises(ExmlError, match=r"buffer.size is 1, but the stream has 2 experts"):
        distil(zoo, folder="run", buffer_size=1, accelerator="cpu", progress=False)
    assert capsys.readouterr().out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["zoo"]
