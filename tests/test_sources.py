"""What generators that need data are given, seen in the buffer of small runs."""

from pathlib import Path

import pytest
import torch

from exml_lightning.cli import main
from exml_lightning.experts import read_manifest
from exml_lightning.scenarios import Digits
from tests.test_cli import refused


def last_buffer(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["ExpertStream"]["buffer"]


def test_replay_fills_the_buffer_with_original_images_and_their_labels(small_run, tmp_path, digit_experts):
    main([*small_run(), "--buffer.generator", "Replay"])
    buffer = last_buffer(tmp_path / "run")
    manifest = read_manifest(digit_experts)
    train = Digits().load(Path(), train=True)
    for image, label, experience in zip(buffer["images"], buffer["labels"], buffer["experiences"], strict=True):
        pixels = (image * 0.3235 + 0.3054).mul(255).round().to(torch.uint8)
        same = (train.images == pixels).flatten(1).all(dim=1)
        assert manifest.class_names[label] in {Digits.class_names[c] for c in train.labels[same].tolist()}
        assert label.item() in manifest.classes_of(experience.item())
    assert buffer["experiences"].bincount().tolist() == [6, 6]


def test_replay_wants_the_original_data(small_run, tmp_path, monkeypatch):
    """Only replay opens the training split, and it does so before any work."""
    original = Digits.load

    def no_training_data(self, root, train):
        if train:
            raise FileNotFoundError("no training data")
        return original(self, root, train)

    monkeypatch.setattr(Digits, "load", no_training_data)
    main(small_run("inversion"))
    with pytest.raises(FileNotFoundError):
        main([*small_run("replay"), "--buffer.generator", "Replay"])
    assert not (tmp_path / "replay" / "config.yaml").exists()


WHOLE_SET = ["--buffer.generator", "Auxiliary", "--buffer.generator.whole_set", "true", "--data.auxiliary",
             "TorchvisionImages", "--data.auxiliary.name", "FakeData", "--data.auxiliary.options",
             "{size: 20, image_size: [3, 40, 40]}"]  # fmt: skip


def test_the_whole_set_replaces_the_buffer_at_each_experience(small_run, tmp_path):
    main([*small_run(), *WHOLE_SET])
    buffer = last_buffer(tmp_path / "run")
    assert buffer["images"].shape == (20, 1, 32, 32)  # whatever buffer.size says
    assert buffer["experiences"].tolist() == [1] * 20
    assert set(buffer["labels"].tolist()) <= {2, 8}


def test_a_run_on_the_whole_set_resumes_to_the_same_weights(small_run, tmp_path):
    main([*small_run("whole"), *WHOLE_SET])
    main([*small_run("cut"), *WHOLE_SET, "--trainer.max_epochs", "1"])
    main([*small_run("cut"), *WHOLE_SET, "--ckpt_path", "last"])
    whole, cut = (tmp_path / run / "ex_model" / "expert_0.safetensors" for run in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


def test_auxiliary_without_images_is_refused(small_run, capsys):
    args = [*small_run(), "--buffer.generator", "Auxiliary", "--data.auxiliary", "null"]
    assert "set data.auxiliary" in refused(args, capsys)
