"""Code beside the experts is told from code elsewhere, and no network loads code while it is built."""

import os

import pytest
import torch
from torch import nn

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.origin import check_origin


def test_code_beside_weights_is_told_from_code_elsewhere(tmp_path, monkeypatch):
    experts, elsewhere = tmp_path / "experts", tmp_path / "code"
    for folder in (experts / "deep", elsewhere):
        folder.mkdir(parents=True)
        (folder / "some_net.py").write_text("raise SystemExit('imported')")
    monkeypatch.setattr("sys.path", [str(elsewhere)])
    check_origin("some_net.Net", experts)
    check_origin("nowhere.Net", experts)
    check_origin("torchvision.models.resnet18", tmp_path)
    for path, class_path in ((experts / "deep", "some_net.Net"), (tmp_path, "experts.deep.some_net.Net")):
        monkeypatch.setattr("sys.path", [str(path)])
        with pytest.raises(ExmlError, match="code beside the experts"):
            check_origin(class_path, experts)


@pytest.mark.parametrize("init", [True, False])
def test_a_package_that_has_the_experts_in_it_is_code_beside_them(tmp_path, monkeypatch, init):
    (tmp_path / "zoo" / "experts").mkdir(parents=True)
    (tmp_path / "zoo" / "some_net.py").touch()
    if init:
        (tmp_path / "zoo" / "__init__.py").touch()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(ExmlError, match="code beside the experts"):
        check_origin("zoo.some_net.Net", tmp_path / "zoo" / "experts")
    check_origin("zoo.some_net.Net", tmp_path / "experts")


def test_packages_without_init_within_others(tmp_path, monkeypatch):
    (tmp_path / "zoo" / "deep" / "experts").mkdir(parents=True)
    (tmp_path / "zoo" / "deep" / "some_net.py").touch()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    with pytest.raises(ExmlError, match="code beside the experts"):
        check_origin("zoo.deep.some_net.Net", tmp_path / "zoo" / "deep" / "experts")
    check_origin("zoo.deep.some_net.Net", tmp_path / "experts")
    check_origin("zoo.none.some_net.Net", tmp_path / "experts")


def test_links_do_not_hide_where_code_lies(tmp_path, monkeypatch):
    experts, elsewhere = tmp_path / "experts", tmp_path / "code"
    for folder in (experts, elsewhere):
        folder.mkdir()
    (experts / "linked_net.py").touch()
    (elsewhere / "linked_net.py").symlink_to(experts / "linked_net.py")
    (tmp_path / "alias").symlink_to(experts)
    for path in (elsewhere, tmp_path / "alias"):
        monkeypatch.setattr("sys.path", [str(path)])
        with pytest.raises(ExmlError, match="code beside the experts"):
            check_origin("linked_net.Net", experts)


def test_manifests_of_code_in_the_folder_are_not_written(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_net.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'canary')!r})")
    torch.save({}, tmp_path / "a.pt")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="1"):
        main(["manifest", ".", "--architecture", "own_net.Net", "--classes", "a", "b", "--size", "8"])
    assert "code beside the experts" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "own_net.py"]


class AsksTorch(nn.Module):
    def __init__(self):
        super().__init__()
        self.asked = {name: value for name, value in os.environ.items() if name.startswith("TORCH_FORCE")}


def test_torch_is_told_to_read_no_code_while_a_network_is_built(monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    monkeypatch.delenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", raising=False)
    assert Architecture(f"{__name__}.AsksTorch").build().asked == {"TORCH_FORCE_WEIGHTS_ONLY_LOAD": "1"}
    now = {name: value for name, value in os.environ.items() if name.startswith("TORCH_FORCE")}
    assert now == {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
