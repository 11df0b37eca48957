"""Labels and probabilities of image files, compared with PIL, torch and the weights' file alone."""

import csv
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.datasets import load_digits

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.ex_model.predict import Predictions, how_much_is_right, predict, write_predictions
from exml_lightning.experts import ExpertEntry, Manifest, read_manifest, save_weights, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.models import LeNet5, SlimResNet18
from exml_lightning.scenarios.image_files import fit_image
from tests.conftest import refused

MEAN, STD = 0.3054, 0.3235  # the shipped manifest's


@pytest.fixture
def ex_model(tmp_path, digit_experts):
    """The shipped expert of fives and fours, alone in a folder."""
    folder = tmp_path / "ex_model"
    folder.mkdir()
    shutil.copy(digit_experts / "expert_0.safetensors", folder)
    manifest = read_manifest(digit_experts)
    write_manifest(replace(manifest, experts=manifest.experts[:1]), folder)
    return folder


@pytest.fixture
def digits(tmp_path):
    """Forty fours and fives of scikit-learn as PNG files of 8x8 pixels, a folder a class; returns the folder."""
    data = load_digits()
    for label in (4, 5):
        folder = tmp_path / "images" / str(label)
        folder.mkdir(parents=True)
        for i, image in enumerate(data.images[data.target == label][:20]):
            Image.fromarray((image * 255 / 16).astype(np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "images"


def by_hand(files, folder) -> torch.Tensor:
    """Probabilities of 5 and 4: PIL resizes, the units 5 and 4 speak."""
    network = LeNet5()
    network.load_state_dict(load_file(folder / "expert_0.safetensors"))
    network.eval()
    images = [np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BILINEAR)) / 255 for file in files]
    pixels = torch.tensor(np.stack(images), dtype=torch.float32)[:, None]
    with torch.no_grad():
        return network((pixels - MEAN) / STD)[:, [5, 4]].softmax(dim=1)


def test_probabilities_are_those_of_the_network_by_itself(ex_model, digits, monkeypatch):
    found = predict(ex_model, digits)
    files = sorted(digits.rglob("*.png"), key=str)
    assert found.files == tuple(file.relative_to(digits).as_posix() for file in files)
    assert found.classes == ("5", "4")
    torch.testing.assert_close(found.probabilities, by_hand(files, ex_model), atol=0.02, rtol=0)
    assert found.labels == [file.parent.name for file in files]
    assert found.broken == 0
    monkeypatch.setattr(ImageFormat, "chunk", 7)
    few = predict(ex_model, digits)
    torch.testing.assert_close(few.probabilities, found.probabilities, atol=1e-5, rtol=1e-5)


def test_images_of_the_right_size_are_taken_as_they_are(ex_model, digits, tmp_path):
    for file in digits.rglob("*.png"):
        Image.open(file).resize((32, 32), Image.Resampling.BILINEAR).save(file)
    files = sorted(digits.rglob("*.png"), key=str)
    torch.testing.assert_close(predict(ex_model, digits).probabilities, by_hand(files, ex_model), atol=1e-5, rtol=1e-5)
    single = predict(ex_model, files[3])
    assert single.files == (files[3].name,)
    torch.testing.assert_close(single.probabilities, by_hand(files[3:4], ex_model), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "resized", "corner"),
    [  # (width, height), both by hand: 16 high or 12 wide, then the middle 12x16 (width, height)
        ((40, 20), (32, 16), (10, 0)),
        ((20, 40), (12, 24), (0, 4)),
        ((12, 16), (12, 16), (0, 0)),
        ((5, 6), (13, 16), (0, 0)),
    ],
)
def test_the_short_side_is_made_to_fit_and_the_middle_is_taken(size, resized, corner):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    smooth = Image.fromarray(noise).resize((8, 8)).resize(size, Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.asarray(smooth).copy()).permute(2, 0, 1)
    left, top = corner
    expected = smooth.resize(resized, Image.Resampling.BILINEAR).crop((left, top, left + 12, top + 16))
    difference = fit_image(pixels, (3, 16, 12)).permute(1, 2, 0).int() - torch.tensor(np.asarray(expected)).int()
    assert difference.abs().max() <= 2
    grey = fit_image(pixels, (1, 16, 12))
    luma = torch.tensor(np.asarray(expected)).float() @ torch.tensor([0.299, 0.587, 0.114])
    assert grey.shape == (1, 16, 12)
    assert (grey[0] - luma).abs().max() <= 3
    assert torch.equal(fit_image(grey, (3, 16, 12)), grey.expand(3, -1, -1))


