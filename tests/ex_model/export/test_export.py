"""`exml export`: the folder's files, ONNX asked by onnxruntime itself, the card, and what is refused."""

import importlib.util
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import nn

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.ex_model.export import folder as export_folder
from exml_lightning.ex_model.export import onnx_file
from exml_lightning.ex_model.export.card import config_json, model_card, read_figures
from exml_lightning.ex_model.export.folder import FILES, export_ex_model
from exml_lightning.ex_model.export.onnx_file import Comparison
from exml_lightning.ex_model.model import ExModel, load_ex_model
from exml_lightning.experts import ExpertEntry, Manifest, read_manifest, save_weights, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.experts.manifest import PrivacySpent
from tests.conftest import EXPERTS

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
ModelCard = pytest.importorskip("huggingface_hub").ModelCard

COMPARED = Comparison("given by --check", 9, 1.0, 1e-6, 12.3)


@pytest.fixture
def digits(tmp_path):
    """Nine digits of scikit-learn as PNG files of 8x8 pixels; returns the folder."""
    folder = tmp_path / "digits"
    folder.mkdir()
    for i, image in enumerate(load_digits().images[:9]):
        Image.fromarray((image * 255 / 16).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def no_onnx(monkeypatch):
    """Makes an export that takes no time: an empty ONNX file that answers as it is told."""

    def answer(network=None):
        monkeypatch.setattr(export_folder, "write_onnx", lambda ex_model, path: path.write_bytes(b""))
        asked = network or (lambda batch: torch.zeros(len(batch), 2))
        monkeypatch.setattr(onnx_file, "ask_onnx", lambda path, batches: [asked(batch).detach() for batch in batches])

    return answer


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


def test_from_the_command_line(tmp_path, digits, capsys):
    output = tmp_path / "out"
    main(["export", str(EXPERTS), "--expert", "1", "--output", str(output), "--check", str(digits)])
    printed = capsys.readouterr()
    assert printed.err == ""
    _, *lines = printed.out.splitlines()  # the first says that it has begun
    assert lines[0] == f"{output}: {', '.join(FILES)}"
    assert "on 9 images (given by --check): labels equal on 100.00%" in lines[1]
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
    assert "100.00% on its own classes" in (output / "README.md").read_text()


def test_a_licence_is_named_as_the_hub_does_and_kept_by_the_manifest(tmp_path, digits, no_onnx):
    model = load_ex_model(EXPERTS, expert=1)
    no_onnx(model)

    def header(source, license=None, expert=None):
        made = export_ex_model(source, tmp_path / "out", expert=expert, check=digits, license=license)
        return ModelCard.load(made.folder / "README.md").data.to_dict()

    stated = header(EXPERTS, expert=1)
    assert "license" not in stated
    assert (stated["pipeline_tag"], stated["library_name"]) == ("image-classification", "exml_lightning")
    (tmp_path / "out" / "notes.txt").write_text("mine")  # a second export replaces the first, and leaves the rest alone
    assert header(tmp_path / "out", "MIT")["license"] == "mit"
    assert header(tmp_path / "out")["license"] == "mit"
    stated = header(tmp_path / "out", "ours-1")
    assert (stated["license"], stated["license_name"]) == ("other", "ours-1")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_another_answer_is_an_error_and_nothing_stays(tmp_path, digits, no_onnx):
    no_onnx()
    with pytest.raises(ExmlError, match=r"differently from PyTorch on 9 images .* labels equal on \d.*; nothing was"):
        export_ex_model(EXPERTS, tmp_path / "out", expert=1, check=digits)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"expert": None}, r"has 5 experts; which of them\? give --expert K"),
        ({"check": None}, "has no samples of a run beside it: give images"),
        ({"license": "[mine](http://x)"}, "give a name of the Hub's list"),
        ({"output": "docs"}, "docs has a README.md that is of no earlier export"),
        ({"missing": "onnxscript"}, r'exml export needs onnxscript: .*pip install -e "\.\[export\]"'),
    ],
)
def test_what_is_refused_before_work(tmp_path, digits, monkeypatch, changes, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("mine")
    missing = changes.pop("missing", None)
    monkeypatch.setattr(export_folder, "load_chosen", None)  # cannot be called
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else name)
    with pytest.raises(ExmlError, match=said):
        export_ex_model(EXPERTS, **{"output": "out", "expert": 0, "check": digits, **changes})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits", "docs"]
    assert (tmp_path / "docs" / "README.md").read_text() == "mine"


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
    assert (made.comparison.images, made.comparison.equal) == (12, 1)
    network.eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (images.mean, images.std))
    for count in (1, 7):
        pixels = real_images(count, (3, size, size))
        with torch.no_grad():
            expected = network((pixels - mean) / std)[:, [2, 0]]
        assert torch.allclose(ask(made.folder, pixels)[0], expected, atol=1e-3 * expected.abs().max().item())


