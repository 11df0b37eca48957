"""Folders that transformers or timm has saved a classifier to."""

import json

import pytest
import torch

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.experts import load_expert, read_manifest
from exml_lightning.experts.catalog import architecture_words
from exml_lightning.experts.saved_models import read_saved_model

CONFIG = {
    "architectures": ["ResNetForImageClassification"], "model_type": "resnet", "num_channels": 3,
    "id2label": {"10": "k", "9": "j", "0": "a"}, "label2id": {}, "transformers_version": "4.0", "depths": [1, 1],
}  # fmt: skip
PREPROCESSOR = {"do_normalize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.25, 0.5], "size": 48}


def write(folder, config, preprocessor=None):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"")
    if preprocessor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


@pytest.mark.parametrize(("said", "size"), [
    ({"size": 48}, (48,)),
    ({"size": {"height": 20, "width": 30}}, (20, 30)),
    ({"size": {"shortest_edge": 40}}, (40, 40)),
    ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}}, (224, 224)),
    ({"size": 256, "do_center_crop": False, "crop_size": 224}, (256,)),
    ({"size": {"longest_edge": 99}}, None),
])  # fmt: skip
def test_sizes_as_preprocessors_say_them(tmp_path, said, size):
    assert read_saved_model(write(tmp_path / "m", CONFIG, PREPROCESSOR | {"size": None} | said)).size == size


@pytest.mark.parametrize("said", [
    {}, {"do_normalize": False}, {"rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False},
    {"do_rescale": False, "image_mean": [100.0, 110.0, 120.0], "image_std": [50.0, 60.0, 70.0]},
])  # fmt: skip
def test_mean_and_std_do_what_the_preprocessor_does(tmp_path, said):
    """The preprocessor's arithmetic, written out, on pixels from 0 to 255."""
    preprocessor = PREPROCESSOR | said
    saved = read_saved_model(write(tmp_path / "m", CONFIG, preprocessor))
    pixels = torch.tensor([[0.0, 10.0, 255.0]]).double().expand(3, 3)
    expected = pixels * preprocessor.get("rescale_factor", 1 / 255) if preprocessor.get("do_rescale", True) else pixels
    expected = expected - 1 if preprocessor.get("rescale_offset") else expected
    if preprocessor["do_normalize"]:
        mean, std = (torch.tensor(preprocessor[key]).double()[:, None] for key in ("image_mean", "image_std"))
        expected = (expected - mean) / std
    mean, std = (torch.tensor(values).double()[:, None] for values in (saved.mean, saved.std))
    torch.testing.assert_close((pixels / 255 - mean) / std, expected)


def test_labels_are_in_the_order_of_their_numbers_and_placeholders_are_none(tmp_path):
    assert read_saved_model(write(tmp_path / "m", CONFIG)).classes == ("a", "j", "k")
    placeholders = CONFIG | {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    assert read_saved_model(write(tmp_path / "m", placeholders)).classes is None
    with pytest.raises(SystemExit):
        main(["manifest", str(tmp_path / "m")])


@pytest.mark.parametrize(("config", "message"), [
    ({"architectures": ["BertModel"], "model_type": "bert"}, "BertModel is no image classifier"),
    ({"hello": 1}, "neither transformers nor timm"),
    ([], "no mapping"),
    (CONFIG | {"id2label": {"x": "a"}}, "not as transformers or timm write it"),
    (CONFIG | {"id2label": 5}, "not as transformers or timm write it"),
    ({"architecture": "hf-hub:someone/else", "num_classes": 2}, "no network of timm"),
    (CONFIG | {"id2label": {}, "flip": True}, "turns colours into BGR"),
    ({"architecture": "resnet10t", "num_classes": "many"}, "not as transformers or timm write it"),
])  # fmt: skip
def test_what_is_no_image_classifier_is_refused(tmp_path, config, message):
    flip = isinstance(config, dict) and config.get("flip")
    folder = write(tmp_path / "m", config, PREPROCESSOR | {"do_flip_channel_order": True} if flip else None)
    with pytest.raises(ExmlError, match=message):
        read_saved_model(folder)


def test_nothing_in_a_configuration_of_timm_takes_the_place_of_its_network(tmp_path):
    hostile = {"architecture": "resnet18", "num_classes": 2, "model_args": {"model_name": "hf-hub:evil/model"}}
    assert read_saved_model(write(tmp_path / "m", hostile)).init_args["model_name"] == "resnet18"


def test_a_folder_without_weights_or_without_a_configuration(tmp_path):
    assert read_saved_model(tmp_path) is None
    (write(tmp_path / "m", CONFIG) / "model.safetensors").unlink()
    with pytest.raises(ExmlError, match=r"none of model\.safetensors"):
        read_saved_model(tmp_path / "m")


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_a_classifier_of_transformers_needs_nothing_but_its_folder(tmp_path, kind):
    """By the command line; the files of a ViT name its weights as an earlier version of the library did."""
    transformers = pytest.importorskip("transformers")
    names = {"id2label": {0: "cat", 1: "dog", 2: "bird"}, "label2id": {"cat": 0, "dog": 1, "bird": 2}}
    torch.manual_seed(0)
    if kind == "resnet":
        config = transformers.ResNetConfig(
            embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", **names
        )
        network = transformers.ResNetForImageClassification(config)
    else:
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        network = transformers.ViTForImageClassification(
            transformers.ViTConfig(image_size=32, patch_size=8, **sizes, **names)
        )
    network.eval().save_pretrained(tmp_path / "m")
    (tmp_path / "m" / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR | {"size": 32}))
    main(["manifest", str(tmp_path / "m"), "--drop", "dog"])
    manifest = read_manifest(tmp_path / "m")
    main(["manifest", str(tmp_path / "m"), "--drop", "dog"])  # once more: it is listed already
    (entry,) = manifest.experts
    assert architecture_words(entry.architecture) == f"image_classifier(model_type={kind}, config={{..}})"
    assert (entry.classes, entry.outputs, manifest.input.shape) == (("cat", "bird"), (0, 2), (3, 32, 32))
    images = torch.randn(2, 3, 32, 32)
    answers = load_expert(tmp_path / "m", manifest, 0)(images)
    torch.testing.assert_close(answers, network(pixel_values=images).logits.detach()[:, [0, 2]])
    student = entry.architecture.with_classes(5).empty(manifest.input.shape)  # as an ex-model is built
    assert student(images).shape == (2, 5)


def test_a_classifier_of_timm_needs_nothing_but_its_folder(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=2, in_chans=1).eval()
    timm.models.save_for_hf(network, tmp_path / "m", safe_serialization=True,
                            model_args={"num_classes": 2, "in_chans": 1})  # fmt: skip
    path = tmp_path / "m" / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"] |= {"input_size": [1, 40, 40], "mean": [0.3], "std": [0.4]}
    path.write_text(json.dumps(config | {"label_names": ["cat", "dog"]}))
    main(["manifest", str(tmp_path / "m")])
    manifest = read_manifest(tmp_path / "m")
    assert (manifest.input.shape, manifest.input.mean, manifest.class_names) == ((1, 40, 40), (0.3,), ("cat", "dog"))
    images = torch.randn(2, 1, 40, 40)
    torch.testing.assert_close(load_expert(tmp_path / "m", manifest, 0)(images), network(images).detach())
