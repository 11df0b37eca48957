"""Anyone's own experts: different architectures, inputs and classes, no data set, a stream that grows."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from exml_lightning.callbacks.agreement import held_back
from exml_lightning.cli.main import main
from exml_lightning.core.buffer import Buffer
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.generators import ModelInversion, Noise, Unrelated
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.procedural import ColouredNoise, DeadLeaves, Mixture, Strokes
from exml_lightning.core.rng import keyed_generator
from exml_lightning.core.scales import Center, Standardize
from exml_lightning.data import ExpertStream
from exml_lightning.experts import ExpertEntry, Manifest, load_expert, read_manifest, save_weights, write_manifest
from exml_lightning.experts.architecture import Architecture
from exml_lightning.fitting import distil
from exml_lightning.models import LeNet5
from exml_lightning.module import ExModelModule
from tests.conftest import EXPERTS, ROOT, figures_set, refused

GREY = ImageFormat((1, 32, 32), (0.5,), (0.25,))
SMALL = ImageFormat((3, 16, 16), (0.4, 0.5, 0.6), (0.3, 0.3, 0.3))
LARGE = ImageFormat((3, 40, 40), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
STREAM = [
    ("exml_lightning.models.LeNet5", {}, GREY, ["cat", "dog"]),
    ("exml_lightning.models.SlimResNet18", {"width": 4}, SMALL, ["dog", "bird"]),
    ("torchvision.models.shufflenet_v2_x0_5", {}, LARGE, ["frog", "cat", "bird"]),
    ("exml_lightning.models.LeNet5", {}, GREY, ["newt", "dog"]),
]
FROM_FOLDER = ["-c", str(ROOT / "configs" / "from_folder.yaml")]


def write_stream(folder: Path, count: int, tasks: tuple[int, ...] = (0, 0, 0, 0)) -> Path:
    """Write the first experts of STREAM, untrained, with a manifest as `exml manifest` writes it."""
    names: list[str] = []
    entries = []
    folder.mkdir(exist_ok=True)
    for k, (class_path, init_args, image_format, classes) in enumerate(STREAM[:count]):
        names += [name for name in classes if name not in names]
        architecture = Architecture(class_path, {**init_args, "num_classes": len(classes)})
        file = f"expert_{k}.safetensors"
        network = architecture.build("stream", k)
        classifier = [module for module in network.modules() if isinstance(module, torch.nn.Linear)][-1]
        classifier.weight.data.mul_(30)  # sure of itself, so that it can be inverted
        classifier.bias.data.zero_()
        digest = save_weights(network, folder / file)
        own = None if image_format == GREY else image_format
        units = tuple(range(len(classes)))
        entries.append(ExpertEntry(file, digest, architecture, tuple(classes), units, tasks[k], own))
    write_manifest(Manifest("pets", None, tuple(names), GREY, tuple(entries)), folder)
    return folder


def fit(folder: Path, experts: Path | None = None, **changes) -> Path:
    """Learn the experts below a folder, or others, into its run folder, or go on there."""
    small = {"n_iter": 3, "batch_size": 4, "buffer_size": 12, "cache": None, "generator": Noise(), "task": None}
    distil(experts or folder / "experts", folder / "run", progress=False, accelerator="cpu", **{**small, **changes})
    return folder / "run"


def state(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def learned_experts(run: Path) -> int:
    return json.loads((run / "summary.json").read_text())["experiences_learned"]


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Three experts and the run that has learned them, made once."""
    folder = tmp_path_factory.mktemp("three")
    write_stream(folder / "experts", 3)
    with figures_set():
        fit(folder)
    return folder


@pytest.fixture
def learned(three, tmp_path):
    """A copy of `three` that a test may change."""
    return shutil.copytree(three, tmp_path / "learned")


