"""Files of samples, as `exml generate` writes them, and a fit from them."""

import shutil
from dataclasses import replace

import pytest
import torch
import yaml
from PIL import Image

from exml_lightning.cli.main import main
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.generators import DataImpression, ModelInversion, Noise, Precomputed
from exml_lightning.core.images import ImageFormat
from exml_lightning.data import ExpertStream
from exml_lightning.experts import load_expert, read_manifest
from exml_lightning.generation.buffer_file import BufferFile, read_buffer, write_buffer
from exml_lightning.generation.files import GenerateOptions, generate_files
from exml_lightning.generation.samples import Sampler
from exml_lightning.generation.sources import StreamSources
from exml_lightning.scenarios import Digits
from tests.conftest import EXPERTS, refused

CPU = torch.device("cpu")


@pytest.fixture
def generate(tmp_path):
    """Writes files of the shipped experts into ``out``."""

    def write(generator, size=12, seed=1234, experts=EXPERTS, **options):
        stream = ExpertStream(experts=str(experts), seed=seed)
        sampler = Sampler(generator, stream, None, show_progress=False)
        generate_files(sampler, size, GenerateOptions(folder=str(tmp_path / "out"), **options), CPU)

    return write


@pytest.mark.parametrize("generator", [ModelInversion(steps=60), Noise()])
def test_one_expert_without_ex_model_and_data_set(generator, generate, tmp_path, monkeypatch):
    monkeypatch.setattr(Digits, "load", lambda *args: pytest.fail("a data set was read"))
    generate(generator, expert=1, num_samples=30)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["expert_1.png", "expert_1.safetensors"]
    content = read_buffer(tmp_path / "out" / "expert_1.safetensors")
    manifest = read_manifest(EXPERTS)
    expert = load_expert(EXPERTS, manifest, 1)
    assert len(content.samples) == 30
    assert (content.class_names, content.image_format) == (manifest.class_names, manifest.input)
    answers = expert.classes[expert(content.samples.images).argmax(dim=1)]
    assert (answers == content.samples.labels).float().mean() > 0.8
    assert content.about["generator"]["class"].endswith(f".{type(generator).__name__}")
    assert Image.open(tmp_path / "out" / "expert_1.png").size[0] > 300
    path = tmp_path / "out" / "expert_1.safetensors"
    before = path.read_bytes()
    path.with_suffix(".png").unlink()
    generate(generator, expert=1, num_samples=30)  # the same again is no loss
    assert path.with_suffix(".png").exists()  # a missing picture is made again
    with pytest.raises(ExmlError, match="holds other samples"):
        generate(generator, expert=1, num_samples=30, seed=3)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"expert": 5}, "generate.expert is 5: .*has experts 0 to 4"),
        ({"num_samples": 0}, "generate.num_samples is 0: give 1 or more"),
    ],
)
def test_what_is_not_there_is_refused_before_work(generate, tmp_path, options, said):
    with pytest.raises(ExmlError, match=said):
        generate(Noise(), **options)
    (tmp_path / "out").write_text("in the way")
    with pytest.raises(ExmlError, match="out is a file"):
        generate(Noise())


def test_the_verb_wants_experts_of_the_scenario(small_run, tmp_path, capsys):
    args = [*small_run(verb="generate"), "--data.run_id", "1", "--generate.folder", str(tmp_path / "out")]
    assert "these experts belong to split_digits run 0" in refused(args, capsys)
    assert "which experts" in refused(["generate", "--data.run_id", "0"], capsys)
    assert not (tmp_path / "out").exists()


def test_data_impression_wants_a_classifier_in_the_manifest(generate, tmp_path):
    experts = shutil.copytree(EXPERTS, tmp_path / "experts")
    raw = yaml.safe_load((experts / "manifest.yaml").read_text())
    for entry in raw["experts"]:
        entry["classifier"] = "features.0"
    (experts / "manifest.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ExmlError, match=r"'features\.0' is Conv2d, not Linear"):
        generate(DataImpression(), experts=experts)


@pytest.fixture
def precomputed(generate, tmp_path):
    """Files of all experts; reads that of an expert for a buffer of some size."""
    generate(Noise())
    stream = ExpertStream(experts=str(EXPERTS))

    def read(index=0, size=12) -> Buffer:
        generator = Precomputed(str(tmp_path / "out"))
        generator.connect(StreamSources(stream, size))
        assert generator.read is not None
        return generator.read(stream.load_expert(index, CPU))

    return read


def test_a_fit_from_files_equals_one_that_generates(finished_run, small_run, tmp_path):
    main([*small_run(verb="generate"), "--generate.folder", str(tmp_path / "out")])
    for k in range(2, 5):  # only the experts to be learned need files
        (tmp_path / "out" / f"expert_{k}.safetensors").unlink()
    main([*small_run("files"), "--buffer.generator", "Precomputed", "--buffer.generator.folder", str(tmp_path / "out")])
    for name in ("ex_model/expert_0.safetensors", "accuracy_matrix.csv"):
        assert (finished_run / name).read_bytes() == (tmp_path / "files" / name).read_bytes()


def test_classes_are_matched_by_name(precomputed, tmp_path):
    path = tmp_path / "out" / "expert_0.safetensors"
    content, before = read_buffer(path), precomputed()
    turned = tuple(reversed(content.class_names))
    labels = torch.tensor([turned.index(content.class_names[label]) for label in content.samples.labels.tolist()])
    write_buffer(path, BufferFile(replace(content.samples, labels=labels), turned, content.image_format))
    assert torch.equal(precomputed().labels, before.labels)


def test_files_that_do_not_fit_are_refused(precomputed, tmp_path):
    with pytest.raises(ExmlError, match="has 12 samples, but 30 are asked for: delete it"):
        precomputed(size=30)
    path = tmp_path / "out" / "expert_0.safetensors"
    content = read_buffer(path)
    shutil.copy(path, tmp_path / "out" / "expert_1.safetensors")
    with pytest.raises(ExmlError, match=r"expert_1\.safetensors has samples of \['5', '4'\]|of \['4', '5'\]"):
        precomputed(1, size=6)
    small = replace(content.samples, images=content.samples.images[..., :16, :16])
    image_format = ImageFormat((1, 16, 16), content.image_format.mean, content.image_format.std)
    write_buffer(path, BufferFile(small, content.class_names, image_format))
    with pytest.raises(ExmlError, match=r"expert_0\.safetensors has .*\(1, 16, 16\)"):
        precomputed()
    path.unlink()
    with pytest.raises(ExmlError, match=r"expert_0\.safetensors is missing: write it with `exml generate`"):
        precomputed()
