"""``data.labelled``: accuracy on a folder of one's own images, with and without a scenario."""

import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.generators import Noise
from exml_lightning.experts import load_expert, read_manifest
from exml_lightning.fitting import distil
from exml_lightning.scenarios.image_files import fit_image
from exml_lightning.scenarios.labelled_folder import read_labelled
from tests.conftest import EXPERTS, ROOT, refused

NAMES = tuple("0123456789")
FEW = {"generator": Noise(), "n_iter": 2, "batch_size": 4, "buffer_size": 10}
MIN_ENTROPY = ["-c", str(ROOT / "configs" / "baselines" / "min_entropy.yaml")]


def write_digits(folder: Path, classes: str, each: int = 12) -> Path:
    """Write scikit-learn's digits as PNG files of 8x8 pixels, a folder a class."""
    data = load_digits()
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(data.images[data.target == int(name)][:each]):
            Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


def together(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What the five shipped experts answer, by hand: the mean of their logits, and whoever has the least entropy."""
    manifest, images = read_manifest(EXPERTS), (pixels / 255 - 0.3054) / 0.3235
    said, surest, guesses = [], torch.full((len(images),), -torch.inf), torch.zeros(len(images), dtype=torch.long)
    for k in range(5):
        with torch.no_grad():
            logits, own = load_expert(EXPERTS, manifest, k).model(images), torch.tensor(manifest.classes_of(k))
        chances = logits.softmax(dim=1)
        score = (chances * chances.log()).sum(dim=1)
        guesses = torch.where(score > surest, own[logits[:, own].argmax(dim=1)], guesses)
        surest = surest.maximum(score)
        said.append(logits)
    return {"ensemble average": torch.stack(said).mean(dim=0).argmax(dim=1), "min entropy": guesses}


@pytest.fixture
def two_and_three(tmp_path):
    """Images of two classes, which the experts 1 and 4 brought."""
    return write_digits(tmp_path / "images", "23")


def test_images_are_read_once_and_the_broken_ones_left_out(two_and_three, caplog):
    (two_and_three / "2" / "deep").mkdir()
    Image.new("RGB", (40, 20), (255, 0, 0)).save(two_and_three / "2" / "deep" / "red.jpg")
    (two_and_three / "3" / "broken.png").write_bytes(b"no image")
    Image.new("L", (8, 8)).save(two_and_three / "loose.png")
    (two_and_three / ".hidden").mkdir()
    with caplog.at_level(logging.WARNING):
        found = read_labelled(two_and_three, NAMES, (1, 32, 32))
    assert found.labels.tolist() == [2] * 13 + [3] * 12
    with Image.open(two_and_three / "3" / "7.png") as image:
        pixels = torch.from_numpy(np.asarray(image).copy())[None]
    place = 13 + sorted(f"{i}.png" for i in range(12)).index("7.png")
    assert torch.equal(found.images[place], fit_image(pixels, (1, 32, 32)))
    assert abs(float(found.images[12].float().mean()) - 76) < 2  # the luma of red: after 0 to 9 comes deep/
    assert "broken.png cannot be read" in caplog.text
    assert "1 images of" in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda f: (f / "2").rename(f / "two"), r"some folders are no classes: two\. The experts know 0, 1, 2, 3"),
        (lambda f: (f / "2").rename(f / "CAT"), r"CAT \(did you mean Cat\?\)"),
        (lambda f: [(f / n).rename(f / f"x{n}y") for n in "23"], r"none of the folders is a class: x2y.*, x3y"),
        (lambda f: (f / "5").mkdir(), "has no images in 5"),
        (lambda f: f.rename(f.parent / "other"), "images is no folder"),
        (lambda f: [file.write_bytes(b"") for file in f.glob("3/*")], r"3: none of 12 images can be read; the first"),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_line(two_and_three, change, said):
    change(two_and_three)
    with pytest.raises(ExmlError, match=said):
        read_labelled(two_and_three, (*NAMES, "Cat"), (1, 32, 32))


def test_a_baseline_is_measured_without_a_scenario(two_and_three, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = ["--data.experts", str(EXPERTS), "--data.labelled", "images", "--trainer.accelerator", "cpu"]
    main(["test", "-c", str(ROOT / "configs" / "from_folder.yaml"), *MIN_ENTROPY, *options])
    run = tmp_path / "runs" / "split_digits" / "min_entropy" / "run0"
    found = json.loads((run / "test.json").read_text())
    images = read_labelled(two_and_three, NAMES, (1, 32, 32))
    guesses = together(images.images)["min entropy"]
    right = [float((guesses == c)[images.labels == c].float().mean()) for c in (2, 3)]
    assert found["accuracy_per_class"] == pytest.approx({"2": right[0], "3": right[1]})
    assert found["accuracy_per_experience"] == pytest.approx(right)  # 2 came with expert 1, 3 with expert 4
    assert found["stream_accuracy"] == pytest.approx(sum(right) / 2)
    assert found["chance"] == pytest.approx(0.1)
    rows = list(csv.DictReader((run / "test_confusion_matrix.csv").open()))
    assert [row["class"] for row in rows] == ["2", "3"]
    counted = [[int(row[name]) for name in NAMES] for row in rows]
    assert counted == [[int(((guesses == g) & (images.labels == c)).sum()) for g in range(10)] for c in (2, 3)]
    assert f"{100 * found['stream_accuracy']:.2f} %" in capsys.readouterr().out


def test_a_fit_measures_what_there_are_images_of_and_goes_on(two_and_three, tmp_path, capsys):
    """Before expert 1 no class with images is met; a class of an expert still to come counts as wrong."""
    few = {**FEW, "folder": tmp_path / "run", "accelerator": "cpu", "cache": None}
    distil(EXPERTS, labelled=str(two_and_three), **few)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    rows = list(csv.DictReader((tmp_path / "run" / "accuracy_matrix.csv").open()))
    assert list(rows[0]) == ["after_experience", "1", "4", "stream"]
    assert [float(row["1"]) for row in rows[:1]] == [0]
    assert [float(row["4"]) for row in rows[:4]] == [0] * 4
    assert [float(rows[-1][k]) for k in "14"] == summary["accuracy_per_experience"]
    assert set(summary["accuracy_per_class"]) == {"2", "3"}
    assert not list((tmp_path / "run").glob("agreement*"))
    # the last matrix, from the finished ex-model alone
    images = read_labelled(two_and_three, NAMES, (1, 32, 32))
    network = load_expert(tmp_path / "run" / "ex_model", read_manifest(tmp_path / "run" / "ex_model"), 0).model
    with torch.no_grad():
        guesses = network((images.images / 255 - 0.3054) / 0.3235).argmax(dim=1)
    right = [float((guesses == c)[images.labels == c].double().mean()) for c in (2, 3)]
    assert summary["accuracy_per_experience"] == pytest.approx(right)
    found = {name: float((said == images.labels).float().mean()) for name, said in together(images.images).items()}
    best = max(found, key=found.__getitem__)
    assert summary["stored_experts"] == pytest.approx(found[best])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[:-2] for line in lines if line][-4:-1] == [
        *(["chance"], ["stored", "experts", "together", *f"({best})".split()], ["ex-model"]),
    ]
    # the finished run says the same again, and not of other images
    before = (tmp_path / "run" / "confusion_matrix.csv").read_bytes()
    (tmp_path / "run" / "confusion_matrix.csv").unlink()
    distil(EXPERTS, labelled=str(two_and_three), **few)
    assert (tmp_path / "run" / "confusion_matrix.csv").read_bytes() == before
    (two_and_three / "2" / "0.png").unlink()
    with pytest.raises(ExmlError, match=r"there are 23, there were 24"):
        distil(EXPERTS, labelled=str(two_and_three), **few)


def test_labelled_images_take_the_place_of_a_scenarios(two_and_three, small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("exml_lightning.scenarios.Digits.load", None)  # cannot be called
    main([*small_run(verb="validate"), *MIN_ENTROPY, "--data.labelled", str(two_and_three)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    # two experts of four classes: chance is a quarter of the half that they know
    assert ["chance", "12.50", "%"] in lines
    assert ["3", "0.00", "%"] in lines
    only = write_digits(tmp_path / "late", "3")
    args = [*small_run(verb="validate"), *MIN_ENTROPY, "--data.labelled", str(only)]
    assert "has no images of the classes of the first 2 experts" in refused(args, capsys)