def test_three_architectures_overlapping_classes_no_data_set(three):
    run = three / "run"
    summary = json.loads((run / "summary.json").read_text())
    assert not [key for key in summary if "accuracy" in key]
    assert not list(run.glob("accuracy*"))
    manifest = read_manifest(run / "ex_model")
    assert manifest.class_names == ("cat", "dog", "bird", "frog")
    assert manifest.experts[0].classes == manifest.class_names
    assert manifest.input == GREY

    # the agreement, from the files alone: on drawings that no expert was asked to make
    stream = ExpertStream(experts=str(three / "experts"))
    kinds = Mixture([Strokes(), DeadLeaves(), ColouredNoise()])
    drawn = kinds.draw(
        len(held_back(stream)),
        stream.manifest.input.shape,
        keyed_generator("agreement", stream.seed),
        torch.device("cpu"),
    )
    assert torch.equal(held_back(stream), drawn)
    pixels, network = held_back(stream).float() / 255, load_expert(run / "ex_model", manifest, 0).model
    expected, guessed = [], []
    for k, (_, _, own, classes) in enumerate(STREAM[:3]):
        shown = pixels
        if own is not GREY:
            size = own.shape[1:]
            shown = torch.nn.functional.interpolate(pixels, size, mode="bilinear", antialias=True).repeat(1, 3, 1, 1)
        mean, std = torch.tensor(own.mean).view(-1, 1, 1), torch.tensor(own.std).view(-1, 1, 1)
        expert = load_expert(three / "experts", read_manifest(three / "experts"), k).model
        units = [manifest.class_names.index(name) for name in classes]
        with torch.no_grad():
            answers = expert((shown - mean) / std).argmax(dim=1)
            guesses = network((pixels - 0.5) / 0.25)[:, units].argmax(dim=1)
        expected.append(float((answers == guesses).float().mean()))
        guessed.append(max(float((answers == c).float().mean()) for c in range(len(classes))))
    assert summary["agreement_per_expert"] == pytest.approx(expected)
    assert summary["agreement"] == pytest.approx(sum(expected) / 3)
    assert summary["agreement_by_guessing"] == pytest.approx(sum(guessed) / 3)
    assert not {"forgetting", "chance", "stored_experts"} & summary.keys()
    rows = list(csv.reader((run / "agreement_matrix.csv").open()))
    assert rows[0] == ["after_experience", "0", "1", "2", "mean"]
    assert [cell == "" for cell in rows[1]] == [False, False, True, True, False]
    assert [float(cell) for cell in rows[3][1:]] == pytest.approx([*expected, sum(expected) / 3])


def test_inversion_reaches_through_the_conversion(tmp_path):
    write_stream(tmp_path / "experts", 2)
    run = fit(tmp_path, generator=ModelInversion(steps=80), buffer_size=24)
    buffer = Buffer(**state(run / "checkpoints" / "last.ckpt")["ExpertStream"]["buffer"])
    assert buffer.images.shape[1:] == GREY.shape
    # optimised from noise, the second's through resizing and colour: both answer as they were asked to
    manifest, right = read_manifest(tmp_path / "experts"), []
    for k in range(2):
        expert, own = load_expert(tmp_path / "experts", manifest, k), buffer.experiences == k
        with torch.no_grad():
            right.append(expert.classes[expert(buffer.images[own]).argmax(dim=1)] == buffer.labels[own])
    assert torch.cat(right).float().mean() > 0.9


def test_a_finished_stream_grows_by_an_expert_and_a_class(learned):
    run = learned / "run"
    before = {path.name: path.stat().st_mtime_ns for path in (run / "checkpoints").glob("experience=*")}
    old = state(run / "checkpoints" / "experience=2.ckpt")
    write_stream(learned / "experts", 4)
    for k in range(3):  # experts that were learned are not needed any more
        (learned / "experts" / f"expert_{k}.safetensors").unlink()
    fit(learned)
    after = {path.name: path.stat().st_mtime_ns for path in (run / "checkpoints").glob("experience=*")}
    assert after.keys() == before.keys() | {"experience=3.ckpt"}
    assert all(after[name] == time for name, time in before.items())
    new = state(run / "checkpoints" / "experience=3.ckpt")
    # what the ex-model was is the previous ex-model of the new experience, with a row for the new class
    for name, tensor in old["state_dict"].items():
        if name.startswith("network."):
            kept = new["state_dict"][name.replace("network.", "previous.")]
            assert torch.equal(kept[: len(tensor)] if tensor.ndim else kept, tensor)
    assert new["state_dict"]["network.classifier.weight"].shape == (5, 84)
    assert new["state_dict"]["previous_known"].tolist() == [True, True, True, True, False]
    assert learned_experts(run) == 4
    assert read_manifest(run / "ex_model").experts[0].classes == ("cat", "dog", "bird", "frog", "newt")


@pytest.mark.parametrize("generator", [Unrelated(), Noise()], ids=["best", "asks the previous ex-model"])
def test_a_single_expert_is_put_on_the_scale_of_those_that_come_after_it(tmp_path, generator):
    """Alone it is centred, which cannot be compared: it is learned again, as if both had been there from the start."""
    write_stream(tmp_path / "experts", 1)
    run = fit(tmp_path, generator=generator)
    alone = state(run / "checkpoints" / "last.ckpt")
    assert alone["callbacks"]["SameSettings"]["settings"]["model.normalize"]["class"].endswith(".Center")
    write_stream(tmp_path / "experts", 2)
    assert learned_experts(fit(tmp_path, generator=generator)) == 2
    whole = tmp_path / "whole"
    whole.mkdir()
    fit(whole, tmp_path / "experts", generator=generator)
    found, wanted = (state(folder / "run" / "checkpoints" / "last.ckpt") for folder in (tmp_path, whole))
    for name, tensor in wanted["state_dict"].items():
        assert torch.equal(found["state_dict"][name], tensor), name
    assert found["callbacks"]["SameSettings"] == wanted["callbacks"]["SameSettings"]

    write_stream(tmp_path / "experts", 3)  # from now on only what is new is learned
    before = (run / "checkpoints" / "experience=1.ckpt").stat().st_mtime_ns
    assert learned_experts(fit(tmp_path, generator=generator)) == 3
    assert (run / "checkpoints" / "experience=1.ckpt").stat().st_mtime_ns == before


