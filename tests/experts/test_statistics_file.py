import shutil
from dataclasses import replace

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.features import Features
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.procedural import Strokes
from exml_lightning.core.rng import keyed_generator
from exml_lightning.experts import load_expert, read_manifest, write_manifest
from exml_lightning.experts.manifest import PrivacySpent
from exml_lightning.experts.statistics_file import NAMES, publish
from exml_lightning.files import sha256
from tests.conftest import EXPERTS, refused


@pytest.fixture(scope="module")
def zoo_once(tmp_path_factory):
    folder = shutil.copytree(EXPERTS, tmp_path_factory.mktemp("statistics") / "zoo")
    manifest = replace(read_manifest(folder), experts=read_manifest(folder).experts[:1])
    pixels = Strokes().draw(60, (1, 32, 32), keyed_generator("drawn"), torch.device("cpu"))
    expert = load_expert(folder, manifest, 0)
    entry = publish(expert, manifest.experts[0], folder, pixels, torch.arange(60) % 2)
    assert entry.statistics.layer == "features.6"
    write_manifest(replace(manifest, experts=(entry,)), folder)
    return folder


@pytest.fixture
def zoo(zoo_once, tmp_path):
    """The first shipped expert, alone, with statistics of drawings."""
    return shutil.copytree(zoo_once, tmp_path / "zoo")


def test_what_is_published_is_read_back(zoo):
    found = load_expert(zoo, read_manifest(zoo), 0).statistics
    file = zoo / "expert_0.statistics.safetensors"
    assert {name: tensor.tolist() for name, tensor in load_file(file).items()} == {
        name: getattr(found, name).tolist() for name in NAMES
    }
    entry = read_manifest(zoo).experts[0].statistics
    assert (entry.images, entry.layer, found.images.tolist()) == (60, "features.6", [30, 30])


def _narrow(t):
    return {
        name: tensor[..., :-1] if name in ("units", "means", "directions") else tensor for name, tensor in t.items()
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: {k: v for k, v in t.items() if k != "rest"},
            "it must hold units, means, directions, variances, rest",
        ),
        (
            lambda t: {**t, "means": t["means"][:, :-1], "units": t["units"][:-1]},
            r"directions is torch.float32 .* where \[2, 12, 543\] is",
        ),
        (lambda t: {**t, "rest": t["rest"] * torch.nan}, "rest holds NaN or infinity"),
        (lambda t: {**t, "rest": -t["rest"]}, "units, variances and the deviation of distances must be more than 0"),
        (
            lambda t: {**t, "means": t["means"] + 1e38},
            "its numbers are too large or too small",
        ),
        (lambda t: {**_narrow(t)}, "it is of 543 values, the expert has 544"),
        (lambda t: {**t, "distance": t["distance"].double()}, r"distance is torch.float64 \[2\]"),
        (
            lambda t: {**t, "means": torch.zeros(2, 5000)},
            "it has 5000 values and 12 directions: give 145 to 656 and at most 64",
        ),
    ],
)
def test_a_file_of_something_else_is_refused(zoo, change, words):
    file, manifest = zoo / "expert_0.statistics.safetensors", read_manifest(zoo)
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}, file)
    entry = manifest.experts[0]
    entry = replace(entry, statistics=replace(entry.statistics, sha256=sha256(file)))
    with pytest.raises(ExmlError, match=rf"expert_0\.statistics\.safetensors: {words}"):
        load_expert(zoo, replace(manifest, experts=(entry,)), 0)


def test_another_file_a_missing_one_and_a_missing_layer_are_refused(zoo):
    manifest, file = read_manifest(zoo), zoo / "expert_0.statistics.safetensors"
    entry = manifest.experts[0]
    other = replace(entry, statistics=replace(entry.statistics, layer="features.99"))
    with pytest.raises(ExmlError, match=r"layer 'features.99', which the expert lacks"):
        load_expert(zoo, replace(manifest, experts=(other,)), 0)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(ExmlError, match="another hash"):
        load_expert(zoo, manifest, 0)
    file.unlink()
    with pytest.raises(ExmlError, match="is missing, though the manifest beside it names it"):
        load_expert(zoo, manifest, 0)


def test_an_owner_publishes_from_a_folder_of_images(tmp_path, capsys):
    """Of the experts all classes of which are there."""
    zoo, images = shutil.copytree(EXPERTS, tmp_path / "zoo"), tmp_path / "images"
    for name in ("5", "4", "8"):
        pixels = Strokes().draw(25, (1, 32, 32), keyed_generator(name), torch.device("cpu"))
        (images / name).mkdir(parents=True)
        for k, image in enumerate(pixels):
            Image.fromarray(image[0].numpy()).save(images / name / f"{k}.png")
    main(["statistics", str(zoo), str(images)])
    assert "expert_0.safetensors" in capsys.readouterr().out
    entries = yaml.safe_load((zoo / "manifest.yaml").read_text())["experts"]
    assert [entry.get("statistics") is not None for entry in entries] == [True, False, False, False, False]
    assert entries[0]["statistics"]["images"] == 50
    main(["catalog", str(zoo)])
    assert "50 images" in capsys.readouterr().out
    (zoo / "expert_0.statistics.safetensors").write_bytes(b"broken")
    main(["statistics", str(zoo), str(images)])  # as the error about a broken file advises
    assert load_expert(zoo, read_manifest(zoo), 0).statistics is not None
    shutil.rmtree(images / "4")
    assert "no expert has images of all its classes; expert 0 lacks ['4']" in refused(
        ["statistics", str(zoo), str(images)], capsys
    )