def grown(**training):
    """An ex-model whose manifest a stranger wrote."""
    model = load_ex_model(EXPERTS, expert=0)
    learned = [{"sha256": 64 * "a", "architecture": "a.B<i>", "classes": ["x|y"]}, {"classes": 3}, "nonsense"]
    training = {"strategy": "noise", "scenario": "digits of mine", "experts": 2, "learned": learned, **training}
    names = ("<script>", "# 4\n---\n")
    entry = replace(model.manifest.experts[0], classes=names, training=training, privacy=PrivacySpent(3.0, 1e-5))
    model.manifest = replace(model.manifest, class_names=names, experts=(entry,))
    return model


def test_the_card_says_how_it_was_made_and_escapes_what_strangers_wrote():
    card = model_card(grown(), {"stream_accuracy": 0.4321, "forgetting": -0.1}, COMPARED, "my [own](http://x)")
    assert "grown from 2 trained ones without their training data (Ex-Model Distillation, strategy noise)" in card
    assert r"(2, in the order of the logits): \<script\>, \# 4\\n---\\n" in card
    assert rf"| 1 | a.B\<i\> | x\|y | {64 * 'a'} |" in card
    assert "epsilon 3, delta 1e-05" in card
    assert "- stream accuracy: 43.21%\n- forgetting: -10.00%\n" in card
    assert "Compared on 9 images (given by --check): labels equal on 100.00%" in card
    assert "not from their data" in card
    assert r"my \[own\](http:\//x)." in card
    assert "<script>" not in card.replace(r"\<script\>", "")
    data = ModelCard(card).data
    (result,) = data.eval_results
    assert (data.model_name, result.dataset_name, result.metric_value) == (
        "split_digits noise",
        "digits of mine",
        0.4321,
    )
    assert (data.license, data.license_name) == ("other", "my [own](http://x)")

    card = model_card(grown(), {"agreement": 0.9}, COMPARED, None)  # which is no accuracy
    assert "## Agreement\n\nNo labelled images were at hand, so accuracy is **not known**" in card
    assert "- agreement: 90.00%\n" in card
    assert ModelCard(card).data.eval_results is None


def test_the_card_and_the_configuration_say_when_an_image_is_of_no_class():
    taught = grown()
    assert "none of its classes" not in model_card(taught, {}, COMPARED, None)
    assert "none_of_these_above" not in json.loads(config_json(taught))
    taught.manifest.experts[0].training["none_of_these"] = 0.01234
    card = model_card(taught, {}, COMPARED, None)
    assert "`1 / (1 + exp(logits).sum())`. From 0.0123 on take it for such" in card
    assert "It answers with one of its classes whatever" not in card
    assert json.loads(config_json(taught))["none_of_these_above"] == 0.01234


def test_figures_are_those_of_the_run(tmp_path, digits, no_onnx):
    run = tmp_path / "run"
    shutil.copytree(EXPERTS, run / "ex_model")
    manifest = grown().manifest
    model = load_ex_model(EXPERTS, expert=0)
    entry = replace(model.manifest.experts[0], training=manifest.experts[0].training)
    write_manifest(replace(read_manifest(EXPERTS), experts=(entry,)), run / "ex_model")
    assert read_figures(run / "ex_model", manifest) == {}
    summary = {"stream_accuracy": 0.4321, "average_accuracy": 7.0, "forgetting": -0.1, "experiences_learned": 2}
    (run / "summary.json").write_text(json.dumps(summary))
    assert read_figures(run / "ex_model", manifest) == {"stream_accuracy": 0.4321, "forgetting": -0.1}
    no_onnx(model)
    made = export_ex_model(run / "ex_model", check=digits)
    assert "- stream accuracy: 43.21%\n" in (made.folder / "README.md").read_text()

    (run / "summary.json").write_text(json.dumps({**summary, "experiences_learned": 3}))
    with pytest.raises(ExmlError, match=r"is of 3 experts, but .* of 2: the run was stopped"):
        export_ex_model(run / "ex_model", check=digits)
    (run / "summary.json").write_text("{")
    with pytest.raises(ExmlError, match=r"summary.json is broken"):
        export_ex_model(run / "ex_model", check=digits)


