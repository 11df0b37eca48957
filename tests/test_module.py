"""The loss of the module against Eq. 6 to 11 written out, on the experts that are shipped."""

import gc
from functools import partial
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from lightning.pytorch.callbacks import Callback

from exml_lightning.callbacks import CheckExperts, SyntheticBufferCallback
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.expert import Expert
from exml_lightning.core.generators import Generator, Noise
from exml_lightning.core.scales import Center
from exml_lightning.data import ExpertStream
from exml_lightning.module import ExModelModule, describe_optimizer
from exml_lightning.scenarios import Digits, Scenario

EXPERT_ASK = Expert.ask


class Recorder(Callback):
    """Writes the loss of Eq. 11 out from the networks, before each step, and keeps what the module returned."""

    def __init__(self, lambda_ce: float) -> None:
        self.lambda_ce = lambda_ce
        self.expected: list[float] = []
        self.returned: list[float] = []
        self.optimizers: list[int] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        stream, k = trainer.datamodule, trainer.current_epoch
        expert = stream.load_expert(k, torch.device("cpu"))
        own = expert.classes.tolist()
        before = sorted({c for i in range(k) for c in stream.manifest.classes_of(i)})
        with torch.no_grad():
            f, e, p = module.network(batch.images), expert(batch.images), module.previous(batch.images)
        total, count = 0.0, 0
        for row in range(len(f)):
            target = {c: (e[row] - e[row].mean())[i] for i, c in enumerate(own)}
            for c in before:
                target[c] = p[row, c] - p[row, before].mean()
            total += sum(float(f[row, c] - value) ** 2 for c, value in target.items())
            count += len(target)
        known = sorted({*own, *before})
        entropy = 0.0
        for row, label in enumerate(batch.labels.tolist()):
            logits = f[row, known].double()
            entropy += float(torch.logsumexp(logits, dim=0) - logits[known.index(label)]) / len(f)
        self.expected.append(total / count + self.lambda_ce * entropy)
        self.optimizers.append(id(trainer.optimizers[0]))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.returned.append(float(outputs["loss"]))


def fit(
    tmp_path: Path,
    digit_experts: Path,
    recorder: Callback,
    epochs: int = 3,
    batch_size: int = 6,
    generator: Generator | None = None,
    **options,
) -> ExModelModule:
    stream = ExpertStream(Scenario("digits", Digits(), 2), experts=str(digit_experts), n_iter=3, batch_size=batch_size)
    paper = {"loss": "mse", "normalize": Center(), "start": "scratch", **options}
    module, buffer = ExModelModule(**paper), SyntheticBufferCallback(30, generator or Noise())
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=epochs,
        callbacks=[CheckExperts(buffer), buffer, recorder],
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=stream)
    return module


def test_the_loss_is_that_of_the_paper(tmp_path, digit_experts):
    recorder = Recorder(0.0)
    fit(tmp_path, digit_experts, recorder, lambda_ce=0.0)
    assert len(recorder.returned) == 9
    assert recorder.returned == pytest.approx(recorder.expected, rel=1e-4)


def test_the_loss_is_the_same_where_teachers_are_remembered(tmp_path, digit_experts, monkeypatch):
    asked = []
    monkeypatch.setattr(
        Expert, "ask", lambda self, model, images: asked.append(len(images)) or EXPERT_ASK(self, model, images)
    )
    recorder = Recorder(0.7)
    fit(tmp_path, digit_experts, recorder, lambda_ce=0.7, batch_size=12)
    assert recorder.returned == pytest.approx(recorder.expected, rel=1e-4)
    # 3 steps of 12 are more than the 30 samples: each expert answers for them once, the first one labels 30, too
    assert asked.count(30) == 3 + 1
    assert asked.count(12) == 9  # by the recorder


@pytest.mark.slow
def test_compiled_networks_learn_the_same(tmp_path, digit_experts):
    plain, compiled = Recorder(0.7), Recorder(0.7)
    expected = fit(tmp_path / "plain", digit_experts, plain, lambda_ce=0.7).state_dict()
    found = fit(tmp_path / "compiled", digit_experts, compiled, lambda_ce=0.7, compile=True).state_dict()
    assert compiled.returned == pytest.approx(plain.returned, rel=1e-3)
    assert found.keys() == expected.keys()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_network_that_cannot_be_compiled_is_refused_before_work(tmp_path, digit_experts, monkeypatch):
    def refuse(network, **options):
        def call(images):
            raise RuntimeError("no compiler here")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(ExmlError, match=r"model.compile is true, but LeNet5 cannot be compiled here.*set it to false"):
        fit(tmp_path, digit_experts, Recorder(0.0), compile=True)
    assert not (tmp_path / "buffer").exists()


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (
            lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.25, total_iters=3),
            [0.01, 0.0075, 0.005],
        ),
        ("cosine", [0.01, 0.0075, 0.0025]),
        ("one_cycle", [0.0004, 0.01, 0.00000004]),
    ],
)
def test_optimiser_and_schedule_start_anew_for_each_expert(tmp_path, digit_experts, schedule, rates):
    recorder = Recorder(0.0)
    fit(
        tmp_path,
        digit_experts,
        recorder,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.01, momentum=0.9),
        lr_scheduler=schedule,
    )
    assert recorder.rates == pytest.approx(rates * 3)
    assert len(set(recorder.optimizers)) >= 2
    assert len({*recorder.optimizers[0:3]}) == 1


