import itertools
import math

import pytest
import torch
import yaml
from lightning import Trainer
from torch import nn

from exml_lightning.cli.main import main
from exml_lightning.core.errors import ExmlError
from exml_lightning.core.images import ImageFormat
from exml_lightning.core.labelled_images import LabelledImages
from exml_lightning.experts import load_expert, privacy, read_manifest, training
from exml_lightning.experts.privacy import NoisePlan
from exml_lightning.experts.private_training import (
    PoissonLoader,
    PrivateExpertModule,
    check_network,
    check_trainer,
    secret_seed,
)
from exml_lightning.experts.recipe import ExpertRecipe
from exml_lightning.models import LeNet5, SlimResNet18

FORMAT = ImageFormat((1, 8, 8), (0.3,), (0.5,))


def small_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3)
        )


def small_set(n: int) -> LabelledImages:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (n, 1, 8, 8), dtype=torch.uint8, generator=generator)
    return LabelledImages(images, torch.randint(3, (n,), generator=generator), torch.zeros(n, dtype=torch.long))


class Recorder(PrivateExpertModule):
    """Remembers the samples it was trained on."""

    def training_step(self, batch, batch_idx):
        self.batches = [*getattr(self, "batches", []), batch]
        return super().training_step(batch, batch_idx)


def train(tmp_path, plan: NoisePlan, recipe: ExpertRecipe, draw_seed=None, **trainer_args) -> Recorder:
    """Fit the small network, with seeds 0, 1, 2, ... unless others are given."""
    seeds = itertools.count()
    module = Recorder(small_network(), recipe, ("test",), "test", plan, draw_seed or seeds.__next__)
    options = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    trainer = Trainer(default_root_dir=tmp_path, max_epochs=recipe.epochs, **options, **trainer_args)
    trainer.fit(module, train_dataloaders=PoissonLoader(module, small_set(plan.images), FORMAT))
    assert trainer.global_step == recipe.epochs * math.ceil(plan.images / recipe.batch_size)
    return module


@pytest.mark.parametrize("max_grad_norm", [1e9, 0.3])
def test_without_noise_it_is_sgd_on_clipped_gradients_written_out(tmp_path, max_grad_norm):
    recipe = ExpertRecipe(epochs=3, batch_size=2, lr=0.1, momentum=0.9, weight_decay=0.01)
    module = train(tmp_path, NoisePlan(9, 2, 0.0, max_grad_norm, 0.01), recipe)
    sizes = [len(labels) for _, labels in module.batches]
    assert len(sizes) == 3 * 5
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
                v.mul_(0.9).add_(t / 2 + 0.01 * p)
                p.sub_(0.1 * v)
    assert clipped == (0 if max_grad_norm > 1 else sum(sizes))
    for (name, ours), theirs in zip(network.named_parameters(), module.network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4, msg=name)


def test_the_network_is_left_as_it_was(tmp_path):
    module = train(tmp_path, NoisePlan(9, 2, 1.0, 1.0, 0.01), ExpertRecipe(epochs=1, batch_size=2))
    assert [*module.network.state_dict()] == [*small_network().state_dict()]
    assert not any(hasattr(p, "grad_sample") for p in module.network.parameters())
    assert not any(layer._forward_hooks or layer._backward_hooks for layer in module.network.modules())


def test_the_noise_has_the_scale_of_the_plan_and_is_new_in_each_step():
    plan = NoisePlan(100, 10, 2.5, 0.4, 0.01)
    module = PrivateExpertModule(LeNet5(), ExpertRecipe(lr=1, momentum=0, weight_decay=0), (), "test", plan)
    module.log = lambda *args, **more: None
    module.setup("fit")
    optimizer = module.configure_optimizers()
    moves = []
    for step in range(3):
        before = nn.utils.parameters_to_vector(module.network.parameters()).detach()
        batch = torch.zeros(0, 1, 32, 32), torch.zeros(0, dtype=torch.long)  # no image: noise alone
        module.on_train_batch_start(batch, step)
        optimizer.zero_grad()
        module.training_step(batch, step).backward()
        optimizer.step()
        moves.append(nn.utils.parameters_to_vector(module.network.parameters()).detach() - before)
    noise = torch.stack(moves)  # (3, 61706)
    assert noise.mean(dim=1).abs().max() < 5 * 0.1 / math.sqrt(61706)
    torch.testing.assert_close(noise.std(dim=1), torch.full((3,), 2.5 * 0.4 / 10), rtol=0.02, atol=0)
    assert torch.corrcoef(noise).triu(1).abs().max() < 5 / math.sqrt(61706)


