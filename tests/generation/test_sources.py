"""What generators that need data are given, seen in the buffer of small runs."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.generators import Auxiliary, Noise
from exml_lightning.core.procedural import Strokes
from exml_lightning.core.rng import keyed_generator
from exml_lightning.core.scales import NormalScores
from exml_lightning.core.teachers import Teachers
from exml_lightning.experts import read_manifest, write_manifest
from exml_lightning.fitting import distil
from exml_lightning.scenarios import Digits
from tests.conftest import refused


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


FRESH = ["--buffer.generator", "Procedural", "--buffer.generator.fresh", "true", "--model.lambda_ce", "0",
         "--model.normalize", "NormalScores"]  # fmt: skip


def test_fresh_images_are_not_those_of_the_buffer(small_run, tmp_path, monkeypatch):
    drawn = []
    original = Strokes.draw

    def draw(self, num_images, *args):
        drawn.append(num_images)
        return original(self, num_images, *args)

    monkeypatch.setattr(Strokes, "draw", draw)
    main([*small_run(), *FRESH])
    rehearsals = [8, 8, 6, 8]  # of each expert a few for the buffer, and a few for a step
    assert drawn == [*rehearsals, 12, *[8] * 6, 6, *[8] * 6]  # a buffer, six steps, half a buffer, six steps
    assert last_buffer(tmp_path / "run")["experiences"].bincount().tolist() == [6, 6]


def test_fresh_images_have_no_labels_to_learn(small_run, capsys):
    assert "fresh images have no labels" in refused([*small_run(), *FRESH, "--model.lambda_ce", "1"], capsys)


OTHERS = [*FRESH, "--model.normalize.others", "0.2"]


@pytest.fixture
def changed_experts(tmp_path, digit_experts):
    """Writes a copy of the shipped experts, the second of which is another."""

    def write(change):
        manifest = read_manifest(digit_experts)
        folder = shutil.copytree(digit_experts, tmp_path / "experts")
        second = change(manifest.experts[1], folder)
        write_manifest(replace(manifest, experts=(manifest.experts[0], second, *manifest.experts[2:])), folder)
        return folder

    return write


def test_others_familiarity_and_fresh_images_resume_within_an_experience_to_the_same_weights(small_run, tmp_path):
    options = [*OTHERS, "--model.normalize.familiarity", "1"]
    main([*small_run("whole", data__n_iter=2), *options])
    main([*small_run("cut", data__n_iter=2), *options, "--trainer.max_epochs", "1"])
    main([*small_run("cut", data__n_iter=2), *options, "--trainer.max_time", "00:00:00:00"])
    main([*small_run("cut", data__n_iter=2), *options])
    whole, cut = (tmp_path / run / "ex_model" / "expert_0.safetensors" for run in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


def test_familiarity_needs_layers_that_tell_before_work(small_run, tmp_path, monkeypatch, capsys):
    def no_layer(expert):
        raise ExmlError(f"{expert.name} has no such layer")

    monkeypatch.setattr("exml_lightning.core.distillation.layers_that_tell", no_layer)
    assert "has no such layer" in refused([*small_run(), *FRESH, "--model.normalize.familiarity", "1"], capsys)
    assert not (tmp_path / "run").exists()


def reversed_units(entry, folder):
    return replace(entry, outputs=tuple(reversed(entry.outputs)))


def masked_units(entry, folder):
    weights = load_file(folder / entry.file)
    weights["classifier.bias"][0] = -1e9
    save_file(weights, folder / "masked.safetensors")
    sha256 = hashlib.sha256((folder / "masked.safetensors").read_bytes()).hexdigest()
    return replace(entry, file="masked.safetensors", sha256=sha256)


def shared_class(entry, folder):
    return replace(entry, classes=("2", "5"), outputs=(2, 5))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (reversed_units, "no unit for each class of the stream: learn it in a run with model.normalize.others 0"),
        (masked_units, "masks the units of classes that it does not know"),
        (shared_class, "experts that share no classes"),
    ],
)
def test_what_the_others_need(change, said, tmp_path, changed_experts):
    settings = {"normalize": NormalScores(others=0.2), "lambda_ce": 0, "start": "scratch", "cache": None}
    with pytest.raises(ExmlError, match=said):
        distil(changed_experts(change), tmp_path / "run", generator=Noise(), progress=False, **settings)
    assert not list(tmp_path.glob("run/**/*.ckpt"))


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
    main([*small_run(), *REFERENCE, "Strokes", "--trainer.accelerator", "cpu"])
    drawn = Strokes().draw(12, (1, 32, 32), keyed_generator("reference", 1234), torch.device("cpu"))
    assert len(seen) == 4  # two rehearsals, with fewer
    assert all(torch.equal(images, drawn) for images in seen[2:])
    words = "model.normalize.reference.class was exml_lightning.core.procedural.strokes.Strokes, now exml_lightning"
    assert words in refused([*small_run(), *REFERENCE, "DeadLeaves", "--ckpt_path", "last"], capsys)


def test_a_strategy_has_the_name_it_is_given(small_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = [*small_run(trainer__default_root_dir=None), *FRESH]
    main([*arguments, "--buffer.name", "mine", "--trainer.max_epochs", "1"])
    assert (tmp_path / "runs" / "split_digits" / "mine" / "run0" / "summary.json").is_file()
    assert "give a short one" in refused([*arguments, "--buffer.name", "../up"], capsys)


STRATEGIES = {
    "data impression, average, kl": ["DataImpression", "--buffer.generator.steps", "3", "--model.start", "average",
                                     "--model.loss", "kl"],
    "auxiliary, expert": ["Auxiliary", "--model.start", "expert"],
    "replay": ["Replay"],
    "noise, sample": ["Noise", "--model.merge", "sample"],
    "procedural, scores": ["Procedural", "--model.normalize", "NormalScores"],
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