class Watcher(Callback):
    """Looks at the teachers at the start of each experience."""

    def __init__(self) -> None:
        self.ends: list[dict[str, torch.Tensor]] = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        assert not module.previous.training
        assert module.network.training
        assert module.learning == trainer.current_epoch
        if batch_idx == 0 and trainer.current_epoch > 0:
            previous = module.previous.state_dict()
            assert all(torch.equal(previous[name], tensor) for name, tensor in self.ends[-1].items())
        # the experts learned before are nowhere: neither as modules nor in the state
        assert {name.split(".")[0] for name in module.state_dict()} == {
            "network",
            "previous",
            "known",
            "previous_known",
        }

    def on_train_epoch_end(self, trainer, module):
        self.ends.append({name: tensor.clone() for name, tensor in module.network.state_dict().items()})


def test_the_ex_model_becomes_the_previous_one(tmp_path, digit_experts):
    module = fit(tmp_path, digit_experts, Watcher())
    assert module.known.nonzero().flatten().tolist() == [2, 4, 5, 6, 8, 9]
    assert module.previous_known.nonzero().flatten().tolist() == [2, 4, 5, 8]
    assert not any(p.requires_grad for p in module.previous.parameters())


def test_classes_not_yet_learned_are_never_guessed(tmp_path, digit_experts):
    module = fit(tmp_path, digit_experts, Watcher(), epochs=1)
    guesses = module(torch.randn(50, 1, 32, 32)).argmax(dim=1)
    assert set(guesses.tolist()) <= {4, 5}


def test_one_expert_is_in_memory_at_a_time(tmp_path, digit_experts):
    seen: list[int] = []

    def experts_in_memory() -> int:
        gc.collect()
        return sum(type(thing) is Expert for thing in gc.get_objects())

    class Counter(Noise):
        def generate(self, *args):
            seen.append(experts_in_memory())
            return super().generate(*args)

    gc.collect()
    gc.freeze()  # what is there before is not looked at: to count it takes longer than the fit
    try:
        fit(tmp_path, digit_experts, Callback(), generator=Counter())
    finally:
        gc.unfreeze()
    assert seen == [1] * 6  # before the work and in it


class DivergenceRecorder(Callback):
    """Writes the divergence of softened probabilities out, before each step, and keeps what the module returned."""

    def __init__(self, temperature: float) -> None:
        self.temperature = temperature
        self.expected: list[float] = []
        self.returned: list[float] = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        expert = trainer.datamodule.load_expert(0, torch.device("cpu"))
        with torch.no_grad():
            logits, teacher = module.network(batch.images)[:, expert.classes], expert(batch.images)
        q, p = ((x / self.temperature).double().softmax(dim=1) for x in (teacher, logits))
        self.expected.append(float((q * (q / p).log()).sum() / len(q)) * self.temperature**2)

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        self.returned.append(float(outputs["loss"]))


def test_the_loss_can_be_the_divergence_of_softened_probabilities(tmp_path, digit_experts):
    recorder = DivergenceRecorder(temperature=3.0)
    fit(tmp_path, digit_experts, recorder, epochs=1, loss="kl", temperature=3.0, lambda_ce=0.0)
    assert recorder.returned == pytest.approx(recorder.expected, rel=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": 0.0},
        {"lambda_ce": -1.0},
        {"lambda_ce": float("nan")},
    ],
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ExmlError, match=next(iter(wrong))):
        ExModelModule(**wrong)


def test_a_whole_number_of_python_and_one_of_a_configuration_are_the_same_setting():
    network = torch.nn.Linear(1, 1)
    made = [partial(torch.optim.SGD, lr=1, weight_decay=zero) for zero in (0, 0.0, 0.5)]
    first, second, third = (describe_optimizer(network, optimizer, None, 5) for optimizer in made)
    assert first == second != third
    assert "'nesterov': False" in first["optimizer"]
