"""Code beside weights is told from code elsewhere, before any of it is imported."""

import pytest

from exml_lightning.core.errors import ExmlError
from exml_lightning.experts.describe import NewExperts, add_experts
from exml_lightning.experts.origin import check_origin


def refused(class_path, folder):
    with pytest.raises(ExmlError, match="code beside the experts"):
        check_origin(class_path, folder)


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
        refused(class_path, experts)


@pytest.mark.parametrize("deep", ["zoo", "zoo/deep"])
@pytest.mark.parametrize("init", [True, False])
def test_a_package_that_has_the_experts_in_it_is_code_beside_them(tmp_path, monkeypatch, deep, init):
    package = tmp_path / deep
    (package / "experts").mkdir(parents=True)
    (package / "some_net.py").touch()
    if init:
        (package / "__init__.py").touch()
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    class_path = f"{deep.replace('/', '.')}.some_net.Net"
    refused(class_path, package / "experts")
    check_origin(class_path, tmp_path / "experts")
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
        refused("linked_net.Net", experts)


def test_a_manifest_of_code_in_the_folder_is_not_written(tmp_path, monkeypatch):
    (tmp_path / "own_net.py").write_text("raise SystemExit('imported')")
    (tmp_path / "a.pt").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ExmlError, match="code beside the experts"):
        add_experts(tmp_path, NewExperts("own_net.Net", classes=("a", "b"), size=(8,)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "own_net.py"]