def test_a_single_expert_is_not_learned_again_where_its_scale_stays(tmp_path):
    write_stream(tmp_path / "experts", 1)
    run = fit(tmp_path, normalize=Center())
    before = (run / "checkpoints" / "experience=0.ckpt").stat().st_mtime_ns
    write_stream(tmp_path / "experts", 2)
    with pytest.raises(ExmlError, match=r"model\.normalize\.class was \S+\.Center, now \S+\.Standardize"):
        fit(tmp_path, normalize=Standardize())
    assert learned_experts(fit(tmp_path, normalize=Center())) == 2
    assert (run / "checkpoints" / "experience=0.ckpt").stat().st_mtime_ns == before


def test_another_single_expert_is_another_run(tmp_path):
    experts = write_stream(tmp_path / "experts", 1)
    fit(tmp_path)
    write_stream(experts, 2)
    manifest = read_manifest(experts)
    other = replace(manifest.experts[0], file="other.safetensors")
    digest = save_weights(other.architecture.build("other"), experts / other.file)
    write_manifest(replace(manifest, experts=(replace(other, sha256=digest), manifest.experts[1])), experts)
    with pytest.raises(ExmlError, match="are not the first 1 of this stream"):
        fit(tmp_path)


def test_growing_needs_classes_to_keep_their_places(learned):
    write_stream(learned / "experts", 4)
    manifest = read_manifest(learned / "experts")
    write_manifest(replace(manifest, class_names=("newt", *manifest.class_names[:-1])), learned / "experts")
    with pytest.raises(ExmlError, match="classes keep their places"):
        fit(learned)


def test_a_stream_grows_while_an_expert_is_half_learned(learned, monkeypatch):
    """The moments that Adam keeps of the classifier grow with it."""
    write_stream(learned / "experts", 4)
    step = ExModelModule.training_step

    def stopped(module, batch, batch_idx):
        if module.stream.experience == 3 and batch_idx == 2:
            raise KeyboardInterrupt
        return step(module, batch, batch_idx)

    small = ["--data.n_iter", "3", "--data.batch_size", "4", "--buffer.size", "12", "--buffer.generator", "Noise"]
    small += ["--data.experts", str(learned / "experts"), "--trainer.default_root_dir", str(learned / "run")]
    small += ["--trainer.accelerator", "cpu", "--ckpt_path", "last"]
    with monkeypatch.context() as patch:
        patch.setattr(ExModelModule, "training_step", stopped)
        with pytest.raises(SystemExit):
            main(["fit", *small, "--checkpoint.every_n_steps", "1"])
    assert state(learned / "run" / "checkpoints" / "last.ckpt")["global_step"] == 11
    fifth = ("exml_lightning.models.LeNet5", {}, GREY, ["owl", "cat"])
    monkeypatch.setattr("tests.test_from_folder.STREAM", [*STREAM, fifth])
    write_stream(learned / "experts", 5, (0,) * 5)
    run = fit(learned)
    assert learned_experts(run) == 5
    assert state(run / "checkpoints" / "experience=3.ckpt")["state_dict"]["network.classifier.weight"].shape == (6, 84)


def test_a_run_does_not_go_on_with_or_without_its_data_set(finished_run):
    with pytest.raises(ExmlError, match=r"data\.scenario was split_digits, now None"):
        fit(finished_run.parent, EXPERTS)


def test_a_stream_longer_than_the_buffer_goes_on_with_a_larger_one(tmp_path):
    write_stream(tmp_path / "experts", 2)
    fit(tmp_path, buffer_size=2)
    write_stream(tmp_path / "experts", 3)
    with pytest.raises(ExmlError, match="give 3 or more"):
        fit(tmp_path, buffer_size=2)
    assert learned_experts(fit(tmp_path, buffer_size=6)) == 3


class Twofold(LeNet5):
    """Returns two things while it is trained, as networks with auxiliary classifiers do."""

    def forward(self, images):
        logits = super().forward(images)
        return (logits, logits) if self.training else logits


class Unlearning(LeNet5):
    """Forbids gradients, as networks do that were made to be used only."""

    @torch.no_grad()
    def forward(self, images):
        return super().forward(images)


