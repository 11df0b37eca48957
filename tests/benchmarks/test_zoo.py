"""The zoo of photographs, of a few random images and untrained nets; fits are replaced."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.zoo import make, measure
from exml_lightning.baselines import EnsembleAverage, MinEntropy
from exml_lightning.core.rng import keyed_generator
from exml_lightning.experts import read_manifest
from exml_lightning.experts.weights import load_expert
from exml_lightning.scenarios import CIFAR10
from exml_lightning.scenarios.image_files import read_image


def small(num_classes: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, num_classes)
    )


class Other(nn.Sequential):
    def __init__(self, num_classes: int) -> None:
        super().__init__(*small(num_classes))


NETS = (
    make.Net(f"{__name__}.small", 32, ("cat", "ship"), 1, (0.5,), (0.5,)),
    make.Net(f"{__name__}.Other", 40, ("ship", "frog", "cat"), 1, (0.4, 0.5, 0.6), (0.2,) * 3, 6.0),
)


def write_images(folder, count, generator):
    folder.mkdir(parents=True)
    for k in range(count):
        pixels = torch.randint(256, (32, 32, 3), dtype=torch.uint8, generator=generator)
        Image.fromarray(pixels.numpy()).save(folder / f"{k}.png")


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp("zoo"), keyed_generator("test", "zoo")
    for split in ("train", "test"):
        for name in CIFAR10.class_names:
            write_images(folder / "cifar10" / split / name, 4, generator)
    write_images(folder / "photos", 30, generator)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"NETS": NETS, "CLASSES": ("cat", "ship", "frog"), "BATCH": 4, "LABELLED": 3}.items():
            patch.setattr(make, name, value)
        patch.setattr("sys.argv", ["make", "--root", str(folder), "--folder", str(folder)])
        make.main()
        patch.setattr(make, "trained", None)  # what is there is not trained again
        make.main()
    return folder


def test_experts_are_listed_as_they_were_trained(zoo):
    manifest = read_manifest(zoo / "experts")
    assert manifest.class_names == ("cat", "ship", "frog")
    assert [entry.classes for entry in manifest.experts] == [net.classes for net in NETS]
    assert manifest.input.shape == (3, 32, 32)
    assert manifest.experts[1].input.shape == (3, 40, 40)
    assert manifest.experts[1].input.mean == (0.4, 0.5, 0.6)
    assert (
        sorted(path.parent.name for path in (zoo / "labelled").rglob("*.png"))
        == ["cat"] * 3 + ["frog"] * 3 + ["ship"] * 3
    )
    # the photos that are written are those of the test split, pixel by pixel
    written = Image.open(zoo / "labelled" / "frog" / "0002.png")
    assert written.tobytes() == Image.open(zoo / "cifar10" / "test" / "frog" / "2.png").tobytes()


def test_a_sharp_expert_answers_the_same():
    network, images = nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), torch.randn(5, 3, 2, 2)
    before = network(images)
    make.sharpen(network, 6.0)
    torch.testing.assert_close(network(images), 6 * before)


def test_stored_experts_are_asked_as_the_baselines_ask_them(zoo, monkeypatch):
    monkeypatch.setattr(measure, "REFERENCE", 20)
    figures = measure.stored(zoo / "experts", zoo / "labelled", zoo / "photos")
    manifest = read_manifest(zoo / "experts")
    experts = [load_expert(zoo / "experts", manifest, k) for k in range(2)]
    files = sorted((zoo / "labelled").rglob("*.png"))
    labels = [manifest.class_names.index(file.parent.name) for file in files]
    images = manifest.input.normalize(torch.stack([read_image(str(file), (3, 32, 32)) for file in files]))
    answers = {
        baseline: [baseline.answer(expert, images, 0, 3) for expert in experts]
        for baseline in (EnsembleAverage(), MinEntropy())
    }
    average, entropy = answers.values()
    for name, scores in {
        "ensemble average": [
            [torch.stack([part[i, c] for part in average if part[i, c] > -torch.inf]).mean() for c in range(3)]
            for i in range(9)
        ],
        "min entropy": torch.maximum(*entropy).tolist(),
    }.items():
        right = sum(max(range(3), key=row.__getitem__) == label for row, label in zip(scores, labels, strict=True))
        assert figures[f"stored experts, {name}"] == pytest.approx(100 * right / 9), name
    guesses = [expert.own_logits(images, 3).argmax(dim=1).tolist() for expert in experts]
    told = sum(max(sum(g[i] == c == labels[i] for i in range(9)) for g in guesses) for c in range(3))
    assert figures["told which expert is right, the best of those that know the class"] == pytest.approx(100 * told / 9)
    assert figures["chance"] == pytest.approx(100 / 3)
    assert {name for name in figures if "quantiles" in name} == {
        "stored experts, quantiles of 20 unrelated photos, mean",
        "stored experts, quantiles of 20 drawings, mean",
    }


def test_fits_are_measured_and_written(tmp_path, monkeypatch, capsys):
    ran = []

    def run(words):
        ran.append(words)
        place = Path(words[words.index("--trainer.default_root_dir") + 1])
        (place / "summary.json").write_text(json.dumps({"stream_accuracy": 0.125, "peak_memory_mb": 512.4}))

    monkeypatch.setattr(measure, "exml", run)
    results = tmp_path / "zoo.json"
    options = ["--folder", "a", "--photos", "b", "--results", str(results), "--", "--data.n_iter", "4"]
    monkeypatch.setattr("sys.argv", ["measure", "default", "photos", *options])
    measure.main()
    of_all = "--data.experts a/experts --data.labelled a/labelled --data.n_iter 4"
    files = "exml fit -c configs/from_folder.yaml -c configs/trainer/cpu.yaml"
    found = json.loads(results.read_text())
    assert found["default"]["command"] == f"{files} {of_all}"
    photos = "--data.auxiliary FolderImages --data.auxiliary.folder b"
    assert found["photos"]["command"] == f"{files} {photos} {of_all}"
    assert [words[:-4] for words in ran] == [found[row]["command"].split()[1:] for row in ("default", "photos")]
    assert "with unrelated photos | 12.5 | 0.0 | 512 |" in results.with_suffix(".md").read_text()
    assert results.with_suffix(".md").read_text() in capsys.readouterr().out


def test_each_fit_is_a_command(parse, repository, monkeypatch):
    monkeypatch.chdir(repository)
    given = {row: parse(measure.command(row, Path("a"), Path("b"), ["--data.n_iter", "4"])) for row in measure.FITS}
    for config in given.values():
        assert (str(config.data.experts), str(config.data.labelled), config.data.n_iter) == (
            "a/experts",
            "a/labelled",
            4,
        )
    assert str(given["photos"].data.auxiliary.init_args.folder) == "b"
    assert given["default"].data.auxiliary is None
    assert given["model_inversion"].buffer.generator.class_path.endswith(".ModelInversion")