def test_an_expert_is_shown_images_as_it_expects_them(tmp_path):
    """An expert whose input is not the stream's, by hand."""
    torch.manual_seed(0)
    network = SlimResNet18(3, width=4).eval()
    digest = save_weights(network, tmp_path / "rgb.safetensors")
    own = ImageFormat((3, 16, 16), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    architecture = Architecture("exml_lightning.models.SlimResNet18", {"num_classes": 3, "width": 4})
    names = ("cow", "ant", "bee")
    entry = ExpertEntry("rgb.safetensors", digest, architecture, names, (0, 1, 2), input=own)
    images = ImageFormat((1, 32, 32), (0.5,), (0.5,))
    write_manifest(Manifest("zoo", None, tuple(sorted(names)), images, (entry,)), tmp_path)
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    images = torch.tensor(pixels / 255, dtype=torch.float32).permute(2, 0, 1)[None]
    normalised = (images - torch.tensor(own.mean)[:, None, None]) / torch.tensor(own.std)[:, None, None]
    with torch.no_grad():
        expected = network(normalised).softmax(dim=1)
    found = predict(tmp_path, tmp_path / "x.png")
    assert found.classes == names
    torch.testing.assert_close(found.probabilities, expected, atol=1e-5, rtol=1e-5)


def test_the_command_writes_a_csv_and_says_so(ex_model, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (digits / "deep" / "er").mkdir(parents=True)
    shutil.copy(digits / "4" / "0.png", digits / "deep" / "er" / "Ünï ,x.PNG")
    (digits / "5" / "broken.png").write_bytes(b"no image")
    (tmp_path / "predictions.csv").write_text("old")
    main(["predict", str(ex_model), str(digits), "--device", "cpu"])
    rows = list(csv.DictReader((tmp_path / "predictions.csv").open(encoding="utf-8", newline="")))
    assert len(rows) == 41
    assert list(rows[0]) == ["file", "label", "probability", "p(5)", "p(4)"]
    by_file = {row["file"]: row for row in rows}
    copy, original = by_file["deep/er/Ünï ,x.PNG"], by_file["4/0.png"]
    assert {**copy, "file": ""} == {**original, "file": ""}
    assert all(row["label"] == row["file"][0] for row in rows if row["file"][0] in "45")
    for row in rows:
        assert float(row["p(5)"]) + float(row["p(4)"]) == pytest.approx(1, abs=1e-5)
        assert row["probability"] == row[f"p({row['label']})"]
    out = capsys.readouterr().out
    assert "predictions.csv: 41 images" in out
    assert "left out, since they could not be read: 1" in out
    mean = np.mean([float(row["probability"]) for row in rows if row["label"] == "4"])
    lines = [line.split() for line in out.splitlines()]
    assert ["4", "21", f"{mean:.3f}"] in lines
    # all forty in folders with the names of classes are right, and that in deep/ does not count
    assert "right: 100.0 % of 40 images of 2 classes; by guessing among the 2 that it knows: 50.0 %. 1 images" in out
    assert all(row in lines for row in (["5", "20", "100.0", "20", "0"], ["4", "20", "100.0", "0", "20"]))


def test_of_many_classes_the_most_frequent_mistake_is_named():
    names = tuple(f"c{k}" for k in range(13))
    files = [f"c3/{k}.png" for k in range(4)] + ["c5/x/y.png", "loose.png", "else/c3/z.png"]
    given = torch.nn.functional.one_hot(torch.tensor([3, 4, 7, 7, 5, 0, 0]), 13).float()
    line, headings, rows = how_much_is_right(Predictions(names, tuple(files), given, 0))
    assert line.startswith(
        "right: 40.0 % of 5 images of 2 classes; by guessing among the 13 that it knows: 7.7 %. 2 im"
    )
    assert headings == ["images of", "number", "% right", "taken for most"]
    assert rows == [["c3", "4", "25.0", "c7 (2)"], ["c5", "1", "100.0", ""]]
    assert how_much_is_right(Predictions(names, ("a.png", "b/c3.png"), given[:2], 0)) is None


def test_a_class_called_like_a_column_does_not_collide(tmp_path):
    names = ("file", "label", "probability", "p(file)")
    write_predictions(Predictions(names, ("x.png",), torch.tensor([[0.1, 0.2, 0.6, 0.1]]), 0), tmp_path / "p.csv")
    (row,) = csv.DictReader((tmp_path / "p.csv").open())
    assert len(row) == 7
    assert (row["file"], row["label"], row["p(probability)"]) == ("x.png", "probability", "0.6")


def test_broken_images_are_named_and_left_out(ex_model, digits, caplog):
    (digits / "4" / "0.png").write_bytes((digits / "4" / "0.png").read_bytes()[:60])
    (digits / "4" / "text.jpg").write_text("no image")
    with caplog.at_level(logging.WARNING):
        found = predict(ex_model, digits)
    assert (len(found.files), found.broken) == (39, 2)
    assert [f"{digits / '4' / name} cannot be read" in caplog.text for name in ("0.png", "text.jpg")] == [True, True]
    for file in digits.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(ExmlError, match=r"none of 41 images can be read; the first: .*0\.png cannot be read"):
        predict(ex_model, digits)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": "nowhere"}, "nowhere is neither a folder nor a file"),
        ({"folder": "images"}, "manifest.yaml is missing"),
        ({"expert": 1}, "there is no expert 1: give --expert K"),
        ({"device": "cuda"}, "no CUDA device"),
    ],
)
def test_bad_input_is_one_line(ex_model, digits, tmp_path, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (tmp_path / "none").mkdir()
    given = {"folder": ex_model, "images": digits, **changes}
    with pytest.raises(ExmlError, match=said):
        predict(Path(given.pop("folder")), Path(given.pop("images")), **given)


def test_a_folder_for_the_csv_and_another_network_are_refused(ex_model, digits, capsys):
    args = ["predict", str(ex_model), str(digits), "--output"]
    assert "images is a folder" in refused([*args, str(digits)], capsys)
    said = refused([*args, str(digits / "4" / "0.png" / "p.csv")], capsys)
    assert "p.csv cannot be written" in said
    assert said.endswith("0.png is a file; name another file with --output FILE")
    manifest = read_manifest(ex_model)
    broken = replace(manifest.experts[0], architecture=Architecture("exml_lightning.models.LeNet5", {"num_classes": 3}))
    write_manifest(replace(manifest, experts=(broken,)), ex_model)
    assert "belongs to another network" in refused([*args, str(ex_model / "p.csv")], capsys)
    assert not list(ex_model.glob("*.csv"))


def test_none_of_these_is_a_label_of_its_own(ex_model, digits, tmp_path):
    """Of an ex-model whose manifest says that it was taught so: a class more, of logit 0."""
    taught = shutil.copytree(ex_model, tmp_path / "taught")
    manifest = read_manifest(taught)
    entry = replace(manifest.experts[0], training={"none_of_these": 0.3})
    weights = load_file(taught / "expert_0.safetensors")
    weights["classifier.bias"] -= 9  # so that it is sure of few
    network = LeNet5()
    network.load_state_dict(weights)
    entry = replace(entry, sha256=save_weights(network, taught / "expert_0.safetensors"))
    write_manifest(replace(manifest, experts=(entry,)), taught)
    found, plain = predict(taught, digits), predict(ex_model, digits)
    assert plain.none is None
    torch.testing.assert_close(found.probabilities, plain.probabilities)  # a shift of all logits
    files = [digits / file for file in found.files]
    images = [np.asarray(Image.open(file).resize((32, 32), Image.Resampling.BILINEAR)) / 255 for file in files]
    pixels = (torch.tensor(np.stack(images), dtype=torch.float32)[:, None] - MEAN) / STD
    with torch.no_grad():
        logits = network.eval()(pixels)[:, [5, 4]]
    expected = torch.cat([logits, torch.zeros(40, 1)], dim=1).softmax(dim=1)
    torch.testing.assert_close(found.none, expected[:, 2], rtol=1e-4, atol=1e-5)
    rejected = [label == "none of these" for label in found.labels]
    assert rejected == (expected[:, 2] > 0.3).tolist()
    assert 0 < sum(rejected) < 40
    assert int(found.confusion[:, -1].sum()) == sum(rejected)
    _, headings, table = how_much_is_right(found)
    assert headings == ["images of", "number", "% right", "5", "4", "none of these"]
    assert sum(int(row[-1]) for row in table) == sum(rejected)
    for row in table:
        assert int(row[1]) == sum(map(int, row[3:]))
    write_predictions(found, tmp_path / "found.csv")
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row, none in zip(rows, rejected, strict=True):
        assert float(row["probability"]) == float(row["none of these"] if none else row[f"p({row['label']})"])


def test_an_image_answered_otherwise_in_other_company_is_warned_of(digits, tmp_path, caplog):
    folder = tmp_path / "zoo"
    architecture = Architecture("tests.experts.test_first_reading.Net", {"begin": "untracked", "num_classes": 2})
    hashed = save_weights(architecture.build("company"), folder / "a.safetensors")
    entry = ExpertEntry("a.safetensors", hashed, architecture, ("5", "4"), (0, 1))
    write_manifest(Manifest("zoo", None, ("5", "4"), ImageFormat((1, 8, 8), (0.5,), (0.5,)), (entry,)), folder)
    predict(folder, digits)
    assert "a.safetensors answers an image otherwise in other company" in caplog.text