class Fixed(LeNet5):
    """Has a number of classes that nobody can change."""

    def __init__(self):
        super().__init__(2)


def test_an_ex_model_may_return_several_things_while_it_is_trained(tmp_path):
    write_stream(tmp_path / "experts", 1)
    assert learned_experts(fit(tmp_path, architecture={"class_path": "tests.test_from_folder.Twofold"})) == 1


@pytest.mark.parametrize(
    ("name", "message"), [("Unlearning", "gives its weights no gradient"), ("Fixed", "must take num_classes")]
)
def test_a_network_that_cannot_be_the_ex_model_is_refused_before_work(tmp_path, name, message):
    write_stream(tmp_path / "experts", 1)
    with pytest.raises(ExmlError, match=message):
        fit(tmp_path, architecture={"class_path": f"tests.test_from_folder.{name}"})
    assert not list((tmp_path / "run").glob("**/*.ckpt"))


def test_the_run_folder_is_named_after_the_stream_and_accuracy_needs_a_scenario(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_stream(tmp_path / "experts", 1)
    small = [*FROM_FOLDER, "--data.experts", "experts", "--buffer.generator", "Noise", "--trainer.accelerator", "cpu"]
    main(["fit", *small, "--data.n_iter", "1", "--data.batch_size", "2", "--buffer.size", "2"])
    out = capsys.readouterr().out
    assert "agreement with each expert in % after each experience: no accuracy" in out
    assert "nothing says how often it is right: `exml predict EX_MODEL DIR` does" in out
    summary = json.loads(Path("runs/pets/noise/run0/summary.json").read_text())
    assert summary["agreement"] < summary["agreement_by_guessing"]
    assert "it agrees with its experts no more than guessing does: give it more steps" in out
    copied = ["--data.experts", "experts", "--trainer.accelerator", "cpu", "--model.optimizer.lr", "1e-9"]
    main(["fit", *FROM_FOLDER, *copied, "--data.n_iter", "1", "--data.batch_size", "2", "--buffer.size", "2"])
    out = capsys.readouterr().out
    assert json.loads(Path("runs/pets/best/run0/summary.json").read_text())["agreement"] == 1
    assert "no more than guessing" not in out
    assert (tmp_path / "runs" / "pets" / "noise" / "run0" / "summary.json").is_file()
    args = ["test", *FROM_FOLDER, "--data.experts", "experts", "--ckpt_path", "last"]
    assert "by --data.labelled DIR, or a scenario" in refused(args, capsys)
    assert "--data.experts DIR" in refused(["fit", *FROM_FOLDER], capsys)


def test_a_scenario_grows_too_and_may_start_from_another_architecture(finished_run, small_run, tmp_path, capsys):
    """split_digits starts from the average of experts built alike; the sixth expert is not."""
    experts = shutil.copytree(EXPERTS, tmp_path / "experts")
    manifest = read_manifest(experts)
    architecture = Architecture("exml_lightning.models.LeNet5", {"num_classes": 2})
    digest = save_weights(architecture.build("sixth"), experts / "expert_5.safetensors")
    sixth = ExpertEntry("expert_5.safetensors", digest, architecture, ("ten", "3"), (0, 1))
    names = (*manifest.class_names, "ten")
    write_manifest(replace(manifest, class_names=names, experts=(*manifest.experts, sixth)), experts)
    args = [*small_run(), "--data.experts", str(experts), "--trainer.max_epochs", "-1", "--ckpt_path", "last"]
    assert "model.start to scratch" in refused(args, capsys)
    main([*args, "--model.start", "scratch"])
    summary = json.loads((finished_run / "summary.json").read_text())
    assert summary["experiences_learned"] == 6
    assert len(summary["accuracy_per_experience"]) == 5


def test_a_multi_head_stream_without_a_scenario(tmp_path):
    experts = write_stream(tmp_path / "experts", 2, tasks=(0, 1))
    with pytest.raises(ExmlError, match=r"class 'dog' is of task 0 in expert_0\.\w+, but of task 1 in expert_1\."):
        fit(tmp_path)
    write_stream(experts, 2)
    manifest = read_manifest(experts)
    second = replace(manifest.experts[1], classes=("wolf", "bird"), task=1)
    names = ("cat", "dog", "wolf", "bird")
    write_manifest(replace(manifest, class_names=names, experts=(manifest.experts[0], second)), experts)
    heads = read_manifest(fit(tmp_path, task=1) / "ex_model").experts
    assert [(entry.task, entry.classes, entry.outputs) for entry in heads] == [
        (0, ("cat", "dog"), (0, 1)),
        (1, ("wolf", "bird"), (2, 3)),
    ]
    assert heads[0].file == heads[1].file
    assert heads[0].sha256 == heads[1].sha256
