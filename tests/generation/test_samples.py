"""`exml generate` as its users type it, and a fit from what it wrote."""

import shutil

import pytest
import torch
import yaml
from PIL import Image

from exml_lightning.cli.main import main
from exml_lightning.experts import load_expert, read_manifest
from exml_lightning.generation.buffer_file import BufferFile, read_buffer, write_buffer
from exml_lightning.scenarios import Digits
from tests.conftest import refused


def generate(digit_experts, tmp_path, *options):
    return ["generate", "--data.experts", str(digit_experts), "--generate.folder", str(tmp_path / "out"),
            "--trainer.accelerator", "cpu", "--trainer.enable_progress_bar", "false", "--buffer.cache", "null",
            *options]  # fmt: skip


@pytest.mark.parametrize(
    "generator",
    [
        ["ModelInversion", "--buffer.generator.steps", "60"],
        ["DataImpression", "--buffer.generator.steps", "60"],
        ["Noise"],
    ],
)
def test_one_expert_without_ex_model_and_data_set(generator, digit_experts, tmp_path, monkeypatch):
    monkeypatch.setattr(Digits, "load", lambda *args: pytest.fail("a data set was read"))
    options = ["--generate.expert", "1", "--generate.num_samples", "30", "--buffer.generator", *generator]
    main(generate(digit_experts, tmp_path, *options))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["expert_1.png", "expert_1.safetensors"]
    content = read_buffer(tmp_path / "out" / "expert_1.safetensors")
    manifest = read_manifest(digit_experts)
    expert = load_expert(digit_experts, manifest, 1)
    assert len(content.samples) == 30
    assert content.class_names == manifest.class_names
    assert content.image_format == manifest.input
    answers = expert.classes[expert(content.samples.images).argmax(dim=1)]
    assert (answers == content.samples.labels).float().mean() > 0.8
    assert content.about["generator"]["class"].endswith(f".{generator[0]}")
    assert Image.open(tmp_path / "out" / "expert_1.png").size[0] > 300


def test_a_broken_manifest_or_expert_number_is_refused(digit_experts, tmp_path, capsys):
    assert "experts 0 to 4" in refused(generate(digit_experts, tmp_path, "--generate.expert", "5"), capsys)
    assert "generate.num_samples is 0" in refused(
        generate(digit_experts, tmp_path, "--generate.num_samples", "0"), capsys
    )
    assert "no experts in" in refused(generate(tmp_path, tmp_path), capsys)
    assert "which experts" in refused(["generate", "--data.run_id", "0"], capsys)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_refused_before_work(digit_experts, tmp_path, capsys):
    (tmp_path / "out").write_text("in the way")
    assert "out is a file" in refused(generate(digit_experts, tmp_path), capsys)


def test_experts_of_another_run_than_the_scenario_are_refused(small_run, tmp_path, capsys):
    args = [*small_run(verb="generate"), "--data.run_id", "1", "--generate.folder", str(tmp_path / "out")]
    assert "these experts belong to split_digits run 0" in refused(args, capsys)


def test_settings_of_the_default_generator_need_no_name(digit_experts, tmp_path):
    one = ["--generate.expert", "0", "--generate.num_samples", "2", "--buffer.generator.steps", "1"]
    main(generate(digit_experts, tmp_path, *one))
    about = read_buffer(tmp_path / "out" / "expert_0.safetensors").about["generator"]
    assert about["class"].endswith(".ModelInversion")
    assert about["steps"] == 1


def test_a_missing_picture_is_made_again(digit_experts, tmp_path):
    one = generate(digit_experts, tmp_path, "--generate.expert", "0", "--generate.num_samples", "2",
                   "--buffer.generator", "Noise")  # fmt: skip
    main(one)
    (tmp_path / "out" / "expert_0.png").unlink()
    main(one)
    assert (tmp_path / "out" / "expert_0.png").exists()


def test_only_the_experts_to_be_learned_need_files(precomputed, tmp_path):
    for k in range(1, 5):
        (tmp_path / "out" / f"expert_{k}.safetensors").unlink()
    main([*precomputed, "--trainer.max_epochs", "1"])


