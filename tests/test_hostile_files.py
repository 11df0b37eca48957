"""Files of strangers: refused before anything in them is run, by one line, within memory and time."""

import os
import struct
from importlib import import_module

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.reliability.hostile import CANARY, Hostile, meet_all
from benchmarks.reliability.hostile_files import CATALOGUE, CKPT, checkpoint, png, run
from exml_lightning.callbacks.resume import find_checkpoint
from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.ex_model.predict import fit_image
from exml_lightning.experts import read_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.origin import check_origin
from exml_lightning.files import read_yaml
from exml_lightning.scenarios import image_files
from exml_lightning.scenarios.image_files import open_image


@pytest.fixture(scope="module")
def met(tmp_path_factory):
    """What became of each file of the catalogue."""
    import_module("exml_lightning.cli.lightning_cli")  # here, or the child would have to
    results = run(tmp_path_factory.mktemp("hostile"))
    assert len({name for name, *_ in results}) == len(results)
    return {name: (refused, said) for name, refused, said in results}


@pytest.mark.parametrize("name", [hostile.name for hostile in CATALOGUE])
def test_it_is_refused(met, name):
    refused, said = met[name]
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


@pytest.mark.parametrize("verb", ["fit", "test", pytest.param("validate", marks=pytest.mark.slow)])
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


def test_plain_yaml_is_read_with_anchors_merges_and_dates_as_text(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("a: &a {x: [1, 2.5, null, yes]}\nb: {<<: *a, y: 2024-05-01}\nc: [*a, *a]\n")
    x = [1, 2.5, None, True]
    assert read_yaml(path) == {"a": {"x": x}, "b": {"x": x, "y": "2024-05-01"}, "c": [{"x": x}, {"x": x}]}
    path.write_text("")
    assert read_yaml(path) is None


def test_aliases_are_counted_as_if_written_out(tmp_path):
    """A list of 999 ones is 1,000 values: 999 of them in a list are 999,001, and 1,001 of them too many."""
    path = tmp_path / "a.yaml"
    ones = f"&a [{', '.join('1' * 999)}]"
    path.write_text(f"[{ones}{', *a' * 998}]")
    assert len(read_yaml(path)) == 999
    path.write_text(f"[{ones}{', *a' * 1000}]")
    with pytest.raises(ExmlError, match="1000000 values"):
        read_yaml(path)


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
    (tmp_path / "own_net.py").write_text(f"import os\nos.mkdir({str(tmp_path / CANARY)!r})")
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


def test_an_image_of_the_largest_size_is_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(image_files, "MAX_PIXELS", 600)
    for size, taken in (((30, 20), True), ((601, 1), False), ((1, 1), True)):
        Image.new("L", size).save(tmp_path / "a.png")
        if taken:
            with open_image(tmp_path / "a.png") as image:
                assert image.size == size
        else:
            with (
                pytest.raises(ValueError, match="too large: 601x1 pixels; 600 at most"),
                open_image(tmp_path / "a.png"),
            ):
                pass


def test_a_header_of_an_image_is_read_before_its_pixels(tmp_path):
    """The catalogue's images say what they claim: PIL, which is asked for nothing but the header, agrees."""
    (tmp_path / "a.png").write_bytes(png(300, 200))
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (300, 200)
    assert struct.unpack(">II", png(300, 200)[16:24]) == (300, 200)


def test_the_first_frame_of_several_is_seen(tmp_path):
    frames = [Image.new("L", (4, 4), value) for value in (10, 200)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with open_image(tmp_path / "a.png") as image:
        assert image.getpixel((0, 0)) == 10


@pytest.mark.parametrize("shape", [(1, 2_000_000), (2_000_000, 1)])
def test_a_long_strip_is_not_made_longer(shape):
    """As high as the input it would have 64 million pixels a line; its middle is what is seen in any case."""
    strip = torch.zeros(1, *shape, dtype=torch.uint8)
    strip.view(-1)[999_968:1_000_032] = 200
    fitted = fit_image(strip, (1, 32, 32))
    assert fitted.shape == (1, 32, 32)
    assert fitted.eq(200).all()