def test_private_experts_stay_private_and_statistics_are_no_weights(zoo, capsys):
    (zoo / "images" / "5").mkdir(parents=True)
    (zoo / "images" / "4").mkdir()
    for name, value in (("5", 9), ("4", 200)):
        for k in range(25):
            Image.new("L", (32, 32), value + k).save(zoo / "images" / name / f"{k}.png")
    manifest = read_manifest(zoo)
    args = ["statistics", str(zoo), str(zoo / "images")]
    assert "expert 0 has published statistics without noise" in refused([*args, "--epsilon", "2"], capsys)
    private = replace(manifest.experts[0], privacy=PrivacySpent(8.0, 1e-4), statistics=None)
    write_manifest(replace(manifest, experts=(private,)), zoo)
    assert "expert 0 or its statistics are protected by differential privacy" in refused(args, capsys)
    assert "--epsilon is -1.0: give" in refused([*args, "--epsilon", "-1"], capsys)
    assert "--delta has a meaning with --epsilon only" in refused([*args, "--delta", "0.1"], capsys)
    assert "delta is 0.5, but expert 0 has 50 training images" in refused(
        [*args, "--epsilon", "1", "--delta", "0.5"], capsys
    )
    main([*args, "--epsilon", "2"])
    entry = read_manifest(zoo).experts[0]
    assert entry.statistics.privacy.epsilon == pytest.approx(2, rel=0.01)
    assert entry.statistics.privacy.delta == 1 / 500
    assert entry.privacy.epsilon == pytest.approx(10, rel=0.01)  # what weights and statistics have spent, added up
    assert entry.privacy.delta == pytest.approx(1e-4 + 1 / 500)
    main(["catalog", str(zoo)])
    assert "50 images, epsilon 2" in capsys.readouterr().out
    first = load_expert(zoo, read_manifest(zoo), 0).statistics
    main([*args, "--epsilon", "2"])
    again = load_expert(zoo, read_manifest(zoo), 0).statistics
    assert not torch.equal(first.means, again.means)  # secret noise, another each time
    entry = read_manifest(zoo).experts[0]
    assert entry.privacy.epsilon == pytest.approx(12, rel=0.01)
    assert entry.statistics.privacy.epsilon == pytest.approx(4, rel=0.01)
    for k in range(1, 5):
        (zoo / f"expert_{k}.safetensors").unlink()
    main(["manifest", str(zoo), "--architecture", "exml_lightning.models.LeNet5", "--classes", "5", "4"])
    assert "nothing was added" in capsys.readouterr().out


def test_too_few_images_are_told_before_anything_is_spent(zoo, tmp_path, capsys):
    """Of a later expert, too."""
    shutil.copyfile(EXPERTS / "manifest.yaml", zoo / "manifest.yaml")
    for name, count in (("5", 25), ("4", 25), ("8", 25), ("2", 3)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(count):
            Image.new("L", (32, 32), 9 * k).save(tmp_path / "images" / name / f"{k}.png")
    before = (zoo / "manifest.yaml").read_bytes()
    args = ["statistics", str(zoo), str(tmp_path / "images"), "--epsilon", "3"]
    assert "expert 1: 3 images of its class '2': give 20 or more" in refused(args, capsys)
    assert (zoo / "manifest.yaml").read_bytes() == before


def test_own_images_are_not_strange_in_a_stream_of_other_images(zoo):
    """A selection shows all experts the images of its first one."""
    manifest = read_manifest(zoo)
    pixels = Strokes().draw(200, (1, 32, 32), keyed_generator("other"), torch.device("cpu"))
    other = ImageFormat((3, 32, 32), (0.5,) * 3, (0.25,) * 3)
    entry = replace(manifest.experts[0], input=manifest.input)
    strange = []
    for shown in (manifest.input, other):
        expert = load_expert(zoo, replace(manifest, input=shown, experts=(entry,)), 0)
        images = shown.to_input(pixels.expand(-1, shown.shape[0], -1, -1))
        with Features(expert, "features.6")() as look, torch.no_grad():
            expert(images)
            strange.append(expert.statistics.strangeness(look.pop(images)))
    torch.testing.assert_close(strange[1], strange[0], rtol=1e-2, atol=1e-2)