def test_each_image_is_drawn_independently_with_the_rate_of_the_plan():
    plan = NoisePlan(200, 20, 1.0, 1.0, 0.001)
    module = PrivateExpertModule(small_network(), ExpertRecipe(batch_size=20), (), "test", plan)
    images = small_set(200)
    images = LabelledImages(images.split, torch.arange(200), images.groups)  # the label tells which image it is
    loader = PoissonLoader(module, images, FORMAT)
    samples = [labels for _ in range(50) for _, labels in loader]
    assert len(samples) == 500
    drawn = torch.stack([torch.bincount(rows, minlength=200) for rows in samples]).double()
    assert drawn.max() == 1
    sizes = drawn.sum(dim=1)  # binomial(200, 0.1)
    assert sizes.mean().item() == pytest.approx(20, abs=5 * math.sqrt(18 / 500))
    assert sizes.var().item() == pytest.approx(18, rel=0.35)
    assert (drawn.mean(dim=0) - 0.1).abs().max() < 5 * math.sqrt(0.09 / 500)
    normalised, labels = next(iter(loader))
    torch.testing.assert_close(normalised, (images.split[labels] / 255 - 0.3) / 0.5)


def test_draws_are_secret(tmp_path):
    seeds = {secret_seed() for _ in range(100)}
    assert len(seeds) == 100
    assert max(seeds) > 2**60
    plan, recipe = NoisePlan(9, 2, 1.0, 1.0, 0.01), ExpertRecipe(epochs=1, batch_size=2)
    first, second, third = (
        train(tmp_path, plan, recipe, draw).network[-1].weight for draw in (None, None, secret_seed)
    )
    assert torch.equal(first, second)
    assert not torch.isclose(first, third, atol=1e-4).any(dim=1).all()


def test_bfloat16_is_float32_within_rounding(tmp_path):
    plan, recipe = NoisePlan(9, 2, 0.5, 1.0, 0.01), ExpertRecipe(epochs=1, batch_size=2, lr=0.1)
    exact, rough = (train(tmp_path, plan, recipe, precision=p).network for p in ("32-true", "bf16-mixed"))
    start = small_network()
    for a, b, c in zip(exact.parameters(), rough.parameters(), start.parameters(), strict=True):
        assert b.dtype == torch.float32
        assert (a - b).norm() < 0.1 * (a - c).norm()


class Centred(nn.Module):
    """Subtracts the mean image, without any layer that is known to do so."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(64, 3)

    def forward(self, images):
        return self.classifier((images - images.mean(dim=0)).flatten(1))


class Idle(nn.Module):
    """Has a weight that takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(64, 3), nn.Linear(2, 2)

    def forward(self, images):
        return self.used(images.flatten(1))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: SlimResNet18(in_channels=1), r"^net: layer stem\.1 \(BatchNorm2d\) cannot be trained with"),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4, affine=False), nn.Flatten()),
            r"layer 1 \(BatchNorm2d\)",  # it has no weights
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 4, 8), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten()),
            r"layer 1 \(BatchNorm2d\)",  # it keeps no statistics
        ),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 4, 8), nn.InstanceNorm2d(4, track_running_stats=True), nn.Flatten()),
            r"layer 1 \(InstanceNorm2d\)",
        ),
        (Centred, "net mixes the images of a step"),
        (Idle, r"the gradients of single images fail \(unused\.weight gets none\)"),
    ],
)
def test_networks_whose_gradients_are_not_those_of_single_images_are_refused(network, message):
    with pytest.raises(ExmlError, match=message) as refused:
        check_network(network(), FORMAT.shape, "net")
    assert "LeNet5" in str(refused.value)


def test_networks_that_suit():
    check_network(LeNet5(), (1, 32, 32), "net")
    check_network(small_network(), FORMAT.shape, "net")
    check_network(SlimResNet18(width=4, in_channels=1, norm="group"), FORMAT.shape, "net")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16-true"}, r"trainer\.precision is bf16-true: give 32-true or bf16-mixed"),
        ({"gradient_clip_val": 1.0}, r"trainer\.gradient_clip_val has no effect"),
        ({"accumulate_grad_batches": 2}, r"trainer\.accumulate_grad_batches must be 1"),
        ({"devices": 2}, "on one device"),
        ({"strategy": "ddp"}, "on one device"),
    ],
)
def test_trainers_that_would_void_the_accounting_are_refused(options, message):
    with pytest.raises(ExmlError, match=message):
        check_trainer(Trainer(accelerator="cpu", logger=False, **options))


