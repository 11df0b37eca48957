"""What generators that need data are given, seen in the buffer of small runs."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from exml_lightning.cli.main import main
from exml_lightning.core import scales
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.generators import Auxiliary
from exml_lightning.core.procedural import Strokes
from exml_lightning.core.rng import keyed_generator
from exml_lightning.core.teachers import Teachers
from exml_lightning.data import ExpertStream
from exml_lightning.experts import read_manifest, write_manifest
from exml_lightning.fitting import distil
from exml_lightning.generation.sources import StreamSources
from exml_lightning.scenarios import Digits, Photographs, Scenario
from tests.conftest import EXPERTS, refused


def last_buffer(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return checkpoint["ExpertStream"]["buffer"]


def test_replay_fills_the_buffer_with_original_images_and_their_labels(small_run, tmp_path, digit_experts):
    main([*small_run(), "--buffer.generator", "Replay"])
    buffer = last_buffer(tmp_path / "run")
    manifest = read_manifest(digit_experts)
    train = Digits().load(Path(), train=True)
    for image, label, experience in zip(buffer["images"], buffer["labels"], buffer["experiences"], strict=True):
        assert image.dtype == torch.uint8
        same = (train.images == image).flatten(1).all(dim=1)
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
    main(small_run("inversion", trainer__max_epochs=1, data__n_iter=1))
    with pytest.raises(FileNotFoundError):
        main([*small_run("replay"), "--buffer.generator", "Replay"])
    assert not (tmp_path / "replay" / "config.yaml").exists()


def test_images_of_the_scenario_are_not_those_that_were_given():
    """The auxiliary generator draws from either, whoever takes any images from the latter alone."""
    own, given = Photographs(0.2), Photographs(0.4)
    scenario = Scenario("digits", Digits(), 2, auxiliary=own)
    for auxiliary, other, any_images in ((None, own, None), (given, given, given)):
        sources = StreamSources(ExpertStream(scenario, experts=str(EXPERTS), auxiliary=auxiliary), 12)
        assert sources.other_images() == other
        assert sources.given_images() == any_images


REFERENCE = ["--buffer.generator", "Noise", "--model.normalize", "NormalScores", "--model.normalize.reference"]


def test_logits_of_all_experts_are_compared_with_the_same_drawings(
    small_run, tmp_path, digit_experts, monkeypatch, capsys
):
    seen = []
    original = Teachers.__init__

    def watched(self, *args, **options):
        seen.append(options["reference"])
        original(self, *args, **options)

    monkeypatch.setattr(Teachers, "__init__", watched)
    monkeypatch.setattr(scales, "REFERENCE", 100)
    main([*small_run(), *REFERENCE, "Strokes", "--trainer.accelerator", "cpu"])
    drawn = Strokes().draw(100, (1, 32, 32), keyed_generator("reference", 1234), torch.device("cpu"))
    assert len(seen) == 4  # two rehearsals
    assert all(torch.equal(images, drawn) for images in seen)
    words = "model.normalize.reference.class was exml_lightning.core.procedural.strokes.Strokes, now exml_lightning"
    assert words in refused([*small_run(), *REFERENCE, "DeadLeaves", "--ckpt_path", "last"], capsys)


def test_a_strategy_has_the_name_it_is_given(small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [*small_run(trainer__default_root_dir=None), "--buffer.generator", "Noise"]
    main([*arguments, "--buffer.name", "mine", "--trainer.max_epochs", "1"])
    assert (tmp_path / "runs" / "split_digits" / "mine" / "run0" / "summary.json").is_file()
    assert "give a short one" in refused([*arguments, "--buffer.name", "../up"], capsys)


STRATEGIES = {
    "data impression, average, kl": ["DataImpression", "--buffer.generator.steps", "3", "--model.start", "average",
                                     "--model.loss", "kl"],
    "auxiliary, expert": ["Auxiliary", "--model.start", "expert"],
    "replay": ["Replay"],
    "noise, sample": ["Noise", "--model.merge", "sample"],
    "unrelated, scores": ["Unrelated", "--model.normalize", "NormalScores", "--model.lambda_ce", "0",
                          "--data.augmentation.shift", "0", "--data.augmentation.rotation", "0"],
    "noise, scores by a reference": [*REFERENCE[1:], "Strokes"],
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_goes_on_as_if_never_stopped(strategy, small_run, tmp_path):
    options = ["--buffer.generator", *STRATEGIES[strategy]]
    main([*small_run("whole"), *options])
    main([*small_run("cut"), *options, "--trainer.max_epochs", "1"])
    main([*small_run("cut"), *options, "--ckpt_path", "last"])
    whole, cut = (tmp_path / run / "ex_model" / "expert_0.safetensors" for run in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


def test_experts_that_share_classes(small_run, tmp_path, digit_experts, capsys):
    """NIC: the second expert knows a class of the first; both teach it."""
    manifest = read_manifest(digit_experts)
    folder = shutil.copytree(digit_experts, tmp_path / "experts")
    first, second = manifest.experts[:2]
    both = replace(second, classes=("2", "5"), outputs=(2, 5))
    write_manifest(replace(manifest, experts=(first, both)), folder)
    scenario = ["--data.scenario.classes", "[['4', '5'], ['2', '5']]", "--data.scenario.classes_per_experience", "null",
                "--data.experts", str(folder)]  # fmt: skip
    main([*small_run(), *scenario])
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert len(summary["accuracy_per_experience"]) == 2  # of 4 and 5, and of 2
    assert sorted(read_manifest(tmp_path / "run" / "ex_model").experts[0].classes) == ["2", "4", "5"]
    oracle = [*small_run(verb="test"), *scenario, "--baseline", "Oracle"]
    assert "the oracle is not defined here: class '5'" in refused(oracle, capsys)


def test_auxiliary_without_images_is_refused(digit_experts, tmp_path):
    with pytest.raises(ExmlError, match=r"set data\.auxiliary"):
        distil(digit_experts, tmp_path / "run", generator=Auxiliary(), progress=False)
