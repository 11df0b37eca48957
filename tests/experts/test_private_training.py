import itertools
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from torch import nn

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.experts import load_expert, privacy, private_training, read_manifest, training
from exml_lightning.experts.expert_module import ExpertRecipe
from exml_lightning.experts.privacy import NoisePlan, PrivacySettings, plan_noise
from exml_lightning.experts.private_training import PrivateExpertModule, check_network, check_trainer, secret_seed
from exml_lightning.models import LeNet5, SlimResNet18
from tests.experts.test_training import train as train_digits

FORMAT = ImageFormat((1, 8, 8), (0.3,), (0.5,))


def small_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3)
        )


def small_set(n: int, labels: torch.Tensor | None = None) -> LabelledImages:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.randint(3, (n,), generator=generator) if labels is None else labels
    return LabelledImages(images, labels, torch.zeros(n, dtype=torch.long))


class Recorder(PrivateExpertModule):
    """Remembers the samples it was trained on."""

    def training_step(self, batch, batch_idx):
        self.batches = [*getattr(self, "batches", []), batch]
        return super().training_step(batch, batch_idx)


def make_module(plan: NoisePlan, recipe: ExpertRecipe, images: LabelledImages) -> Recorder:
    return Recorder(small_network(), recipe, images, FORMAT, ("test",), "test", plan=plan)


@pytest.fixture
def train(tmp_path, monkeypatch) -> Callable[..., Recorder]:
    """Fits the small network to nine images in samples of two, with seeds 0, 1, 2, ... unless others are given."""

    def fit(plan: NoisePlan, recipe: ExpertRecipe, draw_seed=None, **trainer_args: object) -> Recorder:
        monkeypatch.setattr(private_training, "secret_seed", draw_seed or itertools.count().__next__)
        module = make_module(plan, recipe, small_set(9))
        options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
        trainer = Trainer(default_root_dir=tmp_path, max_epochs=recipe.epochs, **options, **trainer_args)
        trainer.fit(module)
        assert trainer.global_step == recipe.epochs * 5
        return module

    return fit