@pytest.fixture
def arguments(repository, tmp_path):
    """Arguments that train two private experts for two epochs of five steps each."""

    def make(*more: str) -> list[str]:
        overlay = {
            "data": {"experts": str(tmp_path / "experts")},
            "experts": {"epochs": 2, "batch_size": 64},
            "privacy": {"epsilon": 1},
            "trainer": {"enable_progress_bar": False, "max_epochs": 2},
        }
        path = tmp_path / "experts.yaml"
        path.write_text(yaml.safe_dump(overlay))
        return ["experts", "-c", str(repository / "configs" / "split_digits.yaml"), "-c", str(path), *more]

    return make


def test_private_experts_are_trained_once_and_learned(arguments, tmp_path, small_run, capsys, monkeypatch):
    def refuse(network, shape):
        raise AssertionError("Opacus' gradients of single samples are wrong in channels_last")

    monkeypatch.setattr(training, "fast_layout", refuse)
    main(arguments())
    assert capsys.readouterr().out.count("accuracy; epsilon ") == 2
    folder = tmp_path / "experts"
    manifest = read_manifest(folder)
    for k, entry in enumerate(manifest.experts):
        assert 0.98 < entry.privacy.epsilon <= 1
        assert entry.training["privacy"] == {"epsilon": 1.0, "delta": None, "max_grad_norm": 1.0}
        assert "not reproducible" in entry.training["noise"]
        assert [*load_expert(folder, manifest, k).model.state_dict()] == [*LeNet5().state_dict()]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    main(arguments())
    assert capsys.readouterr().out.count("is done") == 2
    for other in (["--privacy.epsilon", "3"], ["--privacy.epsilon", "null"], ["--privacy.max_grad_norm", "0.5"]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments(*other))
        assert exit_.value.code == 1
        assert "expert 0 has training" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before

    main(small_run(data__experts=str(folder), data__n_iter=2, trainer__max_epochs=2))
    learned = read_manifest(tmp_path / "run" / "ex_model").experts[0]
    assert set(learned.classes) == {name for entry in manifest.experts for name in entry.classes}
    assert learned.privacy is None

    (folder / "expert_0.safetensors").unlink()
    main(arguments())
    assert "is lost; if it was given away, its epsilon counts beside the new one's" in capsys.readouterr().out
    assert (folder / "expert_0.safetensors").read_bytes() != before[folder / "expert_0.safetensors"]


def test_steps_are_counted_once_when_a_stopped_expert_goes_on(arguments, tmp_path, monkeypatch):
    original, done = PrivateExpertModule.training_step, []

    def stopping(self, batch, batch_idx):
        if len(done) == 8:  # in the second epoch
            done.append(None)
            raise RuntimeError("stopped")
        done.append(self.global_step)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(PrivateExpertModule, "training_step", stopping)
    args = arguments("--trainer.max_epochs", "1")
    with pytest.raises(RuntimeError, match="stopped"):
        main(args)
    assert (tmp_path / "experts" / "training" / "expert_0.ckpt").is_file()
    main(args)
    assert done == [*range(8), None, *range(5, 10)]  # the second epoch from its beginning
    spent = read_manifest(tmp_path / "experts").experts[0].privacy
    noise = privacy.plan_noise(privacy.PrivacySettings(1.0), ExpertRecipe(epochs=2, batch_size=64), 269, "it")
    assert spent == noise.spent(10)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--privacy.delta", "0.5"], "privacy.delta is 0.5, but expert 0 has 269 training images"),
        (["--trainer.precision", "64-true"], "trainer.precision is 64-true"),
        (["--privacy.epsilon", "-1"], "privacy.epsilon is -1.0: give a number greater than 0"),
    ],
)
def test_what_cannot_be_private_is_refused_before_work(arguments, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit):
        main(arguments(*more))
    assert message in capsys.readouterr().err
    assert not (tmp_path / "experts").exists()


def test_without_opacus_it_is_said_how_to_install_it(arguments, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(privacy, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as exit_:
        main(arguments())
    assert exit_.value.code == 1
    assert "pip install 'exml-lightning[privacy]'" in capsys.readouterr().err
    assert not (tmp_path / "experts").exists()
