"""Task labels (MT): a head a task; the loss of the module against the definition written out, head by head."""

import csv
import json

import pytest
import torch
import torch.nn.functional as F
from lightning import Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

from exml_lightning.baselines import Concat, EnsembleAverage, Oracle, measure
from exml_lightning.callbacks import SyntheticBufferCallback
from exml_lightning.cli.main import main
from exml_lightning.core.generators import Noise
from exml_lightning.core.scales import Center
from exml_lightning.data import ExpertStream
from exml_lightning.experts import load_expert, read_manifest
from exml_lightning.generation.samples import Sampler
from exml_lightning.models import LeNet5
from exml_lightning.module import ExModelModule
from exml_lightning.scenarios import Digits, Scenario

MULTI_TASK = ["--data.scenario.task_labels", "true"]


class MultiHead(nn.Module):
    """The ex-model as a textbook draws it: shared features, a linear layer of its own for each task."""

    def __init__(self, network: LeNet5, heads: list[list[int]]) -> None:
        super().__init__()
        self.features = network.features
        self.heads = nn.ModuleList(nn.Linear(84, len(head)) for head in heads)
        for layer, head in zip(self.heads, heads, strict=True):
            layer.load_state_dict({k: v[head] for k, v in network.classifier.state_dict().items()})

    def forward(self, images, head):
        return self.heads[head](self.features(images))


class Recorder(Callback):
    """Writes the loss out from explicit heads: new head the expert, old heads the previous ex-model (DESIGN.md 3)."""

    def __init__(self) -> None:
        self.expected: list[float] = []
        self.returned: list[float] = []
        self.gradients: list[float] = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        stream, k = trainer.datamodule, trainer.current_epoch
        heads = [sorted(stream.manifest.classes_of(i)) for i in range(k + 1)]
        ours, previous = MultiHead(module.network, heads), MultiHead(module.previous, heads)
        expert = stream.load_expert(k, torch.device("cpu"))
        order = [expert.classes.tolist().index(c) for c in heads[k]]
        total, count = torch.zeros(()), 0
        for i in range(k + 1):
            with torch.no_grad():
                target = expert(batch.images)[:, order] if i == k else previous(batch.images, i)
            target = target - target.mean(dim=1, keepdim=True)
            total = total + (ours(batch.images, i) - target).square().sum()
            count += target.numel()
        loss = total / count
        for row in range(len(batch.images)):
            head = int(batch.tasks[row])
            label = torch.tensor([heads[head].index(int(batch.labels[row]))])
            loss = loss + F.cross_entropy(ours(batch.images[row : row + 1], head), label) / len(batch.images)
        (gradient,) = torch.autograd.grad(loss, [ours.features[0].weight])
        self.expected += [float(loss), float(gradient.norm())]

    def on_after_backward(self, trainer, module):
        self.gradients.append(float(module.network.features[0].weight.grad.norm()))

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        assert set(batch.tasks.tolist()) <= set(range(trainer.current_epoch + 1))
        self.returned += [float(outputs["loss"]), self.gradients[-1]]


def test_loss_and_gradient_are_those_of_explicit_heads(tmp_path, digit_experts):
    scenario = Scenario("digits", Digits(), 2, task_labels=True)
    stream = ExpertStream(scenario, experts=str(digit_experts), n_iter=2, batch_size=6)
    recorder = Recorder()
    trainer = Trainer(
        accelerator="cpu", devices=1, max_epochs=3, callbacks=[SyntheticBufferCallback(30, Noise()), recorder],
        logger=False, enable_checkpointing=False, enable_progress_bar=False, num_sanity_val_steps=0,
        default_root_dir=tmp_path,
    )  # fmt: skip
    module = ExModelModule(lambda_ce=1.0, loss="mse", normalize=Center(), start="scratch")
    trainer.fit(module, datamodule=stream)
    assert len(recorder.expected) == 12
    assert recorder.returned == pytest.approx(recorder.expected, rel=1e-3)
    assert stream.buffer is not None
    assert torch.equal(stream.buffer.tasks, stream.buffer.experiences)
    # with its task label an image gets a class of that task; without, any known one
    images = torch.randn(60, 1, 32, 32)
    tasks = torch.arange(60) % 3
    guesses = module(images, tasks).argmax(dim=1)
    for task in range(3):
        assert set(guesses[tasks == task].tolist()) <= set(stream.manifest.classes_of(task))
    assert module(images).isfinite().sum() == 60 * 6


def test_accuracy_is_measured_within_each_head(small_run, tmp_path):
    """Recomputed from `ex_model/` alone: one entry a task, all with the same weights."""
    main([*small_run(), *MULTI_TASK])
    folder = tmp_path / "run" / "ex_model"
    manifest = read_manifest(folder)
    assert [entry.task for entry in manifest.experts] == [0, 1]
    accuracies = json.loads((tmp_path / "run" / "summary.json").read_text())["accuracy_per_experience"]
    test = Digits().load(tmp_path, train=False)
    for k, entry in enumerate(manifest.experts):
        classes = [int(name) for name in entry.classes]
        own = torch.isin(test.labels, torch.tensor(classes))
        network = load_expert(folder, manifest, k).model
        with torch.no_grad():
            logits = network((test.images[own].float() / 255 - 0.3054) / 0.3235)
        guesses = torch.tensor(classes)[logits[:, classes].argmax(dim=1)]
        right = (guesses == test.labels[own]).double().mean()
        assert accuracies[k] == pytest.approx(float(right))
    # all logits of tasks not yet learned are minus infinity: that is no answer, such as the first class
    assert accuracies[2:] == [0, 0, 0]


def test_task_labels_make_the_task_easier_and_baselines_know_them_too(digit_experts):
    def accuracy(kind, task_labels):
        scenario = Scenario("split_digits", Digits(), 2, task_labels=task_labels)
        stream = ExpertStream(scenario, experts=str(digit_experts))
        stream.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, max_epochs=-1)
        stream.setup("test")
        counts = measure(kind(), Sampler(Noise(), stream, None, False), 10, torch.device("cpu"))
        return int(counts.diag().sum())

    # with task labels, concatenated experts are the oracle by another name
    assert accuracy(Concat, True) == accuracy(Oracle, True) == accuracy(Oracle, False)
    assert accuracy(Concat, False) < accuracy(EnsembleAverage, True)


def test_the_divergence_loss_knows_heads(small_run, tmp_path):
    common = [*small_run(data__n_iter=2), "--trainer.log_every_n_steps", "1", "--model.loss", "kl"]
    first = {}
    for name, options in {"single": [], "multi": MULTI_TASK}.items():
        main([*common, *options, "--trainer.default_root_dir", str(tmp_path / name)])
        rows = list(csv.DictReader((tmp_path / name / "metrics.csv").open()))
        first[name] = [float(row["train/kl"]) for row in rows if row["train/kl"]]
    # with one expert there is one head; with two, each has probabilities of its own
    assert first["single"][:2] == pytest.approx(first["multi"][:2], rel=1e-5)
    assert first["single"][2] != pytest.approx(first["multi"][2], rel=1e-2)