@pytest.mark.parametrize("max_grad_norm", [1e9, 0.3])
def test_without_noise_it_is_sgd_on_clipped_gradients_written_out(train, max_grad_norm):
    recipe = ExpertRecipe(epochs=6, batch_size=2, lr=0.1, momentum=0.9, weight_decay=0.01)
    module = train(NoisePlan(1 / 5, 0.0, max_grad_norm, 0.01), recipe)
    sizes = [len(labels) for _, labels in module.batches]
    assert len(sizes) == 6 * 5
    assert 0 in sizes  # an empty sample is a step, too
    network, clipped = small_network(), 0
    velocity = [torch.zeros_like(p) for p in network.parameters()]
    for images, labels in module.batches:
        total = [torch.zeros_like(p) for p in network.parameters()]
        for image, label in zip(images, labels, strict=True):
            loss = -torch.log_softmax(network(image[None]), dim=1)[0, label]
            gradient = torch.autograd.grad(loss, [*network.parameters()])
            norm = math.sqrt(sum((g**2).sum().item() for g in gradient))
            clipped += norm > max_grad_norm
            for t, g in zip(total, gradient, strict=True):
                t += g * min(1.0, max_grad_norm / norm)
        with torch.no_grad():
            for p, v, t in zip(network.parameters(), velocity, total, strict=True):
                v.mul_(0.9).add_(t / (9 // 5) + 0.01 * p)  # five samples of nine images
                p.sub_(0.1 * v)
    assert (clipped > 0) == (max_grad_norm < 1)
    for (name, ours), theirs in zip(network.named_parameters(), module.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)
    # and the network is left as it was
    assert [*module.network.state_dict()] == [*network.state_dict()]
    assert not any(hasattr(p, "grad_sample") for p in module.network.parameters())
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in module.network.modules())


def test_the_noise_has_the_scale_of_the_plan_and_is_new_in_each_step():
    plan, recipe = NoisePlan(0.1, 2.5, 0.4, 0.01), ExpertRecipe(batch_size=10, lr=1, momentum=0, weight_decay=0)
    network, images = LeNet5(), small_set(100)
    module = PrivateExpertModule(network, recipe, images, FORMAT, ("test",), "test", plan=plan)
    module.log = lambda *args, **more: None
    optimizer = module.configure_optimizers()
    moves = []
    for step in range(3):
        before = nn.utils.parameters_to_vector(network.parameters()).detach()
        batch = torch.zeros(0, 1, 32, 32), torch.zeros(0, dtype=torch.long)  # no image: noise alone
        module.on_train_batch_start(batch, step)
        optimizer.zero_grad()
        module.training_step(batch, step).backward()
        optimizer.step()
        moves.append(nn.utils.parameters_to_vector(network.parameters()).detach() - before)
    noise = torch.stack(moves)  # (3, 61706)
    assert noise.mean(dim=1).abs().max() < 5 * 0.1 / math.sqrt(61706)
    torch.testing.assert_close(noise.std(dim=1), torch.full((3,), 2.5 * 0.4 / 10), rtol=0.02, atol=0)
    assert torch.corrcoef(noise).triu(1).abs().max() < 5 / math.sqrt(61706)


def test_each_image_is_drawn_independently_with_the_rate_of_the_plan():
    images = small_set(200, labels=torch.arange(200))  # the label tells which image it is
    module = make_module(NoisePlan(0.1, 1.0, 1.0, 0.001), ExpertRecipe(batch_size=20), images)
    module.configure_optimizers()
    batches = [module.on_after_batch_transfer(rows, 0) for _ in range(50) for rows in module.train_dataloader()]
    assert len(batches) == 500
    drawn = torch.stack([torch.bincount(labels, minlength=200) for _, labels in batches]).double()
    assert drawn.max() == 1
    sizes = drawn.sum(dim=1)  # binomial(200, 0.1)
    assert sizes.mean().item() == pytest.approx(20, abs=5 * math.sqrt(18 / 500))
    assert sizes.var().item() == pytest.approx(18, rel=0.35)
    assert (drawn.mean(dim=0) - 0.1).abs().max() < 5 * math.sqrt(0.09 / 500)
    normalised, labels = batches[0]
    torch.testing.assert_close(normalised, (images.split[labels] / 255 - 0.3) / 0.5)


def test_every_sample_and_every_step_has_a_secret_seed_of_its_own(train):
    assert len({secret_seed() >> 32 for _ in range(100)}) == 100
    counter = itertools.count()
    module = train(NoisePlan(1 / 5, 1.0, 1.0, 0.01), ExpertRecipe(epochs=2, batch_size=2), counter.__next__)
    assert next(counter) == 1 + 2 * 10  # the first sample's; then of each step, and of the sample after it
    for step, (images, _) in enumerate(module.batches):
        generator = torch.Generator().manual_seed(2 * step)
        if step in (0, 5):  # where a loader starts an epoch, it draws a seed for workers, which it does not have
            torch.empty((), dtype=torch.int64).random_(generator=generator)
        rows = (torch.rand(9, generator=generator) < 1 / 5).nonzero().flatten()
        torch.testing.assert_close(images, FORMAT.normalize(small_set(9).split[rows]))


def test_bfloat16_is_float32_within_rounding(train):
    plan, recipe = NoisePlan(1 / 5, 0.5, 1.0, 0.01), ExpertRecipe(epochs=1, batch_size=2, lr=0.1)
    exact, rough = (train(plan, recipe, precision=p).network for p in ("32-true", "bf16-mixed"))
    for a, b, c in zip(exact.parameters(), rough.parameters(), small_network().parameters(), strict=True):
        assert b.dtype == torch.float32
        assert (a - b).norm() < 0.1 * (a - c).norm()


class Centred(nn.Module):
    """Subtracts the mean image, without any layer that is known to do so."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(64, 3)

    def forward(self, images):
        return self.classifier((images - images.mean(dim=0)).flatten(1))


class Rows(nn.Module):
    """Asks its layer about each row of an image as if it were an image."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)

    def forward(self, images):
        return self.layer(images.reshape(-1, 8)).reshape(-1, 8, 3).mean(dim=1)


def after_a_convolution(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 5), norm, nn.Flatten(), nn.Linear(64, 3))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (SlimResNet18(in_channels=1), r"^net: layer stem\.1 \(BatchNorm2d\) cannot be trained with"),
        (after_a_convolution(nn.BatchNorm2d(4, affine=False)), r"layer 1 \(BatchNorm2d\)"),  # no weights
        (after_a_convolution(nn.InstanceNorm2d(4, track_running_stats=True)), r"layer 1 \(InstanceNorm2d\)"),
        (Centred(), "net mixes the images of a step"),
        (Rows(), r"the gradients of single images fail \(layer\.weight gets none\)"),
    ],
)
def test_networks_whose_gradients_are_not_those_of_single_images_are_refused(network, message):
    with pytest.raises(ExmlError, match=f"{message}.*LeNet5"):
        check_network(network, FORMAT.shape, "net")
    check_network(SlimResNet18(width=4, in_channels=1, norm="group"), FORMAT.shape, "net")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"precision": "bf16-true"},
            r"trainer\.precision is bf16-true, but must be one of \('32-true', 'bf16-mixed'\)",
        ),
        ({"gradient_clip_val": 1.0}, r"trainer\.gradient_clip_val has no effect"),
        ({"accumulate_grad_batches": 2}, r"trainer\.accumulate_grad_batches must be 1"),
        ({"strategy": "ddp"}, "on one device"),
    ],
)
def test_trainers_that_would_void_the_accounting_are_refused(options, message):
    with pytest.raises(ExmlError, match=message):
        check_trainer(Trainer(accelerator="cpu", logger=False, **options))