def test_without_other_images_the_samples_of_the_run_are_compared(tmp_path, no_onnx):
    from exml_lightning.report.samples import save_samples

    model, run = load_ex_model(EXPERTS, expert=0), tmp_path / "run"
    shutil.copytree(EXPERTS, run / "ex_model")
    write_manifest(replace(read_manifest(EXPERTS), experts=model.manifest.experts), run / "ex_model")
    (run / "samples").mkdir()
    images = real_images(3, (1, 32, 32))
    save_samples(
        run / "samples" / "experience=0.png", (255 * images).round().byte(), torch.tensor([0, 1, 1]), ["5", "4"]
    )
    shown = []

    def answer(batch):
        shown.append(batch)
        return model(batch)

    no_onnx(answer)
    made = export_ex_model(run / "ex_model")
    assert (made.comparison.images, made.comparison.source) == (3, "samples of the run's buffer")
    shown = torch.cat(shown)
    assert all((shown - image).abs().amax(dim=(1, 2, 3)).min() < 1 / 255 for image in images)


class Odd(nn.Module):
    """A network that cannot be written as ONNX, in a way of its subclass."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__()
        self.last = nn.Linear(64, num_classes)


class Branch(Odd):
    """Looks at values."""

    def forward(self, x):
        return self.last(x.flatten(1) * 2) if x.sum() > 0 else self.last(x.flatten(1))


class Within(Odd):
    """Has a layer that looks at values."""

    def __init__(self, num_classes: int = 2) -> None:
        super().__init__(num_classes)
        self.body = nn.Sequential(nn.Identity(), Branch())

    def forward(self, x):
        return self.last(x.flatten(1)) + self.body(x)


class Loop(Odd):
    """Takes one image after the other."""

    def forward(self, x):
        return torch.stack([self.last(image.flatten()) for image in x])


class Eig(Odd):
    """Does what ONNX has not."""

    def forward(self, x):
        return self.last(x.flatten(1) + torch.linalg.eig(x)[0].real.sum())


class Harmless(Odd):
    """Works in place and without gradients, which can be written."""

    def forward(self, x):
        with torch.no_grad():
            x = x.clone()
            x[:, :, 0] = 0
            x.relu_()
        return self.last(x.flatten(1))


def odd_model(kind):
    entry = ExpertEntry("a", "ab", Architecture(f"tests.{kind.__name__}", {}), ("a", "b"), (0, 1))
    images = ImageFormat((1, 8, 8), (0.5,), (0.5,))
    return ExModel(kind().eval(), Manifest("odd", None, ("a", "b"), images, (entry,)))


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (Branch, r"Branch cannot be written as ONNX: \w+ \(.*data-dependent.*\) in its forward, .*:\d+: change"),
        (Within, r"\(.*data-dependent.*\) in layer body\.1, .*test_export\.py:\d+: change its forward"),
        (Eig, r"Eig cannot be written as ONNX: \w+ \(.*linalg_eig.*\): change its forward"),
        (Loop, r"Loop cannot be written as ONNX for any number of images, for 2 only: change its forward"),
    ],
)
def test_what_cannot_be_traced_is_one_line_with_its_cause_and_place(tmp_path, kind, said):
    with pytest.raises(ExmlError, match=said) as error:
        onnx_file.write_onnx(odd_model(kind), tmp_path / "model.onnx")
    assert "--no_onnx" in str(error.value)
    assert str(error.value).isprintable()
    assert not (tmp_path / "model.onnx").exists()


def test_what_can_be_traced_is_written(tmp_path):
    model = odd_model(Harmless)
    onnx_file.write_onnx(model, tmp_path / "model.onnx")
    images = (real_images(5, (1, 8, 8)) * 255).to(torch.uint8)
    assert onnx_file.compare(model, tmp_path / "model.onnx", images, "photographs").equal == 1


def test_without_onnx_the_rest_is_written_and_an_earlier_file_goes(tmp_path, digits, no_onnx, capsys):
    no_onnx(load_ex_model(EXPERTS, expert=1))
    output = tmp_path / "out"
    export_ex_model(EXPERTS, output, expert=1, check=digits)
    assert (output / "model.onnx").exists()
    main(["export", str(EXPERTS), "--expert", "1", "--output", str(output), "--no_onnx"])
    assert sorted(path.name for path in output.iterdir()) == sorted(set(FILES) - {"model.onnx"})
    card = (output / "README.md").read_text()
    assert "onnx" not in card.lower()
    assert "load_ex_model" in card
    export_ex_model(EXPERTS, output, expert=1, check=digits)  # and the other way
    assert (output / "model.onnx").exists()
    with pytest.raises(ExmlError, match="leave it out beside --no_onnx"):
        export_ex_model(EXPERTS, output, expert=1, check=digits, onnx=False)