def test_data_impression_wants_a_classifier_in_the_manifest(digit_experts, tmp_path, capsys):
    experts = shutil.copytree(digit_experts, tmp_path / "experts")
    raw = yaml.safe_load((experts / "manifest.yaml").read_text())
    for entry in raw["experts"]:
        entry["classifier"] = "features.0"
    (experts / "manifest.yaml").write_text(yaml.safe_dump(raw))
    error = refused(generate(experts, tmp_path, "--buffer.generator", "DataImpression"), capsys)
    assert "'features.0' is Conv2d, not Linear" in error


def test_other_samples_in_the_way_are_kept(digit_experts, tmp_path, capsys):
    noise = ["--generate.expert", "0", "--generate.num_samples", "4", "--buffer.generator", "Noise"]
    main(generate(digit_experts, tmp_path, *noise))
    before = (tmp_path / "out" / "expert_0.safetensors").read_bytes()
    main(generate(digit_experts, tmp_path, *noise))  # the same again is no loss
    assert (tmp_path / "out" / "expert_0.safetensors").read_bytes() == before
    error = refused(generate(digit_experts, tmp_path, *noise, "--data.seed", "3"), capsys)
    assert "holds other samples" in error
    assert (tmp_path / "out" / "expert_0.safetensors").read_bytes() == before


@pytest.fixture
def precomputed(tmp_path, small_run):
    """Samples of all experts by three steps of model inversion, and the arguments of a fit from them."""
    main([*small_run(verb="generate"), "--generate.folder", str(tmp_path / "out")])
    fit = [*small_run("precomputed"), "--buffer.generator", "Precomputed"]
    return [*fit, "--buffer.generator.folder", str(tmp_path / "out")]


def test_a_fit_from_files_equals_one_that_generates(precomputed, small_run, tmp_path):
    main(precomputed)
    main(small_run("plain"))
    names = "ex_model/expert_0.safetensors", "accuracy_matrix.csv"
    for name in names:
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "precomputed" / name).read_bytes()


def test_files_of_other_classes_are_refused(precomputed, tmp_path, capsys):
    shutil.copy(tmp_path / "out" / "expert_1.safetensors", tmp_path / "out" / "expert_0.safetensors")
    error = refused([*precomputed, "--buffer.size", "6"], capsys)
    assert "expert_0.safetensors has samples of ['2', '8'], which expert 0 does not know" in error


def test_classes_are_matched_by_name(precomputed, tmp_path):
    path = tmp_path / "out" / "expert_0.safetensors"
    content = read_buffer(path)
    samples = content.samples
    used = [content.class_names[label] for label in samples.labels.tolist()]
    turned = tuple(reversed(content.class_names))
    labels = torch.tensor([turned.index(name) for name in used])
    changed = type(samples)(samples.images, labels, samples.tasks, samples.experiences)
    main([*precomputed, "--trainer.default_root_dir", str(tmp_path / "plain")])
    write_buffer(path, BufferFile(changed, turned, content.image_format))
    main([*precomputed, "--trainer.default_root_dir", str(tmp_path / "turned")])
    names = [tmp_path / run / "ex_model" / "expert_0.safetensors" for run in ("plain", "turned")]
    assert names[0].read_bytes() == names[1].read_bytes()


def test_files_of_another_shape_are_refused(precomputed, tmp_path, capsys):
    path = tmp_path / "out" / "expert_0.safetensors"
    content = read_buffer(path)
    samples = content.samples
    small = type(samples)(samples.images[..., :16, :16], samples.labels, samples.tasks, samples.experiences)
    image_format = type(content.image_format)((1, 16, 16), content.image_format.mean, content.image_format.std)
    write_buffer(path, BufferFile(small, content.class_names, image_format))
    error = refused(precomputed, capsys)
    assert "expert_0.safetensors" in error
    assert "(1, 16, 16)" in error


def test_too_few_samples_and_missing_files_are_refused(precomputed, tmp_path, capsys):
    assert "has 12 samples, but 30 are asked for" in refused([*precomputed, "--buffer.size", "30"], capsys)
    (tmp_path / "out" / "expert_1.safetensors").unlink()
    assert "expert_1.safetensors is missing: write it with `exml generate`" in refused(precomputed, capsys)
    assert not (tmp_path / "precomputed" / "config.yaml").exists()