PRIVATE = {"epochs": 2, "limit": 1, "privacy": PrivacySettings(1.0)}


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """A private expert, trained for two epochs of five steps each."""

    def refuse(network, shape):
        raise AssertionError("Opacus' gradients of single samples are wrong in channels_last")

    folder = tmp_path_factory.mktemp("private") / "experts"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "fast_layout", refuse)
        train_digits(folder, **PRIVATE)
    return folder


def test_the_manifest_says_what_was_spent(trained):
    manifest = read_manifest(trained)
    entry = manifest.experts[0]
    plan = plan_noise(PrivacySettings(1.0), ExpertRecipe(epochs=2, batch_size=64), 269, "expert 0")
    assert entry.privacy == plan.spent(10)
    assert 0.98 < entry.privacy.epsilon <= 1
    assert entry.privacy.delta == 1 / 2690
    assert entry.training["privacy"] == {"epsilon": 1.0, "delta": None, "max_grad_norm": 1.0}
    assert "not reproducible" in entry.training["noise"]
    assert [*load_expert(trained, manifest, 0).model.state_dict()] == [*LeNet5().state_dict()]


def test_private_experts_are_trained_once_and_those_of_other_settings_refused(trained, tmp_path, capsys):
    folder = shutil.copytree(trained, tmp_path / "experts")
    before = {path: path.read_bytes() for path in folder.iterdir()}
    train_digits(folder, **PRIVATE)
    assert capsys.readouterr().out.count("is done") == 1
    for other in (PrivacySettings(3.0), PrivacySettings(), PrivacySettings(1.0, max_grad_norm=0.5)):
        with pytest.raises(ExmlError, match="expert 0: training is"):
            train_digits(folder, **{**PRIVATE, "privacy": other})
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    (folder / "expert_0.safetensors").unlink()
    train_digits(folder, **PRIVATE)
    assert "is lost; if it was given away, its epsilon counts beside the new one's" in capsys.readouterr().out
    assert (folder / "expert_0.safetensors").read_bytes() != before[folder / "expert_0.safetensors"]


def test_private_experts_are_learned_and_the_ex_model_claims_nothing(trained, tmp_path, small_run):
    main(small_run(data__experts=str(trained), data__n_iter=2, trainer__max_epochs=1))
    learned = read_manifest(tmp_path / "run" / "ex_model").experts[0]
    assert set(learned.classes) == {"5", "4"}
    assert learned.privacy is None


def test_steps_are_counted_once_when_a_stopped_expert_goes_on(trained, tmp_path, monkeypatch):
    original, done = PrivateExpertModule.training_step, []

    def stopping(self, batch, batch_idx):
        if len(done) == 8:  # in the second epoch
            done.append(None)
            raise RuntimeError("stopped")
        done.append(self.global_step)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(PrivateExpertModule, "training_step", stopping)
    with pytest.raises(RuntimeError, match="stopped"):
        train_digits(tmp_path, **PRIVATE)
    assert (tmp_path / "training" / "expert_0.ckpt").is_file()
    train_digits(tmp_path, **PRIVATE)
    assert done == [*range(8), None, *range(5, 10)]  # the second epoch from its beginning
    assert read_manifest(tmp_path).experts[0].privacy == read_manifest(trained).experts[0].privacy


def test_a_delta_that_protects_no_one_and_a_missing_opacus_are_told_before_work(tmp_path, monkeypatch):
    with pytest.raises(ExmlError, match=r"delta is 0\.5, but expert 0 has 269 training images"):
        train_digits(tmp_path / "experts", privacy=PrivacySettings(1.0, delta=0.5))
    monkeypatch.setattr(privacy, "find_spec", lambda name: None)
    with pytest.raises(ExmlError, match=re.escape("pip install 'exml-lightning[privacy]'")):
        train_digits(tmp_path / "experts", **PRIVATE)
    assert not (tmp_path / "experts").exists()


def test_statistics_share_what_an_expert_may_spend(tmp_path, capsys):
    """In all no more than it; and another recipe than without, since the weights have more noise."""
    settings = PrivacySettings(8.0)
    (entry, *_) = train_digits(tmp_path, 1, privacy=settings, statistics=True).experts
    assert 7.9 < entry.privacy.epsilon <= 8
    assert 3.9 < entry.statistics.privacy.epsilon <= 4
    assert load_expert(tmp_path, read_manifest(tmp_path), 0).statistics is not None
    file = tmp_path / entry.statistics.file
    before = file.read_bytes()
    file.unlink()
    again = train_digits(tmp_path, 1, privacy=settings, statistics=True).experts[0]
    assert again.sha256 == entry.sha256
    assert f"{file} is lost: the epsilon of new statistics counts beside it" in capsys.readouterr().out
    assert 7.8 < again.statistics.privacy.epsilon <= 8
    assert 11.8 < again.privacy.epsilon <= 12
    assert file.read_bytes() != before
    with pytest.raises(ExmlError, match="expert 0: training is"):
        train_digits(tmp_path, 1, privacy=settings)
