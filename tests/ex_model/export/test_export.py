"""`exml export`: the folder's files, ONNX asked by onnxruntime itself, the card, and what is refused."""

import importlib.util
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.ex_model.export import folder as export_folder
from exml_lightning.ex_model.export.folder import FILES, export_ex_model
from exml_lightning.ex_model.model import load_ex_model
from exml_lightning.experts import ExpertEntry, Manifest, read_manifest, save_weights, write_manifest
from exml_lightning.experts.architecture import Architecture
from tests.conftest import EXPERTS, refused

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


@pytest.fixture
def digits(tmp_path):
    """Nine digits of scikit-learn as PNG files of 8x8 pixels; returns the folder."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for i, image in enumerate(load_digits().images[:9]):
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def front_matter(folder) -> dict:
    _, matter, _ = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(matter)


def ask(folder, images):
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    return torch.from_numpy(logits), session.get_modelmeta().custom_metadata_map


def real_images(count: int, shape: tuple[int, int, int]) -> torch.Tensor:
    """Crops of scikit-learn's two photographs: float pixels in [0, 1]."""
    channels, height, width = shape
    photos = [torch.from_numpy(photo.copy()).permute(2, 0, 1) / 255 for photo in load_sample_images().images]
    crops = [photos[k % 2][:channels, 20 * k : 20 * k + height, 30 * k : 30 * k + width] for k in range(count)]
    return torch.stack(crops)


def test_from_the_command_line(tmp_path, digits, capsys, monkeypatch):
    output = tmp_path / "out"
    command = ["export", str(EXPERTS), "--expert", "1", "--output", str(output), "--check", str(digits)]
    main(command)
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0] == f"{output}: {', '.join(FILES)}"
    assert "on 9 images (given by --check): labels equal on 100.00%" in lines[1]
    assert len(lines) == 4
    assert "no licence is stated" in lines[2]
    assert sorted(path.name for path in output.iterdir()) == sorted(FILES)

    # PyTorch, by the folder; ONNX, by onnxruntime alone
    model, original = load_ex_model(output), load_ex_model(EXPERTS, expert=1)
    for count in (1, 7):
        images = real_images(count, (1, 32, 32))
        with torch.no_grad():
            expected = original(images)
            assert torch.equal(model(images), expected)
        logits, about = ask(output, images)
        assert torch.allclose(logits, expected, atol=1e-4)
    assert json.loads(about["classes"]) == ["8", "2"]
    assert json.loads(about["image_shape"]) == [1, 32, 32]

    config = json.loads((output / "config.json").read_text())
    assert (config["id2label"], config["label2id"]) == ({"0": "8", "1": "2"}, {"8": 0, "2": 1})
    assert (config["architectures"], config["image_size"], config["num_channels"]) == (["LeNet5"], [32, 32], 1)
    assert (config["image_mean"], config["image_std"]) == ([0.3054], [0.3235])
    matter = front_matter(output)
    assert "license" not in matter
    assert (matter["pipeline_tag"], matter["library_name"]) == ("image-classification", "exml_lightning")
    assert "100.00% on its own classes" in (output / "README.md").read_text()

    kept = (output / "model.onnx").read_bytes()
    monkeypatch.setattr(export_folder, "write_onnx", lambda ex_model, path: path.write_bytes(kept))
    (output / "notes.txt").write_text("mine")  # a second export replaces the first, and leaves the rest alone
    main([*command, "--license", "apache-2.0"])
    assert "licence" not in capsys.readouterr().out
    assert front_matter(output)["license"] == "apache-2.0"
    assert (output / "notes.txt").read_text() == "mine"
    export_ex_model(output, tmp_path / "again", check=digits)  # the manifest has kept the licence
    assert front_matter(tmp_path / "again")["license"] == "apache-2.0"
    export_ex_model(output, tmp_path / "again", check=digits, license="MIT")
    assert front_matter(tmp_path / "again")["license"] == "mit"
    export_ex_model(output, tmp_path / "again", check=digits, license="ours-1")
    matter = front_matter(tmp_path / "again")
    assert (matter["license"], matter["license_name"]) == ("other", "ours-1")


def test_another_answer_is_an_error_and_nothing_stays(tmp_path, digits, monkeypatch):
    def wrong(path, batches):
        yield from (torch.zeros(len(batch), 2) for batch in batches)

    monkeypatch.setattr("exml_lightning.ex_model.export.compare.ask_onnx", wrong)
    monkeypatch.setattr(export_folder, "write_onnx", lambda ex_model, path: path.write_bytes(b""))
    with pytest.raises(ExmlError, match=r"answers differently from PyTorch on 9 images .* labels are equal on \d"):
        export_ex_model(EXPERTS, tmp_path / "out", expert=1, check=digits)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits"]


def test_what_is_refused_before_work(tmp_path, digits, monkeypatch, capsys):
    def no_work(*args):
        raise AssertionError

    monkeypatch.setattr(export_folder, "load_chosen", no_work)
    words = ["export", str(EXPERTS), "--output", str(tmp_path / "out")]
    assert "has 5 experts; which of them? give --expert K" in refused(words, capsys)
    words += ["--expert", "0"]
    assert "has no samples of a run beside it: give images" in refused(words, capsys)
    assert "has no image that can be read" in refused([*words, "--check", str(tmp_path / "nowhere")], capsys)
    words += ["--check", str(digits)]
    assert "give a name of the Hub's list" in refused([*words, "--license", "[mine](http://x)"], capsys)
    assert "manifest.yaml is missing" in refused(["export", str(tmp_path)], capsys)
    assert "a README.md that is of no earlier export" in refused_into(tmp_path / "docs", words, capsys)
    with monkeypatch.context() as patch:
        patch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else name)
        said = refused(words, capsys)
    assert "exml export needs onnxscript: " in said
    assert 'pip install -e ".[export]"' in said
    assert not (tmp_path / "out").exists()


def refused_into(folder, words, capsys) -> str:
    folder.mkdir()
    (folder / "README.md").write_text("mine")
    said = refused([*words, "--output", str(folder)], capsys)
    assert (folder / "README.md").read_text() == "mine"
    return said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("class_path", "init_args", "size"),
    [
        ("exml_lightning.models.SlimResNet18", {"width": 8, "num_classes": 3}, 32),
        ("torchvision.models.mobilenet_v3_small", {"num_classes": 3}, 64),
        ("torchvision.models.squeezenet1_1", {"num_classes": 3}, 64),
    ],
)
def test_networks_on_photographs(tmp_path, class_path, init_args, size):
    architecture = Architecture(class_path, init_args)
    network = architecture.build("export")
    with torch.no_grad():
        network(real_images(12, (3, size, size)) * 3 - 1.5)  # batch norm remembers them: in eval mode it uses these
    folder, photos = tmp_path / "model", tmp_path / "photos"
    digest = save_weights(network, folder / "a.safetensors")
    entry = ExpertEntry("a.safetensors", digest, architecture, ("a", "b"), (2, 0))
    images = ImageFormat((3, size, size), (0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    write_manifest(Manifest("photos", None, ("a", "b"), images, (entry,)), folder)
    photos.mkdir()
    for k, image in enumerate(real_images(12, (3, size, size))):
        Image.fromarray((image * 255).byte().permute(1, 2, 0).numpy()).save(photos / f"{k}.png")
    made = export_ex_model(folder, check=photos)
    assert made.folder == tmp_path / "model_export"
    assert made.comparison.images == 12
    assert made.comparison.equal == 1
    network.eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (images.mean, images.std))
    for count in (1, 7):
        pixels = real_images(count, (3, size, size))
        with torch.no_grad():
            expected = network((pixels - mean) / std)[:, [2, 0]]
        assert torch.allclose(ask(made.folder, pixels)[0], expected, atol=1e-3 * expected.abs().max().item())


def test_a_run_gives_the_card_its_figures(tmp_path, digits, monkeypatch):
    """The results of a run with a data set, written by hand; no ONNX is made."""
    run = tmp_path / "run"
    shutil.copytree(EXPERTS, run / "ex_model")
    manifest = read_manifest(EXPERTS)
    learned = [{"sha256": entry.sha256, "architecture": "a.B<i>", "classes": ["x|y"]} for entry in manifest.experts[:2]]
    training = {"strategy": "noise", "scenario": "digits of mine", "experts": 2, "learned": learned}
    entry = replace(manifest.experts[0], classes=("<script>", "4"), training=training)
    names = ("<script>", "4")
    write_manifest(replace(manifest, class_names=names, experts=(entry,)), run / "ex_model")
    summary = {"stream_accuracy": 0.4321, "average_accuracy": 0.5, "forgetting": -0.1, "experiences_learned": 2}
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "accuracy_matrix.csv").write_text("after_experience,0,1,stream\n0,0.875,0.0,0.25\n1,0.5,0.75,0.4321\n")
    monkeypatch.setattr(export_folder, "write_onnx", lambda ex_model, path: path.write_bytes(b""))
    model = load_ex_model(run / "ex_model")
    asked = "exml_lightning.ex_model.export.compare.ask_onnx"
    monkeypatch.setattr(asked, lambda path, batches: (model(batch).detach() for batch in batches))
    card = (export_ex_model(run / "ex_model", check=digits).folder / "README.md").read_text()
    assert "grown from 2 trained ones" in card
    assert "- stream accuracy: 43.21%\n- average accuracy: 50.00%\n- forgetting: -10.00%" in card
    assert "| learned | expert 1 | expert 2 | whole stream |" in card
    assert "| expert 2 | 50.0 | 75.0 | 43.2 |" in card
    assert manifest.experts[1].sha256 in card
    assert "<script>" not in card.replace(r"\<script\>", "")
    assert r"x\|y" in card
    (index,) = front_matter(run / "ex_model_export")["model-index"]
    assert index["results"][0]["dataset"]["name"] == "digits of mine"
    assert index["results"][0]["metrics"] == [{"type": "accuracy", "value": 0.4321, "name": "stream accuracy"}]

    (run / "summary.json").write_text(json.dumps({**summary, "experiences_learned": 3}))
    with pytest.raises(ExmlError, match=r"is of 3 experts, but .* of 2: the run was stopped"):
        export_ex_model(run / "ex_model", check=digits)
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "accuracy_matrix.csv").write_text("after_experience,0,1,stream\n0,much,0.0,0.25\n")
    with pytest.raises(ExmlError, match=r"accuracy_matrix.csv is broken"):
        export_ex_model(run / "ex_model", check=digits)
